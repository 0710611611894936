//! Everything that all parts of the tracker write to: actions, timers and counters.

use std::collections::VecDeque;

use super::{
    time::Time,
    timers::{Timer, Timers},
};
use crate::{Action, Stats, TrackerConfig};

/// Configuration, current time, and outputs. The scheduler borrows it for the time of a call.
#[derive(Debug, Clone)]
pub(super) struct Env<Id> {
    pub(super) config: TrackerConfig,
    /// Time of the input that is being handled.
    pub(super) now: Time,
    pub(super) actions: VecDeque<Action<Id>>,
    pub(super) timers: Timers,
    pub(super) stats: Stats,
}

impl<Id> Env<Id> {
    pub(super) fn new(config: TrackerConfig) -> Self {
        Self { config, now: Time::START, actions: VecDeque::new(), timers: Timers::default(), stats: Stats::default() }
    }

    pub(super) fn act(&mut self, action: Action<Id>) {
        self.actions.push_back(action);
    }

    pub(super) fn set_timer(&mut self, at: Time, timer: Timer) {
        self.timers.set(at, timer);
    }
}
