//! A world: hosts, the network between them, and the scenario that runs in it.

#![expect(clippy::panic, reason = "a world that cannot go on is a failed test")]

use std::{
    future::Future,
    io,
    net::Ipv4Addr,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use async_executor::Executor;
use futures::FutureExt;
use futures_timer::{Delay, schedule};
use kadence::{
    Runtime,
    node::{BoxedTransport, Node, NodeConfig, NodeError},
};
use libp2p::{
    Multiaddr, PeerId, Swarm, Transport,
    core::{muxing::StreamMuxerBox, transport::timeout::TransportTimeout},
    identity::Keypair,
    swarm::{self, NetworkBehaviour, dummy},
};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::{
    disk::{self, DiskId, DiskState, Root},
    latency::Latency,
    network::{HostId, Link, Network, Traffic, multiaddr, nanos},
    os,
    runtime::{Process, SimRuntime},
    trace::Trace,
    transport::{self, SimTransport},
};

/// Time after which a dial or an incoming handshake is given up, as by the transports of a node.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// Stack of a world's thread. The scenario and all tasks run on it.
const STACK: usize = 64 << 20;

/// Settings of a world.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct WorldConfig {
    /// Seed of everything that is random, the latency of each pair included. Equal seeds give equal worlds. Default: 0.
    pub seed: u64,
    /// Latencies between hosts. Default: 25 ms each way.
    pub latency: Latency,
    /// Virtual time after which a world whose scenario has not ended panics. Default: a day.
    pub limit: Duration,
}

impl Default for WorldConfig {
    fn default() -> Self {
        Self {
            seed: 0,
            latency: Latency::Constant(Duration::from_millis(25)),
            limit: Duration::from_secs(24 * 60 * 60),
        }
    }
}

impl WorldConfig {
    /// Sets [`seed`](field@Self::seed).
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Sets [`latency`](field@Self::latency).
    #[must_use]
    pub fn latency(mut self, latency: Latency) -> Self {
        self.latency = latency;
        self
    }

    /// Sets [`limit`](field@Self::limit).
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }
}

/// End of a world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ran<T> {
    /// Result of the scenario.
    pub result: T,
    /// Virtual time that has passed.
    pub took: Duration,
    /// Hash of every poll and every packet, in their order. Equal worlds have equal hashes.
    pub trace: u64,
    /// Number of polls and packets.
    pub steps: u64,
}

/// World from within: creates hosts, and changes the network between them. Cheap to clone.
#[derive(Clone)]
pub struct World {
    network: Network,
    executor: Weak<Executor<'static>>,
    trace: Trace,
    random: Arc<Mutex<ChaCha8Rng>>,
}

/// Runs a scenario in a world of its own, on a thread of its own, until the scenario ends.
///
/// # Panics
///
/// Panics if the scenario does, if nothing can happen any more although the scenario has not ended, at the
/// [limit](field@WorldConfig::limit), or if anything in the world has started a thread, which would run outside of its
/// time.
pub fn run<T, S, F>(config: WorldConfig, scenario: S) -> Ran<T>
where
    T: Send + 'static,
    S: FnOnce(World) -> F + Send + 'static,
    F: Future<Output = T> + 'static,
{
    let folder = match Root::create() {
        Ok(folder) => folder,
        Err(error) => panic!("no folder for the files of a world: {error}"),
    };
    // A thread of its own has random numbers and hash seeds that no other world has used before.
    let thread = thread::Builder::new().name("world".into()).stack_size(STACK).spawn(move || {
        let _world = InWorld::begin(config.seed, folder);
        turn(&config, scenario)
    });
    match thread.map(thread::JoinHandle::join) {
        Ok(Ok(ran)) => ran,
        Ok(Err(panic)) => std::panic::resume_unwind(panic),
        Err(error) => panic!("no thread for a world: {error}"),
    }
}

/// Virtual time and random numbers of a thread, for as long as this lives.
struct InWorld;

impl InWorld {
    fn begin(seed: u64, folder: Root) -> Self {
        assert!(
            os::is_exported(),
            "the program does not export `getrandom` and `clock_gettime`: link it as the build script of kadence-sim does"
        );
        if let Err(error) = folder.begin() {
            panic!("the folder of a world is gone: {error}");
        }
        os::seed(Some(seed));
        schedule::begin();
        Self
    }
}

impl Drop for InWorld {
    fn drop(&mut self) {
        schedule::end();
        os::seed(None);
        disk::end();
    }
}

fn turn<T, S, F>(config: &WorldConfig, scenario: S) -> Ran<T>
where
    S: FnOnce(World) -> F,
    F: Future<Output = T>,
{
    let trace = Trace::default();
    let executor = Arc::new(Executor::new());
    let world = World {
        network: Network::new(config.latency.clone(), config.seed, trace.clone()),
        executor: Arc::downgrade(&executor),
        trace: trace.clone(),
        random: Arc::new(Mutex::new(ChaCha8Rng::seed_from_u64(config.seed ^ 0x5EED))),
    };
    let woken = Arc::new(Woken::default());
    let waker = std::task::Waker::from(Arc::clone(&woken));
    let limit = nanos(config.limit);
    let mut scenario = std::pin::pin!(scenario(world).fuse());
    woken.0.store(true, Relaxed);
    let result = loop {
        if woken.0.swap(false, Relaxed)
            && let std::task::Poll::Ready(result) = scenario.as_mut().poll(&mut std::task::Context::from_waker(&waker))
        {
            break result;
        }
        if executor.try_tick() || woken.0.load(Relaxed) {
            continue;
        }
        // Everybody waits: time goes on.
        let now = schedule::now().unwrap_or_default();
        match schedule::next() {
            None => panic!("nothing can happen any more, and the scenario has not ended"),
            Some(at) if at.max(now) > limit => panic!("the scenario has not ended after {:?}", config.limit),
            Some(at) => {
                schedule::advance(at.max(now));
            }
        }
    };
    let threads = os::threads();
    assert!(threads == 0, "the world has started {threads} threads, which are not in its time");
    let took = Duration::from_nanos(schedule::now().unwrap_or_default());
    Ran { result, took, trace: trace.hash(), steps: trace.steps() }
}

#[derive(Default)]
struct Woken(std::sync::atomic::AtomicBool);

impl std::task::Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Relaxed);
    }
}

impl World {
    /// Returns the virtual time since the start.
    pub fn now(&self) -> Duration {
        Duration::from_nanos(schedule::now().unwrap_or_default())
    }

    /// Waits.
    pub async fn sleep(&self, span: Duration) {
        Delay::new(span).await;
    }

    /// Draws from random numbers of the scenario's own, which depend on the seed alone.
    pub fn random<T>(&self, draw: impl FnOnce(&mut ChaCha8Rng) -> T) -> T {
        draw(&mut self.random.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns a new empty folder that is on the disk of no host, and that is deleted at the end of the world.
    ///
    /// # Errors
    ///
    /// If it cannot be created.
    pub fn folder(&self) -> io::Result<PathBuf> {
        disk::new_folder()
    }

    /// Creates a host.
    pub fn host(&self, link: Link) -> Host {
        let id = self.network.add_host(link);
        let wall_offset = Arc::new(AtomicI64::new(0));
        let process = Process::new(id, Arc::clone(&wall_offset));
        Host { world: self.clone(), id, process: Arc::new(Mutex::new(process)), wall_offset, disk: Arc::default() }
    }

    /// Cuts two hosts from each other, or connects them again. Neither notices: what is sent meanwhile arrives when they
    /// are connected again.
    pub fn set_cut(&self, a: &Host, b: &Host, is_cut: bool) {
        self.network.set_cut(a.id, b.id, is_cut);
    }

    /// Cuts each host of a side from each one of the other, or connects them again, as [`set_cut`](Self::set_cut).
    pub fn set_partition(&self, side: &[Host], other: &[Host], is_cut: bool) {
        for (a, b) in side.iter().flat_map(|a| other.iter().map(move |b| (a, b))) {
            self.set_cut(a, b, is_cut);
        }
    }

    /// Returns whether packets pass between two hosts: both have power, and nothing cuts them from each other or holds them
    /// up.
    pub fn reach_each_other(&self, a: &Host, b: &Host) -> bool {
        self.network.reach_each_other(a.id, b.id)
    }

    /// Returns what all hosts have sent.
    pub fn traffic(&self) -> Traffic {
        self.network.traffic(None)
    }
}

/// Host of a world: an address, a link to the network, a clock, and what runs on it. Cheap to clone.
#[derive(Clone)]
pub struct Host {
    world: World,
    id: HostId,
    process: Arc<Mutex<Arc<Process>>>,
    wall_offset: Arc<AtomicI64>,
    /// `None` until it is asked for.
    disk: Arc<Mutex<Option<DiskId>>>,
}

impl Host {
    /// Returns the world that the host is in.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Returns the number of the host, in the order of creation.
    pub fn id(&self) -> HostId {
        self.id
    }

    /// Returns the current address.
    pub fn address(&self) -> Ipv4Addr {
        self.world.network.address(self.id)
    }

    /// Returns the current address with a port.
    pub fn multiaddr(&self, port: u16) -> Multiaddr {
        multiaddr(self.address(), port)
    }

    /// Returns the runtime of what runs on the host now.
    pub fn runtime(&self) -> SimRuntime {
        let process = Arc::clone(&self.process.lock().unwrap_or_else(PoisonError::into_inner));
        SimRuntime { executor: Weak::clone(&self.world.executor), process, trace: self.world.trace.clone() }
    }

    /// Returns a transport for a peer on this host.
    pub fn transport(&self, peer: PeerId) -> BoxedTransport {
        let transport = SimTransport::new(self.world.network.clone(), self.id, peer);
        TransportTimeout::new(transport, CONNECTION_TIMEOUT)
            .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)))
            .boxed()
    }

    /// Creates a swarm on the host, whose tasks run on it. It listens and dials as soon as it is polled.
    pub fn swarm<B: NetworkBehaviour>(
        &self,
        peer: PeerId,
        behaviour: B,
        idle_connection_timeout: Duration,
    ) -> Swarm<B> {
        let runtime = self.runtime();
        let config = swarm::Config::with_executor(move |task| runtime.spawn(task));
        let config = config.with_idle_connection_timeout(idle_connection_timeout);
        Swarm::new(self.transport(peer), behaviour, peer, config)
    }

    /// Starts a node on the host.
    ///
    /// # Errors
    ///
    /// As [`Node::start`].
    pub async fn node(&self, config: NodeConfig) -> Result<Node, NodeError> {
        self.node_with(config, |_| dummy::Behaviour).await
    }

    /// Starts a node with a behaviour of its own on the host.
    ///
    /// # Errors
    ///
    /// As [`Node::start`].
    pub async fn node_with<X>(&self, config: NodeConfig, app: impl FnOnce(&Keypair) -> X) -> Result<Node<X>, NodeError>
    where
        X: NetworkBehaviour + Send,
        X::ToSwarm: Send,
    {
        let transport = |keypair: &Keypair| Ok::<_, io::Error>(self.transport(keypair.public().to_peer_id()));
        Node::start(self.runtime(), config, transport, app).await
    }

    /// Ends everything that runs on the host, as when its processes are killed: peers see their connections end. What is
    /// started on the host afterwards is new. Unlike processes that are killed, what runs is dropped, and may still write
    /// its files and close them in order; only [`lose_power`](Self::lose_power) prevents that.
    pub fn kill(&self) {
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        let old = std::mem::replace(&mut *process, Process::new(self.id, Arc::clone(&self.wall_offset)));
        drop(process);
        self.world.network.stop_all_listening(self.id);
        old.kill();
    }

    /// Takes the host off the network without a sign, as when it loses power or its cable, or puts it back. Its
    /// connections are lost: nothing arrives on them any more, and they stay open until a side closes its end.
    pub fn set_online(&self, is_online: bool) {
        self.world.network.set_up(self.id, is_online);
        if !is_online {
            for connection in self.world.network.connections_of(self.id) {
                connection.silence();
            }
        }
    }

    /// Returns the folder of the host's disk. What is in it outlives the processes of the host; after
    /// [`lose_power`](Self::lose_power) it is another folder.
    ///
    /// # Panics
    ///
    /// Panics if no folder can be created, or outside of the host's world.
    pub fn disk(&self) -> PathBuf {
        self.on_disk(DiskId::folder)
    }

    /// Lets the disk be full, fail, or work again.
    ///
    /// # Panics
    ///
    /// As [`disk`](Self::disk).
    pub fn set_disk(&self, state: DiskState) {
        self.on_disk(|disk| disk.set_state(state));
    }

    /// Uses the host's disk, which is created if there is none.
    fn on_disk<T>(&self, use_it: impl FnOnce(DiskId) -> io::Result<T>) -> T {
        let mut disk = self.disk.lock().unwrap_or_else(PoisonError::into_inner);
        let id = disk.map_or_else(DiskId::create, Ok);
        *disk = id.as_ref().ok().copied();
        match id.and_then(use_it) {
            Ok(used) => used,
            Err(error) => panic!("the disk of {:?}: {error}", self.id),
        }
    }

    /// Cuts the power: the host goes [offline](Self::set_online), all that runs on it ends, and its disk loses what was not
    /// synced: each file has the content of its last sync, or none. [`set_online`](Self::set_online) brings the power back.
    /// The names of files are not lost, and a disk that is full or fails stays so.
    ///
    /// # Panics
    ///
    /// As [`disk`](Self::disk), and if the files that are left cannot be copied.
    pub fn lose_power(&self) {
        self.set_online(false);
        // What ends now may still write, which nobody sees.
        let after = self.on_disk(DiskId::after_power_failure);
        *self.disk.lock().unwrap_or_else(PoisonError::into_inner) = Some(after);
        self.kill();
    }

    /// Gives the host another address, which no host has had before. Its connections are lost as with
    /// [`set_online`](Self::set_online), and its listeners report the new address and are reachable there.
    pub fn change_address(&self) {
        self.world.network.move_host(self.id);
    }

    /// Holds up everything that is sent to or from the host, or lets it pass again, with all that was held up: a link that
    /// stalls. Nobody notices, except that dials which begin or complete meanwhile are not answered.
    pub fn set_stalled(&self, is_stalled: bool) {
        self.world.network.set_stalled(self.id, is_stalled);
    }

    /// Halts the processes of the host, or lets them go on: they keep their connections, and answer nothing. Their timers
    /// elapse meanwhile. Processes that are started after a [`kill`](Self::kill) run.
    pub fn set_frozen(&self, is_frozen: bool) {
        self.process.lock().unwrap_or_else(PoisonError::into_inner).set_frozen(is_frozen);
    }

    /// Lets dials of a port pass the NAT of the host's [link](Link::reach), or no longer.
    pub fn map_port(&self, port: u16, is_mapped: bool) {
        self.world.network.set_mapped(self.id, port, is_mapped);
    }

    /// Begins a connection to an address and never completes its handshakes.
    pub fn half_open(&self, address: &Multiaddr) {
        transport::half_open(&self.world.network, self.id, address);
    }

    /// Changes the link to the network. What has left a host before is received with the new bandwidth.
    pub fn set_link(&self, link: Link) {
        self.world.network.set_link(self.id, link);
    }

    /// Closes all connections, on both sides.
    pub fn reset_connections(&self) {
        for connection in self.world.network.connections_of(self.id) {
            connection.reset();
        }
    }

    /// Sets the difference between the host's wall clock and the world's, in seconds.
    pub fn set_wall_clock(&self, seconds_ahead: i64) {
        self.wall_offset.store(seconds_ahead.saturating_mul(1_000_000_000), Relaxed);
    }

    /// Runs a future by the host's wall clock, for example a call of a node on this host that reads the clock. What a scenario
    /// awaits by itself reads the world's.
    pub async fn by_clock<F: Future>(&self, future: F) -> F::Output {
        let mut future = std::pin::pin!(future);
        std::future::poll_fn(|cx| {
            let before = schedule::set_wall_offset(self.wall_offset.load(Relaxed));
            let polled = future.as_mut().poll(cx);
            schedule::set_wall_offset(before);
            polled
        })
        .await
    }

    /// Returns what the host has sent.
    pub fn traffic(&self) -> Traffic {
        self.world.network.traffic(Some(self.id))
    }
}
