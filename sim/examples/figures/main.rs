//! Figures that do not depend on the machine: latencies in virtual time, packets, bytes and recall of Kadence and of plain
//! kad, in the same network with round trips of the internet, at several shares of silent peers.
//!
//! ```text
//! figures [NODES [ROUNDS [FOLDER]]]    prints a table for each share, in Markdown, and with a folder writes plots
//! figures --check                      compares the figures of a small network with those in gates.csv
//! figures --write                      writes gates.csv
//! ```

mod installs;

use std::{
    collections::{BTreeMap, HashSet},
    env,
    error::Error,
    fs,
    path::Path,
    time::Duration,
};

use kadence_sim::{
    ForeignPeer, Habit, Host, Latency, Link, Member, PlainNode, World, WorldConfig,
    libp2p::{
        Multiaddr, PeerId,
        kad::{KBucketKey, Quorum, Record},
    },
    run,
};
use plotters::prelude::{
    BLACK, ChartBuilder, IntoDrawingArea, LineSeries, RGBColor, SVGBackend, SeriesLabelPosition, WHITE,
};
use rand::seq::{IndexedRandom, SliceRandom};
use tikv_jemallocator::Jemalloc;

type AnyError = Box<dyn Error + Send + Sync>;

/// A fifth of the time of a large world is saved.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// Shares of silent peers, in percent.
const SHARES: [usize; 5] = [0, 5, 15, 30, 50];

/// Nodes of each kind that make calls.
const CALLERS: usize = 10;

/// Nodes that hold a record.
const REPLICATION: usize = 20;

/// Operation that is measured.
#[derive(Debug, Clone, Copy)]
enum Operation {
    GetFirst,
    GetQuorum,
    Closest,
    Put,
    Provide,
    FindProviders,
    Install,
}

/// Operations, in the order of their numbers and of a table's rows, and their names.
const OPERATIONS: [&str; 7] =
    ["get first", "get quorum of 3", "closest peers", "put", "provide", "find providers", "cold package install"];

/// Node of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Answers nothing after [`Network::silence`].
    Silent,
    /// Makes calls with Kadence.
    Kadence,
    /// Makes calls with plain kad.
    Plain,
    Other,
}

/// Network whose figures are compared: small, so that a check takes a minute.
const GATE_NODES: usize = 60;
const GATE_ROUNDS: usize = 15;
const GATE_SHARES: [usize; 3] = [0, 15, 30];

/// Figures of Kadence. They are exact for the same code; who changes one by more than [`TOLERANCE`] writes the file anew, and
/// says why.
const GATES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/gates.csv");
const TOLERANCE: f64 = 0.05;
const ROUNDING: f64 = 0.001;

fn main() -> Result<(), AnyError> {
    let args: Vec<String> = env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        Some("--check") => return check(),
        Some("--write") => return Ok(fs::write(GATES, to_csv(&gates()?))?),
        _ => {}
    }
    let number = |at: usize, default| args.get(at).map_or(Ok(default), |arg| arg.parse::<usize>());
    let (nodes, calls) = (number(0, 200)?, number(1, 50)?);
    let tables = measure_all(nodes, calls, &SHARES)?;
    if let Some(folder) = args.get(2) {
        for (at, operation) in OPERATIONS.iter().enumerate() {
            let path = Path::new(folder).join(format!("{}.svg", operation.replace(' ', "-")));
            plot(&path, operation, at, &tables).map_err(|error| error.to_string())?;
        }
    }
    Ok(())
}

/// Reads of what was put and announced before.
const READS: [Operation; 4] = [Operation::GetFirst, Operation::GetQuorum, Operation::Closest, Operation::FindProviders];

/// A figure that is compared: the name and the value.
type Figure = (String, f64);

fn gates() -> Result<Vec<Figure>, AnyError> {
    let mut gates = Vec::new();
    let tables = measure_all(GATE_NODES, GATE_ROUNDS, &GATE_SHARES)?;
    for (share, table) in GATE_SHARES.into_iter().zip(tables) {
        for (operation, [calls, _]) in OPERATIONS.iter().zip(&table) {
            let count = calls.times.len().max(1) as f64;
            let mean = |sum: f64| sum / count;
            let time = calls.times.iter().sum::<Duration>().as_secs_f64() * 1000.0;
            let missed = calls.recall.iter().map(|recall| 1.0 - recall).sum::<f64>();
            let name = |figure: &str| format!("{operation}, {share} % silent, {figure}");
            gates.push((name("mean ms"), mean(time)));
            gates.push((name("packets"), mean(calls.packets as f64)));
            gates.push((name("failed"), mean(calls.failed as f64)));
            if !calls.recall.is_empty() {
                gates.push((name("peers missed of 20"), mean(missed * 20.0)));
            }
        }
    }
    Ok(gates)
}

fn to_csv(gates: &[Figure]) -> String {
    gates.iter().map(|(name, value)| format!("{name};{value:.3}\n")).collect()
}

fn check() -> Result<(), AnyError> {
    let text = fs::read_to_string(GATES)?;
    let mut before = BTreeMap::new();
    for line in text.lines() {
        let (name, value) = line.split_once(';').ok_or("a line of gates.csv has no `;`")?;
        before.insert(name.to_owned(), value.parse::<f64>()?);
    }
    let (mut worse, mut better) = (0, 0);
    for (name, value) in gates()? {
        let Some(before) = before.remove(&name) else { return Err(format!("gates.csv lacks {name}").into()) };
        let is_worse = value > before * (1.0 + TOLERANCE) + ROUNDING;
        let is_better = value < before * (1.0 - TOLERANCE) - ROUNDING;
        worse += usize::from(is_worse);
        better += usize::from(is_better);
        if is_worse || is_better {
            println!("{name}: {value:.3}, which was {before:.3}");
        }
    }
    if let Some((name, _)) = before.first_key_value() {
        return Err(format!("nothing is measured for {name}").into());
    }
    println!("{worse} figures are worse by more than 5 %, {better} better");
    if worse + better > 0 {
        // A gate that was left behind would hide the next step back.
        return Err("mend what is worse, or write the file anew with `cargo xtask figures --write` and say why".into());
    }
    Ok(())
}

/// Calls of one kind.
#[derive(Debug, Clone, Default)]
struct Calls {
    times: Vec<Duration>,
    failed: usize,
    packets: u64,
    bytes: u64,
    /// Share of the true closest peers that were found, or that hold the record.
    recall: Vec<f64>,
}

/// Calls by operation, first those of Kadence and then those of plain kad.
type Table = Vec<[Calls; 2]>;

enum Caller {
    Kadence(Member),
    Plain(PlainNode),
}

impl Caller {
    fn peer(&self) -> PeerId {
        match self {
            Self::Kadence(member) => member.node.local_peer_id(),
            Self::Plain(node) => node.peer_id(),
        }
    }

    fn host(&self) -> &Host {
        match self {
            Self::Kadence(member) => &member.host,
            Self::Plain(node) => &node.host,
        }
    }
}

/// Measures a network at some shares of silent peers, and prints the tables.
fn measure_all(nodes: usize, calls: usize, shares: &[usize]) -> Result<Vec<Table>, AnyError> {
    let mut tables = shares.iter().map(|share| measure(nodes, calls, *share)).collect::<Result<Vec<_>, _>>()?;
    // Registries are further nodes, in worlds of their own. They come last, as a world depends on those before it in a process.
    for (share, table) in shares.iter().zip(&mut tables) {
        if let Some([kadence, _]) = table.get_mut(Operation::Install as usize) {
            *kadence = measure_installs(nodes, calls, *share)?;
        }
        print(nodes, calls, *share, table);
    }
    Ok(tables)
}

fn config(share: usize) -> WorldConfig {
    WorldConfig::default().seed(share as u64).latency(Latency::CLOUD_REGIONS)
}

fn measure(nodes: usize, calls: usize, share: usize) -> Result<Table, AnyError> {
    let ran = run(config(share), move |world| async move {
        let network = Network::start(world, nodes, share).await?;
        network.silence();
        network.measure(calls).await
    });
    ran.result
}

fn measure_installs(nodes: usize, calls: usize, share: usize) -> Result<Calls, AnyError> {
    let ran = run(config(share), move |world| async move {
        let network = Network::start(world, nodes, share).await?;
        installs::measure(&network, calls).await
    });
    ran.result
}

struct Network {
    world: World,
    kadence: Vec<Caller>,
    plain: Vec<Caller>,
    /// All peers that answer.
    answering: Vec<PeerId>,
    /// Addresses of peers that answer.
    addresses: Vec<Multiaddr>,
    /// Peers that [`silence`](Self::silence) silences.
    silent: Vec<ForeignPeer>,
    /// Other nodes of the network.
    _others: Vec<Member>,
}

impl Network {
    /// Starts the nodes. The silent ones answer at first, so that they are in the routing tables.
    async fn start(world: World, nodes: usize, share: usize) -> Result<Self, AnyError> {
        let silent = nodes * share / 100;
        let mut roles: Vec<Role> = (0..nodes)
            .map(|at| match at {
                _ if at < silent => Role::Silent,
                _ if at < silent + CALLERS => Role::Kadence,
                _ if at < silent + 2 * CALLERS => Role::Plain,
                _ => Role::Other,
            })
            .collect();
        world.random(|random| roles.shuffle(random));
        let mut network = Self {
            world: world.clone(),
            kadence: Vec::new(),
            plain: Vec::new(),
            answering: Vec::new(),
            addresses: Vec::new(),
            silent: Vec::new(),
            _others: Vec::new(),
        };
        let mut addresses: Vec<Multiaddr> = Vec::new();
        // Who answers joins first, so that everybody can join.
        for first in 0..3 {
            if let Some(at) = roles.iter().skip(first).position(|role| *role == Role::Other) {
                roles.swap(first, first + at);
            }
        }
        for (at, role) in roles.into_iter().enumerate() {
            let known = world.some_of(&addresses);
            let host = world.host(Link::default());
            let (peer, address) = match role {
                Role::Silent => {
                    let peer = ForeignPeer::start(host, Habit::Honest, &known)?;
                    let ends = (peer.peer_id(), peer.address());
                    network.silent.push(peer);
                    ends
                }
                Role::Plain => {
                    let node = PlainNode::start(host, &known)?;
                    let ends = (node.peer_id(), node.address());
                    network.plain.push(Caller::Plain(node));
                    ends
                }
                Role::Kadence | Role::Other => {
                    let member = Member::join(host, known).await?;
                    let address = member.addresses().into_iter().next().ok_or("a node listens nowhere")?;
                    let ends = (member.node.local_peer_id(), address);
                    if role == Role::Kadence {
                        network.kadence.push(Caller::Kadence(member));
                    } else {
                        network._others.push(member);
                    }
                    ends
                }
            };
            if role != Role::Silent {
                network.answering.push(peer);
                network.addresses.push(address.clone());
            }
            addresses.push(address);
            if at % 20 == 19 {
                world.sleep(Duration::from_secs(1)).await;
            }
        }
        world.sleep(Duration::from_secs(60)).await;
        Ok(network)
    }

    /// Lets the silent peers answer nothing any more.
    fn silence(&self) {
        self.silent.iter().for_each(|peer| peer.set_habit(Habit::Silent));
    }

    async fn measure(self, calls: usize) -> Result<Table, AnyError> {
        let mut table: Table = vec![Default::default(); OPERATIONS.len()];
        for number in 0..calls {
            // Each goes first in every second round, as what the first one does helps the second.
            let order = if number % 2 == 0 { [0, 1] } else { [1, 0] };
            for who in order {
                let key = format!("{number} of {who}").into_bytes();
                self.call(&mut table, Operation::Put, who, &key).await;
                self.call(&mut table, Operation::Provide, who, &key).await;
            }
            for key_of in [0, 1] {
                let key = format!("{number} of {key_of}").into_bytes();
                for who in order {
                    for operation in READS {
                        self.call(&mut table, operation, who, &key).await;
                    }
                }
            }
        }
        Ok(table)
    }

    async fn call(&self, table: &mut Table, operation: Operation, who: usize, key: &[u8]) {
        let callers = if who == 0 { &self.kadence } else { &self.plain };
        let Some(caller) = self.world.random(|random| callers.choose(random)) else { return };
        let Some(calls) = table.get_mut(operation as usize).and_then(|both| both.get_mut(who)) else { return };
        let (before, began) = (caller.host().traffic(), self.world.now());
        let (is_ok, named) = perform(caller, operation, key).await;
        let after = caller.host().traffic();
        calls.times.push(self.world.now() - began);
        calls.failed += usize::from(!is_ok);
        calls.packets += after.packets - before.packets;
        calls.bytes += after.bytes - before.bytes;
        if let Some(named) = named {
            let closest = self.closest(key, caller.peer());
            let found = closest.iter().filter(|peer| named.contains(peer)).count();
            calls.recall.push(found as f64 / closest.len().max(1) as f64);
        }
        // What the call has left behind is not part of the next one.
        self.world.sleep(Duration::from_secs(1)).await;
    }

    /// Returns the answering peers that are closest to a key, without the caller.
    fn closest(&self, key: &[u8], caller: PeerId) -> Vec<PeerId> {
        let target = KBucketKey::new(key.to_vec());
        let mut peers = self.answering.clone();
        peers.retain(|peer| *peer != caller);
        peers.sort_by_key(|peer| KBucketKey::from(*peer).distance(&target));
        peers.truncate(REPLICATION);
        peers
    }
}

const NOT_OF_A_NODE: &str = "a node without a registry installs nothing";

/// Makes a call. Returns whether it succeeded, and the peers that it named.
async fn perform(caller: &Caller, operation: Operation, key: &[u8]) -> (bool, Option<HashSet<PeerId>>) {
    let key = key.to_vec();
    match caller {
        Caller::Kadence(member) => {
            let client = member.node.client();
            match operation {
                Operation::GetFirst => (client.get_record(key).await.is_ok(), None),
                Operation::GetQuorum => (client.get_record(key).quorum(3).await.is_ok(), None),
                Operation::Closest => match client.get_closest_peers(key).await {
                    Ok(found) => (true, Some(found.peers.iter().map(|peer| peer.peer_id).collect())),
                    Err(_) => (false, Some(HashSet::new())),
                },
                Operation::Put => match client.put_record(Record::new(key, vec![7; 1000])).await {
                    Ok(put) => (true, Some(put.acknowledged.into_iter().collect())),
                    // A put that fails has stored nothing that counts.
                    Err(_) => (false, Some(HashSet::new())),
                },
                Operation::Provide => (client.start_providing(key).await.is_ok(), None),
                Operation::FindProviders => (client.get_providers(key).first().await.is_ok(), None),
                Operation::Install => unreachable!("{NOT_OF_A_NODE}"),
            }
        }
        Caller::Plain(node) => match operation {
            Operation::GetFirst => (node.get_record(key, 1).await.is_some(), None),
            Operation::GetQuorum => (node.get_record(key, 3).await.is_some(), None),
            Operation::Closest => {
                let found = node.get_closest_peers(key).await;
                (!found.is_empty(), Some(found.into_iter().collect()))
            }
            Operation::Put => (node.put_record(Record::new(key, vec![7; 1000]), Quorum::Majority).await, None),
            Operation::Provide => (node.start_providing(key).await, None),
            Operation::FindProviders => (!node.get_providers(key).await.is_empty(), None),
            Operation::Install => unreachable!("{NOT_OF_A_NODE}"),
        },
    }
}

fn percentile(times: &[Duration], percent: usize) -> u128 {
    let mut times = times.to_vec();
    times.sort();
    times.get(times.len() * percent / 100).or(times.last()).map_or(0, Duration::as_millis)
}

fn print(nodes: usize, calls: usize, share: usize, table: &Table) {
    println!("\n{nodes} nodes, {share} % silent, {calls} rounds\n");
    println!("| operation | p50, ms | p95, ms | failed | packets | kB | recall |\n|---|---:|---:|---:|---:|---:|---:|");
    for (operation, both) in OPERATIONS.iter().zip(table) {
        let cell = |calls: &Calls, value: &dyn Fn(&Calls) -> String| match calls {
            Calls { times, .. } if times.is_empty() => "–".to_owned(),
            calls => value(calls),
        };
        let cells = |value: &dyn Fn(&Calls) -> String| {
            both.iter().map(|calls| cell(calls, value)).collect::<Vec<_>>().join(" / ")
        };
        let count = |calls: &Calls| calls.times.len().max(1) as u64;
        println!(
            "| {operation} | {} | {} | {} | {} | {} | {} |",
            cells(&|calls| percentile(&calls.times, 50).to_string()),
            cells(&|calls| percentile(&calls.times, 95).to_string()),
            cells(&|calls| format!("{} of {}", calls.failed, calls.times.len())),
            cells(&|calls| (calls.packets / count(calls)).to_string()),
            cells(&|calls| format!("{:.1}", calls.bytes as f64 / count(calls) as f64 / 1000.0)),
            cells(&|calls| match calls.recall.len() {
                0 => "–".to_owned(),
                len => format!("{:.3}", calls.recall.iter().sum::<f64>() / len as f64),
            }),
        );
    }
}

/// Draws the 95th percentiles of an operation by the share of silent peers.
fn plot(path: &Path, operation: &str, at: usize, tables: &[Table]) -> Result<(), Box<dyn Error>> {
    const LINES: [(&str, RGBColor); 2] = [("Kadence", RGBColor(0, 90, 180)), ("plain kad", RGBColor(200, 80, 0))];
    let points = |who: usize| -> Vec<(f64, f64)> {
        let of = |table: &Table| Some(&table.get(at)?.get(who)?.times).filter(|times| !times.is_empty()).cloned();
        let times = tables.iter().filter_map(|table| Some(percentile(&of(table)?, 95) as f64));
        SHARES.iter().map(|share| *share as f64).zip(times).collect()
    };
    let top = (0..2).flat_map(points).map(|(_, time)| time).fold(1.0, f64::max);
    let area = SVGBackend::new(path, (640, 360)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(format!("{operation}: 95th percentile"), ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d(0.0..50.0, 0.0..top * 1.05)?;
    let whole = |value: &f64| format!("{value:.0}");
    let mut mesh = chart.configure_mesh();
    mesh.max_light_lines(0).x_label_formatter(&whole).y_label_formatter(&whole);
    mesh.x_desc("silent peers, %").y_desc("virtual ms").draw()?;
    for (who, (name, colour)) in LINES.into_iter().enumerate() {
        let line = LineSeries::new(points(who), colour);
        chart
            .draw_series(line)?
            .label(name)
            .legend(move |(x, y)| plotters::prelude::PathElement::new(vec![(x, y), (x + 20, y)], colour));
    }
    chart.configure_series_labels().position(SeriesLabelPosition::UpperLeft).border_style(BLACK).draw()?;
    Ok(area.present()?)
}
