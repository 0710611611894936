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

/// How long it may take until nothing is alive any more, where nothing is waited for: long for a busy machine, and
/// shorter than the 10 s after which kad gives up a silent peer by itself.
const SETTLING: Duration = Duration::from_secs(5);

/// The pause between two looks at something that is about to happen.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// Longer than any test: connections do not close for want of use.
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);

/// How nodes are connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// Inside the process, in plaintext.
    Memory,
    /// Loopback TCP with noise, on ports that the system chooses.
    Tcp,
}

/// A runtime and a wire: all that a test needs to make networks.
#[derive(Debug)]
pub struct Bed<R> {
    runtime: R,
    wire: Wire,
}

impl<R: TestRuntime> Bed<R> {
    /// With this runtime, in which the caller runs.
    pub fn new(runtime: R, wire: Wire) -> Self {
        Self { runtime, wire }
    }

    /// The runtime.
    pub fn runtime(&self) -> &R {
        &self.runtime
    }

    /// The runtime's clock.
    pub fn now(&self) -> Instant {
        self.runtime.now()
    }

    /// Runs a task beside the test. Its result, or its panic, comes with the handle; dropping the handle ends it.
    pub fn spawn<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> RemoteHandle<T> {
        let (task, handle) = task.remote_handle();
        self.runtime.spawn(task.boxed());
        handle
    }

    // ---- nodes

    /// An ordinary node that knows nobody.
    pub async fn node(&self) -> Node {
        self.node_with(NodeConfig::default()).await
    }

    /// A node that knows nobody.
    pub async fn node_with(&self, config: NodeConfig) -> Node {
        self.node_on(&self.runtime, config).await
    }

    /// A node that knows nobody, whose driver has another clock.
    pub async fn node_on(&self, runtime: &impl Runtime, config: NodeConfig) -> Node {
        let (swarm, contact) = self.listening(&config.keypair, config.behaviour()).await;
        Node::drive(runtime, swarm, contact, config)
    }

    /// So many ordinary nodes, each of which knows all others.
    pub async fn mesh(&self, nodes: usize) -> Vec<Node> {
        let mut mesh: Vec<Node> = Vec::with_capacity(nodes);
        for _ in 0..nodes {
            let node = self.node().await;
            for other in &mesh {
                node.meets(&other.contact).await;
                other.meets(&node.contact).await;
            }
            mesh.push(node);
        }
        mesh
    }

    /// A node with this configuration that knows so many ordinary ones, which know each other as well.
    pub async fn client_of(&self, config: NodeConfig, others: usize) -> (Node, Vec<Node>) {
        let client = self.node_with(config).await;
        let others = self.mesh(others).await;
        for other in &others {
            client.meets(&other.contact).await;
        }
        (client, others)
    }

    /// So many ordinary nodes that were told of the first one only, and found all others through it.
    pub async fn bootstrapped(&self, nodes: usize) -> Vec<Node> {
        let mut network: Vec<Node> = Vec::with_capacity(nodes);
        for _ in 0..nodes {
            let node = self.node().await;
            if let Some(first) = network.first() {
                node.meets(&first.contact).await;
                node.client.bootstrap().await.expect("the first node answers");
            }
            network.push(node);
        }
        for node in &network {
            node.knows(nodes - 1).await;
        }
        network
    }

    /// A node that takes every request and answers none.
    pub async fn silent(&self) -> SilentNode {
        self.silent_as(&Keypair::generate_ed25519()).await
    }

    /// A node that takes every request and answers none, as this peer.
    pub async fn silent_as(&self, keypair: &Keypair) -> SilentNode {
        let behaviour = SilentBehaviour { kad: SilentKad::default(), identify: identify(keypair.public()) };
        let (swarm, contact) = self.listening(keypair, behaviour).await;
        SilentNode::start(&self.runtime, swarm, contact)
    }

    /// A bare kad that the test has to poll.
    pub async fn own_loop(&self, config: NodeConfig) -> OwnLoop<R> {
        self.own_loop_on(&self.runtime, config).await
    }

    /// A bare kad that the test has to poll, whose driver has another clock.
    pub async fn own_loop_on<C: Runtime>(&self, runtime: &C, config: NodeConfig) -> OwnLoop<C> {
        let (swarm, contact) = self.listening(&config.keypair, config.bare_kad()).await;
        let (client, swarm, driver) = Driver::new(swarm, runtime.clone(), config.driver);
        OwnLoop { contact, client, swarm, driver }
    }

    /// A swarm that listens, to be driven in whatever way.
    pub async fn listening<B: NetworkBehaviour>(&self, keypair: &Keypair, behaviour: B) -> (Swarm<B>, Contact) {
        let address = match self.wire {
            Wire::Memory => "/memory/0",
            Wire::Tcp => "/ip4/127.0.0.1/tcp/0",
        };
        let mut swarm = self.swarm(keypair, behaviour);
        swarm.listen_on(address.parse().expect("an address")).expect("the transport knows the address");
        loop {
            if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
                let peer = *swarm.local_peer_id();
                return (swarm, Contact { peer, address });
            }
        }
    }

    /// A swarm that does not listen, to be driven in whatever way.
    pub fn swarm<B: NetworkBehaviour>(&self, keypair: &Keypair, behaviour: B) -> Swarm<B> {
        let runtime = self.runtime.clone();
        let executor = move |task: Pin<Box<dyn Future<Output = ()> + Send>>| runtime.spawn(task as BoxFuture<'_, ()>);
        let config = swarm::Config::with_executor(executor).with_idle_connection_timeout(IDLE_TIMEOUT);
        Swarm::new(self.transport(keypair), behaviour, keypair.public().to_peer_id(), config)
    }

    /// What the wire is for this peer.
    pub fn transport(&self, keypair: &Keypair) -> Boxed<(PeerId, StreamMuxerBox)> {
        match self.wire {
            Wire::Memory => transport::memory(keypair),
            Wire::Tcp => self.runtime.tcp_transport(keypair),
        }
    }

    // ---- waiting

    /// Looks until it is so; a test that waits in vain is ended by [`run`](crate::run).
    pub async fn until(&self, mut it_is_so: impl AsyncFnMut() -> bool) {
        while !it_is_so().await {
            let mut timer = pin!(self.runtime.timer(self.now() + LOOK_AGAIN));
            poll_fn(|cx| timer.as_mut().poll_elapsed(cx)).await;
        }
    }

    /// Looks until a client's requests and queries are like this, and returns them.
    pub async fn until_alive(&self, client: &Client, wanted: impl Fn(&Snapshot) -> bool) -> Snapshot {
        let mut seen = None;
        self.until(async || {
            let snapshot = client.snapshot().await.expect("the driver runs");
            let found = wanted(&snapshot);
            seen = Some(snapshot);
            found
        })
        .await;
        seen.expect("it was looked at")
    }

    /// Looks until nothing of a client is alive.
    ///
    /// # Panics
    ///
    /// If that takes so long that it is not the driver's doing.
    pub async fn settles(&self, client: &Client) {
        let begun = self.now();
        self.until_alive(client, |snapshot| {
            let waited = self.now().saturating_duration_since(begun);
            assert!(snapshot.is_empty() || waited < SETTLING, "still alive after {waited:?}: {snapshot:#?}");
            snapshot.is_empty()
        })
        .await;
    }
}

/// The bucket of `of`'s routing table that `peer` belongs to: 255 is the farthest, half of all peers.
pub fn bucket(of: PeerId, peer: PeerId) -> Option<u32> {
    KBucketKey::from(of).distance(&KBucketKey::from(peer)).ilog2()
}

/// A new peer that belongs into this bucket of `of`'s routing table. The nearer the bucket, the longer it takes.
pub fn keypair_in_bucket(of: PeerId, wanted: u32) -> Keypair {
    loop {
        let keypair = Keypair::generate_ed25519();
        if bucket(of, keypair.public().to_peer_id()) == Some(wanted) {
            return keypair;
        }
    }
}
