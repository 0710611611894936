//! The scheduler: which query runs when, who waits for it, and when it has ended for whom.
//!
//! It knows queries and the requests that wait for them, and no operation. What a request does with the end of its
//! query is decided by its plan.
//!
//! ```text
//!   attach ──► queue ──► slot ──► kad ──► event ──► Pass ──► advance: one request after the other whose query has ended
//! ```

mod evicted_ids;
mod query;
mod rtt;
mod sharing;
mod stall;
mod waiters;
mod waiting;

use std::{fmt, hash::Hash, mem};

use libp2p::{PeerId, kad::RecordKey};
use rustc_hash::FxHashMap;

use self::{
    evicted_ids::EvictedIds,
    query::QueryState,
    rtt::RttEstimator,
    sharing::{SharedQuery, Sharing},
    waiters::Waiters,
    waiting::WaitingLine,
};
pub(super) use self::{
    query::{Job, LiveQuery, Work},
    waiters::{Available, Threshold, Waiter},
    waiting::Line,
};
use super::{
    certainty::PEER_TIMEOUT,
    env::Env,
    results::{Anomaly, NewItems, QueryEnd, ResultDelta, fits},
    time::Time,
    timers::Timer,
};
use crate::{Action, Progress, Query, QueryEvent, QueryPhase, QueryStartError, QueryView, RequestId, Started, StepId};

/// All queries, from the first request that needs one until kad has ended it.
#[derive(Debug, Clone)]
pub(super) struct Scheduler<Id> {
    local_peer: PeerId,
    queries: FxHashMap<StepId, Box<LiveQuery<Id>>>,
    /// Steps by kad's query id.
    steps: FxHashMap<Id, StepId>,
    sharing: Sharing,
    waiting: WaitingLine,
    /// Number of slots in use.
    running: usize,
    /// Number of requests that wait for their first query to start.
    queued: usize,
    evicted_ids: EvictedIds<Id>,
    rtt: RttEstimator,
    last_step: u64,
}

/// One input's way through the requests that wait for a query: [`Scheduler::advance`] takes it step by step.
#[derive(Debug)]
pub(super) struct Pass<Id> {
    step: StepId,
    items: NewItems,
    /// End of the query, if the input has ended it.
    end: Option<QueryEnd>,
    /// The query, once it has ended and is no longer scheduled.
    removed: Option<Box<LiveQuery<Id>>>,
}

/// Effect of kad's answer to a start.
#[derive(Debug)]
pub(super) enum StartEffect<Id> {
    None,
    /// An announcement has begun: for this request, or for none that still waits.
    Announced {
        key: RecordKey,
        request: Option<RequestId>,
    },
    /// The query could not start.
    Failed(Pass<Id>),
}

/// Query that was given up.
#[derive(Debug)]
pub(super) struct GivenUp<Id> {
    /// Id that is no longer remembered, because this one is.
    pub(super) forgotten: Option<Id>,
    /// Key of an announcement that has never started.
    pub(super) unannounced: Option<RecordKey>,
}

impl<Id: Copy + Eq + Hash + fmt::Debug> Scheduler<Id> {
    pub(super) fn new(local_peer: PeerId, shares: [u32; 3]) -> Self {
        Self {
            local_peer,
            queries: FxHashMap::default(),
            steps: FxHashMap::default(),
            sharing: Sharing::default(),
            waiting: WaitingLine::new(shares),
            running: 0,
            queued: 0,
            evicted_ids: EvictedIds::new(),
            rtt: RttEstimator::default(),
            last_step: 0,
        }
    }

    // ---- requests

    /// Attaches a request to a query: to a live one for the same, or else to a new one. The pass ends the request if
    /// the results of a running query satisfy it already.
    pub(super) fn attach(&mut self, waiter: Waiter, job: Job, env: &mut Env<Id>) -> (StepId, Option<Pass<Id>>) {
        let new = StepId(self.last_step + 1);
        let step = match SharedQuery::of(&job) {
            Some(shared) => self.sharing.join_or_offer(shared, new, |offered| {
                self.queries.get(&offered).is_some_and(|query| query.may_be_joined(waiter.fresh, env))
            }),
            None => new,
        };
        if step != new {
            return (step, self.join(step, waiter, env));
        }
        self.last_step = new.0;
        self.waiting.insert(waiter.line, step);
        let query = LiveQuery {
            job,
            waiters: Waiters::One(waiter),
            work: None,
            votes: waiter.threshold.counts_votes(),
            state: QueryState::Queued { line: waiter.line },
            asked_at: env.now,
        };
        self.queries.insert(step, Box::new(query));
        self.queued += usize::from(!waiter.begun);
        (step, None)
    }

    /// Returns whether a request would join a query that holds a slot.
    pub(super) fn would_join_running(&self, job: &Job, fresh: bool, env: &Env<Id>) -> bool {
        SharedQuery::of(job)
            .and_then(|shared| self.queries.get(&self.sharing.get(&shared)?))
            .is_some_and(|query| query.work.is_some() && query.may_be_joined(fresh, env))
    }

    fn join(&mut self, step: StepId, waiter: Waiter, env: &mut Env<Id>) -> Option<Pass<Id>> {
        let query = self.queries.get_mut(&step)?;
        query.waiters.add(waiter);
        query.votes |= waiter.threshold.counts_votes();
        query.count_votes(&env.config.validators);
        match &mut query.state {
            QueryState::Queued { line: current } => {
                let risen = query.waiters.line();
                self.waiting.change(*current, risen, step);
                *current = risen;
                self.queued += usize::from(!waiter.begun);
                None
            }
            QueryState::Starting | QueryState::Running { id: _ } => {
                if waiter.streaming
                    && let Some(work) = &query.work
                {
                    let request = waiter.request;
                    let deliver = &mut |item| env.actions.push_back(Action::Item { request, item });
                    work.results.replay(waiter.threshold.at_most(), deliver);
                }
                Some(Pass::new(step))
            }
            // Unreachable: such queries are no longer shared.
            QueryState::Abandoned { .. } | QueryState::Finishing { .. } => None,
        }
    }

    /// Detaches a request from its query.
    pub(super) fn detach(&mut self, waiter: &Waiter, step: StepId, env: &mut Env<Id>) {
        let Some(query) = self.queries.get_mut(&step) else { return };
        query.waiters.remove(waiter);
        if let QueryState::Queued { line } = &mut query.state {
            self.queued -= usize::from(!waiter.begun);
            if !query.waiters.is_empty() {
                let fallen = query.waiters.line();
                self.waiting.change(*line, fallen, step);
                *line = fallen;
                return;
            }
            self.waiting.remove(*line, step);
            self.sharing.exclude(&query.job, step);
            self.queries.remove(&step);
        } else if query.waiters.is_empty() {
            self.abandon(step, env);
        }
    }

    /// Finishes a query that no request waits for. It keeps its slot until kad has ended it.
    fn abandon(&mut self, step: StepId, env: &mut Env<Id>) {
        let finish_deadline = env.now.after(env.config.finish_timeout);
        let Some(query) = self.queries.get_mut(&step) else { return };
        match query.state {
            QueryState::Starting => query.state = QueryState::Abandoned { finish_deadline },
            QueryState::Running { id } => {
                query.state = QueryState::Finishing { id, finish_deadline };
                query.cancel_stall_check(step, env);
                env.act(Action::Finish(id));
            }
            QueryState::Queued { .. } | QueryState::Abandoned { .. } | QueryState::Finishing { .. } => return,
        }
        env.set_timer(finish_deadline, Timer::GiveUp(step));
        self.sharing.exclude(&query.job, step);
    }

    /// Ends the sharing of reads of a key that have started: a later request has to see what was written.
    pub(super) fn written(&mut self, key: &RecordKey) {
        for shared in SharedQuery::reads(key) {
            if let Some(step) = self.sharing.get(&shared)
                && let Some(query) = self.queries.get(&step)
                && query.work.is_some()
            {
                self.sharing.exclude(&query.job, step);
            }
        }
    }

    // ---- slots

    /// Starts the next query if a slot is free.
    pub(super) fn start_next(&mut self, env: &mut Env<Id>) -> Option<&LiveQuery<Id>> {
        if self.free_slots(env) == 0 {
            return None;
        }
        let step = self.waiting.pop()?;
        let query = self.queries.get_mut(&step)?;
        self.queued -= query.waiters.new_ones();
        self.running += 1;
        query.begin(&env.config.validators, env.now);
        if let Some(request) = query.waiters.first() {
            env.act(Action::Start { step, request, query: query.job.query() });
        }
        Some(query)
    }

    pub(super) fn free_slots(&self, env: &Env<Id>) -> usize {
        env.config.max_running.saturating_sub(self.running)
    }

    /// Removes a query that holds a slot, and frees the slot.
    fn remove(&mut self, step: StepId, env: &mut Env<Id>) -> Option<Box<LiveQuery<Id>>> {
        let mut query = self.queries.remove(&step)?;
        self.running -= 1;
        query.cancel_stall_check(step, env);
        match query.state {
            QueryState::Running { id } => {
                self.steps.remove(&id);
            }
            QueryState::Finishing { id, finish_deadline } => {
                self.steps.remove(&id);
                env.timers.cancel(finish_deadline, Timer::GiveUp(step));
            }
            QueryState::Abandoned { finish_deadline } => env.timers.cancel(finish_deadline, Timer::GiveUp(step)),
            QueryState::Queued { .. } | QueryState::Starting => {}
        }
        self.sharing.exclude(&query.job, step);
        Some(query)
    }

    /// Takes back the slot of a query whose last event has not arrived, and remembers its id.
    pub(super) fn give_up(&mut self, step: StepId, env: &mut Env<Id>) -> Option<GivenUp<Id>> {
        let query = self.remove(step, env)?;
        env.stats.lost_queries += 1;
        match query.state {
            QueryState::Finishing { id, finish_deadline: _ } | QueryState::Running { id } => {
                let forgotten = self.evicted_ids.insert(id);
                env.act(Action::Forget(id));
                Some(GivenUp { forgotten, unannounced: None })
            }
            QueryState::Queued { .. } | QueryState::Abandoned { finish_deadline: _ } | QueryState::Starting => {
                Some(GivenUp { forgotten: None, unannounced: query.job.announced().cloned() })
            }
        }
    }

    // ---- inputs from kad

    pub(super) fn started(
        &mut self,
        step: StepId,
        result: Result<Started<Id>, QueryStartError>,
        env: &mut Env<Id>,
    ) -> StartEffect<Id> {
        let Some(query) = self.queries.get_mut(&step) else {
            env.stats.unknown_inputs += 1;
            return StartEffect::None;
        };
        match (&query.state, result) {
            // Without an id of its own, the second query with this id never gets an event.
            (QueryState::Starting | QueryState::Abandoned { finish_deadline: _ }, Ok(started))
                if self.steps.contains_key(&started.id) =>
            {
                env.stats.unknown_inputs += 1;
                StartEffect::None
            }
            (QueryState::Starting, Ok(Started { id, had_provider: _ })) => {
                query.state = QueryState::Running { id };
                self.steps.insert(id, step);
                if let Some(stall) = &env.config.stall {
                    query.check_stall_at(step, env.now.after(self.rtt.quiet(stall)), env);
                }
                match query.job.announced() {
                    Some(key) => StartEffect::Announced { key: key.clone(), request: query.waiters.first() },
                    None => StartEffect::None,
                }
            }
            (QueryState::Abandoned { finish_deadline }, Ok(Started { id, had_provider: _ })) => {
                query.state = QueryState::Finishing { id, finish_deadline: *finish_deadline };
                self.steps.insert(id, step);
                env.act(Action::Finish(id));
                match query.job.announced() {
                    Some(key) => StartEffect::Announced { key: key.clone(), request: None },
                    None => StartEffect::None,
                }
            }
            (QueryState::Starting | QueryState::Abandoned { finish_deadline: _ }, Err(error)) => {
                let removed = self.remove(step, env);
                StartEffect::Failed(Pass { end: Some(QueryEnd::NotStarted(error)), removed, ..Pass::new(step) })
            }
            (
                QueryState::Queued { .. } | QueryState::Running { id: _ } | QueryState::Finishing { .. },
                Ok(_) | Err(_),
            ) => {
                env.stats.unknown_inputs += 1;
                StartEffect::None
            }
        }
    }

    /// Takes in an event of kad. The pass is `None` if no request waits for it.
    pub(super) fn event(&mut self, event: QueryEvent<Id>, env: &mut Env<Id>) -> Option<Pass<Id>> {
        let QueryEvent { id, result, progress, last } = event;
        let Some(step) = self.steps.get(&id).copied() else {
            env.stats.unknown_inputs += 1;
            return None;
        };
        let live = self.queries.get_mut(&step)?;
        if !fits(live.job.kind(), &result) {
            env.stats.mismatched_events += 1;
            return None;
        }
        let LiveQuery { job, state, asked_at, work: Some(work), .. } = &mut **live else { return None };
        work.progress = progress;
        work.outlasted = env.now.since(*asked_at) >= PEER_TIMEOUT;
        (work.heard_at, work.moved_at) = (env.now, env.now);
        // Other queries do more than a lookup, so their duration says nothing about round trips.
        let is_lookup = match job {
            Job::Query(Query::GetRecord { .. } | Query::GetProviders { .. } | Query::GetClosestPeers { .. })
            | Job::ReadBack(_) => true,
            Job::Query(Query::PutRecordTo { .. } | Query::StartProviding { .. } | Query::Bootstrap) => false,
        };
        if is_lookup && !work.rtt_measured && progress.successes > 0 {
            work.rtt_measured = true;
            self.rtt.measured(env.now.since(*asked_at), progress.successes, env.config.stall.as_ref());
        }
        match state {
            QueryState::Running { id: _ } => {
                let ResultDelta { items, end, anomaly } =
                    work.results.delta(job, result, progress, &env.config.validators);
                match anomaly {
                    None => {}
                    Some(Anomaly::Mismatch) => env.stats.mismatched_events += 1,
                    Some(Anomaly::ForeignRecord) => env.stats.foreign_records += 1,
                    Some(Anomaly::Rejected) => env.stats.rejected_records += 1,
                }
                let mut end = end.filter(|_| last);
                if let Some(QueryEnd::ClosestPeers { peers, timed_out: _ }) = &mut end {
                    // Other peers may name the local one.
                    peers.retain(|info| info.peer_id != self.local_peer);
                }
                Some(Pass { items, end, ..Pass::new(step) })
            }
            QueryState::Finishing { .. } => {
                // Late answers, which no request needs.
                if last {
                    self.remove(step, env);
                }
                None
            }
            // Unreachable: without an id no event matches the query.
            QueryState::Queued { .. } | QueryState::Starting | QueryState::Abandoned { .. } => None,
        }
    }

    /// Goes on with a pass: adds its items one by one, and returns the next request whose query has ended. `None` at
    /// the end of the pass.
    pub(super) fn advance(&mut self, pass: &mut Pass<Id>, env: &mut Env<Id>) -> Option<RequestId> {
        loop {
            if let Some(query) = &mut pass.removed {
                return query.waiters.pop_first();
            }
            let live = self.queries.get_mut(&pass.step)?;
            if live.waiters.is_empty() && pass.end.is_none() {
                self.abandon(pass.step, env);
                return None;
            }
            let LiveQuery { job, waiters, work: Some(work), .. } = &mut **live else { return None };
            let available = work.results.available();
            if let Some(request) = waiters.pop_satisfied(available) {
                return Some(request);
            }
            let full = available.items >= env.config.max_items || work.results.bytes() >= env.config.max_item_bytes;
            if full && let Some(request) = waiters.pop_first() {
                return Some(request);
            }
            if !waiters.is_empty()
                && let Some(item) = pass.items.next()
            {
                work.results.add(&item, &env.config.validators);
                for request in waiters.streaming() {
                    env.actions.push_back(Action::Item { request, item: item.clone() });
                }
                if work.results.bytes() > env.config.max_replay_bytes {
                    self.sharing.exclude(job, pass.step);
                }
                continue;
            }
            pass.end.as_ref()?;
            pass.removed = self.remove(pass.step, env);
            pass.removed.as_ref()?;
        }
    }

    /// Returns the query of a pass, and its end for the request that [`advance`](Self::advance) has just returned.
    pub(super) fn ended<'a>(&'a self, pass: &'a Pass<Id>, threshold: Threshold) -> Option<(&'a Work, &'a QueryEnd)> {
        if let Some(removed) = &pass.removed {
            return removed.work.as_deref().zip(pass.end.as_ref());
        }
        let work = self.queries.get(&pass.step)?.work.as_deref()?;
        let satisfied = work.results.available().satisfies(threshold);
        Some((work, if satisfied { &QueryEnd::Satisfied } else { &QueryEnd::Full }))
    }

    /// Notes that the result of a query is not conclusive: a peer was given up, or somebody else finished the query.
    pub(super) fn cut_short(&mut self, id: &Id, env: &mut Env<Id>) {
        let step = self.steps.get(id).copied();
        let query = step.and_then(|step| Some((step, self.queries.get_mut(&step)?)));
        let Some((step, LiveQuery { job, work: Some(work), .. })) = query.map(|(step, query)| (step, &mut **query))
        else {
            env.stats.unknown_inputs += 1;
            return;
        };
        work.cut_short = true;
        // A request that joined now could get less than the network has.
        self.sharing.exclude(job, step);
    }

    // ---- stalls

    /// Checks a query at `due`: if it may have been quiet for too long, kad is asked for its progress.
    pub(super) fn check_stall(&mut self, step: StepId, due: Time, env: &mut Env<Id>) {
        let (Some(stall), now) = (env.config.stall, env.now) else { return };
        let quiet = self.rtt.quiet(&stall);
        let Some(query) = self.queries.get_mut(&step) else { return };
        let LiveQuery { state: QueryState::Running { id }, work: Some(work), .. } = &mut **query else { return };
        work.stall_check_at = None;
        let quiet_until = work.moved_at.after(quiet);
        if quiet_until > now {
            // It has made progress since.
            query.check_stall_at(step, quiet_until, env);
        } else if now.since(due) > quiet / 2 {
            // The driver was delayed. Then every query looks quiet, because its answers have not been read yet.
            work.moved_at = now;
            query.check_stall_at(step, now.after(quiet), env);
        } else {
            work.probed = true;
            env.actions.push_back(Action::Probe(*id));
        }
    }

    /// Handles kad's answer to a probe.
    pub(super) fn probed(&mut self, id: &Id, progress: Option<Progress>, env: &mut Env<Id>) {
        let Some(step) = self.steps.get(id).copied() else {
            // It may have ended since the probe, and then there is nothing to do.
            env.stats.unknown_inputs += u64::from(progress.is_some());
            return;
        };
        let (Some(stall), now) = (env.config.stall, env.now) else { return };
        let quiet = self.rtt.quiet(&stall);
        let Some(query) = self.queries.get_mut(&step) else { return };
        let LiveQuery { state: QueryState::Running { id }, work: Some(work), .. } = &mut **query else { return };
        let asked = mem::take(&mut work.probed);
        // An event or a response is on its way.
        let Some(progress) = progress else {
            if asked {
                query.check_stall_at(step, now.after(quiet), env);
            }
            return;
        };
        if !asked {
            env.stats.unknown_inputs += 1;
            return;
        }
        if progress != work.progress {
            work.progress = progress;
            work.moved_at = now;
            query.check_stall_at(step, now.after(quiet), env);
            return;
        }
        let (id, moved_at) = (*id, work.moved_at);
        let until = match stall::patience(query, env.config.max_items, &stall, quiet) {
            None => now.after(quiet.max(stall.max_quiet)),
            Some(patience) => moved_at.after(patience),
        };
        if until > now {
            query.check_stall_at(step, until, env);
            return;
        }
        env.stats.queries_finished_early += 1;
        env.act(Action::FinishPhase(id));
        if let Some(work) = &mut query.work {
            work.moved_at = now;
            work.cut_short = true;
        }
        // A request that joined now could get less than the network has.
        self.sharing.exclude(&query.job, step);
        query.check_stall_at(step, now.after(quiet), env);
    }

    // ---- state

    pub(super) fn owns(&self, id: &Id) -> bool {
        self.steps.contains_key(id) || self.evicted_ids.contains(id)
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = Id> + '_ {
        self.steps.keys().copied()
    }

    pub(super) fn get(&self, step: StepId) -> Option<&LiveQuery<Id>> {
        self.queries.get(&step).map(|query| &**query)
    }

    /// Returns the number of slots in use.
    pub(super) fn running(&self) -> usize {
        self.running
    }

    /// Returns the number of requests that wait for their first query to start.
    pub(super) fn queued(&self) -> usize {
        self.queued
    }

    /// Returns the number of the last step, which counts the queries since the beginning.
    pub(super) fn last_step(&self) -> u64 {
        self.last_step
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queries.is_empty() && self.sharing.is_empty()
    }

    /// Returns every query that holds a slot, oldest first.
    pub(super) fn views(&self, now: Time) -> Vec<QueryView<Id>> {
        let mut queries: Vec<_> = self.queries.iter().collect();
        queries.sort_unstable_by_key(|(step, _)| **step);
        let view = |query: &LiveQuery<Id>| {
            let (id, phase) = match query.state {
                QueryState::Queued { line: _ } => return None,
                QueryState::Starting => (None, QueryPhase::Starting),
                QueryState::Abandoned { finish_deadline: _ } => (None, QueryPhase::Finishing),
                QueryState::Running { id } => (Some(id), QueryPhase::Running),
                QueryState::Finishing { id, finish_deadline: _ } => (Some(id), QueryPhase::Finishing),
            };
            Some(QueryView {
                id,
                operation: query.job.kind(),
                phase,
                request: query.waiters.first(),
                waiters: query.waiters.len(),
                age: now.since(query.asked_at),
                progress: query.progress(),
            })
        };
        queries.into_iter().filter_map(|(_, query)| view(query)).collect()
    }
}

impl<Id> Pass<Id> {
    fn new(step: StepId) -> Self {
        Self { step, items: NewItems::None, end: None, removed: None }
    }

    /// Returns the query, once it has ended.
    pub(super) fn removed(&self) -> Option<&LiveQuery<Id>> {
        self.removed.as_deref()
    }
}

impl<Id> LiveQuery<Id> {
    /// Returns whether a request may join the query. Not one that kad has been silent about for `finish_timeout`: it
    /// has probably been lost, and requests that keep joining it would keep it alive.
    fn may_be_joined(&self, fresh: bool, env: &Env<Id>) -> bool {
        match &self.work {
            None => true,
            Some(work) => !fresh && env.now.since(work.heard_at) < env.config.finish_timeout,
        }
    }

    /// Schedules the next check for a stall.
    fn check_stall_at(&mut self, step: StepId, at: Time, env: &mut Env<Id>) {
        if let Some(work) = &mut self.work {
            work.stall_check_at = Some(at);
            env.set_timer(at, Timer::StallCheck(step));
        }
    }

    fn cancel_stall_check(&mut self, step: StepId, env: &mut Env<Id>) {
        if let Some(at) = self.work.as_mut().and_then(|work| work.stall_check_at.take()) {
            env.timers.cancel(at, Timer::StallCheck(step));
        }
    }
}
