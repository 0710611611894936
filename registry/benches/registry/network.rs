//! Nodes of the registry on loopback TCP, each with a folder of its own.

use std::{fs, sync::Arc, time::Duration};

use futures::{AsyncReadExt, AsyncWriteExt, StreamExt, future::join_all};
use kadence::node::{Identity, Node, NodeConfig};
use kadence_registry::{
    PackageId, Release,
    p2p::registry::{P2PRegistry, RegistryBehaviour, RegistryConfig, configure},
};
use kadence_smol::SmolRuntime;
use libp2p::{PeerId, StreamProtocol, identity::Keypair};
use libp2p_stream::Control;
use smol::Executor;
use tempfile::TempDir;

/// What has not come by then does not come.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// The bare stream.
const COPY: StreamProtocol = StreamProtocol::new("/bench/copy/1");

/// The topic of a node that is not to hear of anything.
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
        self.node.peer_id()
    }

    pub(crate) fn package(&self, name: &str) -> PackageId {
        PackageId::new(self.id(), name.parse().expect("a name")).expect("an Ed25519 key")
    }

    /// Sends these bytes to whoever opens a bare stream.
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

    /// Copies what a peer serves over a bare stream. How many bytes came.
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

/// What a node is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// A node as it is by default.
    Ordinary,
    /// Looks up every head again.
    Fresh,
    /// Offers nothing, so that the providers stay the same ones.
    Taker,
    /// Offers nothing, and asks the network at once who else has content.
    Gatherer,
    /// Hears no announcement.
    Unaware,
}

pub(crate) struct Network {
    executor: Arc<Executor<'static>>,
    pub(crate) peers: Vec<Peer>,
}

impl Network {
    /// A node for each role, which all know each other.
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

    /// A node that knows the first ones of the network.
    pub(crate) async fn node(&self, role: Role) -> Peer {
        let keypair = Keypair::generate_ed25519();
        let folder = tempfile::tempdir().expect("a folder");
        let mut node = NodeConfig {
            identity: Identity::Keypair(keypair.clone()),
            listen: vec!["/ip4/127.0.0.1/tcp/0".parse().expect("an address")],
            bootstrap_peers: self.peers.iter().take(3).flat_map(|peer| peer.node.listen_addrs()).collect(),
            // Who meets a peer again reads its catalogue, and is not unaware any more.
            idle_connection_timeout: Duration::from_secs(600),
            ..NodeConfig::default()
        };
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

/// A release with these files, in a folder that is to be kept.
pub(crate) async fn release(id: &PackageId, version: &str, files: &[(String, Vec<u8>)]) -> (Release, TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let (name, path) = (id.name().as_str(), folder.path());
    let source =
        format!("name = \"{name}\"\nversion = \"{version}\"\ntitle = \"The package {name}\"\ntags = [\"bench\"]\n");
    fs::write(path.join("ggen.toml"), source).expect("the disk works");
    for (file, bytes) in files {
        fs::write(path.join(file), bytes).expect("the disk works");
    }
    (Release::read(id.publisher(), path).await.expect("it is a package"), folder)
}

/// Files of so many bytes in all, which cannot be compressed, and are others with each seed.
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
