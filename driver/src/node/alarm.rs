use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use crate::{Runtime, Timer};

/// A timer that wakes only while something is due.
pub(super) struct Alarm<R: Runtime> {
    timer: Pin<Box<R::Timer>>,
    due: Option<Instant>,
}

impl<R: Runtime> Alarm<R> {
    pub(super) fn new(runtime: &R) -> Self {
        Self { timer: Box::pin(runtime.timer(runtime.now())), due: None }
    }

    pub(super) fn set(&mut self, due: Instant) {
        if self.due != Some(due) {
            self.timer.as_mut().reset(due);
            self.due = Some(due);
        }
    }

    pub(super) fn stop(&mut self) {
        self.due = None;
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Whether it is time, once for each time that it is set. Otherwise the task is woken then.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, runtime: &R) -> bool {
        let Some(due) = self.due else { return false };
        if self.timer.as_mut().poll_elapsed(cx) == Poll::Pending && runtime.now() < due {
            return false;
        }
        self.due = None;
        true
    }
}

#[cfg(test)]
pub(super) mod tests {
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
    pub(in crate::node) struct TestRuntime {
        now: Arc<Mutex<Instant>>,
        resets: Arc<AtomicUsize>,
    }

    impl TestRuntime {
        pub(in crate::node) fn new() -> Self {
            Self { now: Arc::new(Mutex::new(Instant::now())), resets: Arc::default() }
        }

        pub(in crate::node) fn pass(&self, span: Duration) {
            *self.now.lock().unwrap() += span;
        }

        /// How often a timer was set.
        pub(in crate::node) fn resets(&self) -> usize {
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

    pub(in crate::node) struct TestTimer {
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
