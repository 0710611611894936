//! The interface of the crate `futures-timer`, in virtual time. All timers of libp2p are of that crate, so a world that
//! has this one in its place decides when they elapse.
//!
//! Each thread may have a [`schedule`] of its own. Without one, a [`Delay`] panics at its first poll.

pub mod schedule;

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use crate::schedule::Key;

/// Future that completes after a duration of virtual time.
pub struct Delay {
    /// Nanoseconds since the start of the world.
    at: u64,
    /// Entry of the schedule, and the waker that it has. A task polls most of its delays each time that it runs, and then
    /// mostly with the same waker.
    entry: Option<(Key, Waker)>,
}

impl Delay {
    /// Creates a delay that begins now.
    pub fn new(span: Duration) -> Self {
        Self { at: schedule::after(span), entry: None }
    }

    /// Begins the delay anew.
    pub fn reset(&mut self, span: Duration) {
        self.cancel();
        self.at = schedule::after(span);
    }

    fn cancel(&mut self) {
        if let Some((key, _)) = self.entry.take() {
            schedule::cancel(key);
        }
    }
}

impl Future for Delay {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if schedule::now_or_panic() >= self.at {
            self.cancel();
            return Poll::Ready(());
        }
        if !self.entry.as_ref().is_some_and(|(_, waker)| waker.will_wake(cx.waker())) {
            let before = self.entry.take().map(|(key, _)| key);
            self.entry = Some((schedule::wake_at(self.at, before, cx.waker()), cx.waker().clone()));
        }
        Poll::Pending
    }
}

impl Drop for Delay {
    fn drop(&mut self) {
        self.cancel();
    }
}

impl fmt::Debug for Delay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delay").field("at", &Duration::from_nanos(self.at)).finish()
    }
}
