use std::time::{Duration, Instant};

use kadence::{
    Alarm, Certainty, Client, DriverConfig, GetRecordError, PeerTimeoutConfig, PeerTimeoutStats, PeerTimeouts, Runtime,
    Spawned, SwarmHandle, Task, spawn,
};
use kadence_tests::{
    AnswerMode, Contact, Node, NodeConfig, PROTOCOL, Script, SilentNode, TestEnv, TokioMultiThread, TokioPaused,
    TransportKind, run,
    suite::support::{key, peers, record, sorted},
};
use kadence_tokio::TokioRuntime;
use libp2p::{
    identity::Keypair,
    kad::{KBucketKey, Quorum, store::MemoryStore},
};

/// Limit for each operation. kad alone takes 10 s for each round with a silent peer; the rest is for busy machines.
const SOON: Duration = Duration::from_secs(5);

/// Timeout that no test reaches.
const LONG: Duration = Duration::from_secs(50);

/// Node whose kad gives silent peers up.
struct TimeoutNode {
    client: Client,
    swarm: SwarmHandle<PeerTimeouts<MemoryStore>>,
    _task: Task,
}

impl TimeoutNode {
    /// Starts a node with a minimum timeout that is long enough for honest peers on a busy machine.
    async fn start(env: &TestEnv<TokioRuntime>, parallelism: usize, known: &[Contact]) -> Self {
        let mut timeouts = PeerTimeoutConfig::default();
        timeouts.requests.min = timeouts.requests.initial;
        let mut config = NodeConfig::default();
        config.kad.set_parallelism(parallelism.try_into().unwrap());
        let kad = PeerTimeouts::with_timer(config.behaviour().kad, Alarm::new(env.runtime()), timeouts);
        let (mut swarm, _) = env.listening_swarm(&config.keypair, kad).await;
        for Contact { peer, address } in known {
            swarm.behaviour_mut().kad_mut().add_address(peer, address.clone());
        }
        let Spawned { client, swarm, events, task } = spawn(env.runtime(), swarm, DriverConfig::default());
        drop(events);
        Self { client, swarm, _task: task }
    }

    async fn stats(&self) -> PeerTimeoutStats {
        self.swarm.with(|swarm| swarm.behaviour().stats().unwrap()).await.unwrap()
    }

    /// Waits until no request is pending.
    async fn wait_until_nothing_pending(&self, env: &TestEnv<TokioRuntime>) {
        env.wait_until_idle(&self.client).await;
        env.wait_until(async || self.stats().await.pending == 0).await;
    }
}

/// Starts nodes that know each other and the silent ones.
async fn network(
    env: &TestEnv<TokioRuntime>,
    honest: usize,
    silent: usize,
) -> (Vec<Node>, Vec<SilentNode>, Vec<Contact>) {
    let nodes = env.mesh(honest).await;
    let mut silent_nodes = Vec::new();
    for _ in 0..silent {
        silent_nodes.push(env.silent_node().await);
    }
    for node in &nodes {
        for silent in &silent_nodes {
            node.add_contact(&silent.contact).await;
        }
    }
    let contacts = nodes.iter().map(|node| node.contact.clone());
    let contacts = contacts.chain(silent_nodes.iter().map(|silent| silent.contact.clone())).collect();
    (nodes, silent_nodes, contacts)
}

#[track_caller]
fn assert_soon(begun: Instant, what: &str) {
    let took = begun.elapsed();
    println!("{what}: {took:?}");
    assert!(took < SOON, "{what} took {took:?}");
}

async fn every_operation_ends_soon(env: &TestEnv<TokioRuntime>, honest: usize, silent: usize) {
    let (nodes, silent_nodes, contacts) = network(env, honest, silent).await;
    let node = TimeoutNode::start(env, 10, &contacts).await;
    for round in 0..3 {
        let begun = Instant::now();
        let found = node.client.get_closest_peers(key(&format!("target {round}"))).timeout(LONG).await.unwrap();
        assert_soon(begun, "closest");
        let found = sorted(found.peers.iter().map(|peer| peer.peer_id));
        assert_eq!(found, peers(&nodes), "exactly the peers that answer");

        let begun = Instant::now();
        let name = format!("file {round}");
        let put = node.client.put_record(record(&name, "value")).quorum(Quorum::All).timeout(LONG).await.unwrap();
        assert_soon(begun, "put");
        assert_eq!(sorted(put.acknowledged), peers(&nodes));

        let begun = Instant::now();
        let got = node.client.get_record(key(&name)).all().timeout(LONG).await.unwrap();
        assert_soon(begun, "get");
        assert_eq!(got.value(), b"value");

        let begun = Instant::now();
        let missing = node.client.get_record(key(&format!("missing {round}"))).timeout(LONG).await;
        assert_soon(begun, "get of what is missing");
        // Enough peers have answered, but a silent one may hold it.
        let inconclusive = matches!(missing, Err(GetRecordError::NotFound { certainty: Certainty::Inconclusive, .. }));
        assert!(inconclusive, "{missing:?}");
    }
    node.wait_until_nothing_pending(env).await;
    let stats = node.stats().await;
    println!("{stats:?}");
    assert_ne!(stats.given_up, 0);
    // The silent peers' streams close with them, and no state of the peers is left.
    drop(silent_nodes);
    env.wait_until(async || node.stats().await.abandoned == 0).await;
}

#[test]
fn every_operation_ends_soon_with_three_silent_peers_of_twenty() {
    run::<TokioMultiThread>(TransportKind::Memory, async |env| every_operation_ends_soon(env, 17, 3).await);
}

#[test]
fn every_operation_ends_soon_when_every_second_peer_is_silent() {
    run::<TokioMultiThread>(TransportKind::Memory, async |env| every_operation_ends_soon(env, 10, 10).await);
}

#[test]
fn a_read_finds_its_record_behind_peers_that_are_all_silent() {
    run::<TokioMultiThread>(TransportKind::Memory, async |env| {
        // All peers that kad asks first, the closest to the key, are silent. The farthest peer holds the record.
        const SILENT: [bool; 12] = [true, true, true, false, true, false, true, false, true, false, true, false];
        let key = key("file");
        let target = KBucketKey::new(key.clone());
        let mut keypairs = SILENT.map(|_| Keypair::generate_ed25519());
        keypairs.sort_by_key(|keypair| target.distance(&KBucketKey::from(keypair.public().to_peer_id())));
        let (mut nodes, mut silent_nodes, mut contacts) = (Vec::new(), Vec::new(), Vec::new());
        for (keypair, silent) in keypairs.into_iter().zip(SILENT) {
            if silent {
                let node = env.silent_node_as(&keypair).await;
                contacts.push(node.contact.clone());
                silent_nodes.push(node);
            } else {
                let node = env.node_with(NodeConfig::default().keypair(keypair)).await;
                contacts.push(node.contact.clone());
                nodes.push(node);
            }
        }
        for node in &nodes {
            for contact in contacts.iter().filter(|contact| contact.peer != node.peer()) {
                node.add_contact(contact).await;
            }
        }
        nodes.last().unwrap().store_locally(record("file", "value")).await;
        let node = TimeoutNode::start(env, 3, &contacts).await;
        for _ in 0..2 {
            let begun = Instant::now();
            let got = node.client.get_record(key.clone()).timeout(LONG).await.unwrap();
            assert_soon(begun, "get behind silent peers");
            assert_eq!(got.value(), b"value");
        }
        node.wait_until_nothing_pending(env).await;
    });
}

/// Every answer takes longer than the initial timeout. In virtual time, because no answer may be later than the second
/// timeout.
#[test]
fn a_slow_and_honest_network_gives_the_right_answers() {
    run::<TokioPaused>(TransportKind::Memory, async |env| {
        const DELAY: Duration = Duration::from_millis(800);
        let one = Script::always(AnswerMode::Slow(DELAY));
        let holder = one.clone().with_record(record("file", "value"));
        let slow = env.scripted_nodes([holder].into_iter().chain((1..12).map(|_| one.clone()))).await;
        let contacts: Vec<_> = slow.iter().map(|node| node.contact.clone()).collect();
        let all = sorted(contacts.iter().map(|contact| contact.peer));
        let node = TimeoutNode::start(env, 10, &contacts).await;

        let begun = env.runtime().now();
        let got = node.client.get_record(key("file")).timeout(LONG).await.unwrap();
        assert_eq!(got.value(), b"value");
        assert!(env.runtime().now() - begun >= DELAY);
        let found = node.client.get_closest_peers(key("target")).timeout(LONG).await.unwrap();
        assert_eq!(sorted(found.peers.iter().map(|peer| peer.peer_id)), all);
        let put = node.client.put_record(record("other", "value")).quorum(Quorum::All).timeout(LONG).await.unwrap();
        assert_eq!(sorted(put.acknowledged), all);
        node.wait_until_nothing_pending(env).await;
        let stats = node.stats().await;
        println!("{stats:?}");
        assert_eq!(stats.given_up, 0);
        assert!(stats.timeout > DELAY, "{stats:?}");
    });
}

/// `kadence::node::Node` uses `PeerTimeouts` by default, and can be configured without it.
#[test]
fn a_node_gives_silent_peers_up_by_default() {
    run::<TokioMultiThread>(TransportKind::Tcp, async |env| {
        let (nodes, _silent, contacts) = network(env, 6, 6).await;
        let bootstrap_peers = contacts
            .iter()
            .map(|Contact { peer, address }| address.clone().with(libp2p::multiaddr::Protocol::P2p(*peer)));
        let config = kadence_tokio::NodeConfig::default().bootstrap_peers(bootstrap_peers).protocol(PROTOCOL);
        assert!(config.peer_timeouts.is_some());
        let node = kadence_tokio::node(config).await.unwrap();
        node.ready(LONG).await.unwrap();
        let begun = Instant::now();
        let put = node.client().put_record(record("file", "value")).quorum(Quorum::One).timeout(LONG).await.unwrap();
        assert_soon(begun, "a node's put");
        // Not all peers: the default timeout is too short for a very busy machine.
        let honest = peers(&nodes);
        assert!(put.acknowledged.iter().all(|peer| honest.contains(peer)), "{put:?}");
        let begun = Instant::now();
        let got = node.client().get_record(key("file")).all().timeout(LONG).await.unwrap();
        assert_soon(begun, "a node's get");
        assert_eq!(got.value(), b"value");
        let stats = node.swarm().with(|swarm| swarm.behaviour().kad.stats()).await.unwrap();
        println!("{stats:?}");
        assert!(stats.is_some_and(|stats| stats.given_up > 0));

        let config = kadence_tokio::NodeConfig::default().peer_timeouts(None);
        let plain = kadence_tokio::node(config).await.unwrap();
        assert_eq!(plain.swarm().with(|swarm| swarm.behaviour().kad.stats()).await.unwrap(), None);
    });
}
