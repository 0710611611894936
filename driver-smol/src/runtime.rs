use std::{
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll},
    time::Instant,
};

use futures::{Stream, future::BoxFuture};
use smol::{Executor, Timer};

/// smol's global executor, or one of your own.
#[derive(Debug, Clone, Default)]
pub struct SmolRuntime {
    /// Tasks know their runtime, and an executor that its own tasks kept would never go.
    executor: Option<Weak<Executor<'static>>>,
}

impl SmolRuntime {
    /// Tasks run on this executor for as long as you keep and run it. Once it is dropped they are, and so is what is
    /// spawned later: every call then ends with `Shutdown`.
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

/// smol's timer.
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
