//! Detection of stalled queries.
//!
//! A running query is checked when it was quiet for three round trips. If the check itself comes much too late, the
//! process was held up, and the query gets another quiet period. The round-trip time is the time from the start of a
//! query to its first event after an answer, divided by the number of rounds in which kad gets that number of answers.
//! The check probes kad for the query's progress. If there is none since the last event, the results so far determine
//! after how many quiet periods the query is finished early.

use std::time::{Duration, Instant};

use kadence_core::{Action, Operation, Policy, Progress, Query};

use super::{Model, State, later, outcomes};

impl Model {
    /// Returns how long a query may be quiet before a check. `None`: stall detection is off.
    pub(super) fn quiet_period(&self) -> Option<Duration> {
        let stall = self.config.stall?;
        let quiet = self.round_trip.map_or(stall.initial_quiet, |round_trip| 3 * round_trip);
        Some(stall.min_quiet.max(stall.max_quiet.min(quiet)).max(Duration::from_millis(1)))
    }

    pub(super) fn record_round_trip(&mut self, took: Duration, answers: u32) {
        if let Some(stall) = self.config.stall {
            let rounds = answers.div_ceil(stall.parallelism.max(1));
            let new = stall.max_quiet.min(took / rounds);
            self.round_trip = Some(self.round_trip.map_or(new, |old| old - old / 8 + new / 8));
        }
    }

    pub(super) fn check_stall(&mut self, step: u64, now: Instant) {
        let Some(quiet) = self.quiet_period() else { return };
        let Some(query) = self.query_mut(step) else { return };
        let (State::Running(id), Some(due)) = (query.state, query.stall_check.take()) else { return };
        let quiet_until = later(query.last_progress, quiet);
        if quiet_until > now {
            query.stall_check = Some(quiet_until);
        } else if now - due > quiet / 2 {
            query.last_progress = now;
            query.stall_check = Some(later(now, quiet));
        } else {
            query.probe_pending = true;
            self.push_action(Action::Probe(id));
        }
    }

    pub(super) fn take_probe(&mut self, id: u32, progress: Option<Progress>, now: Instant) {
        let Some(query) = self.queries.iter_mut().find(|query| query.id() == Some(id)) else {
            self.counters.unknown_inputs += u64::from(progress.is_some());
            return;
        };
        let step = query.step;
        let (Some(stall), Some(quiet)) = (self.config.stall, self.quiet_period()) else { return };
        let Some(query) = self.query_mut(step) else { return };
        if let State::Finishing(..) = query.state {
            return;
        }
        let asked = std::mem::take(&mut query.probe_pending);
        let Some(progress) = progress else {
            query.stall_check = if asked { Some(later(now, quiet)) } else { query.stall_check };
            return;
        };
        if !asked {
            self.counters.unknown_inputs += 1;
            return;
        }
        if progress != query.progress {
            (query.progress, query.last_progress, query.stall_check) = (progress, now, Some(later(now, quiet)));
            return;
        }
        let last_progress = query.last_progress;
        let until = self
            .patience(step, quiet, stall.max_quiet)
            .map_or(later(now, quiet.max(stall.max_quiet)), |patience| later(last_progress, patience));
        let finish_early = until <= now;
        if let Some(query) = self.query_mut(step) {
            query.stall_check = Some(until);
            if finish_early {
                (query.last_progress, query.stall_check, query.unshared) = (now, Some(later(now, quiet)), true);
                query.cut_short = true;
            }
        }
        if finish_early {
            self.counters.queries_finished_early += 1;
            self.push_action(Action::FinishPhase(id));
        }
    }

    /// Returns the time after which a query is finished early: some quiet periods, and at least `longest` for a lookup of
    /// peers that has few answers. `None`: never.
    fn patience(&self, step: u64, quiet: Duration, longest: Duration) -> Option<Duration> {
        let query = self.query(step)?;
        let Progress { requests, successes, failures } = query.progress;
        let silent = requests.saturating_sub(successes).saturating_sub(failures);
        let enough = successes >= 10 || (successes > 0 && successes >= 3 * silent);
        let waiters: Vec<_> = self.waiters(step).into_iter().filter_map(|id| self.request(id)).collect();
        let periods = match &query.query {
            Query::GetClosestPeers { .. } | Query::StartProviding { .. } | Query::Bootstrap => {
                if successes == 0 {
                    None
                } else {
                    let at_capacity = silent >= self.config.stall.map_or(1, |stall| stall.parallelism);
                    if !enough {
                        return Some(longest.max(4 * quiet));
                    }
                    Some(if at_capacity { 4 } else { 1 })
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
                match (enough, wants_more, query.results.items().is_empty()) {
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
                // If nobody else is asked instead, a slow peer is the only hope.
                let others_follow = match (&request.operation, &request.put) {
                    (Operation::PutRecord { quorum, .. }, Some(put)) => !put.is_last_round(*quorum, peers.len()),
                    _ => false,
                };
                match (others_follow, successes as usize) {
                    (_, answers) if answers >= missing => Some(1),
                    (true, 0) => Some(3),
                    (true, _) => Some(if asks_on { 4 } else { 2 }),
                    (false, 0) => None,
                    (false, _) => Some(4).filter(|_| !asks_on),
                }
            }
        };
        periods.map(|periods| periods * quiet)
    }
}
