//! `Policy::Quorum`: enough distinct sources that hold the same bytes.

use kadence_core::{
    Candidate, GetRecordError, InvalidRequestError, Outcome, Policy, Quorum, RecordAnswer, RequestError, RequestOptions,
};

use crate::support::*;

fn reading(needed: usize) -> (Harness, u32) {
    let mut h = Harness::default();
    h.stream(1, get_record("k", Policy::Quorum(needed.into())));
    let id = h.start();
    (h, id)
}

fn answer(h: &Harness) -> &RecordAnswer {
    match h.outcome(1) {
        Outcome::GetRecord(Ok(answer)) => answer,
        other => panic!("{other:?}"),
    }
}

/// Candidates of a conflict: value, votes and first source of each.
fn conflict(h: &Harness, of: usize) -> Vec<(Vec<u8>, usize, Option<libp2p::PeerId>)> {
    match h.outcome(1) {
        Outcome::GetRecord(Err(GetRecordError::Conflict { candidates, needed })) => {
            assert_eq!(*needed, of);
            candidates
                .iter()
                .map(|Candidate { record, votes, .. }| (record.record.value.clone(), *votes, record.peer))
                .collect()
        }
        other => panic!("{other:?}"),
    }
}

/// Value, votes and quorum of a get whose only value has too few sources.
fn too_few(h: &Harness) -> (Vec<u8>, usize, usize) {
    match h.outcome(1) {
        Outcome::GetRecord(Err(GetRecordError::QuorumNotReached { candidate, needed })) => {
            (candidate.record.record.value.clone(), candidate.votes, *needed)
        }
        other => panic!("{other:?}"),
    }
}

/// The local copy is one source, which is not a quorum of two.
#[test]
fn a_local_copy_and_a_quorum_of_two_ask_the_network() {
    let (mut h, id) = reading(2);
    h.ev_with(id, found_at("k", None, b"value"), nobody(), false);
    assert!(!h.ended(1));
    assert!(h.finishes.is_empty());
    h.ev(id, found("k", 1, b"value"), false);
    assert_eq!((answer(&h).agreeing, answer(&h).dissenting), (2, 0));
    assert_eq!(h.finishes, [id]);

    // The local copy twice is still one source.
    let (mut h, id) = reading(2);
    h.ev_with(id, found_at("k", None, b"value"), nobody(), false);
    h.ev_with(id, found_at("k", None, b"value"), nobody(), false);
    h.ev_with(id, records_finished(), nobody(), true);
    assert_eq!(too_few(&h), (b"value".to_vec(), 1, 2));
    h.assert_empty();
}

#[test]
fn different_values_without_a_quorum_at_the_end_are_a_conflict() {
    let (mut h, id) = reading(2);
    h.ev(id, found("k", 1, b"one"), false);
    h.ev(id, found("k", 2, b"two"), false);
    assert!(!h.ended(1), "others may agree with one of them");
    h.ev(id, records_finished(), true);
    let both = [(b"one".to_vec(), 1, Some(peer(1))), (b"two".to_vec(), 1, Some(peer(2)))];
    assert_eq!(conflict(&h, 2), both, "as they came");
    h.assert_empty();
}

#[test]
fn the_candidates_of_a_conflict_are_sorted_by_their_votes() {
    let (mut h, id) = reading(4);
    let votes: [&[u8]; 8] = [b"a", b"b", b"c", b"c", b"b", b"d", b"c", b"d"];
    for (from, value) in (1..).zip(votes) {
        h.ev(id, found("k", from, value), false);
    }
    h.ev(id, records_finished(), true);
    let candidates = conflict(&h, 4).into_iter().map(|(value, votes, from)| (value[0], votes, from));
    let expected = [(b'c', 3, 3), (b'b', 2, 2), (b'd', 2, 6), (b'a', 1, 1)];
    assert!(candidates.eq(expected.map(|(value, votes, from)| (value, votes, Some(peer(from))))));
}

/// At any position of the dissenter.
#[test]
fn a_quorum_with_one_dissenter_is_an_answer() {
    for liar in 1..=3 {
        let (mut h, id) = reading(3);
        for from in 1..=4 {
            assert!(!h.ended(1));
            h.ev(id, found("k", from, if from == liar { b"lie" } else { b"truth" }), false);
        }
        assert_eq!((answer(&h).value(), answer(&h).agreeing, answer(&h).dissenting), (b"truth".as_slice(), 3, 1));
        let first = if liar == 1 { 2 } else { 1 };
        assert_eq!(answer(&h).record.peer, Some(peer(first)), "the first of those that make the quorum");
        let others: Vec<_> = answer(&h).others.iter().map(|found| found.peer).collect();
        let expected: Vec<_> = (1..=4).filter(|from| *from != first).map(|from| Some(peer(from))).collect();
        assert_eq!(others, expected);
        assert_eq!(h.finishes, [id]);
    }
}

/// A value with two sources loses to one with three, in any order of arrival.
#[test]
fn a_minority_that_arrived_first_does_not_win() {
    let (mut h, id) = reading(3);
    for (from, value) in [(1, b"less"), (2, b"less"), (3, b"more"), (4, b"more"), (5, b"more")] {
        assert!(!h.ended(1));
        h.ev(id, found("k", from, value), false);
    }
    assert_eq!((answer(&h).value(), answer(&h).agreeing, answer(&h).dissenting), (b"more".as_slice(), 3, 2));
    assert_eq!(answer(&h).record.peer, Some(peer(3)));
}

#[test]
fn the_same_peer_twice_counts_once() {
    let (mut h, id) = reading(2);
    for value in [b"value", b"value", b"other", b"other"] {
        h.ev(id, found("k", 1, value), false);
    }
    assert!(!h.ended(1));
    h.ev(id, records_finished(), true);
    assert_eq!(too_few(&h), (b"value".to_vec(), 1, 2), "what it said first");
    h.assert_empty();
}

/// With any number of answers.
#[test]
fn a_peer_without_the_record_has_no_vote() {
    let (mut h, id) = reading(2);
    h.ev(id, found("k", 1, b"value"), false);
    for _ in 0..5 {
        h.ev(id, records_finished(), false);
        h.ev(id, not_found(peers([2, 3, 4])), false);
    }
    assert!(!h.ended(1));
    h.ev(id, records_finished(), true);
    assert_eq!(too_few(&h), (b"value".to_vec(), 1, 2));

    let (mut h, id) = reading(1);
    h.ev(id, not_found(peers([2, 3, 4])), true);
    assert_eq!(h.ending(1), "NotFound", "agreement about nothing is none");
}

#[test]
fn a_record_that_the_validator_rejects_is_never_returned_and_never_counted() {
    let policies = [
        Policy::First,
        Policy::Limit(1),
        Policy::All,
        Policy::Quorum(Quorum::N(1)),
        Policy::Quorum(Quorum::N(2)),
        Policy::Best { agree: Some(Quorum::N(1)) },
        Policy::Best { agree: None },
    ];
    for policy in policies {
        let rejected = |h: &mut Harness| {
            h.stream(1, get_record("/v/k", policy));
            let id = h.start();
            h.ev(id, found_at("/v/k", None, &[0, 9]), false);
            h.ev(id, found("/v/k", 1, &[0]), false);
            h.ev(id, found("/v/k", 2, &[]), false);
            assert!(!h.ended(1), "{policy:?}");
            assert_eq!((h.items(1), h.tracker.stats().rejected_records), (&[][..], 3), "{policy:?}");
            id
        };
        // No other peer has a record: not found, also at the deadline.
        let mut h = Harness::new(validating());
        let id = rejected(&mut h);
        h.ev(id, records_finished(), true);
        assert_eq!(h.ending(1), "NotFound", "{policy:?}");
        h.assert_empty();
        let mut h = Harness::new(validating());
        rejected(&mut h);
        h.tick(secs(30));
        let Outcome::GetRecord(Err(GetRecordError::Timeout { found: kept, progress: _ })) = h.outcome(1) else {
            panic!("{:?}", h.outcome(1))
        };
        assert!(kept.is_empty(), "{policy:?}");

        // A peer whose record was rejected may still send a valid one, and a late joiner sees only that.
        let mut h = Harness::new(validating());
        let id = rejected(&mut h);
        h.stream(2, get_record("/v/k", Policy::All));
        h.ev(id, found("/v/k", 1, &[1]), false);
        h.ev(id, found("/v/k", 3, &[1]), false);
        h.ev(id, records_finished(), true);
        assert_eq!((answer(&h).value(), answer(&h).dissenting), ([1].as_slice(), 0), "{policy:?}");
        assert_eq!(h.items(2).len(), 2);
        h.assert_empty();
    }
}

/// Only in the validator's namespace, and in the last event as well.
#[test]
fn a_rejected_record_in_a_last_event_is_counted_and_not_an_answer() {
    let mut h = Harness::new(validating());
    h.get(1, "/v/k");
    h.request(2, get_record("/w/k", Policy::First));
    let (validated, other) = (h.start(), h.start());
    h.ev(validated, found("/v/k", 1, &[0]), true);
    h.ev(other, found("/w/k", 1, &[0]), false);
    assert_eq!((h.ending(1).as_str(), h.ending(2).as_str()), ("NotFound", "Ok"));
    assert_eq!(h.tracker.stats().rejected_records, 1);
}

#[test]
fn sources_that_agree_but_are_too_few_do_not_reach_the_quorum() {
    let (mut h, id) = reading(4);
    for from in 1..=3 {
        h.ev(id, found("k", from, b"value"), false);
    }
    h.ev(id, records_finished(), true);
    assert_eq!(too_few(&h), (b"value".to_vec(), 3, 4));
    assert!(h.finishes.is_empty(), "kad had ended it");
    h.assert_empty();
}

#[test]
fn the_last_source_needed_finishes_the_query_at_once() {
    for needed in 1..=5 {
        let (mut h, id) = reading(usize::from(needed));
        for from in 1..needed {
            h.ev(id, found("k", from, b"value"), false);
            assert!(!h.ended(1), "{from} of {needed}");
        }
        h.ev(id, found("k", needed, b"value"), false);
        assert_eq!((answer(&h).agreeing, h.items(1).len()), (usize::from(needed), usize::from(needed)));
        assert_eq!(answer(&h).progress, some_progress());
        assert_eq!(h.finishes, [id]);
        h.ev(id, found("k", 77, b"late"), false);
        h.ev(id, records_finished(), true);
        assert_eq!(h.finishes, [id]);
        h.assert_empty();
    }
}

#[test]
fn a_quorum_that_is_reached_in_the_last_event_leaves_nothing_to_finish() {
    let (mut h, id) = reading(2);
    h.ev(id, found("k", 1, b"value"), false);
    h.ev(id, found("k", 2, b"value"), true);
    assert_eq!(answer(&h).agreeing, 2);
    assert!(h.finishes.is_empty());
    h.assert_empty();
}

#[test]
fn a_majority_is_of_the_replication_factor() {
    let mut h = Harness::default();
    h.request(1, get_record("k", Policy::Quorum(Quorum::Majority)));
    let id = h.start();
    for from in 1..=10 {
        h.ev(id, found("k", from, b"v"), false);
    }
    assert!(!h.ended(1));
    h.ev(id, found("k", 11, b"v"), false);
    assert_eq!(answer(&h).agreeing, 11);
    h.ev(id, records_finished(), true);
    h.assert_empty();
}

/// The query has not ended, so a conflict is not known yet.
#[test]
fn a_quorum_that_is_not_reached_by_the_deadline_is_a_timeout_with_the_records_found() {
    for by_kad in [true, false] {
        let (mut h, id) = reading(2);
        h.ev(id, found("k", 1, b"one"), false);
        h.ev(id, found("k", 2, b"two"), false);
        if by_kad {
            h.ev(id, get_timeout(), true);
        } else {
            h.tick(secs(30));
        }
        let Outcome::GetRecord(Err(GetRecordError::Timeout { found, progress })) = h.outcome(1) else {
            panic!("{:?}", h.outcome(1))
        };
        assert_eq!((found.len(), *progress), (2, some_progress()));
    }
}

#[test]
fn a_quorum_of_zero_is_invalid() {
    let mut h = Harness::default();
    let error = h.ask(1, get_record("k", Policy::Quorum(Quorum::N(0))), RequestOptions::default()).unwrap_err();
    assert!(matches!(error.0, RequestError::Invalid(InvalidRequestError::ZeroLimit)), "{error:?}");
    h.assert_empty();
}

/// Peers that return different values without end cannot fill the memory: at the maximum the request ends as if the
/// query had ended.
#[test]
fn a_quorum_that_is_not_reached_collects_no_more_than_the_maximum() {
    let config = || validating().max_items(3);
    for (needed, agreed) in [(4, false), (4, true), (usize::MAX, true)] {
        let mut h = Harness::new(config());
        h.stream(1, get_record("k", Policy::Quorum(needed.into())));
        let id = h.start();
        for from in 1..=50 {
            assert_eq!(h.ended(1), from > 3, "{from} were collected");
            h.ev(id, found("k", from, if agreed { &[1] } else { std::slice::from_ref(&from) }), false);
        }
        assert_eq!(h.ending(1), if agreed { "QuorumNotReached" } else { "Conflict" });
        assert_eq!((h.items(1).len(), h.finishes.as_slice()), (3, &[id][..]));
    }
    // The best of the records found is the answer.
    let mut h = Harness::new(config());
    h.stream(1, get_record("/v/k", Policy::Best { agree: Some(Quorum::N(2)) }));
    let id = h.start();
    for from in 1..=50 {
        assert_eq!(h.ended(1), from > 3, "{from} were collected");
        h.ev(id, found("/v/k", from, &[from]), false);
    }
    assert_eq!((answer(&h).value(), answer(&h).agreeing, answer(&h).dissenting), ([3].as_slice(), 1, 2));
    assert_eq!((h.items(1).len(), h.finishes.as_slice()), (3, &[id][..]));
}

#[test]
fn the_same_peer_twice_counts_once_among_many() {
    let mut h = Harness::default();
    h.request(1, get_record("k", Policy::All));
    let id = h.start();
    for from in 1..=20 {
        for again in 1..=from {
            h.ev(id, found("k", again, b"value"), false);
        }
    }
    h.ev(id, records_finished(), true);
    let Outcome::GetRecord(Ok(answer)) = h.outcome(1) else { panic!("{:?}", h.outcome(1)) };
    assert_eq!((answer.iter().count(), answer.agreeing), (20, 20));
}
