//! The reference model: what the tracker has to do, written down in the plainest way.
//!
//! Everything is a list, and every question is answered by looking at all of it. What several callers could tell apart
//! is decided here by these rules, in addition to the public documentation of `kadence-core`:
//!
//! 1. A command finds everything done that was due before it. After every input, what is due is done: by its time, and
//!    at the same time lost queries first, then deadlines, then retries, then looks at queries that may have stalled, each
//!    by their numbers. Then free slots are filled.
//! 2. Those who wait for a query are served by what they need: the fewest items, then the fewest votes, then the fewest
//!    votes for the best, then those who wait for the end; where that is the same, by their ids.
//! 3. Queries wait in the order in which they were first wanted. A further step of a put or a lookup stands ahead of all others,
//!    that of a higher class first; the others, retries too, stand in the class of the highest of their waiters. Of the
//!    requests of one class, the one with the highest id is shed first.
//! 4. Each start of a class moves it on by the inverse of its share; the class that is least far is next, the higher
//!    one if they are level; a class that was empty begins where the last start was.
//! 5. What a query's end brings to a request comes before what the end of that request brings to the query:
//!    outcome, then `Finish`, then `StopProviding`.

mod cache;
mod closest;
mod line;
mod lot;
mod outcomes;
mod puts;
mod read_repair;
mod results;
mod stall;
mod view;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use kadence_core::{
    Action, Command, InvalidRequestError, LocalCopy, MAX_RUNNING_CEILING, Operation, OperationKind, Outcome,
    OutcomeKind, Overload, Policy, Progress, PutAnswer, PutRecordError, Query, QueryEvent, QueryStartError, Quorum,
    Request, RequestError, RequestId, RequestOptions, Started, TrackerConfig,
};
use libp2p::{
    PeerId,
    kad::{Record, RecordKey, store},
};

pub use self::view::View;
use self::{
    cache::Kept,
    line::{Line, Turns},
    outcomes::QueryEnd,
    results::{Anomaly, Found, Threshold},
};

/// A span that cannot be added to a point in time counts as so much.
const DECADES: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// How many lost ids are remembered.
const REMEMBERED: usize = 1024;

/// An action that the tracker has to give.
#[derive(Debug, Clone)]
pub enum Expected {
    /// `Action::Start`. Step ids cannot be made outside of the core, so the model has numbers of its own for them.
    Start {
        /// The model's number.
        step: u64,
        /// On whose behalf.
        request: RequestId,
        /// What to start.
        query: Query,
    },
    /// Exactly this action.
    Action(Action<u32>),
}

/// Predicts a tracker.
#[derive(Debug)]
pub struct Model {
    config: TrackerConfig,
    local: PeerId,
    now: Option<Instant>,
    /// In the order of their acceptance.
    requests: Vec<LiveRequest>,
    /// In the order in which they were first wanted.
    queries: Vec<LiveQuery>,
    announcements: Vec<Announcements>,
    turns: Turns,
    last_step: u64,
    /// The smoothed round trip, once one was measured.
    round_trip: Option<Duration>,
    last_read_repair: u64,
    lost: Vec<u32>,
    /// Answers for later requests, one for each read of a key.
    cache: Vec<Kept>,
    shutting_down: bool,
    view: View,
    /// How each request ended, and after which time.
    ended: Vec<(OperationKind, OutcomeKind, Duration)>,
    out: Vec<Expected>,
}

#[derive(Debug)]
struct LiveRequest {
    id: RequestId,
    operation: Operation,
    options: RequestOptions,
    accepted: Instant,
    deadline: Instant,
    place: Place,
    /// Of a put that is past its lookup.
    put: Option<puts::Put>,
    /// Of a thorough lookup, what the first of its two has found.
    first: Option<closest::First>,
    failed_attempts: u32,
    /// What each of them has left, the first one first.
    earlier: Vec<outcomes::Attempt>,
    /// Whether a step of it has ended. Until then it is a new request.
    begun: bool,
    /// Whether it is at a step that a lookup of its own has led to.
    second_step: bool,
    /// Whether kad has entered us as a provider on its behalf.
    announced: bool,
}

/// What a request waits for.
#[derive(Debug)]
enum Place {
    Query(u64),
    Retry(Instant),
    /// Without an answer, it has not begun.
    LocalStore(Option<PutAnswer>),
    LocalPeers,
}

#[derive(Debug)]
struct LiveQuery {
    step: u64,
    query: Query,
    state: State,
    found: Found,
    progress: Progress,
    started: Instant,
    /// When kad last said something of it.
    heard: Instant,
    /// When it was last known to get on.
    moved: Instant,
    /// When it is looked at.
    look: Option<Instant>,
    /// Whether it was looked at, and kad has not said yet how far it got.
    probed: bool,
    /// Whether it was finished early.
    finished_early: bool,
    /// Whether kad was heard of it after a peer had answered.
    answered: bool,
    /// Nobody joins it any more.
    closed: bool,
    /// Its key was written to since it began.
    outdated: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting(Line),
    /// Has a slot; kad has not answered yet.
    Starting,
    Running(u32),
    /// kad's last event is being taken in.
    QueryEnd(u32),
    /// Nobody wants it. Without an id if kad has not answered yet.
    Finishing(Option<u32>, Instant),
}

/// The announcements of one key that kad was told to start and that are not over.
#[derive(Debug)]
struct Announcements {
    key: RecordKey,
    live: usize,
    /// What kad said first about an entry of ours.
    had_provider: Option<bool>,
    succeeded: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Lost(u64),
    Deadline(RequestId),
    Retry(RequestId),
    Look(u64),
}

impl Model {
    /// Of an empty tracker.
    pub fn new(local: PeerId, mut config: TrackerConfig) -> Self {
        config.max_running = config.max_running.clamp(1, MAX_RUNNING_CEILING);
        config.max_items = config.max_items.max(1);
        let turns = Turns::new(config.shares);
        Self {
            config,
            local,
            now: None,
            requests: Vec::new(),
            queries: Vec::new(),
            announcements: Vec::new(),
            turns,
            last_step: 0,
            round_trip: None,
            last_read_repair: 0,
            lost: Vec::new(),
            cache: Vec::new(),
            shutting_down: false,
            view: View::default(),
            ended: Vec::new(),
            out: Vec::new(),
        }
    }

    /// `QueryTracker::handle_command`.
    ///
    /// # Errors
    ///
    /// As the tracker's.
    pub fn command(&mut self, command: Command, now: Instant) -> Result<(), RequestError> {
        let now = self.clock(now);
        self.settle(now);
        let result = match command {
            Command::Request(request) => self.accept(request, now),
            Command::Cancel { id } => {
                self.fail(id, RequestError::Cancelled, now);
                Ok(())
            }
            Command::Shutdown { drain } => {
                self.shutting_down = true;
                let mut ids: Vec<_> = self.requests.iter().map(|request| request.id).collect();
                ids.retain(|id| !drain || id.is_reserved());
                ids.sort();
                for id in ids {
                    self.fail(id, RequestError::Shutdown, now);
                }
                Ok(())
            }
            Command::Forget { key } => {
                self.written(&key);
                Ok(())
            }
        };
        self.settle(now);
        result
    }

    /// `QueryTracker::handle_started`, with the model's number of the step.
    pub fn started(&mut self, step: u64, result: Result<Started<u32>, QueryStartError>, now: Instant) {
        let now = self.clock(now);
        self.take_start(step, result, now);
        self.settle(now);
    }

    /// `QueryTracker::handle_stored`.
    pub fn stored(&mut self, id: RequestId, result: Result<(), store::Error>, now: Instant) {
        let now = self.clock(now);
        let waits = self.request(id).and_then(|request| match &request.place {
            Place::LocalStore(answer) => Some((answer.clone(), request.operation.clone())),
            Place::Query(_) | Place::Retry(_) | Place::LocalPeers => None,
        });
        match (waits, result) {
            (None, _) => self.view.unknown_inputs += 1,
            (Some((None, operation)), Ok(())) => self.want(id, first_query(&operation), now),
            (Some((Some(answer), _)), Ok(())) => self.end(id, Outcome::PutRecord(Ok(answer)), now),
            (Some((answer, _)), Err(error)) => {
                let acknowledged = answer.map_or_else(Vec::new, |answer| answer.acknowledged);
                self.end(id, Outcome::PutRecord(Err(PutRecordError::Store { error, acknowledged })), now);
            }
        }
        self.settle(now);
    }

    /// `QueryTracker::handle_event`.
    pub fn event(&mut self, event: QueryEvent<u32>, now: Instant) {
        let now = self.clock(now);
        self.take_event(event, now);
        self.settle(now);
    }

    /// `QueryTracker::handle_probe`.
    pub fn probe(&mut self, id: u32, progress: Option<Progress>, now: Instant) {
        let now = self.clock(now);
        self.take_probe(id, progress, now);
        self.settle(now);
    }

    /// `QueryTracker::handle_query_count`.
    pub fn census(&mut self, live: usize, now: Instant) {
        let now = self.clock(now);
        self.view.kad_own_queries = live.saturating_sub(self.live_queries()) as u64;
        self.settle(now);
    }

    /// `QueryTracker::handle_timeout`.
    pub fn timeout(&mut self, now: Instant) {
        let now = self.clock(now);
        self.settle(now);
    }

    /// Everything that the tracker's `poll_action` has to give before `None`.
    pub fn take_actions(&mut self) -> Vec<Expected> {
        std::mem::take(&mut self.out)
    }

    // ---- requests

    fn accept(&mut self, request: Request, now: Instant) -> Result<(), RequestError> {
        let Request { id, operation, options } = request;
        if let Err(error) = self.check(id, &operation, now) {
            self.view.refused += 1;
            return Err(error);
        }
        if let Some((items, outcome)) = self.cached(&operation, &options, now) {
            self.view.accepted += 1;
            self.ended.push((outcome.kind(), OutcomeKind::of(&outcome), Duration::ZERO));
            for item in items.into_iter().filter(|_| options.streaming) {
                self.give(Action::Item { request: id, item });
            }
            self.give(Action::Outcome { request: id, outcome });
            return Ok(());
        }
        if let Err(error) = self.make_room(&operation, &options, now) {
            self.view.refused += 1;
            return Err(error);
        }
        self.view.accepted += 1;
        self.writes(&operation);
        let timeout = options.timeout.unwrap_or(self.config.default_timeout);
        let operation = self.ours(operation);
        self.requests.push(LiveRequest {
            id,
            operation: operation.clone(),
            options,
            accepted: now,
            deadline: later(now, timeout),
            place: Place::Retry(now),
            put: None,
            first: None,
            failed_attempts: 0,
            earlier: Vec::new(),
            begun: false,
            second_step: false,
            announced: false,
        });
        match &operation {
            Operation::PutRecord { record, quorum: _, options } if options.local_copy == LocalCopy::First => {
                if let Some(request) = self.request_mut(id) {
                    request.place = Place::LocalStore(None);
                }
                self.give(Action::StoreLocal { request: id, record: Arc::clone(record) });
            }
            _ => self.want(id, first_query(&operation), now),
        }
        Ok(())
    }

    fn check(&self, id: RequestId, operation: &Operation, now: Instant) -> Result<(), RequestError> {
        if self.shutting_down {
            return Err(RequestError::Shutdown);
        }
        if id.is_reserved() {
            return Err(InvalidRequestError::ReservedId.into());
        }
        if self.request(id).is_some() {
            return Err(InvalidRequestError::DuplicateId.into());
        }
        let len = operation.key().len();
        if len > self.config.max_key_len {
            return Err(InvalidRequestError::KeyTooLong { len, max: self.config.max_key_len }.into());
        }
        match operation {
            Operation::GetRecord { key, policy } => match policy {
                Policy::Limit(0) | Policy::Quorum(Quorum::N(0)) | Policy::Best { agree: Some(Quorum::N(0)) } => {
                    Err(InvalidRequestError::ZeroLimit.into())
                }
                Policy::Best { agree: _ } if self.config.validators.of(key.as_ref()).is_none() => {
                    Err(InvalidRequestError::NoValidator.into())
                }
                Policy::First | Policy::Limit(_) | Policy::All | Policy::Quorum(_) | Policy::Best { agree: _ } => {
                    Ok(())
                }
            },
            Operation::GetProviders { key: _, policy } => match policy {
                Policy::Limit(0) => Err(InvalidRequestError::ZeroLimit.into()),
                Policy::Quorum(_) | Policy::Best { agree: _ } => Err(InvalidRequestError::PolicyForRecords.into()),
                Policy::First | Policy::Limit(_) | Policy::All => Ok(()),
            },
            Operation::PutRecord { quorum: Quorum::N(0), .. } | Operation::PutRecordTo { quorum: Quorum::N(0), .. } => {
                Err(InvalidRequestError::ZeroLimit.into())
            }
            Operation::PutRecord { record, quorum: _, options: _ } => self.check_record(record, now),
            Operation::PutRecordTo { record, peers, quorum: _ } => {
                self.check_record(record, now)?;
                if peers.iter().any(|peer| *peer != self.local) {
                    Ok(())
                } else {
                    Err(InvalidRequestError::NoPeers.into())
                }
            }
            Operation::StartProviding { .. } | Operation::GetClosestPeers { .. } | Operation::Bootstrap => Ok(()),
        }
    }

    fn check_record(&self, record: &Record, now: Instant) -> Result<(), RequestError> {
        // Keys are short in this world, so that the packet never takes less than this.
        let (len, max) = (record.value.len(), self.config.max_value_len);
        if len > max {
            return Err(InvalidRequestError::ValueTooLong { len, max }.into());
        }
        if record.expires.is_some_and(|at| at <= now) {
            return Err(InvalidRequestError::RecordExpired.into());
        }
        if let Some(validator) = self.config.validators.of(record.key.as_ref())
            && let Err(rejected) = validator.validate(&record.key, &record.value)
        {
            return Err(InvalidRequestError::Rejected { reason: rejected.0 }.into());
        }
        Ok(())
    }

    fn make_room(&mut self, operation: &Operation, options: &RequestOptions, now: Instant) -> Result<(), RequestError> {
        let query = first_query(operation);
        let room = self.config.max_queued.saturating_add(self.config.max_running);
        let has_slot = |other: &&LiveQuery| !matches!(other.state, State::Waiting(_));
        if self.queries.iter().filter(has_slot).any(|other| self.joinable(other, &query, now)) {
            // It needs no slot, and no place in the queue; but there are only so many requests.
            return if self.requests.len() < room.saturating_mul(2) { Ok(()) } else { Err(RequestError::Overloaded) };
        }
        let full = self.queued() >= self.config.max_queued && self.live_queries() >= self.config.max_running;
        let crowded = self.requests.len() >= room.saturating_mul(3);
        if !full && !crowded {
            return Ok(());
        }
        let victim = match self.config.overload {
            Overload::Refuse => None,
            Overload::Shed => self.last_below(options.priority),
        };
        let victim = victim.ok_or(RequestError::Overloaded)?;
        self.fail(victim, RequestError::Overloaded, now);
        Ok(())
    }

    /// The operation as kad will be asked for it.
    fn ours(&self, operation: Operation) -> Operation {
        match operation {
            Operation::PutRecord { record, quorum, options } => {
                let record = Record { publisher: Some(self.local), ..(*record).clone() };
                Operation::PutRecord { record: Arc::new(record), quorum, options }
            }
            Operation::PutRecordTo { record, peers, quorum } => {
                Operation::PutRecordTo { record, peers: without(&peers, self.local), quorum }
            }
            other @ (Operation::GetRecord { .. }
            | Operation::GetProviders { .. }
            | Operation::StartProviding { .. }
            | Operation::GetClosestPeers { .. }
            | Operation::Bootstrap) => other,
        }
    }

    fn fail(&mut self, id: RequestId, error: RequestError, now: Instant) {
        if let Some(request) = self.request(id) {
            let outcome = outcomes::failed(&request.operation, error);
            self.end(id, outcome, now);
        }
    }

    fn end(&mut self, id: RequestId, outcome: Outcome, now: Instant) {
        let Some(at) = self.requests.iter().position(|request| request.id == id) else { return };
        let request = self.requests.remove(at);
        let ok = outcome.is_ok();
        if !id.is_reserved() {
            let took = now.saturating_duration_since(request.accepted);
            self.ended.push((outcome.kind(), OutcomeKind::of(&outcome), took));
            self.give(Action::Outcome { request: id, outcome });
            self.writes(&request.operation);
        }
        if let Place::Query(step) = request.place {
            self.left(step, now);
        }
        if request.announced {
            self.announcement_over(&request.operation, ok);
        }
    }

    /// An attempt is over: another one follows, or this was the outcome.
    fn conclude(&mut self, id: RequestId, outcome: Outcome, attempt: Option<&LiveQuery>, now: Instant) {
        let found_items = attempt.is_some_and(|query| !query.found.is_empty());
        let again = self.retry_at(id, &outcome, found_items, now);
        let Some((until, request)) = again.and_then(|until| Some((until, self.request_mut(id)?))) else {
            self.end(id, outcome, now);
            return;
        };
        request.failed_attempts += 1;
        let put = request.put.take().map(|put| outcomes::Attempt::of_put(&put));
        request.earlier.extend(put.or_else(|| attempt.map(outcomes::Attempt::of)));
        request.begun = true;
        request.second_step = false;
        request.place = Place::Retry(until);
        if std::mem::take(&mut request.announced) {
            let operation = request.operation.clone();
            self.announcement_over(&operation, false);
        }
    }

    fn retry_at(&self, id: RequestId, outcome: &Outcome, found_items: bool, now: Instant) -> Option<Instant> {
        let request = self.request(id)?;
        let retry = request.options.retry?;
        let attempt = request.failed_attempts + 1;
        let delivered = request.options.streaming && found_items;
        if !outcomes::worth_retrying(outcome) || attempt >= retry.attempts || delivered {
            return None;
        }
        let until = later(now, lot::wait(self.config.seed, id, retry, attempt));
        (until < request.deadline).then_some(until)
    }

    fn expire(&mut self, id: RequestId, now: Instant) {
        let Some(request) = self.request(id) else { return };
        let outcome = match &request.place {
            Place::Query(step) => match self.query(*step) {
                Some(query) if matches!(query.state, State::Waiting(_)) && !request.begun => {
                    outcomes::failed(&request.operation, RequestError::ExpiredInQueue)
                }
                query if request.operation.kind() == OperationKind::PutRecord => self.put_timeout(request, query),
                Some(query) if matches!(query.state, State::Waiting(_)) => {
                    outcomes::timeout(&request.operation, None, Progress::default())
                }
                Some(query) => outcomes::timeout(&request.operation, Some(query), query.progress),
                None => outcomes::timeout(&request.operation, None, Progress::default()),
            },
            Place::Retry(_) => outcomes::timeout(&request.operation, None, Progress::default()),
            Place::LocalStore(_) | Place::LocalPeers => self.put_timeout(request, None),
        };
        let outcome = closest::with_first(outcome, request.first.as_ref());
        let outcome = outcomes::with_earlier(outcome, &request.earlier, self.config.max_items);
        self.end(id, outcome, now);
    }

    // ---- a request and its query

    fn want(&mut self, id: RequestId, query: Query, now: Instant) {
        let joined = self.queries.iter().find(|other| self.joinable(other, &query, now)).map(|other| other.step);
        // Whoever comes next joins this one, if any.
        if joined.is_none() {
            self.queries.iter_mut().filter(|other| other.query == query).for_each(|other| other.closed = true);
        }
        self.wait_for(id, query, joined, now);
    }

    /// Wants a query of its own, and leaves it to itself.
    fn want_alone(&mut self, id: RequestId, query: Query, now: Instant) {
        let step = self.last_step + 1;
        self.wait_for(id, query, None, now);
        if let Some(query) = self.query_mut(step) {
            query.closed = true;
        }
    }

    fn wait_for(&mut self, id: RequestId, query: Query, joined: Option<u64>, now: Instant) {
        let step = joined.unwrap_or(self.last_step + 1);
        let max_items = self.config.max_items;
        let Some(request) = self.request_mut(id) else { return };
        request.place = Place::Query(step);
        let streaming = request.options.streaming;
        let need = Threshold::of(&request.operation, max_items);
        if joined.is_none() {
            self.last_step = step;
            self.queries.push(LiveQuery {
                step,
                query,
                state: State::Waiting(Line::None),
                found: Found::default(),
                progress: Progress::default(),
                started: now,
                heard: now,
                moved: now,
                look: None,
                probed: false,
                finished_early: false,
                answered: false,
                closed: false,
                outdated: false,
            });
        }
        let Some(query) = self.query_mut(step) else { return };
        match query.state {
            State::Waiting(_) => self.stand(step),
            State::Starting | State::Running(_) => {
                let at_most = if let Threshold::Items(n) = need { n } else { usize::MAX };
                let items = query.found.items();
                if streaming {
                    for item in items.into_iter().take(at_most) {
                        self.give(Action::Item { request: id, item });
                    }
                }
                self.end_satisfied(step, now);
            }
            State::QueryEnd(_) | State::Finishing(..) => {}
        }
    }

    /// Whether who wants `query` gets what `other` finds. One of which kad has said nothing for as long as would make a
    /// finished one lost is not joined, or there might always be somebody who waits for it in vain.
    fn joinable(&self, other: &LiveQuery, query: &Query, now: Instant) -> bool {
        let read = match query {
            Query::GetRecord { key: _ } | Query::GetProviders { key: _ } | Query::GetClosestPeers { target: _ } => true,
            Query::PutRecordTo { .. } | Query::StartProviding { .. } | Query::Bootstrap => false,
        };
        let alive = match other.state {
            State::Waiting(_) => true,
            State::Starting | State::Running(_) => now < later(other.heard, self.config.finish_timeout),
            State::QueryEnd(_) | State::Finishing(..) => false,
        };
        read && other.query == *query && alive && !other.closed && other.found.bytes() <= self.config.max_replay_bytes
    }

    /// A request does not wait for this query any more.
    fn left(&mut self, step: u64, now: Instant) {
        let unwanted = self.waiters(step).is_empty();
        let finish_deadline = later(now, self.config.finish_timeout);
        let Some(query) = self.query_mut(step) else { return };
        match query.state {
            State::Waiting(_) if unwanted => self.queries.retain(|query| query.step != step),
            State::Waiting(_) => self.stand(step),
            State::Starting if unwanted => query.state = State::Finishing(None, finish_deadline),
            State::Running(id) if unwanted => {
                query.state = State::Finishing(Some(id), finish_deadline);
                self.give(Action::Finish(id));
            }
            State::Starting | State::Running(_) | State::QueryEnd(_) | State::Finishing(..) => {}
        }
    }

    /// Everyone who waits for a query, in the order in which they are served.
    fn waiters(&self, step: u64) -> Vec<RequestId> {
        let mut waiters: Vec<_> = self
            .requests
            .iter()
            .filter(|request| matches!(request.place, Place::Query(of) if of == step))
            .map(|request| (Threshold::of(&request.operation, self.config.max_items), request.id))
            .collect();
        waiters.sort();
        waiters.into_iter().map(|(_, id)| id).collect()
    }

    fn end_satisfied(&mut self, step: u64, now: Instant) {
        let mut read_repair = None;
        for id in self.waiters(step) {
            let (Some(query), Some(request)) = (self.query(step), self.request(id)) else { return };
            let validator = self.config.validators.of(request.operation.key());
            let need = Threshold::of(&request.operation, self.config.max_items);
            if query.found.satisfies(need, validator) {
                let found = (&query.found, query.progress);
                let mut outcome = outcomes::read(&request.operation, found, validator, true, &QueryEnd::default());
                let further = self.read_repair(&request.operation, &mut outcome, &query.found, &[], now);
                read_repair = read_repair.or(further);
                self.keep(step, &outcome, None, now);
                self.end(id, outcome, now);
            }
        }
        self.start_read_repair(read_repair, now);
    }

    /// With as many items as one may have, a request whose policy is not satisfied ends as if its query had; and so does a put
    /// that as many peers have given its record back to as it asks for.
    fn end_at_the_bound(&mut self, step: u64, now: Instant) {
        let mut read_repair = None;
        for id in self.waiters(step) {
            let (Some(query), Some(request)) = (self.query(step), self.request(id)) else { return };
            let at_the_bound = query.found.items().len() >= self.config.max_items;
            if let Operation::PutRecord { record, quorum: _, options } = request.operation.clone() {
                let (verified, progress) = (puts::given_back(query, &record), query.progress);
                if at_the_bound || verified >= options.verify {
                    if let Some(request) = self.request_mut(id) {
                        request.place = Place::LocalPeers;
                    }
                    self.left(step, now);
                    self.read_back(id, &record, options, verified, progress, now);
                }
            } else if at_the_bound {
                let validator = self.config.validators.of(request.operation.key());
                let found = (&query.found, query.progress);
                let mut outcome = outcomes::read(&request.operation, found, validator, false, &QueryEnd::default());
                let further = self.read_repair(&request.operation, &mut outcome, &query.found, &[], now);
                read_repair = read_repair.or(further);
                self.keep(step, &outcome, None, now);
                self.end(id, outcome, now);
            }
        }
        self.start_read_repair(read_repair, now);
    }

    // ---- what kad says

    fn take_start(&mut self, step: u64, result: Result<Started<u32>, QueryStartError>, now: Instant) {
        let waiters = self.waiters(step);
        let in_use =
            result.as_ref().is_ok_and(|started| self.queries.iter().any(|query| query.id() == Some(started.id)));
        let look = self.quiet().map(|quiet| later(now, quiet));
        let query = self
            .query_mut(step)
            .filter(|query| matches!(query.state, State::Starting | State::Finishing(None, _)) && !in_use);
        let Some(query) = query else {
            self.view.unknown_inputs += 1;
            return;
        };
        let what = query.query.clone();
        match (query.state, result) {
            (State::Finishing(_, finish_deadline), Ok(started)) => {
                query.state = State::Finishing(Some(started.id), finish_deadline);
                self.give(Action::Finish(started.id));
                self.announcement_begun(&what, started.had_provider);
                self.announcement_failed(&what);
            }
            (_, Ok(started)) => {
                query.state = State::Running(started.id);
                query.look = look;
                if let Query::StartProviding { key: _ } = what {
                    waiters.iter().for_each(|id| self.request_mut(*id).into_iter().for_each(|r| r.announced = true));
                    self.announcement_begun(&what, started.had_provider);
                }
            }
            (_, Err(error)) => {
                self.queries.retain(|query| query.step != step);
                self.announcement_failed(&what);
                for id in waiters {
                    let Some(request) = self.request(id) else { continue };
                    if request.first.is_some() {
                        self.closest_of_both(id, &[], Progress::default(), now);
                    } else {
                        let outcome = outcomes::refused(&request.operation, &error);
                        self.conclude(id, outcome, None, now);
                    }
                }
            }
        }
    }

    fn take_event(&mut self, event: QueryEvent<u32>, now: Instant) {
        let QueryEvent { id, result, progress, last } = event;
        let validators = self.config.validators.clone();
        let Some(query) = self.queries.iter_mut().find(|query| query.id() == Some(id)) else {
            self.view.unknown_inputs += 1;
            return;
        };
        if !results::fits(&query.query, &result) {
            self.view.mismatched_events += 1;
            return;
        }
        let step = query.step;
        query.progress = progress;
        (query.heard, query.moved) = (now, now);
        let looks_up =
            matches!(query.query, Query::GetRecord { .. } | Query::GetProviders { .. } | Query::GetClosestPeers { .. });
        if looks_up && progress.successes > 0 && !std::mem::replace(&mut query.answered, true) {
            let took = now.saturating_duration_since(query.started);
            self.measured(took, progress.successes);
        }
        let Some(query) = self.queries.iter_mut().find(|query| query.step == step) else { return };
        if let State::Finishing(..) = query.state {
            if last {
                self.queries.retain(|query| query.step != step);
            }
            return;
        }
        let (new, fault) = query.found.news(&query.query, &result, progress, &validators);
        query.found.rejected += u32::from(fault == Some(Anomaly::Rejected));
        match fault {
            None => {}
            Some(Anomaly::Foreign) => self.view.foreign_records += 1,
            Some(Anomaly::Rejected) => self.view.rejected_records += 1,
        }
        if last {
            query.state = State::QueryEnd(id);
        }
        for item in new {
            if self.waiters(step).is_empty() {
                break;
            }
            if let Some(query) = self.query_mut(step) {
                query.found.add(&item);
            }
            let mut waiters = self.waiters(step);
            waiters.sort();
            for request in waiters {
                // A put reads back for itself.
                let wants = |request: &LiveRequest| {
                    request.options.streaming && request.operation.kind() != OperationKind::PutRecord
                };
                if self.request(request).is_some_and(wants) {
                    self.give(Action::Item { request, item: item.clone() });
                }
            }
            self.end_satisfied(step, now);
            self.end_at_the_bound(step, now);
        }
        if last {
            let mut ending = QueryEnd::of(result, self.local);
            ending.finished_early = self.query(step).is_some_and(|query| query.finished_early);
            self.query_ended(step, &ending, now);
        }
    }

    fn query_ended(&mut self, step: u64, ending: &QueryEnd, now: Instant) {
        let waiters = self.waiters(step);
        let Some(at) = self.queries.iter().position(|query| query.step == step) else { return };
        for id in &waiters {
            if let (Some(request), Some(query)) = (self.request(*id), self.query(step)) {
                let validator = self.config.validators.of(request.operation.key());
                // A put reads back for itself.
                if request.operation.kind() != OperationKind::PutRecord {
                    let outcome = outcomes::ended(&request.operation, query, validator, ending);
                    self.keep(step, &outcome, Some(ending), now);
                }
            }
        }
        let query = self.queries.remove(at);
        let mut read_repair = None;
        for id in waiters {
            if self.goes_on_beside(id, &query, ending, now) {
                continue;
            }
            let Some(request) = self.request(id) else { continue };
            let validator = self.config.validators.of(request.operation.key());
            if let Operation::PutRecord { record, quorum, options } = request.operation.clone() {
                self.put_query_ended(id, &record, quorum, options, &query, ending, now);
            } else {
                let mut outcome = outcomes::ended(&request.operation, &query, validator, ending);
                let further = self.read_repair(&request.operation, &mut outcome, &query.found, &ending.without, now);
                read_repair = read_repair.or(further);
                self.conclude(id, outcome, Some(&query), now);
            }
        }
        self.start_read_repair(read_repair, now);
    }

    // ---- announcements

    fn announcement_begun(&mut self, query: &Query, had_provider: bool) {
        if let Query::StartProviding { key } = query
            && let Some(of_key) = self.announcements.iter_mut().find(|of_key| of_key.key == *key)
            && of_key.had_provider.is_none()
        {
            of_key.had_provider = Some(had_provider);
        }
    }

    fn announcement_failed(&mut self, query: &Query) {
        if let Query::StartProviding { key } = query {
            self.announcement_over(&Operation::StartProviding { key: key.clone() }, false);
        }
    }

    fn announcement_over(&mut self, operation: &Operation, ok: bool) {
        let Some(at) = self.announcements.iter().position(|of_key| of_key.key.as_ref() == operation.key()) else {
            return;
        };
        let Some(of_key) = self.announcements.get_mut(at) else { return };
        of_key.succeeded |= ok;
        of_key.live -= 1;
        if of_key.live == 0 {
            let of_key = self.announcements.remove(at);
            if of_key.had_provider == Some(false) && !of_key.succeeded {
                self.written(&of_key.key);
                self.give(Action::StopProviding { key: of_key.key });
            }
        }
    }

    // ---- time and slots

    fn clock(&mut self, now: Instant) -> Instant {
        let now = self.now.map_or(now, |before| before.max(now));
        self.now = Some(now);
        now
    }

    fn settle(&mut self, now: Instant) {
        while let Some((_, due)) = self.due().filter(|(at, _)| *at <= now) {
            match due {
                Due::Lost(step) => self.give_up(step),
                Due::Deadline(id) => self.expire(id, now),
                Due::Retry(id) => {
                    if let Some(operation) = self.request(id).map(|request| request.operation.clone()) {
                        self.want(id, first_query(&operation), now);
                    }
                }
                Due::Look(step) => self.look_at(step, now),
            }
        }
        while self.live_queries() < self.config.max_running
            && let Some(step) = self.next_in_line()
        {
            self.start(step, now);
        }
    }

    fn due(&self) -> Option<(Instant, Due)> {
        let lost = self.queries.iter().filter_map(|query| match query.state {
            State::Finishing(_, finish_deadline) => Some((finish_deadline, Due::Lost(query.step))),
            State::Waiting(_) | State::Starting | State::Running(_) | State::QueryEnd(_) => None,
        });
        let deadlines = self.requests.iter().map(|request| (request.deadline, Due::Deadline(request.id)));
        let retries = self.requests.iter().filter_map(|request| match request.place {
            Place::Retry(until) => Some((until, Due::Retry(request.id))),
            Place::Query(_) | Place::LocalStore(_) | Place::LocalPeers => None,
        });
        let looks = self.queries.iter().filter_map(|query| match query.state {
            State::Running(_) => query.look.map(|at| (at, Due::Look(query.step))),
            State::Waiting(_) | State::Starting | State::QueryEnd(_) | State::Finishing(..) => None,
        });
        lost.chain(deadlines).chain(retries).chain(looks).min()
    }

    fn give_up(&mut self, step: u64) {
        let Some(at) = self.queries.iter().position(|query| query.step == step) else { return };
        let query = self.queries.remove(at);
        self.view.lost_queries += 1;
        match query.id() {
            Some(id) => {
                if !self.lost.contains(&id) {
                    self.lost.push(id);
                }
                if self.lost.len() > REMEMBERED {
                    self.lost.remove(0);
                }
                self.give(Action::Forget(id));
            }
            None => self.announcement_failed(&query.query),
        }
    }

    fn start(&mut self, step: u64, now: Instant) {
        let waiters = self.waiters(step);
        let (Some(query), Some(first)) = (self.query_mut(step), waiters.first()) else { return };
        query.state = State::Starting;
        (query.started, query.heard, query.moved) = (now, now, now);
        let query = query.query.clone();
        if let Query::StartProviding { key } = &query {
            match self.announcements.iter_mut().find(|of_key| of_key.key == *key) {
                Some(of_key) => of_key.live += 1,
                None => self.announcements.push(Announcements {
                    key: key.clone(),
                    live: 1,
                    had_provider: None,
                    succeeded: false,
                }),
            }
        }
        self.out.push(Expected::Start { step, request: *first, query });
    }

    // ---- looking things up

    fn give(&mut self, action: Action<u32>) {
        self.out.push(Expected::Action(action));
    }

    fn request(&self, id: RequestId) -> Option<&LiveRequest> {
        self.requests.iter().find(|request| request.id == id)
    }

    fn request_mut(&mut self, id: RequestId) -> Option<&mut LiveRequest> {
        self.requests.iter_mut().find(|request| request.id == id)
    }

    fn query(&self, step: u64) -> Option<&LiveQuery> {
        self.queries.iter().find(|query| query.step == step)
    }

    fn query_mut(&mut self, step: u64) -> Option<&mut LiveQuery> {
        self.queries.iter_mut().find(|query| query.step == step)
    }
}

impl LiveQuery {
    fn id(&self) -> Option<u32> {
        match self.state {
            State::Running(id) | State::QueryEnd(id) | State::Finishing(Some(id), _) => Some(id),
            State::Waiting(_) | State::Starting | State::Finishing(None, _) => None,
        }
    }
}

fn first_query(operation: &Operation) -> Query {
    match operation.clone() {
        Operation::GetRecord { key, policy: _ } => Query::GetRecord { key },
        Operation::PutRecord { record, quorum: _, options: _ } => Query::GetClosestPeers { target: record.key.clone() },
        Operation::PutRecordTo { record, peers, quorum: _ } => Query::PutRecordTo { record, peers: peers.into() },
        Operation::GetProviders { key, policy: _ } => Query::GetProviders { key },
        Operation::StartProviding { key } => Query::StartProviding { key },
        Operation::GetClosestPeers { target, thorough: _ } => Query::GetClosestPeers { target },
        Operation::Bootstrap => Query::Bootstrap,
    }
}

/// Each peer once, and never this one.
fn without(peers: &[PeerId], local: PeerId) -> Vec<PeerId> {
    let mut distinct = Vec::new();
    for peer in peers {
        if *peer != local && !distinct.contains(peer) {
            distinct.push(*peer);
        }
    }
    distinct
}

fn sum(left: Progress, right: Progress) -> Progress {
    Progress {
        requests: left.requests + right.requests,
        successes: left.successes + right.successes,
        failures: left.failures + right.failures,
    }
}

fn later(now: Instant, span: Duration) -> Instant {
    now.checked_add(span).unwrap_or(now + DECADES)
}
