//! Nodes of the registry on loopback TCP, in one process.

use std::{fs, path::Path, time::Duration};

use futures::{FutureExt, StreamExt, future::join_all};
use kadence::node::{Identity, Node, NodeConfig};
use kadence_smol::SmolRuntime;
use libp2p::{Multiaddr, PeerId};
use libp2p_identity::Keypair;
use tempfile::TempDir;

use crate::{
    PackageId, Release,
    p2p::registry::{MarketBehaviour, P2PRegistry, RegistryConfig, configure},
};

/// How long anything may take before a test fails.
const LONG: Duration = Duration::from_secs(60);

/// Runs a test, which fails if it hangs.
pub(crate) fn within<T>(test: impl Future<Output = T>) -> T {
    smol::block_on(async {
        futures::select_biased! {
            done = Box::pin(test).fuse() => done,
            _ = FutureExt::fuse(smol::Timer::after(LONG * 2)) => panic!("the test hangs"),
        }
    })
}

/// Asks until the answer is there.
pub(crate) async fn soon<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = std::time::Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(begun.elapsed() < LONG, "{what} did not come");
        smol::Timer::after(Duration::from_millis(20)).await;
    }
}

pub(crate) struct Peer {
    pub(crate) node: Node<MarketBehaviour>,
    pub(crate) registry: P2PRegistry<SmolRuntime>,
    pub(crate) keypair: Keypair,
    pub(crate) folder: TempDir,
}

impl Peer {
    pub(crate) fn id(&self) -> PeerId {
        self.node.peer_id()
    }

    pub(crate) fn package(&self, name: &str) -> PackageId {
        PackageId::new(self.registry.publisher(), name.parse().unwrap()).unwrap()
    }

    /// Ends it, and keeps its folder.
    pub(crate) async fn stop(self) -> (Keypair, TempDir) {
        let Self { node, registry, keypair, folder } = self;
        registry.close().await;
        drop(registry);
        node.shutdown().await;
        (keypair, folder)
    }
}

pub(crate) struct Network {
    pub(crate) peers: Vec<Peer>,
}

impl Network {
    /// So many nodes, which know each other.
    pub(crate) async fn start(nodes: usize) -> Self {
        Self::with(nodes, |_| {}).await
    }

    pub(crate) async fn with(nodes: usize, change: impl Fn(&mut RegistryConfig)) -> Self {
        let mut network = Self { peers: Vec::new() };
        for _ in 0..nodes {
            network.join(&change).await;
        }
        let ready = network.peers.iter().map(|peer| peer.node.ready(LONG));
        for ready in join_all(ready).await {
            ready.unwrap();
        }
        // Everybody in everybody's table.
        let bootstraps = join_all(network.peers.iter().map(|peer| async { peer.node.client().bootstrap().await }));
        for bootstrap in bootstraps.await {
            bootstrap.unwrap();
        }
        network
    }

    /// One node more.
    pub(crate) async fn join(&mut self, change: impl Fn(&mut RegistryConfig)) -> &Peer {
        let peer = self.node(Keypair::generate_ed25519(), tempfile::tempdir().unwrap(), change).await;
        self.peers.push(peer);
        self.peers.last().unwrap()
    }

    /// A node with this key and folder, which knows the first of the network.
    pub(crate) async fn node(&self, keypair: Keypair, folder: TempDir, change: impl Fn(&mut RegistryConfig)) -> Peer {
        let bootstrap: Vec<Multiaddr> = self.peers.iter().take(3).flat_map(|peer| peer.node.listen_addrs()).collect();
        let mut node = NodeConfig {
            identity: Identity::Keypair(keypair.clone()),
            listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
            bootstrap_peers: bootstrap,
            ..NodeConfig::default()
        };
        configure(&mut node);
        let mut config = RegistryConfig::in_folder(folder.path());
        change(&mut config);
        let behaviour = MarketBehaviour::new(&keypair, &config).unwrap();
        let mut node = kadence_smol::node_with(node, |_| behaviour).await.unwrap();
        let registry = P2PRegistry::start(&mut node, SmolRuntime::default(), keypair.clone(), config).await.unwrap();
        Peer { node, registry, keypair, folder }
    }
}

/// A release of a package with these files, in a folder of its own.
pub(crate) async fn release(publisher: PeerId, source: &str, files: &[(&str, &[u8])]) -> (Release, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "ggen.toml", source.as_bytes());
    for (path, bytes) in files {
        write(folder.path(), path, bytes);
    }
    (Release::read(publisher, folder.path()).await.unwrap(), folder)
}

fn write(folder: &Path, path: &str, bytes: &[u8]) {
    let path = folder.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// The next event that is wanted.
pub(crate) async fn event<T>(
    events: &mut crate::p2p::registry::EventStream,
    mut wanted: impl FnMut(crate::p2p::registry::Event) -> Option<T>,
) -> T {
    let find = async {
        while let Some(event) = events.next().await {
            if let Some(found) = wanted(event) {
                return found;
            }
        }
        panic!("the events ended")
    };
    futures::select_biased! {
        found = Box::pin(find).fuse() => found,
        _ = FutureExt::fuse(smol::Timer::after(LONG)) => panic!("the event did not come"),
    }
}
