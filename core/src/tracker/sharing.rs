//! Sharing of queries: attaching a request to a query and detaching it.

use std::{fmt, hash::Hash};

use super::{
    QueryTracker,
    policy::{self, first_query},
    state::{LiveQuery, Phase, QueryState, SharedQuery, Timer, waiter},
    time::Time,
    waiters::{Waiter, Waiters},
};
use crate::{Action, Operation, Priority, Query, RequestId, StepId};

impl<Id: Copy + Eq + Hash + fmt::Debug> QueryTracker<Id> {
    /// Attaches a request to a query: to a live one for the same, or else to a new one.
    pub(super) fn attach(&mut self, id: RequestId, query: Query, now: Time) {
        let shared_query = SharedQuery::of(&query);
        self.attach_to(id, query, shared_query, now);
    }

    /// Attaches a request to a new query that no other request shares.
    pub(super) fn attach_alone(&mut self, id: RequestId, query: Query, now: Time) {
        self.attach_to(id, query, None, now);
    }

    fn attach_to(&mut self, id: RequestId, query: Query, shared_query: Option<SharedQuery>, now: Time) {
        let Some(request) = self.requests.get_mut(&id) else { return };
        let waiter = waiter(id, request, self.config.max_items);
        let votes = policy::votes(&request.operation);
        let (priority, begun) = (request.priority, request.begun);
        let shared = shared_query.as_ref().and_then(|shared_query| self.shared_queries.get(shared_query)).copied();
        if let Some(step) = shared.filter(|step| self.is_alive(*step, now)) {
            if let Some(request) = self.requests.get_mut(&id) {
                request.phase = Phase::Attached { step };
            }
            self.join(step, waiter, priority, votes, now);
            return;
        }
        self.last_step += 1;
        let step = StepId(self.last_step);
        if let Some(request) = self.requests.get_mut(&id) {
            request.phase = Phase::Attached { step };
        }
        self.waiting.insert(waiter.line, step);
        let query = LiveQuery {
            query,
            waiters: Waiters::One(waiter),
            work: None,
            votes,
            state: QueryState::Queued { line: waiter.line },
            asked_at: now,
        };
        self.queries.insert(step, Box::new(query));
        if let Some(shared_query) = shared_query {
            self.shared_queries.insert(shared_query, step);
        }
        if !begun {
            self.queue_slots.take(id, priority);
        }
    }

    /// Returns whether requests may join a query. Not one that kad has been silent about for `finish_timeout`: it has
    /// probably been lost, and requests that keep joining it would keep it alive.
    fn is_alive(&self, step: StepId, now: Time) -> bool {
        self.queries.get(&step).is_some_and(|query| match query.state {
            QueryState::Queued { line: _ } => true,
            QueryState::Starting
            | QueryState::Running { id: _ }
            | QueryState::Ended { id: _ }
            | QueryState::Abandoned { finish_deadline: _ }
            | QueryState::Finishing { id: _, finish_deadline: _ } => {
                query.work.as_ref().is_some_and(|work| now.since(work.heard_at) < self.config.finish_timeout)
            }
        })
    }

    /// Returns whether an operation would join a query that holds a slot.
    pub(super) fn joins_running(&self, operation: &Operation, now: Time) -> bool {
        let step = SharedQuery::of(&first_query(operation))
            .and_then(|shared_query| self.shared_queries.get(&shared_query))
            .copied();
        let alive = step.filter(|step| self.is_alive(*step, now));
        let query = alive.and_then(|step| self.queries.get(&step));
        query.is_some_and(|query| !matches!(query.state, QueryState::Queued { .. }))
    }

    fn join(&mut self, step: StepId, waiter: Waiter, priority: Priority, votes: bool, now: Time) {
        let Some(query) = self.queries.get_mut(&step) else { return };
        query.waiters.add(waiter);
        query.votes |= votes;
        query.count_votes(&self.config.validators);
        match &mut query.state {
            QueryState::Queued { line: current } => {
                let risen = query.waiters.line();
                self.waiting.change(*current, risen, step);
                *current = risen;
                if !waiter.begun {
                    self.queue_slots.take(waiter.request, priority);
                }
            }
            QueryState::Starting | QueryState::Running { id: _ } => {
                if waiter.streaming
                    && let Some(work) = &query.work
                {
                    let actions = &mut self.actions;
                    let request = waiter.request;
                    let deliver = &mut |item| actions.push_back(Action::Item { request, item });
                    work.results.replay(waiter.threshold.at_most(), deliver);
                }
                self.end_satisfied(step, now);
            }
            // Unreachable: such queries are no longer shared.
            QueryState::Ended { .. } | QueryState::Abandoned { .. } | QueryState::Finishing { .. } => {}
        }
    }

    /// Detaches a request from its query. A query without requests is finished, and keeps its slot until kad has ended
    /// it.
    pub(super) fn detach(&mut self, waiter: Waiter, priority: Priority, step: StepId, now: Time) {
        let finish_deadline = now.after(self.config.finish_timeout);
        let Some(query) = self.queries.get_mut(&step) else { return };
        query.waiters.remove(waiter);
        let unwanted = query.waiters.is_empty();
        match query.state {
            QueryState::Queued { line } => {
                if !waiter.begun {
                    self.queue_slots.leave(waiter.request, priority);
                }
                if unwanted {
                    self.waiting.remove(line, step);
                    let shared_query = SharedQuery::of(&query.query);
                    self.queries.remove(&step);
                    self.unshare(shared_query, step);
                } else {
                    let fallen = query.waiters.line();
                    query.state = QueryState::Queued { line: fallen };
                    self.waiting.change(line, fallen, step);
                }
            }
            QueryState::Starting if unwanted => {
                query.state = QueryState::Abandoned { finish_deadline };
                let shared_query = SharedQuery::of(&query.query);
                self.timers.insert((finish_deadline, Timer::Lost(step)));
                self.unshare(shared_query, step);
            }
            QueryState::Running { id } if unwanted => {
                query.state = QueryState::Finishing { id, finish_deadline };
                let shared_query = SharedQuery::of(&query.query);
                let look_at = query.work.as_mut().and_then(|work| work.look_at.take());
                if let Some(at) = look_at {
                    self.timers.remove(&(at, Timer::StallCheck(step)));
                }
                self.actions.push_back(Action::Finish(id));
                self.timers.insert((finish_deadline, Timer::Lost(step)));
                self.unshare(shared_query, step);
            }
            QueryState::Starting
            | QueryState::Running { id: _ }
            | QueryState::Ended { id: _ }
            | QueryState::Abandoned { finish_deadline: _ }
            | QueryState::Finishing { id: _, finish_deadline: _ } => {}
        }
    }

    /// Excludes a query from sharing.
    pub(super) fn unshare(&mut self, shared_query: Option<SharedQuery>, step: StepId) {
        if let Some(shared_query) = shared_query
            && self.shared_queries.get(&shared_query) == Some(&step)
        {
            self.shared_queries.remove(&shared_query);
        }
    }

    /// Removes a query and frees its slot.
    pub(super) fn remove_query(&mut self, step: StepId) -> Option<Box<LiveQuery<Id>>> {
        let mut query = self.queries.remove(&step)?;
        self.running -= 1;
        let look_at = query.work.as_mut().and_then(|work| work.look_at.take());
        if let Some(at) = look_at {
            self.timers.remove(&(at, Timer::StallCheck(step)));
        }
        match query.state {
            QueryState::Running { id } | QueryState::Ended { id } => {
                self.steps.remove(&id);
            }
            QueryState::Finishing { id, finish_deadline } => {
                self.steps.remove(&id);
                self.timers.remove(&(finish_deadline, Timer::Lost(step)));
            }
            QueryState::Abandoned { finish_deadline } => {
                self.timers.remove(&(finish_deadline, Timer::Lost(step)));
            }
            QueryState::Queued { .. } | QueryState::Starting => {}
        }
        let shared_query = SharedQuery::of(&query.query);
        if let (Some(cache), Some(shared_query)) = (&mut self.cache, &shared_query) {
            cache.read_over(shared_query, step);
        }
        self.unshare(shared_query, step);
        Some(query)
    }
}
