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

/// The state machine between callers and kad. It decides everything; whoever owns it carries out what it says.
///
/// # Contract
///
/// 1. Tell it what happens: [`handle_command`](Self::handle_command) for callers,
///    [`handle_started`](Self::handle_started), [`handle_stored`](Self::handle_stored),
///    [`handle_local_peers`](Self::handle_local_peers) and [`handle_probe`](Self::handle_probe) as the answers to
///    [`Action::Start`], [`Action::StoreLocal`], [`Action::LocalPeers`] and [`Action::Probe`], [`handle_event`](Self::handle_event) for every
///    `OutboundQueryProgressed` whose id it [`owns`](Self::owns), and [`handle_timeout`](Self::handle_timeout) when
///    the time of [`poll_timeout`](Self::poll_timeout) has come.
/// 2. After each of these, drain [`poll_action`](Self::poll_action) and carry the actions out in their order; then
///    read [`poll_timeout`](Self::poll_timeout).
/// 3. `now` is a monotonic clock's reading. Time that goes backwards counts as standing still, and a call that comes
///    too early or too often does nothing.
///
/// In return every accepted request gets exactly one [`Action::Outcome`], at its deadline at the latest, whatever kad
/// does; nothing about a request follows its outcome; at most [`TrackerConfig::max_running`] queries run at once; and
/// when all requests have ended and kad has ended their queries, the tracker is [empty](Self::is_empty).
///
/// `Id` is kad's `QueryId` in earnest. It is a parameter because a `QueryId` cannot be made by hand, and tests choose,
/// repeat and confuse ids.
///
/// # Example
///
/// A record is asked for, kad finds it, the caller gets it, and kad is told to stop looking.
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
    /// Every query, from the first request that wants it until kad has ended it.
    queries: FxHashMap<StepId, Box<LiveQuery<Id>>>,
    /// Queries that a request for the same may still join.
    flights: BTreeMap<SharedQuery, StepId>,
    /// Which query kad's id names.
    steps: FxHashMap<Id, StepId>,
    waiting: WaitingLine,
    /// How many slots are in use.
    running: usize,
    queue_slots: QueueSlots,
    evicted_ids: EvictedIds<Id>,
    announcements: FxHashMap<RecordKey, Announcements>,
    pace: RttEstimator,
    /// How many read_repairs are alive.
    read_repairs: usize,
    last_read_repair: u64,
    /// Boxed, because few have one.
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
    /// An empty tracker for the node `local_peer`.
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
            flights: BTreeMap::new(),
            steps: FxHashMap::default(),
            waiting,
            running: 0,
            queue_slots,
            evicted_ids: EvictedIds::new(),
            announcements: FxHashMap::default(),
            pace: RttEstimator::default(),
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

    /// Takes a command of the caller's side.
    ///
    /// # Errors
    ///
    /// A request may be refused: it then has no outcome, and nothing was changed. All other commands never fail.
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

    /// Takes the answer to [`Action::Start`].
    pub fn handle_started(&mut self, step: StepId, result: Result<Started<Id>, QueryStartError>, now: Instant) {
        if let Some(recorder) = &mut self.recorder {
            recorder.started(step, &result, now);
        }
        let now = self.clock.advance(now);
        self.started(step, result, now);
        self.process_due(now);
    }

    /// Takes the answer to [`Action::StoreLocal`].
    pub fn handle_stored(&mut self, request: RequestId, result: Result<(), store::Error>, now: Instant) {
        if let Some(recorder) = &mut self.recorder {
            recorder.stored(request, &result, now);
        }
        let now = self.clock.advance(now);
        self.stored(request, result, now);
        self.process_due(now);
    }

    /// Takes the answer to [`Action::LocalPeers`].
    pub fn handle_local_peers(&mut self, request: RequestId, peers: Vec<PeerId>, now: Instant) {
        if let Some(recorder) = &mut self.recorder {
            recorder.local_peers(request, &peers, now);
        }
        let now = self.clock.advance(now);
        self.local_peers(request, peers, now);
        self.process_due(now);
    }

    /// Takes an event of kad. Events of queries that are not alive do nothing.
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

    /// Takes a count of all queries that kad has live, its own included. It changes nothing but what
    /// [`stats`](Self::stats) reports: kad's own queries take no slots from callers.
    pub fn handle_query_count(&mut self, live: usize, now: Instant) {
        if let Some(recorder) = &mut self.recorder {
            recorder.query_count(live, now);
        }
        let now = self.clock.advance(now);
        self.stats.kad_own_queries = u64::try_from(live.saturating_sub(self.running)).unwrap_or(u64::MAX);
        self.process_due(now);
    }

    /// Takes the answer to [`Action::Probe`]: how far the query got, or `None` if kad runs it no longer.
    pub fn handle_probe(&mut self, id: Id, progress: Option<Progress>, now: Instant) {
        if let Some(recorder) = &mut self.recorder {
            recorder.probe(&id, progress, now);
        }
        let now = self.clock.advance(now);
        match self.steps.get(&id) {
            Some(step) => self.probed(*step, progress, now),
            // It may have ended since it was asked about; but then there is nothing to tell.
            None => self.stats.unknown_inputs += u64::from(progress.is_some()),
        }
        if let Some(recorder) = &mut self.recorder
            && !(self.steps.contains_key(&id) || self.evicted_ids.contains(&id))
        {
            recorder.forget(&id);
        }
        self.process_due(now);
    }

    /// Does what is due: deadlines, retries, slots whose query was lost, and looks at queries that may have stalled.
    /// Calls before that time do nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Some(recorder) = &mut self.recorder {
            recorder.timeout(now);
        }
        let now = self.clock.advance(now);
        self.process_due(now);
    }

    /// The next thing to do. `None` until the next input.
    pub fn poll_action(&mut self) -> Option<Action<Id>> {
        let action = self.actions.pop_front()?;
        if let Some(recorder) = &mut self.recorder {
            recorder.action(&action);
        }
        Some(action)
    }

    /// Begins to write down every input and every action from now on, for [`replay`](crate::replay).
    ///
    /// # Errors
    ///
    /// If the tracker has had a request: a replay begins with a new one.
    pub fn record(&mut self, values: LogValues, now: Instant) -> Result<(), RecordingError> {
        if !self.is_empty() || self.shutting_down || self.last_step > 0 {
            return Err(RecordingError);
        }
        // Not before what the tracker was told already: time stood still until then, and has to in the replay.
        let now = self.clock.advance(now);
        let Some(epoch) = self.clock.instant(now) else { return Err(RecordingError) };
        self.recorder = Some(Box::new(Recorder::new(epoch, values, false, self.local_peer, &self.config)));
        Ok(())
    }

    /// The next line of the log. To be drained after each input and action, or the lines pile up.
    pub fn poll_log(&mut self) -> Option<String> {
        self.recorder.as_mut()?.pop()
    }

    pub(crate) fn replay_log(&mut self, epoch: Instant, values: LogValues) {
        self.clock.advance(epoch);
        self.recorder = Some(Box::new(Recorder::new(epoch, values, true, self.local_peer, &self.config)));
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) at the latest. `None`: there is nothing to wait for.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.first().and_then(|(at, _)| self.clock.instant(*at))
    }

    /// Whether a query is ours: running, finishing, or given up as lost. Events of all others belong to the
    /// application.
    pub fn owns(&self, id: &Id) -> bool {
        self.steps.contains_key(id) || self.evicted_ids.contains(id)
    }

    /// Whether no request and no query is alive and no action waits to be polled. Answers that are [kept](crate::Cache)
    /// do not count: there is nothing to wait for, and they are bounded.
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
            && self.queries.is_empty()
            && self.flights.is_empty()
            && self.announcements.is_empty()
            && self.actions.is_empty()
            && self.timers.is_empty()
    }

    /// Whether a shutdown was asked for and every accepted request has ended. Queries may still be finishing.
    pub fn is_shut_down(&self) -> bool {
        self.shutting_down && self.requests.is_empty()
    }

    /// How many requests of callers are alive.
    pub fn live_requests(&self) -> usize {
        self.requests.len().saturating_sub(self.read_repairs)
    }

    /// How many slots are in use.
    pub fn live_queries(&self) -> usize {
        self.running
    }

    /// The configuration in force.
    pub fn config(&self) -> &TrackerConfig {
        &self.config
    }

    /// What was counted so far.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// How many requests of each operation ended how, and how long they took.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Everything alive, with its age at `now`. Looks at every request: for people and tests, not for a hot path.
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

    /// After every input: do what is due, then fill the free slots.
    fn process_due(&mut self, now: Time) {
        while let Some((at, timer)) = self.timers.first().copied()
            && at <= now
        {
            self.timers.pop_first();
            match timer {
                Timer::Lost(step) => self.give_up(step),
                Timer::Deadline(id) => self.expire(id, now),
                Timer::Retry(id) => self.try_again(id, now),
                Timer::Look(step) => self.look_after(step, at, now),
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
