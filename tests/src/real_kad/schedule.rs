//! Random runs.

use std::{cmp::Ordering, collections::BTreeMap, num::NonZeroUsize, sync::Arc, time::Duration};

use kadence::{
    OperationKind, OutcomeKind, Priority, Quorum, Retry, Stall, TrackerConfig, ValidationError, Validator, Validators,
    tracker::{Operation, Policy, RequestId, RequestOptions},
};
use libp2p::{
    PeerId,
    kad::{Quorum as KadQuorum, Record, RecordKey, store::MemoryStoreConfig},
};

use super::{Counts, Fault, PeerKind, RealKad, Rng, Setup};

/// More steps than any run takes. A run that does not end is a failure.
const MAX_STEPS: usize = 100_000;

/// Configuration of a random run.
#[derive(Debug, Clone, Copy)]
pub struct RunConfig {
    /// Number of requests.
    pub requests: usize,
    /// Includes bootstraps, which make runs irreproducible.
    pub bootstraps: bool,
    /// kad bootstraps by itself, every millisecond of the system clock. Then only kad and the tracker start queries.
    pub bootstraps_itself: bool,
    /// Fault to inject.
    pub fault: Option<Fault>,
}

impl Default for RunConfig {
    fn default() -> Self {
        Self { requests: 30, bootstraps: true, bootstraps_itself: false, fault: None }
    }
}

/// Results of one or several runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Number of requests by operation and outcome.
    pub outcomes: BTreeMap<(OperationKind, OutcomeKind), u64>,
    /// Number of requests that were not accepted.
    pub refused: u64,
    /// Number of events of queries that are not the tracker's.
    pub forwarded: usize,
    /// Number of queries that the tracker gave up.
    pub lost: u64,
    /// Number of records under another key than the requested one.
    pub foreign_records: u64,
    /// Statistics of the network.
    pub counts: Counts,
    /// Number of lines and digest of the trace; of several runs, of the last one.
    pub digest: (usize, u64),
}

impl Report {
    /// Adds the results of another run.
    pub fn add(&mut self, other: &Self) {
        let Self { outcomes, refused, forwarded, lost, foreign_records, counts, digest } = other;
        for (kind, count) in outcomes {
            *self.outcomes.entry(*kind).or_default() += count;
        }
        self.refused += refused;
        self.forwarded += forwarded;
        self.lost += lost;
        self.foreign_records += foreign_records;
        self.counts = self.counts.sum(*counts);
        self.digest = *digest;
    }

    /// Returns the number of requests of an operation with this outcome.
    pub fn count(&self, operation: OperationKind, kind: OutcomeKind) -> u64 {
        self.outcomes.get(&(operation, kind)).copied().unwrap_or_default()
    }
}

/// Runs one schedule and checks all invariants on the way.
pub fn run_seed(seed: u64, config: RunConfig) -> Report {
    let mut run = Run::new(seed, config);
    for _ in 0..MAX_STEPS {
        if run.is_over() {
            run.kad.check_end();
            return run.report();
        }
        run.step();
    }
    panic!("the run did not end within {MAX_STEPS} steps");
}

struct Run {
    kad: RealKad,
    rng: Rng,
    config: RunConfig,
    made: usize,
    refused: u64,
    /// Number of requests after which the client shuts down, if it does so before the end.
    shutdown_after: Option<usize>,
    peers: Vec<PeerId>,
}

impl Run {
    fn new(seed: u64, config: RunConfig) -> Self {
        let mut rng = Rng::new(seed);
        let mut kad = RealKad::new(setup(rng.next_u64(), config, &mut rng));
        kad.note(|| format!("seed {seed}, {config:?}"));
        kad.others_start_queries = !config.bootstraps_itself;
        let peers = populate(&mut kad, &mut rng);
        let shutdown_after = rng.percent(10).then(|| rng.below(config.requests));
        Self { kad, rng, config, made: 0, refused: 0, shutdown_after, peers }
    }

    fn is_over(&self) -> bool {
        self.made == self.config.requests && self.kad.calls.is_empty()
    }

    fn step(&mut self) {
        let first_calls = if self.made < self.config.requests { 15 } else { 0 };
        match self.rng.weighted(&[50, first_calls, 4, 5, 2, 2, 2, 2, 3, 1, 1]) {
            0 => self.deliver(),
            1 => self.ask(),
            2 => self.cancel(),
            3 => self.kad.advance(Duration::from_micros(self.rng.next_u64() % 50_000)),
            4 => {
                self.kad.advance_to_timeout();
            }
            5 => {
                self.kad.network.close_connection(&mut self.kad.kad);
            }
            6 => self.accept_connection(),
            7 => {
                let key = self.key();
                self.kad.network.announce(&mut self.kad.kad, &key);
            }
            8 if self.kad.others_start_queries => self.start_foreign_query(),
            8 => {}
            9 => self.finish_any_query(),
            _ => self.undo_writes(),
        }
        match self.rng.below(10) {
            0 => {}
            1 | 2 => {
                self.kad.run_loop(1 + self.rng.below(5));
            }
            _ => {
                self.kad.run_until_idle();
            }
        }
    }

    /// Ends some dials and requests. If there are none, advances the clock.
    fn deliver(&mut self) {
        for _ in 0..=self.rng.below(3) {
            let ended = self.rng.percent(40) && self.kad.finish_dial();
            if !(ended || self.kad.finish_request() || self.kad.finish_dial()) && self.made == self.config.requests {
                self.kad.run_until_idle();
                self.kad.advance_to_timeout();
            }
        }
    }

    fn ask(&mut self) {
        // Sometimes, several requests at once.
        let burst = if self.rng.percent(10) { 8 } else { 1 };
        for _ in 0..burst.min(self.config.requests - self.made) {
            if self.shutdown_after == Some(self.made) {
                self.kad.shut_down(self.rng.percent(50));
            }
            self.made += 1;
            let (operation, options) = (self.operation(), self.options());
            self.refused += u64::from(self.kad.request(operation, options).is_err());
        }
    }

    fn operation(&mut self) -> Operation {
        let kinds = if self.config.bootstraps { 7 } else { 6 };
        let key = self.key();
        match self.rng.below(kinds) {
            0 => Operation::GetRecord { policy: self.policy(&key), key },
            1 => Operation::PutRecord {
                record: self.record(key),
                quorum: self.quorum(),
                options: kadence::PutOptions::default(),
            },
            2 => {
                let some = 1 + self.rng.below(6);
                let mut peers: Vec<_> = (0..some).filter_map(|_| self.any_peer()).collect();
                peers.push(self.rng.peer());
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
            5 => Operation::GetClosestPeers { target: key, thorough: self.rng.percent(50) },
            _ => Operation::Bootstrap,
        }
    }

    fn options(&mut self) -> RequestOptions {
        let retry = self.rng.percent(20).then(|| Retry::default().base(Duration::from_millis(20)));
        RequestOptions::default()
            .priority(*self.rng.pick(&Priority::ALL))
            .retry(retry)
            .timeout(Duration::from_millis(*self.rng.pick(&[1, 50, 500, 2_000, 10_000])))
            .streaming(self.rng.percent(30))
            .fresh(false)
    }

    fn policy(&mut self, key: &RecordKey) -> Policy {
        let n = 1 + self.rng.below(3);
        match self.rng.below(5) {
            0 => Policy::First,
            1 => Policy::Limit(n),
            2 => Policy::Quorum(n.into()),
            3 if key.as_ref().starts_with(b"/v/") => Policy::Best { agree: *self.rng.pick(&[Some(n.into()), None]) },
            _ => Policy::All,
        }
    }

    fn quorum(&mut self) -> Quorum {
        let n = (1 + self.rng.below(5)).into();
        *self.rng.pick(&[Quorum::One, Quorum::Majority, Quorum::All, n])
    }

    /// There are few keys, so that requests affect each other.
    fn key(&mut self) -> RecordKey {
        RecordKey::new(self.rng.pick(&["a", "b", "c", "d", "/v/a", "/v/b"]))
    }

    fn record(&mut self, key: RecordKey) -> Arc<Record> {
        let value = *self.rng.pick(&["value", "other", "third"]);
        Arc::new(Record::new(key, value.into()))
    }

    fn any_peer(&mut self) -> Option<PeerId> {
        (!self.peers.is_empty()).then(|| *self.rng.pick(&self.peers))
    }

    fn cancel(&mut self) {
        let alive: Vec<RequestId> = self.kad.calls.keys().copied().collect();
        if !alive.is_empty() {
            self.kad.cancel(*self.rng.pick(&alive));
            if self.kad.tracker.config().finish_timeout < Duration::from_secs(1) {
                // Gives the query up before kad is polled again.
                self.kad.advance(self.kad.tracker.config().finish_timeout);
            }
        }
    }

    fn accept_connection(&mut self) {
        if let Some(peer) = self.any_peer() {
            self.kad.accept_connection(peer);
        }
    }

    /// Starts a query on behalf of the application or of kad, which the tracker does not know.
    fn start_foreign_query(&mut self) {
        let key = self.key();
        let id = match self.rng.below(if self.config.bootstraps { 5 } else { 4 }) {
            0 => self.kad.kad.get_record(key),
            1 => self.kad.kad.get_providers(key),
            2 => self.kad.kad.get_closest_peers(key.to_vec()),
            3 => {
                let peers: Vec<_> = self.any_peer().into_iter().collect();
                let record = Record::new(key, b"foreign".to_vec());
                self.kad.kad.put_record_to(record, peers.into_iter(), KadQuorum::All)
            }
            _ => match self.kad.kad.bootstrap() {
                Ok(id) => id,
                Err(libp2p::kad::NoKnownPeers()) => return,
            },
        };
        self.kad.kad_events.started(id);
        self.kad.note(|| format!("foreign query {id} starts"));
    }

    /// Finishes any query on behalf of the application, bypassing the tracker.
    fn finish_any_query(&mut self) {
        let alive: Vec<_> = self.kad.kad_events.alive.values().copied().collect();
        if !alive.is_empty() {
            let id = *self.rng.pick(&alive);
            self.kad.note(|| format!("the application finishes {id}"));
            if let Some(mut query) = self.kad.kad.query_mut(&id) {
                query.finish();
            }
        }
    }

    /// Removes a record and an announcement on behalf of the application, unless a request for the key is running.
    fn undo_writes(&mut self) {
        let key = self.key();
        let busy = self.kad.calls.values().any(|call| call.operation.key() == key.as_ref());
        if !busy {
            self.kad.note(|| format!("remove {} locally", key.as_ref().escape_ascii()));
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
            forwarded: self.kad.forwarded().len(),
            lost: stats.lost_queries,
            foreign_records: stats.foreign_records,
            counts: self.kad.counts(),
            digest: self.kad.digest(),
        }
    }
}

fn setup(seed: u64, config: RunConfig, rng: &mut Rng) -> Setup {
    let mut setup = Setup::new(seed);
    setup.fault = config.fault;
    setup.tracker = TrackerConfig::default()
        .max_running(*rng.pick(&[1, 2, 3, 5, 8, 32]))
        .max_queued(*rng.pick(&[2, 8, 4096, 4096]))
        .seed(rng.next_u64())
        .validators(Validators::default().with("v", Arc::new(ByBytes)))
        .max_items(*rng.pick(&[3, 4096, 4096]))
        // Mostly the default; sometimes so short that a finished query is given up before kad is polled again.
        .finish_timeout(if rng.percent(10) { Duration::from_millis(1) } else { Duration::from_secs(30) })
        .stall(Some(Stall::default()).filter(|_| rng.percent(50)));
    if rng.percent(10) {
        // Every lookup that has to wait for a peer times out immediately.
        setup.kad.set_query_timeout(Duration::ZERO);
    }
    if rng.percent(15) {
        setup.kad.disjoint_query_paths(true);
    }
    setup.kad.set_parallelism(NonZeroUsize::new(*rng.pick(&[1, 3, 10])).expect("none of these is zero"));
    if rng.percent(20) {
        setup.store = MemoryStoreConfig { max_records: 1, max_provided_keys: 2, ..MemoryStoreConfig::default() };
    }
    if config.bootstraps_itself {
        setup.kad.set_periodic_bootstrap_interval(Some(Duration::from_millis(1)));
    }
    setup
}

fn populate(kad: &mut RealKad, rng: &mut Rng) -> Vec<PeerId> {
    let mut peers = Vec::new();
    // Weights in the order of `PeerKind::ALL`: a mixed network, a good one, a bad one and a silent one.
    let mixed = [20, 5, 15, 10, 10, 10, 10, 10, 10];
    let good = [60, 5, 30, 1, 1, 1, 0, 2, 0];
    let bad = [5, 5, 5, 30, 30, 5, 30, 30, 5];
    let silent = [0, 0, 0, 0, 0, 9, 0, 0, 1];
    let mix = rng.weighted_value(&[(mixed, 50), (good, 35), (bad, 10), (silent, 5)]);
    for _ in 0..rng.weighted_value(&[(0, 5), (1, 10), (4, 15), (10, 30), (20, 30), (35, 10)]) {
        peers.extend(kad.peers(PeerKind::ALL[rng.weighted(&mix)], 1));
    }
    let config = *rng.pick(&[10, 50, 100]);
    kad.network.peers.connect_randomly(config, rng);
    let known = rng.weighted_value(&[(0, 5), (20, 15), (60, 40), (100, 40)]);
    for peer in &peers {
        if rng.percent(known) {
            kad.add_contact(*peer);
        }
        if rng.percent(10) {
            kad.accept_connection(*peer);
        }
    }
    if rng.percent(30) {
        kad.store_locally(Record::new(RecordKey::new(b"a"), b"local".to_vec()));
    }
    peers
}

/// Validator: values that start with `l` are invalid; of two, the larger one is better.
struct ByBytes;

impl Validator for ByBytes {
    fn validate(&self, _: &RecordKey, value: &[u8]) -> Result<(), ValidationError> {
        if value.starts_with(b"l") { Err(ValidationError("starts with an l".to_owned())) } else { Ok(()) }
    }

    fn compare(&self, _: &RecordKey, left: &[u8], right: &[u8]) -> Ordering {
        left.cmp(right)
    }
}
