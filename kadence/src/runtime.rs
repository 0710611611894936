use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use futures::future::BoxFuture;

/// What the driver needs of an async runtime: a clock, a timer and a spawner.
///
/// `kadence-tokio`, `kadence-smol` and `kadence-async-std` each have one; for another runtime it is some fifty lines.
pub trait Runtime: Clone + Send + Sync + Unpin + 'static {
    /// The runtime's timer.
    type Timer: Timer;

    /// The clock's reading. It is the only clock that is used, so a runtime that can pause its clock pauses ours.
    fn now(&self) -> Instant;

    /// A timer that elapses at `deadline`.
    fn timer(&self, deadline: Instant) -> Self::Timer;

    /// Runs a task to its end, detached from the caller.
    fn spawn(&self, task: BoxFuture<'static, ()>);
}

/// A timer that can be set again. It only wakes: what is due is decided by comparing with [`Runtime::now`].
pub trait Timer: Send + 'static {
    /// Sets the timer to another point in time, whether or not it has elapsed.
    fn reset(self: Pin<&mut Self>, deadline: Instant);

    /// Ready once the deadline has come; otherwise the task is woken then. After that it is not polled again until it is
    /// [`reset`](Self::reset), so what it says in between is of no importance.
    fn poll_elapsed(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()>;
}
