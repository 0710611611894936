use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use crate::{Runtime, Timer};

/// A runtime's clock and one timer of it, so that the runtime is no part of the behaviour's type.
pub(super) trait Alarm: Send {
    fn now(&self) -> Instant;

    fn set(&mut self, deadline: Instant);

    fn stop(&mut self);

    /// Asked only after it was set.
    fn poll_elapsed(&mut self, cx: &mut Context<'_>) -> Poll<()>;
}

pub(super) struct RuntimeAlarm<R: Runtime> {
    runtime: R,
    /// There is none while nobody is waited for.
    timer: Option<Pin<Box<R::Timer>>>,
}

impl<R: Runtime> RuntimeAlarm<R> {
    pub(super) fn new(runtime: &R) -> Self {
        Self { runtime: runtime.clone(), timer: None }
    }
}

impl<R: Runtime> Alarm for RuntimeAlarm<R> {
    fn now(&self) -> Instant {
        self.runtime.now()
    }

    fn set(&mut self, deadline: Instant) {
        match &mut self.timer {
            Some(timer) => timer.as_mut().reset(deadline),
            None => self.timer = Some(Box::pin(self.runtime.timer(deadline))),
        }
    }

    fn stop(&mut self) {
        self.timer = None;
    }

    fn poll_elapsed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.timer.as_mut().map_or(Poll::Pending, |timer| timer.as_mut().poll_elapsed(cx))
    }
}
