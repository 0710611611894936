use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use crate::{Runtime, Timer};

/// A timer that wakes only while something is due.
pub(super) struct Alarm<R: Runtime> {
    timer: Pin<Box<R::Timer>>,
    due: Option<Instant>,
}

impl<R: Runtime> Alarm<R> {
    pub(super) fn new(runtime: &R) -> Self {
        Self { timer: Box::pin(runtime.timer(runtime.now())), due: None }
    }

    pub(super) fn set(&mut self, due: Instant) {
        if self.due != Some(due) {
            self.timer.as_mut().reset(due);
            self.due = Some(due);
        }
    }

    pub(super) fn stop(&mut self) {
        self.due = None;
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Whether it is time, once for each time that it is set. Otherwise the task is woken then.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, runtime: &R) -> bool {
        let Some(due) = self.due else { return false };
        if self.timer.as_mut().poll_elapsed(cx) == Poll::Pending && runtime.now() < due {
            return false;
        }
        self.due = None;
        true
    }
}
