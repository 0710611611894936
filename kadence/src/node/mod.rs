//! A ready-made node, from one [`NodeConfig`], on any runtime.
//!
//! The node has kad, by default on a private protocol name, a record store in memory or in a file, identify, which
//! supplies addresses for the routing table, ping, connection limits, a key pair that may be kept in a file, and
//! bootstrap peers that are redialled. A runtime crate adds the transport. Applications call
//! the function of their runtime crate (`kadence_tokio::node`, …) rather than [`Node::start`].

mod addresses;
mod announcer;
mod behaviour;
mod bootstrap;
mod config;
mod departed;
mod error;
mod half_open;
mod identity;
mod jitter;
mod routing;
mod running;
mod sweeper;
mod transport;

use std::{collections::HashSet, fmt, sync::Arc, time::Duration};

use futures::{
    FutureExt,
    channel::oneshot,
    future::{BoxFuture, Either, Shared, poll_fn, select},
    pin_mut,
};
use kadence_store::{StatsHandle, StoreStats};
use libp2p::{
    Multiaddr, PeerId, Swarm, Transport, connection_limits, identify,
    identity::Keypair,
    multiaddr::Protocol,
    ping,
    swarm::{self, NetworkBehaviour, dummy},
};

use self::{
    announcer::Announcer,
    bootstrap::BootstrapPeers,
    config::KnownPeer,
    departed::DepartedPeers,
    half_open::{HalfOpenHandle, HalfOpenTransport},
    running::{ConnectedPeers, Running, Status, add_and_dial},
    sweeper::Sweeper,
};
pub use self::{
    behaviour::{NodeBehaviour, NodeBehaviourEvent, NodeEvent},
    config::{DEFAULT_PROTOCOL, NodeConfig, NodeStore},
    error::{NodeError, ReadyError},
    half_open::HalfOpenStats,
    identity::Identity,
    transport::{BoxedTransport, upgrade},
};
use crate::{
    Alarm, Client, Driver, DriverClosedError, Events, PeerTimeouts, ResponseProgress, Runtime, SwarmHandle, Task,
    TaskEnd,
};

/// Maximum time that a start waits for the listeners' addresses. They come at once, except for a wildcard on a machine
/// without network interfaces.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum number of bootstrap peers that are in the routing table before one of the network has answered. A lookup that
/// begins early waits for those that are silent.
const MAX_UNTRIED: usize = 4;

/// A running node. [`shutdown`](Self::shutdown) ends the node gracefully. Dropping the node aborts its task, which
/// drops the swarm and closes the store's file soon afterwards; pending and later calls then end with
/// [`RequestError::Shutdown`](kadence_core::RequestError::Shutdown).
///
/// ```
/// use std::time::Duration;
///
/// use kadence::{
///     Client, Runtime, TaskEnd,
///     libp2p::{
///         core::{transport::MemoryTransport, upgrade::Version},
///         identity::Keypair,
///         kad::{Record, RecordKey},
///         swarm::dummy,
///     },
///     node::{Node, NodeConfig, upgrade},
/// };
///
/// // Two nodes, connected through memory. `kadence_tokio::node(config)` is this over TCP, DNS and QUIC.
/// async fn example(runtime: impl Runtime) -> Result<(), Box<dyn std::error::Error>> {
///     let transport = |keypair: &Keypair| upgrade(MemoryTransport::default(), keypair);
///
///     let config = NodeConfig::default().listen(["/memory/7001".parse()?]);
///     let first = Node::start(runtime.clone(), config, transport, |_| dummy::Behaviour).await?;
///
///     let config = NodeConfig::default().listen(["/memory/7002".parse()?]).bootstrap_peers(first.listen_addrs());
///     let second = Node::start(runtime, config, transport, |_| dummy::Behaviour).await?;
///     second.ready(Duration::from_secs(10)).await?;
///
///     let client: &Client = second.client();
///     let key = RecordKey::new(b"greeting");
///     let put = client.put_record(Record::new(key.clone(), b"hello".to_vec())).await?;
///     assert_eq!(put.acknowledged, [first.local_peer_id()]);
///     assert_eq!(client.get_record(key).await?.value(), b"hello");
///
///     assert_eq!(second.shutdown().await, TaskEnd::Finished);
///     Ok(())
/// }
/// ```
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
    /// Starts a node on a runtime. `transport` creates the node's transport and `app` the application's own behaviour,
    /// both from the node's key pair.
    ///
    /// When this succeeds, the node has opened a listener for each address of [`listen`](field@NodeConfig::listen), and
    /// has started to dial the bootstrap peers. A listener that closes after it was opened causes no error, and neither
    /// does a dial that fails. Wait for [`ready`](Self::ready) before the first request. The start waits at most 5 s
    /// for the addresses of the listeners, and then succeeds without those that are missing. Reading the store's file
    /// blocks the thread, with the default limits for some tens of milliseconds.
    ///
    /// # Errors
    ///
    /// Fails if the key pair cannot be loaded, the address of a bootstrap peer is incomplete, the store's file cannot
    /// be opened, the transport cannot be created, or a listener cannot be opened. Fails with [`NodeError::Closed`] if
    /// the node's task ends while the start waits for the listeners, for example because the runtime has ended. After
    /// an error, the node's task does not run.
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
        // After the timeout, the node continues with the addresses it has.
        match select(listening, (node.sleep)(LISTEN_TIMEOUT)).await {
            Either::Left((Ok(()), _)) | Either::Right(((), _)) => Ok(node),
            // The node's task has ended, and with it the sender.
            Either::Left((Err(oneshot::Canceled), _)) => Err(NodeError::Closed(DriverClosedError)),
        }
    }

    /// Does the synchronous part of `start`, whose future would otherwise reserve space for all of this.
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
        let local_peer_id = keypair.public().to_peer_id();
        let bootstrap_peers = KnownPeer::parse_all(&config.bootstrap_peers, local_peer_id)?;
        let store = config.open_store(local_peer_id)?;
        let store_stats = store.stats_handle();
        let announcer = Announcer::new(local_peer_id, &runtime);
        let transport = transport(&keypair).map_err(|error| NodeError::Transport(Box::new(error)))?;
        let progress = ResponseProgress::new([config.protocol.clone()]);
        let transport = HalfOpenTransport::new(progress.watch(transport), config.half_open());
        let half_open = transport.handle();
        let behaviour = NodeBehaviour {
            limits: connection_limits::Behaviour::new(config.limits()),
            kad: match config.peer_timeouts {
                Some(timeouts) => {
                    PeerTimeouts::with_timer(config.kad(local_peer_id, store), Alarm::new(&runtime), timeouts)
                        .with_progress(progress)
                }
                None => PeerTimeouts::disabled(config.kad(local_peer_id, store)),
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
        let mut swarm = Swarm::new(transport.boxed(), behaviour, local_peer_id, swarm_config);
        let mut listeners = HashSet::new();
        for address in &config.listen {
            let listener = swarm
                .listen_on(address.clone())
                .map_err(|error| NodeError::Listen { address: address.clone(), error })?;
            listeners.insert(listener);
        }
        for address in &config.external_addresses {
            swarm.add_external_address(address.clone());
        }
        // A call that does not wait for the first peer finds these, at least.
        let untried: Vec<_> = bootstrap_peers.iter().take(MAX_UNTRIED).cloned().collect();
        for peer in &untried {
            routing::add(swarm.behaviour_mut().kad.kad_mut(), peer);
        }

        let (events_sender, events) = Events::new(config.driver.event_capacity);
        let (client, swarm, driver) = Driver::new(swarm, runtime.clone(), config.driver_config());
        let status = Arc::new(Status::default());
        let (first_peer_sender, first_peer) = oneshot::channel();
        let (listening_sender, listening) = oneshot::channel();
        // Without a mode, kad is a server once the application confirms an address.
        let announced = (config.external_addresses.is_empty() && config.mode.is_some()).then(Vec::new);
        let mut running = Running {
            driver,
            events: events_sender,
            status: Arc::clone(&status),
            protocol: config.protocol,
            connected: ConnectedPeers::default(),
            bootstrap: BootstrapPeers::new(&runtime, local_peer_id, bootstrap_peers),
            untried: untried.into_iter().map(|peer| peer.id).collect(),
            departed: DepartedPeers::new(&runtime, local_peer_id),
            watched: HashSet::new(),
            first_peer: Some(first_peer_sender),
            listening: Some(listening_sender),
            listeners,
            announced,
            measured: runtime.now(),
            announcer,
            sweeper: Sweeper::new(&runtime),
        };
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
    /// Returns the client. Clone it to share it.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Returns a handle that runs closures on the node's swarm and behaviours.
    pub fn swarm(&self) -> &SwarmHandle<NodeBehaviour<X>> {
        &self.swarm
    }

    /// Returns the stream of the swarm's events, including those of the application's own behaviour. Events of the kad
    /// queries that the node has started, for calls or to announce its stored records and providers again, are left
    /// out. `None` after the first call of this method. The stream need not be read: it keeps at most
    /// [`DriverConfig::event_capacity`](crate::DriverConfig::event_capacity) events and drops further ones.
    pub fn events(&mut self) -> Option<Events<NodeEvent<X>>> {
        self.events.take()
    }

    /// Returns the node's peer id.
    pub fn local_peer_id(&self) -> PeerId {
        self.client.local_peer_id()
    }

    /// Returns the addresses that the node listens on, each with the node's peer id at the end, so that other nodes can
    /// take them as bootstrap peers. After the node has ended, returns the addresses that it had at the end.
    pub fn listen_addrs(&self) -> Vec<Multiaddr> {
        let id = Protocol::P2p(self.local_peer_id());
        self.status.listen_addrs().into_iter().map(|address| address.with(id.clone())).collect()
    }

    /// Waits until a first peer has announced that it serves the network's kad protocol, and the routing table is not
    /// empty. After that, every call of this method succeeds at once, even if no peer is connected any more or the node
    /// has ended.
    ///
    /// # Errors
    ///
    /// Fails with [`ReadyError::NoPeer`], which contains the error of the last dial that failed, if the two conditions
    /// are not met within `timeout`. Fails with [`ReadyError::Closed`] if the node ends before they are met.
    pub async fn ready(&self, timeout: Duration) -> Result<(), ReadyError> {
        let first_peer = self.first_peer.clone();
        let sleep = (self.sleep)(timeout);
        pin_mut!(sleep);
        match select(first_peer, sleep).await {
            Either::Left((told, _)) => told.map_err(ReadyError::Closed),
            Either::Right(((), _)) => {
                Err(ReadyError::NoPeer { timeout, last_dial_error: self.status.last_dial_error() })
            }
        }
    }

    /// Adds a peer to the routing table, if the peer's bucket has room, and starts to dial the peer. A peer that is
    /// connected or being dialled is not dialled again. If the dial fails, the call still succeeds. Later, lookups and
    /// bootstraps of kad dial the peer while it is in the routing table. A peer that refuses connections, or does not answer,
    /// leaves the table, and is dialled less and less often for a day.
    ///
    /// # Errors
    ///
    /// Fails if the address has no peer id at the end or nothing before the peer id, if the peer id is the node's own,
    /// or if the node ends before the peer is added.
    pub async fn add_peer(&self, address: &Multiaddr) -> Result<(), NodeError> {
        let peer = KnownPeer::parse(address, self.local_peer_id())?;
        Ok(self.swarm.with(move |swarm| add_and_dial(swarm, &peer)).await?)
    }

    /// Returns the sizes and counters of the node's store. Does not wait for the node's task, and works after the node
    /// has ended.
    pub fn store_stats(&self) -> StoreStats {
        self.store_stats.read()
    }

    /// Returns the current number of half-open incoming connections, and the number of connections that have been
    /// evicted for newer ones since the start of the node. Works after the node has ended.
    pub fn half_open_stats(&self) -> HalfOpenStats {
        self.half_open.stats()
    }

    /// Returns the connected peers.
    ///
    /// # Errors
    ///
    /// Fails if the node ends before it has replied.
    pub async fn connected_peers(&self) -> Result<Vec<PeerId>, DriverClosedError> {
        self.swarm.with(|swarm| swarm.connected_peers().copied().collect()).await
    }

    /// Shuts the node down gracefully, like [`Client::shutdown`], and waits for the node's task to end. Returns
    /// [`TaskEnd::Finished`] unless the task panicked or its runtime dropped it. If the store is in a file, the file
    /// can be opened again when this returns, and its content is on the disk, unless the disk has failed.
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
            .field("local_peer_id", &self.local_peer_id())
            .field("listen_addrs", &self.status.listen_addrs())
            .finish_non_exhaustive()
    }
}

fn sleep<R: Runtime>(runtime: &R, span: Duration) -> BoxFuture<'static, ()> {
    let mut alarm = Alarm::new(runtime);
    async move { alarm.sleep(span).await }.boxed()
}
