use std::{
    task::Context,
    time::{Duration, Instant},
};

use kadence_store::Store;

use super::alarm::Alarm;
use crate::Runtime;

/// How long nothing is swept after a sweep. What has expired is returned to nobody in the meantime, and what changes the
/// store sweeps as well: this is for the memory and the file of a node that is seldom written to.
const PAUSE: Duration = Duration::from_secs(60);

/// Removes what has expired in a store that nobody writes to. Without anything that will expire there is no timer.
pub(super) struct Sweeper<R: Runtime> {
    alarm: Alarm<R>,
    not_before: Instant,
}

impl<R: Runtime> Sweeper<R> {
    pub(super) fn new(runtime: &R) -> Self {
        Self { alarm: Alarm::new(runtime), not_before: runtime.now() + PAUSE }
    }

    /// Sweeps a few, if it is time. True if the task has to come again before it sleeps.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, runtime: &R, store: &mut Store) -> bool {
        let Some(expiry) = store.next_expiry() else {
            self.alarm.stop();
            return false;
        };
        // An expiry mostly moves later, as records are renewed: the timer is then left as it is, and set again when it
        // has elapsed.
        let due = expiry.max(self.not_before);
        if self.alarm.due().is_none_or(|set| due < set) {
            self.alarm.set(due);
        }
        if !self.alarm.poll(cx, runtime) {
            return false;
        }
        let now = runtime.now();
        if due <= now && !store.sweep_some() {
            self.not_before = now + PAUSE;
        }
        true
    }
}
