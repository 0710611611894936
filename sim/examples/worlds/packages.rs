//! Package registries of a world, their calls, and what has to hold for their packages.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    fs,
    pin::pin,
    rc::Rc,
    time::Duration,
};

use futures::future::{self, AbortHandle, Abortable, Either};
use kadence_registry::{
    ContentId, MANIFEST_FILE, PackageId, Registry, Release,
    p2p::registry::{P2PRegistry, RegistryBehaviour, RegistryConfig, configure},
};
use kadence_sim::{
    Host, SimRuntime,
    kadence::node::{Node, NodeConfig},
    libp2p::identity::Keypair,
};
use rand::Rng;

use crate::{
    AnyError,
    plan::{Kind, PackageCall, PackageOperation},
    play::{Stage, Who},
};

/// Node with a registry.
pub(crate) struct Peer {
    pub(crate) node: Node<RegistryBehaviour>,
    registry: Rc<P2PRegistry<SimRuntime>>,
    /// Calls that end with the process.
    calls: RefCell<Vec<AbortHandle>>,
}

/// Returns the id of the one package of a node.
fn package_of(keypair: &Keypair) -> Result<PackageId, AnyError> {
    Ok(PackageId::new(keypair.public().to_peer_id(), "pads".parse()?)?)
}

impl Peer {
    pub(crate) async fn start(host: &Host, mut config: NodeConfig, keypair: &Keypair) -> Result<Self, AnyError> {
        configure(&mut config);
        // Shorter than the rest after the last fault: who has read a head uses it for so long.
        let registry = RegistryConfig::in_folder(host.disk()).max_head_age(HEAD_AGE);
        let behaviour = RegistryBehaviour::new(keypair, &registry)?;
        let mut node = host.node_with(config, |_| behaviour).await?;
        let registry = P2PRegistry::start(&mut node, host.runtime(), keypair.clone(), registry).await?;
        Ok(Self { node, registry: Rc::new(registry), calls: RefCell::default() })
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.calls.take().iter().for_each(AbortHandle::abort);
    }
}

/// What has been published and read.
#[derive(Default)]
pub(crate) struct Packages {
    /// Number of versions that each node has tried to publish.
    tried: BTreeMap<usize, usize>,
    /// Contents of the versions of each node that were published without an error.
    published: BTreeMap<usize, BTreeMap<String, ContentId>>,
    /// Most versions of a node's package that a reader has seen.
    seen: BTreeMap<(usize, usize), usize>,
    /// Versions that were read, with the id of their content: the reader, the publisher, the version.
    read: BTreeSet<(usize, usize, String, ContentId)>,
}

/// Time for which a registry uses a head that it has read.
const HEAD_AGE: Duration = Duration::from_secs(60);

/// Time within which every call of a registry ends. Publications of one package wait for each other.
const CALL: Duration = Duration::from_secs(600);

/// Length of the one file of a package, in bytes: its blobs have hash trees and are fetched in pieces.
const FILE_LEN: usize = 60_000;

/// What a registry lets its caller know of a package.
struct Reading {
    versions: BTreeMap<String, ContentId>,
    /// Success of fetching the newest version.
    fetched: Result<(), String>,
}

async fn read(registry: &P2PRegistry<SimRuntime>, package: &PackageId) -> Result<Reading, String> {
    let index = registry.index(package).await.map_err(|error| error.to_string())?.ok_or("no index")?;
    let versions = index.versions().iter().map(|(version, entry)| (version.to_string(), entry.archive)).collect();
    let fetched = match index.versions().values().last() {
        Some(newest) => {
            let fetched = registry.fetch(package, &newest.archive, newest.archive_size).await;
            fetched.map(drop).map_err(|error| error.to_string())
        }
        None => Ok(()),
    };
    Ok(Reading { versions, fetched })
}

fn version(number: usize) -> String {
    format!("1.0.{number}")
}

impl Stage {
    /// Returns the host and the registry of a node, unless its process is gone.
    fn registry(&self, at: usize) -> Option<(Host, Rc<P2PRegistry<SimRuntime>>)> {
        let actor = self.actor(at)?.borrow();
        match &actor.who {
            Who::Registry(peer) => Some((actor.host.clone(), Rc::clone(&peer.registry))),
            Who::Kadence(_) | Who::Foreign(_) | Who::Gone => None,
        }
    }

    /// Writes a package that cannot be compressed, and reads it for its publication.
    async fn release(&self, registry: &P2PRegistry<SimRuntime>, number: usize) -> Result<Release, AnyError> {
        // The folder that is packed is not on the host.
        let folder = self.world().folder()?;
        let content: Vec<u8> = self.world().random(|random| (0..FILE_LEN).map(|_| random.random()).collect());
        fs::write(folder.join(MANIFEST_FILE), format!("name = \"pads\"\nversion = \"{}\"\n", version(number)))?;
        fs::write(folder.join("file"), content)?;
        Ok(Release::read(registry.publisher(), folder).await?)
    }

    /// Makes a call. It ends with the process of its node.
    pub(crate) async fn package_call(&self, call: &PackageCall) {
        self.sleep_until(Duration::from_millis(call.at)).await;
        let (handle, registration) = AbortHandle::new_pair();
        let Some(actor) = self.actor(call.by) else { return };
        match &actor.borrow().who {
            Who::Registry(peer) => peer.calls.borrow_mut().push(handle),
            Who::Kadence(_) | Who::Foreign(_) | Who::Gone => return,
        }
        let began = self.world().now();
        let made = Abortable::new(self.perform_package_call(call), registration);
        if let Either::Right(_) = future::select(pin!(made), pin!(self.world().sleep(CALL))).await
            && !self.plan().is_halted(call.by, began, self.world().now())
        {
            let text = format!("{:?} by {} does not end", call.what, self.name(call.by));
            self.violated("package deadline", text, &[call.by], None);
        }
    }

    async fn perform_package_call(&self, call: &PackageCall) {
        match call.what {
            PackageOperation::Publish => {
                let _is_published = self.publish(call.by).await;
            }
            PackageOperation::Fetch { of } => {
                let _is_there = self.fetch(call.by, of).await;
            }
        }
    }

    /// Publishes the next version of a node's package.
    async fn publish(&self, by: usize) -> Result<(), String> {
        let Some((host, registry)) = self.registry(by) else { return Err("its process is gone".to_owned()) };
        let number = {
            let mut packages = self.packages().borrow_mut();
            let tried = packages.tried.entry(by).or_default();
            *tried += 1;
            *tried
        };
        let release = match self.release(&registry, number).await {
            Ok(release) => release,
            Err(error) => {
                let text = format!("a package cannot be read: {error}");
                self.violated("start", text.clone(), &[by], None);
                return Err(text);
            }
        };
        let published = host.by_clock(registry.publish(release)).await;
        let result = published.as_ref().map(|_receipt| ()).map_err(ToString::to_string);
        self.note(&[by], None, format!("{} publishes version {number}: {result:?}", self.name(by)));
        self.outcome(format!("Publish {}", if result.is_ok() { "Ok" } else { "Error" }));
        if let Ok(receipt) = published {
            let mut packages = self.packages().borrow_mut();
            packages.published.entry(by).or_default().insert(version(number), receipt.archive);
        }
        result
    }

    /// Reads a package and fetches its newest version. Returns the number of versions, or what is wrong.
    async fn fetch(&self, by: usize, of: usize) -> Result<usize, String> {
        let package = self.actor(of).and_then(|actor| package_of(&actor.borrow().keypair).ok());
        let (Some((host, registry)), Some(package)) = (self.registry(by), package) else {
            return Err("its node is gone".to_owned());
        };
        let seen = self.packages().borrow().seen.get(&(by, of)).copied().unwrap_or(0);
        let reading = host.by_clock(read(&registry, &package)).await;
        let result = reading.as_ref().map(|reading| (reading.versions.len(), &reading.fetched));
        self.note(&[by, of], None, format!("{} reads the package of {}: {result:?}", self.name(by), self.name(of)));
        let Reading { versions, fetched } = match reading {
            Ok(reading) => reading,
            Err(error) => {
                self.outcome("Fetch NotRead".to_owned());
                return Err(error);
            }
        };
        if seen > 1 {
            self.at_stake("package rollback");
        }
        if versions.len() < seen {
            let text = format!(
                "{} reads {} versions of the package of {}, of which it has read {seen}",
                self.name(by),
                versions.len(),
                self.name(of)
            );
            self.violated("package rollback", text, &[by, of], None);
        }
        let number = versions.len();
        {
            let mut packages = self.packages().borrow_mut();
            let most = packages.seen.entry((by, of)).or_default();
            *most = number.max(*most);
            packages.read.extend(versions.into_iter().map(|(version, content)| (by, of, version, content)));
        }
        self.outcome(format!("Fetch {}", if fetched.is_ok() { "Ok" } else { "NotFetched" }));
        fetched.map(|()| number)
    }

    /// Nobody has read a version, or a content of one, that its publisher has not made.
    pub(crate) fn check_packages_are_genuine(&self) {
        let Packages { tried, published, read, .. } = &*self.packages().borrow();
        let lies = self.plan().nodes.iter().any(|node| node.kind.lies());
        for (by, of, version_read, content) in read {
            if lies {
                self.at_stake("package");
            }
            let has_tried = (1..=tried.get(of).copied().unwrap_or(0)).any(|number| version(number) == *version_read);
            // What a failed publication has made of its version is not known.
            let made = published.get(of).and_then(|versions| versions.get(version_read)).unwrap_or(content);
            if !has_tried || made != content {
                let text = format!("{} has read {version_read}, which {} has not made", self.name(*by), self.name(*of));
                self.violated("package", text, &[*by, *of], None);
            }
        }
    }

    /// All faults are over: who has tried to publish can publish.
    pub(crate) async fn check_packages_are_published(&self) {
        let publishers: Vec<_> = self.packages().borrow().tried.keys().copied().collect();
        for by in publishers {
            self.at_stake("published at last");
            if let Err(error) = self.publish(by).await {
                let text = format!("{} cannot publish its package: {error}", self.name(by));
                self.violated("published at last", text, &[by], None);
            }
        }
    }

    /// All faults are over: every registry gets what was published.
    pub(crate) async fn check_packages_are_found(&self) {
        let published = self.packages().borrow().published.clone();
        for (of, versions) in published.into_iter().map(|(of, versions)| (of, versions.len())) {
            let readers = (0..self.plan().nodes.len()).filter(|at| *at != of && self.kind(*at) == Kind::Registry);
            for by in readers {
                self.at_stake("package at last");
                let wrong = match self.fetch(by, of).await {
                    Ok(number) if number >= versions => continue,
                    Ok(number) => format!("{number} versions of {versions}"),
                    Err(error) => error,
                };
                let text = format!("{} does not get the package of {}: {wrong}", self.name(by), self.name(of));
                self.violated("package at last", text, &[by, of], None);
            }
        }
    }
}
