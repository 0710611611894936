use std::{
    future::{pending, poll_fn},
    pin::pin,
    time::Duration,
};

use futures::future::{Either, select};
use kadence::{Runtime, Timer};

/// Waits for this long; for ever if the clock cannot represent the end.
pub(super) async fn sleep<R: Runtime>(runtime: &R, time: Duration) {
    let Some(due) = runtime.now().checked_add(time) else { return pending().await };
    let mut timer = pin!(runtime.timer(due));
    poll_fn(|cx| timer.as_mut().poll_elapsed(cx)).await;
}

/// Returns the output of the future, or `None` and drops the future if it takes longer.
pub(super) async fn within<R: Runtime, F: Future>(runtime: &R, time: Duration, future: F) -> Option<F::Output> {
    match select(pin!(future), pin!(sleep(runtime, time))).await {
        Either::Left((output, _)) => Some(output),
        Either::Right(((), _)) => None,
    }
}
