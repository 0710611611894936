use std::{
    pin::{Pin, pin},
    time::{Duration, Instant},
};

use futures::{
    FutureExt, StreamExt,
    future::{BoxFuture, RemoteHandle, poll_fn},
};
use kadence::{Client, Driver, Runtime, Snapshot, Timer};
use libp2p::{
    PeerId, Swarm,
    core::{muxing::StreamMuxerBox, transport::Boxed},
    identity::Keypair,
    kad::KBucketKey,
    swarm::{self, NetworkBehaviour, SwarmEvent},
};

use crate::{
    Contact, Node, NodeConfig, OwnLoop, SilentKad, SilentNode, TestRuntime, node::identify, silent::SilentBehaviour,
    transport,
};

/// Maximum time until all requests and queries have ended, where nothing else is waited for. Long enough for a busy
/// machine, and shorter than the 10 s after which kad itself gives up a silent peer.
const MAX_TIME_TO_IDLE: Duration = Duration::from_secs(5);

/// Interval between two checks of a condition.
const POLL_INTERVAL: Duration = Duration::from_millis(1);

/// Idle timeout of connections. Longer than any test, so that unused connections stay open.
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);

/// Transport between nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransportKind {
    /// In-process memory transport, in plaintext.
    Memory,
    /// Loopback TCP with noise, on ports that the system assigns.
    Tcp,
}

/// Test environment: creates nodes and networks on one runtime and transport.
#[derive(Debug)]
pub struct TestEnv<R> {
    runtime: R,
    transport_kind: TransportKind,
}

impl<R: TestRuntime> TestEnv<R> {
    /// Creates an environment on this runtime. The caller must run on it as well.
    pub fn new(runtime: R, transport_kind: TransportKind) -> Self {
        Self { runtime, transport_kind }
    }

    /// Returns the runtime.
    pub fn runtime(&self) -> &R {
        &self.runtime
    }

    /// Returns the current time of the runtime's clock.
    pub fn now(&self) -> Instant {
        self.runtime.now()
    }

    /// Spawns a task. The handle resolves to its result, or resumes its panic. Dropping the handle cancels the task.
    pub fn spawn<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> RemoteHandle<T> {
        let (task, handle) = task.remote_handle();
        self.runtime.spawn(task.boxed());
        handle
    }

    // ---- nodes

    /// Starts a node with the default configuration that knows no peers.
    pub async fn node(&self) -> Node {
        self.node_with(NodeConfig::default()).await
    }

    /// Starts a node that knows no peers.
    pub async fn node_with(&self, config: NodeConfig) -> Node {
        self.node_on(&self.runtime, config).await
    }

    /// Starts a node that knows no peers and whose driver runs on another runtime, for example with another clock.
    pub async fn node_on(&self, runtime: &impl Runtime, config: NodeConfig) -> Node {
        let (swarm, contact) = self.listening_swarm(&config.keypair, config.behaviour()).await;
        Node::drive(runtime, swarm, contact, config)
    }

    /// Starts nodes that all know each other.
    pub async fn mesh(&self, nodes: usize) -> Vec<Node> {
        let mut mesh: Vec<Node> = Vec::with_capacity(nodes);
        for _ in 0..nodes {
            let node = self.node().await;
            for other in &mesh {
                node.add_contact(&other.contact).await;
                other.add_contact(&node.contact).await;
            }
            mesh.push(node);
        }
        mesh
    }

    /// Starts a node with this configuration and a mesh of `others` nodes, all of which it knows.
    pub async fn client_with_peers(&self, config: NodeConfig, others: usize) -> (Node, Vec<Node>) {
        let client = self.node_with(config).await;
        let others = self.mesh(others).await;
        for other in &others {
            client.add_contact(&other.contact).await;
        }
        (client, others)
    }

    /// Starts nodes that know only the first one, and waits until bootstraps have made all of them known to each other.
    pub async fn bootstrapped_network(&self, nodes: usize) -> Vec<Node> {
        let mut network: Vec<Node> = Vec::with_capacity(nodes);
        for _ in 0..nodes {
            let node = self.node().await;
            if let Some(first) = network.first() {
                node.add_contact(&first.contact).await;
                node.client.bootstrap().await.expect("the first node answers");
            }
            network.push(node);
        }
        for node in &network {
            node.wait_for_peers(nodes - 1).await;
        }
        network
    }

    /// Starts a node that accepts every request and answers none.
    pub async fn silent_node(&self) -> SilentNode {
        self.silent_node_as(&Keypair::generate_ed25519()).await
    }

    /// Starts a node with this key pair that accepts every request and answers none.
    pub async fn silent_node_as(&self, keypair: &Keypair) -> SilentNode {
        let behaviour = SilentBehaviour { kad: SilentKad::default(), identify: identify(keypair.public()) };
        let (swarm, contact) = self.listening_swarm(keypair, behaviour).await;
        SilentNode::start(&self.runtime, swarm, contact)
    }

    /// Creates a bare kad with a driver that the test has to poll.
    pub async fn own_loop(&self, config: NodeConfig) -> OwnLoop<R> {
        self.own_loop_on(&self.runtime, config).await
    }

    /// Creates a bare kad with a driver that the test has to poll and that runs on another runtime.
    pub async fn own_loop_on<C: Runtime>(&self, runtime: &C, config: NodeConfig) -> OwnLoop<C> {
        let (swarm, contact) = self.listening_swarm(&config.keypair, config.bare_kad()).await;
        let (client, swarm, driver) = Driver::new(swarm, runtime.clone(), config.driver);
        OwnLoop { contact, client, swarm, driver }
    }

    /// Returns a swarm that listens, and its contact. The caller drives it.
    pub async fn listening_swarm<B: NetworkBehaviour>(&self, keypair: &Keypair, behaviour: B) -> (Swarm<B>, Contact) {
        let address = match self.transport_kind {
            TransportKind::Memory => "/memory/0",
            TransportKind::Tcp => "/ip4/127.0.0.1/tcp/0",
        };
        let mut swarm = self.swarm(keypair, behaviour);
        swarm.listen_on(address.parse().expect("the address is valid")).expect("the transport supports the address");
        loop {
            if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
                let peer = *swarm.local_peer_id();
                return (swarm, Contact { peer, address });
            }
        }
    }

    /// Returns a swarm that does not listen. The caller drives it.
    pub fn swarm<B: NetworkBehaviour>(&self, keypair: &Keypair, behaviour: B) -> Swarm<B> {
        let runtime = self.runtime.clone();
        let executor = move |task: Pin<Box<dyn Future<Output = ()> + Send>>| runtime.spawn(task as BoxFuture<'_, ()>);
        let config = swarm::Config::with_executor(executor).with_idle_connection_timeout(IDLE_TIMEOUT);
        Swarm::new(self.transport(keypair), behaviour, keypair.public().to_peer_id(), config)
    }

    /// Returns the transport for this key pair.
    pub fn transport(&self, keypair: &Keypair) -> Boxed<(PeerId, StreamMuxerBox)> {
        match self.transport_kind {
            TransportKind::Memory => transport::memory(keypair),
            TransportKind::Tcp => self.runtime.tcp_transport(keypair),
        }
    }

    // ---- waiting

    /// Waits until the condition holds. [`run`](crate::run) ends a test that waits in vain.
    pub async fn wait_until(&self, mut condition: impl AsyncFnMut() -> bool) {
        while !condition().await {
            let mut timer = pin!(self.runtime.timer(self.now() + POLL_INTERVAL));
            poll_fn(|cx| timer.as_mut().poll_elapsed(cx)).await;
        }
    }

    /// Waits until a client's snapshot satisfies the condition, and returns that snapshot.
    pub async fn wait_for_snapshot(&self, client: &Client, wanted: impl Fn(&Snapshot) -> bool) -> Snapshot {
        let mut seen = None;
        self.wait_until(async || {
            let snapshot = client.snapshot().await.expect("the driver runs");
            let found = wanted(&snapshot);
            seen = Some(snapshot);
            found
        })
        .await;
        seen.expect("there was at least one snapshot")
    }

    /// Waits until a client has no live requests or queries.
    ///
    /// # Panics
    ///
    /// Panics if that takes longer than the driver can need.
    pub async fn wait_until_idle(&self, client: &Client) {
        let begun = self.now();
        self.wait_for_snapshot(client, |snapshot| {
            let waited = self.now().saturating_duration_since(begun);
            assert!(snapshot.is_empty() || waited < MAX_TIME_TO_IDLE, "still alive after {waited:?}: {snapshot:#?}");
            snapshot.is_empty()
        })
        .await;
    }
}

/// Returns the bucket of `of`'s routing table that `peer` belongs to. Bucket 255 is the farthest, with half of all
/// peers.
pub fn bucket(of: PeerId, peer: PeerId) -> Option<u32> {
    KBucketKey::from(of).distance(&KBucketKey::from(peer)).ilog2()
}

/// Generates a peer in this bucket of `of`'s routing table. The nearer the bucket, the longer it takes.
pub fn keypair_in_bucket(of: PeerId, wanted: u32) -> Keypair {
    loop {
        let keypair = Keypair::generate_ed25519();
        if bucket(of, keypair.public().to_peer_id()) == Some(wanted) {
            return keypair;
        }
    }
}
