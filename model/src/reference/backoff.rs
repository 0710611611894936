//! Delay before a retry.

use std::time::{Duration, Instant};

use kadence_core::{
    Action, Command, Operation, QueryStartError, QueryTracker, Request, RequestId, RequestOptions, Retry, TrackerConfig,
};

use crate::fixtures::local;

/// Returns the delay after attempt number `attempt`. Its random part depends only on the seed, the request and the
/// attempt. The model therefore takes the delay from an otherwise idle tracker, and calculates only its bounds.
pub(super) fn delay(seed: u64, id: RequestId, retry: Retry, attempt: u32) -> Duration {
    let mut full = retry.base;
    for _ in 1..attempt {
        full = full.saturating_mul(2);
    }
    let full = full.min(retry.cap);
    let shortest = Duration::from_millis(1);
    let least = full * u32::from(100_u8.saturating_sub(retry.jitter_percent)) / 100;
    if least == full {
        return full.max(shortest);
    }
    let jittered = jittered_delay(seed, id, retry, attempt);
    let (least, full) = (least.max(shortest), full.max(shortest));
    assert!(least <= jittered && jittered <= full, "a delay of {jittered:?} is not between {least:?} and {full:?}");
    jittered
}

fn jittered_delay(seed: u64, id: RequestId, retry: Retry, attempt: u32) -> Duration {
    let mut now = Instant::now();
    let mut tracker = QueryTracker::<u32>::new(local(), TrackerConfig::default().seed(seed));
    let retry = retry.attempts(u32::MAX);
    let options = RequestOptions::default().retry(retry).timeout(Duration::MAX);
    let request = Request { id, operation: Operation::Bootstrap, options };
    let refused = tracker.handle_command(Command::Request(request), now);
    assert!(refused.is_ok(), "an empty tracker refuses a bootstrap");
    let mut delay = Duration::ZERO;
    for _ in 0..attempt {
        let Some(Action::Start { step, request: _, query: _ }) = tracker.poll_action() else {
            unreachable!("every attempt starts a query");
        };
        tracker.handle_started(step, Err(QueryStartError::NoKnownPeers), now);
        let until = tracker.poll_timeout().unwrap_or(now);
        delay = until - now;
        now = until;
        tracker.handle_timeout(now);
    }
    delay
}
