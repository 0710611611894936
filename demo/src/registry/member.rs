//! The honest nodes: each with a registry, on one of three runtimes.

use std::{path::PathBuf, sync::Arc};

use anyhow::Context;
use futures::future::BoxFuture;
use kadence_async_std::AsyncStdRuntime;
use kadence_registry::{
    GetError, Query, Registry, SearchPage,
    p2p::{
        Reputation,
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

/// A registry on whatever runtime.
pub(super) trait Market: Registry {
    fn discovered(&self) -> Vec<DiscoveredPackage>;
    fn search_network<'a>(&'a self, query: &'a Query) -> BoxFuture<'a, Result<SearchPage, GetError>>;
    fn reputation(&self) -> &Reputation;
    fn close(&self) -> BoxFuture<'_, ()>;
}

impl<R: Runtime> Market for P2PRegistry<R> {
    fn discovered(&self) -> Vec<DiscoveredPackage> {
        self.discovered_packages()
    }

    fn search_network<'a>(&'a self, query: &'a Query) -> BoxFuture<'a, Result<SearchPage, GetError>> {
        Box::pin(Self::search_network(self, query))
    }

    fn reputation(&self) -> &Reputation {
        Self::reputation(self)
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(Self::close(self))
    }
}

pub(super) struct Member {
    pub(super) node: Node<RegistryBehaviour>,
    pub(super) market: Arc<dyn Market>,
}

/// What is different from node to node.
pub(super) struct Place {
    /// Says on which runtime it is.
    pub(super) index: usize,
    pub(super) folder: PathBuf,
    pub(super) protocol: StreamProtocol,
    pub(super) peers: Vec<Multiaddr>,
    /// What it serves to each other node in a second, in bytes.
    pub(super) rate: Option<u64>,
}

impl Member {
    /// Starts a node that listens, and its registry.
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
        let (node, market): (_, Arc<dyn Market>) = match index % 3 {
            1 => {
                let mut node = kadence_async_std::node_with(node, |_| behaviour).await?;
                let market = P2PRegistry::start(&mut node, AsyncStdRuntime, keypair, registry).await?;
                (node, Arc::new(market))
            }
            2 => {
                let mut node = kadence_smol::node_with(node, |_| behaviour).await?;
                let market = P2PRegistry::start(&mut node, SmolRuntime::default(), keypair, registry).await?;
                (node, Arc::new(market))
            }
            _ => {
                let mut node = kadence_tokio::node_with(node, |_| behaviour).await?;
                let runtime = TokioRuntime::current().context("there is no runtime")?;
                let market = P2PRegistry::start(&mut node, runtime, keypair, registry).await?;
                (node, Arc::new(market))
            }
        };
        Ok(Self { node, market })
    }

    pub(super) fn peer(&self) -> PeerId {
        self.node.local_peer_id()
    }

    pub(super) fn registry(&self) -> &dyn Registry {
        &*self.market
    }
}

/// A node that listens on loopback and serves.
///
/// # Errors
///
/// None: the address is one.
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

/// Waits until a node's routing table has so many peers.
///
/// # Errors
///
/// If it has not in time.
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
        anyhow::ensure!(Instant::now() < deadline, "after {WAIT:?} a node knows {known} peers of {peers}");
        sleep(POLL).await;
    }
}
