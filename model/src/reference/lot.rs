//! The wait before a retry.

use std::time::{Duration, Instant};

use kadence_core::{
    Action, Command, Operation, QueryStartError, QueryTracker, Request, RequestId, RequestOptions, Retry, TrackerConfig,
};

use crate::world::local;

/// The wait after attempt number `attempt`. Its random part depends on the seed, the request and the attempt alone, so a
/// tracker that has nothing else to do is asked for it, and only its bounds are calculated.
pub(super) fn wait(seed: u64, id: RequestId, retry: Retry, attempt: u32) -> Duration {
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
    let drawn = drawn(seed, id, retry, attempt);
    let (least, full) = (least.max(shortest), full.max(shortest));
    assert!(least <= drawn && drawn <= full, "a wait of {drawn:?} is not within {least:?} and {full:?}");
    drawn
}

fn drawn(seed: u64, id: RequestId, retry: Retry, attempt: u32) -> Duration {
    let mut now = Instant::now();
    let mut tracker = QueryTracker::<u32>::new(local(), TrackerConfig::default().seed(seed));
    let retry = retry.attempts(u32::MAX);
    let options = RequestOptions::default().retry(retry).timeout(Duration::MAX);
    let request = Request { id, operation: Operation::Bootstrap, options };
    let refused = tracker.handle_command(Command::Request(request), now);
    assert!(refused.is_ok(), "an empty tracker refuses a bootstrap");
    let mut wait = Duration::ZERO;
    for _ in 0..attempt {
        let Some(Action::Start { step, request: _, query: _ }) = tracker.poll_action() else {
            unreachable!("an attempt is a start");
        };
        tracker.handle_started(step, Err(QueryStartError::NoKnownPeers), now);
        let until = tracker.poll_timeout().unwrap_or(now);
        wait = until - now;
        now = until;
        tracker.handle_timeout(now);
    }
    wait
}
