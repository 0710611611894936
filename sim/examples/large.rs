//! Joins many nodes, then puts and gets, and prints percentiles in virtual time: `large NODES PUTS [SEED]`.

use std::{
    env,
    error::Error,
    time::{Duration, Instant},
};

use kadence_sim::{Latency, Link, Member, World, WorldConfig, libp2p::kad::Record, run};
use rand::seq::IndexedRandom;

type AnyError = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), AnyError> {
    let mut args = env::args().skip(1).map(|arg| arg.parse::<usize>());
    let (nodes, puts) = (args.next().transpose()?.unwrap_or(100), args.next().transpose()?.unwrap_or(100));
    let seed = args.next().transpose()?.unwrap_or(0);
    let real = Instant::now();
    let config = WorldConfig::default().seed(seed as u64).latency(Latency::CLOUD_REGIONS);
    let ran = run(config, move |world| async move {
        let members = world.members(nodes, Link::default()).await?;
        let joined = world.traffic();
        println!("{nodes} nodes joined in {:?} with {} packets", world.now(), joined.packets);
        let (mut put, mut get, mut failed) = (Vec::new(), Vec::new(), 0);
        for number in 0..puts {
            let (Some(writer), Some(reader)) = (one_of(&world, &members), one_of(&world, &members)) else { continue };
            let key = format!("key {number}").into_bytes();
            let began = world.now();
            let stored = writer.node.client().put_record(Record::new(key.clone(), vec![7; 1000])).await;
            put.push(world.now() - began);
            let began = world.now();
            let found = reader.node.client().get_record(key).await;
            get.push(world.now() - began);
            failed += usize::from(stored.is_err() || found.is_err());
        }
        for (name, times) in [("put", &mut put), ("get", &mut get)] {
            times.sort();
            println!("{name}: p50 {:?}, p95 {:?}", percentile(times, 50), percentile(times, 95));
        }
        println!("{failed} of {puts} failed; {} packets", world.traffic().packets - joined.packets);
        Ok::<_, AnyError>(())
    });
    ran.result?;
    println!("{:?} of virtual time took {:?}; trace {:016x}, {} steps", ran.took, real.elapsed(), ran.trace, ran.steps);
    Ok(())
}

fn one_of<'a>(world: &World, members: &'a [Member]) -> Option<&'a Member> {
    world.random(|random| members.choose(random))
}

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted.get(sorted.len() * percent / 100).or(sorted.last()).copied().unwrap_or_default()
}
