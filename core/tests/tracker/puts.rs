//! Puts: a lookup of the closest peers, the store at them, and the local copy last.

use std::sync::Arc;

use kadence_core::{
    InvalidRequestError, LocalCopy, Operation, OperationKind, Outcome, PutAnswer, PutOptions, PutRecordError, Query,
    QueryStartError, Quorum, RequestError, RequestOptions, RequestPhase, Retry,
};
use libp2p::kad::{QueryResult, store};

use crate::support::*;

/// A put that has found `close` and is sending, with the id of its second query.
fn sending(quorum: Quorum, close: impl IntoIterator<Item = u8>) -> (Harness, u32) {
    let mut h = Harness::default();
    h.request(1, put("k", quorum));
    let lookup = h.start();
    h.ev(lookup, closest_found(close), true);
    let store = h.start();
    (h, store)
}

fn answer(h: &Harness) -> &PutAnswer {
    match h.outcome(1) {
        Outcome::PutRecord(Ok(answer)) | Outcome::PutRecordTo(Ok(answer)) => answer,
        other => panic!("{other:?}"),
    }
}

fn error(h: &Harness) -> &PutRecordError {
    match h.outcome(1) {
        Outcome::PutRecord(Err(error)) | Outcome::PutRecordTo(Err(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_put_looks_up_peers_sends_the_record_and_stores_it_as_its_publisher() {
    let mut h = Harness::default();
    h.request(1, put("k", Quorum::Majority));
    assert_eq!(h.starts[0].query, Query::GetClosestPeers { target: key("k") });
    let lookup = h.start();
    h.ev(lookup, closest_found([1, 2, 3]), true);

    let mut published = record("k", b"value");
    published.publisher = Some(local());
    let to: Arc<[_]> = peers([1, 2, 3]).into();
    assert_eq!(h.starts[0].query, Query::PutRecordTo { record: Arc::new(published.clone()), peers: to });
    let store = h.start();
    assert!(h.to_store.is_empty(), "not before the quorum");
    h.ev(store, put_quorum_failed(peers([3, 1])), true);

    assert_eq!(h.tracker.live_queries(), 0, "the local store needs no slot");
    assert_eq!(h.to_store.len(), 1);
    assert_eq!(*h.to_store[0].1, published);
    assert!(!h.ended(1));
    h.stored(1, Ok(()));
    assert_eq!(answer(&h).acknowledged, peers([3, 1]));
    assert_eq!(answer(&h).progress, some_progress().merge(some_progress()));
    h.assert_empty();
}

/// kad counts a quorum against its replication factor; a put counts it against the peers found.
#[test]
fn the_quorum_counts_against_the_peers_that_were_found() {
    // quorum, peers found, acknowledgements needed
    for (quorum, found, needed) in [
        (Quorum::One, 5, 1),
        (Quorum::Majority, 1, 1),
        (Quorum::Majority, 4, 3),
        (Quorum::Majority, 5, 3),
        (Quorum::All, 5, 5),
        (n(2), 5, 2),
        (n(5), 5, 5),
    ] {
        for acknowledged in 0..=found {
            let (mut h, store) = sending(quorum, 0..found);
            h.ev(store, put_quorum_failed(peers(0..acknowledged)), true);
            let case = format!("{quorum:?}: {acknowledged} of {found}");
            if acknowledged >= needed {
                h.stored(1, Ok(()));
                assert_eq!(answer(&h).acknowledged, peers(0..acknowledged), "{case}");
            } else {
                if quorum != Quorum::All {
                    h.nobody_further();
                }
                assert!(h.to_store.is_empty(), "{case}: a put that failed leaves no local copy");
                let PutRecordError::QuorumFailed { acknowledged: names, needed: of, asked } = error(&h) else {
                    panic!("{case}: {:?}", error(&h))
                };
                assert_eq!(
                    (names.as_slice(), of.get(), *asked),
                    (&peers(0..acknowledged)[..], needed as usize, found as usize)
                );
            }
            h.assert_empty();
        }
    }
}

#[test]
fn an_ok_of_kad_means_that_all_peers_acknowledged() {
    let (mut h, store) = sending(Quorum::All, [1, 2]);
    h.ev(store, put_ok(), true);
    h.stored(1, Ok(()));
    assert_eq!(answer(&h).acknowledged, peers([1, 2]));
}

/// kad's timeout of the store names the peers that acknowledged in time.
#[test]
fn a_store_that_kad_timed_out_counts_its_acknowledgements() {
    let (mut h, store) = sending(Quorum::Majority, [1, 2, 3]);
    h.ev(store, put_timeout(peers([1, 3])), true);
    h.stored(1, Ok(()));
    assert_eq!(answer(&h).acknowledged, peers([1, 3]));
}

#[test]
fn an_acknowledgement_counts_once_and_only_from_a_peer_that_was_asked() {
    let (mut h, store) = sending(n(2), [1, 2, 3]);
    h.ev(store, put_quorum_failed(peers([1, 1, 9, 1])), true);
    h.nobody_further();
    let PutRecordError::QuorumFailed { acknowledged, .. } = error(&h) else { panic!("{:?}", error(&h)) };
    assert_eq!(acknowledged, &peers([1]));
}

#[test]
fn with_fewer_peers_than_the_quorum_nothing_is_sent() {
    for (found, quorum) in [(3, 4), (1, 2), (19, 20)] {
        let mut h = Harness::default();
        h.request(1, put("k", n(quorum)));
        let lookup = h.start();
        h.ev(lookup, closest_found(0..found), true);
        h.nobody_further();
        let PutRecordError::InsufficientPeers { found: names, needed } = error(&h) else { panic!("{:?}", error(&h)) };
        assert_eq!((*names, needed.get()), (found as usize, quorum));
        assert!(h.starts.is_empty());
        h.assert_empty();
    }
}

/// The local peer and duplicates do not count.
#[test]
fn the_peers_of_a_put_are_distinct_and_not_the_local_one() {
    let mut h = Harness::default();
    h.request(1, put("k", Quorum::All));
    let lookup = h.start();
    h.ev(lookup, closest_found([1, 255, 2, 1]), true);
    let Query::PutRecordTo { peers: to, .. } = &h.starts[0].query else { panic!("{:?}", h.starts) };
    assert_eq!(to[..], peers([1, 2]));

    let mut h = Harness::default();
    h.request(1, put("k", Quorum::One));
    let lookup = h.start();
    h.ev(lookup, closest_found([255]), true);
    assert_eq!(h.ending(1), "NoResponse");
}

/// A lookup that kad timed out has found fewer peers, nothing else.
#[test]
fn a_timeout_of_the_lookup_continues_with_the_peers_found() {
    let mut h = Harness::default();
    h.request(1, put("k", Quorum::All));
    let lookup = h.start();
    h.ev(lookup, closest_timeout([4, 5]), true);
    let store = h.start();
    h.ev(store, put_ok(), true);
    h.stored(1, Ok(()));
    assert_eq!(answer(&h).acknowledged, peers([4, 5]));
}

#[test]
fn a_lookup_that_finds_no_peer_says_whether_any_was_asked() {
    let lookups: [fn() -> QueryResult; 2] = [|| closest_found([]), || closest_timeout([])];
    for (progress, ending) in [(all_failed(), "NoResponse"), (nobody(), "NoKnownPeers")] {
        for lookup in lookups {
            let mut h = Harness::default();
            h.request(1, put("k", Quorum::One));
            let id = h.start();
            h.ev_with(id, lookup(), progress, true);
            assert_eq!(h.ending(1), ending);
            h.assert_empty();
        }
    }
}

#[test]
fn a_rejection_by_the_local_store_names_the_peers_that_hold_the_record() {
    let (mut h, id) = sending(Quorum::One, [1, 2]);
    h.ev(id, put_ok(), true);
    h.stored(1, Err(store::Error::MaxRecords));
    let PutRecordError::Store { error: store::Error::MaxRecords, acknowledged } = error(&h) else {
        panic!("{:?}", error(&h))
    };
    assert_eq!(acknowledged, &peers([1, 2]));
    h.assert_empty();
}

#[test]
fn a_second_step_that_does_not_start_ends_the_put() {
    let mut h = Harness::default();
    h.request(1, put("k", Quorum::One));
    let lookup = h.start();
    h.ev(lookup, closest_found([1]), true);
    h.refuse(QueryStartError::Store(store::Error::ValueTooLarge));
    assert_eq!(h.ending(1), "Refused");
    h.assert_empty();
}

/// A request that has begun has waited longer than those that have not.
#[test]
fn the_second_step_goes_ahead_of_queued_requests() {
    let mut h = Harness::one_slot();
    h.request(1, put("k", Quorum::One));
    h.get(2, "a");
    h.get(3, "b");
    let lookup = h.start();
    h.ev(lookup, closest_found([1]), true);
    assert_eq!(h.starts.iter().map(|start| start.request.0).collect::<Vec<_>>(), [1]);
    let store = h.start();
    h.ev(store, put_ok(), true);
    assert_eq!(h.starts[0].request.0, 2, "while the local store is asked, the slot is free");
}

#[test]
fn a_deadline_in_each_step_names_the_peers_sent_to() {
    let timeout = |h: &Harness| match error(h) {
        PutRecordError::Timeout { sent_to, progress } => (sent_to.clone(), *progress),
        other => panic!("{other:?}"),
    };
    let two_steps = || {
        let mut h = Harness::default();
        h.request_within(1, put("k", Quorum::All), secs(5));
        let lookup = h.start();
        (h, lookup)
    };
    // During the lookup.
    let (mut h, _) = two_steps();
    h.tick(secs(5));
    assert_eq!(timeout(&h), (Vec::new(), nobody()));

    // The lookup ends after the deadline: nothing is sent.
    let (mut h, lookup) = two_steps();
    h.now = secs(5);
    h.ev(lookup, closest_found([1]), true);
    assert_eq!(timeout(&h).0, Vec::new());
    assert!(h.starts.is_empty());
    h.assert_empty();

    // While the record is being sent.
    let (mut h, lookup) = two_steps();
    h.ev(lookup, closest_found([1, 2]), true);
    let store = h.start();
    h.tick(secs(5));
    assert_eq!(timeout(&h), (peers([1, 2]), some_progress()));
    assert_eq!(h.finishes, [store]);

    // While the local store stores it.
    let (mut h, lookup) = two_steps();
    h.ev(lookup, closest_found([1, 2]), true);
    let store = h.start();
    h.ev(store, put_ok(), true);
    let snapshot = h.tracker.snapshot(h.instant(secs(1)));
    assert_eq!(snapshot.requests[0].phase, RequestPhase::Storing);
    h.tick(secs(5));
    assert_eq!(timeout(&h), (peers([1, 2]), some_progress().merge(some_progress())));
    h.assert_empty();
}

#[test]
fn an_unexpected_answer_of_the_local_store_does_nothing() {
    let (mut h, store) = sending(Quorum::One, [1]);
    h.stored(1, Ok(()));
    h.stored(77, Ok(()));
    assert_eq!((h.outcomes(), h.tracker.stats().unknown_inputs), (0, 2));
    h.ev(store, put_ok(), true);
    h.stored(1, Ok(()));
    h.stored(1, Err(store::Error::MaxRecords));
    assert_eq!((h.ending(1).as_str(), h.tracker.stats().unknown_inputs), ("Ok", 3));
}

/// kad never ends a store at the local peer, and a duplicate makes `Quorum::All` impossible.
#[test]
fn a_put_to_named_peers_goes_to_each_once_and_not_to_the_local_one() {
    let mut h = Harness::default();
    let to = [peer(2), local(), peer(1), peer(2), peer(1)];
    h.request(1, put_to("k", to.to_vec(), Quorum::All));
    let sent: Arc<[_]> = peers([2, 1]).into();
    let unchanged = Arc::new(record("k", b"value"));
    assert_eq!(h.starts[0].query, Query::PutRecordTo { record: unchanged, peers: sent }, "with no publisher of ours");
    let id = h.start();
    h.ev(id, put_ok(), true);
    assert_eq!((answer(&h).acknowledged.clone(), answer(&h).unacknowledged.clone()), (peers([2, 1]), peers([])));
    assert_eq!(h.outcome(1).kind(), OperationKind::PutRecordTo);
    assert!(h.to_store.is_empty(), "it is not ours to keep");
    h.assert_empty();
}

#[test]
fn a_quorum_above_the_named_peers_cannot_be_reached_and_nothing_is_sent() {
    let mut h = Harness::default();
    let refused = h.ask(1, put_to("k", peers([1, 2]), n(3)), RequestOptions::default()).unwrap_err();
    let RequestError::Invalid(InvalidRequestError::QuorumExceedsPeers { needed: 3, peers: 2 }) = refused.0 else {
        panic!("{refused:?}")
    };
    assert!(h.starts.is_empty());
    h.assert_empty();
}

fn putting(quorum: Quorum, options: PutOptions) -> Harness {
    let mut h = Harness::default();
    h.knows = None;
    h.request(1, Operation::PutRecord { record: Arc::new(record("k", b"value")), quorum, options });
    h
}

fn sent_to(h: &Harness) -> Vec<libp2p::PeerId> {
    match &h.starts[0].query {
        Query::PutRecordTo { record: _, peers } => peers.to_vec(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn after_too_few_acknowledgements_twice_the_missing_number_and_four_more_are_asked() {
    let mut h = putting(n(3), PutOptions::default());
    let lookup = h.start();
    h.ev(lookup, closest_found([1, 2, 3]), true);
    let store = h.start();
    h.ev(store, put_quorum_failed(peers([2])), true);
    assert_eq!(h.to_choose.len(), 1);
    assert_eq!(h.tracker.live_queries(), 0, "a question to the routing table takes no slot");
    // The local peer and those already asked are left out.
    h.choose(1, [peers([1, 2, 3]), vec![local()], peers(4..20)].concat());
    assert_eq!(sent_to(&h), peers(4..12));
    let store = h.start();
    h.ev(store, put_quorum_failed(peers([7, 4])), true);
    h.stored(1, Ok(()));
    assert_eq!(answer(&h).acknowledged, peers([2, 7, 4]));
    assert_eq!(answer(&h).unacknowledged, peers([1, 3, 5, 6, 8, 9, 10, 11]));
    h.assert_empty();
}

#[test]
fn further_peers_are_looked_up_beyond_the_farthest_if_none_is_known() {
    let mut h = putting(n(2), PutOptions::default());
    let lookup = h.start();
    h.ev(lookup, closest_found([1, 2]), true);
    let store = h.start();
    h.ev(store, put_quorum_failed(peers([1])), true);
    h.choose(1, peers([2, 1]));
    assert_eq!(h.starts[0].query, Query::GetClosestPeers { target: peer(2).to_bytes().into() });
    let further = h.start();
    h.ev(further, closest_found([2, 1, 3]), true);
    assert_eq!(sent_to(&h), peers([3]));
    let store = h.start();
    h.ev(store, put_ok(), true);
    h.stored(1, Ok(()));
    assert_eq!(answer(&h).acknowledged, peers([1, 3]));
}

#[test]
fn nothing_is_sent_while_fewer_peers_than_the_quorum_are_known() {
    let mut h = putting(n(4), PutOptions::default());
    let lookup = h.start();
    h.ev(lookup, closest_found([1, 2]), true);
    h.choose(1, peers([3]));
    let further = h.start();
    h.ev(further, closest_found([1, 4]), true);
    assert_eq!(sent_to(&h).len(), 4);

    let mut h = putting(n(4), PutOptions::default());
    let lookup = h.start();
    h.ev(lookup, closest_found([1, 2]), true);
    h.choose(1, peers([3]));
    let further = h.start();
    h.ev(further, closest_found([1]), true);
    let PutRecordError::InsufficientPeers { found: 3, .. } = error(&h) else { panic!("{:?}", error(&h)) };
    h.assert_empty();
}

#[test]
fn insufficient_peers_are_counted_over_all_lookups() {
    let mut h = putting(n(9), PutOptions::default());
    let lookup = h.start();
    h.ev(lookup, closest_found([1, 2]), true);
    // Each counts once, and the local peer does not.
    h.choose(1, [peers([2, 3]), vec![local()]].concat());
    let further = h.start();
    h.ev(further, closest_found([3, 1, 4, 5, 4, 255]), true);
    let PutRecordError::InsufficientPeers { found: 5, needed } = error(&h) else { panic!("{:?}", error(&h)) };
    assert_eq!(needed.get(), 9);
    h.assert_empty();
}

#[test]
fn after_three_rounds_no_further_peer_is_asked() {
    let mut h = putting(n(1), PutOptions::default());
    let lookup = h.start();
    h.ev(lookup, closest_found([1]), true);
    for round in 1..=3 {
        let store = h.start();
        h.ev(store, put_quorum_failed(peers([])), true);
        if round < 3 {
            h.choose(1, peers([2 * round, 2 * round + 1]));
        }
    }
    let PutRecordError::QuorumFailed { asked: 5, .. } = error(&h) else { panic!("{:?}", error(&h)) };
}

#[test]
fn a_quorum_of_all_means_the_peers_found() {
    let mut h = putting(Quorum::All, PutOptions::default());
    let lookup = h.start();
    h.ev(lookup, closest_found([1, 2]), true);
    let store = h.start();
    h.ev(store, put_quorum_failed(peers([1])), true);
    assert!(h.ended(1), "others cannot make up for one of them");
}

#[test]
fn after_sixty_peers_no_further_peer_is_asked() {
    let mut h = putting(n(50), PutOptions::default());
    let lookup = h.start();
    h.ev(lookup, closest_found(1..=20), true);
    for _ in 0..2 {
        h.choose(1, peers(21..=100));
        let store = h.start();
        h.ev(store, put_quorum_failed(Vec::new()), true);
    }
    let PutRecordError::QuorumFailed { asked: 70, .. } = error(&h) else { panic!("{:?}", error(&h)) };
}

#[test]
fn a_deadline_names_the_peers_of_all_rounds() {
    let mut h = putting(n(3), PutOptions::default());
    let lookup = h.start();
    h.ev(lookup, closest_found([1, 2, 3]), true);
    let store = h.start();
    h.ev(store, put_quorum_failed(peers([2])), true);
    h.choose(1, peers([4]));
    h.start();
    h.tick(secs(30));
    let PutRecordError::Timeout { sent_to, progress } = error(&h) else { panic!("{:?}", error(&h)) };
    assert_eq!(*sent_to, peers([1, 2, 3, 4]));
    assert_eq!(*progress, some_progress().merge(some_progress()));
}

#[test]
fn a_quorum_may_be_clamped_to_the_peers_found() {
    let mut h = putting(n(5), PutOptions::default().clamp_quorum(true));
    let lookup = h.start();
    h.ev(lookup, closest_found([1, 2]), true);
    let store = h.start();
    h.ev(store, put_ok(), true);
    h.stored(1, Ok(()));
    assert_eq!(answer(&h).acknowledged, peers([1, 2]));
}

#[test]
fn a_put_with_verification_reads_the_record_back_from_other_peers() {
    for (found_at_others, ok) in [(2, true), (1, false)] {
        let mut h = putting(n(1), PutOptions::default().verify(2));
        // Another request already reads the same key, in a query that started before the store.
        h.request(2, get_record("k", kadence_core::Policy::All));
        let lookup = h.start();
        h.start();
        h.ev(lookup, closest_found([1, 2, 3]), true);
        let store = h.start();
        h.ev(store, put_ok(), true);
        assert_eq!(h.starts[0].query, Query::GetRecord { key: key("k") });
        let read = h.start();
        h.ev(read, found_at("k", None, b"value"), false);
        h.ev(read, found("k", 9, b"other"), false);
        for peer in 0..found_at_others {
            h.ev(read, found("k", peer, b"value"), false);
        }
        h.ev(read, records_finished(), true);
        if ok {
            h.stored(1, Ok(()));
            assert_eq!(answer(&h).verified, 2);
        } else {
            let PutRecordError::NotVerified { verified: 1, needed: 2, .. } = error(&h) else {
                panic!("{:?}", error(&h))
            };
        }
    }
}

#[test]
fn reading_back_ends_with_the_last_peer_that_is_needed() {
    let mut h = putting(n(1), PutOptions::default().verify(2));
    let lookup = h.start();
    h.ev(lookup, closest_found([1, 2, 3]), true);
    let store = h.start();
    h.ev(store, put_ok(), true);
    let read = h.start();
    // Neither the local copy, nor other bytes, nor the same peer again counts.
    h.ev(read, found_at("k", None, b"value"), false);
    h.ev(read, found("k", 9, b"other"), false);
    h.ev(read, found("k", 1, b"value"), false);
    h.ev(read, found("k", 1, b"value"), false);
    assert!(h.to_store.is_empty() && h.finishes.is_empty());
    h.ev(read, found("k", 3, b"value"), false);
    assert_eq!(h.finishes, [read], "nobody waits for the rest");
    h.stored(1, Ok(()));
    assert_eq!(answer(&h).verified, 2);
    assert_eq!(answer(&h).progress, some_progress().merge(some_progress()).merge(some_progress()));
    h.ev(read, found("k", 2, b"value"), false);
    h.ev(read, records_finished(), true);
    h.assert_empty();
}

/// The caller does not wait until the query is finished.
#[test]
fn the_outcome_of_a_put_that_reads_back_precedes_the_finish_of_its_query() {
    let mut h = putting(n(1), PutOptions::default().local_copy(LocalCopy::First).verify(1));
    h.stored(1, Ok(()));
    let lookup = h.start();
    h.ev(lookup, closest_found([1, 2]), true);
    let store = h.start();
    h.ev(store, put_ok(), true);
    let read = h.start();
    let before = h.trace.len();
    h.ev(read, found("k", 1, b"value"), false);
    assert_eq!((h.ending(1).as_str(), h.finishes.as_slice()), ("Ok", &[read][..]));
    let [outcome, finish] = &h.trace[before..] else { panic!("{:?}", &h.trace[before..]) };
    assert!(outcome.contains("Outcome") && finish.contains("Finish("), "{outcome}, {finish}");
}

/// Records returned to one attempt prove nothing for the next one.
#[test]
fn each_attempt_reads_back_for_itself() {
    let mut h = Harness::default();
    h.knows = None;
    let options = PutOptions::default().verify(2);
    let operation = Operation::PutRecord { record: Arc::new(record("k", b"value")), quorum: n(1), options };
    let retry = Some(Retry::default().attempts(3));
    h.request_with(1, operation, RequestOptions::default().retry(retry));
    for attempt in 1..=3 {
        let lookup = h.start();
        h.ev(lookup, closest_found([1, 2]), true);
        let store = h.start();
        h.ev(store, put_ok(), true);
        let read = h.start();
        h.ev(read, found("k", 1, b"value"), false);
        assert!(h.to_store.is_empty());
        h.ev(read, records_finished(), true);
        if attempt < 3 {
            h.tick(secs(attempt));
        }
    }
    let PutRecordError::NotVerified { verified: 1, needed: 2, .. } = error(&h) else { panic!("{:?}", error(&h)) };
    h.assert_empty();
}

#[test]
fn a_local_copy_stored_first_stays_even_if_the_put_fails() {
    let options = PutOptions::default().local_copy(LocalCopy::First);
    let mut h = putting(n(1), options);
    assert!(h.starts.is_empty());
    assert_eq!(h.to_store[0].1.publisher, Some(local()));
    h.stored(1, Ok(()));
    let lookup = h.start();
    h.ev(lookup, closest_found([1]), true);
    let store = h.start();
    h.ev(store, put_ok(), true);
    assert!(h.to_store.is_empty(), "it is there");
    assert_eq!(answer(&h).acknowledged, peers([1]));
    h.assert_empty();

    let mut h = putting(n(1), options);
    h.stored(1, Err(store::Error::MaxRecords));
    let PutRecordError::Store { acknowledged, .. } = error(&h) else { panic!("{:?}", error(&h)) };
    assert!(acknowledged.is_empty());
    h.assert_empty();
}
