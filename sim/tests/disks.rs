//! Disks of hosts: what a power failure leaves, and what becomes of a node whose disk is full or fails.

#![cfg(test)]

use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Seek, Write},
    time::Duration,
};

use kadence_registry::{
    MANIFEST_FILE, PackageId, PublishError, Receipt, Registry, Release,
    p2p::registry::{P2PRegistry, RegistryBehaviour, RegistryConfig, configure},
};
use kadence_sim::{
    DiskState, Host, Link, Member, PORT, SimRuntime, World, WorldConfig,
    kadence::{
        ContainsKad, Quorum, Runtime, Timer,
        node::{Identity, Node, NodeConfig, NodeStore},
    },
    libp2p::{
        identity::Keypair,
        kad::{Record, RecordKey, store::RecordStore},
    },
    run,
};

fn world<F: Future<Output = ()> + 'static>(scenario: impl FnOnce(World) -> F + Send + 'static) {
    run(WorldConfig::default(), scenario);
}

#[test]
fn a_power_failure_leaves_what_was_synced() {
    world(|world| async move {
        let host = world.host(Link::default());
        let before = host.disk();
        fs::write(before.join("never"), "never synced").unwrap();
        fs::create_dir(before.join("folder")).unwrap();
        let mut file = File::create(before.join("folder/temporary")).unwrap();
        file.write_all(b"synced").unwrap();
        file.sync_all().unwrap();
        fs::rename(before.join("folder/temporary"), before.join("folder/file")).unwrap();
        file.write_all(b" and later").unwrap();
        host.lose_power();
        // What is left of the process goes on in vain.
        file.write_all(b" and too late").unwrap();
        file.sync_all().unwrap();

        let after = host.disk();
        assert_ne!(before, after);
        assert_eq!(fs::read(after.join("folder/file")).unwrap(), b"synced");
        assert_eq!(fs::read(after.join("never")).unwrap(), b"");
        assert_eq!(fs::read_dir(after.join("folder")).unwrap().count(), 1);
        // What was left is on the disk.
        host.lose_power();
        assert_eq!(fs::read(host.disk().join("folder/file")).unwrap(), b"synced");

        // What takes the place of a deleted file has nothing of it, also if it gets its inode.
        for number in 0..20 {
            let path = host.disk().join("folder/file");
            fs::remove_file(&path).unwrap();
            fs::write(&path, format!("never synced {number}")).unwrap();
            host.lose_power();
            assert_eq!(fs::read(host.disk().join("folder/file")).unwrap(), b"");
            File::create(host.disk().join("folder/file")).and_then(|file| file.sync_all()).unwrap();
        }
    });
}

#[test]
fn a_disk_that_is_full_or_fails_says_so_and_others_work_on() {
    world(|world| async move {
        let [host, other] = [(), ()].map(|()| world.host(Link::default()));
        let open = |host: &Host| {
            let path = host.disk().join("file");
            fs::write(&path, "012345").unwrap();
            OpenOptions::new().read(true).write(true).open(path).unwrap()
        };
        let (mut file, mut of_other) = (open(&host), open(&other));
        host.set_disk(DiskState::Full);
        file.write_all(b"abcdef").unwrap();
        assert_eq!(file.write(b"+").unwrap_err().raw_os_error(), Some(28), "ENOSPC");
        assert_eq!(file.set_len(7).unwrap_err().raw_os_error(), Some(28), "ENOSPC");
        file.set_len(5).unwrap();
        file.sync_all().unwrap();
        let path = host.disk().join("file");
        let appended = OpenOptions::new().append(true).open(&path).unwrap().write(b"+");
        assert_eq!(appended.unwrap_err().raw_os_error(), Some(28), "an append");
        let copied = fs::copy(other.disk().join("file"), host.disk().join("copy"));
        assert_eq!(copied.unwrap_err().raw_os_error(), Some(28), "a copy");
        let mut unnamed = tempfile::tempfile_in(host.disk()).unwrap();
        assert_eq!(unnamed.write(b"+").unwrap_err().raw_os_error(), Some(28), "a file without a name");
        host.set_disk(DiskState::Failing);
        file.rewind().unwrap();
        let mut text = String::new();
        let vectored = file.write_vectored(&[std::io::IoSlice::new(b"x")]);
        let errors = [file.read(&mut [0]).map(drop), file.write(b"x").map(drop), vectored.map(drop), file.sync_data()];
        assert!(errors.iter().all(|result| result.as_ref().is_err_and(|error| error.raw_os_error() == Some(5))));
        of_other.write_all(b"longer than before").unwrap();
        of_other.sync_all().unwrap();
        host.set_disk(DiskState::Healthy);
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "abcde");
    });
}

/// Time between two flushes of a node's store. A node flushes in a thread of its own otherwise, which no world has.
const FLUSH: Duration = Duration::from_millis(500);

async fn member(host: Host, identity: &Keypair, known: &[Member]) -> Member {
    let config = NodeConfig::default()
        .identity(Identity::Keypair(identity.clone()))
        .bootstrap_peers(known.iter().flat_map(Member::addresses))
        .store(NodeStore::Disk(host.disk().join("store")))
        .flush_within(None);
    let member = Member::start(host, config).await.unwrap();
    let (swarm, runtime) = (member.node.swarm().clone(), member.host.runtime());
    runtime.clone().spawn(Box::pin(async move {
        let mut timer = std::pin::pin!(runtime.timer(runtime.now() + FLUSH));
        loop {
            std::future::poll_fn(|cx| timer.as_mut().poll_elapsed(cx)).await;
            timer.as_mut().reset(runtime.now() + FLUSH);
            let flushed = swarm.with(|swarm| swarm.behaviour_mut().kad().store_mut().flush());
            // An error is repeated by the next flush; without a swarm there is no store.
            if flushed.await.is_err() {
                break;
            }
        }
    }));
    member
}

/// Starts a node with this identity, and another one that joins through it.
async fn two_members(world: &World, identity: &Keypair) -> (Member, Member) {
    let first = member(world.host(Link::default()), identity, &[]).await;
    let other = Keypair::generate_ed25519();
    let second = member(world.host(Link::default()), &other, std::slice::from_ref(&first)).await;
    second.node.ready(Duration::from_secs(30)).await.unwrap();
    world.sleep(Duration::from_secs(1)).await;
    (first, second)
}

async fn has(member: &Member, key: &'static str) -> bool {
    let key = RecordKey::new(&key);
    let swarm = member.node.swarm();
    swarm.with(move |swarm| swarm.behaviour_mut().kad().store_mut().get(&key).is_some()).await.unwrap()
}

#[test]
fn a_record_survives_a_power_failure_once_it_was_flushed() {
    world(|world| async move {
        let identity = Keypair::generate_ed25519();
        let (first, second) = two_members(&world, &identity).await;
        let put = |key: &'static str| {
            second.node.client().put_record(Record::new(key.as_bytes().to_vec(), b"value".to_vec()))
        };
        put("flushed").quorum(Quorum::N(1)).await.unwrap();
        world.sleep(FLUSH * 2).await;
        put("fresh").quorum(Quorum::N(1)).await.unwrap();
        assert!(has(&first, "flushed").await && has(&first, "fresh").await);

        let host = first.host.clone();
        host.lose_power();
        drop(first);
        world.sleep(Duration::from_secs(5)).await;
        host.set_online(true);
        let first = member(host, &identity, std::slice::from_ref(&second)).await;
        assert!(has(&first, "flushed").await, "a flushed record is lost");
        assert!(!has(&first, "fresh").await, "what was not synced is there");
    });
}

#[test]
fn a_node_whose_disk_is_full_keeps_no_new_record_and_acknowledges_none() {
    world(|world| async move {
        let identity = Keypair::generate_ed25519();
        let (first, second) = two_members(&world, &identity).await;
        first.host.set_disk(DiskState::Full);
        let put =
            |key: &'static str| second.node.client().put_record(Record::new(key.as_bytes().to_vec(), vec![1; 20_000]));
        put("a").quorum(Quorum::N(1)).await.unwrap_err();
        assert!(!has(&first, "a").await);
        first.host.set_disk(DiskState::Healthy);
        put("b").quorum(Quorum::N(1)).await.unwrap();
        assert!(has(&first, "b").await);
    });
}

struct Publisher {
    host: Host,
    node: Node<RegistryBehaviour>,
    registry: P2PRegistry<SimRuntime>,
}

async fn publisher(host: Host, identity: &Keypair, known: &[Member]) -> Publisher {
    let mut node = NodeConfig::default()
        .identity(Identity::Keypair(identity.clone()))
        .listen([host.multiaddr(PORT)])
        .bootstrap_peers(known.iter().flat_map(Member::addresses));
    configure(&mut node);
    let config = RegistryConfig::in_folder(host.disk());
    let behaviour = RegistryBehaviour::new(identity, &config).unwrap();
    let mut node = host.node_with(node, |_| behaviour).await.unwrap();
    let registry = P2PRegistry::start(&mut node, host.runtime(), identity.clone(), config).await.unwrap();
    node.ready(Duration::from_secs(30)).await.unwrap();
    Publisher { host, node, registry }
}

impl Publisher {
    async fn publish(&self, version: &str) -> Result<Receipt, PublishError> {
        let folder = self.host.world().folder().unwrap();
        fs::write(folder.join(MANIFEST_FILE), format!("name = \"pads\"\nversion = \"{version}\"\n")).unwrap();
        fs::write(folder.join("pads.txt"), version.repeat(20_000)).unwrap();
        let release = Release::read(self.registry.publisher(), &folder).await.unwrap();
        self.registry.publish(release).await
    }

    fn package(&self) -> PackageId {
        PackageId::new(self.registry.publisher(), "pads".parse().unwrap()).unwrap()
    }

    async fn versions(&self) -> Vec<String> {
        let index = self.registry.index(&self.package()).await.unwrap();
        index.map(|index| index.versions().keys().map(ToString::to_string).collect()).unwrap_or_default()
    }
}

/// A publisher, and three nodes that keep its records.
async fn published_network(world: &World, identity: &Keypair) -> (Publisher, Vec<Member>) {
    let members = world.members(3, Link::default()).await.unwrap();
    let publisher = publisher(world.host(Link::default()), identity, &members).await;
    (publisher, members)
}

#[test]
fn a_published_package_survives_a_power_failure() {
    world(|world| async move {
        let identity = Keypair::generate_ed25519();
        let (first, members) = published_network(&world, &identity).await;
        first.publish("1.0.0").await.unwrap();
        let host = first.host.clone();
        host.lose_power();
        drop(first);
        world.sleep(Duration::from_secs(60)).await;
        host.set_online(true);
        let again = publisher(host, &identity, &members).await;
        assert_eq!(again.versions().await, ["1.0.0"]);
        let package = again.package();
        let index = again.registry.index(&package).await.unwrap().unwrap();
        let version = index.versions().values().next().unwrap();
        again.registry.fetch(&package, &version.archive, version.archive_size).await.unwrap();
        again.publish("1.1.0").await.unwrap();
        assert_eq!(again.versions().await, ["1.0.0", "1.1.0"]);
    });
}

#[test]
fn publishing_on_a_disk_that_is_full_or_fails_is_an_error_and_can_be_repeated() {
    world(|world| async move {
        let identity = Keypair::generate_ed25519();
        let (publisher, _members) = published_network(&world, &identity).await;
        publisher.publish("1.0.0").await.unwrap();
        for state in [DiskState::Full, DiskState::Failing] {
            publisher.host.set_disk(state);
            let error = publisher.publish("1.1.0").await.unwrap_err();
            println!("{state:?}: {}", chain(&error));
            publisher.host.set_disk(DiskState::Healthy);
            assert_eq!(publisher.versions().await, ["1.0.0"]);
        }
        publisher.publish("1.1.0").await.unwrap();
        assert_eq!(publisher.versions().await, ["1.0.0", "1.1.0"]);
        assert!(publisher.node.ready(Duration::from_secs(1)).await.is_ok());
    });
}

/// Returns the messages of an error and of its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let messages = std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string);
    messages.collect::<Vec<_>>().join(": ")
}
