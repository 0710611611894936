use std::{
    fmt,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures_timer::Delay;

/// Clock and timer of a [`PeerTimeouts`](crate::PeerTimeouts). [`SystemTimer`] fits every runtime.
pub trait Timer: Send + 'static {
    /// Returns the current time. All deadlines are compared with it.
    fn now(&self) -> Instant;

    /// Sets the deadline, in place of an earlier one.
    fn set(&mut self, deadline: Instant);

    /// Removes the deadline. The task need not be woken any more.
    fn stop(&mut self);

    /// Returns `Ready` once the deadline has come, and removes it. Otherwise the task is woken at the deadline. Never
    /// ready without a deadline.
    fn poll_elapsed(&mut self, cx: &mut Context<'_>) -> Poll<()>;
}

/// Adds a span without overflow; more than thirty years count as thirty.
pub(crate) fn later(now: Instant, span: Duration) -> Instant {
    now + span.min(Duration::from_secs(30 * 365 * 24 * 60 * 60))
}

/// The system's clock and a timer that works on every runtime: the one that libp2p's own protocols use.
#[derive(Default)]
pub struct SystemTimer {
    delay: Option<Delay>,
    deadline: Option<Instant>,
}

impl Timer for SystemTimer {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn set(&mut self, deadline: Instant) {
        let span = deadline.saturating_duration_since(Instant::now());
        match &mut self.delay {
            Some(delay) => delay.reset(span),
            None => self.delay = Some(Delay::new(span)),
        }
        self.deadline = Some(deadline);
    }

    fn stop(&mut self) {
        self.deadline = None;
    }

    fn poll_elapsed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (Some(deadline), Some(delay)) = (self.deadline, &mut self.delay) else { return Poll::Pending };
        while std::pin::Pin::new(&mut *delay).poll(cx).is_ready() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                self.deadline = None;
                return Poll::Ready(());
            }
            delay.reset(left);
        }
        Poll::Pending
    }
}

impl fmt::Debug for SystemTimer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SystemTimer").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}
