use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use futures::future::{BoxFuture, poll_fn};
use kadence::Runtime;

/// Runtime that counts the polls of the tasks spawned on it. Everything else is delegated to the inner runtime.
#[derive(Debug, Clone)]
pub struct CountedPolls<R> {
    inner: R,
    polls: Arc<AtomicUsize>,
}

impl<R: Runtime> CountedPolls<R> {
    /// Wraps a runtime and starts counting.
    pub fn new(inner: R) -> Self {
        Self { inner, polls: Arc::default() }
    }

    /// Returns the number of polls so far.
    pub fn count(&self) -> usize {
        self.polls.load(Ordering::SeqCst)
    }
}

impl<R: Runtime> Runtime for CountedPolls<R> {
    type Timer = R::Timer;

    fn now(&self) -> Instant {
        self.inner.now()
    }

    fn timer(&self, deadline: Instant) -> R::Timer {
        self.inner.timer(deadline)
    }

    fn spawn(&self, mut task: BoxFuture<'static, ()>) {
        let polls = Arc::clone(&self.polls);
        self.inner.spawn(Box::pin(poll_fn(move |cx| {
            polls.fetch_add(1, Ordering::SeqCst);
            task.as_mut().poll(cx)
        })));
    }
}
