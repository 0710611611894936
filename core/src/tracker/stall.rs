//! Stall detection: probes queries that make no progress, and finishes them early.

use std::{fmt, hash::Hash, mem};

use super::{
    QueryTracker, policy,
    state::{LiveQuery, QueryState, SharedQuery, Timer},
    time::Time,
};
use crate::{Action, OperationKind, Progress, StepId};

impl<Id: Copy + Eq + Hash + fmt::Debug> QueryTracker<Id> {
    /// Schedules the first check of a query that kad has started.
    pub(super) fn watch(&mut self, step: StepId, now: Time) {
        if let Some(stall) = &self.config.stall {
            let quiet = self.rtt.quiet(stall);
            self.look_at(step, now.after(quiet));
        }
    }

    /// Checks a query at `due`: if it may have been quiet for too long, kad is asked for its progress.
    pub(super) fn look_after(&mut self, step: StepId, due: Time, now: Time) {
        let Some(stall) = &self.config.stall else { return };
        let quiet = self.rtt.quiet(stall);
        let Some(query) = self.queries.get_mut(&step) else { return };
        let LiveQuery { state: QueryState::Running { id }, work: Some(work), .. } = &mut **query else { return };
        work.look_at = None;
        let quiet_until = work.moved_at.after(quiet);
        if quiet_until > now {
            // It has made progress since.
            self.look_at(step, quiet_until);
        } else if now.since(due) > quiet / 2 {
            // The driver was delayed. Then every query looks quiet, because its answers have not been read yet.
            work.moved_at = now;
            self.look_at(step, now.after(quiet));
        } else {
            work.probed = true;
            self.actions.push_back(Action::Probe(*id));
        }
    }

    /// Handles kad's answer to a probe.
    pub(super) fn probed(&mut self, step: StepId, progress: Option<Progress>, now: Time) {
        let Some(stall) = self.config.stall else { return };
        let quiet = self.rtt.quiet(&stall);
        let Some(query) = self.queries.get_mut(&step) else { return };
        let LiveQuery { state: QueryState::Running { id }, work: Some(work), .. } = &mut **query else { return };
        let asked = mem::take(&mut work.probed);
        // kad has ended the query or one of its phases, and an event is on its way.
        let Some(progress) = progress else {
            if asked {
                self.look_at(step, now.after(quiet));
            }
            return;
        };
        if !asked {
            self.stats.unknown_inputs += 1;
            return;
        }
        if progress != work.progress {
            work.progress = progress;
            work.moved_at = now;
            self.look_at(step, now.after(quiet));
            return;
        }
        let (id, moved_at) = (*id, work.moved_at);
        let until = match self.patience(step) {
            None => now.after(quiet.max(stall.max_quiet)),
            Some(times) => moved_at.after(quiet.saturating_mul(times)),
        };
        if until > now {
            self.look_at(step, until);
            return;
        }
        self.stats.queries_finished_early += 1;
        self.actions.push_back(Action::FinishPhase(id));
        if let Some(query) = self.queries.get_mut(&step) {
            if let Some(work) = &mut query.work {
                work.moved_at = now;
                work.finished_early = true;
            }
            // A request that joined now could get less than the network has.
            let shared_query = SharedQuery::of(&query.query);
            self.unshare(shared_query, step);
        }
        self.look_at(step, now.after(quiet));
    }

    /// Returns the multiple of the quiet time after which the query is finished early. `None` if never, because its
    /// result would be worthless.
    fn patience(&self, step: StepId) -> Option<u32> {
        let query = self.queries.get(&step)?;
        let progress = query.progress();
        let request = query.waiters.first().and_then(|id| self.requests.get(&id))?;
        // A put that reads back waits for a number of copies.
        let reads_back = request.operation.kind() == OperationKind::PutRecord;
        let wants_more = reads_back || query.waiters.want_more(self.config.max_items);
        let parallelism = self.config.stall.map_or(1, |stall| stall.parallelism);
        policy::patience(&query.query, request, query.available(), wants_more, progress, parallelism)
    }

    fn look_at(&mut self, step: StepId, at: Time) {
        if let Some(work) = self.queries.get_mut(&step).and_then(|query| query.work.as_mut()) {
            work.look_at = Some(at);
            self.timers.insert((at, Timer::StallCheck(step)));
        }
    }
}
