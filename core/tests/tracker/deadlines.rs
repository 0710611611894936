//! Deadlines: each is exact, and its outcome has what was found.

use std::time::Duration;

use kadence_core::{GetRecordError, Outcome, Policy};

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
