//! Test network: nodes with a registry on loopback TCP, in one process.

use std::{fs, path::Path, time::Duration};

use futures::{FutureExt, StreamExt, future::join_all};
use kadence::{
    ContainsKad,
    node::{Identity, Node, NodeConfig},
};
use kadence_smol::SmolRuntime;
use libp2p::{
    PeerId,
    kad::{Record, store::RecordStore},
};
use libp2p_identity::Keypair;
use tempfile::TempDir;

use crate::{
    MANIFEST_FILE, PackageId, Release,
    p2p::{
        head::dht_key,
        registry::{P2PRegistry, RegistryBehaviour, RegistryConfig, configure},
    },
};

/// Time after which a test fails.
const LONG: Duration = Duration::from_secs(60);

/// Runs a test, and fails if it hangs.
pub(crate) fn within<T>(test: impl Future<Output = T>) -> T {
    smol::block_on(async {
        futures::select_biased! {
            done = Box::pin(test).fuse() => done,
            _ = FutureExt::fuse(smol::Timer::after(LONG * 5)) => panic!("the test hangs"),
        }
    })
}

/// Repeats a call until it returns `Some`.
pub(crate) async fn soon<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let started = std::time::Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(started.elapsed() < LONG, "{what} did not come");
        smol::Timer::after(Duration::from_millis(20)).await;
    }
}

pub(crate) struct Peer {
    pub(crate) node: Node<RegistryBehaviour>,
    pub(crate) registry: P2PRegistry<SmolRuntime>,
    pub(crate) keypair: Keypair,
    pub(crate) folder: TempDir,
}

impl Peer {
    pub(crate) fn id(&self) -> PeerId {
        self.node.local_peer_id()
    }

    pub(crate) fn package(&self, name: &str) -> PackageId {
        PackageId::new(self.registry.publisher(), name.parse().unwrap()).unwrap()
    }

    /// Stops the registry and keeps its folder.
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
    /// Nodes without a registry and without validators: they hold and serve any record.
    pub(crate) strangers: Vec<Node<RegistryBehaviour>>,
}

impl Network {
    /// Starts this number of nodes, which know each other.
    pub(crate) async fn start(nodes: usize) -> Self {
        Self::with(nodes, |_| {}).await
    }

    pub(crate) async fn with(nodes: usize, change: impl Fn(&mut RegistryConfig)) -> Self {
        Self::with_strangers(nodes, 0, change).await
    }

    /// Starts a network with additional nodes that are not part of the registry.
    pub(crate) async fn with_strangers(nodes: usize, strangers: usize, change: impl Fn(&mut RegistryConfig)) -> Self {
        let mut network = Self { peers: Vec::new(), strangers: Vec::new() };
        for _ in 0..nodes {
            network.join(&change).await;
        }
        for _ in 0..strangers {
            let stranger = network.stranger().await;
            network.strangers.push(stranger);
        }
        network.fill_routing_tables().await;
        network
    }

    /// Adds every node to the routing tables of all others.
    pub(crate) async fn fill_routing_tables(&self) {
        for ready in join_all(self.nodes().map(|node| node.ready(LONG))).await {
            ready.unwrap();
        }
        for bootstrap in join_all(self.nodes().map(async |node| node.client().bootstrap().await)).await {
            bootstrap.unwrap();
        }
    }

    pub(crate) fn nodes(&self) -> impl Iterator<Item = &Node<RegistryBehaviour>> {
        self.peers.iter().map(|peer| &peer.node).chain(&self.strangers)
    }

    /// Adds a node.
    pub(crate) async fn join(&mut self, change: impl Fn(&mut RegistryConfig)) -> &Peer {
        let peer = self.node(Keypair::generate_ed25519(), tempfile::tempdir().unwrap(), change).await;
        self.peers.push(peer);
        self.peers.last().unwrap()
    }

    fn node_config(&self, keypair: &Keypair) -> NodeConfig {
        NodeConfig::default()
            .identity(Identity::Keypair(keypair.clone()))
            // Most test networks have two or three nodes.
            .expected_network_size(2)
            .listen(["/ip4/127.0.0.1/tcp/0".parse().unwrap()])
            .bootstrap_peers(self.peers.iter().take(3).flat_map(|peer| peer.node.listen_addrs()))
    }

    pub(crate) async fn stranger(&self) -> Node<RegistryBehaviour> {
        self.stranger_with(|_| {}).await
    }

    pub(crate) async fn stranger_with(&self, change: impl Fn(&mut NodeConfig)) -> Node<RegistryBehaviour> {
        let keypair = Keypair::generate_ed25519();
        let behaviour = RegistryBehaviour::new(&keypair, &RegistryConfig::in_folder("unused")).unwrap();
        let mut config = self.node_config(&keypair);
        change(&mut config);
        kadence_smol::node_with(config, |_| behaviour).await.unwrap()
    }

    /// Starts a node with this key and folder, which knows the first nodes of the network.
    pub(crate) async fn node(&self, keypair: Keypair, folder: TempDir, change: impl Fn(&mut RegistryConfig)) -> Peer {
        let mut node = self.node_config(&keypair);
        configure(&mut node);
        let mut config = RegistryConfig::in_folder(folder.path());
        change(&mut config);
        let behaviour = RegistryBehaviour::new(&keypair, &config).unwrap();
        let mut node = kadence_smol::node_with(node, |_| behaviour).await.unwrap();
        let registry = P2PRegistry::start(&mut node, SmolRuntime::default(), keypair.clone(), config).await.unwrap();
        Peer { node, registry, keypair, folder }
    }
}

/// Makes a node hold this record in place of another one, or none, without validation.
pub(crate) async fn hold(node: &Node<RegistryBehaviour>, package: &PackageId, value: Option<&[u8]>) {
    let key = dht_key(package).unwrap();
    let record = value.map(|value| Record::new(key.clone(), value.to_owned()));
    let put = node.swarm().with(move |swarm| {
        let store = swarm.behaviour_mut().kad().store_mut();
        store.remove(&key);
        record.map_or(Ok(()), |record| store.put(record))
    });
    put.await.unwrap().unwrap();
}

/// Returns a release of a package with these files, in a folder of its own.
pub(crate) async fn release(publisher: PeerId, source: &str, files: &[(&str, &[u8])]) -> (Release, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), MANIFEST_FILE, source.as_bytes());
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

/// Waits for the next event for which `wanted` returns `Some`.
pub(crate) async fn event<T>(
    events: &mut crate::p2p::registry::RegistryEvents,
    mut wanted: impl FnMut(crate::p2p::registry::RegistryEvent) -> Option<T>,
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
