use std::{
    fmt,
    future::poll_fn,
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use kadence::{Runtime, Timer};

type BoxTimer = Pin<Box<dyn Timer>>;

/// A runtime's clock and timers, without its type.
#[derive(Clone)]
pub(super) struct Clock {
    now: Arc<dyn Fn() -> Instant + Send + Sync>,
    timer: Arc<dyn Fn(Instant) -> BoxTimer + Send + Sync>,
}

impl Clock {
    pub(super) fn of(runtime: &impl Runtime) -> Self {
        let (clock, timers) = (runtime.clone(), runtime.clone());
        Self { now: Arc::new(move || clock.now()), timer: Arc::new(move |at| Box::pin(timers.timer(at))) }
    }

    pub(super) fn now(&self) -> Instant {
        (self.now)()
    }

    pub(super) fn alarm(&self) -> Alarm {
        let now = self.now();
        Alarm { timer: (self.timer)(now), armed: None, clock: self.clone() }
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clock").finish_non_exhaustive()
    }
}

/// It took too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Elapsed;

/// A timer that is used again and again.
///
/// Setting one costs more than what it guards, mostly. So it is not set to a later time: when it wakes too early, it is.
pub(super) struct Alarm {
    timer: BoxTimer,
    /// When it wakes, if it does.
    armed: Option<Instant>,
    clock: Clock,
}

impl Alarm {
    /// Until this future is ready, or this point in time.
    pub(super) async fn until<T>(&mut self, deadline: Instant, future: impl Future<Output = T>) -> Result<T, Elapsed> {
        let mut future = pin!(future);
        poll_fn(|cx| {
            if let Poll::Ready(value) = future.as_mut().poll(cx) {
                return Poll::Ready(Ok(value));
            }
            loop {
                if self.armed.is_none_or(|at| at > deadline) {
                    self.timer.as_mut().reset(deadline);
                    self.armed = Some(deadline);
                }
                if self.timer.as_mut().poll_elapsed(cx).is_pending() {
                    return Poll::Pending;
                }
                self.armed = None;
                if self.clock.now() >= deadline {
                    return Poll::Ready(Err(Elapsed));
                }
            }
        })
        .await
    }

    pub(super) async fn within<T>(&mut self, span: Duration, future: impl Future<Output = T>) -> Result<T, Elapsed> {
        let deadline = self.clock.now() + span;
        self.until(deadline, future).await
    }

    pub(super) async fn sleep(&mut self, span: Duration) {
        let _elapsed = self.within(span, std::future::pending::<()>()).await;
    }
}
