//! Queries that have stopped moving.
//!
//! A running query is looked at when it was quiet for three round trips; whoever looks much later than that has been held
//! up, and waits once more. The round trip is what a query took until it was first heard of after a peer had answered,
//! divided by the rounds that so many answers need. kad says how far the query got: if that is as far as before, it
//! depends on what it has whether it has to make do with it.

use std::time::{Duration, Instant};

use kadence_core::{Action, Operation, Policy, Progress, Query};

use super::{Model, State, later, outcomes};

impl Model {
    /// How long a query may be quiet. `None` if nobody looks.
    pub(super) fn quiet(&self) -> Option<Duration> {
        let stall = self.config.stall?;
        let quiet = self.round_trip.map_or(stall.initial_quiet, |round_trip| 3 * round_trip);
        Some(stall.min_quiet.max(stall.max_quiet.min(quiet)).max(Duration::from_millis(1)))
    }

    pub(super) fn measured(&mut self, took: Duration, answers: u32) {
        if let Some(stall) = self.config.stall {
            let rounds = answers.div_ceil(stall.parallelism.max(1));
            let new = stall.max_quiet.min(took / rounds);
            self.round_trip = Some(self.round_trip.map_or(new, |old| old - old / 8 + new / 8));
        }
    }

    pub(super) fn look_at(&mut self, step: u64, now: Instant) {
        let Some(quiet) = self.quiet() else { return };
        let Some(query) = self.query_mut(step) else { return };
        let (State::Running(id), Some(due)) = (query.state, query.look.take()) else { return };
        let quiet_until = later(query.moved, quiet);
        if quiet_until > now {
            query.look = Some(quiet_until);
        } else if now - due > quiet / 2 {
            query.moved = now;
            query.look = Some(later(now, quiet));
        } else {
            query.probed = true;
            self.give(Action::Probe(id));
        }
    }

    pub(super) fn take_probe(&mut self, id: u32, progress: Option<Progress>, now: Instant) {
        let Some(query) = self.queries.iter_mut().find(|query| query.id() == Some(id)) else {
            self.view.unknown_inputs += u64::from(progress.is_some());
            return;
        };
        let step = query.step;
        let (Some(stall), Some(quiet)) = (self.config.stall, self.quiet()) else { return };
        let Some(query) = self.query_mut(step) else { return };
        if let State::Finishing(..) = query.state {
            return;
        }
        let asked = std::mem::take(&mut query.probed);
        let Some(progress) = progress else {
            query.look = if asked { Some(later(now, quiet)) } else { query.look };
            return;
        };
        if !asked {
            self.view.unknown_inputs += 1;
            return;
        }
        if progress != query.progress {
            (query.progress, query.moved, query.look) = (progress, now, Some(later(now, quiet)));
            return;
        }
        let moved = query.moved;
        let until =
            self.patience(step).map_or(later(now, quiet.max(stall.max_quiet)), |times| later(moved, quiet * times));
        let hurry = until <= now;
        if let Some(query) = self.query_mut(step) {
            query.look = Some(until);
            if hurry {
                (query.moved, query.look, query.closed) = (now, Some(later(now, quiet)), true);
                query.finished_early = true;
            }
        }
        if hurry {
            self.view.queries_finished_early += 1;
            self.give(Action::FinishPhase(id));
        }
    }

    /// How many quiet times a query has before it is finished; `None`: more than there are.
    fn patience(&self, step: u64) -> Option<u32> {
        let query = self.query(step)?;
        let Progress { requests, successes, failures } = query.progress;
        let silent = requests.saturating_sub(successes).saturating_sub(failures);
        let enough = successes >= 10 || (successes > 0 && successes >= 3 * silent);
        let waiters: Vec<_> = self.waiters(step).into_iter().filter_map(|id| self.request(id)).collect();
        match &query.query {
            Query::GetClosestPeers { .. } | Query::StartProviding { .. } | Query::Bootstrap => {
                if successes == 0 {
                    None
                } else {
                    let at_capacity = silent >= self.config.stall.map_or(1, |stall| stall.parallelism);
                    Some(if enough && !at_capacity { 1 } else { 4 })
                }
            }
            Query::GetRecord { .. } | Query::GetProviders { .. } => {
                let wants_more = waiters.iter().any(|request| match &request.operation {
                    Operation::GetRecord { key: _, policy } | Operation::GetProviders { key: _, policy } => {
                        match policy {
                            Policy::First => self.config.max_items > 1,
                            Policy::Limit(limit) => *limit < self.config.max_items,
                            Policy::Quorum(_) => true,
                            Policy::All | Policy::Best { agree: _ } => false,
                        }
                    }
                    Operation::PutRecord { .. } => true,
                    _ => false,
                });
                match (enough, wants_more, query.found.items().is_empty()) {
                    (true, true, _) => Some(8),
                    (true, false, true) => Some(4),
                    (true, false, false) => Some(1),
                    (false, false, false) if successes > 0 => Some(3),
                    (false, ..) => None,
                }
            }
            Query::PutRecordTo { record: _, peers } => {
                let request = waiters.first()?;
                let missing = match (&request.operation, &request.put) {
                    (Operation::PutRecordTo { quorum, .. }, _) => outcomes::needed(*quorum, peers.len()).get(),
                    (_, Some(put)) => put.missing(),
                    _ => return None,
                };
                let asks_on = peers.len() > requests as usize;
                match (&request.operation, successes as usize) {
                    (_, answers) if answers >= missing => Some(1),
                    (Operation::PutRecord { .. }, 0) => Some(3),
                    (Operation::PutRecord { .. }, _) => Some(if asks_on { 4 } else { 2 }),
                    (_, 0) => None,
                    _ => Some(4).filter(|_| !asks_on),
                }
            }
        }
    }
}
