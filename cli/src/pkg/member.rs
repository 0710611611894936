//! A node with a registry, for as long as a command takes.

use std::{future::Future, time::Duration};

use anyhow::Context;
use futures::{StreamExt, future::BoxFuture};
use kadence_registry::{
    Registry,
    p2p::registry::{Event, P2PRegistry, RegistryBehaviour, RegistryConfig, configure},
};
use kadence_tokio::{
    Identity, Node, NodeConfig, TokioRuntime,
    kadence::{
        libp2p::{Multiaddr, StreamProtocol, kad::Mode},
        node::NodeStore,
    },
};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};
use tracing::{info, warn};

use super::home::Home;
use crate::{exit::Failure, node::Addresses};

/// How long to look for a first peer, however long the rest may take: a peer that is there answers at once.
const REACH: Duration = Duration::from_secs(20);

/// How often a node that serves looks for new addresses of its own.
const ADDRESSES: Duration = Duration::from_secs(2);

/// How a command takes part.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) home: Home,
    pub(super) peers: Vec<Multiaddr>,
    /// Where to listen. Who listens serves, and who does not only asks.
    pub(super) listen: Vec<Multiaddr>,
    pub(super) protocol: StreamProtocol,
    /// For the whole command, but not for serving.
    pub(super) timeout: Duration,
}

pub(super) struct Member {
    node: Node<RegistryBehaviour>,
    pub(super) registry: P2PRegistry<TokioRuntime>,
    deadline: Instant,
    timeout: Duration,
}

impl Member {
    /// Starts a node and its registry, without waiting for others.
    ///
    /// # Errors
    ///
    /// If the home cannot be used, by this process or at all, or the node does not start.
    pub(super) async fn start(part: Part) -> Result<Self, Failure> {
        let Part { home, peers, listen, protocol, timeout } = part;
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
            .protocol(protocol);
        configure(&mut config);
        let mut registry = RegistryConfig::in_folder(home.registry());
        registry.private_paths.push(home.path().to_owned());
        let behaviour = RegistryBehaviour::new(&keypair, &registry).with_context(in_home)?;
        let mut node = kadence_tokio::node_with(config, |_| behaviour).await?;
        let runtime = TokioRuntime::current().context("there is no runtime")?;
        let registry = P2PRegistry::start(&mut node, runtime, keypair, registry).await.with_context(in_home)?;
        Ok(Self { node, registry, deadline, timeout })
    }

    /// The same, with a network to ask.
    ///
    /// # Errors
    ///
    /// As for [`start`](Self::start), and if no peer is reached in time.
    pub(super) async fn join(part: Part) -> Result<Self, Failure> {
        let patience = part.timeout.min(REACH);
        let member = Self::start(part).await?;
        match member.node.ready(patience).await {
            Ok(()) => Ok(member),
            Err(error) => {
                member.leave().await;
                Err(error.into())
            }
        }
    }

    /// Waits for something as long as the command may take.
    ///
    /// # Errors
    ///
    /// Those of the future, or that it takes too long.
    pub(super) async fn in_time<T, E>(&self, future: impl Future<Output = Result<T, E>>) -> Result<T, Failure>
    where
        Failure: From<E>,
    {
        match timeout_at(self.deadline, future).await {
            Ok(result) => Ok(result?),
            Err(_elapsed) => Err(Failure::timeout(self.timeout)),
        }
    }

    /// Serves until a signal comes, and prints each address of its own once.
    ///
    /// # Errors
    ///
    /// If the node ends by itself, or stdout cannot be written.
    pub(super) async fn serve(&self, mut signal: BoxFuture<'static, ()>, json: bool) -> Result<(), Failure> {
        let mut addresses = Addresses::new(json);
        let mut look = interval(ADDRESSES);
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
                    None => return Err(anyhow::anyhow!("the node has ended by itself").into()),
                },
                _ = look.tick() => addresses.print_new(&self.node)?,
            }
        }
    }

    /// Ends the node. What is to be kept is on the disk then.
    pub(super) async fn leave(self) {
        self.registry.close().await;
        self.node.shutdown().await;
    }

    pub(super) fn registry(&self) -> &dyn Registry {
        &self.registry
    }
}

fn log(event: &Event) {
    match event {
        Event::PeerJoined { peer } => info!(%peer, "connected"),
        Event::PeerLeft { peer } => info!(%peer, "disconnected"),
        Event::PackageDiscovered { package, version } => info!(%package, %version, "discovered"),
        Event::Downloaded { content, size } => info!(%content, size, "downloaded"),
        Event::Republished { package, seq } => info!(%package, seq, "published again"),
        Event::BadData { peer } => warn!(%peer, "has sent bad data"),
        _ => {}
    }
}
