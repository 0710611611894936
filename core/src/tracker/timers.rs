//! Timers, in the order in which they fall due.

use std::collections::BTreeSet;

use super::time::Time;
use crate::{RequestId, StepId};

/// A timer. At the same time, slots are taken back first, deadlines pass before retries start, and stall checks come
/// last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// A query that is finishing has not ended in time.
    GiveUp(StepId),
    Deadline(RequestId),
    Retry(RequestId),
    StallCheck(StepId),
}

#[derive(Debug, Clone, Default)]
pub(super) struct Timers(BTreeSet<(Time, Timer)>);

impl Timers {
    pub(super) fn set(&mut self, at: Time, timer: Timer) {
        self.0.insert((at, timer));
    }

    pub(super) fn cancel(&mut self, at: Time, timer: Timer) {
        self.0.remove(&(at, timer));
    }

    /// Returns the time of the first timer.
    pub(super) fn next(&self) -> Option<Time> {
        self.0.first().map(|(at, _)| *at)
    }

    /// Removes and returns the first timer that is due.
    pub(super) fn pop_due(&mut self, now: Time) -> Option<(Time, Timer)> {
        self.0.first().filter(|(at, _)| *at <= now)?;
        self.0.pop_first()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
