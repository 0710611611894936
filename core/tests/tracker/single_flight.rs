//! Sharing of queries: equal requests share one query, and each keeps its own deadline, policy and outcome.

use kadence_core::{
    GetProvidersError, GetRecordError, Operation, OperationKind, Outcome, Policy, Query, QueryStartError, Quorum,
    TrackerConfig,
};

use crate::support::*;

/// A hundred equal gets that share one query.
fn a_hundred() -> Harness {
    let mut h = Harness::default();
    for request in 0..100 {
        h.get(request, "k");
    }
    h
}

#[test]
fn a_hundred_equal_gets_share_one_query_and_get_an_outcome_each() {
    let mut h = a_hundred();
    assert_eq!((h.starts.len(), h.tracker.live_queries(), h.tracker.live_requests()), (1, 1, 100));
    let id = h.start();
    let snapshot = h.tracker.snapshot(h.instant(h.now));
    assert_eq!((snapshot.queries.len(), snapshot.queries[0].waiters), (1, 100));
    h.ev(id, found("k", 1, b"value"), false);
    h.ev(id, records_finished(), true);
    for request in 0..100 {
        let Outcome::GetRecord(Ok(answer)) = h.outcome(request) else { panic!("{:?}", h.outcome(request)) };
        assert_eq!((answer.value(), answer.agreeing), (b"value".as_slice(), 1));
    }
    assert!(h.starts.is_empty());
    assert!(h.finishes.is_empty());
    h.assert_empty();
}

#[test]
fn every_end_of_the_query_ends_all_its_requests() {
    for (last, ending) in [(not_found(Vec::new()), "NotFound"), (get_timeout(), "Timeout")] {
        let mut h = a_hundred();
        let id = h.start();
        h.ev(id, last, true);
        assert!((0..100).all(|request| h.ending(request) == ending));
        h.assert_empty();
    }
    let mut h = a_hundred();
    h.refuse(QueryStartError::NoKnownPeers);
    assert!((0..100).all(|request| h.ending(request) == "NoKnownPeers"));
    h.assert_empty();
}

/// For any last request, and for a query that runs, is starting, or waits for a slot.
#[test]
fn the_last_of_a_hundred_requests_to_end_finishes_the_query() {
    for survivor in [0, 1, 57, 99] {
        for state in ["running", "starting", "queued"] {
            let mut h = Harness::one_slot();
            if state == "queued" {
                h.get(1000, "busy");
                h.start();
            }
            for request in 0..100 {
                h.get(request, "k");
            }
            let id = if state == "running" { Some(h.start()) } else { None };
            for request in (0..100).filter(|request| *request != survivor) {
                h.cancel(request);
                assert_eq!(h.ending(request), "Cancelled");
            }
            assert!(!h.ended(survivor), "{state}");
            assert!(h.finishes.is_empty(), "{state}");

            h.cancel(survivor);
            assert_eq!(h.ending(survivor), "Cancelled");
            match id {
                Some(id) => assert_eq!(h.finishes, [id], "{state}"),
                None => assert!(h.finishes.is_empty(), "{state}"),
            }
            // A query that is abandoned at its start is finished as soon as it has an id.
            if state == "starting" {
                let id = h.start();
                assert_eq!(h.finishes, [id]);
            }
            let finished = h.finishes.len();
            h.let_time_pass();
            let busy = usize::from(state == "queued");
            assert_eq!((h.starts.len(), h.finishes.len()), (0, finished + busy), "{state}: exactly one");
            h.assert_empty();
        }
    }
}

/// The last of a hundred requests gets its answer.
#[test]
fn the_last_of_a_hundred_requests_gets_its_answer() {
    for survivor in [0, 42, 99] {
        let mut h = a_hundred();
        let id = h.start();
        h.ev(id, found("k", 1, b"before"), false);
        for request in (0..100).filter(|request| *request != survivor) {
            h.cancel(request);
        }
        h.ev(id, found("k", 2, b"after"), false);
        h.ev(id, records_finished(), true);
        let Outcome::GetRecord(Ok(answer)) = h.outcome(survivor) else { panic!("{:?}", h.outcome(survivor)) };
        assert_eq!(answer.iter().count(), 2);
        assert!(h.finishes.is_empty());
        h.assert_empty();
    }
}

#[test]
fn each_request_has_its_own_deadline() {
    let mut h = Harness::default();
    for (request, timeout) in [(1, 10), (2, 3), (3, 6)] {
        h.request_within(request, get_record("k", Policy::All), secs(timeout));
    }
    let id = h.start();
    assert_eq!(h.timeout(), Some(secs(3)));
    let timeout = |h: &Harness, request| match h.outcome(request) {
        Outcome::GetRecord(Err(GetRecordError::Timeout { found, progress: _ })) => found.len(),
        other => panic!("{other:?}"),
    };
    for (at, request) in [(3, 2), (6, 3), (10, 1)] {
        assert!(h.finishes.is_empty());
        assert_eq!(h.timeout(), Some(secs(at)));
        h.tick(secs(at));
        assert!(h.ended(request));
        h.ev(id, found("k", at as u8, b"value"), false);
    }
    assert_eq!([2, 3, 1].map(|request| timeout(&h, request)), [0, 1, 2], "what there was by then");
    assert_eq!(h.finishes, [id], "with the last of them");
}

#[test]
fn each_request_has_its_own_policy() {
    let mut h = Harness::new(validating());
    let best = |agree| Policy::Best { agree };
    // The policy, and the number of records that satisfies it.
    let policies = [
        (Policy::Limit(3), 3),
        (Policy::First, 1),
        (Policy::Quorum(Quorum::N(2)), 3),
        (best(Some(Quorum::N(2))), 4),
        (Policy::Limit(2), 2),
        // Satisfied by a value that is not the best.
        (Policy::Quorum(Quorum::N(3)), 5),
    ];
    for (request, (policy, _)) in (0..).zip(policies) {
        h.stream(request, get_record("/v/k", policy));
    }
    let id = h.start();
    for (n, value) in (1..).zip([1, 2, 1, 2, 1]) {
        assert!(h.finishes.is_empty());
        h.ev(id, found("/v/k", n, &[value]), false);
        for (request, (policy, satisfied)) in (0..).zip(policies) {
            assert_eq!(h.ended(request), n >= satisfied, "{policy:?} after {n}");
        }
    }
    assert_eq!(h.items(0).len(), 3, "no more than it asked for");
    assert_eq!(h.finishes, [id]);
}

/// A query that is being finished finds nothing more.
#[test]
fn a_query_that_is_being_finished_is_not_joined() {
    let mut h = Harness::default();
    h.request(1, get_record("k", Policy::First));
    let first = h.start();
    h.ev(first, found("k", 1, b"one"), false);
    assert_eq!(h.finishes, [first]);
    h.stream(2, get_record("k", Policy::All));
    let second = h.start();
    assert_ne!(first, second);
    h.ev(first, found("k", 2, b"late"), false);
    h.ev(first, records_finished(), true);
    assert!(!h.ended(2));
    // A third request joins the second query, not the one that is ending.
    h.get(3, "k");
    assert!(h.starts.is_empty());
    h.ev(second, found("k", 3, b"three"), false);
    h.ev(second, records_finished(), true);
    let Outcome::GetRecord(Ok(answer)) = h.outcome(3) else { panic!("{:?}", h.outcome(3)) };
    assert_eq!((answer.value(), h.items(2).len()), (b"three".as_slice(), 1));
    h.assert_empty();
}

/// Nor is a query that was abandoned at its start.
#[test]
fn an_abandoned_start_is_not_joined() {
    let mut h = Harness::default();
    h.get(1, "k");
    h.cancel(1);
    h.get(2, "k");
    assert_eq!(h.starts.len(), 2);
    let (abandoned, second) = (h.start(), h.start());
    assert_eq!(h.finishes, [abandoned]);
    h.ev(abandoned, not_found(Vec::new()), true);
    assert!(!h.ended(2));
    h.ev(second, not_found(Vec::new()), true);
    h.assert_empty();
}

/// A request after the end asks the network again: nothing is kept.
#[test]
fn a_request_after_the_end_starts_its_own_query() {
    let mut h = Harness::default();
    for request in 0..5 {
        h.get(request, "k");
        let id = h.start();
        h.ev(id, found("k", 1, b"value"), false);
        h.ev(id, records_finished(), true);
        assert!(h.ended(request));
    }
    h.assert_empty();
}

#[test]
fn different_operations_and_keys_never_share() {
    // Reads, and a put's lookup, which is one of the closest peers.
    let query = |kind| match kind {
        OperationKind::PutRecord => OperationKind::GetClosestPeers,
        other => other,
    };
    let is_shared =
        |kind| !matches!(kind, OperationKind::PutRecordTo | OperationKind::StartProviding | OperationKind::Bootstrap);
    for first in OPERATIONS {
        for second in OPERATIONS {
            let mut h = Harness::default();
            h.request(1, ordinary(first));
            h.request(2, ordinary(second));
            let shared = query(first) == query(second) && is_shared(first);
            assert_eq!(h.starts.len(), if shared { 1 } else { 2 }, "{first} and {second}");
        }
    }
    let on: [fn(&str) -> Operation; 4] =
        [|k| get_record(k, Policy::All), |k| get_providers(k, Policy::All), closest, |k| put(k, Quorum::One)];
    for of in on {
        let mut h = Harness::default();
        for (request, key) in (0..).zip(["k", "", "kk", "K", "k\0"]) {
            h.request(request, of(key));
        }
        assert_eq!(h.starts.len(), 5);
    }
}

#[test]
fn a_lookup_and_the_lookups_of_puts_of_one_key_share_and_the_puts_go_on() {
    let mut h = Harness::default();
    h.request(1, put("k", Quorum::All));
    h.request(2, closest("k"));
    h.request(3, put("k", n(2)));
    h.request(4, put("k", n(4)));
    let lookup = h.start();
    assert!(h.starts.is_empty(), "one lookup for all");
    h.ev(lookup, closest_found([1, 2, 3]), true);
    assert_eq!(h.ending(2), "Ok");
    // Two stores, each of its own record.
    let stores: Vec<_> = h.starts.iter().map(|start| (start.request.0, start.query.kind())).collect();
    let further = (4, OperationKind::GetClosestPeers);
    assert_eq!(stores, [(1, OperationKind::PutRecordTo), (3, OperationKind::PutRecordTo), further]);
    let (first, second) = (h.start(), h.start());
    h.nobody_further();
    assert_eq!(h.ending(4), "InsufficientPeers");
    h.ev(second, put_quorum_failed(peers([1, 2])), true);
    h.ev(first, put_quorum_failed(peers([1, 2])), true);
    h.stored(3, Ok(()));
    assert_eq!((h.ending(1).as_str(), h.ending(3).as_str()), ("QuorumFailed", "Ok"));
    let Outcome::PutRecord(Ok(answer)) = h.outcome(3) else { panic!("{:?}", h.outcome(3)) };
    assert_eq!(answer.progress, some_progress().merge(some_progress()), "its lookup and its store");
    h.assert_empty();
}

#[test]
fn a_cancelled_put_leaves_the_lookup_to_the_requests_that_share_it() {
    let mut h = Harness::default();
    h.request(1, put("k", Quorum::One));
    let lookup = h.start();
    h.request(2, closest("k"));
    h.request(3, put("k", Quorum::One));
    h.cancel(1);
    assert!(h.finishes.is_empty());
    h.cancel(2);
    h.ev(lookup, closest_found([1]), true);
    assert_eq!(h.starts.iter().map(|start| start.request.0).collect::<Vec<_>>(), [3]);
    assert!(matches!(h.starts[0].query, Query::PutRecordTo { .. }));
    let store = h.start();
    h.ev(store, put_ok(), true);
    h.stored(3, Ok(()));
    h.assert_empty();
}

/// Its store is not shared, and the next lookup is a new query.
#[test]
fn a_put_that_is_sending_shares_nothing() {
    let mut h = Harness::default();
    h.request(1, put("k", Quorum::One));
    let lookup = h.start();
    h.ev(lookup, closest_found([1]), true);
    h.start();
    h.request(2, closest("k"));
    h.request(3, put("k", Quorum::One));
    assert_eq!(h.starts.len(), 1);
    assert_eq!(h.starts[0].query.kind(), OperationKind::GetClosestPeers);
}

/// Providers are shared as records are.
#[test]
fn provider_lookups_share_with_their_own_limits() {
    let mut h = Harness::default();
    h.stream(1, get_providers("k", Policy::Limit(2)));
    h.stream(2, get_providers("k", Policy::Limit(4)));
    h.request_within(3, get_providers("k", Policy::All), secs(5));
    let id = h.start();
    h.ev(id, providers([1, 2, 3]), false);
    let answer = |h: &Harness, request| match h.outcome(request) {
        Outcome::GetProviders(Ok(answer)) => answer.providers.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(*answer(&h, 1), peers([1, 2]));
    assert!(!h.ended(2));
    h.ev(id, providers([3, 4, 5, 6]), false);
    assert_eq!(*answer(&h, 2), peers([1, 2, 3, 4]));
    h.tick(secs(5));
    let Outcome::GetProviders(Err(GetProvidersError::Timeout { found, progress: _ })) = h.outcome(3) else {
        panic!("{:?}", h.outcome(3))
    };
    assert_eq!(**found, peers(1..=6));
    assert_eq!(h.finishes, [id]);
}

/// One shutdown ends all of them, with one `Finish`.
#[test]
fn a_shutdown_ends_all_requests_of_a_query_and_finishes_it_once() {
    let mut h = a_hundred();
    let id = h.start();
    h.shut_down(false);
    assert!((0..100).all(|request| h.ending(request) == "Shutdown"));
    assert_eq!(h.finishes, [id]);
    h.let_time_pass();
    h.assert_empty();
}

/// The query of a popular key has gone silent: requests keep joining it, so it is never without one.
#[test]
fn a_silent_query_is_not_kept_alive_by_requests_that_join_it() {
    let mut h = Harness::default();
    h.request_within(0, get_record("k", Policy::All), secs(10));
    h.start();
    for request in 1..1000 {
        h.tick(secs(5 * request));
        h.request_within(request, get_record("k", Policy::All), secs(10));
        if !h.starts.is_empty() {
            return;
        }
    }
    panic!("for more than an hour each request joined the same dead query, and timed out");
}

/// A query whose last event is missing keeps its slot no longer because it was shared.
#[test]
fn the_slot_of_a_shared_query_is_taken_back_without_its_last_event() {
    let mut h = Harness::new(TrackerConfig::default().max_running(1));
    for request in 0..10 {
        h.request_within(request, get_record("k", Policy::All), secs(5 + request));
    }
    let id = h.start();
    h.request_within(10, get_record("other", Policy::All), secs(100));
    h.tick(secs(14));
    assert_eq!((h.outcomes(), h.finishes.as_slice()), (10, &[id][..]));
    h.tick(secs(14 + 30));
    assert_eq!((h.forgotten.as_slice(), h.starts.len()), (&[id][..], 1));
}
