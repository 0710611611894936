//! Inputs from kad: every combination of a query's state and an input.

use std::{fmt, hash::Hash};

use super::{
    QueryTracker, policy,
    results::{Anomaly, NewItems, QueryEnd, ResultDelta, fits},
    state::{LiveQuery, QueryState, SharedQuery, Work, waiter},
    time::Time,
    waiters::Waiters,
};
use crate::{Action, Operation, Progress, Query, QueryEvent, QueryStartError, RequestId, Started, StepId};

impl<Id: Copy + Eq + Hash + fmt::Debug> QueryTracker<Id> {
    pub(super) fn started(&mut self, step: StepId, result: Result<Started<Id>, QueryStartError>, now: Time) {
        let Some(query) = self.queries.get_mut(&step) else {
            self.stats.unknown_inputs += 1;
            return;
        };
        match (&query.state, result) {
            // Without an id of its own, the second query with this id never gets an event.
            (QueryState::Starting | QueryState::Abandoned { finish_deadline: _ }, Ok(started))
                if self.steps.contains_key(&started.id) =>
            {
                self.stats.unknown_inputs += 1;
            }
            (QueryState::Starting, Ok(Started { id, had_provider })) => {
                query.state = QueryState::Running { id };
                self.steps.insert(id, step);
                self.watch(step, now);
                let Some(query) = self.queries.get(&step) else { return };
                if let Query::StartProviding { key } = &query.query {
                    let (key, announcer) = (key.clone(), query.waiters.first());
                    if let Some(request) = announcer.and_then(|id| self.requests.get_mut(&id)) {
                        request.announced = true;
                    }
                    self.announcement_began(&key, had_provider);
                }
            }
            (QueryState::Abandoned { finish_deadline }, Ok(Started { id, had_provider })) => {
                query.state = QueryState::Finishing { id, finish_deadline: *finish_deadline };
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
                    let Some(request) = self.requests.get(&id) else { continue };
                    if request.closest.is_some() {
                        self.looked_beside(id, &[], Progress::default(), now);
                    } else {
                        let outcome = policy::refused(&request.operation, error.clone());
                        self.conclude(id, outcome, None, now);
                    }
                }
            }
            (QueryState::Abandoned { finish_deadline: _ }, Err(_)) => {
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

    pub(super) fn event(&mut self, step: StepId, event: QueryEvent<Id>, now: Time) {
        let QueryEvent { id, result, progress, last } = event;
        let Some(live) = self.queries.get_mut(&step) else { return };
        if !fits(live.query.kind(), &result) {
            self.stats.mismatched_events += 1;
            return;
        }
        if let Some(work) = &mut live.work {
            work.progress = progress;
            (work.heard_at, work.moved_at) = (now, now);
            // Other queries do more than a lookup, so their duration says nothing about round trips.
            let is_lookup = matches!(
                live.query,
                Query::GetRecord { .. } | Query::GetProviders { .. } | Query::GetClosestPeers { .. }
            );
            if is_lookup && !work.rtt_measured && progress.successes > 0 {
                work.rtt_measured = true;
                self.rtt.measured(now.since(live.asked_at), progress.successes, self.config.stall.as_ref());
            }
        }
        match (&live.state, last) {
            (QueryState::Running { id: _ }, last) => {
                let LiveQuery { query, work: Some(work), .. } = &mut **live else { return };
                let was_finished_early = work.finished_early;
                let ResultDelta { items, end, anomaly } =
                    work.results.delta(query, result, progress, &self.config.validators);
                match anomaly {
                    None => {}
                    Some(Anomaly::Mismatch) => self.stats.mismatched_events += 1,
                    Some(Anomaly::ForeignRecord) => self.stats.foreign_records += 1,
                    Some(Anomaly::Rejected) => self.stats.rejected_records += 1,
                }
                if last {
                    live.state = QueryState::Ended { id };
                }
                self.take_items(step, items, now);
                if last && let Some(mut end) = end {
                    match &mut end {
                        QueryEnd::Read { finished_early, .. } => *finished_early = was_finished_early,
                        // Other peers may name the local one.
                        QueryEnd::ClosestPeers { peers, timed_out: _ } => {
                            peers.retain(|info| info.peer_id != self.local_peer);
                        }
                        QueryEnd::Stored { .. } | QueryEnd::Announced { .. } | QueryEnd::Bootstrapped => {}
                    }
                    self.end_query(step, &end, now);
                }
            }
            (QueryState::Finishing { id: _, finish_deadline: _ }, true) => {
                self.remove_query(step);
            }
            // Late answers, which no request needs.
            (QueryState::Finishing { .. }, false) => {}
            // Unreachable: without an id no event matches the query, and no event arrives while another is handled.
            (
                QueryState::Queued { .. }
                | QueryState::Ended { .. }
                | QueryState::Starting
                | QueryState::Abandoned { .. },
                _,
            ) => {}
        }
    }

    /// Adds the items of an event one by one, while any request waits for them.
    pub(super) fn take_items(&mut self, step: StepId, mut items: NewItems, now: Time) {
        while let Some(live) = self.queries.get_mut(&step)
            && !live.waiters.is_empty()
            && let Some(item) = items.next()
        {
            let LiveQuery { query, waiters, work: Some(work), .. } = &mut **live else { return };
            let results = &mut work.results;
            results.add(query, &item, &self.config.validators);
            for request in waiters.streaming() {
                self.actions.push_back(Action::Item { request, item: item.clone() });
            }
            if results.replay_bytes() > self.config.max_replay_bytes {
                let shared_query = SharedQuery::of(query);
                self.unshare(shared_query, step);
            }
            self.read_back(step, &item, now);
            self.end_satisfied(step, now);
            self.end_at_the_bound(step, now);
        }
    }

    /// Ends the requests of a query that has found the maximum number of items, as if kad had ended it.
    pub(super) fn end_at_the_bound(&mut self, step: StepId, now: Time) {
        let (mut satisfied, mut read_repair) = (false, None);
        while let Some(query) = self.queries.get(&step)
            && query.available().items >= self.config.max_items
            && let Some(id) = query.waiters.first()
            && let Some(request) = self.requests.get(&id)
        {
            let Some(Work { results, progress, .. }) = query.work.as_deref() else { return };
            if let Operation::PutRecord { .. } = &request.operation {
                self.end_read_back(id, step, now);
                continue;
            }
            let mut outcome = policy::ended(&request.operation, results, &QueryEnd::ENOUGH, *progress);
            let further = self.read_repair(&request.operation, &mut outcome, results, None, now);
            read_repair = read_repair.or(further);
            satisfied |= outcome.is_ok();
            self.end(id, outcome, now);
        }
        if satisfied {
            self.keep_so_far(step, now);
        }
        if let Some(read_repair) = read_repair {
            self.start_read_repair(read_repair, now);
        }
    }

    /// Ends the requests that the results so far satisfy.
    pub(super) fn end_satisfied(&mut self, step: StepId, now: Time) {
        let (mut satisfied, mut read_repair) = (false, None);
        while let Some(query) = self.queries.get(&step)
            && let Some(id) = query.waiters.satisfied(query.available())
            && let Some(request) = self.requests.get(&id)
            && let Some(Work { results, progress, .. }) = query.work.as_deref()
        {
            let mut outcome = policy::satisfied(&request.operation, results, *progress);
            let further = self.read_repair(&request.operation, &mut outcome, results, None, now);
            read_repair = read_repair.or(further);
            satisfied |= outcome.is_ok();
            self.end(id, outcome, now);
        }
        if satisfied {
            self.keep_so_far(step, now);
        }
        if let Some(read_repair) = read_repair {
            self.start_read_repair(read_repair, now);
        }
    }

    /// Ends every request that still waits for a query that kad has ended.
    pub(super) fn end_query(&mut self, step: StepId, end: &QueryEnd, now: Time) {
        let keeps = self.keeps(step);
        let Some(mut query) = self.remove_query(step) else { return };
        let LiveQuery { waiters, work: Some(work), query, .. } = &mut *query else { return };
        let Work { results, progress, .. } = &**work;
        let (mut found_out, mut read_repair) = (false, None);
        while let Some(id) = self.take_waiter(waiters) {
            let Some(request) = self.requests.get(&id) else { continue };
            match &request.operation {
                Operation::PutRecord { .. } => self.put_query_ended(id, results, end, *progress, now),
                Operation::GetClosestPeers { target: _, thorough: true } => {
                    self.thorough_lookup_ended(id, results, end, *progress, now);
                }
                operation => {
                    let mut outcome = policy::ended(operation, results, end, *progress);
                    let further = self.read_repair(operation, &mut outcome, results, Some(end), now);
                    read_repair = read_repair.or(further);
                    found_out |= outcome.is_found_out();
                    self.conclude(id, outcome, Some((results, *progress)), now);
                }
            }
        }
        if keeps && found_out {
            self.keep_all(query, results, end, *progress, now);
        }
        if let Some(read_repair) = read_repair {
            self.start_read_repair(read_repair, now);
        }
    }

    /// Removes the next waiter, in the order of their thresholds.
    pub(super) fn take_waiter(&self, waiters: &mut Waiters) -> Option<RequestId> {
        let id = waiters.first()?;
        match self.requests.get(&id) {
            Some(request) => waiters.remove(waiter(id, request, self.config.max_items)),
            // Unreachable: every waiter is a live request.
            None => *waiters = Waiters::None,
        }
        Some(id)
    }

    /// Takes back the slot of a query whose last event has not arrived, and remembers its id.
    pub(super) fn give_up(&mut self, step: StepId) {
        let Some(query) = self.remove_query(step) else { return };
        self.stats.lost_queries += 1;
        match query.state {
            QueryState::Finishing { id, finish_deadline: _ }
            | QueryState::Running { id }
            | QueryState::Ended { id } => {
                let forgotten = self.evicted_ids.insert(id);
                if let (Some(recorder), Some(forgotten)) = (&mut self.recorder, forgotten) {
                    recorder.forget(&forgotten);
                }
                self.actions.push_back(Action::Forget(id));
            }
            QueryState::Queued { .. } | QueryState::Abandoned { finish_deadline: _ } | QueryState::Starting => {
                self.start_failed(&query.query);
            }
        }
    }

    /// Undoes what was done for a query that did not start.
    pub(super) fn start_failed(&mut self, query: &Query) {
        if let Query::StartProviding { key } = query {
            self.announcement_ended(key, false);
        }
    }
}
