//! Everything about a tracker that is visible from outside.

use std::time::{Duration, Instant};

use kadence_core::{OperationKind, OutcomeKind, QueryPhase, QueryView, RequestPhase, RequestView, Snapshot, Stats};

use super::{Awaiting, Model, State};

/// Counters of the tracker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "they mirror the fields of `Stats`")]
pub struct Counters {
    pub accepted: u64,
    pub refused: u64,
    pub unknown_inputs: u64,
    pub mismatched_events: u64,
    pub foreign_records: u64,
    pub rejected_records: u64,
    pub kad_own_queries: u64,
    pub lost_queries: u64,
    pub queries_finished_early: u64,
    pub read_repairs: u64,
}

impl From<Stats> for Counters {
    fn from(stats: Stats) -> Self {
        Self {
            accepted: stats.accepted,
            refused: stats.refused,
            unknown_inputs: stats.unknown_inputs,
            mismatched_events: stats.mismatched_events,
            foreign_records: stats.foreign_records,
            rejected_records: stats.rejected_records,
            kad_own_queries: stats.kad_own_queries,
            lost_queries: stats.lost_queries,
            queries_finished_early: stats.queries_finished_early,
            read_repairs: stats.read_repairs,
        }
    }
}

impl Model {
    /// `QueryTracker::poll_timeout`.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.due().map(|(at, _)| at)
    }

    /// `QueryTracker::owns`.
    pub fn owns(&self, id: u32) -> bool {
        self.evicted_ids.contains(&id) || self.queries.iter().any(|query| query.id() == Some(id))
    }

    /// `QueryTracker::live_requests`.
    pub fn live_requests(&self) -> usize {
        self.requests.iter().filter(|request| !request.id.is_reserved()).count()
    }

    /// `QueryTracker::live_queries`.
    pub fn live_queries(&self) -> usize {
        self.queries.iter().filter(|query| !matches!(query.state, State::Waiting(_))).count()
    }

    /// `QueryTracker::is_empty`, once its actions have been polled.
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty() && self.queries.is_empty()
    }

    /// `QueryTracker::is_shut_down`.
    pub fn is_shut_down(&self) -> bool {
        self.shutting_down && self.requests.is_empty()
    }

    /// `QueryTracker::stats`.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// `QueryTracker::metrics`: the number of requests that ended with this outcome, and the sum of their durations.
    pub fn metrics(&self, operation: OperationKind, kind: OutcomeKind) -> (u64, Duration) {
        let ended = self.ended.iter().filter(|(of, how, _)| (*of, *how) == (operation, kind));
        ended.fold((0, Duration::ZERO), |(count, sum), (_, _, took)| (count + 1, sum.saturating_add(*took)))
    }

    /// `QueryTracker::snapshot`.
    pub fn snapshot(&self, now: Instant) -> Snapshot<u32> {
        let mut requests: Vec<_> = self
            .requests
            .iter()
            .map(|request| {
                let phase = match &request.awaiting {
                    Awaiting::Retry(_) => RequestPhase::BackingOff,
                    Awaiting::LocalStore(_) => RequestPhase::Storing,
                    Awaiting::LocalPeers => RequestPhase::BetweenSteps,
                    Awaiting::Query(step) => match self.query(*step).map(|query| query.state) {
                        Some(State::Waiting(_)) if request.past_first_step => RequestPhase::BetweenSteps,
                        Some(State::Waiting(_)) => RequestPhase::Queued,
                        _ => RequestPhase::Running,
                    },
                };
                RequestView::new(request.id, request.operation.kind(), request.operation.key().to_vec())
                    .phase(phase)
                    .age(now.saturating_duration_since(request.accepted))
                    .remaining(request.deadline.saturating_duration_since(now))
            })
            .collect();
        requests.sort_by_key(|request| request.id);
        let queries = self
            .queries
            .iter()
            .filter_map(|query| {
                let phase = match query.state {
                    State::Waiting(_) => return None,
                    State::Starting => QueryPhase::Starting,
                    State::Running(_) | State::LastEvent(_) => QueryPhase::Running,
                    State::Finishing(..) => QueryPhase::Finishing,
                };
                let waiters = self.waiters(query.step);
                let mut view = QueryView::new(query.query.kind());
                (view.id, view.phase, view.progress) = (query.id(), phase, query.progress);
                (view.request, view.waiters) = (waiters.first().copied(), waiters.len());
                view.age = now.saturating_duration_since(query.started);
                Some(view)
            })
            .collect();
        Snapshot::new(requests, queries)
    }
}
