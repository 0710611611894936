//! The headline tests that have no file of their own, by their numbers.

use std::time::Duration;

use kadence_core::{
    BootstrapError, GetProvidersError, GetRecordError, Item, Outcome, Policy, Progress, Quorum, RequestError,
    RequestOptions, TrackerConfig,
};

use crate::support::*;

#[test]
fn t2_an_empty_first_provider_batch_is_not_the_answer() {
    for policy in [Policy::First, Policy::All, Policy::Limit(1)] {
        let mut h = Harness::default();
        h.request(1, get_providers("k", policy));
        let id = h.start();
        h.ev(id, providers([]), false);
        assert!(!h.ended(1), "{policy:?}");
        h.ev(id, providers([1]), false);
        h.ev(id, providers_finished(), true);
        let Outcome::GetProviders(Ok(answer)) = h.outcome(1) else { panic!("{:?}", h.outcome(1)) };
        assert_eq!(answer.providers, peers([1]), "{policy:?}");
        h.assert_empty();
    }
}

#[test]
fn t2_nothing_but_empty_batches_is_not_found() {
    let mut h = Harness::default();
    h.request(1, get_providers("k", Policy::All));
    let id = h.start();
    for _ in 0..5 {
        h.ev(id, providers([]), false);
    }
    h.ev(id, providers_finished(), true);
    let Outcome::GetProviders(Err(GetProvidersError::NotFound { closest_peers, certainty: _, progress, cached: None })) =
        h.outcome(1)
    else {
        panic!("{:?}", h.outcome(1))
    };
    assert_eq!((closest_peers, *progress), (&peers([7]), some_progress()));
    h.assert_empty();
}

#[test]
fn t2_a_limit_is_exact_and_finishes_the_query_once() {
    let mut h = Harness::default();
    h.stream(1, get_providers("k", Policy::Limit(10)));
    let id = h.start();
    h.ev(id, providers(0..6), false);
    assert!(!h.ended(1));
    h.ev(id, providers(6..13), false);
    let Outcome::GetProviders(Ok(answer)) = h.outcome(1) else { panic!("{:?}", h.outcome(1)) };
    assert_eq!(answer.providers.len(), 10);
    assert_eq!(answer.providers[..6], peers(0..6));
    let delivered: Vec<_> = answer.providers.iter().map(|provider| Item::Provider(*provider)).collect();
    assert_eq!(h.items(1), delivered);
    assert_eq!(h.finishes, [id]);
    // What was under way, and the end.
    h.ev(id, providers(20..40), false);
    h.ev(id, providers_finished(), true);
    assert_eq!(h.finishes, [id]);
    h.assert_empty();
}

#[test]
fn t5_a_bootstrap_ends_at_last_and_counts_its_phases() {
    let mut h = Harness::default();
    h.stream(1, kadence_core::Operation::Bootstrap);
    let id = h.start();
    let automatic = 99;
    for result in [bootstrap_ok(3), bootstrap_timeout(Some(2)), bootstrap_ok(1)] {
        h.ev(id, result, false);
        // kad's own bootstrap, in between: the driver sees that it is not ours and hands it on.
        assert!(!h.tracker.owns(&automatic));
        h.ev(automatic, bootstrap_ok(0), true);
        assert!(!h.ended(1));
    }
    h.ev(id, bootstrap_ok(0), true);
    let Outcome::Bootstrap(Ok(answer)) = h.outcome(1) else { panic!("{:?}", h.outcome(1)) };
    assert_eq!((answer.phases, answer.failed), (4, 1));
    // Each phase is a query of its own in kad, with its own count.
    assert_eq!(answer.progress, Progress { requests: 16, successes: 12, failures: 4 });
    let phases: Vec<_> = h
        .items(1)
        .iter()
        .map(|item| match item {
            Item::BootstrapPhase(phase) => (phase.ok, phase.remaining),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(phases, [(true, Some(3)), (false, Some(2)), (true, Some(1)), (true, Some(0))]);
    h.assert_empty();
}

#[test]
fn t5_a_bootstrap_whose_every_phase_timed_out_has_failed() {
    let mut h = Harness::default();
    h.request(1, kadence_core::Operation::Bootstrap);
    let id = h.start();
    h.ev(id, bootstrap_timeout(Some(2)), false);
    h.ev(id, bootstrap_timeout(Some(1)), false);
    h.ev(id, bootstrap_timeout(Some(0)), true);
    let Outcome::Bootstrap(Err(BootstrapError::AllPhasesFailed { phases: 3, progress })) = h.outcome(1) else {
        panic!("{:?}", h.outcome(1))
    };
    assert_eq!(progress.requests, 12);
    h.assert_empty();
}

#[test]
fn t5_a_bootstrap_at_its_deadline_says_how_far_it_got() {
    let mut h = Harness::default();
    h.request_within(1, kadence_core::Operation::Bootstrap, secs(5));
    let id = h.start();
    h.ev(id, bootstrap_ok(3), false);
    h.ev(id, bootstrap_timeout(Some(2)), false);
    h.tick(secs(5));
    let Outcome::Bootstrap(Err(BootstrapError::Timeout { phases: 2, failed: 1, progress })) = h.outcome(1) else {
        panic!("{:?}", h.outcome(1))
    };
    assert_eq!(*progress, some_progress().merge(some_progress()));
    assert_eq!(h.finishes, [id]);
}

/// A reader's pace is the driver's business; the tracker hands out every item, and the end after them.
#[test]
fn t6_fifty_records_and_then_the_labelled_end() {
    let mut h = Harness::default();
    h.stream(1, get_record("k", Policy::All));
    let id = h.start();
    for from in 0..50 {
        h.ev(id, found("k", from, &[from]), false);
    }
    h.ev(id, get_timeout(), true);
    assert_eq!(h.items(1).len(), 50);
    for (from, item) in (0..50).zip(h.items(1)) {
        assert!(matches!(item, Item::Record(found) if found.record.value == [from]), "{item:?}");
    }
    let Outcome::GetRecord(Err(GetRecordError::Timeout { found, progress })) = h.outcome(1) else {
        panic!("{:?}", h.outcome(1))
    };
    assert_eq!((found.len(), *progress), (50, some_progress()));
    h.assert_empty();
}

/// Without streaming the outcome alone carries them.
#[test]
fn t6_items_are_delivered_only_to_those_who_asked() {
    let mut h = Harness::default();
    h.get(1, "k");
    let id = h.start();
    for from in 0..50 {
        h.ev(id, found("k", from, b"value"), false);
    }
    h.ev(id, records_finished(), true);
    let Outcome::GetRecord(Ok(answer)) = h.outcome(1) else { panic!("{:?}", h.outcome(1)) };
    assert_eq!(answer.iter().count(), 50);
    assert!(h.items(1).is_empty());
}

/// Three running, one stream half read, two queued.
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
fn t7_shutdown_answers_everybody_and_refuses_the_next() {
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
fn t7_a_drain_lets_what_was_accepted_end_and_refuses_the_next() {
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
fn t7_a_drain_that_takes_too_long_can_be_cut_short() {
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
fn t7_a_shutdown_goes_through_the_requests_in_their_order() {
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

#[test]
fn t8_a_deadline_on_a_silent_network_is_exact_and_keeps_what_was_found() {
    let mut h = Harness::one_slot();
    h.request_within(1, get_record("k", Policy::Limit(3)), secs(5));
    let id = h.start();
    assert_eq!(h.timeout(), Some(secs(5)));
    h.ev(id, found("k", 1, b"one"), false);
    h.ev(id, found("k", 2, b"two"), false);
    assert_eq!(h.timeout(), Some(secs(5)), "events do not move a deadline");

    // With the one slot taken, a second request never gets to start.
    h.request_within(2, get_record("other", Policy::First), secs(3));
    assert_eq!(h.timeout(), Some(secs(3)));
    h.tick(secs(3) - Duration::from_nanos(1));
    assert_eq!(h.outcomes(), 0);
    h.tick(secs(3));
    assert_eq!(h.ending(2), "ExpiredInQueue");
    assert_eq!(h.timeout(), Some(secs(5)));

    h.tick(secs(5) - Duration::from_nanos(1));
    assert!(!h.ended(1));
    assert!(h.finishes.is_empty());
    h.tick(secs(5));
    let Outcome::GetRecord(Err(GetRecordError::Timeout { found, progress })) = h.outcome(1) else {
        panic!("{:?}", h.outcome(1))
    };
    let values: Vec<_> = found.iter().map(|found| found.record.value.as_slice()).collect();
    assert_eq!((values, *progress), (vec![b"one".as_slice(), b"two"], some_progress()));
    assert_eq!(h.finishes, [id]);
    assert!(h.starts.is_empty(), "the query of a request that expired in the queue is never started");

    // The slot is held until kad is done, or until that takes too long.
    assert_eq!(h.timeout(), Some(secs(5 + 30)));
    h.ev(id, records_finished(), true);
    assert_eq!(h.timeout(), None);
    h.assert_empty();
}

/// Each operation has a deadline, and says what it has by then.
#[test]
fn t8_time_alone_ends_every_operation() {
    for kind in OPERATIONS {
        let mut h = Harness::one_slot();
        h.request_within(1, ordinary(kind), secs(5));
        let id = h.start();
        h.tick(secs(5));
        assert_eq!((h.ending(1).as_str(), h.outcome(1).kind()), ("Timeout", kind));
        assert_eq!(h.finishes, [id], "{kind}");
        h.tick(secs(35));
        assert_eq!(h.forgotten, [id], "{kind}");
        h.assert_empty();
    }
}

#[test]
fn t10_a_lost_terminal_event_costs_no_slot() {
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

    // The ids stay ours, so that what comes after all is swallowed and not taken for somebody else's.
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

/// The twin of it: everything that kad never says.
#[test]
fn t10_unknown_duplicate_late_and_mismatching_events_do_nothing() {
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

#[test]
fn t14_a_full_queue_is_answered_at_once_and_loses_nothing() {
    let mut h = Harness::new(TrackerConfig::default().max_running(2).max_queued(3));
    for request in 1..=5 {
        h.get_own(request);
    }
    for request in 6..=20 {
        let trace = h.trace.len();
        let operation = get_record(&own_key(request), Policy::All);
        let refused = h.ask(request, operation, RequestOptions::default()).unwrap_err();
        assert!(matches!(refused.0, RequestError::Overloaded), "{refused:?}");
        assert_eq!(h.trace.len(), trace, "a refusal changes nothing");
    }
    // Everybody who was accepted is answered, in turn, and a place in the queue is a place for the next.
    for request in 1..=5 {
        h.start_all();
        let id = h.id_of(request);
        h.ev(id, not_found(Vec::new()), true);
        assert_eq!(h.ending(request), "NotFound");
    }
    assert_eq!((h.accepted(), h.tracker.stats().refused), (5, 15));
    h.assert_empty();
    h.get(21, "k");
}
