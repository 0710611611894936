use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use async_io::Timer;
use futures::{Stream, future::BoxFuture};

/// [`kadence::Runtime`] on async-std's global executor.
#[derive(Debug, Clone, Copy, Default)]
pub struct AsyncStdRuntime;

impl kadence::Runtime for AsyncStdRuntime {
    type Timer = AsyncStdTimer;

    fn now(&self) -> Instant {
        Instant::now()
    }

    fn timer(&self, deadline: Instant) -> AsyncStdTimer {
        AsyncStdTimer { timer: Timer::at(deadline) }
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        drop(async_std::task::spawn(task));
    }
}

/// Timer of an [`AsyncStdRuntime`].
#[derive(Debug)]
pub struct AsyncStdTimer {
    timer: Timer,
}

impl kadence::Timer for AsyncStdTimer {
    fn reset(mut self: Pin<&mut Self>, deadline: Instant) {
        self.timer.set_at(deadline);
    }

    fn poll_elapsed(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.timer).poll_next(cx).map(drop)
    }
}
