//! Queries that stop moving: when they are looked at, and when they are told to make do with what they have.

use std::time::Duration;

use kadence_core::{
    Cache, Certainty, GetRecordError, Operation, Outcome, Policy, Progress, Quorum, Stall, TrackerConfig,
};

use crate::support::*;

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn progress(requests: u32, successes: u32) -> Progress {
    Progress { requests, successes, failures: 0 }
}

/// 100 ms of quiet, before and after anything was measured.
fn watching() -> Harness {
    let stall = Stall::default().max_quiet(millis(100)).initial_quiet(millis(100));
    Harness::watching(TrackerConfig::default().stall(stall))
}

/// Lets the time come for which the tracker asks, for as long as kad says the same. How long it took until the query was
/// finished_early, if it was before `limit`.
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
fn a_lookup_that_many_have_answered_is_finished_after_one_quiet_time_without_a_movement() {
    let mut h = watching();
    h.request(1, closest("k"));
    let id = h.start();
    assert_eq!(h.timeout(), Some(millis(100)));
    // The first look finds that it has moved; the second that it has not.
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
fn a_lookup_that_few_have_answered_is_given_more_time_and_one_that_none_has_all_of_it() {
    // With three silent ones kad asks as many as it asks at once, and may know others.
    for (answers, after) in [(17, Some(millis(500))), (2, Some(millis(500))), (0, None)] {
        let mut h = watching();
        h.request_within(1, closest("k"), secs(20));
        let id = h.start();
        assert_eq!(quiet_until_finished(&mut h, id, progress(20, answers), secs(15)), after, "{answers} answers");
    }
}

#[test]
fn a_query_that_moves_is_let_alone() {
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
fn an_event_is_a_movement_and_saves_the_probe() {
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

/// What has been read says nothing about what has arrived.
#[test]
fn a_look_that_comes_late_waits_for_another_quiet_time() {
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
fn a_read_waits_the_longer_the_less_it_has() {
    let cases = [
        // All there is: there is one, and many have answered.
        (Policy::All, 1, 15, Some(millis(100))),
        (Policy::All, 1, 2, Some(millis(300))),
        (Policy::All, 0, 15, Some(millis(400))),
        (Policy::All, 0, 2, None),
        // A policy that is not met may still be, by those that are silent.
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
fn a_store_is_finished_once_its_quorum_has_acknowledged_and_nothing_more_comes() {
    for (acknowledged, after) in [(2, millis(200)), (1, millis(500))] {
        let mut h = watching();
        h.request(1, put_to("k", peers([1, 2, 3]), n(2)));
        let id = h.start();
        assert_eq!(quiet_until_finished(&mut h, id, progress(3, acknowledged), secs(5)), Some(after));
    }
}

#[test]
fn a_store_that_nobody_has_answered_or_that_kad_has_not_sent_to_all_is_let_alone() {
    for says in [progress(3, 0), progress(2, 1)] {
        let mut h = watching();
        h.request_within(1, put_to("k", peers([1, 2, 3]), n(2)), secs(20));
        let id = h.start();
        assert_eq!(quiet_until_finished(&mut h, id, says, secs(15)), None, "{says:?}");
    }
}

/// It can go on with others.
#[test]
fn a_put_waits_less_for_those_it_has_found() {
    for (says, after) in [(progress(3, 0), 400), (progress(3, 1), 300), (progress(3, 2), 200), (progress(2, 1), 500)] {
        let mut h = watching();
        h.request_within(1, put("k", n(2)), secs(20));
        let lookup = h.start();
        h.ev_with(lookup, closest_found([1, 2, 3]), progress(3, 3), true);
        let id = h.start();
        assert_eq!(quiet_until_finished(&mut h, id, says, secs(15)), Some(millis(after)), "{says:?}");
    }
}

#[test]
fn a_further_round_of_a_put_waits_for_those_who_are_missing_and_not_for_a_quorum_of_its_own() {
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
fn puts_and_announcements_say_nothing_of_the_pace_of_lookups() {
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
    // So many answers at once take so many rounds of three requests.
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
fn an_answer_to_no_probe_is_counted_and_one_that_kad_is_done_is_looked_after_again() {
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
fn nobody_is_looked_after_once_the_query_finishes_or_has_ended() {
    let mut h = watching();
    h.request(1, closest("k"));
    let id = h.start();
    h.cancel(1);
    assert_eq!(h.timeout(), Some(secs(30)), "when it would be lost");
    h.ev(id, closest_found([1]), true);
    h.assert_empty();
}

#[test]
fn what_a_read_that_was_finished_early_has_found_is_not_kept_as_all_there_is() {
    for (finished_early, answered_from_the_cache) in [(true, false), (false, true)] {
        let stall = Stall::default().max_quiet(millis(100)).initial_quiet(millis(100));
        let cache = Some(Cache::default());
        let mut h = Harness::watching(TrackerConfig::default().stall(stall).cache(cache));
        h.request(1, get_record("k", Policy::All));
        let id = h.start();
        let says = progress(20, 19);
        h.ev_with(id, found("k", 1, b"one"), says, false);
        if finished_early {
            quiet_until_finished(&mut h, id, says, secs(5)).unwrap();
        }
        h.ev_with(id, records_finished(), says, true);
        h.request(2, get_record("k", Policy::All));
        assert_eq!(h.ended(2), answered_from_the_cache);
    }
}
