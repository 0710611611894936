//! A node with a registry, which runs as long as its command.

use std::{future::Future, time::Duration};

use anyhow::Context;
use futures::{StreamExt, future::BoxFuture};
use kadence_registry::{
    Registry,
    p2p::registry::{P2PRegistry, RegistryBehaviour, RegistryConfig, RegistryEvent, configure},
};
use kadence_tokio::{
    Identity, Node, NodeConfig, TokioRuntime,
    kadence::{
        libp2p::{Multiaddr, kad::Mode},
        node::NodeStore,
    },
};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};
use tracing::{info, warn};

use super::home::Home;
use crate::{args::NetworkArgs, exit::Failure, node::Addresses};

/// Maximum time until a first peer is reached, also if the timeout of the command is longer. A peer that is online
/// answers at once.
const REACH_TIMEOUT: Duration = Duration::from_secs(20);

/// Interval at which a node that serves looks for new addresses of its own.
const ADDRESS_INTERVAL: Duration = Duration::from_secs(2);

/// Parameters of a node.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) home: Home,
    pub(super) peers: Vec<Multiaddr>,
    /// Addresses to listen on. Without any, the node only asks and does not serve.
    pub(super) listen: Vec<Multiaddr>,
    pub(super) network: NetworkArgs,
    /// Timeout of the whole command, without the time in which it serves.
    pub(super) timeout: Duration,
}

/// A node and its registry.
pub(super) struct Member {
    node: Node<RegistryBehaviour>,
    pub(super) registry: P2PRegistry<TokioRuntime>,
    deadline: Instant,
    timeout: Duration,
}

impl Member {
    /// Starts a node and its registry, without waiting for peers.
    ///
    /// # Errors
    ///
    /// If the home cannot be used or another process uses it, or the node does not start.
    pub(super) async fn start(part: Part) -> Result<Self, Failure> {
        let Part { home, peers, listen, network, timeout } = part;
        let deadline = Instant::now() + timeout;
        let in_home = || format!("cannot use the home {}", home.path().display());
        let keypair = home.keypair()?;
        let serves = !listen.is_empty();
        let mut config = NodeConfig::default()
            .identity(Identity::Keypair(keypair.clone()))
            .mode(if serves { Mode::Server } else { Mode::Client })
            .store(if serves { NodeStore::Disk(home.store()) } else { NodeStore::Memory })
            .listen(listen)
            .bootstrap_peers(peers)
            .protocol(network.protocol)
            .expected_network_size(network.network_size);
        configure(&mut config);
        // One that does not stay serves the peers that it is connected to.
        config.driver.requires_external_address = serves;
        let mut registry = RegistryConfig::in_folder(home.registry());
        registry.private_paths.push(home.path().to_owned());
        let behaviour = RegistryBehaviour::new(&keypair, &registry).with_context(in_home)?;
        let mut node = kadence_tokio::node_with(config, |_| behaviour).await?;
        let runtime = TokioRuntime::current().context("not called in a tokio runtime")?;
        let registry = P2PRegistry::start(&mut node, runtime, keypair, registry).await.with_context(in_home)?;
        Ok(Self { node, registry, deadline, timeout })
    }

    /// Starts a node and its registry, and waits until a peer is reached.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start), and if no peer is reached in time.
    pub(super) async fn join(part: Part) -> Result<Self, Failure> {
        let reach_timeout = part.timeout.min(REACH_TIMEOUT);
        let member = Self::start(part).await?;
        match member.node.ready(reach_timeout).await {
            Ok(()) => Ok(member),
            Err(error) => {
                member.leave().await;
                Err(error.into())
            }
        }
    }

    /// Awaits a future until the timeout of the command.
    ///
    /// # Errors
    ///
    /// The error of the future, or a timeout.
    pub(super) async fn in_time<T, E>(&self, future: impl Future<Output = Result<T, E>>) -> Result<T, Failure>
    where
        Failure: From<E>,
    {
        match timeout_at(self.deadline, future).await {
            Ok(result) => Ok(result?),
            Err(_elapsed) => Err(Failure::timeout(self.timeout)),
        }
    }

    /// Serves until a signal comes, and prints each address of the node once.
    ///
    /// # Errors
    ///
    /// If the node ends by itself, or stdout cannot be written.
    pub(super) async fn serve(&self, mut signal: BoxFuture<'static, ()>, json: bool) -> Result<(), Failure> {
        let mut addresses = Addresses::new(json);
        let mut look = interval(ADDRESS_INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut events = self.registry.events();
        loop {
            tokio::select! {
                biased;
                () = &mut signal => {
                    info!("shutting down");
                    return Ok(());
                }
                event = events.next() => match event {
                    Some(event) => log(&event),
                    None => return Err(anyhow::anyhow!("node ended by itself").into()),
                },
                _ = look.tick() => addresses.print_new(&self.node)?,
            }
        }
    }

    /// Shuts the node down after all data is on disk.
    pub(super) async fn leave(self) {
        self.registry.close().await;
        self.node.shutdown().await;
    }

    pub(super) fn registry(&self) -> &dyn Registry {
        &self.registry
    }
}

fn log(event: &RegistryEvent) {
    match event {
        RegistryEvent::PeerJoined { peer } => info!(%peer, "connected"),
        RegistryEvent::PeerLeft { peer } => info!(%peer, "disconnected"),
        RegistryEvent::PackageDiscovered { package, version } => info!(%package, %version, "discovered"),
        RegistryEvent::Downloaded { content, size } => info!(%content, size, "downloaded"),
        RegistryEvent::Republished { package, seq } => info!(%package, seq, "republished"),
        RegistryEvent::BadData { peer } => warn!(%peer, "peer sent bad data"),
        _ => {}
    }
}
