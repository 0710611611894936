//! Lifecycle of a request: its steps, its attempts and its only end.

use std::{fmt, hash::Hash, mem};

use libp2p::kad::RecordKey;

use super::{
    QueryTracker,
    earlier::Earlier,
    policy,
    policy::first_query,
    results::QueryResults,
    state::{Attempts, LiveQuery, LiveRequest, Phase, QueryState, Timer, waiter},
    time::Time,
};
use crate::{Action, Operation, OperationKind, Outcome, Progress, RequestError, RequestId, RequestPhase};

impl<Id: Copy + Eq + Hash + fmt::Debug> QueryTracker<Id> {
    /// Handles the end of an attempt: ends the request, or schedules the next attempt. `attempt` is what its last query
    /// found and how far it got, if it was started.
    pub(super) fn conclude(
        &mut self,
        id: RequestId,
        outcome: Outcome,
        attempt: Option<(&QueryResults, Progress)>,
        now: Time,
    ) {
        let found_items = attempt.is_some_and(|(results, _)| results.has_items());
        let again = if outcome.is_retryable() { self.next_attempt(id, found_items, now) } else { None };
        let Some((request, until)) = again.and_then(|until| Some((self.requests.get_mut(&id)?, until))) else {
            self.end(id, outcome, now);
            return;
        };
        request.begun = true;
        if let Some(attempts) = &mut request.retry {
            attempts.failed += 1;
            let put = request.put.take().map(|put| Earlier::of_put(*put));
            if let Some(attempt) = put.or_else(|| attempt.map(|(results, progress)| Earlier::of(results, progress))) {
                attempts.earlier = attempt.after(attempts.earlier.as_deref(), self.config.max_items);
            }
        }
        request.second_step = false;
        request.phase = Phase::BackingOff { until };
        let announced = mem::replace(&mut request.announced, false);
        if announced && let Operation::StartProviding { key } = &request.operation {
            let key = key.clone();
            self.announcement_ended(&key, false);
        }
        self.timers.insert((until, Timer::Retry(id)));
    }

    /// Returns the time of the next attempt, if there is one.
    pub(super) fn next_attempt(&self, id: RequestId, found_items: bool, now: Time) -> Option<Time> {
        let request = self.requests.get(&id)?;
        let Attempts { retry, failed, earlier: _ } = request.retry.as_deref()?;
        let attempt = failed.saturating_add(1);
        // The stream would deliver its items twice.
        let repeats_items = request.streaming && found_items;
        if attempt >= retry.attempts || repeats_items {
            return None;
        }
        let until = now.after(retry.wait(attempt, jitter(self.config.seed, id, attempt)));
        (until < request.deadline).then_some(until)
    }

    pub(super) fn try_again(&mut self, id: RequestId, now: Time) {
        if let Some(request) = self.requests.get(&id)
            && let Phase::BackingOff { until: _ } = request.phase
        {
            let query = first_query(&request.operation);
            self.attach(id, query, now);
        }
    }

    /// Ends a request for a reason that all operations share.
    pub(super) fn fail(&mut self, id: RequestId, error: RequestError, now: Time) {
        if let Some(request) = self.requests.get(&id) {
            let outcome = Outcome::failed(request.operation.kind(), error);
            self.end(id, outcome, now);
        }
    }

    pub(super) fn expire(&mut self, id: RequestId, now: Time) {
        let Some(request) = self.requests.get(&id) else { return };
        let LiveRequest { operation, phase, begun, retry, closest, .. } = &**request;
        let mut outcome = match phase {
            Phase::Attached { step } => match self.queries.get(step).map(|query| &**query) {
                Some(LiveQuery { state: QueryState::Queued { .. }, .. }) if !begun => {
                    Outcome::failed(operation.kind(), RequestError::ExpiredInQueue)
                }
                Some(_) | None if operation.kind() == OperationKind::PutRecord => self.put_timeout(request),
                Some(query) => {
                    policy::timeout(operation, query.work.as_deref().map(|work| &work.results), query.progress())
                }
                None => policy::timeout(operation, None, Progress::default()),
            },
            Phase::BackingOff { until: _ } => policy::timeout(operation, None, Progress::default()),
            Phase::Storing { answer: _ } | Phase::Choosing => self.put_timeout(request),
        };
        if let Some(closest) = closest {
            closest.complete(&mut outcome);
        }
        if let Some(earlier) = retry.as_ref().and_then(|attempts| attempts.earlier.as_ref()) {
            earlier.complete(&mut outcome, self.config.max_items);
        }
        self.end(id, outcome, now);
    }

    /// Ends a request. No other function does.
    pub(super) fn end(&mut self, id: RequestId, outcome: Outcome, now: Time) {
        let Some(request) = self.requests.remove(&id) else { return };
        self.timers.remove(&(request.deadline, Timer::Deadline(id)));
        let ok = outcome.is_ok();
        if id.is_reserved() {
            // A read repair has no caller, and it does not invalidate the cached answer that it spreads.
            self.read_repairs -= 1;
        } else {
            self.drop_cached_by(&request.operation);
            self.metrics.ended(&outcome, now.since(request.accepted));
            self.actions.push_back(Action::Outcome { request: id, outcome });
        }
        match request.phase {
            Phase::Attached { step } => {
                self.detach(waiter(id, &request, self.config.max_items), request.priority, step, now);
            }
            Phase::BackingOff { until } => {
                self.timers.remove(&(until, Timer::Retry(id)));
            }
            Phase::Storing { answer: _ } | Phase::Choosing => {}
        }
        if request.announced
            && let Operation::StartProviding { key } = &request.operation
        {
            self.announcement_ended(key, ok);
        }
    }

    /// Notes that kad has stored the local provider entry. Only the first answer says whether one was there before;
    /// later ones find the tracker's own.
    pub(super) fn announcement_began(&mut self, key: &RecordKey, had_provider: bool) {
        if let Some(announcements) = self.announcements.get_mut(key) {
            announcements.had_provider.get_or_insert(had_provider);
        }
    }

    /// Removes the local entry when the last of a key's announcements ends, unless one succeeded or it was there
    /// before.
    pub(super) fn announcement_ended(&mut self, key: &RecordKey, ok: bool) {
        let Some(announcements) = self.announcements.get_mut(key) else { return };
        announcements.succeeded |= ok;
        announcements.live -= 1;
        if announcements.live > 0 {
            return;
        }
        if announcements.had_provider == Some(false) && !announcements.succeeded {
            self.actions.push_back(Action::StopProviding { key: key.clone() });
            self.drop_cached(key);
        }
        self.announcements.remove(key);
    }

    pub(super) fn phase(&self, request: &LiveRequest) -> RequestPhase {
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
            Phase::Choosing => RequestPhase::BetweenSteps,
        }
    }
}

/// Returns a uniform random number that depends only on its arguments (the finaliser of SplitMix64, Steele et al.,
/// 2014).
fn jitter(seed: u64, id: RequestId, attempt: u32) -> u64 {
    let mut z = seed
        .wrapping_add(id.0.wrapping_mul(0x9E37_79B9_7F4A_7C15))
        .wrapping_add(u64::from(attempt).wrapping_mul(0xD1B5_4A32_D192_ED03));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
