//! Nodes of the registry on loopback TCP, each with its own folder.

use std::{fs, sync::Arc, time::Duration};

use futures::{AsyncReadExt, AsyncWriteExt, StreamExt, future::join_all};
use kadence::node::{Identity, Node, NodeConfig};
use kadence_registry::{
    MANIFEST_FILE, PackageId, Release,
    p2p::registry::{P2PRegistry, RegistryBehaviour, RegistryConfig, configure},
};
use kadence_smol::SmolRuntime;
use libp2p::{PeerId, StreamProtocol, identity::Keypair};
use libp2p_stream::Control;
use smol::Executor;
use tempfile::TempDir;

/// Deadline of every wait.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// Protocol of the bare stream.
const COPY: StreamProtocol = StreamProtocol::new("/bench/copy/1");

/// Topic of a node that receives no announcements.
const QUIET: &str = "/bench/quiet/1";

pub(crate) struct Peer {
    pub(crate) node: Node<RegistryBehaviour>,
    pub(crate) registry: P2PRegistry<SmolRuntime>,
    pub(crate) keypair: Keypair,
    control: Control,
    _folder: TempDir,
}

impl Peer {
    pub(crate) fn id(&self) -> PeerId {
        self.node.local_peer_id()
    }

    pub(crate) fn package(&self, name: &str) -> PackageId {
        PackageId::new(self.id(), name.parse().expect("a name")).expect("an Ed25519 key")
    }

    /// Sends `bytes` on every bare stream that a peer opens.
    pub(crate) fn serve_copies(&self, executor: &Executor<'static>, bytes: Arc<Vec<u8>>) {
        let mut incoming = self.control.clone().accept(COPY).expect("the only one");
        let copies = async move {
            while let Some((_, mut stream)) = incoming.next().await {
                stream.write_all(&bytes).await.expect("the reader reads");
                stream.close().await.expect("the reader reads");
            }
        };
        executor.spawn(copies).detach();
    }

    /// Copies the bytes that a peer serves over a bare stream, and returns their number.
    pub(crate) async fn copy_from(&self, peer: PeerId) -> usize {
        let mut stream = self.control.clone().open_stream(peer, COPY).await.expect("it is connected");
        let (mut buffer, mut all) = (vec![0; 64 << 10], 0);
        loop {
            match stream.read(&mut buffer).await.expect("the peer sends") {
                0 => return all,
                read => all += read,
            }
        }
    }
}

/// Role of a node in the measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// A node with the default configuration.
    Ordinary,
    /// A node that looks up every head again.
    Fresh,
    /// A node that offers no content, so that the providers stay the same.
    Taker,
    /// A node that offers no content, and asks the network for providers immediately.
    Gatherer,
    /// A node that receives no announcements.
    Unaware,
}

pub(crate) struct Network {
    executor: Arc<Executor<'static>>,
    pub(crate) peers: Vec<Peer>,
}

impl Network {
    /// Starts a node for each role, and connects all of them.
    pub(crate) async fn start(executor: &Arc<Executor<'static>>, roles: &[Role]) -> Self {
        let mut network = Self { executor: Arc::clone(executor), peers: Vec::new() };
        for role in roles {
            let peer = network.node(*role).await;
            network.peers.push(peer);
        }
        for ready in join_all(network.peers.iter().map(|peer| peer.node.ready(LONG))).await {
            ready.expect("the network is there");
        }
        for bootstrap in join_all(network.peers.iter().map(|peer| async { peer.node.client().bootstrap().await })).await
        {
            bootstrap.expect("the network is there");
        }
        network
    }

    /// Starts a node that knows the first nodes of the network.
    pub(crate) async fn node(&self, role: Role) -> Peer {
        let keypair = Keypair::generate_ed25519();
        let folder = tempfile::tempdir().expect("a folder");
        let mut node = NodeConfig::default()
            .identity(Identity::Keypair(keypair.clone()))
            .listen(["/ip4/127.0.0.1/tcp/0".parse().expect("an address")])
            .bootstrap_peers(self.peers.iter().take(3).flat_map(|peer| peer.node.listen_addrs()))
            // A reconnected peer reads the other's catalogue, which would tell an `Unaware` node of packages.
            .idle_connection_timeout(Duration::from_secs(600));
        configure(&mut node);
        let mut config = RegistryConfig::in_folder(folder.path());
        config.catalogue_interval = Duration::from_secs(60 * 60);
        match role {
            Role::Ordinary => {}
            Role::Fresh => config.max_head_age = Duration::ZERO,
            Role::Taker => config.share = false,
            Role::Gatherer => (config.share, config.provider_lookup_delay) = (false, Duration::ZERO),
            Role::Unaware => QUIET.clone_into(&mut config.topic),
        }
        let behaviour = RegistryBehaviour::new(&keypair, &config).expect("the defaults are right");
        let runtime = SmolRuntime::on(&self.executor);
        let mut node =
            Node::start(runtime, node, kadence_smol::transport, |_| behaviour).await.expect("loopback works");
        let runtime = SmolRuntime::on(&self.executor);
        let registry =
            P2PRegistry::start(&mut node, runtime, keypair.clone(), config).await.expect("the folder is new");
        let streams = node.swarm().with(|swarm| swarm.behaviour().app.streams.new_control());
        let control = streams.await.expect("the node runs");
        Peer { node, registry, keypair, control, _folder: folder }
    }
}

/// Creates a release with files, in a folder that the caller keeps.
pub(crate) async fn release(id: &PackageId, version: &str, files: &[(String, Vec<u8>)]) -> (Release, TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let (name, path) = (id.name().as_str(), folder.path());
    let manifest =
        format!("name = \"{name}\"\nversion = \"{version}\"\ntitle = \"The package {name}\"\ntags = [\"bench\"]\n");
    fs::write(path.join(MANIFEST_FILE), manifest).expect("the disk works");
    for (file, bytes) in files {
        fs::write(path.join(file), bytes).expect("the disk works");
    }
    (Release::read(id.publisher(), path).await.expect("it is a package"), folder)
}

/// Creates files of `bytes` bytes in total. They are incompressible, and different for each seed.
pub(crate) fn files(bytes: usize, seed: u64) -> Vec<(String, Vec<u8>)> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    const FILE: usize = 256 << 10;
    let sizes = (0..bytes.div_ceil(FILE)).map(|at| FILE.min(bytes - at * FILE));
    sizes
        .enumerate()
        .map(|(at, size)| {
            let words = size.div_ceil(8);
            let mut content: Vec<u8> = (0..words).flat_map(|_| random()).collect();
            content.truncate(size);
            (format!("file-{at}"), content)
        })
        .collect()
}
