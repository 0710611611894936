//! Certainty of finding nothing: enough answers, a query that has ended by itself, and a node that is not cut off.

use kadence_core::{
    Certainty, GetProvidersError, GetRecordError, Network, Operation, Outcome, Policy, Progress, Reachability,
    RequestOptions, Retry, TrackerConfig,
};
use libp2p::kad::QueryResult;

use Certainty::{Conclusive, Inconclusive};

use crate::support::*;

/// An operation whose result has a certainty, and the last event of a query of it that has found nothing; for a lookup
/// of the closest peers, nothing but a peer.
type Lookup = (fn() -> Operation, fn() -> QueryResult);

const RECORD: Lookup = (|| get_record("k", Policy::First), || not_found(peers([7])));

const LOOKUPS: [Lookup; 3] =
    [RECORD, (|| get_providers("k", Policy::All), providers_finished), (|| closest("k"), || closest_found([1]))];

fn certainty(h: &Harness, request: u64) -> Certainty {
    match h.outcome(request) {
        Outcome::GetRecord(Err(GetRecordError::NotFound { certainty, .. }))
        | Outcome::GetProviders(Err(GetProvidersError::NotFound { certainty, .. })) => *certainty,
        Outcome::GetClosestPeers(Ok(answer)) => answer.certainty,
        other => panic!("{other:?}"),
    }
}

/// Numbers of peers asked and of answers.
fn of(successes: u32, requests: u32) -> Progress {
    Progress { requests, successes, failures: requests - successes }
}

/// Every peer that was asked has answered.
fn all(answers: u32) -> Progress {
    of(answers, answers)
}

/// Certainty of a lookup that ends with this progress.
fn told(h: &mut Harness, request: u64, (operation, last): Lookup, progress: Progress) -> Certainty {
    h.request(request, operation());
    let id = h.start();
    h.ev_with(id, last(), progress, true);
    certainty(h, request)
}

fn expecting(nodes: Option<usize>) -> Harness {
    Harness::new(TrackerConfig::default().expected_network_size(nodes))
}

fn size(nodes: impl Into<Option<usize>>) -> Network {
    Network::default().size(nodes)
}

fn reaching(reachability: Reachability) -> Network {
    Network::default().reachability(reachability)
}

/// Asserts that this is the minimum number of answers for a conclusive result, for every operation.
#[track_caller]
fn assert_floor(h: &mut Harness, floor: u32) {
    for lookup in LOOKUPS {
        let operation = lookup.0();
        for (answers, expected) in [(floor - 1, Inconclusive), (floor, Conclusive)] {
            // Without any answer there is no result.
            if answers > 0 {
                let request = h.accepted() as u64;
                assert_eq!(told(h, request, lookup, all(answers)), expected, "{operation:?} with {answers}");
            }
        }
    }
}

/// The only peer that was asked may be as new as the node itself.
#[test]
fn one_peer_is_not_conclusive() {
    for lookup in LOOKUPS {
        assert_eq!(told(&mut Harness::default(), 1, lookup, all(1)), Inconclusive);
    }
}

#[test]
fn ten_peers_must_have_answered_while_the_size_of_the_network_is_unknown() {
    assert_floor(&mut Harness::default(), 10);
}

#[test]
fn half_of_the_expected_network_must_have_answered_within_one_and_ten() {
    for (nodes, floor) in [(0, 1), (1, 1), (2, 1), (3, 2), (4, 2), (7, 4), (20, 10), (21, 10), (usize::MAX, 10)] {
        assert_floor(&mut expecting(Some(nodes)), floor);
    }
}

/// An estimate below six may be wrong, or of a part that is cut off from the rest.
#[test]
fn half_of_the_estimated_network_must_have_answered_within_three_and_ten() {
    for (nodes, floor) in [(0, 3), (1, 3), (6, 3), (7, 4), (19, 10), (20, 10), (usize::MAX, 10)] {
        let mut h = Harness::default();
        h.network(size(nodes));
        assert_floor(&mut h, floor);
    }
}

#[test]
fn an_expected_size_takes_precedence_over_an_estimate() {
    for estimate in [None, Some(1), Some(6), Some(1_000_000)] {
        let mut h = expecting(Some(8));
        h.network(size(estimate));
        assert_floor(&mut h, 4);
    }
}

#[test]
fn four_of_five_of_the_peers_asked_must_have_answered() {
    let mut h = Harness::default();
    let cases = [
        (of(10, 12), Conclusive),
        (of(10, 13), Inconclusive),
        (of(12, 15), Conclusive),
        (of(12, 16), Inconclusive),
        // kad no longer waits for a peer that has not answered: others are closer.
        (Progress { requests: 20, successes: 10, failures: 0 }, Conclusive),
        (of(9, 9), Inconclusive),
    ];
    let mut request = 0;
    for (progress, expected) in cases {
        for lookup in LOOKUPS {
            request += 1;
            assert_eq!(told(&mut h, request, lookup, progress), expected, "{progress:?}");
        }
    }
}

/// kad waits for a peer for ten seconds.
#[test]
fn pending_requests_of_a_long_query_count_as_unanswered() {
    for (seconds, pending, expected) in [(9, 5, Conclusive), (10, 2, Conclusive), (10, 3, Inconclusive)] {
        for (operation, last) in LOOKUPS {
            let mut h = Harness::new(TrackerConfig::default().stall(None));
            h.request(1, operation());
            let id = h.start();
            h.tick(secs(seconds));
            h.ev_with(id, last(), Progress { requests: 10 + pending, successes: 10, failures: 0 }, true);
            assert_eq!(certainty(&h, 1), expected, "{pending} pending after {seconds} s");
        }
    }
}

/// The application has finished the query, or a peer was given up that could have answered: before or after the first
/// event, and with any number of answers.
#[test]
fn a_query_that_was_cut_short_is_never_conclusive() {
    for (operation, last) in LOOKUPS {
        for after_an_event in [false, true] {
            let mut h = Harness::default();
            h.request(1, operation());
            h.request(2, operation());
            let id = h.start();
            if after_an_event {
                h.ev_with(id, last(), all(12), false);
            }
            let (trace, due) = (h.trace.len(), h.timeout());
            h.cut_short(id);
            h.cut_short(id);
            assert_eq!((h.trace.len(), h.timeout()), (trace, due), "nothing else changes");
            // A later request gets a query of its own, which is not cut short.
            assert_eq!(told(&mut h, 3, (operation, last), all(20)), Conclusive);
            h.ev_with(id, last(), all(20), true);
            assert_eq!([1, 2].map(|request| certainty(&h, request)), [Inconclusive; 2]);
            h.assert_empty();
        }
    }
}

#[test]
fn a_query_that_was_cut_short_still_answers_with_what_it_has_found() {
    let mut h = Harness::default();
    h.get(1, "k");
    let id = h.start();
    h.ev(id, found("k", 1, b"before"), false);
    h.cut_short(id);
    h.ev(id, found("k", 2, b"after"), false);
    h.ev(id, records_finished(), true);
    let Outcome::GetRecord(Ok(answer)) = h.outcome(1) else { panic!("{:?}", h.outcome(1)) };
    assert_eq!(answer.iter().count(), 2);
    h.assert_empty();
}

/// Queries of kad and of the application are not the tracker's, nor is one that has ended.
#[test]
fn only_a_running_query_can_be_cut_short() {
    let mut h = Harness::default();
    h.request(1, RECORD.0());
    h.cut_short(0);
    assert_eq!(h.tracker.stats().unknown_inputs, 1, "its query has no id yet");
    let id = h.start();
    h.cut_short(id + 1);
    assert_eq!(h.tracker.stats().unknown_inputs, 2);
    h.ev_with(id, RECORD.1(), all(10), true);
    assert_eq!(certainty(&h, 1), Conclusive);
    h.cut_short(id);
    assert_eq!(h.tracker.stats().unknown_inputs, 3);
    h.assert_empty();

    // A query that nobody waits for any more is the tracker's until it has ended.
    h.request(2, RECORD.0());
    let id = h.start();
    h.cancel(2);
    h.cut_short(id);
    assert_eq!(h.tracker.stats().unknown_inputs, 3);
    h.ev(id, RECORD.1(), true);
    h.assert_empty();
}

/// A conclusive result is not retried: another attempt would find nothing either.
#[test]
fn a_read_that_was_cut_short_is_retried_and_a_conclusive_one_is_not() {
    for cut_short in [true, false] {
        let mut h = Harness::default();
        h.request_with(1, RECORD.0(), RequestOptions::default().retry(Retry::default()));
        let id = h.start();
        if cut_short {
            h.cut_short(id);
        }
        h.ev_with(id, RECORD.1(), all(10), true);
        assert_eq!(h.ended(1), !cut_short);
        if cut_short {
            h.tick(secs(1));
            let second = h.start();
            h.ev_with(second, RECORD.1(), all(10), true);
        }
        assert_eq!(certainty(&h, 1), Conclusive);
        h.assert_empty();
    }
}

#[test]
fn a_thorough_lookup_is_conclusive_if_both_of_its_queries_are() {
    for (first, second, expected) in
        [(10, 10, Conclusive), (9, 10, Inconclusive), (10, 9, Inconclusive), (9, 9, Inconclusive)]
    {
        let mut h = Harness::default();
        h.request(1, closest_thorough("k"));
        for answers in [first, second] {
            let id = h.start();
            h.ev_with(id, closest_found([1]), all(answers), true);
        }
        assert_eq!(certainty(&h, 1), expected, "{first} and {second} answers");
    }
    // Without its second query it is half done.
    let mut h = Harness::default();
    h.request(1, closest_thorough("k"));
    let id = h.start();
    h.ev_with(id, closest_found([1]), all(10), true);
    h.refuse(store_error());
    assert_eq!(certainty(&h, 1), Inconclusive);
}

/// Peers on the same side of a cut know as little as the node.
#[test]
fn nothing_is_conclusive_while_the_node_is_isolated() {
    let mut h = Harness::default();
    let mut request = 0;
    for (reachability, expected) in [
        (Reachability::Unknown, Conclusive),
        (Reachability::Isolated, Inconclusive),
        (Reachability::Connected, Conclusive),
    ] {
        h.network(reaching(reachability));
        for lookup in LOOKUPS {
            request += 1;
            assert_eq!(told(&mut h, request, lookup, all(20)), expected, "{reachability:?}");
        }
    }
    // An expected size does not help.
    let mut h = expecting(Some(2));
    h.network(reaching(Reachability::Isolated));
    assert_eq!(told(&mut h, 1, RECORD, all(20)), Inconclusive);
}

/// The tracker may learn the size of the network, or that it is cut off, while a query runs.
#[test]
fn the_latest_news_of_the_network_at_the_end_of_a_query_decides() {
    let (connected, isolated) = (reaching(Reachability::Connected), reaching(Reachability::Isolated));
    for (before, after, expected) in [
        (size(None), size(6), Conclusive),
        (size(6), size(None), Inconclusive),
        (size(6), size(100), Inconclusive),
        (size(100), size(8), Conclusive),
        (isolated.size(6), connected.size(6), Conclusive),
        (connected.size(6), isolated.size(6), Inconclusive),
    ] {
        for (operation, last) in LOOKUPS {
            let mut h = Harness::default();
            h.network(before);
            h.request(1, operation());
            let id = h.start();
            let (trace, due) = (h.trace.len(), h.timeout());
            h.network(after);
            assert_eq!((h.trace.len(), h.timeout()), (trace, due), "nothing else changes");
            h.ev_with(id, last(), all(4), true);
            assert_eq!(certainty(&h, 1), expected, "{before:?}, then {after:?}");
            h.assert_empty();
        }
    }
}
