use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use futures::future::BoxFuture;
use tokio::{
    runtime::Handle,
    time::{Sleep, sleep_until},
};

/// [`kadence::Runtime`] on a tokio runtime. Its clock is tokio's, so `tokio::time::pause` pauses the deadlines of all
/// calls.
///
/// ```
/// use kadence_tokio::TokioRuntime;
///
/// #[tokio::main]
/// async fn main() {
///     assert!(TokioRuntime::current().is_some());
/// }
/// ```
#[derive(Debug, Clone)]
pub struct TokioRuntime {
    handle: Handle,
}

impl TokioRuntime {
    /// Returns the current tokio runtime. `None` outside a tokio runtime.
    pub fn current() -> Option<Self> {
        Handle::try_current().ok().map(|handle| Self { handle })
    }
}

impl From<Handle> for TokioRuntime {
    fn from(handle: Handle) -> Self {
        Self { handle }
    }
}

impl kadence::Runtime for TokioRuntime {
    type Timer = TokioTimer;

    fn now(&self) -> Instant {
        let _entered = self.handle.enter();
        tokio::time::Instant::now().into_std()
    }

    fn timer(&self, deadline: Instant) -> TokioTimer {
        let _entered = self.handle.enter();
        TokioTimer { sleep: Box::pin(sleep_until(deadline.into())) }
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        drop(self.handle.spawn(task));
    }
}

/// Timer of a [`TokioRuntime`].
#[derive(Debug)]
pub struct TokioTimer {
    sleep: Pin<Box<Sleep>>,
}

impl kadence::Timer for TokioTimer {
    fn reset(mut self: Pin<&mut Self>, deadline: Instant) {
        self.sleep.as_mut().reset(deadline.into());
    }

    fn poll_elapsed(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.sleep.as_mut().poll(cx)
    }
}
