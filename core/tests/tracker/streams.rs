//! Streams: items are delivered one by one, and then the outcome.

use kadence_core::{GetRecordError, Item, Outcome, Policy};

use crate::support::*;

/// The driver handles slow readers; the tracker hands out every item, and the outcome after them.
#[test]
fn a_stream_delivers_fifty_records_and_then_the_outcome() {
    let mut h = Harness::default();
    h.stream(1, get_record("k", Policy::All));
    let id = h.start();
    for from in 0..50 {
        h.ev(id, found("k", from, &[from]), false);
    }
    h.ev(id, get_timeout(), true);
    assert_eq!(h.items(1).len(), 50);
    for (from, item) in (0..50).zip(h.items(1)) {
        assert!(matches!(item, Item::Record(found) if found.record.value == [from]), "{item:?}");
    }
    let Outcome::GetRecord(Err(GetRecordError::Timeout { found, progress })) = h.outcome(1) else {
        panic!("{:?}", h.outcome(1))
    };
    assert_eq!((found.len(), *progress), (50, some_progress()));
    h.assert_empty();
}

/// Without streaming, only the outcome carries the items.
#[test]
fn items_are_delivered_only_to_streaming_requests() {
    let mut h = Harness::default();
    h.get(1, "k");
    let id = h.start();
    for from in 0..50 {
        h.ev(id, found("k", from, b"value"), false);
    }
    h.ev(id, records_finished(), true);
    let Outcome::GetRecord(Ok(answer)) = h.outcome(1) else { panic!("{:?}", h.outcome(1)) };
    assert_eq!(answer.iter().count(), 50);
    assert!(h.items(1).is_empty());
}
