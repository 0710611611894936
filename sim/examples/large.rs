//! Joins many nodes, then puts and gets, and prints percentiles in virtual time: `large NODES PUTS [SEED]`.

use std::{
    env,
    time::{Duration, Instant},
};

use kadence_sim::{
    Latency, Link, World, WorldConfig,
    kadence::node::{Node, NodeConfig},
    libp2p::kad::Record,
    run,
};
use rand::Rng;

/// Nodes that join in the same second.
const JOINING: usize = 20;

async fn join(world: &World, number: usize) -> Vec<Node> {
    let mut nodes: Vec<Node> = Vec::with_capacity(number);
    while nodes.len() < number {
        for _ in 0..JOINING.min(number - nodes.len()) {
            let host = world.host(Link::default());
            // Each knows three nodes that are there already.
            let known = (0..3).filter(|_| !nodes.is_empty()).flat_map(|_| {
                let at = world.random(|random| random.random_range(0..nodes.len()));
                nodes[at].listen_addrs()
            });
            let config = NodeConfig::default().listen([host.multiaddr(4001)]).bootstrap_peers(known.collect::<Vec<_>>());
            nodes.push(host.node(config).await.expect("a node starts"));
        }
        world.sleep(Duration::from_secs(1)).await;
    }
    world.sleep(Duration::from_secs(60)).await;
    nodes
}

fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort();
    times[(times.len() * percent / 100).min(times.len() - 1)]
}

fn main() {
    let mut args = env::args().skip(1).map(|arg| arg.parse::<u64>().expect("a number"));
    let (nodes, puts, seed) = (args.next().unwrap_or(1000), args.next().unwrap_or(1000), args.next().unwrap_or(0));
    let real = Instant::now();
    let latency = Latency::Constant(Duration::from_millis(40));
    let ran = run(WorldConfig::default().seed(seed).latency(latency), move |world| async move {
        let began = world.now();
        let nodes = join(&world, nodes as usize).await;
        println!("{} nodes joined in {:?}, {:?}", nodes.len(), world.now() - began, world.traffic());
        let (mut put, mut get, mut failed) = (Vec::new(), Vec::new(), 0);
        for number in 0..puts {
            let [writer, reader] = [(); 2].map(|()| world.random(|random| random.random_range(0..nodes.len())));
            let key = format!("key {number}").into_bytes();
            let began = world.now();
            let stored = nodes[writer].client().put_record(Record::new(key.clone(), vec![7; 1000])).await;
            put.push(world.now() - began);
            let began = world.now();
            let found = nodes[reader].client().get_record(key).await;
            get.push(world.now() - began);
            failed += usize::from(stored.is_err() || found.is_err());
        }
        for (name, times) in [("put", &mut put), ("get", &mut get)] {
            println!("{name}: p50 {:?}, p95 {:?}", percentile(times, 50), percentile(times, 95));
        }
        println!("{failed} of {puts} failed, {:?}", world.traffic());
    });
    println!("{ran:?}, {:?} of real time", real.elapsed());
}
