use std::{
    pin::Pin,
    task::{Context, Poll},
};

use web_time::Instant;

use futures::future::BoxFuture;

/// Async runtime, as far as a driver needs one: a clock, timers and a way to spawn tasks.
///
/// `kadence-tokio`, `kadence-smol` and `kadence-async-std` implement this trait, each for its runtime. An
/// implementation for another runtime takes some thirty lines. This one runs each task on a thread:
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
/// With this implementation, `kadence::spawn(&Threads, swarm, config)` runs a driver, and `Node::start(Threads, ..)`
/// runs a node.
pub trait Runtime: Clone + Send + Sync + Unpin + 'static {
    /// Timer of the runtime.
    type Timer: Timer;

    /// Returns the current time of a monotonic clock. The driver measures the deadlines of calls with this clock alone:
    /// while the runtime pauses it, no call reaches its deadline. kad, record stores and libp2p's transports use the
    /// system's clock.
    fn now(&self) -> Instant;

    /// Returns a timer that elapses at `deadline`, or at its first poll if that time has passed.
    fn timer(&self, deadline: Instant) -> Self::Timer;

    /// Starts a task, which runs to its end independently of the caller. A runtime that has stopped drops the task
    /// instead.
    fn spawn(&self, task: BoxFuture<'static, ()>);
}

/// Timer that can be set again. It only wakes the task that polls it: the driver reads [`Runtime::now`] to decide
/// whether a deadline has passed.
pub trait Timer: Send + 'static {
    /// Sets the timer, elapsed or not, to another point in time. Until the next [`poll_elapsed`](Self::poll_elapsed),
    /// the timer need not wake a task.
    fn reset(self: Pin<&mut Self>, deadline: Instant);

    /// Returns `Ready` once the deadline has passed; otherwise the task is woken at the deadline. After `Ready`, the
    /// caller does not call this method again before [`reset`](Self::reset).
    fn poll_elapsed(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()>;
}
