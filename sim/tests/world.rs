//! Nodes in a world.

#![cfg(test)]

use std::time::{Duration, Instant, SystemTime};

use kadence_sim::{
    ForeignPeer, Habit, Link, PlainNode, Ran, World, WorldConfig,
    kadence::{
        Certainty, GetRecordError, Quorum,
        node::{Node, NodeConfig},
    },
    libp2p::kad::{self, Record},
    run,
};

const PORT: u16 = 4001;

/// Starts nodes that join through the first one.
async fn nodes(world: &World, number: usize, link: Link) -> Vec<Node> {
    let mut nodes: Vec<Node> = Vec::new();
    for _ in 0..number {
        let host = world.host(link);
        let peers = nodes.first().map(Node::listen_addrs).unwrap_or_default();
        let config = NodeConfig::default().listen([host.multiaddr(PORT)]).bootstrap_peers(peers);
        nodes.push(host.node(config).await.unwrap());
    }
    for node in &nodes[1..] {
        node.ready(Duration::from_secs(60)).await.unwrap();
    }
    world.sleep(Duration::from_secs(30)).await;
    nodes
}

fn puts_and_gets(seed: u64) -> Ran<usize> {
    run(WorldConfig::default().seed(seed), |world| async move {
        let nodes = nodes(&world, 30, Link::default()).await;
        let mut found = 0;
        for (at, node) in nodes.iter().enumerate() {
            let key = format!("key {at}").into_bytes();
            node.client().put_record(Record::new(key.clone(), b"value".to_vec())).await.unwrap();
            let reader = &nodes[(at * 7 + 3) % nodes.len()];
            found += usize::from(reader.client().get_record(key).await.unwrap().value() == b"value");
        }
        found
    })
}

#[test]
fn thirty_nodes_find_what_each_of_them_has_stored() {
    let ran = puts_and_gets(1);
    assert_eq!(ran.result, 30);
    println!("{ran:?}");
}

#[test]
fn time_and_clocks_are_those_of_the_world() {
    let real = Instant::now();
    let ran = run(WorldConfig::default(), |world| async move {
        let (monotonic, wall) = (Instant::now(), SystemTime::now());
        world.sleep(Duration::from_secs(3600)).await;
        assert_eq!(monotonic.elapsed(), Duration::from_secs(3600));
        assert_eq!(wall.elapsed().unwrap(), Duration::from_secs(3600));
    });
    assert_eq!(ran.took, Duration::from_secs(3600));
    assert!(real.elapsed() < Duration::from_secs(3600));
}

#[test]
fn a_missing_record_is_conclusive_and_takes_some_round_trips() {
    let ran = run(WorldConfig::default(), |world| async move {
        let nodes = nodes(&world, 30, Link::default()).await;
        let began = world.now();
        let missing = nodes[7].client().get_record("missing").await;
        assert!(
            matches!(missing, Err(GetRecordError::NotFound { certainty: Certainty::Conclusive, .. })),
            "{missing:?}"
        );
        world.now() - began
    });
    // A lookup in a network of 30 nodes with round trips of 50 ms.
    assert!((Duration::from_millis(50)..Duration::from_secs(1)).contains(&ran.result), "{:?}", ran.result);
}

#[test]
fn a_record_passes_between_nodes_of_all_kinds() {
    run(WorldConfig::default(), |world| async move {
        let nodes = nodes(&world, 5, Link::default()).await;
        let known = nodes[0].listen_addrs();
        let host = || world.host(Link::default());
        let plain = PlainNode::start(host(), &known).unwrap();
        let foreign = ForeignPeer::start(host(), Habit::Honest, &known).unwrap();
        world.sleep(Duration::from_secs(400)).await;
        nodes[1].client().put_record(Record::new(b"ours".to_vec(), b"1".to_vec())).quorum(Quorum::All).await.unwrap();
        assert_eq!(plain.get_record(b"ours".to_vec(), 1).await.unwrap().value, b"1");
        assert!(foreign.has_record(b"ours"));
        assert!(plain.put_record(Record::new(b"theirs".to_vec(), b"2".to_vec()), kad::Quorum::One).await);
        assert_eq!(nodes[2].client().get_record("theirs").await.unwrap().value(), b"2");
        assert!(foreign.put_at(nodes[3].local_peer_id(), b"foreign".to_vec(), b"3".to_vec(), None).await);
        assert_eq!(plain.get_record(b"foreign".to_vec(), 1).await.unwrap().value, b"3");
        assert!(plain.start_providing(b"file".to_vec()).await);
        let found = nodes[4].client().get_providers("file").await.unwrap();
        assert_eq!(*found.providers, [plain.peer_id()]);
        assert_eq!(plain.get_closest_peers(b"anything".to_vec()).await.len(), 6);
    });
}

const SEED: &str = "KADENCE_SIM_SEED";

/// Runs a world in a process of its own, because libp2p counts ids up for all of a process. Returns what it prints.
fn in_a_process(seed: u64) -> String {
    let program = std::env::current_exe().unwrap();
    let mut test = std::process::Command::new(program);
    let output =
        test.args(["a_world_in_a_process", "--exact", "--nocapture"]).env(SEED, seed.to_string()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().find(|line| line.contains("trace:")).unwrap().to_owned()
}

/// Runs only if another test asks for it.
#[test]
fn a_world_in_a_process() {
    if let Ok(seed) = std::env::var(SEED) {
        println!("{:?}", puts_and_gets(seed.parse().unwrap()));
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let [first, second, other] = [7, 7, 8].map(in_a_process);
    assert_eq!(first, second);
    assert_ne!(first, other);
}
