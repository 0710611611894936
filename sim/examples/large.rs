//! Joins many nodes, then puts and gets, 32 at a time, and prints percentiles in virtual time and the memory that the world
//! takes: `large NODES PUTS [SEED]`.

use std::{
    env,
    error::Error,
    fs,
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use kadence_sim::{Latency, Link, Member, World, WorldConfig, libp2p::kad::Record, run};
use rand::seq::IndexedRandom;
use tikv_jemallocator::Jemalloc;

/// Number of puts and gets that run at the same time.
const AT_ONCE: usize = 32;

/// Time after which an idle connection is closed: libp2p's default. A node that joins asks most of the others, so that with a
/// node's own default of a minute, and more nodes a second, a thousand nodes have 512 connections each, which is their limit.
/// A connection takes some 22 KiB at each end.
const IDLE_CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// Nodes that join in a second.
const JOIN_AT_ONCE: usize = 4;

type AnyError = Box<dyn Error + Send + Sync>;

/// A fifth of the time of a large world is saved.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> Result<(), AnyError> {
    let mut args = env::args().skip(1).map(|arg| arg.parse::<usize>());
    let (nodes, puts) = (args.next().transpose()?.unwrap_or(100), args.next().transpose()?.unwrap_or(100));
    let seed = args.next().transpose()?.unwrap_or(0);
    let real = Instant::now();
    let config = WorldConfig::default().seed(seed as u64).latency(Latency::CLOUD_REGIONS);
    let ran = run(config, move |world| async move {
        let config = Member::config()
            .idle_connection_timeout(IDLE_CONNECTION_TIMEOUT)
            // Those who joined first would look up the others again while the last ones join.
            .bootstrap_interval(None);
        let members = world.members_with(nodes, JOIN_AT_ONCE, Link::default(), config).await?;
        let joined = world.traffic();
        println!(
            "{nodes} nodes joined in {:?} with {} dials and {} packets; {}",
            world.now(),
            joined.dials,
            joined.packets,
            memory(nodes)?
        );
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
        println!("{failed} of {puts} failed; {} packets; {}", world.traffic().packets - joined.packets, memory(nodes)?);
        Ok::<_, AnyError>(())
    });
    ran.result?;
    println!("{:?} of virtual time took {:?}; trace {:016x}, {} steps", ran.took, real.elapsed(), ran.trace, ran.steps);
    Ok(())
}

/// Returns the most memory that the process has had so far, in words.
fn memory(nodes: usize) -> Result<String, AnyError> {
    let status = fs::read_to_string("/proc/self/status")?;
    let kib =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse::<usize>().ok());
    let kib = kib.ok_or("the system does not say how much memory is in use")?;
    Ok(format!("{} MiB, {} KiB a node", kib / 1024, kib / nodes.max(1)))
}

/// Puts a record and gets it from another node. Returns the times of both, and whether both succeeded.
async fn put_and_get(world: &World, number: usize, writer: &Member, reader: &Member) -> (Duration, Duration, bool) {
    let key = format!("key {number}").into_bytes();
    let began = world.now();
    let stored = writer.node.client().put_record(Record::new(key.clone(), vec![7; 1000])).await;
    let put = world.now() - began;
    let found = reader.node.client().get_record(key).await;
    if let Err(error) = &stored {
        eprintln!("put {number}: {error:?}");
    }
    if let Err(error) = &found {
        eprintln!("get {number}: {error:?}");
    }
    (put, world.now() - began - put, stored.is_ok() && found.is_ok())
}

fn one_of<'a>(world: &World, members: &'a [Member]) -> Option<&'a Member> {
    world.random(|random| members.choose(random))
}

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted.get(sorted.len() * percent / 100).or(sorted.last()).copied().unwrap_or_default()
}
