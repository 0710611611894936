//! The runtime of a host.

use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicI64, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
    time::Instant,
};

use async_executor::Executor;
use futures::{
    FutureExt,
    future::{AbortHandle, Abortable, BoxFuture},
};
use futures_timer::{Delay, schedule};
use kadence::{Runtime, Timer};

use crate::{network::HostId, trace::Trace};

/// Runtime of one host of a world, in virtual time. Its tasks end when the host is stopped.
#[derive(Clone)]
pub struct SimRuntime {
    /// Weak, because the executor owns the tasks and each has its runtime.
    pub(crate) executor: Weak<Executor<'static>>,
    pub(crate) process: Arc<Process>,
    pub(crate) trace: Trace,
}

/// State of a host from its start to its end.
pub(crate) struct Process {
    host: HostId,
    has_ended: AtomicBool,
    is_frozen: AtomicBool,
    tasks: Mutex<Tasks>,
    /// Difference between the host's wall clock and the world's, in nanoseconds. It outlives the process.
    pub(crate) wall_offset: Arc<AtomicI64>,
}

#[derive(Default)]
struct Tasks {
    last: u64,
    handles: BTreeMap<u64, AbortHandle>,
    /// Those that were woken while the process was frozen.
    held: BTreeMap<u64, Waker>,
}

impl Process {
    pub(crate) fn new(host: HostId, wall_offset: Arc<AtomicI64>) -> Arc<Self> {
        let (has_ended, is_frozen) = (AtomicBool::new(false), AtomicBool::new(false));
        Arc::new(Self { host, has_ended, is_frozen, tasks: Mutex::default(), wall_offset })
    }

    fn tasks(&self) -> MutexGuard<'_, Tasks> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets no task go on, or lets all go on again.
    pub(crate) fn set_frozen(&self, is_frozen: bool) {
        self.is_frozen.store(is_frozen, Relaxed);
        if !is_frozen {
            let held = std::mem::take(&mut self.tasks().held);
            held.into_values().for_each(Waker::wake);
        }
    }

    /// Ends all tasks, and every task that is started later.
    pub(crate) fn kill(&self) {
        self.has_ended.store(true, Relaxed);
        let tasks = std::mem::take(&mut *self.tasks());
        tasks.handles.into_values().for_each(|task| task.abort());
        tasks.held.into_values().for_each(Waker::wake);
    }
}

impl Runtime for SimRuntime {
    type Timer = SimTimer;

    fn now(&self) -> Instant {
        Instant::now()
    }

    fn timer(&self, deadline: Instant) -> SimTimer {
        SimTimer(Delay::new(deadline.saturating_duration_since(Instant::now())))
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        let Some(executor) = self.executor.upgrade().filter(|_| !self.process.has_ended.load(Relaxed)) else { return };
        let (handle, registration) = AbortHandle::new_pair();
        let mut tasks = self.process.tasks();
        tasks.last += 1;
        let number = tasks.last;
        tasks.handles.insert(number, handle);
        drop(tasks);
        let task = Abortable::new(task, registration);
        executor.spawn(OnHost { runtime: self.clone(), number, task: Some(task) }).detach();
    }
}

/// Timer in virtual time.
#[derive(Debug)]
pub struct SimTimer(Delay);

impl Timer for SimTimer {
    fn reset(mut self: Pin<&mut Self>, deadline: Instant) {
        self.0.reset(deadline.saturating_duration_since(Instant::now()));
    }

    fn poll_elapsed(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.poll_unpin(cx)
    }
}

/// Task of a host: it reads the host's wall clock.
struct OnHost {
    runtime: SimRuntime,
    number: u64,
    /// Dropped as soon as it has ended, as by any runtime.
    task: Option<Abortable<BoxFuture<'static, ()>>>,
}

impl Future for OnHost {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Self { runtime, number, task } = &mut *self;
        let Some(running) = task else { return Poll::Ready(()) };
        if runtime.process.is_frozen.load(Relaxed) && !running.is_aborted() {
            runtime.process.tasks().held.insert(*number, cx.waker().clone());
            return Poll::Pending;
        }
        runtime.trace.note(runtime.process.host.0 as u64, *number);
        let before = schedule::set_wall_offset(runtime.process.wall_offset.load(Relaxed));
        let polled = running.poll_unpin(cx);
        if polled.is_ready() {
            *task = None;
            runtime.process.tasks().handles.remove(number);
        }
        schedule::set_wall_offset(before);
        polled.map(|_ended| ())
    }
}
