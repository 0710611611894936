//! Cancellation: it takes effect at once, and neither the outcome nor the finishing of the query waits for an event of
//! kad. `Finish` is in force until kad has ended the query, which keeps its slot until then.

use kadence_core::{Operation, Policy, QueryPhase, Quorum};
use libp2p::kad::QueryResult;

use crate::support::*;

/// One slot, which #1 holds, and #2 behind it in the queue.
fn with_next_in_line(operation: Operation) -> Harness {
    let mut h = Harness::one_slot();
    h.stream(1, operation);
    h.get(2, "next");
    h
}

/// #1 has been cancelled and its query is being finished. Late events are ignored, and `last` gives the slot to the
/// next in line.
fn assert_slot_is_held_until_last(mut h: Harness, id: u32, late: &[QueryResult], last: QueryResult) {
    assert_eq!(h.ending(1), "Cancelled");
    assert_eq!(h.finishes, [id], "the order to finish needs no event");
    let snapshot = h.tracker.snapshot(h.instant(h.now));
    assert_eq!((snapshot.queries[0].phase, snapshot.queries[0].request), (QueryPhase::Finishing, None));
    let trace = h.trace.len();
    for result in late {
        h.ev(id, result.clone(), false);
        assert_eq!(h.trace.len(), trace, "a late event is swallowed, and the order is given once");
        assert!(h.tracker.owns(&id), "and it is ours, not the application's");
    }
    assert!(h.starts.is_empty(), "the slot is not free");
    h.ev(id, last, true);
    assert!(!h.tracker.owns(&id));
    assert_eq!(h.starts.len(), 1, "now it is");
    let next = h.start();
    h.ev(next, not_found(Vec::new()), true);
    assert_eq!(h.ending(2), "NotFound");
    assert_eq!((h.tracker.stats().unknown_inputs, h.tracker.stats().mismatched_events), (0, 0));
    h.assert_empty();
}

#[test]
fn a_request_cancelled_while_queued_never_starts_its_query() {
    let mut h = Harness::one_slot();
    h.get(1, "first");
    h.get(2, "cancelled");
    h.get(3, "third");
    let first = h.start();
    h.cancel(2);
    assert_eq!(h.ending(2), "Cancelled");
    assert!(h.finishes.is_empty());
    h.ev(first, not_found(Vec::new()), true);
    assert_eq!(h.starts[0].request.0, 3);
    let third = h.start();
    h.ev(third, not_found(Vec::new()), true);
    h.assert_empty();
}

#[test]
fn a_query_cancelled_while_starting_is_finished_as_soon_as_it_has_an_id() {
    let mut h = with_next_in_line(get_record("k", Policy::All));
    h.cancel(1);
    assert_eq!(h.ending(1), "Cancelled");
    assert!(h.finishes.is_empty(), "there is no id yet");
    assert_eq!((h.tracker.live_queries(), h.starts.len()), (1, 1));
    let id = h.start();
    assert_slot_is_held_until_last(h, id, &[found("k", 1, b"late")], records_finished());
}

#[test]
fn the_slot_of_a_query_that_is_cancelled_and_then_does_not_start_is_free_at_once() {
    let mut h = with_next_in_line(Operation::Bootstrap);
    h.cancel(1);
    h.refuse(kadence_core::QueryStartError::NoKnownPeers);
    assert_eq!(h.ending(1), "Cancelled");
    assert_eq!(h.starts[0].request.0, 2);
    assert_eq!(h.timeout(), Some(secs(30)), "only the deadline of the second is left");
}

#[test]
fn a_request_can_be_cancelled_before_the_first_event() {
    for (operation, last) in [
        (get_record("k", Policy::All), not_found(Vec::new())),
        (get_providers("k", Policy::All), providers_finished()),
        (closest("k"), closest_found([1])),
        (provide("k"), provide_ok()),
        (put_to("k", peers([1]), Quorum::One), put_ok()),
        (Operation::Bootstrap, bootstrap_ok(0)),
    ] {
        let mut h = with_next_in_line(operation);
        let id = h.start();
        h.cancel(1);
        assert_slot_is_held_until_last(h, id, &[], last);
    }
}

#[test]
fn events_after_a_stream_was_cancelled_are_ignored() {
    let mut h = with_next_in_line(get_record("k", Policy::All));
    let id = h.start();
    h.ev(id, found("k", 1, b"value"), false);
    h.cancel(1);
    assert_eq!(h.items(1).len(), 1);
    let late = [found("k", 2, b"late"), found("k", 3, b"late")];
    assert_slot_is_held_until_last(h, id, &late, records_finished());
}

#[test]
fn a_put_cancelled_during_its_lookup_sends_nothing() {
    let mut h = with_next_in_line(put("k", Quorum::One));
    let id = h.start();
    h.cancel(1);
    // kad ends the lookup with the peers found so far; nothing is sent to them.
    assert_slot_is_held_until_last(h, id, &[], closest_found([1, 2, 3]));
}

#[test]
fn a_put_cancelled_while_it_sends_leaves_no_local_copy() {
    let mut h = with_next_in_line(put("k", Quorum::One));
    let lookup = h.start();
    h.ev(lookup, closest_found([1, 2, 3]), true);
    let store = h.start();
    assert_ne!(lookup, store);
    h.cancel(1);
    assert!(h.to_store.is_empty());
    assert_slot_is_held_until_last(h, store, &[], put_ok());
}

/// One `finish()` ends only one bucket's lookup; `Finish` is in force until the last.
#[test]
fn a_bootstrap_cancelled_with_three_lookups_remaining_is_finished_until_its_last() {
    let mut h = with_next_in_line(Operation::Bootstrap);
    let id = h.start();
    h.ev(id, bootstrap_ok(3), false);
    h.cancel(1);
    let late = [bootstrap_ok(2), bootstrap_timeout(Some(1))];
    assert_slot_is_held_until_last(h, id, &late, bootstrap_ok(0));
}

#[test]
fn a_cancel_that_comes_twice_or_too_late_does_nothing() {
    let mut h = Harness::default();
    h.cancel(1);
    h.get(1, "k");
    let id = h.start();
    h.cancel(1);
    let trace = h.trace.len();
    h.cancel(1);
    h.cancel(77);
    assert_eq!(h.trace.len(), trace);
    h.ev(id, records_finished(), true);
    h.cancel(1);
    assert_eq!(h.ending(1), "Cancelled");
    assert_eq!(h.outcomes(), 1);
    h.assert_empty();
}

/// No query of kad runs between the store action and its answer.
#[test]
fn a_put_cancelled_while_its_record_is_stored_ends_at_once() {
    let mut h = Harness::default();
    h.request(1, put("k", Quorum::One));
    let lookup = h.start();
    h.ev(lookup, closest_found([1]), true);
    let store = h.start();
    h.ev(store, put_ok(), true);
    assert_eq!(h.to_store.len(), 1);
    h.cancel(1);
    assert_eq!(h.ending(1), "Cancelled");
    assert!(h.finishes.is_empty());
    h.assert_empty();
    h.stored(1, Ok(()));
    assert_eq!((h.outcomes(), h.tracker.stats().unknown_inputs), (1, 1));
}
