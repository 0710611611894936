//! The loop between the parts: [`scheduler`] says whose query has ended, [`plans`] say what comes next, and this file
//! carries one's answer to the other.

mod admission;
mod announcements;
mod certainty;
mod env;
#[cfg(test)]
mod explore;
mod plans;
mod read_repair;
mod requests;
mod results;
mod scheduler;
mod time;
mod timers;

use std::{fmt, hash::Hash, sync::Arc, time::Duration};

use libp2p::{
    PeerId,
    kad::{self, PeerRecord, RecordKey, store},
};
use rustc_hash::FxHashMap;
use web_time::Instant;

use self::{
    announcements::Announcements,
    certainty::certainty,
    env::Env,
    plans::{Attempts, Ended, Memo, Next, Plan},
    read_repair::{ReadRepairs, peers_to_repair},
    requests::{LiveRequest, Phase},
    scheduler::{Job, Line, Pass, Scheduler, StartEffect, Threshold, Waiter, Work},
    time::Clock,
    timers::Timer,
};
use crate::{
    Action, Command, CommandError, InvalidRequestError, LogValues, MAX_RUNNING_CEILING, Metrics, Network, Operation,
    Outcome, Policy, Priority, Progress, QueryEvent, QueryStartError, Quorum, RecordingError, Request, RequestError,
    RequestId, RequestOptions, RequestView, Snapshot, Started, Stats, StepId, TrackerConfig, log::Recorder,
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
///    Deadlines act only within an input: a late one of any kind handles everything that is due, and an early
///    `handle_timeout` does nothing.
///
/// In return:
///
/// - Every accepted request gets exactly one [`Action::Outcome`], at the latest in the first input at or after its
///   deadline, for any behaviour of kad. No later action names the request.
/// - At most [`TrackerConfig::max_running`] queries hold a slot at the same time. A query that no request waits for any
///   more loses its slot at the latest after [`TrackerConfig::finish_timeout`], even if it still runs.
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
#[cfg_attr(test, derive(Clone))]
pub struct QueryTracker<Id = kad::QueryId> {
    local_peer: PeerId,
    clock: Clock,
    env: Env<Id>,
    requests: FxHashMap<RequestId, Box<LiveRequest>>,
    scheduler: Scheduler<Id>,
    announcements: Announcements,
    read_repairs: ReadRepairs,
    network: Network,
    shutting_down: bool,
    metrics: Metrics,
    recorder: Option<Box<Recorder<Id>>>,
}

impl<Id: Copy + Eq + Hash + fmt::Debug> QueryTracker<Id> {
    /// Creates an empty tracker for the node `local_peer`. Values of `config` outside their bounds are clamped.
    pub fn new(local_peer: PeerId, mut config: TrackerConfig) -> Self {
        config.max_running = config.max_running.clamp(1, MAX_RUNNING_CEILING);
        config.max_items = config.max_items.max(1);
        config.max_item_bytes = config.max_item_bytes.max(1);
        Self {
            local_peer,
            clock: Clock::default(),
            requests: FxHashMap::default(),
            scheduler: Scheduler::new(local_peer, config.shares),
            announcements: Announcements::default(),
            read_repairs: ReadRepairs::default(),
            network: Network::default(),
            shutting_down: false,
            metrics: Metrics::new(),
            recorder: None,
            env: Env::new(config),
        }
    }

    // ---- inputs

    /// Handles a command of a caller or of the application.
    ///
    /// # Errors
    ///
    /// Returns an error if a request is invalid, if it is refused because there are too many, or after a shutdown. Such
    /// a request has no outcome and leaves nothing but counts in [`stats`](Self::stats). Other commands never fail.
    pub fn handle_command(&mut self, command: Command, now: Instant) -> Result<(), CommandError> {
        if let Some(recorder) = &mut self.recorder {
            recorder.command(&command, now);
        }
        self.begin(now);
        // What is due goes first: it may free the place in the queue that this request needs.
        self.process_due();
        let result = match command {
            Command::Request(request) => self.accept(request),
            Command::Cancel { id } => {
                self.fail(id, RequestError::Cancelled);
                Ok(())
            }
            Command::Shutdown { drain } => {
                self.shut_down(drain);
                Ok(())
            }
            Command::Written { key } => {
                self.scheduler.written(&key);
                Ok(())
            }
        };
        self.process_due();
        result.map_err(CommandError)
    }

    /// Handles the answer to [`Action::Start`]: the id that kad has given the query, or the error with which kad did
    /// not start it.
    pub fn handle_started(&mut self, step: StepId, result: Result<Started<Id>, QueryStartError>, now: Instant) {
        if let Some(recorder) = &mut self.recorder {
            recorder.started(step, &result, now);
        }
        self.begin(now);
        let had_provider = result.as_ref().is_ok_and(|started| started.had_provider);
        match self.scheduler.started(step, result, &mut self.env) {
            StartEffect::None => {}
            StartEffect::Announced { key, request } => {
                self.announcements.began(&key, had_provider);
                match request.and_then(|id| self.requests.get_mut(&id)) {
                    Some(request) => request.plan.note_announced(),
                    None => self.announcement_ended(&key, false),
                }
            }
            StartEffect::Failed(pass) => {
                if let Some(key) = pass.removed().and_then(|query| query.job().announced()).cloned() {
                    self.announcement_ended(&key, false);
                }
                self.run(pass);
            }
        }
        self.process_due();
    }

    /// Handles the answer to [`Action::StoreLocal`]: the result of the local store.
    pub fn handle_stored(&mut self, request: RequestId, result: Result<(), store::Error>, now: Instant) {
        if let Some(recorder) = &mut self.recorder {
            recorder.stored(request, &result, now);
        }
        self.begin(now);
        match self.requests.get_mut(&request).and_then(|live| live.on_stored(result)) {
            Some(next) => self.apply(request, next),
            None => self.env.stats.unknown_inputs += 1,
        }
        self.process_due();
    }

    /// Handles the answer to [`Action::LocalPeers`]: peers of the routing table, the closest to the target first.
    pub fn handle_local_peers(&mut self, request: RequestId, mut peers: Vec<PeerId>, now: Instant) {
        if let Some(recorder) = &mut self.recorder {
            recorder.local_peers(request, &peers, now);
        }
        self.begin(now);
        peers.retain(|peer| *peer != self.local_peer);
        let live = self.requests.get_mut(&request);
        match live.and_then(|live| live.on_local_peers(peers, &self.env.config, self.env.now)) {
            Some(next) => self.apply(request, next),
            None => self.env.stats.unknown_inputs += 1,
        }
        self.process_due();
    }

    /// Handles an event of kad. An event with an id that is not that of a running or finishing query of the tracker
    /// only counts in [`Stats::unknown_inputs`].
    pub fn handle_event(&mut self, event: QueryEvent<Id>, now: Instant) {
        if let Some(recorder) = &mut self.recorder {
            recorder.event(&event, now);
        }
        self.begin(now);
        let id = event.id;
        if let Some(pass) = self.scheduler.event(event, &mut self.env) {
            self.run(pass);
        }
        self.forget_in_log(&id);
        self.process_due();
    }

    /// Handles the number of all queries that are live in kad, including the tracker's. It only sets
    /// [`Stats::kad_own_queries`]: queries that the tracker has not started take no slots.
    pub fn handle_query_count(&mut self, live: usize, now: Instant) {
        if let Some(recorder) = &mut self.recorder {
            recorder.query_count(live, now);
        }
        self.begin(now);
        let own = live.saturating_sub(self.scheduler.running());
        self.env.stats.kad_own_queries = u64::try_from(own).unwrap_or(u64::MAX);
        self.process_due();
    }

    /// Handles the answer to [`Action::Probe`]: the current statistics of the query, or `None` if something of the query is
    /// on its way: kad no longer runs it, so that an event has to come, or a large value is being sent or received.
    pub fn handle_probe(&mut self, id: Id, progress: Option<Progress>, now: Instant) {
        if let Some(recorder) = &mut self.recorder {
            recorder.probe(&id, progress, now);
        }
        self.begin(now);
        self.scheduler.probed(&id, progress, &mut self.env);
        self.forget_in_log(&id);
        self.process_due();
    }

    /// Handles that a running query does not do all that it could: a peer that it waits for was given up, or somebody
    /// other than the tracker finished it. If it finds nothing, the result is inconclusive.
    pub fn handle_cut_short(&mut self, id: Id, now: Instant) {
        if let Some(recorder) = &mut self.recorder {
            recorder.cut_short(&id, now);
        }
        self.begin(now);
        self.scheduler.cut_short(&id, &mut self.env);
        self.forget_in_log(&id);
        self.process_due();
    }

    /// Handles new estimates of the network, which replace the earlier ones. They help to decide whether an empty
    /// result is conclusive: see [`Certainty`](crate::Certainty).
    pub fn handle_network(&mut self, network: Network, now: Instant) {
        if let Some(recorder) = &mut self.recorder {
            recorder.network(network, now);
        }
        self.begin(now);
        self.network = network;
        self.process_due();
    }

    /// Handles what is due at `now`: deadlines, retries, slots of queries whose end kad has not reported, and checks of
    /// queries that may have stalled. A call before the time of [`poll_timeout`](Self::poll_timeout) does nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Some(recorder) = &mut self.recorder {
            recorder.timeout(now);
        }
        self.begin(now);
        self.process_due();
    }

    // ---- outputs

    /// Returns the next action to carry out. `None` if there is none until the next input.
    pub fn poll_action(&mut self) -> Option<Action<Id>> {
        let action = self.env.actions.pop_front()?;
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
        if !self.is_empty() || self.shutting_down || self.scheduler.last_step() > 0 {
            return Err(RecordingError);
        }
        // Not before the latest input: time must not run backwards in the replay either.
        let now = self.clock.advance(now);
        let Some(epoch) = self.clock.instant(now) else { return Err(RecordingError) };
        let mut recorder = Recorder::new(epoch, values, false, self.local_peer, &self.env.config);
        if self.network != Network::default() {
            recorder.network(self.network, epoch);
        }
        self.recorder = Some(Box::new(recorder));
        Ok(())
    }

    /// Returns the next line of the log. `None` if there is none, or nothing is recorded. Take all lines after each
    /// input and action, or they accumulate.
    pub fn poll_log(&mut self) -> Option<String> {
        self.recorder.as_mut()?.pop()
    }

    pub(crate) fn replay_log(&mut self, epoch: Instant, values: LogValues) {
        self.clock.advance(epoch);
        self.recorder = Some(Box::new(Recorder::new(epoch, values, true, self.local_peer, &self.env.config)));
    }

    /// Returns the time at which to call [`handle_timeout`](Self::handle_timeout) at the latest. `None` if nothing
    /// becomes due without another input.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.env.timers.next().and_then(|at| self.clock.instant(at))
    }

    /// Returns `true` if the query belongs to the tracker: it is running or finishing, or it is one of the last 1,024
    /// whose slot was taken back without a last event. Treat all other queries as the application's or kad's own.
    pub fn owns(&self, id: &Id) -> bool {
        self.scheduler.owns(id)
    }

    // ---- state

    /// Returns kad's ids of the tracker's running and finishing queries, in no particular order.
    pub fn query_ids(&self) -> impl Iterator<Item = Id> + '_ {
        self.scheduler.ids()
    }

    /// Returns `true` if no request and no query is alive, and no action waits to be polled.
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
            && self.scheduler.is_empty()
            && self.announcements.is_empty()
            && self.env.actions.is_empty()
            && self.env.timers.is_empty()
    }

    /// Returns `true` if a shutdown was requested and every accepted request has ended. Queries may still be finishing.
    pub fn is_shut_down(&self) -> bool {
        self.shutting_down && self.requests.is_empty()
    }

    /// Returns the number of requests of callers that were accepted and have not ended.
    pub fn live_requests(&self) -> usize {
        self.requests.len().saturating_sub(self.read_repairs.live())
    }

    /// Returns the number of queries that hold a slot.
    pub fn live_queries(&self) -> usize {
        self.scheduler.running()
    }

    /// Returns the configuration, with `max_running`, `max_items` and `max_item_bytes` clamped to their bounds.
    pub fn config(&self) -> &TrackerConfig {
        &self.env.config
    }

    /// Returns the counters since the tracker was created.
    pub fn stats(&self) -> Stats {
        self.env.stats
    }

    /// Returns the outcome counts and latency histograms per operation.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Returns all live requests and all queries that hold a slot, with their ages at `now`. The call visits every
    /// request and copies its key: use it for diagnosis, not on a hot path.
    pub fn snapshot(&self, now: Instant) -> Snapshot<Id> {
        let now = self.clock.time(now);
        let view = |id: RequestId, request: &LiveRequest| RequestView {
            id,
            operation: request.plan.kind(),
            key: request.plan.key().to_vec(),
            phase: request.phase(self.query_of(request)),
            age: now.since(request.accepted),
            remaining: request.deadline.since(now),
        };
        let mut requests: Vec<_> = self.requests.iter().map(|(id, request)| view(*id, request)).collect();
        requests.sort_unstable_by_key(|request| request.id);
        Snapshot { requests, queries: self.scheduler.views(now) }
    }

    fn query_of(&self, request: &LiveRequest) -> Option<&scheduler::LiveQuery<Id>> {
        match request.phase {
            Phase::Attached { step } => self.scheduler.get(step),
            Phase::Deciding | Phase::BackingOff { until: _ } | Phase::Storing | Phase::Choosing => None,
        }
    }

    // ---- time and slots

    fn begin(&mut self, now: Instant) {
        self.env.now = self.clock.advance(now);
    }

    /// Handles what is due, then starts queries in the free slots. Called in every input.
    fn process_due(&mut self) {
        while let Some((at, timer)) = self.env.timers.pop_due(self.env.now) {
            match timer {
                Timer::GiveUp(step) => self.give_up(step),
                Timer::Deadline(id) => self.expire(id),
                Timer::Retry(id) => self.try_again(id),
                Timer::StallCheck(step) => self.scheduler.check_stall(step, at, &mut self.env),
            }
        }
        while let Some(query) = self.scheduler.start_next(&mut self.env) {
            if let Some(key) = query.job().announced() {
                self.announcements.start(key);
            }
        }
    }

    fn give_up(&mut self, step: StepId) {
        let Some(given_up) = self.scheduler.give_up(step, &mut self.env) else { return };
        if let (Some(recorder), Some(forgotten)) = (&mut self.recorder, given_up.forgotten) {
            recorder.forget(&forgotten);
        }
        if let Some(key) = given_up.unannounced {
            self.announcement_ended(&key, false);
        }
    }

    /// Forgets an id in the log if the tracker does not own it.
    fn forget_in_log(&mut self, id: &Id) {
        if let Some(recorder) = &mut self.recorder
            && !self.scheduler.owns(id)
        {
            recorder.forget(id);
        }
    }

    // ---- requests

    fn accept(&mut self, request: Request) -> Result<(), RequestError> {
        let Request { id, operation, options } = request;
        let checked = self.check(id, &operation).and_then(|()| {
            let plan = Plan::new(admission::adopt(operation, &self.local_peer));
            self.make_room(&plan, &options).map(|()| plan)
        });
        let plan = checked.inspect_err(|_| self.env.stats.refused += 1)?;
        self.env.stats.accepted += 1;
        if let Some(key) = plan.written() {
            self.scheduler.written(key);
            // A read repair of what was there before would undo the write.
            for repair in self.read_repairs.of(key) {
                self.fail(repair, RequestError::Cancelled);
            }
        }
        let RequestOptions { timeout, streaming, priority, retry, fresh } = options;
        let timeout = timeout.unwrap_or(self.env.config.default_timeout);
        let waiter = Waiter {
            request: id,
            threshold: Threshold::End,
            line: Line::New(priority),
            // A put has no items for its caller; it reads back for itself.
            streaming: streaming && !matches!(plan, Plan::PutRecord(_)),
            begun: false,
            fresh,
        };
        let retry = retry.map(|retry| Box::new(Attempts::new(retry)));
        self.insert(plan, waiter, retry, timeout);
        Ok(())
    }

    fn insert(&mut self, mut plan: Plan, waiter: Waiter, retry: Option<Box<Attempts>>, timeout: Duration) {
        let (id, now) = (waiter.request, self.env.now);
        let deadline = now.after(timeout);
        let next = plan.first();
        let request = LiveRequest { plan, retry, accepted: now, deadline, phase: Phase::Deciding, waiter };
        self.requests.insert(id, Box::new(request));
        self.env.set_timer(deadline, Timer::Deadline(id));
        self.apply(id, next);
    }

    fn check(&self, id: RequestId, operation: &Operation) -> Result<(), RequestError> {
        if self.shutting_down {
            return Err(RequestError::Shutdown);
        }
        if id.is_reserved() {
            return Err(InvalidRequestError::ReservedId.into());
        }
        if self.requests.contains_key(&id) {
            return Err(InvalidRequestError::DuplicateId.into());
        }
        let now = self.clock.instant(self.env.now);
        admission::check(operation, &self.env.config, &self.local_peer, now).map_err(RequestError::Invalid)
    }

    /// Refuses a request if there is no room for it.
    ///
    /// A request that joins a running query needs no place in the queue, and neither does one that backs off. The
    /// number of live requests bounds both: joining stops at twice as many as the queue and the slots hold, everything
    /// else at three times as many. The gap keeps joining requests from locking out all others.
    fn make_room(&self, plan: &Plan, options: &RequestOptions) -> Result<(), RequestError> {
        let config = &self.env.config;
        let full = self.scheduler.queued() >= config.max_queued && self.scheduler.free_slots(&self.env) == 0;
        let room = config.max_queued.saturating_add(config.max_running);
        let live = self.requests.len();
        let many = live >= room.saturating_mul(2);
        if !full && !many {
            return Ok(());
        }
        let crowded = live >= room.saturating_mul(3);
        let joins = self.scheduler.would_join_running(&plan.first_job(), options.fresh, &self.env);
        let refused = if joins { many } else { full || crowded };
        if refused { Err(RequestError::Overloaded) } else { Ok(()) }
    }

    fn shut_down(&mut self, drain: bool) {
        self.shutting_down = true;
        // Read repairs have no caller, so a drain does not wait for them.
        let mut ids: Vec<_> = self.requests.keys().filter(|id| !drain || id.is_reserved()).copied().collect();
        ids.sort_unstable();
        for id in ids {
            self.fail(id, RequestError::Shutdown);
        }
    }

    fn try_again(&mut self, id: RequestId) {
        if let Some(request) = self.requests.get(&id)
            && let Phase::BackingOff { until: _ } = request.phase
        {
            let job = request.plan.first_job();
            self.apply(id, Next::Query(job));
        }
    }

    fn expire(&mut self, id: RequestId) {
        if let Some(request) = self.requests.get(&id) {
            let outcome = request.expire(self.query_of(request), &self.env.config);
            self.end(id, outcome);
        }
    }

    /// Ends a request for a reason that all operations share.
    fn fail(&mut self, id: RequestId, error: RequestError) {
        if let Some(request) = self.requests.get(&id) {
            let outcome = Outcome::failed(request.plan.kind(), error);
            self.end(id, outcome);
        }
    }

    /// Carries out the next step of a request, and ends it at once if it joins a query whose results satisfy it.
    fn apply(&mut self, id: RequestId, next: Next) {
        if let Some(pass) = self.take_step(id, next) {
            self.run(pass);
        }
    }

    /// Asks the plan of each request whose query has ended for its next step, and carries it out.
    fn run(&mut self, mut pass: Pass<Id>) {
        let mut memo = Memo::default();
        while let Some(id) = self.scheduler.advance(&mut pass, &mut self.env) {
            let Some(request) = self.requests.get_mut(&id) else { continue };
            let Some((work, end)) = self.scheduler.ended(&pass, request.waiter.threshold) else { continue };
            let Work { progress, cut_short, outlasted, .. } = *work;
            let certainty = certainty(&self.env.config, self.network, progress, cut_short, outlasted);
            let ended = Ended { results: &work.results, progress: work.progress, end, certainty };
            let mut next = request.on_ended(&ended, &mut memo, &self.env.config, self.env.now);
            let mut repair = None;
            if let (Plan::GetRecord { policy: Policy::Best { .. }, .. }, Next::Done(Outcome::GetRecord(Ok(answer)))) =
                (&request.plan, &mut next)
            {
                let repairing = memo.repairing.get_or_insert_with(|| {
                    let now = self.clock.instant(self.env.now);
                    let expired = now.is_some_and(|now| answer.record.record.is_expired(now));
                    let room = self.read_repairs.live() < self.env.config.max_read_repairs;
                    if room && !self.shutting_down && !expired {
                        let peers = peers_to_repair(&answer.record.record, &ended, &self.local_peer);
                        repair = Some((Arc::clone(&answer.record), peers));
                    }
                    repair.as_ref().map_or(0, |(_, peers)| peers.len())
                });
                answer.repairing = *repairing;
            }
            // Only reads are satisfied by a query that they join, and a read has only one step.
            self.take_step(id, next);
            if let Some((best, peers)) = repair.filter(|(_, peers)| !peers.is_empty()) {
                self.start_read_repair(&best, peers);
            }
        }
    }

    /// Carries out the next step of a request. Returns the pass of a running query that it has joined.
    fn take_step(&mut self, id: RequestId, next: Next) -> Option<Pass<Id>> {
        let request = self.requests.get_mut(&id)?;
        let priority = request.priority();
        match next {
            Next::Query(job) => return self.attach(id, job),
            Next::Further(job) => {
                request.waiter.begun = true;
                request.waiter.line = Line::FurtherStep(priority);
                return self.attach(id, job);
            }
            Next::StoreLocal(record) => {
                request.phase = Phase::Storing;
                self.env.act(Action::StoreLocal { request: id, record });
            }
            Next::LocalPeers(target) => {
                request.phase = Phase::Choosing;
                self.env.act(Action::LocalPeers { request: id, target });
            }
            Next::Wait(until) => {
                // It waits in the line of its class again, but takes no place in the queue.
                request.waiter.begun = true;
                request.waiter.line = Line::New(priority);
                request.phase = Phase::BackingOff { until };
                self.env.set_timer(until, Timer::Retry(id));
                if let Some(key) = request.plan.take_announced().cloned() {
                    self.announcement_ended(&key, false);
                }
            }
            Next::Done(outcome) => self.end(id, outcome),
        }
        None
    }

    fn attach(&mut self, id: RequestId, job: Job) -> Option<Pass<Id>> {
        let request = self.requests.get_mut(&id)?;
        request.waiter.threshold = request.plan.threshold(&job, self.env.config.max_items);
        let (step, pass) = self.scheduler.attach(request.waiter, job, &mut self.env);
        request.phase = Phase::Attached { step };
        pass
    }

    /// Ends a request. No other function does.
    fn end(&mut self, id: RequestId, outcome: Outcome) {
        let Some(mut request) = self.requests.remove(&id) else { return };
        self.env.timers.cancel(request.deadline, Timer::Deadline(id));
        let keeps_provider = outcome.keeps_provider();
        if id.is_reserved() {
            // A read repair has no caller, and spreads what readers know.
            self.read_repairs.ended(id);
        } else {
            if let Some(key) = request.plan.written() {
                self.scheduler.written(key);
            }
            self.metrics.ended(&outcome, self.env.now.since(request.accepted));
            self.env.act(Action::Outcome { request: id, outcome });
        }
        match request.phase {
            Phase::Attached { step } => self.scheduler.detach(&request.waiter, step, &mut self.env),
            Phase::BackingOff { until } => self.env.timers.cancel(until, Timer::Retry(id)),
            Phase::Deciding | Phase::Storing | Phase::Choosing => {}
        }
        if let Some(key) = request.plan.take_announced() {
            self.announcement_ended(key, keeps_provider);
        }
    }

    /// Notes the end of an announcement, which leaves its local entry or takes it back.
    fn announcement_ended(&mut self, key: &RecordKey, keeps_entry: bool) {
        if self.announcements.ended(key, keeps_entry) {
            self.env.act(Action::StopProviding { key: key.clone() });
            self.scheduler.written(key);
        }
    }

    /// Sends a record to the peers that need it.
    fn start_read_repair(&mut self, best: &PeerRecord, peers: Vec<PeerId>) {
        let request = self.read_repairs.start(best.record.key.clone());
        self.env.stats.read_repairs += 1;
        let record = Arc::new(best.record.clone());
        let plan = Plan::new(Operation::PutRecordTo { record, peers, quorum: Quorum::One });
        let waiter = Waiter {
            request,
            threshold: Threshold::End,
            line: Line::New(Priority::Background),
            streaming: false,
            // It takes no place in the queue.
            begun: true,
            fresh: false,
        };
        self.insert(plan, waiter, None, self.env.config.default_timeout);
    }
}
