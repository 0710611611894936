//! Harness: a tracker with a virtual clock, whose actions are carried out and recorded.
//!
//! The contract of [`QueryTracker`] is checked at every action, and so by every test: one outcome for each accepted
//! request and nothing after it, no more slots than allowed, `Finish` once and only for ids of the tracker.

mod make;
mod validator;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use kadence_core::{
    Action, Command, CommandError, GetProvidersError, GetRecordError, Item, Network, Operation, Outcome, Policy,
    Priority, Progress, ProvidersAnswer, Query, QueryEvent, QueryStartError, QueryTracker, Request, RequestId,
    RequestOptions, Started, StepId, TrackerConfig,
};
use libp2p::{
    PeerId,
    kad::{QueryResult, Record, RecordKey, store},
};
use proptest::test_runner::RngSeed;

pub(crate) use self::{make::*, validator::*};

/// The only reading of a clock. Every other time is computed from it.
#[expect(clippy::disallowed_methods, reason = "an `Instant` cannot be made otherwise; no test looks at its value")]
fn epoch() -> Instant {
    Instant::now()
}

pub(crate) const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// An unanswered [`Action::Start`].
#[derive(Debug, Clone)]
pub(crate) struct Start {
    pub(crate) step: StepId,
    pub(crate) request: RequestId,
    pub(crate) query: Query,
}

pub(crate) struct Harness {
    pub(crate) tracker: QueryTracker<u32>,
    epoch: Instant,
    /// Virtual time since the epoch.
    pub(crate) now: Duration,
    next_id: u32,
    accepted: BTreeSet<RequestId>,
    streaming: BTreeSet<RequestId>,
    outcomes: BTreeMap<RequestId, Outcome>,
    items: BTreeMap<RequestId, Vec<Item>>,
    pub(crate) starts: VecDeque<Start>,
    /// Latest query started for each request.
    ids: BTreeMap<RequestId, u32>,
    started: BTreeSet<u32>,
    /// Queries with `Finish` in force.
    orders: BTreeSet<u32>,
    pub(crate) finishes: Vec<u32>,
    pub(crate) forgotten: Vec<u32>,
    /// Queries with a `FinishPhase`.
    pub(crate) finished_early: Vec<u32>,
    /// Unanswered probes.
    pub(crate) probes: VecDeque<u32>,
    /// Unanswered `StoreLocal` actions.
    pub(crate) to_store: Vec<(RequestId, Arc<Record>)>,
    /// Peers of the routing table, with which `LocalPeers` is answered at once. `None`: the test answers.
    pub(crate) knows: Option<Vec<PeerId>>,
    /// Unanswered `LocalPeers` actions.
    pub(crate) to_choose: Vec<RequestId>,
    pub(crate) stopped: Vec<RecordKey>,
    /// Every action in order, with its time.
    pub(crate) trace: Vec<String>,
}

impl Default for Harness {
    fn default() -> Self {
        Self::new(TrackerConfig::default())
    }
}

impl Harness {
    pub(crate) fn new(config: TrackerConfig) -> Self {
        Self::with_epoch(config, Duration::ZERO)
    }

    /// A tracker with one slot.
    pub(crate) fn one_slot() -> Self {
        Self::slots(1)
    }

    pub(crate) fn slots(max_running: usize) -> Self {
        Self::new(TrackerConfig::default().max_running(max_running))
    }

    /// A tracker whose epoch is `shift` later than that of others. Stall detection and read repair are off: see
    /// [`watching`](Self::watching).
    pub(crate) fn with_epoch(config: TrackerConfig, shift: Duration) -> Self {
        Self::made(config.stall(None).max_read_repairs(0), shift)
    }

    /// A tracker with stall detection and read repair as configured.
    pub(crate) fn watching(config: TrackerConfig) -> Self {
        Self::made(config, Duration::ZERO)
    }

    fn made(config: TrackerConfig, shift: Duration) -> Self {
        Self {
            tracker: QueryTracker::new(local(), config),
            epoch: epoch() + shift,
            now: Duration::ZERO,
            next_id: 0,
            accepted: BTreeSet::new(),
            streaming: BTreeSet::new(),
            outcomes: BTreeMap::new(),
            items: BTreeMap::new(),
            starts: VecDeque::new(),
            ids: BTreeMap::new(),
            started: BTreeSet::new(),
            orders: BTreeSet::new(),
            finishes: Vec::new(),
            forgotten: Vec::new(),
            finished_early: Vec::new(),
            probes: VecDeque::new(),
            to_store: Vec::new(),
            to_choose: Vec::new(),
            knows: Some(Vec::new()),
            stopped: Vec::new(),
            trace: Vec::new(),
        }
    }

    // ---- what goes in

    pub(crate) fn ask(&mut self, id: u64, operation: Operation, options: RequestOptions) -> Result<(), CommandError> {
        let id = RequestId(id);
        let request = Request { id, operation, options };
        let at = self.instant(self.now);
        let result = self.tracker.handle_command(Command::Request(request), at);
        if result.is_ok() {
            assert!(self.accepted.insert(id), "{id} was accepted twice");
            if options.streaming {
                self.streaming.insert(id);
            }
        }
        self.drain();
        result
    }

    /// Makes a request with default options, which is accepted.
    pub(crate) fn request(&mut self, id: u64, operation: Operation) {
        self.ask(id, operation, RequestOptions::default()).expect("the request is valid");
    }

    /// Makes a request with these options, which is accepted.
    pub(crate) fn request_with(&mut self, id: u64, operation: Operation, options: RequestOptions) {
        self.ask(id, operation, options).expect("the request is valid");
    }

    /// Makes a request of a class, which is accepted.
    pub(crate) fn request_of(&mut self, id: u64, operation: Operation, priority: Priority) {
        self.request_with(id, operation, RequestOptions::default().priority(priority));
    }

    /// Makes a request with a timeout, which is accepted.
    pub(crate) fn request_within(&mut self, id: u64, operation: Operation, timeout: Duration) {
        let options = RequestOptions::default().timeout(timeout);
        self.ask(id, operation, options).expect("the request is valid");
    }

    /// Makes a streaming request, which is accepted.
    pub(crate) fn stream(&mut self, id: u64, operation: Operation) {
        let options = RequestOptions::default().streaming(true);
        self.ask(id, operation, options).expect("the request is valid");
    }

    /// Makes a request that joins no query that has started, which is accepted.
    pub(crate) fn fresh(&mut self, id: u64, operation: Operation) {
        self.request_with(id, operation, RequestOptions::default().fresh(true));
    }

    /// Makes a get of all records under `key`.
    pub(crate) fn get(&mut self, id: u64, key: &str) {
        self.request(id, get_record(key, Policy::All));
    }

    /// Makes a get of all records under a key that no other request uses.
    pub(crate) fn get_own(&mut self, id: u64) {
        self.get(id, &own_key(id));
    }

    pub(crate) fn cancel(&mut self, id: u64) {
        self.command(Command::Cancel { id: RequestId(id) });
    }

    pub(crate) fn shut_down(&mut self, drain: bool) {
        self.command(Command::Shutdown { drain });
    }

    /// The application has changed the local store under `key`.
    pub(crate) fn written(&mut self, key: RecordKey) {
        self.command(Command::Written { key });
    }

    fn command(&mut self, command: Command) {
        let at = self.instant(self.now);
        self.tracker.handle_command(command, at).expect("only requests fail");
        self.drain();
    }

    pub(crate) fn started(&mut self, step: StepId, result: Result<u32, QueryStartError>, had_provider: bool) {
        let at = self.instant(self.now);
        if let Ok(id) = result {
            self.started.insert(id);
            let queries = self.tracker.snapshot(at).queries;
            if queries.iter().all(|query| query.id != Some(id)) {
                // The id is reused: orders for its earlier query are over.
                self.orders.remove(&id);
            }
        }
        self.tracker.handle_started(step, result.map(|id| Started { id, had_provider }), at);
        self.drain();
    }

    /// Answers the oldest `Start` with the next id, and returns the id.
    pub(crate) fn start_with(&mut self, had_provider: bool) -> u32 {
        let start = self.starts.pop_front().expect("a start waits for its answer");
        let id = self.next_id;
        self.next_id += 1;
        self.ids.insert(start.request, id);
        self.started(start.step, Ok(id), had_provider);
        id
    }

    pub(crate) fn start(&mut self) -> u32 {
        self.start_with(false)
    }

    /// Answers the oldest `Start` with an error.
    pub(crate) fn refuse(&mut self, error: QueryStartError) {
        let start = self.starts.pop_front().expect("a start waits for its answer");
        self.started(start.step, Err(error), false);
    }

    /// Answers every `Start`, including those that follow, with increasing ids.
    pub(crate) fn start_all(&mut self) {
        while !self.starts.is_empty() {
            self.start();
        }
    }

    /// Passes an event of the query `id`, with three of four requests answered.
    pub(crate) fn ev(&mut self, id: u32, result: QueryResult, last: bool) {
        self.ev_with(id, result, some_progress(), last);
    }

    pub(crate) fn ev_with(&mut self, id: u32, result: QueryResult, progress: Progress, last: bool) {
        let at = self.instant(self.now);
        self.tracker.handle_event(QueryEvent { id, result, progress, last }, at);
        self.drain();
    }

    pub(crate) fn stored(&mut self, request: u64, result: Result<(), store::Error>) {
        let at = self.instant(self.now);
        self.to_store.retain(|(id, _)| id.0 != request);
        self.tracker.handle_stored(RequestId(request), result, at);
        self.drain();
    }

    /// Answers a probe.
    pub(crate) fn probe(&mut self, id: u32, progress: Option<Progress>) {
        let at = self.instant(self.now);
        self.probes.retain(|asked| *asked != id);
        self.tracker.handle_probe(id, progress, at);
        self.drain();
    }

    pub(crate) fn query_count(&mut self, live: usize) {
        let at = self.instant(self.now);
        self.tracker.handle_query_count(live, at);
        self.drain();
    }

    /// A peer that the query waits for was given up, or the application has finished the query.
    pub(crate) fn cut_short(&mut self, id: u32) {
        let at = self.instant(self.now);
        self.tracker.handle_cut_short(id, at);
        self.drain();
    }

    /// Tells the tracker what is known of the network.
    pub(crate) fn network(&mut self, network: Network) {
        let at = self.instant(self.now);
        self.tracker.handle_network(network, at);
        self.drain();
    }

    /// Moves the clock to `now` and calls `handle_timeout`.
    pub(crate) fn tick(&mut self, now: Duration) {
        self.now = now;
        let at = self.instant(now);
        self.tracker.handle_timeout(at);
        self.drain();
    }

    /// Answers a `LocalPeers`.
    pub(crate) fn choose(&mut self, request: u64, peers: Vec<PeerId>) {
        let at = self.instant(self.now);
        self.to_choose.retain(|id| id.0 != request);
        self.tracker.handle_local_peers(RequestId(request), peers, at);
        self.drain();
    }

    /// Lets a put that looks for further peers find none.
    pub(crate) fn nobody_further(&mut self) {
        let further = self.start();
        self.ev_with(further, closest_found([]), nobody(), true);
    }

    // ---- what came out

    fn drain(&mut self) {
        while let Some(action) = self.tracker.poll_action() {
            self.carry_out(action);
            if let (Some(known), false) = (&self.knows, self.to_choose.is_empty()) {
                let (known, at) = (known.clone(), self.instant(self.now));
                self.to_choose.drain(..).for_each(|id| self.tracker.handle_local_peers(id, known.clone(), at));
            }
        }
        assert!(self.tracker.live_queries() <= self.tracker.config().max_running, "more queries than slots");
        assert_eq!(self.tracker.live_requests(), self.accepted.len() - self.outcomes.len(), "a request was lost");
    }

    fn carry_out(&mut self, action: Action<u32>) {
        if let Action::Start { request, .. }
        | Action::StoreLocal { request, .. }
        | Action::Item { request, .. }
        | Action::Outcome { request, .. } = &action
        {
            let ours = request.is_reserved() && matches!(action, Action::Start { .. });
            assert!(
                ours || self.accepted.contains(request),
                "an action for {request}, which was not accepted: {action:?}"
            );
            assert!(!self.outcomes.contains_key(request), "an action after the outcome of {request}: {action:?}");
        }
        self.trace.push(format!("{:?} {action:?}", self.now));
        match action {
            Action::Start { step, request, query } => self.starts.push_back(Start { step, request, query }),
            Action::Finish(id) => {
                assert!(self.started.contains(&id), "finish for {id}, which was not started");
                assert!(self.orders.insert(id), "the standing order for {id} was given twice");
                self.finishes.push(id);
            }
            Action::FinishPhase(id) => {
                assert!(self.started.contains(&id), "finish for {id}, which was not started");
                self.finished_early.push(id);
            }
            Action::Probe(id) => {
                assert!(!self.probes.contains(&id), "{id} is asked for its progress again before it was told");
                self.probes.push_back(id);
            }
            Action::Forget(id) => {
                assert!(self.orders.contains(&id), "{id} is forgotten without an order to finish it");
                self.forgotten.push(id);
            }
            Action::LocalPeers { request, target: _ } => self.to_choose.push(request),
            Action::StoreLocal { request, record } => self.to_store.push((request, record)),
            Action::StopProviding { key } => self.stopped.push(key),
            Action::Item { request, item } => {
                assert!(self.streaming.contains(&request), "{request} did not ask for items: {item:?}");
                self.items.entry(request).or_default().push(item);
            }
            Action::Outcome { request, outcome } => {
                if self.streaming.contains(&request) {
                    self.check_items(request, &outcome);
                }
                self.outcomes.insert(request, outcome);
            }
        }
    }

    /// Checks that a stream delivers the items of the outcome, each source once.
    fn check_items(&self, request: RequestId, outcome: &Outcome) {
        let mut sources = BTreeSet::new();
        for item in self.items(request.0) {
            match item {
                Item::Record(record) => assert!(sources.insert(record.peer), "{request} got {item:?} twice"),
                Item::Provider(peer) => assert!(sources.insert(Some(*peer)), "{request} got {item:?} twice"),
                Item::BootstrapPhase(_) => {}
            }
        }
        let carried: BTreeSet<_> = match outcome {
            Outcome::GetRecord(Ok(answer)) => answer.iter().map(|found| found.peer).collect(),
            Outcome::GetRecord(Err(GetRecordError::Timeout { found, progress: _ })) => {
                found.iter().map(|found| found.peer).collect()
            }
            Outcome::GetProviders(
                Ok(ProvidersAnswer { providers: found, .. }) | Err(GetProvidersError::Timeout { found, progress: _ }),
            ) => found.iter().copied().map(Some).collect(),
            Outcome::GetRecord(Err(_)) | Outcome::GetProviders(Err(_)) => return,
            _ => BTreeSet::new(),
        };
        assert_eq!(sources, carried, "{request}: the items are not those of the outcome");
    }

    /// Returns the id of the latest query started for a request.
    pub(crate) fn id_of(&self, request: u64) -> u32 {
        self.ids[&RequestId(request)]
    }

    pub(crate) fn ended(&self, request: u64) -> bool {
        self.outcomes.contains_key(&RequestId(request))
    }

    pub(crate) fn outcome(&self, request: u64) -> &Outcome {
        self.outcomes.get(&RequestId(request)).unwrap_or_else(|| panic!("#{request} has not ended"))
    }

    pub(crate) fn items(&self, request: u64) -> &[Item] {
        self.items.get(&RequestId(request)).map_or(&[], Vec::as_slice)
    }

    /// Returns `Ok`, or the name of the error's variant such as `NotFound` or `ExpiredInQueue`.
    pub(crate) fn ending(&self, request: u64) -> String {
        let debug = format!("{:?}", self.outcome(request));
        let (_, result) = debug.split_once('(').expect("an outcome is named after its operation");
        let error = result.trim_start_matches("Err(").trim_start_matches("Request(");
        error.chars().take_while(char::is_ascii_alphanumeric).collect()
    }

    pub(crate) fn accepted(&self) -> usize {
        self.accepted.len()
    }

    pub(crate) fn outcomes(&self) -> usize {
        self.outcomes.len()
    }

    /// Returns the time at which the tracker is due, since the epoch.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        self.tracker.poll_timeout().map(|at| at.saturating_duration_since(self.epoch))
    }

    /// Converts virtual time to an `Instant`, for records that expire and for snapshots.
    pub(crate) fn instant(&self, at: Duration) -> Instant {
        self.epoch + at
    }

    /// Asserts that nothing is alive, nothing is due, and each accepted request had its outcome.
    #[track_caller]
    pub(crate) fn assert_empty(&self) {
        assert!(self.tracker.is_empty(), "the tracker is not empty: {:?}", self.tracker);
        assert_eq!((self.tracker.live_requests(), self.tracker.live_queries()), (0, 0));
        assert_eq!(self.tracker.poll_timeout(), None);
        assert!(self.tracker.snapshot(self.instant(self.now)).is_empty());
        assert_eq!(self.outcomes.len(), self.accepted.len());
    }

    /// Lets time alone end everything: starts are answered, and no event comes.
    pub(crate) fn let_time_pass(&mut self) {
        // Deadlines pass first; queries that are finished then, or started only now, lose their slots later.
        for _ in 0..3 {
            self.start_all();
            self.tick(self.now + secs(100 * 365 * 24 * 60 * 60));
        }
    }
}

/// Configuration of property tests: the same cases in each run, so that a failure is reproducible. Set
/// `PROPTEST_RNG_SEED` for others, and `PROPTEST_CASES` for more.
pub(crate) fn property() -> proptest::test_runner::Config {
    let config = proptest::test_runner::Config::default();
    let rng_seed = match config.rng_seed {
        RngSeed::Random => RngSeed::Fixed(1),
        fixed @ RngSeed::Fixed(_) => fixed,
    };
    proptest::test_runner::Config { rng_seed, failure_persistence: None, ..config }
}
