//! `Policy::Best`, the validation of requests, and read repair.

use std::sync::Arc;

use kadence_core::{
    Certainty, GetRecordError, InvalidRequestError, Operation, Outcome, Policy, Progress, PutOptions, Query, Quorum,
    RecordAnswer, RequestError, RequestId, RequestOptions,
};
use libp2p::kad::KBucketKey;
use proptest::{collection::vec, prelude::*};

use crate::support::*;

const KEY: &str = "/v/k";

fn reading(agree: Option<Quorum>) -> (Harness, u32) {
    let mut h = Harness::new(validating());
    h.stream(1, get_record(KEY, Policy::Best { agree }));
    let id = h.start();
    (h, id)
}

fn answer(h: &Harness) -> &RecordAnswer {
    match h.outcome(1) {
        Outcome::GetRecord(Ok(answer)) => answer,
        other => panic!("{other:?}"),
    }
}

/// Value of the answer, and the numbers of agreeing and dissenting sources.
fn summary(h: &Harness) -> (&[u8], usize, usize) {
    (answer(h).value(), answer(h).agreeing, answer(h).dissenting)
}

#[test]
fn enough_sources_of_the_best_record_finish_the_query_at_once() {
    for needed in 1..=4 {
        let (mut h, id) = reading(Some(Quorum::N(u32::from(needed))));
        for from in 1..needed {
            h.ev(id, found(KEY, from, &[5]), false);
            assert!(!h.ended(1), "{from} of {needed}");
        }
        h.ev(id, found(KEY, needed, &[5]), false);
        assert_eq!(summary(&h), ([5].as_slice(), usize::from(needed), 0));
        assert_eq!(answer(&h).record.peer, Some(peer(1)), "the first of them");
        assert_eq!(h.finishes, [id]);
        h.ev(id, records_finished(), true);
        h.assert_empty();
    }
}

/// A peer that sends an invalid record may have hidden a valid one.
#[test]
fn not_found_is_inconclusive_if_records_were_rejected() {
    let told = |rejected: u8| {
        let mut h = Harness::new(validating());
        h.request(1, get_record(KEY, Policy::Best { agree: None }));
        let id = h.start();
        for from in 1..=rejected {
            h.ev(id, found(KEY, from, &[0]), false);
        }
        let progress = Progress { requests: 10, successes: 10, failures: 0 };
        h.ev_with(id, not_found(peers([9])), progress, true);
        let Outcome::GetRecord(Err(GetRecordError::NotFound { certainty, rejected, .. })) = h.outcome(1) else {
            panic!("{:?}", h.outcome(1));
        };
        (*certainty, *rejected)
    };
    assert_eq!(told(0), (Certainty::Conclusive, 0));
    assert_eq!(told(3), (Certainty::Inconclusive, 3));
}

/// Sources count as for every other policy.
#[test]
fn a_source_counts_once_for_the_best_record() {
    let (mut h, id) = reading(Some(Quorum::N(3)));
    for from in [None, None, Some(peer(1)), Some(peer(1))] {
        h.ev(id, found_at(KEY, from, &[5]), false);
        assert!(!h.ended(1));
    }
    h.ev(id, found(KEY, 2, &[5]), false);
    assert_eq!(summary(&h), ([5].as_slice(), 3, 0));
}

#[test]
fn a_better_record_resets_the_count_and_a_worse_one_does_not() {
    let (mut h, id) = reading(Some(Quorum::N(3)));
    for (from, value) in [(1, 5), (2, 5), (3, 6), (4, 5), (5, 5), (6, 6), (7, 1)] {
        h.ev(id, found(KEY, from, &[value]), false);
        assert!(!h.ended(1), "after #{from}");
    }
    h.ev(id, found(KEY, 8, &[6]), false);
    assert_eq!(summary(&h), ([6].as_slice(), 3, 5));
    assert_eq!((answer(&h).record.peer, h.items(1).len()), (Some(peer(3)), 8));
    assert_eq!(h.finishes, [id]);
}

#[test]
fn without_a_quorum_the_best_record_waits_for_the_end() {
    let (mut h, id) = reading(None);
    for from in 1..=40 {
        h.ev(id, found(KEY, from, &[if from == 40 { 6 } else { 5 }]), false);
        assert!(!h.ended(1));
    }
    h.ev(id, records_finished(), true);
    assert_eq!(summary(&h), ([6].as_slice(), 1, 39));
    assert!(h.finishes.is_empty());
    h.assert_empty();
}

#[test]
fn at_the_end_the_best_record_is_the_answer_with_any_number_of_sources() {
    let (mut h, id) = reading(Some(Quorum::N(3)));
    for (from, value) in [(1, 5), (2, 6), (3, 5), (4, 6), (5, 5)] {
        h.ev(id, found(KEY, from, &[value]), false);
    }
    h.ev(id, records_finished(), true);
    assert_eq!(summary(&h), ([6].as_slice(), 2, 3));
    let others: Vec<_> = answer(&h).others.iter().map(|found| found.peer).collect();
    assert_eq!(others, [1, 3, 4, 5].map(|from| Some(peer(from))));

    let (mut h, id) = reading(Some(Quorum::N(3)));
    h.ev(id, not_found(peers([7])), true);
    assert_eq!(h.ending(1), "NotFound");
}

/// Otherwise two readers could each take the other's record for the better one.
#[test]
fn records_that_compare_as_equal_are_ordered_by_their_bytes() {
    for order in [[1, 2, 3, 4], [4, 3, 2, 1], [2, 4, 1, 3]] {
        let (mut h, id) = reading(Some(Quorum::N(2)));
        for from in order {
            assert!(!h.ended(1), "the same version is not the same record");
            h.ev(id, found(KEY, from, &[5, from]), false);
        }
        h.ev(id, records_finished(), true);
        assert_eq!(summary(&h), ([5, 4].as_slice(), 1, 3));
    }
    // A prefix is the smaller one.
    let (mut h, id) = reading(None);
    h.ev(id, found(KEY, 1, &[5, 0]), false);
    h.ev(id, found(KEY, 2, &[5]), false);
    h.ev(id, records_finished(), true);
    assert_eq!(answer(&h).value(), [5, 0]);
}

/// The best record found may not be the best that exists: only the end of the query gives an answer.
#[test]
fn a_get_of_the_best_record_at_its_deadline_is_a_timeout() {
    for by_kad in [true, false] {
        let (mut h, id) = reading(Some(Quorum::N(3)));
        h.ev(id, found(KEY, 1, &[5]), false);
        h.ev(id, found(KEY, 2, &[6]), false);
        if by_kad {
            h.ev(id, get_timeout(), true);
        } else {
            h.tick(secs(30));
        }
        let Outcome::GetRecord(Err(GetRecordError::Timeout { found, progress: _ })) = h.outcome(1) else {
            panic!("{:?}", h.outcome(1))
        };
        assert_eq!(found.len(), 2);
    }
}

/// A request for the best record that joins a running query counts the records found before.
#[test]
fn a_get_of_the_best_record_that_joins_counts_earlier_records() {
    let mut h = Harness::new(validating());
    h.get(2, KEY);
    let id = h.start();
    for (from, value) in [(1, 5), (2, 6), (3, 6)] {
        h.ev(id, found(KEY, from, &[value]), false);
    }
    h.request(1, get_record(KEY, Policy::Best { agree: Some(Quorum::N(3)) }));
    h.request(3, get_record(KEY, Policy::Best { agree: Some(Quorum::N(2)) }));
    h.request(4, get_record(KEY, Policy::Quorum(Quorum::N(2))));
    h.request(5, get_record(KEY, Policy::Quorum(Quorum::N(3))));
    assert_eq!([1, 2, 3, 4, 5].map(|request| h.ended(request)), [false, false, true, true, false]);
    h.ev(id, found(KEY, 4, &[6]), false);
    assert_eq!(summary(&h), ([6].as_slice(), 3, 1));
    assert!(h.ended(5));
    assert!(h.finishes.is_empty(), "#2 wants them all");
}

proptest! {
    #![proptest_config(property())]

    #[test]
    fn the_best_record_does_not_depend_on_the_order_of_arrival(
        (values, orders) in vec((1..4_u8, 0..3_u8), 1..10).prop_flat_map(|values| {
            let order: Vec<_> = (0..values.len()).collect();
            (Just(values), vec(Just(order).prop_shuffle(), 4))
        }),
        needed in proptest::option::of(20..30_usize),
    ) {
        let best = values.iter().copied().max().expect("there is one");
        let agreeing = values.iter().filter(|value| **value == best).count();
        let best = [best.0, best.1];
        for order in orders {
            let (mut h, id) = reading(needed.map(Quorum::from));
            for at in order {
                let (version, rest) = values[at];
                h.ev(id, found(KEY, at as u8, &[version, rest]), false);
            }
            h.ev(id, records_finished(), true);
            prop_assert_eq!(summary(&h), (best.as_slice(), agreeing, values.len() - agreeing));
            let mut others: Vec<_> = answer(&h).iter().map(|found| found.peer).collect();
            others.sort_unstable();
            others.dedup();
            prop_assert_eq!(others.len(), values.len());
        }
    }
}

#[track_caller]
fn assert_refused(operation: Operation, why: &InvalidRequestError) {
    let mut h = Harness::new(validating());
    let debug = format!("{operation:?}");
    let error = h.ask(1, operation, RequestOptions::default()).unwrap_err();
    let RequestError::Invalid(invalid) = &error.0 else { panic!("{error:?}") };
    assert_eq!(invalid, why, "{debug}");
    assert!(h.trace.is_empty(), "{debug}");
    h.assert_empty();
}

#[test]
fn the_best_record_needs_a_validator() {
    for key in ["k", "/w/k", "/v", "v/k", "/V/k", ""] {
        for agree in [Some(Quorum::N(1)), None] {
            assert_refused(get_record(key, Policy::Best { agree }), &InvalidRequestError::NoValidator);
        }
    }
    assert_refused(get_record(KEY, Policy::Best { agree: Some(Quorum::N(0)) }), &InvalidRequestError::ZeroLimit);
}

#[test]
fn a_quorum_and_the_best_record_are_invalid_for_providers() {
    for policy in
        [Policy::Quorum(Quorum::N(2)), Policy::Best { agree: Some(Quorum::N(1)) }, Policy::Best { agree: None }]
    {
        assert_refused(get_providers(KEY, policy), &InvalidRequestError::PolicyForRecords);
    }
}

/// No other node's validator would accept it either.
#[test]
fn a_put_that_the_validator_rejects_is_invalid() {
    let puts = |key, value| {
        let record = Arc::new(record(key, value));
        [
            Operation::PutRecord { record: Arc::clone(&record), quorum: Quorum::One, options: PutOptions::default() },
            Operation::PutRecordTo { record, peers: peers([1]), quorum: Quorum::One },
        ]
    };
    for value in [&[][..], &[0, 1]] {
        for put in puts(KEY, value) {
            assert_refused(put, &InvalidRequestError::Rejected { reason: "it has no version".to_owned() });
        }
        let mut h = Harness::new(validating());
        for (id, put) in (1..).zip(puts("/w/k", value)) {
            h.request(id, put);
        }
    }
    let mut h = Harness::new(validating());
    for (id, put) in (1..).zip(puts(KEY, &[1])) {
        h.request(id, put);
    }
}

/// A tracker with read repair, and a get of the best record that has found a newer record and older ones.
fn found_old_and_new(policy: Policy) -> (Harness, u32) {
    let mut h = Harness::watching(validating().stall(None));
    h.request(1, get_record("/v/k", policy));
    let id = h.start();
    h.ev(id, found("/v/k", 1, b"1"), false);
    h.ev(id, found("/v/k", 2, b"2"), false);
    h.ev(id, found("/v/k", 3, b"1"), false);
    h.ev(id, found_at("/v/k", None, b"1"), false);
    (h, id)
}

#[test]
fn peers_with_a_worse_record_or_none_are_sent_the_best_one() {
    let (mut h, id) = found_old_and_new(Policy::Best { agree: None });
    // It may have sent a record before kad listed it as having none.
    h.ev(id, records_finished_without([5, 3, 6]), true);
    assert_eq!((answer(&h).value(), answer(&h).repairing), (&b"2"[..], 4));
    let start = h.starts[0].clone();
    assert!(start.request.is_reserved());
    let Query::PutRecordTo { record, peers: to } = start.query else { panic!("{start:?}") };
    let mut to = to.to_vec();
    to.sort();
    assert_eq!((record.value.as_slice(), to), (&b"2"[..], peers([1, 3, 5, 6])));
    assert_eq!((h.tracker.live_requests(), h.tracker.stats().read_repairs), (0, 1));
    let read_repair = h.start();
    h.ev(read_repair, put_quorum_failed(peers([5])), true);
    h.assert_empty();
}

#[test]
fn readers_that_share_a_query_share_its_read_repair() {
    let mut h = Harness::watching(validating().stall(None));
    h.request(1, get_record("/v/k", Policy::Best { agree: None }));
    h.request(2, get_record("/v/k", Policy::Best { agree: None }));
    let id = h.start();
    h.ev(id, found("/v/k", 1, b"1"), false);
    h.ev(id, found("/v/k", 2, b"2"), false);
    h.ev(id, records_finished(), true);
    for request in [1, 2] {
        let Outcome::GetRecord(Ok(answer)) = h.outcome(request) else { panic!("{:?}", h.outcome(request)) };
        assert_eq!((answer.value(), answer.repairing), (&b"2"[..], 1));
    }
    assert_eq!((h.starts.len(), h.tracker.stats().read_repairs), (1, 1));
}

#[test]
fn only_the_twenty_closest_peers_are_repaired() {
    let (mut h, id) = found_old_and_new(Policy::Best { agree: None });
    h.ev(id, records_finished_without(10..60), true);
    let start = h.starts[0].clone();
    let Query::PutRecordTo { record: _, peers: to } = start.query else { panic!("{start:?}") };
    let mut closest = peers((1..=3).chain(10..60));
    closest.sort_by_key(|peer| KBucketKey::from(*peer).distance(&KBucketKey::new(key("/v/k"))));
    closest.truncate(20);
    closest.retain(|closest| *closest != peer(2));
    assert_eq!(to.to_vec(), closest);
}

#[test]
fn a_get_that_ends_early_repairs_the_peers_that_have_answered() {
    let (mut h, _) = found_old_and_new(Policy::Best { agree: Some(Quorum::N(2)) });
    h.ev(h.id_of(1), found("/v/k", 4, b"2"), false);
    assert_eq!(answer(&h).repairing, 2);
    assert_eq!(h.starts.len(), 1);
}

#[test]
fn read_repairs_are_bounded_and_end_with_a_shutdown() {
    let config = validating().stall(None).max_read_repairs(1);
    let mut h = Harness::watching(config);
    for request in 1..=2 {
        h.request(request, get_record("/v/k", Policy::Best { agree: None }));
        let id = h.start();
        h.ev(id, found("/v/k", 1, b"1"), false);
        h.ev(id, found("/v/k", 2, b"2"), false);
        h.ev(id, records_finished(), true);
        let Outcome::GetRecord(Ok(answer)) = h.outcome(request) else { panic!("{:?}", h.outcome(request)) };
        assert_eq!(answer.repairing, usize::from(request == 1));
        if request == 1 {
            let read_repair = h.starts.pop_front().unwrap();
            h.started(read_repair.step, Ok(1000), false);
        }
    }
    h.shut_down(true);
    assert_eq!(h.finishes, [1000], "nobody waits for it");
    assert!(h.tracker.is_shut_down());
}

#[test]
fn a_caller_cannot_choose_an_id_of_the_trackers_own() {
    let mut h = Harness::default();
    let refused = h.ask(RequestId::FIRST_RESERVED.0, Operation::Bootstrap, RequestOptions::default()).unwrap_err();
    assert!(matches!(refused.0, RequestError::Invalid(InvalidRequestError::ReservedId)), "{refused:?}");
}
