//! Reference model of the tracker, written for obviousness instead of speed.
//!
//! All state is kept in lists, and every question is answered by scanning them. In addition to the public documentation
//! of `kadence-core`, the model fixes the order of effects that callers can observe:
//!
//! 1. Before a command takes effect, everything that is due is processed. After every input, what is due is processed
//!    again, ordered by time. At the same time, queries to give up come first, then deadlines, then retries, then stall
//!    checks, each ordered by number. Free slots are filled last.
//! 2. The waiters of a query are served by threshold: the fewest items first, then the fewest votes, then the fewest
//!    votes for the best record, then those that wait for the end. Waiters with equal thresholds are served by id.
//! 3. Queries wait in the order in which they were first requested. Second steps of puts and lookups precede all other
//!    queries, higher classes first. Any other query, retries included, waits in the highest class of its waiters.
//! 4. Each start advances the position of its class by the inverse of its share. The class with the lowest position is
//!    served next; on a tie, the higher class. A class that was empty continues at the position of the latest start.
//! 5. When a query ends and thereby ends a request, the effects on the request precede those on its query: the outcome,
//!    then `Finish`, then `StopProviding`.

mod backoff;
mod outcomes;
mod puts;
mod queue;
mod read_repair;
mod results;
mod stall;
mod thorough;
mod view;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use kadence_core::{
    Action, Certainty, Command, InvalidRequestError, LocalCopy, MAX_RUNNING_CEILING, Network, Operation, OperationKind,
    Outcome, OutcomeKind, Policy, Progress, PutAnswer, PutRecordError, Query, QueryEvent, QueryStartError, Quorum,
    Reachability, Request, RequestError, RequestId, RequestOptions, StartProvidingError, Started, TrackerConfig,
};
use libp2p::{
    PeerId,
    kad::{Record, RecordKey, store},
};

pub use self::view::Counters;
use self::{
    outcomes::QueryEnd,
    queue::{ClassShares, QueuePosition},
    results::{Anomaly, QueryResults, Threshold},
};

/// Replaces a time span that does not fit the clock.
const FAR_FUTURE: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// Number of ids of given-up queries that are remembered.
const MAX_EVICTED_IDS: usize = 1024;

/// An action that the tracker has to emit.
#[derive(Debug, Clone)]
pub enum Expected {
    /// `Action::Start`. Step ids cannot be created outside of the core, so the model numbers the steps itself.
    Start {
        /// Number of the step in the model.
        step: u64,
        /// Request that the query is started for.
        request: RequestId,
        /// Query to start.
        query: Query,
    },
    /// Exactly this action.
    Action(Action<u32>),
}

/// Model of a tracker.
#[derive(Debug)]
pub struct Model {
    config: TrackerConfig,
    local: PeerId,
    now: Option<Instant>,
    /// In order of acceptance.
    requests: Vec<LiveRequest>,
    /// In order of their first request.
    queries: Vec<LiveQuery>,
    announcements: Vec<Announcements>,
    class_shares: ClassShares,
    last_step: u64,
    /// Smoothed round-trip time. `None` until one was measured.
    round_trip: Option<Duration>,
    last_read_repair: u64,
    evicted_ids: Vec<u32>,
    network: Network,
    shutting_down: bool,
    counters: Counters,
    /// Operation, outcome and duration of each request that ended.
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
    awaiting: Awaiting,
    /// State of a put that is past its lookup.
    put: Option<puts::Put>,
    /// Result of the first lookup of a thorough one.
    first_lookup: Option<thorough::FirstLookup>,
    failed_attempts: u32,
    /// Results of failed attempts, the first one first.
    earlier_attempts: Vec<outcomes::Attempt>,
    /// A step of the request has ended. Until then it counts as a new request.
    past_first_step: bool,
    /// The request is at a step that follows its own lookup.
    second_step: bool,
    /// kad has added the local node as a provider for this request.
    announced: bool,
}

/// Event that a request waits for.
#[derive(Debug)]
enum Awaiting {
    Query(u64),
    Retry(Instant),
    /// The local store. `None`: the put has not started yet; `Some`: the network part succeeded with this answer.
    LocalStore(Option<PutAnswer>),
    LocalPeers,
}

#[derive(Debug)]
struct LiveQuery {
    step: u64,
    query: Query,
    state: State,
    results: QueryResults,
    progress: Progress,
    started: Instant,
    /// Time of kad's latest event.
    last_event: Instant,
    /// Time of the latest known progress.
    last_progress: Instant,
    /// Time of the next stall check.
    stall_check: Option<Instant>,
    /// A probe was sent, and kad has not answered it.
    probe_pending: bool,
    /// It could have asked or heard more: somebody finished it, or a peer was given up.
    cut_short: bool,
    /// kad has reported an answer of a peer.
    answered: bool,
    /// No further request may join it.
    unshared: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting(QueuePosition),
    /// It has a slot; kad has not answered the start.
    Starting,
    Running(u32),
    /// kad's last event is being processed.
    LastEvent(u32),
    /// It has no waiters and is being finished. The id is `None` until kad answers the start.
    Finishing(Option<u32>, Instant),
}

/// Announcements of one key that kad was asked to start and that have not ended.
#[derive(Debug)]
struct Announcements {
    key: RecordKey,
    live: usize,
    /// kad's answer to the first of them: the local node was a provider before.
    had_provider: Option<bool>,
    kept: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    GiveUp(u64),
    Deadline(RequestId),
    Retry(RequestId),
    StallCheck(u64),
}

impl Model {
    /// Models an empty tracker.
    pub fn new(local: PeerId, mut config: TrackerConfig) -> Self {
        config.max_running = config.max_running.clamp(1, MAX_RUNNING_CEILING);
        config.max_items = config.max_items.max(1);
        config.max_item_bytes = config.max_item_bytes.max(1);
        let class_shares = ClassShares::new(config.shares);
        Self {
            config,
            local,
            now: None,
            requests: Vec::new(),
            queries: Vec::new(),
            announcements: Vec::new(),
            class_shares,
            last_step: 0,
            round_trip: None,
            last_read_repair: 0,
            evicted_ids: Vec::new(),
            network: Network::default(),
            shutting_down: false,
            counters: Counters::default(),
            ended: Vec::new(),
            out: Vec::new(),
        }
    }

    /// `QueryTracker::handle_command`.
    ///
    /// # Errors
    ///
    /// The same as the tracker's.
    pub fn command(&mut self, command: Command, now: Instant) -> Result<(), RequestError> {
        let now = self.clock(now);
        self.process_due(now);
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
            Command::Written { key } => {
                self.written(&key);
                Ok(())
            }
        };
        self.process_due(now);
        result
    }

    /// `QueryTracker::handle_started`, with the model's number of the step.
    pub fn started(&mut self, step: u64, result: Result<Started<u32>, QueryStartError>, now: Instant) {
        let now = self.clock(now);
        self.take_start(step, result, now);
        self.process_due(now);
    }

    /// `QueryTracker::handle_stored`.
    pub fn stored(&mut self, id: RequestId, result: Result<(), store::Error>, now: Instant) {
        let now = self.clock(now);
        let waits = self.request(id).and_then(|request| match &request.awaiting {
            Awaiting::LocalStore(answer) => Some((answer.clone(), request.operation.clone())),
            Awaiting::Query(_) | Awaiting::Retry(_) | Awaiting::LocalPeers => None,
        });
        match (waits, result) {
            (None, _) => self.counters.unknown_inputs += 1,
            (Some((None, operation)), Ok(())) => self.attach(id, first_query(&operation), now),
            (Some((Some(answer), _)), Ok(())) => self.end(id, Outcome::PutRecord(Ok(answer)), now),
            (Some((answer, _)), Err(error)) => {
                let acknowledged = answer.map_or_else(Vec::new, |answer| answer.acknowledged);
                self.end(id, Outcome::PutRecord(Err(PutRecordError::Store { error, acknowledged })), now);
            }
        }
        self.process_due(now);
    }

    /// `QueryTracker::handle_event`.
    pub fn event(&mut self, event: QueryEvent<u32>, now: Instant) {
        let now = self.clock(now);
        self.take_event(event, now);
        self.process_due(now);
    }

    /// `QueryTracker::handle_probe`.
    pub fn probe(&mut self, id: u32, progress: Option<Progress>, now: Instant) {
        let now = self.clock(now);
        self.take_probe(id, progress, now);
        self.process_due(now);
    }

    /// `QueryTracker::handle_query_count`.
    pub fn query_count(&mut self, live: usize, now: Instant) {
        let now = self.clock(now);
        self.counters.kad_own_queries = live.saturating_sub(self.live_queries()) as u64;
        self.process_due(now);
    }

    /// `QueryTracker::handle_cut_short`.
    pub fn cut_short(&mut self, id: u32, now: Instant) {
        let now = self.clock(now);
        match self.queries.iter_mut().find(|query| query.id() == Some(id)) {
            Some(query) => (query.cut_short, query.unshared) = (true, true),
            None => self.counters.unknown_inputs += 1,
        }
        self.process_due(now);
    }

    /// `QueryTracker::handle_network`.
    pub fn network(&mut self, network: Network, now: Instant) {
        let now = self.clock(now);
        self.network = network;
        self.process_due(now);
    }

    /// `QueryTracker::handle_timeout`.
    pub fn timeout(&mut self, now: Instant) {
        let now = self.clock(now);
        self.process_due(now);
    }

    /// Returns all actions that `poll_action` of the tracker has to return before `None`.
    pub fn take_actions(&mut self) -> Vec<Expected> {
        std::mem::take(&mut self.out)
    }

    // ---- requests

    fn accept(&mut self, request: Request, now: Instant) -> Result<(), RequestError> {
        let Request { id, operation, options } = request;
        if let Err(error) = self.check(id, &operation, now) {
            self.counters.refused += 1;
            return Err(error);
        }
        if let Err(error) = self.make_room(&operation, &options, now) {
            self.counters.refused += 1;
            return Err(error);
        }
        self.counters.accepted += 1;
        self.written_by(&operation);
        if let Operation::PutRecord { .. } | Operation::PutRecordTo { .. } | Operation::StartProviding { .. } =
            &operation
        {
            let outdated = |repair: &&LiveRequest| repair.id.is_reserved() && repair.operation.key() == operation.key();
            let repairs: Vec<_> = self.requests.iter().filter(outdated).map(|repair| repair.id).collect();
            repairs.into_iter().for_each(|repair| self.fail(repair, RequestError::Cancelled, now));
        }
        let timeout = options.timeout.unwrap_or(self.config.default_timeout);
        let operation = self.normalize(operation);
        self.requests.push(LiveRequest {
            id,
            operation: operation.clone(),
            options,
            accepted: now,
            deadline: later(now, timeout),
            awaiting: Awaiting::Retry(now),
            put: None,
            first_lookup: None,
            failed_attempts: 0,
            earlier_attempts: Vec::new(),
            past_first_step: false,
            second_step: false,
            announced: false,
        });
        match &operation {
            Operation::PutRecord { record, quorum: _, options } if options.local_copy == LocalCopy::First => {
                if let Some(request) = self.request_mut(id) {
                    request.awaiting = Awaiting::LocalStore(None);
                }
                self.push_action(Action::StoreLocal { request: id, record: Arc::clone(record) });
            }
            _ => self.attach(id, first_query(&operation), now),
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
            Operation::PutRecordTo { record, peers, quorum } => {
                self.check_record(record, now)?;
                let peers = without(peers, self.local).len();
                let needed = outcomes::needed(*quorum, peers).get();
                if peers == 0 {
                    Err(InvalidRequestError::NoPeers.into())
                } else if needed > peers {
                    Err(InvalidRequestError::QuorumExceedsPeers { needed, peers }.into())
                } else {
                    Ok(())
                }
            }
            Operation::StartProviding { .. } | Operation::GetClosestPeers { .. } | Operation::Bootstrap => Ok(()),
        }
    }

    fn check_record(&self, record: &Record, now: Instant) -> Result<(), RequestError> {
        // Keys are short in schedules, so the record always fits the packet if its value does.
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

    fn make_room(&self, operation: &Operation, options: &RequestOptions, now: Instant) -> Result<(), RequestError> {
        let query = first_query(operation);
        let room = self.config.max_queued.saturating_add(self.config.max_running);
        let has_slot = |other: &&LiveQuery| !matches!(other.state, State::Waiting(_));
        if self.queries.iter().filter(has_slot).any(|other| self.joinable(other, &query, options.fresh, now)) {
            // A request that joins needs neither a slot nor room in the queue; only the total number of requests is
            // limited.
            return if self.requests.len() < room.saturating_mul(2) { Ok(()) } else { Err(RequestError::Overloaded) };
        }
        let full = self.queued() >= self.config.max_queued && self.live_queries() >= self.config.max_running;
        let crowded = self.requests.len() >= room.saturating_mul(3);
        if full || crowded { Err(RequestError::Overloaded) } else { Ok(()) }
    }

    /// Returns the operation in the form that kad is given.
    fn normalize(&self, operation: Operation) -> Operation {
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
        let keeps_entry = matches!(
            &outcome,
            Outcome::StartProviding(
                Ok(_) | Err(StartProvidingError::NoKnownPeers | StartProvidingError::NoResponse { progress: _ })
            )
        );
        if !id.is_reserved() {
            let took = now.saturating_duration_since(request.accepted);
            self.ended.push((outcome.kind(), OutcomeKind::of(&outcome), took));
            self.push_action(Action::Outcome { request: id, outcome });
            self.written_by(&request.operation);
        }
        if let Awaiting::Query(step) = request.awaiting {
            self.detach(step, now);
        }
        if request.announced {
            self.announcement_over(&request.operation, keeps_entry);
        }
    }

    /// Ends an attempt: schedules another one, or ends the request with this outcome.
    fn conclude(&mut self, id: RequestId, outcome: Outcome, attempt: Option<&LiveQuery>, now: Instant) {
        let found_items = attempt.is_some_and(|query| !query.results.is_empty());
        let again = self.retry_at(id, &outcome, found_items, now);
        let Some((until, request)) = again.and_then(|until| Some((until, self.request_mut(id)?))) else {
            self.end(id, outcome, now);
            return;
        };
        request.failed_attempts += 1;
        let put = request.put.take().map(puts::Put::into_attempt);
        request.earlier_attempts.extend(put.or_else(|| attempt.map(outcomes::Attempt::of)));
        request.past_first_step = true;
        request.second_step = false;
        request.awaiting = Awaiting::Retry(until);
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
        let until = later(now, backoff::delay(self.config.seed, id, retry, attempt));
        (until < request.deadline).then_some(until)
    }

    fn expire(&mut self, id: RequestId, now: Instant) {
        let Some(request) = self.request(id) else { return };
        let outcome = match &request.awaiting {
            Awaiting::Query(step) => match self.query(*step) {
                Some(query) if matches!(query.state, State::Waiting(_)) && !request.past_first_step => {
                    outcomes::failed(&request.operation, RequestError::ExpiredInQueue)
                }
                query if request.operation.kind() == OperationKind::PutRecord => self.put_timeout(request, query),
                Some(query) if matches!(query.state, State::Waiting(_)) => {
                    outcomes::timeout(&request.operation, None, Progress::default())
                }
                Some(query) => outcomes::timeout(&request.operation, Some(query), query.progress),
                None => outcomes::timeout(&request.operation, None, Progress::default()),
            },
            Awaiting::Retry(_) => outcomes::timeout(&request.operation, None, Progress::default()),
            Awaiting::LocalStore(_) | Awaiting::LocalPeers => self.put_timeout(request, None),
        };
        let outcome = thorough::with_first_lookup(outcome, request.first_lookup.as_ref());
        let outcome = outcomes::with_earlier(outcome, &request.earlier_attempts, self.config.max_items);
        self.end(id, outcome, now);
    }

    // ---- a request and its query

    fn attach(&mut self, id: RequestId, query: Query, now: Instant) {
        let fresh = self.request(id).is_some_and(|request| request.options.fresh);
        let joined = self.queries.iter().find(|other| self.joinable(other, &query, fresh, now)).map(|other| other.step);
        // The new query unshares equal ones: later requests join this one.
        if joined.is_none() {
            self.queries.iter_mut().filter(|other| other.query == query).for_each(|other| other.unshared = true);
        }
        self.attach_to(id, query, joined, now);
    }

    /// Starts a query of its own that no other request joins.
    fn attach_alone(&mut self, id: RequestId, query: Query, now: Instant) {
        let step = self.last_step + 1;
        self.attach_to(id, query, None, now);
        if let Some(query) = self.query_mut(step) {
            query.unshared = true;
        }
    }

    fn attach_to(&mut self, id: RequestId, query: Query, joined: Option<u64>, now: Instant) {
        let step = joined.unwrap_or(self.last_step + 1);
        let max_items = self.config.max_items;
        let Some(request) = self.request_mut(id) else { return };
        request.awaiting = Awaiting::Query(step);
        let streaming = request.options.streaming;
        let threshold = Threshold::of(&request.operation, max_items);
        if joined.is_none() {
            self.last_step = step;
            self.queries.push(LiveQuery {
                step,
                query,
                state: State::Waiting(QueuePosition::Unset),
                results: QueryResults::default(),
                progress: Progress::default(),
                started: now,
                last_event: now,
                last_progress: now,
                stall_check: None,
                probe_pending: false,
                cut_short: false,
                answered: false,
                unshared: false,
            });
        }
        let Some(query) = self.query_mut(step) else { return };
        match query.state {
            State::Waiting(_) => self.enqueue(step),
            State::Starting | State::Running(_) => {
                let at_most = if let Threshold::Items(n) = threshold { n } else { usize::MAX };
                let items = query.results.items();
                if streaming {
                    for item in items.into_iter().take(at_most) {
                        self.push_action(Action::Item { request: id, item });
                    }
                }
                self.end_satisfied(step, now);
            }
            State::LastEvent(_) | State::Finishing(..) => {}
        }
    }

    /// Returns whether a request for `query` may share `other`. A query without an event for `finish_timeout` is not
    /// joined; otherwise requests could wait for a dead query without end. A fresh request joins none that has started.
    fn joinable(&self, other: &LiveQuery, query: &Query, fresh: bool, now: Instant) -> bool {
        let read = match query {
            Query::GetRecord { key: _ } | Query::GetProviders { key: _ } | Query::GetClosestPeers { target: _ } => true,
            Query::PutRecordTo { .. } | Query::StartProviding { .. } | Query::Bootstrap => false,
        };
        let alive = match other.state {
            State::Waiting(_) => true,
            State::Starting | State::Running(_) => !fresh && now < later(other.last_event, self.config.finish_timeout),
            State::LastEvent(_) | State::Finishing(..) => false,
        };
        read && other.query == *query
            && alive
            && !other.unshared
            && other.results.bytes() <= self.config.max_replay_bytes
    }

    /// Removes a request from the waiters of a query.
    fn detach(&mut self, step: u64, now: Instant) {
        let unwanted = self.waiters(step).is_empty();
        let finish_deadline = later(now, self.config.finish_timeout);
        let Some(query) = self.query_mut(step) else { return };
        match query.state {
            State::Waiting(_) if unwanted => self.queries.retain(|query| query.step != step),
            State::Waiting(_) => self.enqueue(step),
            State::Starting if unwanted => query.state = State::Finishing(None, finish_deadline),
            State::Running(id) if unwanted => {
                query.state = State::Finishing(Some(id), finish_deadline);
                self.push_action(Action::Finish(id));
            }
            State::Starting | State::Running(_) | State::LastEvent(_) | State::Finishing(..) => {}
        }
    }

    /// Returns all waiters of a query in the order in which they are served.
    fn waiters(&self, step: u64) -> Vec<RequestId> {
        let mut waiters: Vec<_> = self
            .requests
            .iter()
            .filter(|request| matches!(request.awaiting, Awaiting::Query(of) if of == step))
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
            let threshold = Threshold::of(&request.operation, self.config.max_items);
            if query.results.satisfies(threshold, validator) {
                let found = (&query.results, query.progress);
                let mut outcome = outcomes::read(&request.operation, found, validator, true, &QueryEnd::default());
                let further = self.read_repair(&request.operation, &mut outcome, &query.results, &[], now);
                read_repair = read_repair.or(further);
                self.end(id, outcome, now);
            }
        }
        self.start_read_repair(read_repair, now);
    }

    /// Ends waiters at the maximum number of items: a request whose policy is not satisfied ends as if its query had
    /// ended. A put that reads back ends as soon as enough peers have returned its record.
    fn end_at_the_bound(&mut self, step: u64, now: Instant) {
        let mut read_repair = None;
        for id in self.waiters(step) {
            let (Some(query), Some(request)) = (self.query(step), self.request(id)) else { return };
            let at_the_bound = query.results.items().len() >= self.config.max_items
                || query.results.bytes() >= self.config.max_item_bytes;
            if let Operation::PutRecord { record, quorum: _, options } = request.operation.clone() {
                let (verified, progress) = (puts::verified_copies(query, &record), query.progress);
                if at_the_bound || verified >= options.verify {
                    if let Some(request) = self.request_mut(id) {
                        request.awaiting = Awaiting::LocalPeers;
                    }
                    self.read_back(id, &record, options, verified, progress, now);
                    self.detach(step, now);
                }
            } else if at_the_bound {
                let validator = self.config.validators.of(request.operation.key());
                let found = (&query.results, query.progress);
                let mut outcome = outcomes::read(&request.operation, found, validator, false, &QueryEnd::default());
                let further = self.read_repair(&request.operation, &mut outcome, &query.results, &[], now);
                read_repair = read_repair.or(further);
                self.end(id, outcome, now);
            }
        }
        self.start_read_repair(read_repair, now);
    }

    /// Excludes the reads of a key that have a slot from sharing: what they have found may date from before a write.
    fn written(&mut self, key: &RecordKey) {
        for query in &mut self.queries {
            if let Query::GetRecord { key: of } | Query::GetProviders { key: of } = &query.query
                && of == key
                && !matches!(query.state, State::Waiting(_))
            {
                query.unshared = true;
            }
        }
    }

    /// Called when a write is accepted and when it ends.
    fn written_by(&mut self, operation: &Operation) {
        match operation {
            Operation::PutRecord { record, .. } | Operation::PutRecordTo { record, .. } => self.written(&record.key),
            Operation::StartProviding { key } => self.written(key),
            Operation::GetRecord { .. }
            | Operation::GetProviders { .. }
            | Operation::GetClosestPeers { .. }
            | Operation::Bootstrap => {}
        }
    }

    /// Returns the number of answers from which on a query's empty result is conclusive. `None` if it never is.
    fn enough_answers(&self, step: u64) -> Option<usize> {
        let cut_short = self.query(step).is_none_or(|query| query.cut_short);
        if cut_short || self.network.reachability == Reachability::Isolated {
            return None;
        }
        let half = |size: usize| size / 2 + size % 2;
        Some(match (self.config.expected_network_size, self.network.size) {
            (Some(size), _) => half(size).clamp(1, 10),
            (None, Some(size)) => half(size).clamp(3, 10),
            (None, None) => 10,
        })
    }

    // ---- answers and events of kad

    fn take_start(&mut self, step: u64, result: Result<Started<u32>, QueryStartError>, now: Instant) {
        let waiters = self.waiters(step);
        let in_use =
            result.as_ref().is_ok_and(|started| self.queries.iter().any(|query| query.id() == Some(started.id)));
        let stall_check = self.quiet_period().map(|quiet| later(now, quiet));
        let query = self
            .query_mut(step)
            .filter(|query| matches!(query.state, State::Starting | State::Finishing(None, _)) && !in_use);
        let Some(query) = query else {
            self.counters.unknown_inputs += 1;
            return;
        };
        let what = query.query.clone();
        match (query.state, result) {
            (State::Finishing(_, finish_deadline), Ok(started)) => {
                query.state = State::Finishing(Some(started.id), finish_deadline);
                self.push_action(Action::Finish(started.id));
                self.announcement_begun(&what, started.had_provider);
                self.announcement_failed(&what);
            }
            (_, Ok(started)) => {
                query.state = State::Running(started.id);
                query.stall_check = stall_check;
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
                    if request.first_lookup.is_some() {
                        self.finish_thorough_lookup(id, &[], Progress::default(), Certainty::Inconclusive, now);
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
            self.counters.unknown_inputs += 1;
            return;
        };
        if !results::fits(&query.query, &result) {
            self.counters.mismatched_events += 1;
            return;
        }
        let step = query.step;
        query.progress = progress;
        (query.last_event, query.last_progress) = (now, now);
        let looks_up =
            matches!(query.query, Query::GetRecord { .. } | Query::GetProviders { .. } | Query::GetClosestPeers { .. });
        if looks_up && progress.successes > 0 && !std::mem::replace(&mut query.answered, true) {
            let took = now.saturating_duration_since(query.started);
            self.record_round_trip(took, progress.successes);
        }
        let Some(query) = self.queries.iter_mut().find(|query| query.step == step) else { return };
        if let State::Finishing(..) = query.state {
            if last {
                self.queries.retain(|query| query.step != step);
            }
            return;
        }
        let (new, fault) = query.results.new_items(&query.query, &result, progress, &validators);
        query.results.rejected += u32::from(fault == Some(Anomaly::Rejected));
        match fault {
            None => {}
            Some(Anomaly::Foreign) => self.counters.foreign_records += 1,
            Some(Anomaly::Rejected) => self.counters.rejected_records += 1,
        }
        if last {
            query.state = State::LastEvent(id);
        }
        for item in new {
            if self.waiters(step).is_empty() {
                break;
            }
            if let Some(query) = self.query_mut(step) {
                query.results.add(&item);
            }
            let mut waiters = self.waiters(step);
            waiters.sort();
            for request in waiters {
                // The read-back of a put delivers no items.
                let wants = |request: &LiveRequest| {
                    request.options.streaming && request.operation.kind() != OperationKind::PutRecord
                };
                if self.request(request).is_some_and(wants) {
                    self.push_action(Action::Item { request, item: item.clone() });
                }
            }
            self.end_satisfied(step, now);
            self.end_at_the_bound(step, now);
        }
        if last {
            let mut query_end = QueryEnd::of(result, self.local);
            query_end.enough_answers = self.enough_answers(step);
            let began = self.query(step).map(|query| query.started);
            query_end.outlasted = began.is_none_or(|began| now.saturating_duration_since(began).as_secs() >= 10);
            self.query_ended(step, &query_end, now);
        }
    }

    fn query_ended(&mut self, step: u64, query_end: &QueryEnd, now: Instant) {
        let waiters = self.waiters(step);
        let Some(at) = self.queries.iter().position(|query| query.step == step) else { return };
        let query = self.queries.remove(at);
        let mut read_repair = None;
        for id in waiters {
            if self.continue_thorough_lookup(id, &query, query_end, now) {
                continue;
            }
            let Some(request) = self.request(id) else { continue };
            let validator = self.config.validators.of(request.operation.key());
            if let Operation::PutRecord { record, quorum, options } = request.operation.clone() {
                self.put_query_ended(id, &record, quorum, options, &query, query_end, now);
            } else {
                let mut outcome = outcomes::ended(&request.operation, &query, validator, query_end);
                let further =
                    self.read_repair(&request.operation, &mut outcome, &query.results, &query_end.without, now);
                read_repair = read_repair.or(further);
                self.conclude(id, outcome, Some(&query), now);
            }
        }
        self.start_read_repair(read_repair, now);
    }

    // ---- announcements

    fn announcement_begun(&mut self, query: &Query, had_provider: bool) {
        if let Query::StartProviding { key } = query
            && let Some(announcements_of_key) =
                self.announcements.iter_mut().find(|announcements_of_key| announcements_of_key.key == *key)
            && announcements_of_key.had_provider.is_none()
        {
            announcements_of_key.had_provider = Some(had_provider);
        }
    }

    fn announcement_failed(&mut self, query: &Query) {
        if let Query::StartProviding { key } = query {
            self.announcement_over(&Operation::StartProviding { key: key.clone() }, false);
        }
    }

    fn announcement_over(&mut self, operation: &Operation, keeps_entry: bool) {
        let Some(at) = self
            .announcements
            .iter()
            .position(|announcements_of_key| announcements_of_key.key.as_ref() == operation.key())
        else {
            return;
        };
        let Some(announcements_of_key) = self.announcements.get_mut(at) else { return };
        announcements_of_key.kept |= keeps_entry;
        announcements_of_key.live -= 1;
        if announcements_of_key.live == 0 {
            let announcements_of_key = self.announcements.remove(at);
            if announcements_of_key.had_provider == Some(false) && !announcements_of_key.kept {
                self.written(&announcements_of_key.key);
                self.push_action(Action::StopProviding { key: announcements_of_key.key });
            }
        }
    }

    // ---- time and slots

    fn clock(&mut self, now: Instant) -> Instant {
        let now = self.now.map_or(now, |before| before.max(now));
        self.now = Some(now);
        now
    }

    fn process_due(&mut self, now: Instant) {
        while let Some((_, due)) = self.due().filter(|(at, _)| *at <= now) {
            match due {
                Due::GiveUp(step) => self.give_up(step),
                Due::Deadline(id) => self.expire(id, now),
                Due::Retry(id) => {
                    if let Some(operation) = self.request(id).map(|request| request.operation.clone()) {
                        self.attach(id, first_query(&operation), now);
                    }
                }
                Due::StallCheck(step) => self.check_stall(step, now),
            }
        }
        while self.live_queries() < self.config.max_running
            && let Some(step) = self.next_in_queue()
        {
            self.start(step, now);
        }
    }

    fn due(&self) -> Option<(Instant, Due)> {
        let lost = self.queries.iter().filter_map(|query| match query.state {
            State::Finishing(_, finish_deadline) => Some((finish_deadline, Due::GiveUp(query.step))),
            State::Waiting(_) | State::Starting | State::Running(_) | State::LastEvent(_) => None,
        });
        let deadlines = self.requests.iter().map(|request| (request.deadline, Due::Deadline(request.id)));
        let retries = self.requests.iter().filter_map(|request| match request.awaiting {
            Awaiting::Retry(until) => Some((until, Due::Retry(request.id))),
            Awaiting::Query(_) | Awaiting::LocalStore(_) | Awaiting::LocalPeers => None,
        });
        let stall_checks = self.queries.iter().filter_map(|query| match query.state {
            State::Running(_) => query.stall_check.map(|at| (at, Due::StallCheck(query.step))),
            State::Waiting(_) | State::Starting | State::LastEvent(_) | State::Finishing(..) => None,
        });
        lost.chain(deadlines).chain(retries).chain(stall_checks).min()
    }

    fn give_up(&mut self, step: u64) {
        let Some(at) = self.queries.iter().position(|query| query.step == step) else { return };
        let query = self.queries.remove(at);
        self.counters.lost_queries += 1;
        match query.id() {
            Some(id) => {
                if !self.evicted_ids.contains(&id) {
                    self.evicted_ids.push(id);
                }
                if self.evicted_ids.len() > MAX_EVICTED_IDS {
                    self.evicted_ids.remove(0);
                }
                self.push_action(Action::Forget(id));
            }
            None => self.announcement_failed(&query.query),
        }
    }

    fn start(&mut self, step: u64, now: Instant) {
        let waiters = self.waiters(step);
        let (Some(query), Some(first)) = (self.query_mut(step), waiters.first()) else { return };
        query.state = State::Starting;
        (query.started, query.last_event, query.last_progress) = (now, now, now);
        let query = query.query.clone();
        if let Query::StartProviding { key } = &query {
            match self.announcements.iter_mut().find(|announcements_of_key| announcements_of_key.key == *key) {
                Some(announcements_of_key) => announcements_of_key.live += 1,
                None => self.announcements.push(Announcements {
                    key: key.clone(),
                    live: 1,
                    had_provider: None,
                    kept: false,
                }),
            }
        }
        self.out.push(Expected::Start { step, request: *first, query });
    }

    // ---- lookups by id

    fn push_action(&mut self, action: Action<u32>) {
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
            State::Running(id) | State::LastEvent(id) | State::Finishing(Some(id), _) => Some(id),
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

/// Returns each peer once, without the local one.
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
    now.checked_add(span).unwrap_or(now + FAR_FUTURE)
}
