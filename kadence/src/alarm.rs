use std::{
    fmt,
    future::poll_fn,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use web_time::Instant;

use thiserror::Error;

use crate::{Runtime, Timer};

type BoxTimer = Pin<Box<dyn Timer>>;

/// Longest span of a deadline, thirty years: as good as never, and without overflow on the clock of any system.
const FAR_FUTURE: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// Adds a span to a point in time without overflow. Spans of more than thirty years count as thirty years.
///
/// ```
/// use std::time::{Duration, Instant};
///
/// use kadence::deadline_after;
///
/// let now = Instant::now();
/// assert_eq!(deadline_after(now, Duration::from_secs(5)), now + Duration::from_secs(5));
/// // `now + Duration::MAX` would panic.
/// assert!(deadline_after(now, Duration::MAX) > now);
/// ```
pub fn deadline_after(now: Instant, span: Duration) -> Instant {
    now + span.min(FAR_FUTURE)
}

/// Clock and timers of a [`Runtime`], in a type that does not depend on the runtime. Cheap to clone.
///
/// ```
/// use std::time::{Duration, Instant};
///
/// use kadence::{Clock, Runtime};
///
/// /// Runs on any runtime without being generic over it.
/// struct Session {
///     clock: Clock,
///     started: Instant,
/// }
///
/// impl Session {
///     fn new(runtime: &impl Runtime) -> Self {
///         let clock = Clock::new(runtime);
///         Self { started: clock.now(), clock }
///     }
///
///     fn age(&self) -> Duration {
///         self.clock.now() - self.started
///     }
/// }
/// ```
#[derive(Clone)]
pub struct Clock {
    now: Arc<dyn Fn() -> Instant + Send + Sync>,
    timer: Arc<dyn Fn(Instant) -> BoxTimer + Send + Sync>,
}

impl Clock {
    /// Returns the clock of a runtime.
    pub fn new(runtime: &impl Runtime) -> Self {
        let (clock, timers) = (runtime.clone(), runtime.clone());
        Self { now: Arc::new(move || clock.now()), timer: Arc::new(move |at| Box::pin(timers.timer(at))) }
    }

    /// Returns the current time.
    pub fn now(&self) -> Instant {
        (self.now)()
    }

    /// Returns an alarm without a deadline.
    pub fn alarm(&self) -> Alarm {
        Alarm { clock: self.clone(), timer: None, wakes_at: None, deadline: None }
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clock").finish_non_exhaustive()
    }
}

/// Error of a wait whose deadline passed before the future was ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("deadline has passed")]
pub struct ElapsedError;

/// Reusable timer with at most one deadline at a time.
///
/// Setting a runtime's timer often costs more than the work that it guards, and most deadlines move to a later time
/// before they come. While the runtime's timer runs, an alarm therefore sets the timer again only if the deadline moves
/// to an earlier time or is removed. If the deadline has moved to a later time, the alarm sets the timer again when the
/// timer elapses. An alarm that never had a deadline has no timer.
///
/// An alarm is used in one of two ways: with [`until`](Self::until), [`within`](Self::within) and
/// [`sleep`](Self::sleep) in async code, or with [`set`](Self::set), [`stop`](Self::stop) and [`poll`](Self::poll) in a
/// hand-written future. Each of the first three methods replaces the alarm's deadline; after the wait, the alarm has no
/// deadline.
///
/// ```
/// use std::time::Duration;
///
/// use kadence::{Alarm, Runtime};
///
/// /// Waits for a reply for at most five seconds.
/// async fn reply<T>(runtime: &impl Runtime, reply: impl Future<Output = T>) -> Option<T> {
///     Alarm::new(runtime).within(Duration::from_secs(5), reply).await.ok()
/// }
/// ```
///
/// An alarm can also be the timer of a [`PeerTimeouts`](crate::PeerTimeouts), which then uses the runtime's clock.
pub struct Alarm {
    clock: Clock,
    timer: Option<BoxTimer>,
    /// Time at which the timer wakes the task. `None` if there is no timer, or that time has passed or is of no use.
    wakes_at: Option<Instant>,
    deadline: Option<Instant>,
}

impl Alarm {
    /// Returns an alarm without a deadline on a runtime's clock.
    pub fn new(runtime: &impl Runtime) -> Self {
        Clock::new(runtime).alarm()
    }

    /// Returns the current time of the alarm's clock.
    pub fn now(&self) -> Instant {
        self.clock.now()
    }

    /// Sets the deadline and replaces the previous one. Takes effect at the next [`poll`](Self::poll).
    pub fn set(&mut self, deadline: Instant) {
        self.deadline = Some(deadline);
    }

    /// Removes the deadline. Until the next [`poll`](Self::poll), the task may still be woken at the removed deadline.
    pub fn stop(&mut self) {
        self.deadline = None;
    }

    /// Returns the deadline. `None` if none was set, or if the last one was removed or was reported by
    /// [`poll`](Self::poll).
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Returns `Ready` if the deadline has passed, and removes the deadline, so that it is reported once. Before the
    /// deadline the result is `Pending`, and the task is woken at the deadline, and possibly before. Without a deadline
    /// the result is `Pending`, and nothing wakes the task.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.deadline else {
            if let (Some(timer), Some(_)) = (&mut self.timer, self.wakes_at.take()) {
                timer.as_mut().reset(deadline_after(self.clock.now(), FAR_FUTURE));
            }
            return Poll::Pending;
        };
        // A second attempt is needed if the timer was set to an earlier deadline, which has passed.
        for _ in 0..2 {
            // The clock decides and the timer only wakes: a late timer does not delay a deadline that has passed.
            let now = self.clock.now();
            if deadline <= now {
                self.deadline = None;
                self.wakes_at = self.wakes_at.filter(|wakes_at| now < *wakes_at);
                return Poll::Ready(());
            }
            if self.poll_timer(cx, deadline).is_pending() {
                return Poll::Pending;
            }
        }
        // The timer is ahead of the clock. The task tries again after others had their turn.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Polls the timer after it was set to wake at the deadline or before.
    fn poll_timer(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let timer = match &mut self.timer {
            None => {
                self.wakes_at = Some(deadline);
                self.timer.insert((self.clock.timer)(deadline))
            }
            Some(timer) => {
                if self.wakes_at.is_none_or(|wakes_at| deadline < wakes_at) {
                    self.wakes_at = Some(deadline);
                    timer.as_mut().reset(deadline);
                }
                timer
            }
        };
        let result = timer.as_mut().poll_elapsed(cx);
        if result.is_ready() {
            self.wakes_at = None;
        }
        result
    }

    /// Waits for a future until a deadline. The future is polled before the deadline is checked, so a future that is
    /// ready returns its output even if the deadline has passed.
    ///
    /// # Errors
    ///
    /// Fails if the deadline passes before the future is ready.
    pub async fn until<T>(&mut self, deadline: Instant, future: impl Future<Output = T>) -> Result<T, ElapsedError> {
        let mut future = pin!(future);
        let alarm = StopOnDrop(self);
        alarm.0.set(deadline);
        poll_fn(|cx| {
            if let Poll::Ready(value) = future.as_mut().poll(cx) {
                return Poll::Ready(Ok(value));
            }
            alarm.0.poll(cx).map(|()| Err(ElapsedError))
        })
        .await
    }

    /// Waits for a future for at most `span`, counted from the first poll of this wait.
    ///
    /// # Errors
    ///
    /// Fails if `span` passes before the future is ready.
    pub async fn within<T>(&mut self, span: Duration, future: impl Future<Output = T>) -> Result<T, ElapsedError> {
        self.until(deadline_after(self.now(), span), future).await
    }

    /// Waits for `span`, counted from the first poll of this wait.
    pub async fn sleep(&mut self, span: Duration) {
        let _elapsed = self.within(span, std::future::pending::<()>()).await;
    }
}

/// Removes the deadline at the end of a wait, also of one that is cancelled.
struct StopOnDrop<'a>(&'a mut Alarm);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

impl fmt::Debug for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Alarm").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

impl libp2p_kad_timeouts::DeadlineTimer for Alarm {
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
        collections::BTreeMap,
        future::pending,
        pin::Pin,
        sync::{
            Arc, Mutex,
            atomic::{AtomicUsize, Ordering::Relaxed},
        },
        task::{Context, Poll, Wake, Waker},
        time::{Duration, Instant},
    };

    use futures::{FutureExt, future::BoxFuture};

    use super::{Alarm, ElapsedError, deadline_after};
    use crate::{Runtime, Timer};

    /// Deadline of a timer, and the waker of the task that polled it.
    type SetTimer = (Instant, Option<Waker>);

    /// Runtime whose clock stands still until a test moves it. It wakes the tasks of due timers, and counts how often a
    /// timer was set.
    #[derive(Debug, Clone)]
    pub(crate) struct TestRuntime {
        now: Arc<Mutex<Instant>>,
        timers: Arc<Mutex<BTreeMap<usize, SetTimer>>>,
        /// Span by which timers elapse before their deadline.
        early: Duration,
        resets: Arc<AtomicUsize>,
    }

    impl TestRuntime {
        pub(crate) fn new() -> Self {
            Self {
                now: Arc::new(Mutex::new(Instant::now())),
                timers: Arc::default(),
                early: Duration::ZERO,
                resets: Arc::default(),
            }
        }

        /// Moves the clock and wakes the tasks whose timers have elapsed.
        pub(crate) fn pass(&self, span: Duration) {
            let now = {
                let mut now = self.now.lock().unwrap();
                *now += span;
                *now + self.early
            };
            let mut timers = self.timers.lock().unwrap();
            let wakers: Vec<_> =
                timers.values_mut().filter(|(at, _)| *at <= now).filter_map(|(_, waker)| waker.take()).collect();
            drop(timers);
            wakers.into_iter().for_each(Waker::wake);
        }

        /// Returns the number of times that a timer was set, when it was created or later.
        pub(crate) fn timer_sets(&self) -> usize {
            self.resets.load(Relaxed)
        }
    }

    impl Runtime for TestRuntime {
        type Timer = TestTimer;

        fn now(&self) -> Instant {
            *self.now.lock().unwrap()
        }

        fn timer(&self, deadline: Instant) -> TestTimer {
            let id = self.resets.fetch_add(1, Relaxed);
            self.timers.lock().unwrap().insert(id, (deadline, None));
            TestTimer { runtime: self.clone(), id, elapsed: false }
        }

        fn spawn(&self, task: BoxFuture<'static, ()>) {
            drop(task);
        }
    }

    pub(crate) struct TestTimer {
        runtime: TestRuntime,
        id: usize,
        elapsed: bool,
    }

    impl Timer for TestTimer {
        /// Like the strictest of the real timers, drops the waker: it has to be polled to wake at the new time.
        fn reset(mut self: Pin<&mut Self>, deadline: Instant) {
            self.runtime.resets.fetch_add(1, Relaxed);
            self.runtime.timers.lock().unwrap().insert(self.id, (deadline, None));
            self.elapsed = false;
        }

        fn poll_elapsed(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
            assert!(!self.elapsed, "polled after it had elapsed");
            let now = self.runtime.now() + self.runtime.early;
            let mut timers = self.runtime.timers.lock().unwrap();
            let (at, waker) = timers.get_mut(&self.id).unwrap();
            if *at <= now {
                drop(timers);
                self.elapsed = true;
                return Poll::Ready(());
            }
            *waker = Some(cx.waker().clone());
            Poll::Pending
        }
    }

    impl Drop for TestTimer {
        fn drop(&mut self) {
            self.runtime.timers.lock().unwrap().remove(&self.id);
        }
    }

    #[derive(Default)]
    pub(crate) struct Wakes(pub(crate) AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    /// A task that polls an alarm only when it is woken, as a runtime does.
    struct Task {
        runtime: TestRuntime,
        alarm: Alarm,
        wakes: Arc<Wakes>,
    }

    const SECOND: Duration = Duration::from_secs(1);

    impl Task {
        fn new() -> Self {
            Self::on(TestRuntime::new())
        }

        fn on(runtime: TestRuntime) -> Self {
            Self { alarm: Alarm::new(&runtime), runtime, wakes: Arc::default() }
        }

        /// Sets the deadline to this many seconds from now and polls, as a task does that was woken by something else.
        fn set(&mut self, seconds: u32) -> Poll<()> {
            self.alarm.set(self.runtime.now() + seconds * SECOND);
            self.poll()
        }

        fn poll(&mut self) -> Poll<()> {
            self.alarm.poll(&mut Context::from_waker(&Waker::from(Arc::clone(&self.wakes))))
        }

        /// Lets seconds pass one by one, and polls after each if the task was woken. Returns those at which the alarm
        /// was ready.
        fn ready_in(&mut self, seconds: u32) -> Vec<u32> {
            let mut ready = Vec::new();
            for second in 1..=seconds {
                self.runtime.pass(SECOND);
                if self.wakes.0.swap(0, Relaxed) > 0 && self.poll().is_ready() {
                    ready.push(second);
                }
            }
            ready
        }
    }

    #[test]
    fn a_deadline_is_reported_once_at_its_time() {
        let mut task = Task::new();
        assert!(task.set(3).is_pending());
        assert_eq!(task.ready_in(10), [3]);
        assert_eq!(task.alarm.deadline(), None);
        assert_eq!(task.runtime.timer_sets(), 1);
    }

    #[test]
    fn a_deadline_that_has_passed_is_reported_at_once() {
        let mut task = Task::new();
        assert!(task.set(0).is_ready());
        assert!(task.poll().is_pending());
        assert_eq!(task.runtime.timer_sets(), 0);
    }

    #[test]
    fn a_deadline_that_moves_earlier_wakes_at_the_earlier_time() {
        let mut task = Task::new();
        assert!(task.set(8).is_pending());
        assert!(task.set(2).is_pending());
        assert_eq!(task.ready_in(10), [2]);
    }

    #[test]
    fn a_deadline_that_moves_later_sets_the_timer_only_when_it_wakes() {
        let mut task = Task::new();
        for seconds in 2..=8 {
            assert!(task.set(seconds).is_pending());
        }
        assert_eq!(task.runtime.timer_sets(), 1);
        assert_eq!(task.ready_in(10), [8]);
        assert_eq!(task.runtime.timer_sets(), 2);
    }

    #[test]
    fn a_deadline_that_moves_later_and_earlier_again_is_kept() {
        let mut task = Task::new();
        assert!(task.set(2).is_pending());
        assert!(task.set(8).is_pending());
        // The timer has woken for the first deadline, and is set to the second one.
        assert_eq!(task.ready_in(3), [0; 0]);
        assert!(task.set(1).is_pending());
        assert_eq!(task.ready_in(10), [1]);
    }

    #[test]
    fn a_stopped_alarm_is_never_ready_and_can_be_set_again() {
        let mut task = Task::new();
        assert!(task.set(2).is_pending());
        task.alarm.stop();
        assert!(task.poll().is_pending());
        assert_eq!(task.ready_in(5), [0; 0]);
        assert!(task.set(2).is_pending());
        assert_eq!(task.ready_in(5), [2]);
    }

    #[test]
    fn an_alarm_that_is_stopped_and_set_between_two_polls_is_kept() {
        for (first, second) in [(2, 4), (4, 2)] {
            let mut task = Task::new();
            assert!(task.set(first).is_pending());
            task.alarm.stop();
            assert!(task.set(second).is_pending());
            assert_eq!(task.ready_in(5), [second]);
        }
    }

    #[test]
    fn a_deadline_after_one_that_was_reported_is_kept() {
        let mut task = Task::new();
        assert!(task.set(1).is_pending());
        assert_eq!(task.ready_in(2), [1]);
        assert!(task.set(2).is_pending());
        assert_eq!(task.ready_in(5), [2]);
        // This one is reported before its timer has woken the task.
        assert!(task.set(4).is_pending());
        assert!(task.set(0).is_ready());
        assert!(task.set(2).is_pending());
        assert_eq!(task.ready_in(5), [2]);
    }

    #[test]
    fn a_deadline_waits_for_a_timer_that_wakes_early() {
        let mut task = Task::on(TestRuntime { early: Duration::from_millis(1500), ..TestRuntime::new() });
        assert!(task.set(5).is_pending());
        assert_eq!(task.ready_in(10), [5]);
    }

    #[test]
    fn an_alarm_whose_task_has_changed_wakes_the_new_one() {
        let mut task = Task::new();
        assert!(task.set(2).is_pending());
        let old = std::mem::take(&mut task.wakes);
        assert!(task.poll().is_pending());
        assert_eq!(task.ready_in(5), [2]);
        assert_eq!(old.0.load(Relaxed), 0);
    }

    #[test]
    fn a_future_that_is_ready_at_its_deadline_is_not_elapsed() {
        let runtime = TestRuntime::new();
        let mut alarm = Alarm::new(&runtime);
        let now = runtime.now();
        assert_eq!(alarm.until(now, async { 1 }).now_or_never(), Some(Ok(1)));
        assert_eq!(alarm.until(now, pending::<()>()).now_or_never(), Some(Err(ElapsedError)));
        assert_eq!(alarm.within(SECOND, pending::<()>()).now_or_never(), None);
    }

    #[test]
    fn a_cancelled_wait_leaves_no_deadline() {
        let mut task = Task::new();
        assert_eq!(task.alarm.within(SECOND, pending::<()>()).now_or_never(), None);
        assert_eq!(task.alarm.deadline(), None);
        task.runtime.pass(SECOND);
        assert!(task.poll().is_pending());
    }

    #[test]
    fn the_longest_span_does_not_overflow() {
        let now = Instant::now();
        assert!(deadline_after(now, Duration::MAX) > now + 20 * 365 * 24 * 60 * 60 * SECOND);
    }
}
