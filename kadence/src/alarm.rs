use std::{
    fmt,
    future::poll_fn,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use crate::{Runtime, Timer};

type BoxTimer = Pin<Box<dyn Timer>>;

/// Span after which a stopped timer would wake: as good as never, and within the range of every runtime's timer.
const NEVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Latest span that a deadline is set to. Longer ones count as "never" and would overflow the clock.
const FAR_FUTURE: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// Adds a span to a point in time without overflow: spans above thirty years are cut to thirty years.
pub fn deadline_after(now: Instant, span: Duration) -> Instant {
    now + span.min(FAR_FUTURE)
}

/// Clock and timers of a runtime, without the runtime's type. Cheap to clone.
#[derive(Clone)]
pub struct Clock {
    now: Arc<dyn Fn() -> Instant + Send + Sync>,
    timer: Arc<dyn Fn(Instant) -> BoxTimer + Send + Sync>,
}

impl Clock {
    /// Takes clock and timers from a runtime.
    pub fn new(runtime: &impl Runtime) -> Self {
        let (clock, timers) = (runtime.clone(), runtime.clone());
        Self { now: Arc::new(move || clock.now()), timer: Arc::new(move |at| Box::pin(timers.timer(at))) }
    }

    /// Returns the current time of the runtime's clock.
    pub fn now(&self) -> Instant {
        (self.now)()
    }

    /// Returns an alarm that is not set.
    pub fn alarm(&self) -> Alarm {
        Alarm { clock: self.clone(), timer: None, armed: None, due: None }
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clock").finish_non_exhaustive()
    }
}

/// Error of a future that did not complete before its deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Elapsed;

/// Timer that is used many times, for one deadline at a time.
///
/// Setting a runtime's timer usually costs more than the work it guards, and most deadlines move later before they
/// come. The alarm therefore sets the timer only to an earlier time; if the timer wakes too early, it is set again then.
/// An alarm without a deadline has no timer.
pub struct Alarm {
    clock: Clock,
    timer: Option<BoxTimer>,
    /// Time at which the timer wakes; `None` if it has elapsed or was never set.
    armed: Option<Instant>,
    due: Option<Instant>,
}

impl Alarm {
    /// Returns an alarm on a runtime's clock that is not set.
    pub fn new(runtime: &impl Runtime) -> Self {
        Clock::new(runtime).alarm()
    }

    /// Returns the current time of the alarm's clock.
    pub fn now(&self) -> Instant {
        self.clock.now()
    }

    /// Sets the deadline, in place of an earlier one.
    pub fn set(&mut self, due: Instant) {
        self.due = Some(due);
    }

    /// Removes the deadline.
    pub fn stop(&mut self) {
        self.due = None;
    }

    /// Returns the deadline; `None` if there is none or it has been reported.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Returns `Ready` once for each deadline that has come, and removes it. Otherwise the task is woken at the deadline;
    /// without a deadline the task is not woken.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let Some(due) = self.due else {
                if let (Some(timer), Some(_)) = (&mut self.timer, self.armed.take()) {
                    timer.as_mut().reset(self.clock.now() + NEVER);
                }
                return Poll::Pending;
            };
            let timer = match &mut self.timer {
                None => self.timer.insert((self.clock.timer)(due)),
                Some(timer) => {
                    if self.armed.is_none_or(|armed| due < armed) {
                        timer.as_mut().reset(due);
                    }
                    timer
                }
            };
            self.armed = Some(self.armed.map_or(due, |armed| armed.min(due)));
            let elapsed = timer.as_mut().poll_elapsed(cx).is_ready();
            if elapsed {
                self.armed = None;
            }
            // The clock decides, the timer only wakes: a timer that is late does not delay what is due.
            if due <= self.clock.now() {
                self.due = None;
                return Poll::Ready(());
            }
            if !elapsed {
                return Poll::Pending;
            }
        }
    }

    /// Waits for a future until a deadline.
    ///
    /// # Errors
    ///
    /// If the deadline comes first. A future that is ready wins over a deadline that has come.
    pub async fn until<T>(&mut self, deadline: Instant, future: impl Future<Output = T>) -> Result<T, Elapsed> {
        let mut future = pin!(future);
        self.set(deadline);
        let result = poll_fn(|cx| {
            if let Poll::Ready(value) = future.as_mut().poll(cx) {
                return Poll::Ready(Ok(value));
            }
            self.poll(cx).map(|()| Err(Elapsed))
        })
        .await;
        self.stop();
        result
    }

    /// Waits for a future for at most this long.
    ///
    /// # Errors
    ///
    /// If the time is up first.
    pub async fn within<T>(&mut self, span: Duration, future: impl Future<Output = T>) -> Result<T, Elapsed> {
        self.until(deadline_after(self.now(), span), future).await
    }

    /// Waits for this long.
    pub async fn sleep(&mut self, span: Duration) {
        let _elapsed = self.within(span, std::future::pending::<()>()).await;
    }
}

impl fmt::Debug for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Alarm").field("due", &self.due).finish_non_exhaustive()
    }
}

impl libp2p_kad_timeouts::Timer for Alarm {
    fn now(&self) -> Instant {
        self.clock.now()
    }

    fn set(&mut self, deadline: Instant) {
        Self::set(self, deadline);
    }

    fn stop(&mut self) {
        Self::stop(self);
    }

    fn poll_elapsed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll(cx)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::{
        pin::Pin,
        sync::{
            Arc, Mutex,
            atomic::{AtomicUsize, Ordering::Relaxed},
        },
        task::{Context, Poll},
        time::{Duration, Instant},
    };

    use futures::future::BoxFuture;

    use crate::{Runtime, Timer};

    /// A runtime whose clock stands still until it is moved, and which counts what is asked of its timers.
    #[derive(Debug, Clone)]
    pub(crate) struct TestRuntime {
        now: Arc<Mutex<Instant>>,
        resets: Arc<AtomicUsize>,
    }

    impl TestRuntime {
        pub(crate) fn new() -> Self {
            Self { now: Arc::new(Mutex::new(Instant::now())), resets: Arc::default() }
        }

        pub(crate) fn pass(&self, span: Duration) {
            *self.now.lock().unwrap() += span;
        }

        /// How often a timer was set.
        pub(crate) fn resets(&self) -> usize {
            self.resets.load(Relaxed)
        }
    }

    impl Runtime for TestRuntime {
        type Timer = TestTimer;

        fn now(&self) -> Instant {
            *self.now.lock().unwrap()
        }

        fn timer(&self, deadline: Instant) -> TestTimer {
            TestTimer { runtime: self.clone(), deadline }
        }

        fn spawn(&self, task: BoxFuture<'static, ()>) {
            drop(task);
        }
    }

    pub(crate) struct TestTimer {
        runtime: TestRuntime,
        deadline: Instant,
    }

    impl Timer for TestTimer {
        fn reset(mut self: Pin<&mut Self>, deadline: Instant) {
            self.runtime.resets.fetch_add(1, Relaxed);
            self.deadline = deadline;
        }

        fn poll_elapsed(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
            if self.runtime.now() < self.deadline { Poll::Pending } else { Poll::Ready(()) }
        }
    }
}
