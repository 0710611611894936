//! Joins many nodes, then puts and gets, 32 at a time, and prints percentiles in virtual time: `large NODES PUTS [SEED]`.

use std::{
    env,
    error::Error,
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use kadence_sim::{Latency, Link, Member, World, WorldConfig, libp2p::kad::Record, run};
use rand::seq::IndexedRandom;

/// Number of puts and gets that run at the same time.
const AT_ONCE: usize = 32;

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
        let pairs: Vec<_> =
            (0..puts).filter_map(|_| Some((one_of(&world, &members)?, one_of(&world, &members)?))).collect();
        let (mut put, mut get, mut failed) = (Vec::new(), Vec::new(), 0);
        let mut calls = stream::iter(pairs.into_iter().enumerate())
            .map(|(number, (writer, reader))| put_and_get(&world, number, writer, reader))
            .buffer_unordered(AT_ONCE);
        while let Some((put_took, get_took, is_ok)) = calls.next().await {
            put.push(put_took);
            get.push(get_took);
            failed += usize::from(!is_ok);
        }
        drop(calls);
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

/// Puts a record and gets it from another node. Returns the times of both, and whether both succeeded.
async fn put_and_get(world: &World, number: usize, writer: &Member, reader: &Member) -> (Duration, Duration, bool) {
    let key = format!("key {number}").into_bytes();
    let began = world.now();
    let stored = writer.node.client().put_record(Record::new(key.clone(), vec![7; 1000])).await;
    let put = world.now() - began;
    let found = reader.node.client().get_record(key).await;
    (put, world.now() - began - put, stored.is_ok() && found.is_ok())
}

fn one_of<'a>(world: &World, members: &'a [Member]) -> Option<&'a Member> {
    world.random(|random| members.choose(random))
}

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted.get(sorted.len() * percent / 100).or(sorted.last()).copied().unwrap_or_default()
}
