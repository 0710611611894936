//! Honest nodes, each with a registry, on one of three runtimes.

use std::{path::PathBuf, sync::Arc};

use anyhow::Context;
use futures::future::BoxFuture;
use kadence_async_std::AsyncStdRuntime;
use kadence_registry::{
    GetError, Query, Registry, SearchPage,
    p2p::{
        announce::DiscoveredPackage,
        registry::{P2PRegistry, RegistryBehaviour, RegistryConfig, configure},
    },
};
use kadence_smol::SmolRuntime;
use kadence_tokio::{
    Identity, Node, NodeConfig, TokioRuntime,
    kadence::{
        Runtime,
        libp2p::{Multiaddr, PeerId, StreamProtocol, identity::Keypair},
    },
};
use tokio::time::{Instant, sleep};

use crate::{POLL, WAIT};

/// A [`P2PRegistry`] on any runtime.
pub(super) trait NodeRegistry: Registry {
    fn discovered(&self) -> Vec<DiscoveredPackage>;
    fn search_network<'a>(&'a self, query: &'a Query) -> BoxFuture<'a, Result<SearchPage, GetError>>;
    #[cfg(feature = "attackers")]
    fn reputation(&self) -> &kadence_registry::p2p::Reputation;
    fn close(&self) -> BoxFuture<'_, ()>;
}

impl<R: Runtime> NodeRegistry for P2PRegistry<R> {
    fn discovered(&self) -> Vec<DiscoveredPackage> {
        self.discovered_packages()
    }

    fn search_network<'a>(&'a self, query: &'a Query) -> BoxFuture<'a, Result<SearchPage, GetError>> {
        Box::pin(Self::search_network(self, query))
    }

    #[cfg(feature = "attackers")]
    fn reputation(&self) -> &kadence_registry::p2p::Reputation {
        Self::reputation(self)
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(Self::close(self))
    }
}

/// An honest node and its registry.
pub(super) struct Member {
    pub(super) node: Node<RegistryBehaviour>,
    pub(super) p2p: Arc<dyn NodeRegistry>,
}

/// Parameters in which nodes differ.
pub(super) struct Place {
    /// Selects the runtime.
    pub(super) index: usize,
    pub(super) folder: PathBuf,
    pub(super) protocol: StreamProtocol,
    pub(super) peers: Vec<Multiaddr>,
    /// Maximum number of bytes served to each peer in a second. `None`: the default of the registry.
    pub(super) rate: Option<u64>,
}

impl Member {
    /// Starts a node that listens on loopback, and its registry.
    ///
    /// # Errors
    ///
    /// If one of them does not start.
    pub(super) async fn start(place: Place) -> anyhow::Result<Self> {
        let Place { index, folder, protocol, peers, rate } = place;
        let keypair = Keypair::generate_ed25519();
        let mut node = node_config(&keypair, protocol, peers)?;
        configure(&mut node);
        let mut registry = RegistryConfig::in_folder(folder);
        if let Some(rate) = rate {
            registry.server.bytes_per_second_per_peer = rate;
        }
        let behaviour = RegistryBehaviour::new(&keypair, &registry)?;
        let (node, p2p): (_, Arc<dyn NodeRegistry>) = match index % 3 {
            1 => {
                let mut node = kadence_async_std::node_with(node, |_| behaviour).await?;
                let p2p = P2PRegistry::start(&mut node, AsyncStdRuntime, keypair, registry).await?;
                (node, Arc::new(p2p))
            }
            2 => {
                let mut node = kadence_smol::node_with(node, |_| behaviour).await?;
                let p2p = P2PRegistry::start(&mut node, SmolRuntime::default(), keypair, registry).await?;
                (node, Arc::new(p2p))
            }
            _ => {
                let mut node = kadence_tokio::node_with(node, |_| behaviour).await?;
                let runtime = TokioRuntime::current().context("not called in a tokio runtime")?;
                let p2p = P2PRegistry::start(&mut node, runtime, keypair, registry).await?;
                (node, Arc::new(p2p))
            }
        };
        Ok(Self { node, p2p })
    }

    pub(super) fn peer(&self) -> PeerId {
        self.node.local_peer_id()
    }

    pub(super) fn registry(&self) -> &dyn Registry {
        &*self.p2p
    }
}

/// Returns the configuration of a node that listens on loopback.
///
/// # Errors
///
/// None: the address is valid.
pub(super) fn node_config(
    keypair: &Keypair,
    protocol: StreamProtocol,
    peers: Vec<Multiaddr>,
) -> anyhow::Result<NodeConfig> {
    Ok(NodeConfig::default()
        .identity(Identity::Keypair(keypair.clone()))
        .listen(["/ip4/127.0.0.1/tcp/0".parse()?])
        .bootstrap_peers(peers)
        .protocol(protocol))
}

/// Waits until a node's routing table has `peers` entries.
///
/// # Errors
///
/// If it has fewer after [`WAIT`].
pub(super) async fn knows(node: &Node<RegistryBehaviour>, peers: usize) -> anyhow::Result<()> {
    let deadline = Instant::now() + WAIT;
    loop {
        let known = node
            .swarm()
            .with(|swarm| {
                swarm.behaviour_mut().kad.kad_mut().kbuckets().map(|bucket| bucket.num_entries()).sum::<usize>()
            })
            .await?;
        if known >= peers {
            return Ok(());
        }
        anyhow::ensure!(Instant::now() < deadline, "a node knows only {known} of {peers} peers after {WAIT:?}");
        sleep(POLL).await;
    }
}
