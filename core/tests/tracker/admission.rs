//! Admission: slots, the queue, refusals, and the effect of time on them.

use std::time::Duration;

use kadence_core::{
    MAX_RUNNING_CEILING, OperationKind, Policy, QueryPhase, QueryView, Quorum, RequestError, RequestOptions,
    RequestPhase, RequestView, Stats, TrackerConfig,
};

use crate::support::*;

/// At 100 live queries kad silently stops republishing.
#[test]
fn the_number_of_slots_is_clamped_to_the_maximum_for_kad() {
    for (asked, slots) in [(0, 1), (1, 1), (32, 32), (99, 99), (100, 99), (usize::MAX, 99)] {
        let mut h = Harness::slots(asked);
        assert_eq!(h.tracker.config().max_running, slots);
        for request in 0..200 {
            h.get_own(request);
        }
        assert_eq!((h.starts.len(), h.tracker.live_queries()), (slots, slots), "{asked}");
    }
    assert_eq!(MAX_RUNNING_CEILING, 99);
}

#[test]
fn waiting_requests_are_served_in_order() {
    let mut h = Harness::slots(3);
    for request in 0..20 {
        h.get_own(request);
    }
    let mut order = Vec::new();
    while let Some(start) = h.starts.front() {
        order.push(start.request.0);
        let id = h.start();
        h.ev(id, not_found(Vec::new()), true);
    }
    assert_eq!(order, (0..20).collect::<Vec<_>>());
    h.assert_empty();
}

/// Neither a query that is starting, nor one that is being finished, nor a request that was satisfied frees its slot.
#[test]
fn a_slot_is_held_until_kad_has_ended_the_query() {
    let mut h = Harness::slots(3);
    h.request(1, get_record("satisfied", Policy::First));
    h.get(2, "cancelled");
    h.get(3, "abandoned");
    h.get(4, "next");
    h.start();
    h.start();
    let (first, second) = (h.id_of(1), h.id_of(2));
    h.ev(first, found("satisfied", 1, b"value"), false);
    h.cancel(2);
    h.cancel(3);
    assert_eq!(h.outcomes(), 3);
    assert_eq!(h.starts.len(), 1, "nothing but the start that nobody wants any more");
    assert_eq!(h.tracker.live_queries(), 3);
    h.ev(second, not_found(Vec::new()), true);
    assert_eq!(h.starts[1].request.0, 4);
}

#[test]
fn a_place_in_the_queue_is_free_as_soon_as_its_request_has_ended() {
    let mut h = Harness::new(TrackerConfig::default().max_running(1).max_queued(1));
    h.get(1, "running");
    h.request_within(2, get_record("a", Policy::All), secs(5));
    let overloaded = |h: &mut Harness| {
        let refused = h.ask(9, get_record("one too many", Policy::All), RequestOptions::default());
        matches!(refused, Err(error) if matches!(error.0, RequestError::Overloaded))
    };
    assert!(overloaded(&mut h));
    h.cancel(2);
    h.request_within(3, get_record("b", Policy::All), secs(5));
    assert!(overloaded(&mut h));
    // The deadline of #3 has passed, but no call has told the tracker: the next request still finds the place free.
    h.now = secs(5);
    h.get(4, "c");
    assert_eq!(h.ending(3), "ExpiredInQueue");
    assert!(overloaded(&mut h));
}

/// Without a queue there are still the slots.
#[test]
fn a_queue_of_length_zero_admits_as_many_requests_as_there_are_slots() {
    let mut h = Harness::new(TrackerConfig::default().max_running(2).max_queued(0));
    h.get(1, "a");
    h.get(2, "b");
    assert!(h.ask(3, get_record("c", Policy::All), RequestOptions::default()).is_err());
    h.start_all();
    let first = h.id_of(1);
    h.ev(first, not_found(Vec::new()), true);
    h.get(4, "d");
    assert_eq!(h.starts[0].request.0, 4);
}

#[test]
fn time_in_the_queue_counts_against_the_deadline() {
    let mut h = Harness::one_slot();
    h.get(1, "a");
    let first = h.start();
    h.request_within(2, get_record("b", Policy::All), secs(10));
    h.now = secs(9);
    h.ev(first, not_found(Vec::new()), true);
    h.start();
    assert_eq!(h.timeout(), Some(secs(10)));
    h.tick(secs(10));
    assert_eq!(h.ending(2), "Timeout", "it had started");
}

#[test]
fn a_timeout_of_zero_expires_at_once() {
    let mut h = Harness::default();
    h.request_within(1, get_record("k", Policy::All), Duration::ZERO);
    assert_eq!(h.ending(1), "ExpiredInQueue");
    assert!(h.starts.is_empty());
    h.assert_empty();
}

/// A timeout that is too long to be a point in time must not hold a slot or a place in the queue forever.
#[test]
fn timeouts_that_are_too_long_count_as_thirty_years() {
    let config = TrackerConfig::default().default_timeout(Duration::MAX).finish_timeout(Duration::MAX).max_running(1);
    let mut h = Harness::new(config);
    h.get(1, "a");
    h.request_within(2, get_record("b", Policy::All), Duration::MAX);
    h.start();
    let year = secs(365 * 24 * 60 * 60);
    let due = h.timeout().expect("every request has a deadline");
    assert!(due >= 10 * year, "{due:?}");
    h.tick(10 * year);
    assert_eq!(h.outcomes(), 0);
    h.tick(due);
    assert_eq!((h.ending(1).as_str(), h.ending(2).as_str()), ("Timeout", "ExpiredInQueue"));
    h.let_time_pass();
    h.assert_empty();
}

#[test]
fn time_that_goes_backwards_counts_as_standing_still() {
    let mut h = Harness::one_slot();
    // All readings count from the first one.
    h.tick(secs(1));
    h.tick(secs(100));
    h.now = secs(40);
    h.request_within(1, get_record("k", Policy::All), secs(5));
    assert_eq!(h.timeout(), Some(secs(105)), "counted from the latest time seen");
    let id = h.start();
    h.tick(secs(50));
    assert!(!h.ended(1));
    h.tick(secs(105));
    h.tick(secs(1));
    assert_eq!(h.ending(1), "Timeout");
    assert_eq!(h.timeout(), Some(secs(135)));
    h.tick(secs(134));
    assert_eq!(h.tracker.live_queries(), 1);
    h.ev(id, not_found(Vec::new()), true);
    h.assert_empty();
}

#[test]
fn a_tick_before_its_time_does_nothing() {
    let mut h = Harness::one_slot();
    h.tick(secs(1));
    h.get(1, "a");
    h.get(2, "b");
    h.start();
    let (trace, due) = (h.trace.len(), h.timeout());
    for _ in 0..3 {
        h.tick(secs(2));
    }
    assert_eq!((h.trace.len(), h.timeout()), (trace, due));
    assert_eq!(due, Some(secs(31)));
}

/// A tick that is hours late handles everything that was due, and no more.
#[test]
fn a_late_tick_ends_requests_that_are_due_and_starts_the_others() {
    let mut h = Harness::slots(2);
    for (request, timeout) in [(1, 1), (2, 2), (3, 3), (4, 100_000)] {
        h.request_within(request, get_record(&own_key(request), Policy::All), secs(timeout));
    }
    h.start_all();
    h.cancel(1);
    h.tick(secs(10_000));
    assert_eq!((h.ending(2).as_str(), h.ending(3).as_str()), ("Timeout", "ExpiredInQueue"));
    assert_eq!(h.forgotten, [h.id_of(1)], "the wait of the second begins now");
    assert_eq!(h.starts.iter().map(|start| start.request.0).collect::<Vec<_>>(), [4]);
    assert_eq!(h.timeout(), Some(secs(10_030)));
}

#[test]
fn a_snapshot_shows_every_request_and_query_with_its_age() {
    let mut h = Harness::slots(4);
    h.get(1, "running");
    h.request(2, put("storing", Quorum::One));
    h.get(3, "cancelled");
    h.start_all();
    let lookup = h.id_of(2);
    h.ev(lookup, closest_found([1]), true);
    h.start_all();
    let (running, storing, cancelled) = (h.id_of(1), h.id_of(2), h.id_of(3));
    h.ev(storing, put_ok(), true);
    h.now = secs(2);
    h.ev(running, found("running", 1, b"value"), false);
    h.cancel(3);
    h.request_within(4, provide("starting"), secs(60));
    h.request(5, kadence_core::Operation::Bootstrap);
    h.request(6, closest("queued"));

    let snapshot = h.tracker.snapshot(h.instant(secs(3)));
    let request = |id, operation, key: &str, phase, age, remaining| {
        RequestView::new(kadence_core::RequestId(id), operation, key.as_bytes().to_vec())
            .phase(phase)
            .age(secs(age))
            .remaining(secs(remaining))
    };
    let (is_running, queued) = (RequestPhase::Running, RequestPhase::Queued);
    assert_eq!(
        snapshot.requests,
        [
            request(1, OperationKind::GetRecord, "running", is_running, 3, 27),
            request(2, OperationKind::PutRecord, "storing", RequestPhase::Storing, 3, 27),
            request(4, OperationKind::StartProviding, "starting", is_running, 1, 59),
            request(5, OperationKind::Bootstrap, "", is_running, 1, 29),
            request(6, OperationKind::GetClosestPeers, "queued", queued, 1, 29),
        ]
    );
    let query = |id, operation, phase, request: Option<u64>, age, progress| {
        let mut view = QueryView::new(operation);
        (view.id, view.phase, view.progress) = (id, phase, progress);
        (view.request, view.waiters) = (request.map(kadence_core::RequestId), usize::from(request.is_some()));
        view.age = secs(age);
        view
    };
    let starting = QueryPhase::Starting;
    assert_eq!(
        snapshot.queries,
        [
            query(Some(running), OperationKind::GetRecord, QueryPhase::Running, Some(1), 3, some_progress()),
            query(Some(cancelled), OperationKind::GetRecord, QueryPhase::Finishing, None, 3, nobody()),
            query(None, OperationKind::StartProviding, starting, Some(4), 1, nobody()),
            query(None, OperationKind::Bootstrap, starting, Some(5), 1, nobody()),
        ]
    );
    assert_eq!((h.tracker.live_requests(), h.tracker.live_queries()), (5, 4));
}

/// A put in its second step shows the operation that kad runs.
#[test]
fn a_snapshot_shows_a_put_that_is_sending_as_put_record_to() {
    let mut h = Harness::default();
    h.request(1, put("k", Quorum::One));
    let kind = |h: &Harness| h.tracker.snapshot(h.instant(h.now)).queries[0].operation;
    assert_eq!(kind(&h), OperationKind::GetClosestPeers);
    let lookup = h.start();
    h.ev(lookup, closest_found([1]), true);
    assert_eq!(kind(&h), OperationKind::PutRecordTo);
    assert_eq!(h.tracker.snapshot(h.instant(h.now)).requests[0].operation, OperationKind::PutRecord);
}

#[test]
fn stats_count_requests_and_odd_inputs() {
    let mut h = Harness::new(TrackerConfig::default().max_running(1).max_queued(1));
    h.get(1, "k");
    h.get(2, "other");
    assert!(h.ask(3, closest("k"), RequestOptions::default()).is_err());
    assert!(h.ask(1, closest("k"), RequestOptions::default()).is_err());
    let id = h.start();
    h.ev(99, not_found(Vec::new()), true);
    h.stored(1, Ok(()));
    h.ev(id, provide_ok(), true);
    h.ev(id, found("other", 1, b"foreign"), false);
    h.cancel(1);
    h.tick(secs(30));
    let mut expected = Stats::default();
    (expected.accepted, expected.refused, expected.unknown_inputs) = (2, 2, 2);
    (expected.mismatched_events, expected.foreign_records, expected.lost_queries) = (1, 1, 1);
    assert_eq!(h.tracker.stats(), expected);
}
