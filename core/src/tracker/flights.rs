//! Who waits for which query: attaching a request to one, sharing one, letting go of one.

use std::{fmt, hash::Hash};

use super::{
    QueryTracker,
    judge::{self, first_query},
    state::{Flight, LiveQuery, Phase, QueryState, Timer, waiter},
    time::Time,
    waiters::{Need, Waiter, Waiters},
    waiting::Line,
};
use crate::{Action, Operation, Progress, Query, RequestId, StepId};

impl<Id: Copy + Eq + Hash + fmt::Debug> QueryTracker<Id> {
    /// Makes a request wait for a query: for one that is wanted already, if it is the same, or for one of its own.
    pub(super) fn attach(&mut self, id: RequestId, query: Query, lookup: Progress, now: Time) {
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
        self.waiting.insert(line, step);
        let query = LiveQuery {
            query,
            waiters: Waiters::One(waiter),
            findings: None,
            lookup,
            votes,
            state: QueryState::Queued { line },
            asked_at: now,
            progress: Progress::default(),
        };
        self.queries.insert(step, Box::new(query));
        if let Some(flight) = flight {
            self.flights.insert(flight, step);
        }
        if let Line::New(_) = line {
            self.queued += 1;
        }
    }

    /// Whether an operation would share a query that has its slot already.
    pub(super) fn joins_running(&self, operation: &Operation) -> bool {
        let step = Flight::of(&first_query(operation)).and_then(|flight| self.flights.get(&flight));
        let query = step.and_then(|step| self.queries.get(step));
        query.is_some_and(|query| !matches!(query.state, QueryState::Queued { .. }))
    }

    pub(super) fn join(&mut self, step: StepId, waiter: Waiter, votes: bool, line: Line, now: Time) {
        let Some(query) = self.queries.get_mut(&step) else { return };
        let others = query.waiters.len();
        query.waiters.add(waiter);
        query.votes |= votes;
        query.count_votes(&self.config.validators);
        match &mut query.state {
            QueryState::Queued { line: current } => {
                let risen = (*current).max(line);
                match (*current, risen) {
                    (Line::New(_), Line::FurtherStep) => self.queued -= others,
                    (Line::New(_), Line::New(_)) => self.queued += 1,
                    (Line::FurtherStep, _) => {}
                }
                self.waiting.change(*current, risen, step);
                *current = risen;
            }
            QueryState::Starting | QueryState::Running { id: _ } => {
                if waiter.streaming
                    && let Some(findings) = &query.findings
                {
                    let actions = &mut self.actions;
                    let request = waiter.request;
                    let at_most = match waiter.need {
                        Need::Items(needed) => needed as usize,
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
    pub(super) fn detach(&mut self, waiter: Waiter, step: StepId, now: Time) {
        let lost_at = now.after(self.config.lost_after);
        let Some(query) = self.queries.get_mut(&step) else { return };
        query.waiters.remove(waiter);
        let unwanted = query.waiters.is_empty();
        match query.state {
            QueryState::Queued { line } => {
                if let Line::New(_) = line {
                    self.queued -= 1;
                }
                if unwanted {
                    self.waiting.remove(line, step);
                    let flight = Flight::of(&query.query);
                    self.queries.remove(&step);
                    self.land(flight, step);
                } else if let Line::New(_) = line {
                    let fallen = Line::New(query.waiters.priority());
                    query.state = QueryState::Queued { line: fallen };
                    self.waiting.change(line, fallen, step);
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
    pub(super) fn land(&mut self, flight: Option<Flight>, step: StepId) {
        if let Some(flight) = flight
            && self.flights.get(&flight) == Some(&step)
        {
            self.flights.remove(&flight);
        }
    }

    /// Takes a query out of the books: its slot is free.
    pub(super) fn remove_query(&mut self, step: StepId) -> Option<Box<LiveQuery<Id>>> {
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
}
