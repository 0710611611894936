//! Plan of a random world: its nodes, the calls that they make, and the faults that they meet. A seed gives a plan, and a
//! plan can be written down, shortened and played again.

use std::{collections::BTreeSet, time::Duration};

use kadence_sim::Habit;
use rand::{Rng, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// Seconds after the start at which all nodes have joined, and calls and faults begin.
pub(crate) const JOINED: u64 = 60;

/// Seconds in which calls and faults happen.
pub(crate) const LIVELY: u64 = 480;

/// Seconds after the last fault until the final reads.
pub(crate) const REST: u64 = 240;

const CALLS: usize = 200;
const PACKAGE_READS: usize = 40;

/// Number of nodes that are always servers: the others join through them.
pub(crate) const FIRST: usize = 5;
const KEYS: usize = 30;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    /// One-way latency of all pairs. `None`: that of cloud regions.
    pub(crate) latency_ms: Option<u64>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) faults: Vec<Fault>,
    pub(crate) calls: Vec<Call>,
    #[serde(default)]
    pub(crate) package_calls: Vec<PackageCall>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Node {
    pub(crate) kind: Kind,
    /// Bits per second, in both directions.
    pub(crate) bandwidth: Option<u64>,
    pub(crate) loss: f64,
    pub(crate) delay_ms: u64,
    /// Difference of the wall clock.
    pub(crate) seconds_ahead: i64,
    /// Number of the first nodes that it joins through.
    #[serde(default = "three")]
    pub(crate) known: usize,
    /// Server that it joins through in their place, if that one is there and keeps its key.
    #[serde(default)]
    pub(crate) friend: Option<usize>,
}

fn three() -> usize {
    3
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Kind {
    /// Kadence's node, as everybody starts it.
    Server,
    /// Kadence's node in kad's client mode.
    Client,
    /// Kadence's node behind a NAT: others cannot dial it.
    Hidden,
    /// Kadence's node with the package registry, whose files are on the disk of the host.
    Registry,
    Honest,
    Silent,
    WrongValue,
    WrongKey,
    InventedPeers,
    InventedProviders,
    Dropping,
    LaterExpiry,
    RefusingBySilence,
}

impl Kind {
    pub(crate) fn habit(self) -> Option<Habit> {
        Some(match self {
            Self::Server | Self::Client | Self::Hidden | Self::Registry => return None,
            Self::Honest => Habit::Honest,
            Self::Silent => Habit::Silent,
            Self::WrongValue => Habit::WrongValue,
            Self::WrongKey => Habit::WrongKey,
            Self::InventedPeers => Habit::InventedPeers(200),
            Self::InventedProviders => Habit::InventedProviders(200),
            Self::Dropping => Habit::Dropping,
            Self::LaterExpiry => Habit::LaterExpiry,
            Self::RefusingBySilence => Habit::RefusingBySilence,
        })
    }

    pub(crate) fn is_kadence(self) -> bool {
        self.habit().is_none()
    }

    /// Returns whether the node keeps what it acknowledges, and gives it to everybody.
    pub(crate) fn is_faithful(self) -> bool {
        matches!(self, Self::Server | Self::Registry | Self::Honest | Self::LaterExpiry)
    }

    /// Returns whether the node answers with records that nobody has stored.
    pub(crate) fn lies(self) -> bool {
        matches!(self, Self::WrongValue | Self::WrongKey)
    }
}

/// Seconds since the start.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Fault {
    pub(crate) at: u64,
    pub(crate) until: u64,
    pub(crate) nodes: Vec<usize>,
    pub(crate) what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum What {
    /// The link lets nothing pass, and what was sent arrives afterwards.
    Stall,
    /// The processes halt.
    Freeze,
    /// No power, and then the same process again.
    Unplug,
    /// The processes are killed, and start again with the same keys at the end of the fault, without their memory.
    Restart,
    /// As `Restart`, but peers do not notice, and what was not synced is lost.
    PowerFailure,
    /// The disk takes nothing more.
    FullDisk,
    /// As `Restart`, with another key.
    Replace,
    /// As `Replace`, but until the end of the fault the first node knows nobody, and the others know it alone.
    Island,
    /// The processes are killed and start again with the same key, over and over: they live for 30 s on average, and are
    /// away for 10 s.
    Churn,
    /// Another address.
    Move,
    /// All connections are closed.
    Reset,
    /// The nodes are cut from all others.
    Partition,
    /// The link has 256 kbit/s.
    Narrow,
    /// The link loses every tenth packet.
    Loss,
    /// Everything takes a second longer.
    Slow,
    /// The wall clock is an hour ahead.
    Clock,
    /// The first node opens 400 connections to the second one within eight seconds, and completes none.
    HalfOpen,
    /// The first node, which is foreign, puts 50 records a second at the second one.
    Flood,
}

impl What {
    pub(crate) const ALL: [Self; 18] = [
        Self::Stall,
        Self::Freeze,
        Self::Unplug,
        Self::Restart,
        Self::PowerFailure,
        Self::FullDisk,
        Self::Replace,
        Self::Island,
        Self::Churn,
        Self::Move,
        Self::Reset,
        Self::Partition,
        Self::Narrow,
        Self::Loss,
        Self::Slow,
        Self::Clock,
        Self::HalfOpen,
        Self::Flood,
    ];

    fn is_possible(self, nodes: &[Node]) -> bool {
        match self {
            Self::FullDisk => !registries(nodes).is_empty(),
            Self::Flood => nodes.iter().any(|node| !node.kind.is_kadence()),
            _ => true,
        }
    }

    /// Returns whether the nodes answer as ever while the fault lasts, and keep what they have.
    pub(crate) fn is_harmless(self) -> bool {
        matches!(self, Self::Clock | Self::FullDisk)
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Call {
    /// Milliseconds since the start.
    pub(crate) at: u64,
    pub(crate) by: usize,
    pub(crate) key: usize,
    pub(crate) operation: Operation,
    pub(crate) timeout_s: u64,
    /// Milliseconds after which the caller drops the call.
    pub(crate) dropped_after: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Operation {
    Get,
    GetQuorum,
    GetBest,
    /// With the length of the value.
    Put(usize),
    Provide,
    Providers,
    Closest,
}

/// A call of a package registry.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PackageCall {
    /// Milliseconds since the start.
    pub(crate) at: u64,
    pub(crate) by: usize,
    pub(crate) what: PackageOperation,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum PackageOperation {
    /// Publishes the next version of the node's own package.
    Publish,
    /// Reads the index of the package of another node, and fetches its newest version.
    Fetch { of: usize },
}

/// Draws a plan.
pub(crate) fn draw(seed: u64) -> Plan {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let random = &mut random;
    let number = random.random_range(20..=26);
    let strange = random.random_range(0..=number / 4);
    let mut nodes: Vec<_> = (0..number).map(|at| node(random, at, number - at <= strange)).collect();
    let registries: Vec<usize> =
        if random.random_bool(0.5) { (FIRST..FIRST + random.random_range(3..=5)).collect() } else { Vec::new() };
    for (_, node) in nodes.iter_mut().enumerate().filter(|(at, _)| registries.contains(at)) {
        // Until 18.4, a registry bans peers whose clock is not its own.
        (node.kind, node.seconds_ahead) = (Kind::Registry, 0);
    }
    let (own, _) = own_and_foreign(&nodes);
    let servers = of_kind(&nodes, Kind::Server);
    for at in &own {
        let friend = servers.choose(random).copied().filter(|friend| friend != at && random.random_bool(0.3));
        if let Some(node) = nodes.get_mut(*at) {
            node.friend = friend;
        }
    }
    let faults = faults(random, &nodes);
    let mut calls: Vec<_> = (0..CALLS).filter_map(|_| call(random, &own)).collect();
    calls.extend(faults.iter().flat_map(|fault| calls_of_newcomers(random, fault, &own)));
    let package_calls = package_calls(random, &registries);
    let latency_ms = random.random_bool(0.5).then(|| random.random_range(1..=150));
    Plan { seed, latency_ms, nodes, faults, calls, package_calls }
}

/// Returns some versions of each of the first two registries, and many reads by all.
fn package_calls(random: &mut ChaCha8Rng, registries: &[usize]) -> Vec<PackageCall> {
    let publishers = registries.get(..2).unwrap_or_default();
    let at = |random: &mut ChaCha8Rng| JOINED * 1_000 + random.random_range(0..LIVELY * 1_000);
    let mut calls = Vec::new();
    for by in publishers {
        // The first ones early, so that there is something to read.
        calls.push(PackageCall { at: JOINED * 1_000 + 1_000, by: *by, what: PackageOperation::Publish });
        let later = random.random_range(2..=5);
        calls.extend((0..later).map(|_| PackageCall { at: at(random), by: *by, what: PackageOperation::Publish }));
    }
    for _ in 0..if registries.is_empty() { 0 } else { PACKAGE_READS } {
        let (Some(by), Some(of)) = (registries.choose(random), publishers.choose(random)) else { continue };
        calls.push(PackageCall { at: at(random), by: *by, what: PackageOperation::Fetch { of: *of } });
    }
    calls.sort_by_key(|call| call.at);
    calls
}

fn registries(nodes: &[Node]) -> Vec<usize> {
    of_kind(nodes, Kind::Registry)
}

/// Returns the numbers of the nodes of a kind.
fn of_kind(nodes: &[Node], kind: Kind) -> Vec<usize> {
    nodes.iter().enumerate().filter(|(_, node)| node.kind == kind).map(|(at, _)| at).collect()
}

/// Returns the numbers of Kadence's nodes, and those of the others.
fn own_and_foreign(nodes: &[Node]) -> (Vec<usize>, Vec<usize>) {
    let (own, foreign): (Vec<_>, Vec<_>) = nodes.iter().enumerate().partition(|(_, node)| node.kind.is_kadence());
    let numbers = |nodes: Vec<(usize, &Node)>| nodes.into_iter().map(|(at, _)| at).collect();
    (numbers(own), numbers(foreign))
}

fn node(random: &mut ChaCha8Rng, at: usize, is_strange: bool) -> Node {
    const STRANGE: [Kind; 9] = [
        Kind::Honest,
        Kind::Silent,
        Kind::WrongValue,
        Kind::WrongKey,
        Kind::InventedPeers,
        Kind::InventedProviders,
        Kind::Dropping,
        Kind::LaterExpiry,
        Kind::RefusingBySilence,
    ];
    let kind = match () {
        () if is_strange => STRANGE.choose(random).copied().unwrap_or(Kind::Honest),
        () if at >= FIRST && random.random_bool(0.08) => Kind::Client,
        () if at >= FIRST && random.random_bool(0.08) => Kind::Hidden,
        () => Kind::Server,
    };
    Node {
        kind,
        bandwidth: random.random_bool(0.15).then(|| 1_000_000 * random.random_range(1..=20)),
        loss: if random.random_bool(0.1) { 0.02 } else { 0.0 },
        delay_ms: if random.random_bool(0.1) { random.random_range(20..=400) } else { 0 },
        seconds_ahead: if random.random_bool(0.1) { random.random_range(-86_400..=86_400) } else { 0 },
        known: random.random_range(1..=3),
        friend: None,
    }
}

fn faults(random: &mut ChaCha8Rng, nodes: &[Node]) -> Vec<Fault> {
    let mut kinds = BTreeSet::new();
    let wanted = random.random_range(3..=6);
    let possible: Vec<_> = What::ALL.into_iter().filter(|what| what.is_possible(nodes)).collect();
    while kinds.len() < wanted {
        kinds.extend(possible.choose(random).copied());
    }
    let mut faults: Vec<Fault> = Vec::new();
    for what in kinds {
        for _ in 0..random.random_range(1..=3) {
            // The end of one fault would end another one of the same node.
            let drawn = (0..5).find_map(|_| {
                fault(random, nodes, what).filter(|fault| faults.iter().all(|other| !fault.overlaps(other)))
            });
            faults.extend(drawn);
        }
    }
    faults.sort_by_key(|fault| fault.at);
    faults
}

fn fault(random: &mut ChaCha8Rng, nodes: &[Node], what: What) -> Option<Fault> {
    let at = JOINED + random.random_range(0..LIVELY - 130);
    // Four hundred dials take eight seconds.
    let until = at + random.random_range(if what == What::HalfOpen { 10..=120 } else { 3..=120 });
    let one = |random: &mut ChaCha8Rng| random.random_range(0..nodes.len());
    let (own, foreign) = own_and_foreign(nodes);
    let chosen = match what {
        What::Partition => {
            let share = random.random_range(0.05..0.5);
            (0..nodes.len()).filter(|_| random.random_bool(share)).collect()
        }
        What::Restart => match random.random_range(0..10) {
            // Nobody knows more than the other.
            0..4 => {
                let friends = |at: &usize| Some((*at, nodes.get(*at)?.friend?));
                let pairs: Vec<_> = own.iter().filter_map(friends).collect();
                pairs.choose(random).map_or_else(Vec::new, |(at, friend)| vec![*friend, *at])
            }
            // Those that others join through are started anew together.
            4..6 => (0..random.random_range(2..=FIRST))
                .chain(own.choose(random).copied().filter(|at| *at >= FIRST))
                .collect(),
            _ => vec![*own.choose(random)?],
        },
        // Most is lost where files are.
        What::PowerFailure => {
            let of_registry = registries(nodes).choose(random).copied().filter(|_| random.random_bool(0.5));
            vec![of_registry.or_else(|| own.choose(random).copied())?]
        }
        What::FullDisk => vec![*registries(nodes).choose(random)?],
        // The files of a registry belong to its key.
        What::Replace => {
            let others: Vec<_> = own.iter().filter(|at| !registries(nodes).contains(at)).collect();
            vec![**others.choose(random)?]
        }
        What::Island => {
            let mut others = of_kind(nodes, Kind::Server);
            others.retain(|at| *at >= FIRST);
            others.choose_multiple(random, 2).copied().collect()
        }
        What::Churn => own.iter().copied().filter(|_| random.random_bool(0.25)).collect(),
        What::HalfOpen => vec![one(random), *own.choose(random)?],
        What::Flood => vec![*foreign.choose(random)?, *own.choose(random)?],
        _ => {
            // One node, or some at once.
            let number = if random.random_bool(0.3) { random.random_range(2..=nodes.len() / 4) } else { 1 };
            let mut chosen: BTreeSet<_> = (0..number).map(|_| one(random)).collect();
            if what == What::Clock {
                chosen.retain(|at| !registries(nodes).contains(at));
            }
            chosen.into_iter().collect()
        }
    };
    (!chosen.is_empty()).then_some(Fault { at, until, nodes: chosen, what })
}

/// Returns reads by those who have just started, and by others who ask them, before they know the network.
fn calls_of_newcomers(random: &mut ChaCha8Rng, fault: &Fault, own: &[usize]) -> Vec<Call> {
    // Milliseconds.
    let when = match fault.what {
        What::Restart | What::PowerFailure | What::Replace => fault.until * 1_000 + 10..fault.until * 1_000 + 2_000,
        What::Island => fault.at * 1_000 + 10..fault.until * 1_000,
        _ => return Vec::new(),
    };
    if random.random_bool(0.3) {
        return Vec::new();
    }
    let mut calls = Vec::new();
    for by in fault.nodes.iter().chain(own.choose(random)) {
        for _ in 0..random.random_range(0..=2) {
            let at = random.random_range(when.clone());
            let operation = if random.random_bool(0.8) { Operation::Get } else { Operation::Providers };
            let (key, timeout_s) = (popular(random), random.random_range(3..=40));
            calls.push(Call { at, by: *by, key, operation, timeout_s, dropped_after: None });
        }
    }
    calls
}

/// Returns a key: few keys are asked for often, and some have never been put.
fn popular(random: &mut ChaCha8Rng) -> usize {
    random.random_range(0..KEYS).min(random.random_range(0..KEYS))
}

fn call(random: &mut ChaCha8Rng, own: &[usize]) -> Option<Call> {
    let key = popular(random);
    let operation = match random.random_range(0..100) {
        0..30 => Operation::Get,
        30..36 => Operation::GetQuorum,
        36..42 => Operation::GetBest,
        42..62 => Operation::Put(match random.random_range(0..10) {
            0 => 60_000,
            1..4 => 5_000,
            _ => 100,
        }),
        62..75 => Operation::Provide,
        75..90 => Operation::Providers,
        _ => Operation::Closest,
    };
    let key = if matches!(operation, Operation::Put(_) | Operation::Provide) { key % (KEYS - 6) } else { key };
    let at = JOINED * 1_000 + random.random_range(0..LIVELY * 1_000);
    let dropped_after = random.random_bool(0.1).then(|| random.random_range(0..2_000));
    Some(Call { at, by: *own.choose(random)?, key, operation, timeout_s: random.random_range(3..=40), dropped_after })
}

impl Fault {
    /// Seconds after the end for which the fault may still show: what was held up arrives, half-open connections end.
    fn grace(&self) -> u64 {
        match self.what {
            What::HalfOpen => 11,
            // What was held up is lost, and a new process knows nothing of it.
            What::Restart | What::PowerFailure | What::Replace | What::Island => 0,
            _ => 2,
        }
    }

    fn overlaps(&self, other: &Self) -> bool {
        let shares_node = self.nodes.iter().any(|node| other.nodes.contains(node));
        shares_node && self.at <= other.until + other.grace() + 1 && other.at <= self.until + self.grace() + 1
    }

    /// Returns whether the fault may show between two times.
    fn shows(&self, from: Duration, to: Duration) -> bool {
        if self.what == What::Island {
            return self.kills(from, to);
        }
        Duration::from_secs(self.at) <= to && Duration::from_secs(self.until + self.grace()) >= from
    }

    /// Returns whether the fault lasts at some time between two.
    fn is_on(&self, from: Duration, to: Duration) -> bool {
        Duration::from_secs(self.at) <= to && Duration::from_secs(self.until) >= from
    }

    /// Returns whether processes are halted or killed at some time between two.
    fn kills(&self, from: Duration, to: Duration) -> bool {
        match self.what {
            What::Freeze | What::Restart | What::PowerFailure | What::Replace | What::Churn => self.is_on(from, to),
            // They go on in between.
            What::Island => [self.at, self.until].iter().any(|at| (from..=to).contains(&Duration::from_secs(*at))),
            _ => false,
        }
    }
}

impl Plan {
    /// Returns whether a fault of a node may show between two times.
    pub(crate) fn is_disturbed(&self, node: usize, from: Duration, to: Duration) -> bool {
        self.faults
            .iter()
            .any(|fault| fault.nodes.contains(&node) && !fault.what.is_harmless() && fault.shows(from, to))
    }

    /// Returns whether a node is on an island at some time between two: nobody else can know what it has.
    pub(crate) fn is_on_island(&self, node: usize, from: Duration, to: Duration) -> bool {
        self.faults
            .iter()
            .any(|fault| fault.what == What::Island && fault.nodes.contains(&node) && fault.is_on(from, to))
    }

    /// Returns whether a partition separates two nodes at some time between two.
    pub(crate) fn is_cut(&self, a: usize, b: usize, from: Duration, to: Duration) -> bool {
        self.faults.iter().any(|fault| {
            // A partition names one of its sides.
            fault.what == What::Partition
                && fault.nodes.contains(&a) != fault.nodes.contains(&b)
                && fault.shows(from, to)
        })
    }

    /// Returns the server that a node joins through, unless that one has another key later.
    pub(crate) fn friend(&self, of: usize) -> Option<usize> {
        let friend = self.nodes.get(of)?.friend?;
        let changes_key = |fault: &&Fault| matches!(fault.what, What::Replace | What::Island);
        let is_replaced = self.faults.iter().filter(changes_key).any(|fault| fault.nodes.contains(&friend));
        (!is_replaced).then_some(friend)
    }

    /// Returns the plan with honest nodes in place of those of a kind.
    pub(crate) fn without(&self, kind: Kind) -> Self {
        let mut plan = self.clone();
        for node in &mut plan.nodes {
            if node.kind == kind {
                node.kind = Kind::Honest;
            }
        }
        plan
    }

    /// Returns whether the processes of a node are halted or killed at some time between two.
    pub(crate) fn is_halted(&self, node: usize, from: Duration, to: Duration) -> bool {
        self.faults.iter().any(|fault| fault.nodes.contains(&node) && fault.kills(from, to))
    }
}
