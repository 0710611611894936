//! Stall detection: the time of probes, and the queries that are finished early.

use std::time::Duration;

use kadence_core::{Certainty, GetRecordError, Operation, Outcome, Policy, Progress, Quorum, Stall, TrackerConfig};

use crate::support::*;

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn progress(requests: u32, successes: u32) -> Progress {
    Progress { requests, successes, failures: 0 }
}

/// A tracker with a quiet time of 100 ms, before and after a measurement.
fn watching() -> Harness {
    let stall = Stall::default().max_quiet(millis(100)).initial_quiet(millis(100));
    Harness::watching(TrackerConfig::default().stall(stall))
}

/// Moves the clock and answers probes with the same progress. Returns the time until the query was finished early, or
/// `None` if that took longer than `limit`.
fn quiet_until_finished(h: &mut Harness, id: u32, says: Progress, limit: Duration) -> Option<Duration> {
    let began = h.now;
    while h.finished_early.is_empty() {
        let due = h.timeout().filter(|due| *due < began + limit)?;
        h.tick(due);
        if h.probes.contains(&id) {
            h.probe(id, Some(says));
        }
    }
    Some(h.now - began)
}

#[test]
fn a_lookup_with_many_answers_is_finished_after_one_quiet_time() {
    let mut h = watching();
    h.request(1, closest("k"));
    let id = h.start();
    assert_eq!(h.timeout(), Some(millis(100)));
    // The first probe finds progress, the second none.
    assert_eq!(quiet_until_finished(&mut h, id, progress(20, 18), secs(5)), Some(millis(200)));
    assert_eq!(h.finished_early, [id]);
    assert!(h.finishes.is_empty(), "somebody waits for it");
    h.ev(id, closest_found([1, 2, 3]), true);
    let Outcome::GetClosestPeers(Ok(answer)) = h.outcome(1) else { panic!("{:?}", h.outcome(1)) };
    assert_eq!(answer.peers.len(), 3);
    assert_eq!(h.tracker.stats().queries_finished_early, 1);
    h.assert_empty();
}

#[test]
fn a_lookup_with_few_answers_gets_more_time_and_one_without_answers_is_never_finished() {
    // With three silent peers kad asks as many as it may at the same time, and could know others.
    for (answers, after) in [(17, Some(millis(500))), (2, Some(millis(500))), (0, None)] {
        let mut h = watching();
        h.request_within(1, closest("k"), secs(20));
        let id = h.start();
        assert_eq!(quiet_until_finished(&mut h, id, progress(20, answers), secs(15)), after, "{answers} answers");
    }
}

/// Near peers that are connected answer within milliseconds, and far ones have to be dialled.
#[test]
fn a_lookup_with_few_answers_waits_for_dials_of_far_peers() {
    for operation in [closest("k"), provide("k"), Operation::Bootstrap, put("k", Quorum::Majority)] {
        for (answers, earliest) in [(2, secs(2)), (9, secs(2)), (18, millis(200))] {
            let stall = Stall::default().initial_quiet(millis(100)).max_quiet(secs(2));
            let mut h = Harness::watching(TrackerConfig::default().stall(stall));
            h.request_within(1, operation.clone(), secs(20));
            let id = h.start();
            let took = quiet_until_finished(&mut h, id, progress(20, answers), secs(15));
            assert!(
                took.is_some_and(|took| (earliest..earliest + millis(250)).contains(&took)),
                "{took:?}, {answers} answers"
            );
        }
    }
}

#[test]
fn a_query_that_makes_progress_is_not_finished() {
    let mut h = watching();
    h.request_within(1, closest("k"), secs(60));
    let id = h.start();
    for answers in 1..100 {
        let due = h.timeout().unwrap();
        h.tick(due);
        assert_eq!(h.probes, [id], "after {answers}");
        h.probe(id, Some(progress(100, answers)));
    }
    assert!(h.finished_early.is_empty());
}

#[test]
fn an_event_is_progress_and_saves_the_probe() {
    let mut h = watching();
    h.request(1, get_record("k", Policy::All));
    let id = h.start();
    h.now = millis(60);
    h.ev_with(id, found("k", 1, b"one"), progress(20, 15), false);
    h.tick(millis(100));
    assert!(h.probes.is_empty());
    assert_eq!(h.timeout(), Some(millis(160)));
    h.tick(millis(160));
    assert_eq!(h.probes, [id]);
}

/// Answers that have arrived may not have been read yet.
#[test]
fn a_late_check_waits_for_another_quiet_time() {
    let mut h = watching();
    h.request(1, get_record("k", Policy::All));
    let id = h.start();
    h.ev_with(id, found("k", 1, b"one"), progress(20, 15), false);
    h.tick(millis(300));
    assert!(h.probes.is_empty());
    assert_eq!(h.timeout(), Some(millis(400)));
    h.tick(millis(401));
    assert_eq!(h.probes, [id]);
}

#[test]
fn a_read_waits_longer_the_less_it_has_found() {
    let cases = [
        // One item has been found, and many peers have answered.
        (Policy::All, 1, 15, Some(millis(100))),
        (Policy::All, 1, 2, Some(millis(300))),
        (Policy::All, 0, 15, Some(millis(400))),
        (Policy::All, 0, 2, None),
        // Silent peers may still satisfy a policy.
        (Policy::Quorum(Quorum::N(3)), 1, 15, Some(millis(800))),
        (Policy::Quorum(Quorum::N(3)), 1, 2, None),
        (Policy::First, 0, 15, Some(millis(800))),
        (Policy::Limit(2), 1, 15, Some(millis(800))),
    ];
    for (policy, items, answers, after) in cases {
        let mut h = watching();
        h.request_within(1, get_record("k", policy), secs(20));
        let id = h.start();
        let said = progress(20, answers);
        for peer in 0..items {
            h.ev_with(id, found("k", peer, b"one"), said, false);
        }
        if items == 0 {
            let due = h.timeout().unwrap();
            h.tick(due);
            h.probe(id, Some(said));
        }
        let took = quiet_until_finished(&mut h, id, said, secs(15));
        assert_eq!(took, after, "{policy:?} with {items} items and {answers} answers");
    }
}

#[test]
fn a_request_after_a_query_was_finished_early_starts_another() {
    let mut h = watching();
    h.request(1, closest("k"));
    let id = h.start();
    quiet_until_finished(&mut h, id, progress(20, 18), secs(5)).unwrap();
    h.request(2, closest("k"));
    assert_eq!(h.starts.len(), 1);
}

#[test]
fn a_store_is_finished_after_its_quorum_and_one_quiet_time() {
    for (acknowledged, after) in [(2, millis(200)), (1, millis(500))] {
        let mut h = watching();
        h.request(1, put_to("k", peers([1, 2, 3]), n(2)));
        let id = h.start();
        assert_eq!(quiet_until_finished(&mut h, id, progress(3, acknowledged), secs(5)), Some(after));
    }
}

#[test]
fn a_store_without_answers_or_with_peers_yet_to_ask_is_not_finished() {
    for says in [progress(3, 0), progress(2, 1)] {
        let mut h = watching();
        h.request_within(1, put_to("k", peers([1, 2, 3]), n(2)), secs(20));
        let id = h.start();
        assert_eq!(quiet_until_finished(&mut h, id, says, secs(15)), None, "{says:?}");
    }
}

/// A put to the closest peers can continue with others.
#[test]
fn a_put_to_the_closest_peers_waits_less_than_one_to_named_peers() {
    for (says, after) in [(progress(3, 0), 400), (progress(3, 1), 300), (progress(3, 2), 200), (progress(2, 1), 500)] {
        let mut h = watching();
        h.request_within(1, put("k", n(2)), secs(20));
        let lookup = h.start();
        h.ev_with(lookup, closest_found([1, 2, 3]), progress(3, 3), true);
        let id = h.start();
        assert_eq!(quiet_until_finished(&mut h, id, says, secs(15)), Some(millis(after)), "{says:?}");
    }
}

/// Nobody is asked in place of the peers that are late, so their answers are the only hope.
#[test]
fn a_put_that_cannot_go_on_waits_like_one_to_named_peers() {
    for (says, after) in [(progress(3, 0), None), (progress(3, 2), Some(millis(500))), (progress(2, 1), None)] {
        let mut h = watching();
        h.request_within(1, put("k", Quorum::All), secs(20));
        let lookup = h.start();
        h.ev_with(lookup, closest_found([1, 2, 3]), progress(3, 3), true);
        let id = h.start();
        assert_eq!(quiet_until_finished(&mut h, id, says, secs(15)), after, "{says:?}");
    }
}

#[test]
fn the_last_round_of_a_put_waits_like_a_put_to_named_peers() {
    let mut h = watching();
    h.knows = Some(peers(4..40));
    h.request_within(1, put("k", n(3)), secs(60));
    let lookup = h.start();
    h.ev_with(lookup, closest_found([1, 2, 3]), progress(3, 3), true);
    for _ in 0..2 {
        let round = h.start();
        h.ev_with(round, put_quorum_failed(Vec::new()), progress(3, 0), true);
    }
    let last = h.start();
    assert_eq!(quiet_until_finished(&mut h, last, progress(10, 0), secs(15)), None);
}

#[test]
fn a_further_round_of_a_put_waits_only_for_the_missing_acknowledgements() {
    let mut h = watching();
    h.knows = Some(peers(4..10));
    h.request_within(1, put("k", n(3)), secs(20));
    let lookup = h.start();
    h.ev_with(lookup, closest_found([1, 2, 3]), progress(3, 3), true);
    let first = h.start();
    h.ev_with(first, put_quorum_failed(peers([1, 2])), progress(3, 2), true);
    let further = h.start();
    assert_eq!(quiet_until_finished(&mut h, further, progress(6, 1), secs(15)), Some(millis(200)));
}

#[test]
fn a_read_that_was_finished_early_is_never_conclusive() {
    for finished_early in [true, false] {
        let mut h = watching();
        h.request_within(1, get_record("k", Policy::All), secs(20));
        let id = h.start();
        let says = progress(20, 19);
        if finished_early {
            quiet_until_finished(&mut h, id, says, secs(15)).unwrap();
        }
        h.ev_with(id, not_found(peers([1, 2])), says, true);
        let Outcome::GetRecord(Err(GetRecordError::NotFound { certainty, .. })) = h.outcome(1) else {
            panic!("{:?}", h.outcome(1))
        };
        assert_eq!(*certainty, if finished_early { Certainty::Inconclusive } else { Certainty::Conclusive });
    }
}

#[test]
fn puts_and_announcements_do_not_measure_round_trips() {
    let mut h = Harness::watching(TrackerConfig::default());
    h.request(1, put_to("k", peers([1, 2, 3]), n(2)));
    let id = h.start();
    h.now = millis(1);
    h.ev_with(id, put_ok(), progress(3, 3), true);
    h.request(2, closest("k"));
    h.start();
    assert_eq!(h.timeout(), Some(millis(501)), "nothing was measured");
}

#[test]
fn each_phase_of_a_bootstrap_is_finished_once() {
    let mut h = watching();
    h.request(1, Operation::Bootstrap);
    let id = h.start();
    assert_eq!(quiet_until_finished(&mut h, id, progress(20, 18), secs(5)), Some(millis(200)));
    h.ev_with(id, bootstrap_ok(1), progress(20, 18), false);
    h.finished_early.clear();
    assert_eq!(quiet_until_finished(&mut h, id, progress(20, 18), secs(5)), Some(millis(100)));
}

#[test]
fn the_quiet_time_is_three_round_trips_within_its_bounds() {
    // The number of answers determines the number of rounds of three requests.
    for (answers, took, quiet) in [(3, 100, 300), (6, 100, 150), (3, 1, 100), (1, 5000, 2000)] {
        let mut h = Harness::watching(TrackerConfig::default());
        h.request(1, get_record("a", Policy::First));
        let id = h.start();
        assert_eq!(h.timeout(), Some(millis(500)), "nothing was measured");
        h.now = millis(took);
        h.ev_with(id, found("a", 1, b"one"), progress(20, answers), true);
        h.request(2, get_record("b", Policy::First));
        h.start();
        assert_eq!(h.timeout(), Some(millis(took + quiet)), "{answers} answers in {took} ms");
    }
}

#[test]
fn an_unexpected_probe_answer_is_counted_and_a_query_that_kad_has_ended_is_checked_again() {
    let mut h = watching();
    h.request(1, closest("k"));
    let id = h.start();
    h.probe(id, Some(progress(20, 17)));
    h.probe(id + 1, Some(progress(20, 17)));
    h.probe(id + 1, None);
    assert_eq!(h.tracker.stats().unknown_inputs, 2);
    h.tick(millis(100));
    h.probe(id, None);
    assert_eq!(h.timeout(), Some(millis(200)), "it may have been done with a phase only");
    assert!(h.finished_early.is_empty());
}

#[test]
fn a_finishing_or_ended_query_is_not_checked() {
    let mut h = watching();
    h.request(1, closest("k"));
    let id = h.start();
    h.cancel(1);
    assert_eq!(h.timeout(), Some(secs(30)), "when it would be lost");
    h.ev(id, closest_found([1]), true);
    h.assert_empty();
}
