//! Records of 60 kB over slow links, with Kadence and with plain kad in the same network: `slow_links [get | put]`.
//!
//! Thirty nodes, 10 ms apart, have fast links. For gets, the closest one or the closest twenty have each record, and the link
//! of the readers or of the holders is slow; for puts, that of the writers. Each row is a network of its own, in which three
//! rounds of calls are made, one call at once or three.

use std::{env, error::Error, fmt, future::Future, time::Duration};

use futures::future::join_all;
use kadence_sim::{
    Latency, Link, Member, PlainNode, World, WorldConfig,
    kadence::node::NodeConfig,
    libp2p::{
        Multiaddr,
        kad::{KBucketKey, Quorum, Record},
    },
    run,
};

const NODES: usize = 30;
const LEN: usize = 60_000;
const ROUNDS: usize = 3;
const MINUTE: Duration = Duration::from_secs(60);

/// Time between two rounds.
const PAUSE: Duration = Duration::from_secs(4);

type AnyError = Box<dyn Error + Send + Sync>;

/// Calls that succeeded, and the time of each.
#[derive(Debug, Default)]
struct Outcome {
    calls: usize,
    times: Vec<Duration>,
}

impl Outcome {
    fn add(&mut self, results: Vec<Option<Duration>>) {
        self.calls += results.len();
        self.times.extend(results.into_iter().flatten());
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.times.len(), self.calls)?;
        let longest = self.times.iter().max();
        longest.map_or(Ok(()), |longest| write!(f, ", {:.1} s", longest.as_secs_f64()))
    }
}

fn main() -> Result<(), AnyError> {
    let what = env::args().nth(1);
    if what.as_deref() != Some("put") {
        println!("| get | holders | at once | Kadence | plain kad |\n|---|---:|---:|---:|---:|");
        for rate in [64_000, 128_000, 512_000, 2_000_000, 10_000_000] {
            for (side, is_reader) in [("reader", true), ("holders", false)] {
                for (holders, at_once) in [(1, 1), (1, 3), (20, 1), (20, 3)] {
                    let (own, plain) = get(rate, is_reader, holders, at_once)?;
                    println!("| {side} at {} | {holders} | {at_once} | {own} | {plain} |", name_of(rate));
                }
            }
        }
    }
    if what.as_deref() != Some("get") {
        println!("\n| put | at once | Kadence | plain kad |\n|---|---:|---:|---:|");
        for rate in [512_000, 1_000_000, 4_000_000, 20_000_000] {
            for at_once in [1, 3] {
                let (own, plain) = put(rate, at_once)?;
                println!("| uplink of {} | {at_once} | {own} | {plain} |", name_of(rate));
            }
        }
    }
    Ok(())
}

fn name_of(rate: u64) -> String {
    if rate < 1_000_000 { format!("{} kbit/s", rate / 1_000) } else { format!("{} Mbit/s", rate / 1_000_000) }
}

fn config() -> WorldConfig {
    WorldConfig::default().latency(Latency::Constant(Duration::from_millis(10)))
}

fn record(name: &str) -> Record {
    Record::new(name.as_bytes().to_vec(), vec![7; LEN])
}

/// Returns how long a call took, if it has succeeded.
async fn timed(world: &World, call: impl Future<Output = bool>) -> Option<Duration> {
    let began = world.now();
    call.await.then(|| world.now() - began)
}

/// Gets `at_once` records at a time over links of this rate.
fn get(rate: u64, is_reader: bool, holders: usize, at_once: usize) -> Result<(Outcome, Outcome), AnyError> {
    let ran = run(config(), move |world| async move {
        let (members, known) = network(&world).await?;
        let mut slow_holders = Vec::new();
        let slow = Link::default().up(rate).down(rate);
        for round in 0..ROUNDS {
            for number in 0..at_once {
                let record = record(&format!("{round} {number}"));
                let key = KBucketKey::new(record.key.to_vec());
                let mut closest: Vec<_> = members.iter().collect();
                closest.sort_by_key(|member| KBucketKey::from(member.node.local_peer_id()).distance(&key));
                let (holders, others) = closest.split_at(holders);
                let ids = holders.iter().map(|member| member.node.local_peer_id());
                others.last().ok_or("no other members")?.node.client().put_record_to(record, ids).await?;
                slow_holders.extend(holders.iter().map(|member| member.host.clone()).filter(|_| !is_reader));
            }
        }
        slow_holders.iter().for_each(|host| host.set_link(slow));
        let link = if is_reader { slow } else { Link::default() };
        let own = world.host(link).node(NodeConfig::default().bootstrap_peers(known.clone())).await?;
        let plain = PlainNode::start(world.host(link), &known)?;
        world.sleep(MINUTE).await;
        let (mut of_own, mut of_plain) = (Outcome::default(), Outcome::default());
        for round in 0..ROUNDS {
            let keys: Vec<_> = (0..at_once).map(|number| format!("{round} {number}")).collect();
            let gets = keys.iter().map(|key| {
                timed(&world, async { own.client().get_record(key.as_str()).timeout(2 * MINUTE).await.is_ok() })
            });
            of_own.add(join_all(gets).await);
            world.sleep(PAUSE).await;
            let gets = keys
                .iter()
                .map(|key| timed(&world, async { plain.get_record(key.as_bytes().to_vec(), 1).await.is_some() }));
            of_plain.add(join_all(gets).await);
            world.sleep(PAUSE).await;
        }
        Ok::<_, AnyError>((of_own, of_plain))
    });
    ran.result
}

/// Puts `at_once` records at a time over an uplink of this rate.
fn put(rate: u64, at_once: usize) -> Result<(Outcome, Outcome), AnyError> {
    let ran = run(config(), move |world| async move {
        let (_members, known) = network(&world).await?;
        let link = Link::default().up(rate).down(50_000_000);
        let own = world.host(link).node(NodeConfig::default().bootstrap_peers(known.clone())).await?;
        let plain = PlainNode::start(world.host(link), &known)?;
        world.sleep(MINUTE).await;
        let (mut of_own, mut of_plain) = (Outcome::default(), Outcome::default());
        for round in 0..ROUNDS {
            let puts = (0..at_once).map(|number| {
                let put = own.client().put_record(record(&format!("{round} {number}"))).timeout(2 * MINUTE);
                timed(&world, async { put.await.is_ok() })
            });
            of_own.add(join_all(puts).await);
            world.sleep(PAUSE).await;
            let puts = (0..at_once).map(|number| {
                let record = record(&format!("plain {round} {number}"));
                timed(&world, plain.put_record(record, Quorum::Majority))
            });
            of_plain.add(join_all(puts).await);
            world.sleep(PAUSE).await;
        }
        Ok::<_, AnyError>((of_own, of_plain))
    });
    ran.result
}

async fn network(world: &World) -> Result<(Vec<Member>, Vec<Multiaddr>), AnyError> {
    let members = world.members(NODES, Link::default()).await?;
    // The connections of the joins are idle by now, and those that close would take requests with them.
    world.sleep(PAUSE).await;
    let known = members.iter().flat_map(Member::addresses).collect();
    Ok((members, known))
}
