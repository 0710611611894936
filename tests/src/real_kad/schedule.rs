//! Runs in which chance decides everything.

use std::{cmp::Ordering, collections::BTreeMap, num::NonZeroUsize, sync::Arc, time::Duration};

use kadence::{
    OperationKind, OutcomeKind, Overload, Priority, Quorum, Retry, Stall, TrackerConfig, ValidationError, Validator,
    Validators,
    tracker::{Operation, Policy, RequestId, RequestOptions},
};
use libp2p::{
    PeerId,
    kad::{Quorum as KadQuorum, Record, RecordKey, store::MemoryStoreConfig},
};

use super::{Conduct, Counts, Fault, Lot, RealKad, Setup};

/// More steps than any run takes: a run that does not end is a failure.
const STEPS_AT_MOST: usize = 100_000;

/// What a run may contain.
#[derive(Debug, Clone, Copy)]
pub struct Chances {
    /// How many requests there are.
    pub requests: usize,
    /// Whether there are bootstraps, which no run repeats exactly.
    pub bootstraps: bool,
    /// Whether kad bootstraps by itself, every millisecond of the real clock. Then nobody else starts queries that are
    /// not ours.
    pub bootstraps_itself: bool,
    /// What is done wrong on purpose.
    pub fault: Option<Fault>,
}

impl Default for Chances {
    fn default() -> Self {
        Self { requests: 30, bootstraps: true, bootstraps_itself: false, fault: None }
    }
}

/// What has happened in one run or many.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// How many requests ended how.
    pub outcomes: BTreeMap<(OperationKind, OutcomeKind), u64>,
    /// How many requests were refused.
    pub refused: u64,
    /// Events of queries that were not ours.
    pub handed_on: usize,
    /// Queries that the tracker gave up.
    pub lost: u64,
    /// Records under another key than the one asked for.
    pub foreign_records: u64,
    /// What happened in the network.
    pub counts: Counts,
    /// The trace's length and digest; of many runs, the last one's.
    pub digest: (usize, u64),
}

impl Report {
    /// Adds another run.
    pub fn add(&mut self, other: &Self) {
        let Self { outcomes, refused, handed_on, lost, foreign_records, counts, digest } = other;
        for (kind, count) in outcomes {
            *self.outcomes.entry(*kind).or_default() += count;
        }
        self.refused += refused;
        self.handed_on += handed_on;
        self.lost += lost;
        self.foreign_records += foreign_records;
        self.counts = self.counts.sum(*counts);
        self.digest = *digest;
    }

    /// How many requests of an operation ended like this.
    pub fn count(&self, operation: OperationKind, kind: OutcomeKind) -> u64 {
        self.outcomes.get(&(operation, kind)).copied().unwrap_or_default()
    }
}

/// One run. Everything that has to be so is checked on the way.
pub fn run_seed(seed: u64, chances: Chances) -> Report {
    let mut run = Run::new(seed, chances);
    for _ in 0..STEPS_AT_MOST {
        if run.is_over() {
            run.kad.check_end();
            return run.report();
        }
        run.step();
    }
    panic!("the run does not end");
}

struct Run {
    kad: RealKad,
    lot: Lot,
    chances: Chances,
    asked: usize,
    refused: u64,
    /// After how many requests the client shuts down, if it does before the end.
    shuts_down: Option<usize>,
    peers: Vec<PeerId>,
}

impl Run {
    fn new(seed: u64, chances: Chances) -> Self {
        let mut lot = Lot::new(seed);
        let mut kad = RealKad::new(setup(lot.draw(), chances, &mut lot));
        kad.note(|| format!("seed {seed}, {chances:?}"));
        kad.has_strangers = !chances.bootstraps_itself;
        let peers = populate(&mut kad, &mut lot);
        let shuts_down = lot.percent(10).then(|| lot.below(chances.requests));
        Self { kad, lot, chances, asked: 0, refused: 0, shuts_down, peers }
    }

    fn is_over(&self) -> bool {
        self.asked == self.chances.requests && self.kad.calls.is_empty()
    }

    fn step(&mut self) {
        let first_calls = if self.asked < self.chances.requests { 15 } else { 0 };
        match self.lot.weighted(&[50, first_calls, 4, 5, 2, 2, 2, 2, 3, 1, 1]) {
            0 => self.something_ends(),
            1 => self.ask(),
            2 => self.cancel(),
            3 => self.kad.advance(Duration::from_micros(self.lot.draw() % 50_000)),
            4 => {
                self.kad.advance_to_timeout();
            }
            5 => {
                self.kad.network.end_a_connection(&mut self.kad.kad);
            }
            6 => self.accept(),
            7 => {
                let key = self.key();
                self.kad.network.announce(&mut self.kad.kad, &key);
            }
            8 if self.kad.has_strangers => self.start_stranger(),
            8 => {}
            9 => self.finish_any(),
            _ => self.take_back(),
        }
        match self.lot.below(10) {
            0 => {}
            1 | 2 => {
                self.kad.turn(1 + self.lot.below(5));
            }
            _ => {
                self.kad.settle();
            }
        }
    }

    /// Dials and requests end; if there are none, only the clock can help.
    fn something_ends(&mut self) {
        for _ in 0..=self.lot.below(3) {
            let ended = self.lot.percent(40) && self.kad.end_a_dial();
            if !(ended || self.kad.end_a_request() || self.kad.end_a_dial()) && self.asked == self.chances.requests {
                self.kad.settle();
                self.kad.advance_to_timeout();
            }
        }
    }

    fn ask(&mut self) {
        // Now and then many at once.
        let burst = if self.lot.percent(10) { 8 } else { 1 };
        for _ in 0..burst.min(self.chances.requests - self.asked) {
            if self.shuts_down == Some(self.asked) {
                self.kad.shut_down(self.lot.percent(50));
            }
            self.asked += 1;
            let (operation, options) = (self.operation(), self.options());
            self.refused += u64::from(self.kad.request(operation, options).is_err());
        }
    }

    fn operation(&mut self) -> Operation {
        let kinds = if self.chances.bootstraps { 7 } else { 6 };
        let key = self.key();
        match self.lot.below(kinds) {
            0 => Operation::GetRecord { policy: self.policy(&key), key },
            1 => Operation::PutRecord {
                record: self.record(key),
                quorum: self.quorum(),
                options: kadence::PutOptions::default(),
            },
            2 => {
                let some = 1 + self.lot.below(6);
                let mut peers: Vec<_> = (0..some).filter_map(|_| self.any_peer()).collect();
                peers.push(self.lot.peer());
                Operation::PutRecordTo { record: self.record(key), peers, quorum: self.quorum() }
            }
            3 => {
                let policy = match self.policy(&key) {
                    policy @ (Policy::First | Policy::Limit(_) | Policy::All) => policy,
                    Policy::Quorum(_) | Policy::Best { agree: _ } => Policy::All,
                };
                Operation::GetProviders { key, policy }
            }
            4 => Operation::StartProviding { key },
            5 => Operation::GetClosestPeers { target: key, thorough: self.lot.percent(50) },
            _ => Operation::Bootstrap,
        }
    }

    fn options(&mut self) -> RequestOptions {
        let retry = self.lot.percent(20).then(|| Retry::default().base(Duration::from_millis(20)));
        RequestOptions::default()
            .priority(*self.lot.pick(&Priority::ALL))
            .retry(retry)
            .timeout(Duration::from_millis(*self.lot.pick(&[1, 50, 500, 2_000, 10_000])))
            .streaming(self.lot.percent(30))
            .fresh(false)
    }

    fn policy(&mut self, key: &RecordKey) -> Policy {
        let n = 1 + self.lot.below(3);
        match self.lot.below(5) {
            0 => Policy::First,
            1 => Policy::Limit(n),
            2 => Policy::Quorum(n.into()),
            3 if key.as_ref().starts_with(b"/v/") => Policy::Best { agree: *self.lot.pick(&[Some(n.into()), None]) },
            _ => Policy::All,
        }
    }

    fn quorum(&mut self) -> Quorum {
        let n = (1 + self.lot.below(5)).into();
        *self.lot.pick(&[Quorum::One, Quorum::Majority, Quorum::All, n])
    }

    /// Few, so that requests have something to do with each other.
    fn key(&mut self) -> RecordKey {
        RecordKey::new(self.lot.pick(&["a", "b", "c", "d", "/v/a", "/v/b"]))
    }

    fn record(&mut self, key: RecordKey) -> Arc<Record> {
        let value = *self.lot.pick(&["value", "other", "third"]);
        Arc::new(Record::new(key, value.into()))
    }

    fn any_peer(&mut self) -> Option<PeerId> {
        (!self.peers.is_empty()).then(|| *self.lot.pick(&self.peers))
    }

    fn cancel(&mut self) {
        let alive: Vec<RequestId> = self.kad.calls.keys().copied().collect();
        if !alive.is_empty() {
            self.kad.cancel(*self.lot.pick(&alive));
            if self.kad.tracker.config().finish_timeout < Duration::from_secs(1) {
                // Before kad is polled again.
                self.kad.advance(self.kad.tracker.config().finish_timeout);
            }
        }
    }

    fn accept(&mut self) {
        if let Some(peer) = self.any_peer() {
            self.kad.accept(peer);
        }
    }

    /// The application, or kad itself, starts a query that the tracker does not know of.
    fn start_stranger(&mut self) {
        let key = self.key();
        let id = match self.lot.below(if self.chances.bootstraps { 5 } else { 4 }) {
            0 => self.kad.kad.get_record(key),
            1 => self.kad.kad.get_providers(key),
            2 => self.kad.kad.get_closest_peers(key.to_vec()),
            3 => {
                let peers: Vec<_> = self.any_peer().into_iter().collect();
                let record = Record::new(key, b"stranger".to_vec());
                self.kad.kad.put_record_to(record, peers.into_iter(), KadQuorum::All)
            }
            _ => match self.kad.kad.bootstrap() {
                Ok(id) => id,
                Err(libp2p::kad::NoKnownPeers()) => return,
            },
        };
        self.kad.facts.started(id);
        self.kad.note(|| format!("a stranger starts {id}"));
    }

    /// The application finishes a query, ours or not, behind the tracker's back.
    fn finish_any(&mut self) {
        let alive: Vec<_> = self.kad.facts.alive.values().copied().collect();
        if !alive.is_empty() {
            let id = *self.lot.pick(&alive);
            self.kad.note(|| format!("a stranger finishes {id}"));
            if let Some(mut query) = self.kad.kad.query_mut(&id) {
                query.finish();
            }
        }
    }

    /// The application takes back what it has put or announced, unless that is under way.
    fn take_back(&mut self) {
        let key = self.key();
        let busy = self.kad.calls.values().any(|call| call.operation.key() == key.as_ref());
        if !busy {
            self.kad.note(|| format!("take back {}", key.as_ref().escape_ascii()));
            self.kad.kad.stop_providing(&key);
            self.kad.expected.provided.remove(key.as_ref());
            self.kad.kad.remove_record(&key);
            self.kad.expected.remove(&key);
        }
    }

    fn report(self) -> Report {
        let mut outcomes = BTreeMap::new();
        for outcome in self.kad.outcomes.values() {
            *outcomes.entry((outcome.kind(), OutcomeKind::of(outcome))).or_default() += 1;
        }
        let stats = self.kad.tracker.stats();
        assert_eq!(stats.refused, self.refused, "requests refused");
        Report {
            outcomes,
            refused: self.refused,
            handed_on: self.kad.handed_on().len(),
            lost: stats.lost_queries,
            foreign_records: stats.foreign_records,
            counts: self.kad.counts(),
            digest: self.kad.digest(),
        }
    }
}

fn setup(seed: u64, chances: Chances, lot: &mut Lot) -> Setup {
    let mut setup = Setup::new(seed);
    setup.fault = chances.fault;
    setup.tracker = TrackerConfig::default()
        .max_running(*lot.pick(&[1, 2, 3, 5, 8, 32]))
        .max_queued(*lot.pick(&[2, 8, 4096, 4096]))
        .overload(*lot.pick(&[Overload::Refuse, Overload::Refuse, Overload::Shed]))
        .seed(lot.draw())
        .validators(Validators::default().with("v", Arc::new(ByBytes)))
        .max_items(*lot.pick(&[3, 4096, 4096]))
        // Mostly the default; sometimes so short that a finished query is given up before kad is polled again.
        .finish_timeout(if lot.percent(10) { Duration::from_millis(1) } else { Duration::from_secs(30) })
        .stall(Some(Stall::default()).filter(|_| lot.percent(50)));
    if lot.percent(10) {
        // Every lookup that has to wait for a peer times out at once.
        setup.kad.set_query_timeout(Duration::ZERO);
    }
    if lot.percent(15) {
        setup.kad.disjoint_query_paths(true);
    }
    setup.kad.set_parallelism(NonZeroUsize::new(*lot.pick(&[1, 3, 10])).expect("none of these is zero"));
    if lot.percent(20) {
        setup.store = MemoryStoreConfig { max_records: 1, max_provided_keys: 2, ..MemoryStoreConfig::default() };
    }
    if chances.bootstraps_itself {
        setup.kad.set_periodic_bootstrap_interval(Some(Duration::from_millis(1)));
    }
    setup
}

fn populate(kad: &mut RealKad, lot: &mut Lot) -> Vec<PeerId> {
    let mut peers = Vec::new();
    // In the order of `Conduct::ALL`: anything, a good network, a bad one, a silent one.
    let mixed = [20, 5, 15, 10, 10, 10, 10, 10, 10];
    let good = [60, 5, 30, 1, 1, 1, 0, 2, 0];
    let bad = [5, 5, 5, 30, 30, 5, 30, 30, 5];
    let silent = [0, 0, 0, 0, 0, 9, 0, 0, 1];
    let mood = lot.weighted_value(&[(mixed, 50), (good, 35), (bad, 10), (silent, 5)]);
    for _ in 0..lot.weighted_value(&[(0, 5), (1, 10), (4, 15), (10, 30), (20, 30), (35, 10)]) {
        peers.extend(kad.peers(Conduct::ALL[lot.weighted(&mood)], 1));
    }
    let chances = *lot.pick(&[10, 50, 100]);
    kad.network.peers.introduce(chances, lot);
    let known = lot.weighted_value(&[(0, 5), (20, 15), (60, 40), (100, 40)]);
    for peer in &peers {
        if lot.percent(known) {
            kad.meet(*peer);
        }
        if lot.percent(10) {
            kad.accept(*peer);
        }
    }
    if lot.percent(30) {
        kad.hold(Record::new(RecordKey::new(b"a"), b"local".to_vec()));
    }
    peers
}

/// Records that begin with an `l` are not valid; of two, the larger one is better.
struct ByBytes;

impl Validator for ByBytes {
    fn validate(&self, _: &RecordKey, value: &[u8]) -> Result<(), ValidationError> {
        if value.starts_with(b"l") { Err(ValidationError("a lie".to_owned())) } else { Ok(()) }
    }

    fn compare(&self, _: &RecordKey, left: &[u8], right: &[u8]) -> Ordering {
        left.cmp(right)
    }
}
