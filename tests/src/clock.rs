use std::{
    collections::BTreeMap,
    fmt,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::{Duration, Instant},
};

use futures::future::BoxFuture;
use kadence::{Runtime, Timer};

/// Runtime whose clock only the test advances. Everything else is delegated to the inner runtime.
#[derive(Clone)]
pub struct ManualClock<R> {
    inner: R,
    state: Arc<Mutex<State>>,
}

struct State {
    now: Instant,
    timers: BTreeMap<u64, TimerState>,
    last_timer: u64,
}

struct TimerState {
    deadline: Instant,
    /// Waker of the task that polled it last.
    waker: Option<Waker>,
}

impl<R: Runtime> ManualClock<R> {
    /// Wraps a runtime and stops its clock at the current time.
    pub fn new(inner: R) -> Self {
        let state = State { now: inner.now(), timers: BTreeMap::new(), last_timer: 0 };
        Self { inner, state: Arc::new(Mutex::new(state)) }
    }

    /// Advances the clock and wakes the tasks whose timers have elapsed. Returns their number.
    pub fn advance(&self, by: Duration) -> usize {
        let mut due = Vec::new();
        {
            let mut state = self.state.lock().unwrap();
            state.now += by;
            let now = state.now;
            due.extend(state.timers.values_mut().filter(|timer| timer.deadline <= now).filter_map(|t| t.waker.take()));
        }
        let woken = due.len();
        due.into_iter().for_each(Waker::wake);
        woken
    }
}

impl<R: Runtime> Runtime for ManualClock<R> {
    type Timer = ManualTimer;

    fn now(&self) -> Instant {
        self.state.lock().unwrap().now
    }

    fn timer(&self, deadline: Instant) -> ManualTimer {
        let mut state = self.state.lock().unwrap();
        state.last_timer += 1;
        let id = state.last_timer;
        state.timers.insert(id, TimerState { deadline, waker: None });
        ManualTimer { id, state: Arc::clone(&self.state) }
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.inner.spawn(task);
    }
}

impl<R: fmt::Debug> fmt::Debug for ManualClock<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManualClock").field("inner", &self.inner).finish_non_exhaustive()
    }
}

/// Timer of a [`ManualClock`].
pub struct ManualTimer {
    id: u64,
    state: Arc<Mutex<State>>,
}

impl Timer for ManualTimer {
    /// Keeps the registered waker, like the strictest of the real timers: after a reset, the timer wakes its task at
    /// the new time without another poll.
    fn reset(self: Pin<&mut Self>, deadline: Instant) {
        let mut state = self.state.lock().unwrap();
        if let Some(timer) = state.timers.get_mut(&self.id) {
            timer.deadline = deadline;
        }
    }

    fn poll_elapsed(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state.lock().unwrap();
        let now = state.now;
        let timer = state.timers.get_mut(&self.id).expect("the state exists as long as the timer");
        if timer.deadline <= now {
            return Poll::Ready(());
        }
        timer.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for ManualTimer {
    fn drop(&mut self) {
        self.state.lock().unwrap().timers.remove(&self.id);
    }
}

impl fmt::Debug for ManualTimer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManualTimer").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Waker that counts its wake-ups.
#[derive(Debug, Default)]
pub struct Wakes(AtomicUsize);

impl Wakes {
    /// Returns the number of wake-ups so far.
    pub fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}
