//! Shutdown: at once, and after a drain.

use kadence_core::{Policy, Quorum, RequestError, RequestOptions};

use crate::support::*;

/// Three running requests, one of them a stream with items, and two queued.
fn six_requests() -> Harness {
    let mut h = Harness::slots(4);
    h.get(1, "a");
    h.request(2, put("b", Quorum::One));
    h.request(3, provide("c"));
    h.stream(4, get_record("d", Policy::All));
    h.get(5, "e");
    h.request(6, closest("f"));
    h.start_all();
    let half_read = h.id_of(4);
    h.ev(half_read, found("d", 1, b"value"), false);
    assert_eq!(h.items(4).len(), 1);
    h
}

#[test]
fn a_shutdown_ends_every_request_and_refuses_the_next() {
    let mut h = six_requests();
    assert!(!h.tracker.is_shut_down());
    h.shut_down(false);
    for request in 1..=6 {
        assert_eq!(h.ending(request), "Shutdown", "#{request}");
    }
    assert_eq!(h.finishes.len(), 4, "each query that runs is finished: {:?}", h.finishes);
    assert_eq!(h.stopped, [key("c")]);
    assert!(h.starts.is_empty(), "no queued request is started by a shutdown");
    assert!(h.tracker.is_shut_down());
    let refused = h.ask(7, get_record("g", Policy::All), RequestOptions::default()).unwrap_err();
    assert!(matches!(refused.0, RequestError::Shutdown), "{refused:?}");
    h.tick(secs(30));
    h.assert_empty();
}

#[test]
fn a_drain_lets_accepted_requests_end_and_refuses_the_next() {
    let mut h = six_requests();
    h.shut_down(true);
    assert!(!h.tracker.is_shut_down());
    let refused = h.ask(7, get_record("g", Policy::All), RequestOptions::default()).unwrap_err();
    assert!(matches!(refused.0, RequestError::Shutdown), "{refused:?}");
    assert_eq!(h.outcomes(), 0);

    // The put goes on to its second step, and the queued requests get their turn.
    let (get, lookup) = (h.id_of(1), h.id_of(2));
    h.ev(lookup, closest_found([1]), true);
    let store = h.start();
    h.ev(get, not_found(Vec::new()), true);
    let queued = h.start();
    h.ev(queued, not_found(Vec::new()), true);
    let closest = h.start();
    h.ev(closest, closest_found([1]), true);
    h.ev(store, put_ok(), true);
    h.stored(2, Ok(()));
    let (provided, stream) = (h.id_of(3), h.id_of(4));
    h.ev(provided, provide_ok(), true);
    assert!(!h.tracker.is_shut_down());
    h.ev(stream, records_finished(), true);
    let endings: Vec<_> = (1..=6).map(|request| h.ending(request)).collect();
    assert_eq!(endings, ["NotFound", "Ok", "Ok", "Ok", "NotFound", "Ok"]);
    assert!(h.tracker.is_shut_down());
    h.assert_empty();
}

#[test]
fn a_drain_that_takes_too_long_can_be_cut_short() {
    let mut h = six_requests();
    h.shut_down(true);
    h.shut_down(false);
    assert!((1..=6).all(|request| h.ending(request) == "Shutdown"));
    assert!(h.tracker.is_shut_down());
    h.shut_down(false);
    assert_eq!(h.outcomes(), 6);
}

/// In the order of their ids, not of a map: the same inputs give the same actions.
#[test]
fn a_shutdown_ends_requests_in_order() {
    let mut h = Harness::slots(50);
    for request in (0..100).rev() {
        h.get_own(request * 1_000_003);
    }
    h.shut_down(false);
    let outcomes: Vec<_> = h.trace.iter().filter(|line| line.contains("Outcome {")).collect();
    assert_eq!(outcomes.len(), 100);
    for (request, line) in (0..100).zip(outcomes) {
        assert!(line.contains(&format!("RequestId({})", request * 1_000_003)), "{line}");
    }
}
