//! Faults of kad: last events that are missing, and events that do not belong.

use std::time::Duration;

use kadence_core::{Outcome, Policy};

use crate::support::*;

#[test]
fn a_missing_last_event_costs_no_slot() {
    let mut h = Harness::slots(4);
    for request in 1..=4 {
        h.request_within(request, get_record(&own_key(request), Policy::All), secs(5));
    }
    h.request_within(5, get_record("k", Policy::All), secs(60));
    h.start_all();
    h.tick(secs(5));
    assert_eq!(h.outcomes(), 4);
    assert_eq!((h.tracker.live_queries(), h.starts.len()), (4, 0), "a finished query keeps its slot");
    h.tick(secs(35) - Duration::from_nanos(1));
    assert!(h.starts.is_empty());
    h.tick(secs(35));
    assert_eq!(h.starts.len(), 1, "the slots come back without any event of the swarm");
    assert_eq!(h.tracker.stats().lost_queries, 4);
    let mut forgotten = h.forgotten.clone();
    forgotten.sort_unstable();
    assert_eq!(forgotten, [0, 1, 2, 3]);

    // The ids still belong to the tracker, so that late events are not passed on as the application's.
    let fifth = h.start();
    for lost in 0..4 {
        assert!(h.tracker.owns(&lost));
        h.ev(lost, found("k", 1, b"late"), false);
        h.ev(lost, records_finished(), true);
    }
    assert_eq!(h.tracker.stats().unknown_inputs, 8);
    assert!(!h.ended(5));
    h.ev(fifth, not_found(Vec::new()), true);
    assert!(!h.tracker.owns(&fifth), "an id is ours until its last event");
    h.assert_empty();
}

/// The opposite: events that kad never sends.
#[test]
fn unknown_duplicate_late_and_mismatching_events_do_nothing() {
    let mut h = Harness::slots(2);
    h.get(1, "k");
    h.get(2, "other");
    h.start_all();
    let (first, second) = (h.id_of(1), h.id_of(2));

    h.ev(77, not_found(Vec::new()), true);
    assert_eq!((h.outcomes(), h.tracker.stats().unknown_inputs), (0, 1));
    h.ev(first, provide_ok(), true);
    h.ev(first, closest_found([1]), true);
    assert_eq!((h.outcomes(), h.tracker.stats().mismatched_events), (0, 2));
    assert_eq!(h.tracker.live_queries(), 2, "the last of another query is not the last of this one");

    h.ev(first, found("k", 1, b"value"), false);
    h.ev(first, found("k", 1, b"value"), false);
    h.ev(first, records_finished(), true);
    let Outcome::GetRecord(Ok(answer)) = h.outcome(1) else { panic!("{:?}", h.outcome(1)) };
    assert_eq!(answer.iter().count(), 1, "the same peer counts once");

    let trace = h.trace.len();
    h.ev(first, found("k", 2, b"late"), false);
    h.ev(first, records_finished(), true);
    assert_eq!((h.trace.len(), h.tracker.stats().unknown_inputs), (trace, 3));
    assert!(!h.ended(2));
    h.ev(second, not_found(Vec::new()), true);
    h.assert_empty();
}
