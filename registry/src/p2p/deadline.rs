use std::{
    future::{pending, poll_fn},
    pin::pin,
    time::{Duration, Instant},
};

use futures::future::{Either, select};
use kadence::{Runtime, Timer};

/// Longest span of a deadline, about thirty years. The clock cannot represent much longer ones.
const FAR_FUTURE: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// Adds a span to a time. Longer spans than [`FAR_FUTURE`] are cut, instead of overflowing the clock.
pub(super) fn deadline_after(now: Instant, span: Duration) -> Instant {
    now + span.min(FAR_FUTURE)
}

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
