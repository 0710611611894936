use std::time::{Duration, Instant};

use kadence::{
    Alarm, Client, DriverConfig, GetRecordError, PeerTimeoutConfig, PeerTimeoutStats, PeerTimeouts, SwarmHandle, Task,
    spawn,
};
use kadence_tests::{
    Bed, Conduct, Contact, Node, NodeConfig, PROTOCOL, Script, SilentNode, TokioMultiThread, Wire, run,
    suite::support::{key, peers, record, sorted},
};
use kadence_tokio::TokioRuntime;
use libp2p::{
    identity::Keypair,
    kad::{KBucketKey, Quorum, store::MemoryStore},
};

/// kad alone takes 10 s for each round with a silent peer. The rest is for busy machines.
const SOON: Duration = Duration::from_secs(5);

/// A deadline that is none.
const LONG: Duration = Duration::from_secs(50);

/// A node whose kad gives silent peers up.
struct Impatient {
    client: Client,
    swarm: SwarmHandle<PeerTimeouts<MemoryStore>>,
    _task: Task,
}

impl Impatient {
    /// With a shortest patience at which a busy machine does not make honest peers late.
    async fn start(bed: &Bed<TokioRuntime>, parallelism: usize, known: &[Contact]) -> Self {
        let mut timeouts = PeerTimeoutConfig::default();
        timeouts.requests.min = timeouts.requests.initial;
        let mut config = NodeConfig::default();
        config.kad.set_parallelism(parallelism.try_into().unwrap());
        let kad = PeerTimeouts::with_timer(config.behaviour().kad, Alarm::new(bed.runtime()), timeouts);
        let (mut swarm, _) = bed.listening(&config.keypair, kad).await;
        for Contact { peer, address } in known {
            swarm.behaviour_mut().kad_mut().add_address(peer, address.clone());
        }
        let (client, swarm, events, task) = spawn(bed.runtime(), swarm, DriverConfig::default());
        drop(events);
        Self { client, swarm, _task: task }
    }

    async fn stats(&self) -> PeerTimeoutStats {
        self.swarm.with(|swarm| swarm.behaviour().stats().unwrap()).await.unwrap()
    }

    /// Nobody is waited for when nothing runs.
    async fn waits_for_nobody(&self, bed: &Bed<TokioRuntime>) {
        bed.settles(&self.client).await;
        bed.until(async || self.stats().await.pending == 0).await;
    }
}

/// Nodes that know each other, and the silent ones as well.
async fn network(bed: &Bed<TokioRuntime>, honest: usize, silent: usize) -> (Vec<Node>, Vec<SilentNode>, Vec<Contact>) {
    let nodes = bed.mesh(honest).await;
    let mut silent_nodes = Vec::new();
    for _ in 0..silent {
        silent_nodes.push(bed.silent().await);
    }
    for node in &nodes {
        for silent in &silent_nodes {
            node.meets(&silent.contact).await;
        }
    }
    let contacts = nodes.iter().map(|node| node.contact.clone());
    let contacts = contacts.chain(silent_nodes.iter().map(|silent| silent.contact.clone())).collect();
    (nodes, silent_nodes, contacts)
}

#[track_caller]
fn soon(begun: Instant, what: &str) {
    let took = begun.elapsed();
    println!("{what}: {took:?}");
    assert!(took < SOON, "{what} took {took:?}");
}

async fn every_operation_ends_soon(bed: &Bed<TokioRuntime>, honest: usize, silent: usize) {
    let (nodes, silent_nodes, contacts) = network(bed, honest, silent).await;
    let node = Impatient::start(bed, 10, &contacts).await;
    for round in 0..3 {
        let begun = Instant::now();
        let found = node.client.get_closest_peers(key(&format!("target {round}"))).timeout(LONG).await.unwrap();
        soon(begun, "closest");
        let found = sorted(found.peers.iter().map(|peer| peer.peer_id));
        assert_eq!(found, peers(&nodes), "all that are alive, and no other");

        let begun = Instant::now();
        let name = format!("file {round}");
        let put = node.client.put_record(record(&name, "value")).quorum(Quorum::All).timeout(LONG).await.unwrap();
        soon(begun, "put");
        assert_eq!(sorted(put.acknowledged), peers(&nodes));

        let begun = Instant::now();
        let got = node.client.get_record(key(&name)).all().timeout(LONG).await.unwrap();
        soon(begun, "get");
        assert_eq!(got.value(), b"value");

        let begun = Instant::now();
        let missing = node.client.get_record(key(&format!("missing {round}"))).timeout(LONG).await;
        soon(begun, "get of what is missing");
        assert!(matches!(missing, Err(GetRecordError::NotFound { .. })), "{missing:?}");
    }
    node.waits_for_nobody(bed).await;
    let stats = node.stats().await;
    println!("{stats:?}");
    assert_ne!(stats.given_up, 0);
    // The silent peers take their streams with them, and nothing of them is left.
    drop(silent_nodes);
    bed.until(async || node.stats().await.abandoned == 0).await;
}

#[test]
fn every_operation_ends_soon_with_three_silent_peers_of_twenty() {
    run::<TokioMultiThread>(Wire::Memory, async |bed| every_operation_ends_soon(bed, 17, 3).await);
}

#[test]
fn every_operation_ends_soon_when_every_second_peer_is_silent() {
    run::<TokioMultiThread>(Wire::Memory, async |bed| every_operation_ends_soon(bed, 10, 10).await);
}

#[test]
fn a_read_finds_its_record_behind_peers_that_are_all_silent() {
    run::<TokioMultiThread>(Wire::Memory, async |bed| {
        // As many as kad asks at once are all silent, the closest to the key, and the farthest has the record.
        const SILENT: [bool; 12] = [true, true, true, false, true, false, true, false, true, false, true, false];
        let key = key("file");
        let target = KBucketKey::new(key.clone());
        let mut keypairs = SILENT.map(|_| Keypair::generate_ed25519());
        keypairs.sort_by_key(|keypair| target.distance(&KBucketKey::from(keypair.public().to_peer_id())));
        let (mut nodes, mut silent_nodes, mut contacts) = (Vec::new(), Vec::new(), Vec::new());
        for (keypair, silent) in keypairs.into_iter().zip(SILENT) {
            if silent {
                let node = bed.silent_as(&keypair).await;
                contacts.push(node.contact.clone());
                silent_nodes.push(node);
            } else {
                let node = bed.node_with(NodeConfig::default().keypair(keypair)).await;
                contacts.push(node.contact.clone());
                nodes.push(node);
            }
        }
        for node in &nodes {
            for contact in contacts.iter().filter(|contact| contact.peer != node.peer()) {
                node.meets(contact).await;
            }
        }
        nodes.last().unwrap().holds(record("file", "value")).await;
        let node = Impatient::start(bed, 3, &contacts).await;
        for _ in 0..2 {
            let begun = Instant::now();
            let got = node.client.get_record(key.clone()).timeout(LONG).await.unwrap();
            soon(begun, "get behind silent peers");
            assert_eq!(got.value(), b"value");
        }
        node.waits_for_nobody(bed).await;
    });
}

/// Every answer takes longer than the patience is at first.
#[test]
fn a_slow_and_honest_network_gives_the_right_answers() {
    run::<TokioMultiThread>(Wire::Memory, async |bed| {
        const DELAY: Duration = Duration::from_millis(800);
        let one = Script::always(Conduct::Slow(DELAY));
        let holder = one.clone().holds(record("file", "value"));
        let slow = bed.scripted([holder].into_iter().chain((1..12).map(|_| one.clone()))).await;
        let contacts: Vec<_> = slow.iter().map(|node| node.contact.clone()).collect();
        let all = sorted(contacts.iter().map(|contact| contact.peer));
        let node = Impatient::start(bed, 10, &contacts).await;

        let begun = Instant::now();
        let got = node.client.get_record(key("file")).timeout(LONG).await.unwrap();
        assert_eq!(got.value(), b"value");
        assert!(begun.elapsed() >= DELAY);
        let found = node.client.get_closest_peers(key("target")).timeout(LONG).await.unwrap();
        assert_eq!(sorted(found.peers.iter().map(|peer| peer.peer_id)), all);
        let put = node.client.put_record(record("other", "value")).quorum(Quorum::All).timeout(LONG).await.unwrap();
        assert_eq!(sorted(put.acknowledged), all);
        node.waits_for_nobody(bed).await;
        let stats = node.stats().await;
        println!("{stats:?}");
        assert_eq!(stats.given_up, 0);
        assert!(stats.timeout > DELAY, "{stats:?}");
    });
}

/// The ready-made node has it by default, and can do without.
#[test]
fn a_node_gives_silent_peers_up_by_default() {
    run::<TokioMultiThread>(Wire::Tcp, async |bed| {
        let (nodes, _silent, contacts) = network(bed, 6, 6).await;
        let bootstrap_peers = contacts
            .iter()
            .map(|Contact { peer, address }| address.clone().with(libp2p::multiaddr::Protocol::P2p(*peer)));
        let config = kadence_tokio::NodeConfig::default().bootstrap_peers(bootstrap_peers).protocol(PROTOCOL);
        assert!(config.peer_timeouts.is_some());
        let node = kadence_tokio::node(config).await.unwrap();
        node.ready(LONG).await.unwrap();
        let begun = Instant::now();
        let put = node.client().put_record(record("file", "value")).quorum(Quorum::One).timeout(LONG).await.unwrap();
        soon(begun, "a node's put");
        // Not all of them: the default patience is too short for a machine that is very busy.
        let honest = peers(&nodes);
        assert!(put.acknowledged.iter().all(|peer| honest.contains(peer)), "{put:?}");
        let begun = Instant::now();
        let got = node.client().get_record(key("file")).all().timeout(LONG).await.unwrap();
        soon(begun, "a node's get");
        assert_eq!(got.value(), b"value");
        let stats = node.swarm().with(|swarm| swarm.behaviour().kad.stats()).await.unwrap();
        println!("{stats:?}");
        assert!(stats.is_some_and(|stats| stats.given_up > 0));

        let config = kadence_tokio::NodeConfig::default().peer_timeouts(None);
        let plain = kadence_tokio::node(config).await.unwrap();
        assert_eq!(plain.swarm().with(|swarm| swarm.behaviour().kad.stats()).await.unwrap(), None);
    });
}
