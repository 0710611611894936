//! A network whose nodes come and go: `churn NODES MINUTES [SEED]`.
//!
//! Each node lives for an hour on average, and a minute later a new one takes its place. Every ten seconds one node puts a record,
//! and another gets one that was put within the last ten minutes.

use std::{
    cell::RefCell,
    env,
    error::Error,
    pin::pin,
    rc::Rc,
    time::{Duration, Instant},
};

use futures::{StreamExt, future, stream::FuturesUnordered};
use kadence_sim::{
    Latency, Link, Member, World, WorldConfig,
    kadence::{Certainty, GetRecordError, node::NodeConfig},
    libp2p::{Multiaddr, kad::Record},
    run,
};
use rand::{Rng, seq::IndexedRandom};
use tikv_jemallocator::Jemalloc;

/// Mean time from the start of a node to its end. The times are distributed exponentially.
const SESSION: Duration = Duration::from_secs(60 * 60);

/// Time between the end of a node and the start of the next one in its place.
const ABSENCE: Duration = Duration::from_secs(60);

/// Time between two bootstraps of a node: that of Kademlia's paper. Each takes a connection to most of the others, so that
/// with kad's five minutes the world does little else.
const BOOTSTRAP_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// Nodes that join in a second.
const JOIN_AT_ONCE: usize = 20;

/// Time between two puts, and between two gets.
const PACE: Duration = Duration::from_secs(10);

/// Time after which an idle connection is closed: libp2p's default. Most connections are those of lookups, and with a node's
/// own default of a minute the world spends its time on their pings.
const IDLE_CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// Number of the latest records that are asked for.
const RECENT: usize = 60;

type AnyError = Box<dyn Error + Send + Sync>;

/// A fifth of the time of a large world is saved.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

#[derive(Debug, Default)]
struct Counts {
    replaced: u32,
    failed_to_start: u32,
    puts: u32,
    failed_puts: u32,
    found: u32,
    not_found: u32,
    conclusively_not_found: u32,
    other_errors: u32,
}

fn main() -> Result<(), AnyError> {
    let mut args = env::args().skip(1).map(|arg| arg.parse::<u64>());
    let (nodes, minutes) = (args.next().transpose()?.unwrap_or(300), args.next().transpose()?.unwrap_or(60));
    let seed = args.next().transpose()?.unwrap_or(0);
    let (nodes, real) = (usize::try_from(nodes)?, Instant::now());
    let config = WorldConfig::default().seed(seed).latency(Latency::CLOUD_REGIONS);
    let ran = run(config, move |world| async move {
        let members = world.members_with(nodes, JOIN_AT_ONCE, Link::default(), config_of_node()).await?;
        println!("{nodes} nodes have joined after {:?}", world.now());
        let places = members.into_iter().map(|member| Some(Rc::new(member))).collect();
        let network =
            Network { world, places: RefCell::new(places), counts: RefCell::default(), stored: RefCell::default() };
        let mut come_and_go: FuturesUnordered<_> = (0..nodes).map(|at| network.come_and_go(at)).collect();
        let calls = pin!(network.call(Duration::from_secs(60 * minutes)));
        let churn = pin!(async { while come_and_go.next().await.is_some() {} });
        future::select(calls, churn).await;
        drop(come_and_go);
        let traffic = network.world.traffic();
        Ok::<_, AnyError>((network.counts.take(), traffic.packets))
    });
    let (counts, packets) = ran.result?;
    println!(
        "{counts:#?}\n{packets} packets; {:?} of virtual time took {:?}; trace {:016x}",
        ran.took,
        real.elapsed(),
        ran.trace
    );
    Ok(())
}

fn config_of_node() -> NodeConfig {
    Member::config().idle_connection_timeout(IDLE_CONNECTION_TIMEOUT).bootstrap_interval(BOOTSTRAP_INTERVAL)
}

struct Network {
    world: World,
    /// The nodes; `None` while one is away.
    places: RefCell<Vec<Option<Rc<Member>>>>,
    counts: RefCell<Counts>,
    /// Numbers of records whose puts have succeeded, the latest last.
    stored: RefCell<Vec<u64>>,
}

impl Network {
    /// Ends the node of a place and starts another one there, over and over.
    async fn come_and_go(&self, at: usize) {
        loop {
            let share = self.world.random(|random| random.random_range(0.0..1.0_f64));
            self.world.sleep(SESSION.mul_f64(-(1.0 - share).ln())).await;
            let Some(member) = self.places.borrow_mut().get_mut(at).and_then(Option::take) else { return };
            let host = member.host.clone();
            host.kill();
            drop(member);
            self.world.sleep(ABSENCE).await;
            let known = self.world.some_of(&self.addresses());
            match Member::start(host, config_of_node().bootstrap_peers(known)).await {
                Ok(member) => {
                    self.counts.borrow_mut().replaced += 1;
                    if let Some(place) = self.places.borrow_mut().get_mut(at) {
                        *place = Some(Rc::new(member));
                    }
                }
                Err(error) => {
                    println!("a node does not start: {error}");
                    self.counts.borrow_mut().failed_to_start += 1;
                }
            }
        }
    }

    fn addresses(&self) -> Vec<Multiaddr> {
        self.places.borrow().iter().flatten().flat_map(|member| member.addresses()).collect()
    }

    fn somebody(&self) -> Option<Rc<Member>> {
        let present: Vec<_> = self.places.borrow().iter().flatten().cloned().collect();
        self.world.random(|random| present.choose(random).cloned())
    }

    /// Puts and gets for a time.
    async fn call(&self, time: Duration) {
        let end = self.world.now() + time;
        let mut calls = FuturesUnordered::new();
        for number in 0.. {
            if self.world.now() >= end {
                break;
            }
            calls.push(self.put_and_get(number));
            let pause = pin!(self.world.sleep(PACE));
            // The calls go on during the pause.
            let mut going_on = pin!(async {
                while calls.next().await.is_some() {}
                future::pending::<()>().await;
            });
            future::select(pause, &mut going_on).await;
        }
        while calls.next().await.is_some() {}
    }

    async fn put_and_get(&self, number: u64) {
        let key = |number: u64| format!("key {number}").into_bytes();
        let (Some(writer), Some(reader)) = (self.somebody(), self.somebody()) else { return };
        let client = writer.node.client().clone();
        drop(writer);
        let put = client.put_record(Record::new(key(number), vec![7; 100])).await;
        {
            let mut counts = self.counts.borrow_mut();
            counts.puts += 1;
            counts.failed_puts += u32::from(put.is_err());
        }
        if put.is_ok() {
            self.stored.borrow_mut().push(number);
        }
        let wanted = {
            let stored = self.stored.borrow();
            let recent = stored.get(stored.len().saturating_sub(RECENT)..).unwrap_or_default();
            self.world.random(|random| recent.choose(random).copied())
        };
        let Some(wanted) = wanted else { return };
        let client = reader.node.client().clone();
        drop(reader);
        let got = client.get_record(key(wanted)).await;
        let mut counts = self.counts.borrow_mut();
        match got {
            Ok(_) => counts.found += 1,
            Err(GetRecordError::NotFound { certainty: Certainty::Conclusive, .. }) => {
                counts.conclusively_not_found += 1;
            }
            Err(GetRecordError::NotFound { .. }) => counts.not_found += 1,
            Err(_) => counts.other_errors += 1,
        }
    }
}
