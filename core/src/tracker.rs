mod judge;
mod remembered;
mod waiting;

use std::{
    collections::{BTreeSet, VecDeque},
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
    judge::{Fault, Findings, Judge, Verdict, distinct, first_query, fits},
    remembered::Remembered,
    waiting::{Ticket, WaitingLine},
};
use crate::{
    Action, Command, CommandError, InvalidRequest, MAX_RUNNING_CEILING, Operation, OperationKind, Outcome, Policy,
    Progress, PutAnswer, PutRecordError, Query, QueryEvent, QueryPhase, QueryView, Request, RequestError, RequestId,
    RequestPhase, RequestView, Snapshot, StartError, Started, Stats, StepId, TrackerConfig,
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
    requests: FxHashMap<RequestId, LiveRequest>,
    waiting: WaitingLine,
    /// One entry for each slot in use.
    queries: FxHashMap<StepId, LiveQuery<Id>>,
    /// Which query kad's id names.
    steps: FxHashMap<Id, StepId>,
    remembered: Remembered<Id>,
    announcements: FxHashMap<RecordKey, Announcements>,
    timers: BTreeSet<(Instant, Timer)>,
    actions: VecDeque<Action<Id>>,
    last_step: u64,
    shutting_down: bool,
    stats: Stats,
}

/// A request from its acceptance to its outcome.
///
/// ```text
///   Queued ──► Running ──► outcome            A put:  Running ──► BetweenSteps ──► Running ──► Storing ──► outcome
///      └─────────────────► outcome                    (lookup)                     (store)
/// ```
#[derive(Debug)]
struct LiveRequest {
    operation: Operation,
    streaming: bool,
    accepted: Instant,
    deadline: Instant,
    phase: Phase,
    /// Whether kad was told to announce us, so that a failure takes the local entry back.
    announced: bool,
}

#[derive(Debug)]
enum Phase {
    Queued { ticket: Ticket },
    Running { step: StepId },
    BetweenSteps { ticket: Ticket, peers: Arc<[PeerId]>, lookup: Progress },
    Storing { answer: PutAnswer },
}

/// A query from the order to start it until kad has ended it. It holds a slot all the while.
#[derive(Debug)]
struct LiveQuery<Id> {
    query: Query,
    findings: Findings,
    state: QueryState<Id>,
    asked_at: Instant,
    progress: Progress,
}

/// ```text
///              started            nobody wants it          last event
///   Starting ──────────► Running ────────────────► Finishing ─────────► gone
///      │ nobody wants it      │ last event             ▲  └ lost_after ─► gone, remembered
///      ▼         started      └──────────► gone        │
///   Abandoned ─────────────────────────────────────────┘      Starting, Abandoned: gone when refused,
///                                                             Abandoned: gone after lost_after
/// ```
#[derive(Debug)]
enum QueryState<Id> {
    Starting { request: RequestId },
    Abandoned { lost_at: Instant },
    Running { id: Id, request: RequestId },
    Finishing { id: Id, lost_at: Instant },
}

/// The announcements of one key that are under way.
#[derive(Debug)]
struct Announcements {
    live: usize,
    /// Whether the local entry stays when the last of them fails.
    keep: bool,
}

/// What is due at a point in time. At the same point, slots come back before deadlines pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Lost(StepId),
    Deadline(RequestId),
}

impl<Id: Copy + Eq + Hash + fmt::Debug> QueryTracker<Id> {
    /// An empty tracker for the node `local_peer`.
    pub fn new(local_peer: PeerId, mut config: TrackerConfig) -> Self {
        config.max_running = config.max_running.clamp(1, MAX_RUNNING_CEILING);
        config.max_items = config.max_items.max(1);
        Self {
            config,
            local_peer,
            now: None,
            requests: FxHashMap::default(),
            waiting: WaitingLine::default(),
            queries: FxHashMap::default(),
            steps: FxHashMap::default(),
            remembered: Remembered::new(),
            announcements: FxHashMap::default(),
            timers: BTreeSet::new(),
            actions: VecDeque::new(),
            last_step: 0,
            shutting_down: false,
            stats: Stats::default(),
        }
    }

    /// Takes a command of the caller's side.
    ///
    /// # Errors
    ///
    /// A request may be refused: it then has no outcome, and nothing was changed. A cancel or shutdown never fails.
    pub fn handle_command(&mut self, command: Command, now: Instant) -> Result<(), CommandError> {
        let now = self.advance(now);
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
        self.started(step, result, now);
        self.settle(now);
    }

    /// Takes the answer to [`Action::StoreLocal`].
    pub fn handle_stored(&mut self, request: RequestId, result: Result<(), store::Error>, now: Instant) {
        let now = self.advance(now);
        match self.requests.get_mut(&request) {
            Some(LiveRequest { phase: Phase::Storing { answer }, .. }) => {
                let PutAnswer { acknowledged, asked, progress } = answer;
                let acknowledged = mem::take(acknowledged);
                let outcome = Outcome::PutRecord(match result {
                    Ok(()) => Ok(PutAnswer { acknowledged, asked: *asked, progress: *progress }),
                    Err(error) => Err(PutRecordError::Store { error, acknowledged }),
                });
                self.end(request, outcome, now);
            }
            Some(_) | None => self.stats.unknown_inputs += 1,
        }
        self.settle(now);
    }

    /// Takes an event of kad. Events of queries that are not alive do nothing.
    pub fn handle_event(&mut self, event: QueryEvent<Id>, now: Instant) {
        let now = self.advance(now);
        match self.steps.get(&event.id) {
            Some(step) => self.event(*step, event, now),
            None => self.stats.unknown_inputs += 1,
        }
        self.settle(now);
    }

    /// Does what is due: deadlines, and slots whose query was lost. Calls before that time do nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        let now = self.advance(now);
        self.settle(now);
    }

    /// The next thing to do. `None` until the next input.
    pub fn poll_action(&mut self) -> Option<Action<Id>> {
        self.actions.pop_front()
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
        self.queries.len()
    }

    /// The configuration in force.
    pub fn config(&self) -> &TrackerConfig {
        &self.config
    }

    /// What was counted so far.
    pub fn stats(&self) -> Stats {
        self.stats
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
                phase: match request.phase {
                    Phase::Queued { ticket: _ } => RequestPhase::Queued,
                    Phase::Running { step: _ } => RequestPhase::Running,
                    Phase::BetweenSteps { ticket: _, peers: _, lookup: _ } => RequestPhase::BetweenSteps,
                    Phase::Storing { answer: _ } => RequestPhase::Storing,
                },
                age: now.saturating_duration_since(request.accepted),
                remaining: request.deadline.saturating_duration_since(now),
            })
            .collect();
        requests.sort_unstable_by_key(|request| request.id);
        let mut queries: Vec<_> = self.queries.iter().collect();
        queries.sort_unstable_by_key(|(step, _)| **step);
        let queries = queries
            .into_iter()
            .map(|(_, query)| {
                let (id, phase, request) = match query.state {
                    QueryState::Starting { request } => (None, QueryPhase::Starting, Some(request)),
                    QueryState::Abandoned { lost_at: _ } => (None, QueryPhase::Finishing, None),
                    QueryState::Running { id, request } => (Some(id), QueryPhase::Running, Some(request)),
                    QueryState::Finishing { id, lost_at: _ } => (Some(id), QueryPhase::Finishing, None),
                };
                let operation = query.query.kind();
                let age = now.saturating_duration_since(query.asked_at);
                QueryView { id, operation, phase, request, age, progress: query.progress }
            })
            .collect();
        Snapshot { requests, queries }
    }

    // ---- commands

    fn accept(&mut self, request: Request, now: Instant) -> Result<(), CommandError> {
        let Request { id, operation, options } = request;
        let operation = self.check(id, operation, now).inspect_err(|_| self.stats.refused += 1)?;
        let deadline = saturating_add(now, options.timeout.unwrap_or(self.config.default_timeout));
        let phase = Phase::Queued { ticket: self.waiting.push_request(id) };
        let streaming = options.streaming;
        let request = LiveRequest { operation, streaming, accepted: now, deadline, phase, announced: false };
        self.requests.insert(id, request);
        self.timers.insert((deadline, Timer::Deadline(id)));
        self.stats.accepted += 1;
        Ok(())
    }

    /// Everything that refuses a request, before anything is changed.
    fn check(&self, id: RequestId, mut operation: Operation, now: Instant) -> Result<Operation, RequestError> {
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
        match &mut operation {
            Operation::GetRecord { key: _, policy } | Operation::GetProviders { key: _, policy } => {
                if *policy == Policy::Limit(0) {
                    return Err(InvalidRequest::ZeroLimit.into());
                }
            }
            Operation::PutRecord { record, quorum: _ } => self.check_record(record, now)?,
            Operation::PutRecordTo { record, peers, quorum: _ } => {
                self.check_record(record, now)?;
                // kad never ends a store at our own id, and a repetition makes `Quorum::All` impossible.
                *peers = distinct(peers.iter().copied().filter(|peer| *peer != self.local_peer));
                if peers.is_empty() {
                    return Err(InvalidRequest::NoPeers.into());
                }
            }
            Operation::StartProviding { key: _ } | Operation::GetClosestPeers { target: _ } | Operation::Bootstrap => {}
        }
        if self.waiting.requests() >= self.config.max_queued && self.free_slots() == 0 {
            return Err(RequestError::Overloaded);
        }
        if let Operation::PutRecord { record, quorum: _ } = &mut operation {
            Arc::make_mut(record).publisher = Some(self.local_peer);
        }
        Ok(operation)
    }

    fn check_record(&self, record: &Record, now: Instant) -> Result<(), InvalidRequest> {
        let (len, max) = (record.value.len(), self.config.max_value_len_for(record.key.as_ref().len()));
        if len > max {
            return Err(InvalidRequest::ValueTooLarge { len, max });
        }
        if record.is_expired(now) {
            return Err(InvalidRequest::RecordExpired);
        }
        Ok(())
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

    // ---- queries: every combination of state and input

    fn started(&mut self, step: StepId, result: Result<Started<Id>, StartError>, now: Instant) {
        let Some(query) = self.queries.get_mut(&step) else {
            self.stats.unknown_inputs += 1;
            return;
        };
        match (&query.state, result) {
            // An id that is in use cannot be told apart from its first bearer: the second one is never heard of.
            (QueryState::Starting { .. } | QueryState::Abandoned { .. }, Ok(started))
                if self.steps.contains_key(&started.id) =>
            {
                self.stats.unknown_inputs += 1;
            }
            (QueryState::Starting { request }, Ok(Started { id, had_provider })) => {
                let request = *request;
                query.state = QueryState::Running { id, request };
                self.steps.insert(id, step);
                if let Query::StartProviding { key } = &query.query {
                    let key = key.clone();
                    if let Some(request) = self.requests.get_mut(&request) {
                        request.announced = true;
                    }
                    self.announcement_began(key, had_provider);
                }
            }
            (QueryState::Abandoned { lost_at }, Ok(Started { id, had_provider })) => {
                query.state = QueryState::Finishing { id, lost_at: *lost_at };
                self.steps.insert(id, step);
                self.actions.push_back(Action::Finish(id));
                if let Query::StartProviding { key } = &query.query {
                    let key = key.clone();
                    self.announcement_began(key.clone(), had_provider);
                    self.announcement_ended(&key, false);
                }
            }
            (QueryState::Starting { request }, Err(error)) => {
                let request = *request;
                self.queries.remove(&step);
                if let Some(live) = self.requests.get(&request) {
                    let outcome = self.judge(&live.operation).refused(error);
                    self.end(request, outcome, now);
                }
            }
            (QueryState::Abandoned { lost_at }, Err(_)) => {
                let timer = (*lost_at, Timer::Lost(step));
                self.timers.remove(&timer);
                self.queries.remove(&step);
            }
            (QueryState::Running { .. } | QueryState::Finishing { .. }, Ok(_) | Err(_)) => {
                self.stats.unknown_inputs += 1;
            }
        }
    }

    fn event(&mut self, step: StepId, event: QueryEvent<Id>, now: Instant) {
        let QueryEvent { id, result, progress, last } = event;
        let Some(query) = self.queries.get_mut(&step) else { return };
        if !fits(query.query.kind(), &result) {
            self.stats.mismatched_events += 1;
            return;
        }
        query.progress = progress;
        match (&query.state, last) {
            (QueryState::Running { id: _, request }, last) => {
                let request = *request;
                let Some(live) = self.requests.get(&request) else { return };
                let judge =
                    Judge { operation: &live.operation, local_peer: self.local_peer, max_items: self.config.max_items };
                let actions = &mut self.actions;
                let verdict = judge.event(&mut query.findings, result, progress, last, &mut |item| {
                    if live.streaming {
                        actions.push_back(Action::Item { request, item });
                    }
                });
                if last {
                    self.queries.remove(&step);
                    self.steps.remove(&id);
                }
                match verdict {
                    Ok(verdict) => self.apply(request, verdict, now),
                    Err(Fault::Mismatch) => self.stats.mismatched_events += 1,
                    Err(Fault::ForeignRecord) => self.stats.foreign_records += 1,
                }
            }
            (QueryState::Finishing { id: _, lost_at }, true) => {
                let timer = (*lost_at, Timer::Lost(step));
                self.timers.remove(&timer);
                self.queries.remove(&step);
                self.steps.remove(&id);
            }
            // The answers that were under way; nobody wants them.
            (QueryState::Finishing { .. }, false) => {}
            // Without an id there is no event that could be this query's.
            (QueryState::Starting { .. } | QueryState::Abandoned { .. }, _) => {}
        }
    }

    /// A query is not wanted any more: kad is told, and the slot stays taken until kad has ended it.
    fn let_go(&mut self, step: StepId, now: Instant) {
        let lost_at = saturating_add(now, self.config.lost_after);
        let Some(query) = self.queries.get_mut(&step) else { return };
        match query.state {
            QueryState::Starting { request: _ } => query.state = QueryState::Abandoned { lost_at },
            QueryState::Running { id, request: _ } => {
                query.state = QueryState::Finishing { id, lost_at };
                self.actions.push_back(Action::Finish(id));
            }
            QueryState::Abandoned { .. } | QueryState::Finishing { .. } => return,
        }
        self.timers.insert((lost_at, Timer::Lost(step)));
    }

    /// A query's last event never came: the slot comes back, and the id is remembered.
    fn lose(&mut self, step: StepId) {
        let Some(query) = self.queries.remove(&step) else { return };
        self.stats.lost_queries += 1;
        match query.state {
            QueryState::Finishing { id, lost_at: _ } | QueryState::Running { id, request: _ } => {
                self.steps.remove(&id);
                self.remembered.insert(id);
                self.actions.push_back(Action::Forget(id));
            }
            QueryState::Abandoned { lost_at: _ } | QueryState::Starting { request: _ } => {}
        }
    }

    // ---- requests

    fn apply(&mut self, id: RequestId, verdict: Verdict, now: Instant) {
        match verdict {
            Verdict::Continue => {}
            Verdict::Done(outcome) => self.end(id, outcome, now),
            Verdict::StoreAt { peers, lookup } => {
                let ticket = self.waiting.push_step(id);
                if let Some(request) = self.requests.get_mut(&id) {
                    request.phase = Phase::BetweenSteps { ticket, peers, lookup };
                }
            }
            Verdict::KeepLocally(answer) => {
                if let Some(request) = self.requests.get_mut(&id) {
                    request.phase = Phase::Storing { answer };
                    if let Operation::PutRecord { record, quorum: _ } = &request.operation {
                        let record = Arc::clone(record);
                        self.actions.push_back(Action::StoreLocal { request: id, record });
                    }
                }
            }
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
        let judge = self.judge(&request.operation);
        let outcome = match &request.phase {
            Phase::Queued { ticket: _ } => Outcome::failed(request.operation.kind(), RequestError::ExpiredInQueue),
            Phase::BetweenSteps { ticket: _, peers: _, lookup } => judge.timeout(None, *lookup),
            Phase::Storing { answer } => Outcome::PutRecord(Err(PutRecordError::Timeout {
                sent_to: answer.acknowledged.clone(),
                progress: answer.progress,
            })),
            Phase::Running { step } => {
                let step = *step;
                let (local_peer, max_items) = (self.local_peer, self.config.max_items);
                let query = self.queries.get_mut(&step);
                let (findings, progress) = match query {
                    Some(query) => (Some(mem::replace(&mut query.findings, Findings::ClosestPeers)), query.progress),
                    None => (None, Progress::default()),
                };
                Judge { operation: &request.operation, local_peer, max_items }.timeout(findings, progress)
            }
        };
        self.end(id, outcome, now);
    }

    /// The one place where a request ends.
    fn end(&mut self, id: RequestId, outcome: Outcome, now: Instant) {
        let Some(request) = self.requests.remove(&id) else { return };
        self.timers.remove(&(request.deadline, Timer::Deadline(id)));
        let ok = outcome.is_ok();
        self.actions.push_back(Action::Outcome { request: id, outcome });
        match request.phase {
            Phase::Queued { ticket } | Phase::BetweenSteps { ticket, peers: _, lookup: _ } => {
                self.waiting.remove(ticket);
            }
            Phase::Running { step } => self.let_go(step, now),
            Phase::Storing { answer: _ } => {}
        }
        if request.announced
            && let Operation::StartProviding { key } = &request.operation
        {
            self.announcement_ended(key, ok);
        }
    }

    fn announcement_began(&mut self, key: RecordKey, had_provider: bool) {
        let announcements = self.announcements.entry(key).or_insert(Announcements { live: 0, keep: had_provider });
        announcements.live += 1;
    }

    fn announcement_ended(&mut self, key: &RecordKey, ok: bool) {
        let Some(announcements) = self.announcements.get_mut(key) else { return };
        announcements.keep |= ok;
        announcements.live -= 1;
        if announcements.live > 0 {
            return;
        }
        if !announcements.keep {
            self.actions.push_back(Action::StopProviding { key: key.clone() });
        }
        self.announcements.remove(key);
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
            }
        }
        while self.free_slots() > 0
            && let Some(id) = self.waiting.pop()
        {
            self.start(id, now);
        }
    }

    fn start(&mut self, id: RequestId, now: Instant) {
        let Some(request) = self.requests.get_mut(&id) else { return };
        self.last_step += 1;
        let step = StepId(self.last_step);
        let (query, lookup) = match (mem::replace(&mut request.phase, Phase::Running { step }), &request.operation) {
            (
                Phase::BetweenSteps { ticket: _, peers, lookup },
                Operation::PutRecord { record, quorum: _ } | Operation::PutRecordTo { record, peers: _, quorum: _ },
            ) => (Query::PutRecordTo { record: Arc::clone(record), peers }, lookup),
            (_, operation) => (first_query(operation), Progress::default()),
        };
        let findings = Findings::of(&query, lookup);
        self.actions.push_back(Action::Start { step, request: id, query: query.clone() });
        let state = QueryState::Starting { request: id };
        self.queries.insert(step, LiveQuery { query, findings, state, asked_at: now, progress: Progress::default() });
    }

    fn free_slots(&self) -> usize {
        self.config.max_running.saturating_sub(self.queries.len())
    }

    fn judge<'a>(&self, operation: &'a Operation) -> Judge<'a> {
        Judge { operation, local_peer: self.local_peer, max_items: self.config.max_items }
    }
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
