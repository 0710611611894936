use std::{future::poll_fn, pin::pin, time::Duration};

use futures::future::{Either, select};
use kadence::{Runtime, Timer};

/// What the future gives, or `None` once the time is over. It is dropped then.
pub(super) async fn within<R: Runtime, F: Future>(runtime: &R, time: Duration, future: F) -> Option<F::Output> {
    let mut timer = pin!(runtime.timer(runtime.now() + time));
    let elapsed = pin!(poll_fn(|cx| timer.as_mut().poll_elapsed(cx)));
    match select(pin!(future), elapsed).await {
        Either::Left((output, _)) => Some(output),
        Either::Right(((), _)) => None,
    }
}
