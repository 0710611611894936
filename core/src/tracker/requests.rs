//! A request, from its acceptance to its outcome.

use std::{fmt, hash::Hash};

use libp2p::{PeerId, kad::store};

use super::{
    plans::{Attempts, Ended, Limits, Memo, Next, Plan},
    scheduler::{Line, LiveQuery, Waiter},
    time::Time,
};
use crate::{Outcome, Priority, RequestError, RequestPhase, StepId, TrackerConfig};

/// ```text
///   Deciding ──► Attached ──► Deciding ──► outcome
///      │  ▲
///      ▼  │
///   BackingOff, Storing, Choosing
/// ```
#[derive(Debug, Clone)]
pub(super) struct LiveRequest {
    pub(super) plan: Plan,
    /// Boxed, because few requests have one and many requests wait.
    pub(super) retry: Option<Box<Attempts>>,
    pub(super) accepted: Time,
    pub(super) deadline: Time,
    pub(super) phase: Phase,
    /// The request as the scheduler knows it.
    pub(super) waiter: Waiter,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Phase {
    /// Its next step is being decided. Over before the next input.
    Deciding,
    /// Waiting for this query, which may itself be waiting for a slot.
    Attached { step: StepId },
    /// Waiting for its next attempt.
    BackingOff { until: Time },
    /// Waiting for the local store to take the record.
    Storing,
    /// Waiting for the peers of the routing table, to select further ones.
    Choosing,
}

impl LiveRequest {
    pub(super) fn priority(&self) -> Priority {
        match self.waiter.line {
            Line::New(priority) | Line::FurtherStep(priority) => priority,
        }
    }

    /// Returns the next step after the end of a query.
    pub(super) fn on_ended(&mut self, ended: &Ended<'_>, memo: &mut Memo, config: &TrackerConfig, now: Time) -> Next {
        self.phase = Phase::Deciding;
        let next = self.plan.on_ended(ended, memo);
        self.or_retry(next, Some(ended), config, now)
    }

    /// Returns the next step after the local store has answered. `None` if the request does not wait for it.
    pub(super) fn on_stored(&mut self, result: Result<(), store::Error>) -> Option<Next> {
        match (self.phase, &mut self.plan) {
            // The store's errors are not retried.
            (Phase::Storing, Plan::PutRecord(put)) => Some(put.on_stored(result)),
            _ => None,
        }
    }

    /// Returns the next step after the routing table has named these peers, the closest first. `None` if the request
    /// does not wait for them.
    pub(super) fn on_local_peers(&mut self, peers: Vec<PeerId>, config: &TrackerConfig, now: Time) -> Option<Next> {
        match (self.phase, &mut self.plan) {
            (Phase::Choosing, Plan::PutRecord(put)) => {
                let next = put.on_local_peers(peers);
                Some(self.or_retry(next, None, config, now))
            }
            _ => None,
        }
    }

    /// Replaces the end of a failed attempt by the wait for the next one, if there is one.
    fn or_retry(&mut self, next: Next, ended: Option<&Ended<'_>>, config: &TrackerConfig, now: Time) -> Next {
        let (Next::Done(outcome), Some(attempts)) = (&next, &mut self.retry) else { return next };
        let Waiter { request, streaming, .. } = self.waiter;
        let limits = Limits { request, streaming, now, deadline: self.deadline };
        match attempts.next(&mut self.plan, outcome, ended, limits, config) {
            Some(until) => Next::Wait(until),
            None => next,
        }
    }

    /// Returns the outcome at the deadline, with the query that the request waits for.
    pub(super) fn expire<Id: Copy + Eq + Hash + fmt::Debug>(
        &self,
        query: Option<&LiveQuery<Id>>,
        config: &TrackerConfig,
    ) -> Outcome {
        let work = query.and_then(LiveQuery::work);
        if query.is_some() && work.is_none() && !self.waiter.begun {
            return Outcome::failed(self.plan.kind(), RequestError::ExpiredInQueue);
        }
        let mut outcome = self.plan.timeout(work.map(|work| (&work.results, work.progress)));
        if let Some(attempts) = &self.retry {
            attempts.complete(&mut outcome, config.max_items);
        }
        outcome
    }

    pub(super) fn phase<Id>(&self, query: Option<&LiveQuery<Id>>) -> RequestPhase {
        match self.phase {
            Phase::Attached { step: _ } => match query {
                Some(query) if query.work().is_none() && self.waiter.begun => RequestPhase::BetweenSteps,
                Some(query) if query.work().is_none() => RequestPhase::Queued,
                Some(_) | None => RequestPhase::Running,
            },
            Phase::BackingOff { until: _ } => RequestPhase::BackingOff,
            Phase::Storing => RequestPhase::Storing,
            Phase::Choosing | Phase::Deciding => RequestPhase::BetweenSteps,
        }
    }
}
