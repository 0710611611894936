mod findings;
mod judge;
mod remembered;
mod waiters;
mod waiting;

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
    hash::Hash,
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

use libp2p::{
    PeerId,
    kad::{self, Record, RecordKey, store},
};
use rustc_hash::FxHashMap;

use self::{
    findings::{Ending, Fault, Findings, NewItems, News, distinct, fits},
    judge::{Verdict, first_query},
    remembered::Remembered,
    waiters::{Need, Waiter, Waiters},
    waiting::{Line, Ticket, WaitingLine},
};
use crate::{
    Action, Agree, Command, CommandError, InvalidRequest, LogValues, MAX_RUNNING_CEILING, Metrics, NotEmpty, Operation,
    OperationKind, Outcome, Overload, Policy, Priority, Progress, PutAnswer, PutRecordError, Query, QueryEvent,
    QueryPhase, QueryView, Request, RequestError, RequestId, RequestOptions, RequestPhase, RequestView, Snapshot,
    StartError, Started, Stats, StepId, TrackerConfig, log::Recorder,
};

/// How far away a deadline is that is too far away to be a point in time: thirty years.
const FAR_FUTURE: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// The state machine between callers and kad. It decides everything; whoever owns it carries out what it says.
///
/// # Contract
///
/// 1. Tell it what happens: [`handle_command`](Self::handle_command) for callers,
///    [`handle_started`](Self::handle_started) and [`handle_stored`](Self::handle_stored) as the answers to
///    [`Action::Start`] and [`Action::StoreLocal`], [`handle_event`](Self::handle_event) for every
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
    /// The latest time seen; time never goes back.
    now: Option<Instant>,
    requests: FxHashMap<RequestId, Box<LiveRequest>>,
    /// Every query, from the first request that wants it until kad has ended it.
    queries: FxHashMap<StepId, Box<LiveQuery<Id>>>,
    /// Queries that a request for the same may still join.
    flights: BTreeMap<Flight, StepId>,
    /// Which query kad's id names.
    steps: FxHashMap<Id, StepId>,
    waiting: WaitingLine,
    /// How many slots are in use.
    running: usize,
    /// How many requests wait for their first query to start.
    queued: usize,
    remembered: Remembered<Id>,
    announcements: FxHashMap<RecordKey, Announcements>,
    timers: BTreeSet<(Instant, Timer)>,
    actions: VecDeque<Action<Id>>,
    last_step: u64,
    shutting_down: bool,
    stats: Stats,
    metrics: Metrics,
    recorder: Option<Box<Recorder<Id>>>,
}

/// A request from its acceptance to its outcome.
///
/// ```text
///   Attached ──► outcome      A put:    Attached (lookup) ──► Attached (store) ──► Storing ──► outcome
///    ▲     │                  A retry:  Attached ──► BackingOff ──► Attached
///    └─ BackingOff ──► outcome
/// ```
#[derive(Debug)]
struct LiveRequest {
    operation: Operation,
    options: RequestOptions,
    accepted: Instant,
    deadline: Instant,
    phase: Phase,
    /// How many attempts have failed.
    failed_attempts: u32,
    /// Whether a query was ever started for it. Until then it counts as queued.
    begun: bool,
    /// Whether kad was told to announce us, so that a failure takes the local entry back.
    announced: bool,
}

#[derive(Debug)]
enum Phase {
    /// Waits for this query, which may itself wait for a slot.
    Attached { step: StepId },
    /// Waits before its next attempt.
    BackingOff { until: Instant },
    /// Its record is on its way into the local store.
    Storing { answer: Box<PutAnswer> },
}

/// A query and those who wait for it. From Starting on it holds a slot.
#[derive(Debug)]
struct LiveQuery<Id> {
    query: Query,
    waiters: Waiters,
    findings: Findings,
    state: QueryState<Id>,
    /// When it was first wanted.
    asked_at: Instant,
    progress: Progress,
}

/// ```text
///            a slot is free           started            nobody wants it          last event
///   Queued ────────────────► Starting ──────► Running ────────────────► Finishing ─────────► gone
///      │ nobody wants it        │ nobody wants it │ last event             ▲  └ lost_after ─► gone, remembered
///      └──► gone                ▼       started   └──────────► gone        │
///                           Abandoned ─────────────────────────────────────┘
///                              └ refused, or lost_after ──► gone                 Starting: gone when refused
/// ```
#[derive(Debug)]
enum QueryState<Id> {
    Queued {
        ticket: Ticket,
        line: Line,
    },
    Starting,
    Abandoned {
        lost_at: Instant,
    },
    Running {
        id: Id,
    },
    /// Its last event is being taken in; gone before the next input.
    Ended {
        id: Id,
    },
    Finishing {
        id: Id,
        lost_at: Instant,
    },
}

/// What makes two reads the same. Ordered, because strangers may have a say in the keys.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Flight {
    kind: OperationKind,
    key: RecordKey,
}

impl Flight {
    /// `None` for queries that are nobody else's business.
    fn of(query: &Query) -> Option<Self> {
        match query {
            Query::GetRecord { key } | Query::GetProviders { key } => {
                Some(Self { kind: query.kind(), key: key.clone() })
            }
            Query::GetClosestPeers { target } => Some(Self { kind: query.kind(), key: target.clone() }),
            Query::PutRecordTo { record: _, peers: _ } | Query::StartProviding { key: _ } | Query::Bootstrap => None,
        }
    }
}

impl Ord for Flight {
    fn cmp(&self, other: &Self) -> Ordering {
        self.kind.cmp(&other.kind).then_with(|| self.key.as_ref().cmp(other.key.as_ref()))
    }
}

impl PartialOrd for Flight {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The announcements of one key that are under way, from the order to start them.
#[derive(Debug, Default)]
struct Announcements {
    live: usize,
    /// Whether the local store named us a provider before the first of them; unknown until kad has answered its start.
    had_provider: Option<bool>,
    succeeded: bool,
}

/// What is due at a point in time. At the same point, slots come back first, and deadlines pass before retries begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Lost(StepId),
    Deadline(RequestId),
    Retry(RequestId),
}

impl<Id: Copy + Eq + Hash + fmt::Debug> QueryTracker<Id> {
    /// An empty tracker for the node `local_peer`.
    pub fn new(local_peer: PeerId, mut config: TrackerConfig) -> Self {
        config.max_running = config.max_running.clamp(1, MAX_RUNNING_CEILING);
        config.max_items = config.max_items.max(1);
        let waiting = WaitingLine::new(config.shares);
        Self {
            config,
            local_peer,
            now: None,
            requests: FxHashMap::default(),
            queries: FxHashMap::default(),
            flights: BTreeMap::new(),
            steps: FxHashMap::default(),
            waiting,
            running: 0,
            queued: 0,
            remembered: Remembered::new(),
            announcements: FxHashMap::default(),
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
    /// A request may be refused: it then has no outcome, and nothing was changed. A cancel or shutdown never fails.
    pub fn handle_command(&mut self, command: Command, now: Instant) -> Result<(), CommandError> {
        let now = self.advance(now);
        if let Some(recorder) = &mut self.recorder {
            recorder.command(&command, now);
        }
        // What is due goes first: it may free the place in the queue that this request needs.
        self.settle(now);
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
        };
        self.settle(now);
        result
    }

    /// Takes the answer to [`Action::Start`].
    pub fn handle_started(&mut self, step: StepId, result: Result<Started<Id>, StartError>, now: Instant) {
        let now = self.advance(now);
        if let Some(recorder) = &mut self.recorder {
            recorder.started(step, &result, now);
        }
        self.started(step, result, now);
        self.settle(now);
    }

    /// Takes the answer to [`Action::StoreLocal`].
    pub fn handle_stored(&mut self, request: RequestId, result: Result<(), store::Error>, now: Instant) {
        let now = self.advance(now);
        if let Some(recorder) = &mut self.recorder {
            recorder.stored(request, &result, now);
        }
        match self.requests.get_mut(&request).map(|request| &mut request.phase) {
            Some(Phase::Storing { answer }) => {
                let PutAnswer { acknowledged, asked, progress } = &mut **answer;
                let acknowledged = mem::take(acknowledged);
                let outcome = Outcome::PutRecord(match result {
                    Ok(()) => Ok(PutAnswer { acknowledged, asked: *asked, progress: *progress }),
                    Err(error) => Err(PutRecordError::Store { error, acknowledged }),
                });
                self.end(request, outcome, now);
            }
            Some(Phase::Attached { .. } | Phase::BackingOff { .. }) | None => self.stats.unknown_inputs += 1,
        }
        self.settle(now);
    }

    /// Takes an event of kad. Events of queries that are not alive do nothing.
    pub fn handle_event(&mut self, event: QueryEvent<Id>, now: Instant) {
        let now = self.advance(now);
        if let Some(recorder) = &mut self.recorder {
            recorder.event(&event, now);
        }
        let id = event.id;
        match self.steps.get(&event.id) {
            Some(step) => self.event(*step, event, now),
            None => self.stats.unknown_inputs += 1,
        }
        if let Some(recorder) = &mut self.recorder
            && !(self.steps.contains_key(&id) || self.remembered.contains(&id))
        {
            recorder.forget(&id);
        }
        self.settle(now);
    }

    /// Takes a count of all queries that kad has live, its own included. It changes nothing but what
    /// [`stats`](Self::stats) reports: kad's own queries take no slots from callers.
    pub fn handle_census(&mut self, live: usize, now: Instant) {
        let now = self.advance(now);
        if let Some(recorder) = &mut self.recorder {
            recorder.census(live, now);
        }
        self.stats.kad_own_queries = u64::try_from(live.saturating_sub(self.running)).unwrap_or(u64::MAX);
        self.settle(now);
    }

    /// Does what is due: deadlines, retries, and slots whose query was lost. Calls before that time do nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        let now = self.advance(now);
        if let Some(recorder) = &mut self.recorder {
            recorder.timeout(now);
        }
        self.settle(now);
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
    /// If the tracker is not empty: a replay begins with an empty one.
    pub fn record(&mut self, values: LogValues, now: Instant) -> Result<(), NotEmpty> {
        if !self.is_empty() || self.shutting_down || self.last_step > 0 {
            return Err(NotEmpty);
        }
        let now = self.advance(now);
        self.recorder = Some(Box::new(Recorder::new(now, values, false, self.local_peer, &self.config)));
        Ok(())
    }

    /// The next line of the log. To be drained after each input and action, or the lines pile up.
    pub fn poll_log(&mut self) -> Option<String> {
        self.recorder.as_mut()?.pop()
    }

    pub(crate) fn replay_log(&mut self, epoch: Instant, values: LogValues) {
        let now = self.advance(epoch);
        self.recorder = Some(Box::new(Recorder::new(now, values, true, self.local_peer, &self.config)));
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) at the latest. `None`: there is nothing to wait for.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Whether a query is ours: running, finishing, or given up as lost. Events of all others belong to the
    /// application.
    pub fn owns(&self, id: &Id) -> bool {
        self.steps.contains_key(id) || self.remembered.contains(id)
    }

    /// Whether no request and no query is alive and no action waits to be polled.
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty() && self.queries.is_empty() && self.actions.is_empty() && self.timers.is_empty()
    }

    /// Whether a shutdown was asked for and every accepted request has ended. Queries may still be finishing.
    pub fn is_shut_down(&self) -> bool {
        self.shutting_down && self.requests.is_empty()
    }

    /// How many requests are alive.
    pub fn live_requests(&self) -> usize {
        self.requests.len()
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
        let mut requests: Vec<_> = self
            .requests
            .iter()
            .map(|(id, request)| RequestView {
                id: *id,
                operation: request.operation.kind(),
                key: request.operation.key().to_vec(),
                phase: self.phase(request),
                age: now.saturating_duration_since(request.accepted),
                remaining: request.deadline.saturating_duration_since(now),
            })
            .collect();
        requests.sort_unstable_by_key(|request| request.id);
        let mut queries: Vec<_> = self.queries.iter().collect();
        queries.sort_unstable_by_key(|(step, _)| **step);
        let queries = queries
            .into_iter()
            .filter_map(|(_, query)| {
                let (id, phase) = match query.state {
                    QueryState::Queued { ticket: _, line: _ } => return None,
                    QueryState::Starting => (None, QueryPhase::Starting),
                    QueryState::Abandoned { lost_at: _ } => (None, QueryPhase::Finishing),
                    QueryState::Running { id } | QueryState::Ended { id } => (Some(id), QueryPhase::Running),
                    QueryState::Finishing { id, lost_at: _ } => (Some(id), QueryPhase::Finishing),
                };
                Some(QueryView {
                    id,
                    operation: query.query.kind(),
                    phase,
                    request: query.waiters.first(),
                    waiters: query.waiters.len(),
                    age: now.saturating_duration_since(query.asked_at),
                    progress: query.progress,
                })
            })
            .collect();
        Snapshot { requests, queries }
    }

    // ---- commands

    fn accept(&mut self, request: Request, now: Instant) -> Result<(), CommandError> {
        let Request { id, operation, options } = request;
        let checked = self.check(id, &operation, now).and_then(|()| self.make_room(options.priority, now));
        if let Err(error) = checked {
            self.stats.refused += 1;
            return Err(CommandError(error));
        }
        let operation = self.adopt(operation);
        let deadline = saturating_add(now, options.timeout.unwrap_or(self.config.default_timeout));
        let query = first_query(&operation);
        // The step is known once the request is attached to a query, which is the next thing to happen.
        let phase = Phase::Attached { step: StepId(0) };
        let request = LiveRequest {
            operation,
            options,
            accepted: now,
            deadline,
            phase,
            failed_attempts: 0,
            begun: false,
            announced: false,
        };
        self.requests.insert(id, Box::new(request));
        self.timers.insert((deadline, Timer::Deadline(id)));
        self.stats.accepted += 1;
        self.attach(id, query, Progress::default(), now);
        Ok(())
    }

    /// Everything that is wrong with a request itself, before anything is changed.
    fn check(&self, id: RequestId, operation: &Operation, now: Instant) -> Result<(), RequestError> {
        if self.shutting_down {
            return Err(RequestError::Shutdown);
        }
        if self.requests.contains_key(&id) {
            return Err(InvalidRequest::DuplicateId.into());
        }
        let len = operation.key().len();
        if len > self.config.max_key_len {
            return Err(InvalidRequest::KeyTooLong { len, max: self.config.max_key_len }.into());
        }
        match operation {
            Operation::GetRecord { key, policy } => match policy {
                Policy::Limit(0) | Policy::Quorum(0) | Policy::Best { agree: Agree::N(0) } => {
                    return Err(InvalidRequest::ZeroLimit.into());
                }
                Policy::Best { agree: _ } if self.config.validators.of(key.as_ref()).is_none() => {
                    return Err(InvalidRequest::NoValidator.into());
                }
                Policy::First | Policy::Limit(_) | Policy::All | Policy::Quorum(_) | Policy::Best { agree: _ } => {}
            },
            Operation::GetProviders { key: _, policy } => match policy {
                Policy::Limit(0) => return Err(InvalidRequest::ZeroLimit.into()),
                Policy::Quorum(_) | Policy::Best { agree: _ } => return Err(InvalidRequest::PolicyForRecords.into()),
                Policy::First | Policy::Limit(_) | Policy::All => {}
            },
            Operation::PutRecord { record, quorum: _ } => self.check_record(record, now)?,
            Operation::PutRecordTo { record, peers, quorum: _ } => {
                self.check_record(record, now)?;
                if peers.iter().all(|peer| *peer == self.local_peer) {
                    return Err(InvalidRequest::NoPeers.into());
                }
            }
            Operation::StartProviding { key: _ } | Operation::GetClosestPeers { target: _ } | Operation::Bootstrap => {}
        }
        Ok(())
    }

    fn check_record(&self, record: &Record, now: Instant) -> Result<(), InvalidRequest> {
        let (len, max) = (record.value.len(), self.config.max_value_len_for(record.key.as_ref().len()));
        if len > max {
            return Err(InvalidRequest::ValueTooLarge { len, max });
        }
        if record.is_expired(now) {
            return Err(InvalidRequest::RecordExpired);
        }
        if let Some(validator) = self.config.validators.of(record.key.as_ref()) {
            validator
                .validate(&record.key, &record.value)
                .map_err(|rejected| InvalidRequest::Rejected { reason: rejected.to_string() })?;
        }
        Ok(())
    }

    /// Sees to it that a request of this class may wait.
    fn make_room(&mut self, priority: Priority, now: Instant) -> Result<(), RequestError> {
        if self.queued < self.config.max_queued || self.free_slots() > 0 {
            return Ok(());
        }
        let victim = match self.config.overload {
            Overload::Refuse => None,
            Overload::Shed => self
                .waiting
                .last_below(priority)
                .and_then(|step| self.queries.get(&step))
                .and_then(|query| query.waiters.last()),
        };
        match victim {
            Some(victim) => {
                self.fail(victim, RequestError::Overloaded, now);
                Ok(())
            }
            None => Err(RequestError::Overloaded),
        }
    }

    /// Makes an accepted operation what kad needs it to be.
    fn adopt(&self, mut operation: Operation) -> Operation {
        match &mut operation {
            Operation::PutRecord { record, quorum: _ } => {
                // A copy of the bytes if the caller holds the record as well, and only then.
                if record.publisher != Some(self.local_peer) {
                    Arc::make_mut(record).publisher = Some(self.local_peer);
                }
            }
            // kad never ends a store at our own id, and a repetition makes `Quorum::All` impossible.
            Operation::PutRecordTo { record: _, peers, quorum: _ } => {
                *peers = distinct(peers.iter().copied().filter(|peer| *peer != self.local_peer));
            }
            Operation::GetRecord { .. }
            | Operation::GetProviders { .. }
            | Operation::StartProviding { .. }
            | Operation::GetClosestPeers { .. }
            | Operation::Bootstrap => {}
        }
        operation
    }

    fn shut_down(&mut self, drain: bool, now: Instant) {
        self.shutting_down = true;
        if drain {
            return;
        }
        let mut ids: Vec<_> = self.requests.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            self.fail(id, RequestError::Shutdown, now);
        }
    }

    // ---- a request and its query

    /// Makes a request wait for a query: for one that is wanted already, if it is the same, or for one of its own.
    fn attach(&mut self, id: RequestId, query: Query, lookup: Progress, now: Instant) {
        let Some(request) = self.requests.get_mut(&id) else { return };
        let waiter = waiter(id, request, self.config.max_items);
        let votes = judge::votes(&request.operation);
        let line = if request.begun { Line::FurtherStep } else { Line::New(waiter.priority) };
        let flight = Flight::of(&query);
        if let Some(step) = flight.as_ref().and_then(|flight| self.flights.get(flight)).copied() {
            request.phase = Phase::Attached { step };
            self.join(step, waiter, votes, line, now);
            return;
        }
        self.last_step += 1;
        let step = StepId(self.last_step);
        request.phase = Phase::Attached { step };
        let mut findings = Findings::of(&query, lookup);
        if votes && let Query::GetRecord { key } = &query {
            findings.count_votes(key, &self.config.validators);
        }
        let state = QueryState::Queued { ticket: self.waiting.push(line, step), line };
        let waiters = Waiters::One(waiter);
        let query = LiveQuery { query, waiters, findings, state, asked_at: now, progress: Progress::default() };
        self.queries.insert(step, Box::new(query));
        if let Some(flight) = flight {
            self.flights.insert(flight, step);
        }
        if let Line::New(_) = line {
            self.queued += 1;
        }
    }

    fn join(&mut self, step: StepId, waiter: Waiter, votes: bool, line: Line, now: Instant) {
        let Some(query) = self.queries.get_mut(&step) else { return };
        let LiveQuery { query, waiters, findings, state, asked_at: _, progress: _ } = &mut **query;
        let others = waiters.len();
        waiters.add(waiter);
        if votes && let Query::GetRecord { key } = query {
            findings.count_votes(key, &self.config.validators);
        }
        match state {
            QueryState::Queued { ticket, line: current } => {
                let risen = (*current).max(line);
                match (*current, risen) {
                    (Line::New(_), Line::FurtherStep) => self.queued -= others,
                    (Line::New(_), Line::New(_)) => self.queued += 1,
                    (Line::FurtherStep, _) => {}
                }
                self.waiting.change(*current, risen, *ticket, step);
                *current = risen;
            }
            QueryState::Starting | QueryState::Running { id: _ } => {
                if waiter.streaming {
                    let actions = &mut self.actions;
                    let request = waiter.request;
                    let at_most = match waiter.need {
                        Need::Items(needed) => needed,
                        Need::Votes(_) | Need::BestVotes(_) | Need::End => usize::MAX,
                    };
                    findings.replay(at_most, &mut |item| actions.push_back(Action::Item { request, item }));
                }
                self.end_satisfied(step, now);
            }
            // Not to be joined any more, and no longer among the flights.
            QueryState::Ended { .. } | QueryState::Abandoned { .. } | QueryState::Finishing { .. } => {}
        }
    }

    /// Takes a request away from its query. A query that nobody wants any more is told to finish, and keeps its slot
    /// until kad has ended it.
    fn detach(&mut self, waiter: Waiter, step: StepId, now: Instant) {
        let lost_at = saturating_add(now, self.config.lost_after);
        let Some(query) = self.queries.get_mut(&step) else { return };
        query.waiters.remove(waiter);
        let unwanted = query.waiters.is_empty();
        match query.state {
            QueryState::Queued { ticket, line } => {
                if let Line::New(_) = line {
                    self.queued -= 1;
                }
                if unwanted {
                    self.waiting.remove(line, ticket);
                    let flight = Flight::of(&query.query);
                    self.queries.remove(&step);
                    self.land(flight, step);
                } else if let Line::New(_) = line {
                    let fallen = Line::New(query.waiters.priority());
                    query.state = QueryState::Queued { ticket, line: fallen };
                    self.waiting.change(line, fallen, ticket, step);
                }
            }
            QueryState::Starting if unwanted => {
                query.state = QueryState::Abandoned { lost_at };
                let flight = Flight::of(&query.query);
                self.timers.insert((lost_at, Timer::Lost(step)));
                self.land(flight, step);
            }
            QueryState::Running { id } if unwanted => {
                query.state = QueryState::Finishing { id, lost_at };
                let flight = Flight::of(&query.query);
                self.actions.push_back(Action::Finish(id));
                self.timers.insert((lost_at, Timer::Lost(step)));
                self.land(flight, step);
            }
            QueryState::Starting
            | QueryState::Running { id: _ }
            | QueryState::Ended { id: _ }
            | QueryState::Abandoned { lost_at: _ }
            | QueryState::Finishing { id: _, lost_at: _ } => {}
        }
    }

    /// Nobody joins this query any more.
    fn land(&mut self, flight: Option<Flight>, step: StepId) {
        if let Some(flight) = flight
            && self.flights.get(&flight) == Some(&step)
        {
            self.flights.remove(&flight);
        }
    }

    /// Takes a query out of the books: its slot is free.
    fn remove_query(&mut self, step: StepId) -> Option<Box<LiveQuery<Id>>> {
        let query = self.queries.remove(&step)?;
        self.running -= 1;
        match query.state {
            QueryState::Running { id } | QueryState::Ended { id } => {
                self.steps.remove(&id);
            }
            QueryState::Finishing { id, lost_at } => {
                self.steps.remove(&id);
                self.timers.remove(&(lost_at, Timer::Lost(step)));
            }
            QueryState::Abandoned { lost_at } => {
                self.timers.remove(&(lost_at, Timer::Lost(step)));
            }
            QueryState::Queued { .. } | QueryState::Starting => {}
        }
        self.land(Flight::of(&query.query), step);
        Some(query)
    }

    // ---- queries: every combination of state and input

    fn started(&mut self, step: StepId, result: Result<Started<Id>, StartError>, now: Instant) {
        let Some(query) = self.queries.get_mut(&step) else {
            self.stats.unknown_inputs += 1;
            return;
        };
        match (&query.state, result) {
            // An id that is in use cannot be told apart from its first bearer: the second one is never heard of.
            (QueryState::Starting | QueryState::Abandoned { lost_at: _ }, Ok(started))
                if self.steps.contains_key(&started.id) =>
            {
                self.stats.unknown_inputs += 1;
            }
            (QueryState::Starting, Ok(Started { id, had_provider })) => {
                query.state = QueryState::Running { id };
                self.steps.insert(id, step);
                if let Query::StartProviding { key } = &query.query {
                    let (key, announcer) = (key.clone(), query.waiters.first());
                    if let Some(request) = announcer.and_then(|id| self.requests.get_mut(&id)) {
                        request.announced = true;
                    }
                    self.announcement_began(&key, had_provider);
                }
            }
            (QueryState::Abandoned { lost_at }, Ok(Started { id, had_provider })) => {
                query.state = QueryState::Finishing { id, lost_at: *lost_at };
                self.steps.insert(id, step);
                self.actions.push_back(Action::Finish(id));
                if let Query::StartProviding { key } = &query.query {
                    let key = key.clone();
                    self.announcement_began(&key, had_provider);
                    self.announcement_ended(&key, false);
                }
            }
            (QueryState::Starting, Err(error)) => {
                let Some(mut query) = self.remove_query(step) else { return };
                self.start_failed(&query.query);
                while let Some(id) = self.take_waiter(&mut query.waiters) {
                    if let Some(request) = self.requests.get(&id) {
                        let outcome = judge::refused(&request.operation, error.clone());
                        self.conclude(id, outcome, false, now);
                    }
                }
            }
            (QueryState::Abandoned { lost_at: _ }, Err(_)) => {
                if let Some(query) = self.remove_query(step) {
                    self.start_failed(&query.query);
                }
            }
            (
                QueryState::Queued { .. }
                | QueryState::Running { id: _ }
                | QueryState::Ended { id: _ }
                | QueryState::Finishing { .. },
                Ok(_) | Err(_),
            ) => {
                self.stats.unknown_inputs += 1;
            }
        }
    }

    fn event(&mut self, step: StepId, event: QueryEvent<Id>, now: Instant) {
        let QueryEvent { id, result, progress, last } = event;
        let Some(live) = self.queries.get_mut(&step) else { return };
        if !fits(live.query.kind(), &result) {
            self.stats.mismatched_events += 1;
            return;
        }
        live.progress = progress;
        match (&live.state, last) {
            (QueryState::Running { id: _ }, last) => {
                let LiveQuery { query, findings, .. } = &mut **live;
                let News { items, ending, fault } = findings.news(query, result, progress, &self.config.validators);
                match fault {
                    None => {}
                    Some(Fault::Mismatch) => self.stats.mismatched_events += 1,
                    Some(Fault::ForeignRecord) => self.stats.foreign_records += 1,
                    Some(Fault::Rejected) => self.stats.rejected_records += 1,
                }
                if last {
                    live.state = QueryState::Ended { id };
                }
                self.take_items(step, items, now);
                if last && let Some(ending) = ending {
                    self.end_query(step, &ending, now);
                }
            }
            (QueryState::Finishing { id: _, lost_at: _ }, true) => {
                self.remove_query(step);
            }
            // The answers that were under way; nobody wants them.
            (QueryState::Finishing { .. }, false) => {}
            // Without an id there is no event that could be this query's, and none comes while one is taken in.
            (
                QueryState::Queued { .. }
                | QueryState::Ended { .. }
                | QueryState::Starting
                | QueryState::Abandoned { .. },
                _,
            ) => {}
        }
    }

    /// Takes the items of an event in, one by one, for as long as anyone waits for them.
    fn take_items(&mut self, step: StepId, mut items: NewItems, now: Instant) {
        while let Some(live) = self.queries.get_mut(&step)
            && !live.waiters.is_empty()
            && let Some(item) = items.next()
        {
            let LiveQuery { query, waiters, findings, .. } = &mut **live;
            findings.add(query, &item, &self.config.validators);
            for request in waiters.streaming() {
                self.actions.push_back(Action::Item { request, item: item.clone() });
            }
            if findings.replay_bytes() > self.config.max_replay_bytes {
                let flight = Flight::of(query);
                self.land(flight, step);
            }
            self.end_satisfied(step, now);
            self.end_at_the_bound(step, now);
        }
    }

    /// A query that has found as much as one may: for those who still wait it is as if kad had ended it.
    fn end_at_the_bound(&mut self, step: StepId, now: Instant) {
        while let Some(query) = self.queries.get(&step)
            && query.findings.offer().items >= self.config.max_items
            && let Some(id) = query.waiters.first()
            && let Some(request) = self.requests.get(&id)
        {
            let ending = Ending::Read { closest_peers: Vec::new(), timed_out: false };
            let LiveQuery { findings, progress, .. } = &**query;
            let outcome = match judge::ended(&request.operation, findings, &ending, *progress, self.local_peer) {
                Verdict::Done(outcome) => outcome,
                // Only reads find items.
                Verdict::StoreAt { .. } | Verdict::KeepLocally(_) => {
                    judge::timeout(&request.operation, Some(findings), *progress)
                }
            };
            self.end(id, outcome, now);
        }
    }

    /// Ends the requests that need nothing more of a query.
    fn end_satisfied(&mut self, step: StepId, now: Instant) {
        while let Some(query) = self.queries.get(&step)
            && let Some(id) = query.waiters.satisfied(query.findings.offer())
            && let Some(request) = self.requests.get(&id)
        {
            let outcome = judge::satisfied(&request.operation, &query.findings, query.progress);
            self.end(id, outcome, now);
        }
    }

    /// kad has ended a query: everyone who still waits for it gets what there is.
    fn end_query(&mut self, step: StepId, ending: &Ending, now: Instant) {
        let Some(mut query) = self.remove_query(step) else { return };
        while let Some(id) = self.take_waiter(&mut query.waiters) {
            let Some(request) = self.requests.get(&id) else { continue };
            let LiveQuery { findings, progress, .. } = &*query;
            match judge::ended(&request.operation, findings, ending, *progress, self.local_peer) {
                Verdict::Done(outcome) => self.conclude(id, outcome, findings.has_items(), now),
                Verdict::StoreAt { peers, lookup } => self.store_at(id, peers, lookup, now),
                Verdict::KeepLocally(answer) => self.keep_locally(id, answer),
            }
        }
    }

    /// The next of those who wait, by what they need.
    fn take_waiter(&self, waiters: &mut Waiters) -> Option<RequestId> {
        let id = waiters.first()?;
        match self.requests.get(&id) {
            Some(request) => waiters.remove(waiter(id, request, self.config.max_items)),
            // Every waiter is a live request; without it there is nothing to take.
            None => *waiters = Waiters::None,
        }
        Some(id)
    }

    /// A query's last event never came: the slot comes back, and the id is remembered.
    fn lose(&mut self, step: StepId) {
        let Some(query) = self.remove_query(step) else { return };
        self.stats.lost_queries += 1;
        match query.state {
            QueryState::Finishing { id, lost_at: _ } | QueryState::Running { id } | QueryState::Ended { id } => {
                let forgotten = self.remembered.insert(id);
                if let (Some(recorder), Some(forgotten)) = (&mut self.recorder, forgotten) {
                    recorder.forget(&forgotten);
                }
                self.actions.push_back(Action::Forget(id));
            }
            QueryState::Queued { .. } | QueryState::Abandoned { lost_at: _ } | QueryState::Starting => {
                self.start_failed(&query.query);
            }
        }
    }

    /// A query that was to start has not.
    fn start_failed(&mut self, query: &Query) {
        if let Query::StartProviding { key } = query {
            self.announcement_ended(key, false);
        }
    }

    // ---- requests

    fn store_at(&mut self, id: RequestId, peers: Arc<[PeerId]>, lookup: Progress, now: Instant) {
        let Some(request) = self.requests.get_mut(&id) else { return };
        request.begun = true;
        if let Operation::PutRecord { record, quorum: _ } = &request.operation {
            let query = Query::PutRecordTo { record: Arc::clone(record), peers };
            self.attach(id, query, lookup, now);
        }
    }

    fn keep_locally(&mut self, id: RequestId, answer: PutAnswer) {
        let Some(request) = self.requests.get_mut(&id) else { return };
        request.phase = Phase::Storing { answer: Box::new(answer) };
        if let Operation::PutRecord { record, quorum: _ } = &request.operation {
            let record = Arc::clone(record);
            self.actions.push_back(Action::StoreLocal { request: id, record });
        }
    }

    /// An attempt has ended: so has the request, unless it is to be tried again.
    fn conclude(&mut self, id: RequestId, outcome: Outcome, found_items: bool, now: Instant) {
        let again = if outcome.is_retryable() { self.next_attempt(id, found_items, now) } else { None };
        let Some((request, until)) = again.and_then(|until| Some((self.requests.get_mut(&id)?, until))) else {
            self.end(id, outcome, now);
            return;
        };
        request.failed_attempts += 1;
        request.begun = true;
        request.phase = Phase::BackingOff { until };
        let announced = mem::replace(&mut request.announced, false);
        if announced && let Operation::StartProviding { key } = &request.operation {
            let key = key.clone();
            self.announcement_ended(&key, false);
        }
        self.timers.insert((until, Timer::Retry(id)));
    }

    /// When a request is tried again, if it is.
    fn next_attempt(&self, id: RequestId, found_items: bool, now: Instant) -> Option<Instant> {
        let request = self.requests.get(&id)?;
        let retry = request.options.retry?;
        let attempt = request.failed_attempts.saturating_add(1);
        // What a stream has delivered would be delivered again.
        let repeats_items = request.options.streaming && found_items;
        if attempt >= retry.attempts || repeats_items {
            return None;
        }
        let until = saturating_add(now, retry.wait(attempt, lot(self.config.seed, id, attempt)));
        (until < request.deadline).then_some(until)
    }

    fn try_again(&mut self, id: RequestId, now: Instant) {
        if let Some(request) = self.requests.get(&id)
            && let Phase::BackingOff { until: _ } = request.phase
        {
            let query = first_query(&request.operation);
            self.attach(id, query, Progress::default(), now);
        }
    }

    /// Ends a request for a reason common to all operations.
    fn fail(&mut self, id: RequestId, error: RequestError, now: Instant) {
        if let Some(request) = self.requests.get(&id) {
            let outcome = Outcome::failed(request.operation.kind(), error);
            self.end(id, outcome, now);
        }
    }

    fn expire(&mut self, id: RequestId, now: Instant) {
        let Some(request) = self.requests.get(&id) else { return };
        let LiveRequest { operation, phase, begun, .. } = &**request;
        let outcome = match phase {
            Phase::Attached { step } => match self.queries.get(step).map(|query| &**query) {
                Some(LiveQuery { state: QueryState::Queued { .. }, .. }) if !begun => {
                    Outcome::failed(operation.kind(), RequestError::ExpiredInQueue)
                }
                // Its next step waits for a slot: nothing was sent to the peers of that step.
                Some(LiveQuery {
                    state: QueryState::Queued { .. }, findings: Findings::Put { lookup, .. }, ..
                }) => judge::timeout(operation, None, *lookup),
                Some(query) => judge::timeout(operation, Some(&query.findings), query.progress),
                None => judge::timeout(operation, None, Progress::default()),
            },
            Phase::BackingOff { until: _ } => judge::timeout(operation, None, Progress::default()),
            Phase::Storing { answer } => Outcome::PutRecord(Err(PutRecordError::Timeout {
                sent_to: answer.acknowledged.clone(),
                progress: answer.progress,
            })),
        };
        self.end(id, outcome, now);
    }

    /// The one place where a request ends.
    fn end(&mut self, id: RequestId, outcome: Outcome, now: Instant) {
        let Some(request) = self.requests.remove(&id) else { return };
        self.timers.remove(&(request.deadline, Timer::Deadline(id)));
        let ok = outcome.is_ok();
        self.metrics.ended(&outcome, now.saturating_duration_since(request.accepted));
        self.actions.push_back(Action::Outcome { request: id, outcome });
        match request.phase {
            Phase::Attached { step } => self.detach(waiter(id, &request, self.config.max_items), step, now),
            Phase::BackingOff { until } => {
                self.timers.remove(&(until, Timer::Retry(id)));
            }
            Phase::Storing { answer: _ } => {}
        }
        if request.announced
            && let Operation::StartProviding { key } = &request.operation
        {
            self.announcement_ended(key, ok);
        }
    }

    /// kad has entered us as a provider. The first answer says what was there before; later ones find our own entry.
    fn announcement_began(&mut self, key: &RecordKey, had_provider: bool) {
        if let Some(announcements) = self.announcements.get_mut(key) {
            announcements.had_provider.get_or_insert(had_provider);
        }
    }

    /// With the last of a key's announcements, the local entry goes, unless one succeeded or it was there before.
    fn announcement_ended(&mut self, key: &RecordKey, ok: bool) {
        let Some(announcements) = self.announcements.get_mut(key) else { return };
        announcements.succeeded |= ok;
        announcements.live -= 1;
        if announcements.live > 0 {
            return;
        }
        if announcements.had_provider == Some(false) && !announcements.succeeded {
            self.actions.push_back(Action::StopProviding { key: key.clone() });
        }
        self.announcements.remove(key);
    }

    fn phase(&self, request: &LiveRequest) -> RequestPhase {
        match &request.phase {
            Phase::Attached { step } => match self.queries.get(step).map(|query| &query.state) {
                Some(QueryState::Queued { .. }) if request.begun => RequestPhase::BetweenSteps,
                Some(QueryState::Queued { .. }) => RequestPhase::Queued,
                Some(
                    QueryState::Starting
                    | QueryState::Abandoned { .. }
                    | QueryState::Running { .. }
                    | QueryState::Ended { .. }
                    | QueryState::Finishing { .. },
                )
                | None => RequestPhase::Running,
            },
            Phase::BackingOff { until: _ } => RequestPhase::BackingOff,
            Phase::Storing { answer: _ } => RequestPhase::Storing,
        }
    }

    // ---- time and slots

    /// Time never goes backwards.
    fn advance(&mut self, now: Instant) -> Instant {
        let now = self.now.map_or(now, |latest| latest.max(now));
        self.now = Some(now);
        now
    }

    /// After every input: do what is due, then fill the free slots.
    fn settle(&mut self, now: Instant) {
        while let Some((at, timer)) = self.timers.first().copied()
            && at <= now
        {
            self.timers.pop_first();
            match timer {
                Timer::Lost(step) => self.lose(step),
                Timer::Deadline(id) => self.expire(id, now),
                Timer::Retry(id) => self.try_again(id, now),
            }
        }
        while self.free_slots() > 0
            && let Some(step) = self.waiting.pop()
        {
            self.start(step);
        }
    }

    fn start(&mut self, step: StepId) {
        let Some(query) = self.queries.get_mut(&step) else { return };
        if let QueryState::Queued { ticket: _, line: Line::New(_) } = query.state {
            self.queued -= query.waiters.len();
        }
        query.state = QueryState::Starting;
        self.running += 1;
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

fn waiter(id: RequestId, request: &LiveRequest, max_items: usize) -> Waiter {
    Waiter {
        request: id,
        need: judge::need(&request.operation, max_items),
        streaming: request.options.streaming,
        priority: request.options.priority,
    }
}

/// An even draw that depends on its arguments alone (the finaliser of SplitMix64, Steele and others, 2014).
fn lot(seed: u64, id: RequestId, attempt: u32) -> u64 {
    let mut z = seed
        .wrapping_add(id.0.wrapping_mul(0x9E37_79B9_7F4A_7C15))
        .wrapping_add(u64::from(attempt).wrapping_mul(0xD1B5_4A32_D192_ED03));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

fn saturating_add(now: Instant, span: Duration) -> Instant {
    now.checked_add(span).or_else(|| now.checked_add(FAR_FUTURE)).unwrap_or(now)
}

impl Query {
    /// Which of kad's operations this is.
    pub fn kind(&self) -> OperationKind {
        match self {
            Self::GetRecord { key: _ } => OperationKind::GetRecord,
            Self::PutRecordTo { record: _, peers: _ } => OperationKind::PutRecordTo,
            Self::GetProviders { key: _ } => OperationKind::GetProviders,
            Self::StartProviding { key: _ } => OperationKind::StartProviding,
            Self::GetClosestPeers { target: _ } => OperationKind::GetClosestPeers,
            Self::Bootstrap => OperationKind::Bootstrap,
        }
    }
}
