use std::{
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll},
    time::Instant,
};

use futures::{Stream, future::BoxFuture};
use smol::{Executor, Timer};

/// [`kadence::Runtime`] on smol. The default value runs tasks on smol's global executor.
#[derive(Debug, Clone, Default)]
pub struct SmolRuntime {
    /// `None`: the global executor. Weak, because tasks hold their runtime: they would keep their own executor alive.
    executor: Option<Weak<Executor<'static>>>,
}

impl SmolRuntime {
    /// Returns a runtime that spawns its tasks on `executor`, which the caller keeps alive and runs. When the executor
    /// is dropped, its tasks are dropped, and a task that is spawned later is dropped at once. Every pending or later
    /// call of a node or driver that ran in a task of the executor then ends with `Shutdown`.
    ///
    /// ```
    /// use std::sync::Arc;
    ///
    /// use kadence_smol::{SmolRuntime, kadence::Runtime};
    ///
    /// let executor = Arc::new(smol::Executor::new());
    /// let runtime = SmolRuntime::on(&executor);
    /// let (sender, receiver) = smol::channel::bounded(1);
    /// runtime.spawn(Box::pin(async move { sender.send("hello").await.unwrap() }));
    /// assert_eq!(smol::block_on(executor.run(receiver.recv())).unwrap(), "hello");
    /// ```
    pub fn on(executor: &Arc<Executor<'static>>) -> Self {
        Self { executor: Some(Arc::downgrade(executor)) }
    }
}

impl kadence::Runtime for SmolRuntime {
    type Timer = SmolTimer;

    fn now(&self) -> Instant {
        Instant::now()
    }

    fn timer(&self, deadline: Instant) -> SmolTimer {
        SmolTimer { timer: Timer::at(deadline) }
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        match &self.executor {
            None => smol::spawn(task).detach(),
            Some(executor) => {
                if let Some(executor) = executor.upgrade() {
                    executor.spawn(task).detach();
                }
            }
        }
    }
}

/// Timer of a [`SmolRuntime`].
#[derive(Debug)]
pub struct SmolTimer {
    timer: Timer,
}

impl kadence::Timer for SmolTimer {
    fn reset(mut self: Pin<&mut Self>, deadline: Instant) {
        self.timer.set_at(deadline);
    }

    fn poll_elapsed(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.timer).poll_next(cx).map(drop)
    }
}
