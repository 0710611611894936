mod cache;
mod closest;
mod commands;
mod earlier;
mod evicted_ids;
mod policy;
mod puts;
mod queries;
mod queue_slots;
mod read_repair;
mod requests;
mod results;
mod rtt;
mod sharing;
mod stall;
mod state;
mod time;
mod waiters;
mod waiting;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
    hash::Hash,
    time::Instant,
};

use libp2p::{
    PeerId,
    kad::{self, RecordKey, store},
};
use rustc_hash::FxHashMap;

use self::{
    cache::Answers,
    evicted_ids::EvictedIds,
    queue_slots::QueueSlots,
    rtt::RttEstimator,
    state::{Announcements, LiveQuery, LiveRequest, QueryState, SharedQuery, Timer},
    time::{Clock, Time},
    waiting::WaitingLine,
};
use crate::{
    Action, Command, CommandError, LogValues, MAX_RUNNING_CEILING, Metrics, Progress, Query, QueryEvent, QueryPhase,
    QueryStartError, QueryView, RecordingError, RequestError, RequestId, RequestView, Snapshot, Started, Stats, StepId,
    TrackerConfig, log::Recorder,
};

/// State machine between callers and kad. It makes every decision. The *driver*, the program that embeds the state
/// machine, carries out the actions.
///
/// # Contract
///
/// ```text
///   handle_command ────────►┌──────────────┐
///   handle_event ──────────►│              │──── poll_action ───► carry out, answer
///   handle_started, … ─────►│ QueryTracker │
///   handle_timeout ────────►│              │──── poll_timeout ──► when to call handle_timeout
///                           └──────────────┘
/// ```
///
/// 1. Inputs. Pass commands of callers to [`handle_command`](Self::handle_command), and every
///    `OutboundQueryProgressed` of a query that the tracker [`owns`](Self::owns) to
///    [`handle_event`](Self::handle_event). Four actions have an answer:
///
///    | action | answer |
///    |---|---|
///    | [`Action::Start`] | [`handle_started`](Self::handle_started) |
///    | [`Action::StoreLocal`] | [`handle_stored`](Self::handle_stored) |
///    | [`Action::LocalPeers`] | [`handle_local_peers`](Self::handle_local_peers) |
///    | [`Action::Probe`] | [`handle_probe`](Self::handle_probe) |
///
///    Answer each of the four once. Answer [`Action::Start`] before you pass on the next event of kad: the tracker
///    ignores events with an id that it does not know yet.
/// 2. Outputs. After every input, call [`poll_action`](Self::poll_action) until it returns `None`, and carry the
///    actions out in their order. With recording, call [`poll_log`](Self::poll_log) until it returns `None` as well.
/// 3. Time. Then read [`poll_timeout`](Self::poll_timeout), and call [`handle_timeout`](Self::handle_timeout) at that
///    time. Every `now` is a reading of one monotonic clock. A reading before the latest one counts as the latest.
///    Deadlines act only within a call: a late call handles everything that is due, an early one does nothing.
///
/// In return:
///
/// - Every accepted request gets exactly one [`Action::Outcome`], at the latest in the first call at or after its
///   deadline, for any behaviour of kad. No later action names the request.
/// - At most [`TrackerConfig::max_running`] queries hold a slot at the same time. A query whose end kad has not
///   reported within [`TrackerConfig::finish_timeout`] loses its slot, even if it still runs.
/// - When all requests have ended, kad has ended their queries, and all actions have been polled, the tracker
///   [is empty](Self::is_empty).
/// - The same inputs give the same actions in the same order.
///
/// `Id` is kad's `QueryId` in a driver. It is a type parameter because only kad can create a `QueryId`, and tests have
/// to choose ids.
///
/// # Example
///
/// A caller gets a record, kad finds it, and the query is finished.
///
/// ```
/// use std::time::Instant;
/// use kadence_core::*;
/// use libp2p::{PeerId, kad};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let now = Instant::now();
/// let mut tracker = QueryTracker::<u32>::new(PeerId::random(), TrackerConfig::default());
/// let key = kad::RecordKey::new(b"greeting");
///
/// let operation = Operation::GetRecord { key: key.clone(), policy: Policy::First };
/// let request = Request { id: RequestId(1), operation, options: RequestOptions::default() };
/// tracker.handle_command(Command::Request(request), now)?;
/// let Some(Action::Start { step, query: Query::GetRecord { .. }, .. }) = tracker.poll_action() else {
///     panic!("a slot is free");
/// };
/// // Here kad's `get_record` is called; say that it returned the id 7.
/// tracker.handle_started(step, Ok(Started { id: 7, had_provider: false }), now);
///
/// let record = kad::Record::new(key, b"hello".to_vec());
/// let found = kad::GetRecordOk::FoundRecord(kad::PeerRecord { peer: Some(PeerId::random()), record });
/// let result = kad::QueryResult::GetRecord(Ok(found));
/// let progress = Progress { requests: 3, successes: 1, failures: 0 };
/// tracker.handle_event(QueryEvent { id: 7, result, progress, last: false }, now);
///
/// let Some(Action::Outcome { outcome: Outcome::GetRecord(Ok(answer)), .. }) = tracker.poll_action() else {
///     panic!("the first record satisfies `Policy::First`");
/// };
/// assert_eq!(answer.value(), b"hello");
/// assert!(matches!(tracker.poll_action(), Some(Action::Finish(7))));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct QueryTracker<Id = kad::QueryId> {
    config: TrackerConfig,
    local_peer: PeerId,
    clock: Clock,
    requests: FxHashMap<RequestId, Box<LiveRequest>>,
    /// Every query, from the first request that needs it until kad has ended it.
    queries: FxHashMap<StepId, Box<LiveQuery<Id>>>,
    /// Queries that another request may still join.
    shared_queries: BTreeMap<SharedQuery, StepId>,
    /// Steps by kad's query id.
    steps: FxHashMap<Id, StepId>,
    waiting: WaitingLine,
    /// Number of slots in use.
    running: usize,
    queue_slots: QueueSlots,
    evicted_ids: EvictedIds<Id>,
    announcements: FxHashMap<RecordKey, Announcements>,
    rtt: RttEstimator,
    /// Number of live read repairs.
    read_repairs: usize,
    last_read_repair: u64,
    /// Boxed, because few trackers have one.
    cache: Option<Box<Answers>>,
    timers: BTreeSet<(Time, Timer)>,
    actions: VecDeque<Action<Id>>,
    last_step: u64,
    shutting_down: bool,
    stats: Stats,
    metrics: Metrics,
    recorder: Option<Box<Recorder<Id>>>,
}

impl<Id: Copy + Eq + Hash + fmt::Debug> QueryTracker<Id> {
    /// Creates an empty tracker for the node `local_peer`. Values of `config` outside their bounds are clamped.
    pub fn new(local_peer: PeerId, mut config: TrackerConfig) -> Self {
        config.max_running = config.max_running.clamp(1, MAX_RUNNING_CEILING);
        config.max_items = config.max_items.max(1);
        let waiting = WaitingLine::new(config.shares);
        let queue_slots = QueueSlots::new(config.overload);
        let cache = config.cache.map(Answers::new).map(Box::new);
        Self {
            config,
            local_peer,
            clock: Clock::default(),
            requests: FxHashMap::default(),
            queries: FxHashMap::default(),
            shared_queries: BTreeMap::new(),
            steps: FxHashMap::default(),
            waiting,
            running: 0,
            queue_slots,
            evicted_ids: EvictedIds::new(),
            announcements: FxHashMap::default(),
            rtt: RttEstimator::default(),
            read_repairs: 0,
            last_read_repair: 0,
            cache,
            timers: BTreeSet::new(),
            actions: VecDeque::new(),
            last_step: 0,
            shutting_down: false,
            stats: Stats::default(),
            metrics: Metrics::new(),
            recorder: None,
        }
    }

    /// Handles a command of a caller or of the application.
    ///
    /// # Errors
    ///
    /// Returns an error if a request is invalid, if it is refused because the queue is full, or after a shutdown. Such
    /// a request has no outcome and leaves nothing but counts in [`stats`](Self::stats). Other commands never fail.
    pub fn handle_command(&mut self, command: Command, now: Instant) -> Result<(), CommandError> {
        if let Some(recorder) = &mut self.recorder {
            recorder.command(&command, now);
        }
        let now = self.clock.advance(now);
        // What is due goes first: it may free the place in the queue that this request needs.
        self.process_due(now);
        let result = match command {
            Command::Request(request) => self.accept(request, now),
            Command::Cancel { id } => {
                self.fail(id, RequestError::Cancelled, now);
                Ok(())
            }
            Command::Shutdown { drain } => {
                self.shut_down(drain, now);
                Ok(())
            }
            Command::Forget { key } => {
                self.drop_cached(&key);
                Ok(())
            }
        };
        self.process_due(now);
        result
    }

    /// Handles the answer to [`Action::Start`]: the id that kad has given the query, or the error with which kad did
    /// not start it.
    pub fn handle_started(&mut self, step: StepId, result: Result<Started<Id>, QueryStartError>, now: Instant) {
        if let Some(recorder) = &mut self.recorder {
            recorder.started(step, &result, now);
        }
        let now = self.clock.advance(now);
        self.started(step, result, now);
        self.process_due(now);
    }

    /// Handles the answer to [`Action::StoreLocal`]: the result of the local store.
    pub fn handle_stored(&mut self, request: RequestId, result: Result<(), store::Error>, now: Instant) {
        if let Some(recorder) = &mut self.recorder {
            recorder.stored(request, &result, now);
        }
        let now = self.clock.advance(now);
        self.stored(request, result, now);
        self.process_due(now);
    }

    /// Handles the answer to [`Action::LocalPeers`]: peers of the routing table, the closest to the target first.
    pub fn handle_local_peers(&mut self, request: RequestId, peers: Vec<PeerId>, now: Instant) {
        if let Some(recorder) = &mut self.recorder {
            recorder.local_peers(request, &peers, now);
        }
        let now = self.clock.advance(now);
        self.local_peers(request, peers, now);
        self.process_due(now);
    }

    /// Handles an event of kad. An event with an id that is not that of a running or finishing query of the tracker
    /// only counts in [`Stats::unknown_inputs`].
    pub fn handle_event(&mut self, event: QueryEvent<Id>, now: Instant) {
        if let Some(recorder) = &mut self.recorder {
            recorder.event(&event, now);
        }
        let now = self.clock.advance(now);
        let id = event.id;
        match self.steps.get(&event.id) {
            Some(step) => self.event(*step, event, now),
            None => self.stats.unknown_inputs += 1,
        }
        if let Some(recorder) = &mut self.recorder
            && !(self.steps.contains_key(&id) || self.evicted_ids.contains(&id))
        {
            recorder.forget(&id);
        }
        self.process_due(now);
    }

    /// Handles the number of all queries that are live in kad, including the tracker's. It only sets
    /// [`Stats::kad_own_queries`]: queries that the tracker has not started take no slots.
    pub fn handle_query_count(&mut self, live: usize, now: Instant) {
        if let Some(recorder) = &mut self.recorder {
            recorder.query_count(live, now);
        }
        let now = self.clock.advance(now);
        self.stats.kad_own_queries = u64::try_from(live.saturating_sub(self.running)).unwrap_or(u64::MAX);
        self.process_due(now);
    }

    /// Handles the answer to [`Action::Probe`]: the current statistics of the query, or `None` if kad no longer runs
    /// it.
    pub fn handle_probe(&mut self, id: Id, progress: Option<Progress>, now: Instant) {
        if let Some(recorder) = &mut self.recorder {
            recorder.probe(&id, progress, now);
        }
        let now = self.clock.advance(now);
        match self.steps.get(&id) {
            Some(step) => self.probed(*step, progress, now),
            // It may have ended since the probe, and then there is nothing to do.
            None => self.stats.unknown_inputs += u64::from(progress.is_some()),
        }
        if let Some(recorder) = &mut self.recorder
            && !(self.steps.contains_key(&id) || self.evicted_ids.contains(&id))
        {
            recorder.forget(&id);
        }
        self.process_due(now);
    }

    /// Handles what is due at `now`: deadlines, retries, slots of queries whose end kad has not reported, and checks of
    /// queries that may have stalled. A call before the time of [`poll_timeout`](Self::poll_timeout) does nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Some(recorder) = &mut self.recorder {
            recorder.timeout(now);
        }
        let now = self.clock.advance(now);
        self.process_due(now);
    }

    /// Returns the next action to carry out. `None` if there is none until the next input.
    pub fn poll_action(&mut self) -> Option<Action<Id>> {
        let action = self.actions.pop_front()?;
        if let Some(recorder) = &mut self.recorder {
            recorder.action(&action);
        }
        Some(action)
    }

    /// Starts a recording: every further input and action becomes a line of a log, for [`replay`](crate::replay).
    /// [`poll_log`](Self::poll_log) returns the lines.
    ///
    /// # Errors
    ///
    /// Returns an error if the tracker has created a query before, is not [empty](Self::is_empty) or is shutting down,
    /// because a replay starts with a new tracker.
    pub fn record(&mut self, values: LogValues, now: Instant) -> Result<(), RecordingError> {
        if !self.is_empty() || self.shutting_down || self.last_step > 0 {
            return Err(RecordingError);
        }
        // Not before the latest input: time must not run backwards in the replay either.
        let now = self.clock.advance(now);
        let Some(epoch) = self.clock.instant(now) else { return Err(RecordingError) };
        self.recorder = Some(Box::new(Recorder::new(epoch, values, false, self.local_peer, &self.config)));
        Ok(())
    }

    /// Returns the next line of the log. `None` if there is none, or nothing is recorded. Take all lines after each
    /// input and action, or they accumulate.
    pub fn poll_log(&mut self) -> Option<String> {
        self.recorder.as_mut()?.pop()
    }

    pub(crate) fn replay_log(&mut self, epoch: Instant, values: LogValues) {
        self.clock.advance(epoch);
        self.recorder = Some(Box::new(Recorder::new(epoch, values, true, self.local_peer, &self.config)));
    }

    /// Returns the time at which to call [`handle_timeout`](Self::handle_timeout) at the latest. `None` if nothing
    /// becomes due without another input.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.first().and_then(|(at, _)| self.clock.instant(*at))
    }

    /// Returns `true` if the query belongs to the tracker: it is running or finishing, or it is one of the last 1,024
    /// whose slot was taken back without a last event. All other queries belong to the application or to kad itself.
    pub fn owns(&self, id: &Id) -> bool {
        self.steps.contains_key(id) || self.evicted_ids.contains(id)
    }

    /// Returns `true` if no request and no query is alive, and no action waits to be polled. [Cached](crate::Cache)
    /// answers do not count.
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
            && self.queries.is_empty()
            && self.shared_queries.is_empty()
            && self.announcements.is_empty()
            && self.actions.is_empty()
            && self.timers.is_empty()
    }

    /// Returns `true` if a shutdown was requested and every accepted request has ended. Queries may still be finishing.
    pub fn is_shut_down(&self) -> bool {
        self.shutting_down && self.requests.is_empty()
    }

    /// Returns the number of requests of callers that were accepted and have not ended.
    pub fn live_requests(&self) -> usize {
        self.requests.len().saturating_sub(self.read_repairs)
    }

    /// Returns the number of queries that hold a slot.
    pub fn live_queries(&self) -> usize {
        self.running
    }

    /// Returns the configuration, with `max_running` and `max_items` clamped to their bounds.
    pub fn config(&self) -> &TrackerConfig {
        &self.config
    }

    /// Returns the counters since the tracker was created.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// Returns the outcome counts and latency histograms per operation.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Returns all live requests and all queries that hold a slot, with their ages at `now`. The call visits every
    /// request and copies its key: use it for diagnosis, not on a hot path.
    pub fn snapshot(&self, now: Instant) -> Snapshot<Id> {
        let now = self.clock.time(now);
        let mut requests: Vec<_> = self
            .requests
            .iter()
            .map(|(id, request)| RequestView {
                id: *id,
                operation: request.operation.kind(),
                key: request.operation.key().to_vec(),
                phase: self.phase(request),
                age: now.since(request.accepted),
                remaining: request.deadline.since(now),
            })
            .collect();
        requests.sort_unstable_by_key(|request| request.id);
        let mut queries: Vec<_> = self.queries.iter().collect();
        queries.sort_unstable_by_key(|(step, _)| **step);
        let queries = queries
            .into_iter()
            .filter_map(|(_, query)| {
                let (id, phase) = match query.state {
                    QueryState::Queued { line: _ } => return None,
                    QueryState::Starting => (None, QueryPhase::Starting),
                    QueryState::Abandoned { finish_deadline: _ } => (None, QueryPhase::Finishing),
                    QueryState::Running { id } | QueryState::Ended { id } => (Some(id), QueryPhase::Running),
                    QueryState::Finishing { id, finish_deadline: _ } => (Some(id), QueryPhase::Finishing),
                };
                Some(QueryView {
                    id,
                    operation: query.query.kind(),
                    phase,
                    request: query.waiters.first(),
                    waiters: query.waiters.len(),
                    age: now.since(query.asked_at),
                    progress: query.progress(),
                })
            })
            .collect();
        Snapshot { requests, queries }
    }

    // ---- time and slots

    /// Handles what is due, then starts queries in the free slots. Called after every input.
    fn process_due(&mut self, now: Time) {
        while let Some((at, timer)) = self.timers.first().copied()
            && at <= now
        {
            self.timers.pop_first();
            match timer {
                Timer::Lost(step) => self.give_up(step),
                Timer::Deadline(id) => self.expire(id, now),
                Timer::Retry(id) => self.try_again(id, now),
                Timer::StallCheck(step) => self.look_after(step, at, now),
            }
        }
        while self.free_slots() > 0
            && let Some(step) = self.waiting.pop()
        {
            self.start(step, now);
        }
    }

    fn start(&mut self, step: StepId, now: Time) {
        let Some(query) = self.queries.get_mut(&step) else { return };
        for id in query.waiters.iter() {
            if let Some(request) = self.requests.get(&id).filter(|request| !request.begun) {
                self.queue_slots.leave(id, request.priority);
            }
        }
        query.state = QueryState::Starting;
        query.begin(&self.config.validators, now);
        self.running += 1;
        if let Some(cache) = &mut self.cache {
            cache.read_began(&query.query, step);
        }
        if let Query::StartProviding { key } = &query.query {
            self.announcements.entry(key.clone()).or_default().live += 1;
        }
        if let Some(request) = query.waiters.first() {
            self.actions.push_back(Action::Start { step, request, query: query.query.clone() });
        }
    }

    fn free_slots(&self) -> usize {
        self.config.max_running.saturating_sub(self.running)
    }
}
