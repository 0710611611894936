use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use futures::future::BoxFuture;

/// Async runtime, as far as a driver needs one: a clock, timers and a way to spawn tasks.
///
/// `kadence-tokio`, `kadence-smol` and `kadence-async-std` implement it. For any other runtime it takes some thirty
/// lines, here for threads:
///
/// ```
/// use std::{pin::Pin, task::{Context, Poll}, thread, time::Instant};
///
/// use futures::{FutureExt, executor::block_on, future::BoxFuture};
/// use futures_timer::Delay;
/// use kadence::{Alarm, Runtime, Timer};
///
/// /// Runs each task on a thread of its own.
/// #[derive(Clone)]
/// struct Threads;
///
/// impl Runtime for Threads {
///     type Timer = DelayTimer;
///
///     fn now(&self) -> Instant {
///         Instant::now()
///     }
///
///     fn timer(&self, deadline: Instant) -> DelayTimer {
///         DelayTimer(Delay::new(deadline.saturating_duration_since(Instant::now())))
///     }
///
///     fn spawn(&self, task: BoxFuture<'static, ()>) {
///         thread::spawn(|| block_on(task));
///     }
/// }
///
/// struct DelayTimer(Delay);
///
/// impl Timer for DelayTimer {
///     fn reset(mut self: Pin<&mut Self>, deadline: Instant) {
///         self.0.reset(deadline.saturating_duration_since(Instant::now()));
///     }
///
///     fn poll_elapsed(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
///         self.0.poll_unpin(cx)
///     }
/// }
///
/// # use std::time::Duration;
/// let start = Instant::now();
/// block_on(Alarm::new(&Threads).sleep(Duration::from_millis(5)));
/// assert!(start.elapsed() >= Duration::from_millis(5));
/// ```
///
/// `kadence::spawn(&Threads, swarm, config)` then runs a driver, and `Node::start` a node.
pub trait Runtime: Clone + Send + Sync + Unpin + 'static {
    /// Timer of the runtime.
    type Timer: Timer;

    /// Returns the current time. No other clock is read: if the runtime pauses this one, it pauses every deadline.
    fn now(&self) -> Instant;

    /// Returns a timer that elapses at `deadline`.
    fn timer(&self, deadline: Instant) -> Self::Timer;

    /// Runs a task to its end, independently of the caller.
    fn spawn(&self, task: BoxFuture<'static, ()>);
}

/// Timer that can be set again. It only wakes the task: [`Runtime::now`] decides whether a deadline has passed.
pub trait Timer: Send + 'static {
    /// Sets the timer to another point in time. Allowed before and after the timer has elapsed.
    fn reset(self: Pin<&mut Self>, deadline: Instant);

    /// Returns `Ready` once the deadline has passed; otherwise the task is woken at the deadline. After `Ready`, it is
    /// not called again until [`reset`](Self::reset).
    fn poll_elapsed(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()>;
}
