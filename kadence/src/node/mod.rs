//! A ready-made node: what nearly everyone who wants a DHT builds by hand.
//!
//! kad on a private protocol name with a store that validates and may be in a file, identify wired into its routing
//! table, ping, connection limits, a persistent key pair, bootstrap peers that are dialled and dialled again: from one [`NodeConfig`], on any runtime. A runtime crate
//! only brings the transport, so applications call its function (`kadence_tokio::node`, …) and not
//! [`Node::start`] here.

mod announcer;
mod behaviour;
mod config;
mod half_open;
mod identity;
mod running;
mod sweeper;

use std::{collections::HashSet, fmt, io, path::PathBuf, sync::Arc, time::Duration};

use futures::{
    FutureExt,
    channel::oneshot,
    future::{BoxFuture, Either, Shared, poll_fn, select},
    pin_mut,
};
use kadence_store::{StatsHandle, StoreStats};
use libp2p::{
    Multiaddr, PeerId, Swarm, Transport, TransportError, connection_limits,
    core::{muxing::StreamMuxerBox, transport::Boxed, upgrade::Version},
    identify,
    identity::Keypair,
    multiaddr::Protocol,
    noise, ping,
    swarm::{self, NetworkBehaviour, SwarmEvent, dummy},
    yamux,
};
use thiserror::Error;

use self::{
    announcer::Announcer,
    config::KnownPeer,
    half_open::{HalfOpenHandle, HalfOpenTransport},
    running::{Redial, Running, Status, dial},
    sweeper::Sweeper,
};
pub use self::{
    behaviour::{NodeBehaviour, NodeBehaviourEvent},
    config::{DEFAULT_PROTOCOL, NodeConfig, NodeStore},
    half_open::HalfOpenStats,
    identity::Identity,
};
use crate::{Alarm, Client, Driver, DriverClosedError, Events, PeerTimeouts, Runtime, SwarmHandle, Task, TaskEnd};

/// How long a connection may take from the first packet to the last handshake, in both directions. Without it a peer
/// that accepts and says nothing holds a dial for ever.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a start waits for the listeners' addresses. They come at once, but for a wildcard on a machine without
/// interfaces.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(5);

/// A transport as a swarm takes it.
pub type BoxedTransport = Boxed<(PeerId, StreamMuxerBox)>;

/// The events of a node's swarm that belong to no call.
pub type NodeEvent<X> = SwarmEvent<NodeBehaviourEvent<X>>;

/// A running node. Dropping it ends it at once; [`shutdown`](Self::shutdown) ends it gracefully.
pub struct Node<X: NetworkBehaviour = dummy::Behaviour> {
    client: Client,
    swarm: SwarmHandle<NodeBehaviour<X>>,
    events: Option<Events<NodeEvent<X>>>,
    status: Arc<Status>,
    store_stats: StatsHandle,
    half_open: HalfOpenHandle,
    first_peer: Shared<BoxFuture<'static, Result<(), DriverClosedError>>>,
    sleep: Arc<dyn Fn(Duration) -> BoxFuture<'static, ()> + Send + Sync>,
    task: Option<Task>,
}

impl<X> Node<X>
where
    X: NetworkBehaviour + Send,
    X::ToSwarm: Send,
{
    /// Starts a node on a runtime, with a transport and the application's own behaviour, both made from the key pair.
    ///
    /// When it returns, the node listens, and the bootstrap peers are being dialled; wait for
    /// [`ready`](Self::ready) before you ask the network. A store's file is read before that, which blocks the thread for
    /// as long as it takes: some tens of milliseconds with the default limits.
    ///
    /// # Errors
    ///
    /// If the key pair cannot be loaded, a bootstrap peer has no id, the store's file cannot be opened, the transport
    /// cannot be made, an address cannot be listened on, or the runtime is gone. Nothing runs then.
    pub async fn start<R, E>(
        runtime: R,
        config: NodeConfig,
        transport: impl FnOnce(&Keypair) -> Result<BoxedTransport, E>,
        app: impl FnOnce(&Keypair) -> X,
    ) -> Result<Self, NodeError>
    where
        R: Runtime,
        E: std::error::Error + Send + Sync + 'static,
    {
        let (node, listening) = Self::launch(runtime, config, transport, app)?;
        // Whichever comes first: the addresses that could be had are there.
        match select(listening, (node.sleep)(LISTEN_TIMEOUT)).await {
            Either::Left((Ok(()), _)) | Either::Right(((), _)) => Ok(node),
            // Its task is gone, and with it whoever would have told us.
            Either::Left((Err(oneshot::Canceled), _)) => Err(NodeError::NodeGone(DriverClosedError)),
        }
    }

    /// Not in the future of `start`, which would keep room for all of this until it is dropped.
    fn launch<R, E>(
        runtime: R,
        config: NodeConfig,
        transport: impl FnOnce(&Keypair) -> Result<BoxedTransport, E>,
        app: impl FnOnce(&Keypair) -> X,
    ) -> Result<(Self, oneshot::Receiver<()>), NodeError>
    where
        R: Runtime,
        E: std::error::Error + Send + Sync + 'static,
    {
        let keypair = config.identity.load()?;
        let local_peer = keypair.public().to_peer_id();
        let bootstrap_peers = KnownPeer::parse_all(&config.bootstrap_peers, local_peer)?;
        let store = config.open_store(local_peer)?;
        let store_stats = store.stats_handle();
        let announcer = Announcer::new(&store, local_peer, &runtime);
        let transport = transport(&keypair).map_err(|error| NodeError::Transport(Box::new(error)))?;
        let transport = HalfOpenTransport::new(transport, config.half_open());
        let half_open = transport.handle();
        let behaviour = NodeBehaviour {
            limits: connection_limits::Behaviour::new(config.limits()),
            kad: match config.peer_timeouts {
                Some(timeouts) => {
                    PeerTimeouts::with_timer(config.kad(local_peer, store), Alarm::new(&runtime), timeouts)
                }
                None => PeerTimeouts::disabled(config.kad(local_peer, store)),
            },
            identify: identify::Behaviour::new(config.identify(keypair.public())),
            ping: ping::Behaviour::default(),
            app: app(&keypair),
        };
        let swarm_config = swarm::Config::with_executor({
            let runtime = runtime.clone();
            move |task| runtime.spawn(task)
        })
        .with_idle_connection_timeout(config.idle_connection_timeout);
        let mut swarm = Swarm::new(transport.boxed(), behaviour, local_peer, swarm_config);
        let mut listeners = HashSet::new();
        for address in &config.listen {
            let listener = swarm
                .listen_on(address.clone())
                .map_err(|error| NodeError::Listen { address: address.clone(), error })?;
            listeners.insert(listener);
        }
        for peer in &bootstrap_peers {
            dial(&mut swarm, peer);
        }

        let (events_sender, events) = Events::new(config.driver.event_capacity);
        let (client, swarm, driver) = Driver::new(swarm, runtime.clone(), config.driver());
        let status = Arc::new(Status::default());
        let (first_peer_sender, first_peer) = oneshot::channel();
        let (listening_sender, listening) = oneshot::channel();
        let mut running = Running {
            driver,
            events: events_sender,
            status: Arc::clone(&status),
            protocol: config.protocol,
            bootstrap_peers,
            speaks: false,
            first_peer: Some(first_peer_sender),
            listening: Some(listening_sender),
            listeners,
            redial: Redial::new(&runtime),
            announcer,
            sweeper: Sweeper::new(&runtime),
        };
        running.check_alone();
        let task = Task::spawn(&runtime, async move { poll_fn(|cx| running.poll(cx)).await });
        let sleep = Arc::new(move |span| sleep(&runtime, span));
        let node = Self {
            client,
            swarm,
            events: Some(events),
            status,
            store_stats,
            half_open,
            first_peer: first_peer.map(|told| told.map_err(|_| DriverClosedError)).boxed().shared(),
            sleep,
            task: Some(task),
        };
        Ok((node, listening))
    }
}

impl<X: NetworkBehaviour> Node<X> {
    /// The client, to clone and hand around.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Runs closures on the node's swarm, where its behaviours are.
    pub fn swarm(&self) -> &SwarmHandle<NodeBehaviour<X>> {
        &self.swarm
    }

    /// The swarm's events that belong to no call, those of the application's own behaviour among them. The first call
    /// has the stream; it is bounded, and may be left alone.
    pub fn events(&mut self) -> Option<Events<NodeEvent<X>>> {
        self.events.take()
    }

    /// The node's id.
    pub fn peer_id(&self) -> PeerId {
        self.client.local_peer()
    }

    /// Where the node listens now, each with the node's id at its end: what others take as a bootstrap peer.
    pub fn listen_addrs(&self) -> Vec<Multiaddr> {
        let id = Protocol::P2p(self.peer_id());
        self.status.listen_addrs().into_iter().map(|address| address.with(id.clone())).collect()
    }

    /// Waits for the first peer that speaks the network's protocol and can be asked. Ready at once if there was one.
    ///
    /// # Errors
    ///
    /// If none came within `timeout`, with the last reason why a dial failed, or if the node has ended.
    pub async fn ready(&self, timeout: Duration) -> Result<(), ReadyError> {
        let first_peer = self.first_peer.clone();
        let sleep = (self.sleep)(timeout);
        pin_mut!(sleep);
        match select(first_peer, sleep).await {
            Either::Left((told, _)) => told.map_err(ReadyError::NodeGone),
            Either::Right(((), _)) => {
                Err(ReadyError::NoPeer { timeout, last_dial_error: self.status.last_dial_error() })
            }
        }
    }

    /// Makes a peer known and dials it, as if it were a bootstrap peer, but once.
    ///
    /// # Errors
    ///
    /// If the address has no peer id, is the node's own, or the node has ended.
    pub async fn add_peer(&self, address: &Multiaddr) -> Result<(), NodeError> {
        let peer = KnownPeer::parse(address, self.peer_id())?;
        Ok(self.swarm.with(move |swarm| dial(swarm, &peer)).await?)
    }

    /// What the node's store has, what it has taken and refused, and how long its file has stopped the node at most. Reads
    /// a few counters, whatever the node is doing, also after its end.
    pub fn store_stats(&self) -> StoreStats {
        self.store_stats.read()
    }

    /// Returns how many incoming connections are half-open, and how many of them had to give way to newer ones. Also after the
    /// node's end.
    pub fn half_open_stats(&self) -> HalfOpenStats {
        self.half_open.stats()
    }

    /// The peers that are connected now.
    ///
    /// # Errors
    ///
    /// If the node has ended.
    pub async fn connected_peers(&self) -> Result<Vec<PeerId>, DriverClosedError> {
        self.swarm.with(|swarm| swarm.connected_peers().copied().collect()).await
    }

    /// Accepts no further calls, waits until those that were accepted have ended, and ends the node. A store's file is on
    /// the disk and can be opened again when this returns.
    pub async fn shutdown(mut self) -> TaskEnd {
        self.client.shutdown().await;
        match self.task.take() {
            Some(task) => task.await,
            None => TaskEnd::Finished,
        }
    }
}

impl<X: NetworkBehaviour> Drop for Node<X> {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl<X: NetworkBehaviour> fmt::Debug for Node<X> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("peer_id", &self.peer_id())
            .field("listen_addrs", &self.status.listen_addrs())
            .finish_non_exhaustive()
    }
}

/// Encrypts (noise) and multiplexes (yamux) the connections of a transport, and bounds the time that they take.
///
/// # Errors
///
/// If the key pair cannot sign.
pub fn upgrade<T>(transport: T, keypair: &Keypair) -> Result<BoxedTransport, noise::Error>
where
    T: Transport + Send + Unpin + 'static,
    T::Output: futures::AsyncRead + futures::AsyncWrite + Send + Unpin + 'static,
    T::Error: Send + Sync + 'static,
    T::Dial: Send + 'static,
    T::ListenerUpgrade: Send + 'static,
{
    Ok(transport
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(keypair)?)
        .multiplex(yamux::Config::default())
        .timeout(CONNECTION_TIMEOUT)
        .boxed())
}

fn sleep<R: Runtime>(runtime: &R, span: Duration) -> BoxFuture<'static, ()> {
    let mut alarm = Alarm::new(runtime);
    async move { alarm.sleep(span).await }.boxed()
}

/// Why a node did not start, or does not take a peer.
#[derive(Debug, Error)]
pub enum NodeError {
    /// The identity file can be neither read nor made, or holds something else.
    #[error("the identity file {} cannot be used", path.display())]
    Identity {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// A peer's address says where it is, and not who: add `/p2p/` and its id, as the peer prints it.
    #[error("the address {address} must end in /p2p/<peer id>, after the place where the peer listens")]
    NoPeerId {
        /// The address.
        address: Multiaddr,
    },
    /// A peer's address is this node's own.
    #[error("the address {address} is this node's own")]
    OwnAddress {
        /// The address.
        address: Multiaddr,
    },
    /// The store's file cannot be opened: its error says whether another node has it, it is something else or damaged, or
    /// the disk does not let us. It was left as it is.
    #[cfg(feature = "disk")]
    #[error("the store cannot be opened")]
    Store(#[source] kadence_store::StoreOpenError),
    /// The transport cannot be made.
    #[error("the transport cannot be made")]
    Transport(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// An address cannot be listened on: it is in use, not ours, or of a kind that the transport does not know.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: Multiaddr,
        /// Why.
        #[source]
        error: TransportError<io::Error>,
    },
    /// The node has ended, or its runtime is gone and it never began.
    #[error(transparent)]
    NodeGone(#[from] DriverClosedError),
}

/// Why a node is not ready.
#[derive(Debug, Clone, Error)]
pub enum ReadyError {
    /// No peer that speaks the network's protocol came in time.
    #[error("no peer of this network was found within {timeout:?}{}", because(last_dial_error.as_deref()))]
    NoPeer {
        /// How long was waited.
        timeout: Duration,
        /// Why the last dial failed, if one did.
        last_dial_error: Option<String>,
    },
    /// The node has ended, or its runtime is gone and it never began.
    #[error(transparent)]
    NodeGone(DriverClosedError),
}

fn because(reason: Option<&str>) -> String {
    reason.map_or_else(String::new, |reason| format!(": {reason}"))
}
