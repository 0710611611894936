//! Registry on the peer-to-peer network of a node.
//!
//! ```text
//!   reading      head ◄── DHT (best of all holders) ──► compared to those seen ──► index, manifest, archive ◄── peers
//!   publishing   archive, manifest, index provided ──► head signed, stored, put, read back ──► announced
//!   listening    announcements, peers' catalogues ──► discovered packages, search
//! ```
//!
//! [`P2PRegistry::start`] starts the tasks. A registry is set up in four steps: [`configure`] the node, create a
//! [`RegistryBehaviour`] and start the node with it, start the registry, and wait until the node is ready.

mod behaviour;
mod catalogues;
mod config;
mod connections;
mod contents;
mod events;
mod heads;
mod listener;
mod published;
mod publishing;
mod republishing;
mod search_updates;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    convert::Infallible,
    fmt, io,
    path::Path,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use async_channel::Receiver;
use async_trait::async_trait;
use blocking::unblock;
use futures::{
    FutureExt,
    future::{Either, select},
};
use kadence::{Alarm, Client, Runtime, SwarmHandle, node::Node, node::NodeBehaviour};
use libp2p::PeerId;
use libp2p_gossipsub::IdentTopic;
use libp2p_identity::Keypair;
use semver::Version;

pub use self::{
    behaviour::{RegistryBehaviour, RegistryBehaviourEvent, configure},
    config::{RegistryConfig, RegistryStartError},
    events::{RegistryEvent, RegistryEvents},
};
use self::{
    connections::Connections, events::Subscribers, heads::HeadCache, listener::Listener, published::PublishedPackages,
};
use super::{
    Reputation,
    announce::{AnnouncementValidator, Discovered, DiscoveredPackage},
    head::HeadStore,
    requests::{self, CatalogueClient},
    transfer::{self, Fetcher, Server, ServerStats, StatsHandle},
};
use crate::{
    ContentId, GetError, Index, PackageId, PublishError, Query, Receipt, Registry, Release, SearchIndex, SearchPage,
    Steps, StorageError, blob::BlobStore, unix,
};

/// Timeout for a catalogue request, including the connection to the peer.
const CATALOGUE_TIMEOUT: Duration = Duration::from_secs(10);

/// Package registry on the network of a node. Cheap to clone; all clones are the same registry. It implements
/// the trait [`Registry`], and has operations of its own, such as [`search_network`](Self::search_network).
///
/// Readers trust only the publisher of a package, whose key is part of the package's id, and check its signed heads
/// against those that they saw before. The registry runs until its node stops, even if all clones are dropped.
///
/// # Example
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// use std::time::Duration;
///
/// use kadence_registry::{
///     Query, Registry,
///     p2p::registry::{P2PRegistry, RegistryBehaviour, RegistryConfig, configure},
/// };
/// use kadence_smol::{Identity, NodeConfig, SmolRuntime};
/// use libp2p_identity::Keypair;
///
/// let keypair = Keypair::generate_ed25519();
/// let mut node = NodeConfig::default();
/// node.identity = Identity::Keypair(keypair.clone());
/// node.bootstrap_peers = vec!["/dns4/registry.example.org/tcp/4001".parse()?];
/// configure(&mut node);
///
/// let config = RegistryConfig::in_folder("registry");
/// let behaviour = RegistryBehaviour::new(&keypair, &config)?;
/// let mut node = kadence_smol::node_with(node, |_| behaviour).await?;
/// let registry = P2PRegistry::start(&mut node, SmolRuntime::default(), keypair, config).await?;
/// node.ready(Duration::from_secs(10)).await?;
///
/// let page = registry.search_network(&Query::builder().text("pad").build()?).await?;
/// for hit in page.hits {
///     println!("{}", hit.package);
/// }
/// registry.close().await;
/// node.shutdown().await;
/// # Ok(())
/// # }
/// ```
pub struct P2PRegistry<R: Runtime> {
    inner: Arc<Inner<R>>,
}

struct Inner<R: Runtime> {
    config: RegistryConfig,
    keypair: Keypair,
    publisher: PeerId,
    topic: IdentTopic,
    client: Client,
    swarm: SwarmHandle<NodeBehaviour<RegistryBehaviour>>,
    runtime: R,
    blobs: BlobStore,
    published: PublishedPackages,
    head_store: Arc<HeadStore>,
    reputation: Arc<Reputation>,
    search: SearchIndex,
    validator: Mutex<AnnouncementValidator>,
    discovered: Mutex<Discovered>,
    head_cache: Mutex<HeadCache>,
    connections: Connections,
    fetcher: Fetcher,
    /// Fetches into `index_cache`: an index that is read for the search only is removed at once.
    index_fetcher: Fetcher,
    index_cache: BlobStore,
    catalogue: CatalogueClient<R>,
    subscribers: Subscribers,
    /// Closed when the node has stopped. No message is ever sent.
    ended: Receiver<Infallible>,
    server_stats: StatsHandle,
    /// Held from reading the newest head of a package until the next one is put.
    publishing: futures::lock::Mutex<()>,
    /// Positions up to which the catalogues of peers were read.
    cursors: Mutex<HashMap<PeerId, super::announce::Cursor>>,
}

impl<R: Runtime> P2PRegistry<R> {
    /// Starts the registry on a node, and takes the events of the node. The node's configuration must have been passed
    /// to [`configure`]. The folder of the registry is created if it does not exist.
    ///
    /// Packages are published under `keypair`, which may be that of the node.
    ///
    /// # Errors
    ///
    /// See [`RegistryStartError`].
    pub async fn start(
        node: &mut Node<RegistryBehaviour>,
        runtime: R,
        keypair: Keypair,
        config: RegistryConfig,
    ) -> Result<Self, RegistryStartError> {
        let folder = config.folder.clone();
        // The search index comes first: only one process can open it.
        let made = folder.clone();
        unblock(move || std::fs::create_dir_all(&made))
            .await
            .map_err(|source| StorageError::Folder { path: folder.clone(), source })?;
        let search = SearchIndex::open(folder.join("search.db"), SearchIndex::DEFAULT_CAPACITY).await?;
        let (blobs, index_cache, published, head_store, reputation) = unblock(move || {
            let blobs = BlobStore::open(folder.join("content"))?;
            let index_cache = open_empty(&folder.join("index-cache"))?;
            let published = PublishedPackages::open(folder.join("published"))?;
            let head_store = HeadStore::open(&folder.join("heads.db"))?;
            let reputation = Reputation::open(&folder.join("peers.db"))?;
            Ok::<_, RegistryStartError>((blobs, index_cache, published, Arc::new(head_store), Arc::new(reputation)))
        })
        .await?;

        let mut control = node.swarm().with(|swarm| swarm.behaviour().app.streams.new_control()).await?;
        let server = Server::new(&mut control, blobs.clone(), &runtime, config.server)
            .map_err(|transfer::ProtocolTakenError| RegistryStartError::AlreadyRunning)?;
        let questions = control.accept(requests::CATALOGUE_PROTOCOL).map_err(|_| RegistryStartError::AlreadyRunning)?;
        let events = node.events().ok_or(RegistryStartError::EventsTaken)?;
        let fetcher = Fetcher::new(control.clone(), blobs.clone(), &runtime, config.fetch);
        let now = SystemTime::now();
        let (running, ended) = async_channel::bounded(1);
        let inner = Arc::new(Inner {
            publisher: keypair.public().to_peer_id(),
            keypair,
            topic: IdentTopic::new(&config.topic),
            client: node.client().clone(),
            swarm: node.swarm().clone(),
            index_fetcher: fetcher.with_store(index_cache.clone()),
            index_cache,
            fetcher,
            catalogue: CatalogueClient::new(runtime.clone(), control, CATALOGUE_TIMEOUT),
            validator: Mutex::new(AnnouncementValidator::new(config.validator)),
            // Unique: no two runs of a node start in the same millisecond.
            discovered: Mutex::new(Discovered::new(unix::millis(now))),
            head_cache: Mutex::default(),
            connections: Connections::default(),
            subscribers: Subscribers::default(),
            ended,
            server_stats: server.stats(),
            publishing: futures::lock::Mutex::new(()),
            cursors: Mutex::default(),
            runtime: runtime.clone(),
            config,
            blobs,
            published,
            head_store,
            reputation,
            search,
        });
        let (listener, learning) = Listener::new(Arc::clone(&inner), running);
        let catalogue = Arc::new(catalogues::RegistryCatalogue(Arc::clone(&inner)));
        inner.spawn(server.run());
        inner.spawn(requests::serve_catalogue(runtime.clone(), questions, catalogue));
        inner.spawn(learning);
        inner.spawn(republishing::run(Arc::clone(&inner)));
        // This task ends the others.
        runtime.spawn(listener.listen(events).boxed());
        Ok(Self { inner })
    }

    /// Returns a stream of the events from now on. At most 64 streams exist at the same time: a further one ends the
    /// oldest.
    pub fn events(&self) -> RegistryEvents {
        self.inner.subscribers.add()
    }

    /// Returns the packages that were announced by their publishers, or reported by peers, since the start of the
    /// registry, oldest change first. Packages that this registry published or republished are included, unless their
    /// announcement could not be created. At most [`MAX_DISCOVERED`](super::announce::MAX_DISCOVERED) packages are
    /// remembered, until the registry ends.
    pub fn discovered_packages(&self) -> Vec<DiscoveredPackage> {
        lock(&self.inner.discovered).snapshot()
    }

    /// Searches in the catalogues of connected peers, adds the packages that they report to the local search index, and
    /// returns the page of the query from that index. Signatures of reports are verified.
    ///
    /// Up to eight connected peers are asked, best reputation first, for up to 100 packages each. Peers that do not
    /// answer within 10 s are skipped. Then the call waits for up to 5 s for the indexes of the reported packages; a
    /// package whose index cannot be read in time is found only by its name and title, or by its earlier entry in the
    /// search index.
    ///
    /// # Errors
    ///
    /// If the local search index fails.
    pub async fn search_network(&self, query: &Query) -> Result<SearchPage, GetError> {
        self.inner.search_peers(query).await;
        Ok(self.inner.search.search(query).await?)
    }

    /// Returns the peer id of the key pair under which this registry publishes.
    pub fn publisher(&self) -> PeerId {
        self.inner.publisher
    }

    /// Returns the reputation of the peers that this registry has asked.
    pub fn reputation(&self) -> &Reputation {
        &self.inner.reputation
    }

    /// Returns the store of the heads that were seen, for example to inspect or accept an equivocation. The methods of
    /// the store block.
    pub fn head_store(&self) -> &HeadStore {
        &self.inner.head_store
    }

    /// Returns the counters of this registry's blob server since the start.
    pub fn server_stats(&self) -> ServerStats {
        self.inner.server_stats.read()
    }

    /// Publishes a package of this registry again: puts its newest head into the DHT, announces this node as a provider
    /// of those contents of the package that are in its store, and announces the package. If less than half of the
    /// validity in [`RegistryConfig::lifetime`](field@RegistryConfig::lifetime) is left for the head, the next head is
    /// signed first. It is not signed if the lookup of the head timed out, or if it found no head or only an older one and
    /// too few peers answered to exclude a newer one. The copy in the node's own store counts as found. Returns `None` if
    /// the folder has no head of the package that was signed with this key.
    ///
    /// While the node has a connected peer, this also happens automatically: soon after the start, then at each
    /// [`RegistryConfig::republish_interval`](field@RegistryConfig::republish_interval), and earlier after the first
    /// failures.
    ///
    /// # Errors
    ///
    /// If the lookup of the head fails, or the head cannot be signed, stored or put. A lookup that times out or gets too
    /// few answers is no failure: the newest head in the folder is put again. The outcomes of the other steps, which may
    /// have failed, are in the returned [`Steps`].
    pub async fn republish(&self, package: &PackageId) -> Result<Option<Steps>, PublishError> {
        self.inner.republish(package).await
    }

    /// Writes the reputation of peers to the disk; a failure is only logged. This also happens about every minute, and
    /// when the node stops. Everything else that survives a restart is on the disk already.
    ///
    /// The registry goes on running: to end it, shut its node down.
    pub async fn close(&self) {
        self.inner.save().await;
    }
}

#[async_trait]
impl<R: Runtime> Registry for P2PRegistry<R> {
    async fn search(&self, query: &Query) -> Result<SearchPage, GetError> {
        Ok(self.inner.search.search(query).await?)
    }

    async fn index(&self, package: &PackageId) -> Result<Option<Index>, GetError> {
        match self.inner.head(package).await? {
            Some(head) => self.inner.index_of(&head).await.map(Some),
            None => Ok(None),
        }
    }

    async fn fetch(&self, package: &PackageId, content: &ContentId, size: u64) -> Result<(), GetError> {
        self.inner.fetch(package, *content, size).await
    }

    async fn publish(&self, release: Release) -> Result<Receipt, PublishError> {
        self.inner.publish(release).await
    }

    async fn yank(&self, package: &PackageId, version: &Version) -> Result<Receipt, PublishError> {
        self.inner.set_yanked(package, version, true).await
    }

    async fn unyank(&self, package: &PackageId, version: &Version) -> Result<Receipt, PublishError> {
        self.inner.set_yanked(package, version, false).await
    }

    fn blobs(&self) -> &BlobStore {
        &self.inner.blobs
    }
}

impl<R: Runtime> Clone for P2PRegistry<R> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<R: Runtime> fmt::Debug for P2PRegistry<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("P2PRegistry").field("publisher", &self.inner.publisher).finish_non_exhaustive()
    }
}

impl<R: Runtime> Inner<R> {
    async fn save(&self) {
        let reputation = Arc::clone(&self.reputation);
        if let Err(error) = unblock(move || reputation.save()).await {
            tracing::warn!(%error, "reputation of peers was not saved");
        }
    }

    /// Runs a call to the head store, which blocks, on another thread.
    async fn with_head_store<T: Send + 'static>(&self, ask: impl FnOnce(&HeadStore) -> T + Send + 'static) -> T {
        let store = Arc::clone(&self.head_store);
        unblock(move || ask(&store)).await
    }

    /// Spawns a task that ends with the node at the latest. It may hold references that keep files open.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let ended = self.ended.clone();
        let until_it_ends = async move {
            select(pin!(ended.recv()), pin!(task)).await;
        };
        self.runtime.spawn(until_it_ends.boxed());
    }

    /// Returns the output of the future, or `None` if the node stops first.
    async fn while_running<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        // The stop is polled first: without a node, the future may also be ready, with a misleading error.
        match select(pin!(self.ended.recv()), pin!(future)).await {
            Either::Left(_) => None,
            Either::Right((output, _)) => Some(output),
        }
    }

    async fn sleep(&self, span: Duration) {
        Alarm::new(&self.runtime).sleep(span).await;
    }

    fn now(&self) -> Instant {
        self.runtime.now()
    }
}

/// Opens a blob store after deleting the content of earlier runs.
fn open_empty(folder: &Path) -> Result<BlobStore, RegistryStartError> {
    match std::fs::remove_dir_all(folder) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(StorageError::Folder { path: folder.to_owned(), source }.into())
        }
        _ => Ok(BlobStore::open(folder)?),
    }
}

/// Locks a mutex. A poisoned one stays in use: every critical section makes one consistent change.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
