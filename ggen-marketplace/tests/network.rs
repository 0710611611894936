//! A registry on a network of nodes over loopback TCP, through the API of this package alone.

#![expect(clippy::panic, clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use futures::{FutureExt, StreamExt, future::join_all};
use ggen_marketplace::{
    MANIFEST_FILE, PackageId, Query, Registry, Release, Step, StepOutcome,
    p2p::{
        head::dht_key,
        registry::{P2PRegistry, RegistryBehaviour, RegistryConfig, RegistryEvent, RegistryEvents, configure},
    },
    resolve::{install, resolve},
};
use kadence::{
    ContainsKad,
    node::{Identity, Node, NodeConfig},
};
use kadence_smol::SmolRuntime;
use libp2p::{Multiaddr, PeerId};
use libp2p_identity::Keypair;
use tempfile::TempDir;

/// Deadline of every wait. A test that reaches it fails.
const DEADLINE: Duration = Duration::from_secs(60);

/// Package that the tests publish.
const MANIFEST: &str = "
name = 'left-pad'
version = '1.0.0'
title = 'Pads on the left'
tags = ['padding']
";

#[test]
fn bootstrap_connects_a_node_to_the_network() {
    run(async {
        let first = Peer::start([]).await;
        let second = Peer::start(first.node.listen_addrs()).await;
        second.node.ready(DEADLINE).await.unwrap();
        second.node.client().bootstrap().await.unwrap();
        assert_eq!(second.node.connected_peers().await.unwrap(), [first.id()]);
        assert_eq!(first.node.connected_peers().await.unwrap(), [second.id()]);
    });
}

#[test]
fn peer_discovery_fills_the_routing_table_with_peers_that_were_not_configured() {
    run(async {
        let first = Peer::start([]).await;
        let mut others = Vec::new();
        // Each of them knows the address of the first node only.
        for _ in 0..4 {
            others.push(Peer::start(first.node.listen_addrs()).await);
        }
        for peer in &others {
            peer.node.ready(DEADLINE).await.unwrap();
        }
        for peer in &others {
            let expected: Vec<_> = others.iter().filter(|other| other.id() != peer.id()).map(Peer::id).collect();
            eventually("the routing table has all peers", async || {
                peer.node.client().bootstrap().await.unwrap();
                let table = peer.routing_table().await;
                table.contains(&first.id()) && expected.iter().all(|peer| table.contains(peer))
            })
            .await;
        }
    });
}

#[test]
fn a_lookup_in_the_dht_returns_data() {
    run(async {
        let network = network(5).await;
        let [publisher, .., reader] = network.as_slice() else { panic!("5 peers") };
        let id = publisher.publish(MANIFEST, "padded").await;

        // The record itself, as any client of the DHT gets it.
        let record = reader.node.client().get_record(dht_key(&id).unwrap()).await.unwrap();
        assert!(!record.value().is_empty());
        // The package that the record leads to, and its archive.
        let package = reader.registry.get_package(&id).await.unwrap().expect("the package is published");
        assert_eq!((package.id(), package.version().to_string()), (&id, "1.0.0".to_owned()));
        assert_eq!(package.metadata().title, "Pads on the left");
        reader.registry.archive(&package).await.unwrap();
        assert!(reader.registry.blobs().contains(&package.contents().archive));

        // A package that nobody has published is reported as such, not as an error.
        let unknown = PackageId::new(reader.id(), "unknown".parse().unwrap()).unwrap();
        assert_eq!(reader.registry.get_package(&unknown).await.unwrap(), None);
    });
}

#[test]
fn announced_packages_are_discovered() {
    run(async {
        let network = network(4).await;
        let [publisher, readers @ ..] = network.as_slice() else { panic!("4 peers") };
        let mut events: Vec<_> = readers.iter().map(|reader| reader.registry.events()).collect();
        let id = publisher.publish(MANIFEST, "padded").await;
        for (reader, events) in readers.iter().zip(&mut events) {
            let version = discovered(events, &id).await;
            assert_eq!(version, "1.0.0");
            let packages = reader.registry.discovered_packages();
            assert!(packages.iter().any(|package| package.newest.announcement().package == id), "{packages:?}");
        }
    });
}

#[test]
fn a_package_is_found_installed_and_yanked_over_the_network() {
    run(async {
        let network = network(4).await;
        let [publisher, .., reader] = network.as_slice() else { panic!("4 peers") };
        let mut events = reader.registry.events();
        let id = publisher.publish(MANIFEST, "padded").await;
        discovered(&mut events, &id).await;

        let by_tag = Query::builder().text("pads").tag("padding").build().unwrap();
        let found = async || {
            let page = reader.registry.search_network(&by_tag).await.unwrap();
            page.hits.iter().any(|hit| hit.package == id)
        };
        eventually("the search finds the package", found).await;

        let roots = [(id.clone(), "^1".parse().unwrap())];
        let lock = resolve(&roots, &reader.registry, None).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let installed = install(&lock, &reader.registry, folder.path()).await.unwrap();
        assert_eq!(fs::read_to_string(installed.packages[0].path.join("content.txt")).unwrap(), "padded");

        let version = "1.0.0".parse().unwrap();
        publisher.registry.delete(&id, &version).await.unwrap();
        eventually("the package is not shown", async || !reader.registry.exists(&id).await.unwrap()).await;
        eventually("the search does not find the package", async || !found().await).await;
        // A lock file that pins the version still installs it.
        let again = tempfile::tempdir().unwrap();
        assert_eq!(install(&lock, &reader.registry, again.path()).await.unwrap().packages.len(), 1);

        publisher.registry.unyank(&id, &version).await.unwrap();
        eventually("the package is shown again", async || reader.registry.exists(&id).await.unwrap()).await;
        eventually("the search finds the package again", found).await;
    });
}

/// A node with a registry.
struct Peer {
    keypair: Keypair,
    node: Node<RegistryBehaviour>,
    registry: P2PRegistry<SmolRuntime>,
    _folder: TempDir,
}

impl Peer {
    /// Starts a node on a free port of the loopback interface.
    async fn start(bootstrap_peers: impl IntoIterator<Item = Multiaddr>) -> Self {
        let keypair = Keypair::generate_ed25519();
        let folder = tempfile::tempdir().unwrap();
        let config = RegistryConfig::in_folder(folder.path());
        let behaviour = RegistryBehaviour::new(&keypair, &config).unwrap();
        let mut node_config = NodeConfig::default();
        configure(&mut node_config);
        node_config.identity = Identity::Keypair(keypair.clone());
        node_config.listen = vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()];
        node_config.bootstrap_peers = bootstrap_peers.into_iter().collect();
        let mut node = kadence_smol::node_with(node_config, |_| behaviour).await.unwrap();
        let registry = P2PRegistry::start(&mut node, SmolRuntime::default(), keypair.clone(), config).await.unwrap();
        Self { keypair, node, registry, _folder: folder }
    }

    fn id(&self) -> PeerId {
        self.keypair.public().to_peer_id()
    }

    /// Returns the peers in kad's routing table.
    async fn routing_table(&self) -> Vec<PeerId> {
        let peers = self.node.swarm().with(|swarm| {
            let kad = swarm.behaviour_mut().kad();
            let buckets: Vec<_> = kad.kbuckets().collect();
            let peers = buckets.iter().flat_map(|bucket| bucket.iter().map(|entry| entry.node.key.into_preimage()));
            peers.collect()
        });
        peers.await.unwrap()
    }

    /// Publishes a package with one file, and checks that the head reached other peers.
    async fn publish(&self, manifest: &str, content: &str) -> PackageId {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), MANIFEST_FILE, manifest);
        write(folder.path(), "content.txt", content);
        let release = Release::read(self.id(), folder.path()).await.unwrap();
        let receipt = self.registry.publish(release).await.unwrap();
        let head = receipt.steps.get(Step::Head);
        assert!(matches!(head, Some(StepOutcome::Confirmed { by: 1.., .. })), "{receipt:?}");
        receipt.package
    }
}

/// Starts nodes that have each other in their routing tables.
async fn network(nodes: usize) -> Vec<Peer> {
    let mut peers: Vec<Peer> = Vec::new();
    for _ in 0..nodes {
        let known: Vec<_> = peers.iter().take(2).flat_map(|peer| peer.node.listen_addrs()).collect();
        peers.push(Peer::start(known).await);
    }
    for ready in join_all(peers.iter().map(|peer| peer.node.ready(DEADLINE))).await {
        ready.unwrap();
    }
    for bootstrap in join_all(peers.iter().map(async |peer| peer.node.client().bootstrap().await)).await {
        bootstrap.unwrap();
    }
    peers
}

/// Waits for the announcement of a package, and returns the announced version.
async fn discovered(events: &mut RegistryEvents, id: &PackageId) -> String {
    let wait = async {
        while let Some(event) = events.next().await {
            if let RegistryEvent::PackageDiscovered { package, version } = event
                && package == *id
            {
                return version.to_string();
            }
        }
        panic!("the events ended")
    };
    within(DEADLINE, "the announcement", wait).await
}

/// Repeats a check until it holds.
async fn eventually(what: &str, mut check: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !check().await {
        assert!(started.elapsed() < DEADLINE, "{what}: not within {DEADLINE:?}");
        smol::Timer::after(Duration::from_millis(20)).await;
    }
}

async fn within<T>(limit: Duration, what: &str, future: impl Future<Output = T>) -> T {
    futures::select_biased! {
        output = Box::pin(future).fuse() => output,
        _ = FutureExt::fuse(smol::Timer::after(limit)) => panic!("{what}: not within {limit:?}"),
    }
}

/// Runs a test, and fails it if it hangs.
fn run(test: impl Future<Output = ()>) {
    smol::block_on(within(DEADLINE * 5, "the test", test));
}

fn write(folder: &Path, path: &str, text: &str) {
    fs::write(folder.join(path), text).unwrap();
}
