//! Minimal reproductions of faults that the model or the fuzzers found.

#![expect(clippy::unwrap_used, reason = "a test fails with it")]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use kadence_core::{
    Command, CommandError, LogValues, Operation, QueryTracker, Quorum, Request, RequestError, RequestId,
    RequestOptions, TrackerConfig, Validators, replay,
};
use kadence_model::{key, local, peer};
use libp2p::kad::Record;

/// Records a tracker that gets one request and then 50 years of time, and replays its log.
fn replays(operation: Operation, timeout: Option<Duration>, epoch: Instant) {
    let mut tracker = QueryTracker::<u32>::new(local(), TrackerConfig::default());
    tracker.record(LogValues::Whole, epoch).unwrap();
    let options = RequestOptions::default().timeout(timeout);
    tracker.handle_command(Command::Request(Request { id: RequestId(1), operation, options }), epoch).unwrap();
    tracker.handle_timeout(epoch + Duration::from_secs(50 * 365 * 24 * 60 * 60));
    while tracker.poll_action().is_some() {}
    let log: Vec<_> = std::iter::from_fn(|| tracker.poll_log()).collect();
    let replayed = replay(log.iter().map(String::as_str), epoch, Validators::default());
    assert_eq!(replayed, Ok(log.len()));
}

/// A timeout that exceeds the clock is replaced by 30 years. Cut to 64 bits of nanoseconds, it would be five centuries.
#[test]
fn a_timeout_beyond_the_clock_replays_unchanged() {
    replays(Operation::Bootstrap, Some(Duration::MAX), Instant::now());
}

#[test]
fn a_record_that_expires_in_a_thousand_years_can_be_replayed() {
    let epoch = Instant::now();
    let expires = epoch.checked_add(Duration::from_secs(1_000 * 365 * 24 * 60 * 60));
    let record = Arc::new(Record { key: key(0), value: vec![1], publisher: None, expires });
    replays(Operation::PutRecordTo { record, peers: vec![peer(1)], quorum: Quorum::One }, None, epoch);
}

/// A query without an event for `finish_timeout` is not joined, so an equal request needs a slot of its own.
#[test]
fn a_request_that_cannot_join_a_silent_query_needs_room_in_the_queue() {
    let now = Instant::now();
    let finish_timeout = Duration::from_secs(1);
    let config = TrackerConfig::default().max_running(1).max_queued(0).finish_timeout(finish_timeout);
    let mut tracker = QueryTracker::<u32>::new(local(), config);
    let mut request = |id, now| {
        let operation = Operation::GetClosestPeers { target: key(0), thorough: false };
        let request = Request { id: RequestId(id), operation, options: RequestOptions::default() };
        tracker.handle_command(Command::Request(request), now)
    };
    request(1, now).unwrap();
    request(2, now).unwrap();
    let refused = request(3, now + finish_timeout);
    assert!(matches!(refused, Err(CommandError(RequestError::Overloaded))), "{refused:?}");
}
