//! Deadlines: each is exact, and its outcome has what was found.

use std::time::Duration;

use kadence_core::{GetRecordError, Outcome, Policy, Progress, RequestOptions, Retry, Stall, TrackerConfig};

use crate::support::*;

#[test]
fn a_deadline_on_a_silent_network_is_exact_and_keeps_the_records_found() {
    let mut h = Harness::one_slot();
    h.request_within(1, get_record("k", Policy::Limit(3)), secs(5));
    let id = h.start();
    assert_eq!(h.timeout(), Some(secs(5)));
    h.ev(id, found("k", 1, b"one"), false);
    h.ev(id, found("k", 2, b"two"), false);
    assert_eq!(h.timeout(), Some(secs(5)), "events do not move a deadline");

    // With the only slot taken, a second request never starts.
    h.request_within(2, get_record("other", Policy::First), secs(3));
    assert_eq!(h.timeout(), Some(secs(3)));
    h.tick(secs(3) - Duration::from_nanos(1));
    assert_eq!(h.outcomes(), 0);
    h.tick(secs(3));
    assert_eq!(h.ending(2), "ExpiredInQueue");
    assert_eq!(h.timeout(), Some(secs(5)));

    h.tick(secs(5) - Duration::from_nanos(1));
    assert!(!h.ended(1));
    assert!(h.finishes.is_empty());
    h.tick(secs(5));
    let Outcome::GetRecord(Err(GetRecordError::Timeout { found, progress })) = h.outcome(1) else {
        panic!("{:?}", h.outcome(1))
    };
    let values: Vec<_> = found.iter().map(|found| found.record.value.as_slice()).collect();
    assert_eq!((values, *progress), (vec![b"one".as_slice(), b"two"], some_progress()));
    assert_eq!(h.finishes, [id]);
    assert!(h.starts.is_empty(), "the query of a request that expired in the queue is never started");

    // The slot is held until kad has ended the query, or for `finish_timeout`.
    assert_eq!(h.timeout(), Some(secs(5 + 30)));
    h.ev(id, records_finished(), true);
    assert_eq!(h.timeout(), None);
    h.assert_empty();
}

/// Durations beyond any clock, and counts beyond any network, are as good as none.
#[test]
fn the_longest_durations_and_the_largest_counts_do_not_overflow() {
    let longest = Duration::MAX;
    let stall = Stall::default().min_quiet(longest).max_quiet(longest).initial_quiet(longest);
    let config = TrackerConfig::default().stall(stall).finish_timeout(longest).default_timeout(longest);
    let mut h = Harness::watching(config);
    let retry = Retry::default().base(longest).cap(longest);
    h.request_with(1, get_record("k", Policy::All), RequestOptions::default().retry(retry).timeout(longest));
    h.get(2, "k");
    let id = h.start();
    for years in 0..5 {
        let most = Progress { requests: u32::MAX, successes: u32::MAX, failures: u32::MAX };
        h.now = secs(years * 1_000_000_000);
        h.ev_with(id, found("k", 1, b"value"), most, false);
        h.tick(h.now);
        h.probe(id, Some(some_progress()));
        assert!(h.timeout().is_none_or(|due| due > h.now));
    }
    h.let_time_pass();
    assert_eq!([h.ending(1), h.ending(2)], ["Timeout", "Timeout"], "thirty years have passed");
    h.assert_empty();
}

/// Every operation ends at its deadline, with what it has found.
#[test]
fn time_alone_ends_every_operation() {
    for kind in OPERATIONS {
        let mut h = Harness::one_slot();
        h.request_within(1, ordinary(kind), secs(5));
        let id = h.start();
        h.tick(secs(5));
        assert_eq!((h.ending(1).as_str(), h.outcome(1).kind()), ("Timeout", kind));
        assert_eq!(h.finishes, [id], "{kind}");
        h.tick(secs(35));
        assert_eq!(h.forgotten, [id], "{kind}");
        h.assert_empty();
    }
}
