//! Retries: with growing delays, and never beyond the deadline.

use std::time::Duration;

use kadence_core::{
    GetRecordError, Operation, Outcome, Policy, Priority, Progress, PutRecordError, QueryStartError, Quorum,
    RequestOptions, RequestPhase, Retry, TrackerConfig,
};

use crate::support::*;

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Delays of 100, 200, 400 ms, … without jitter.
fn plain() -> Retry {
    Retry::default().attempts(10).base(millis(100)).cap(secs(60)).jitter_percent(0)
}

fn retrying(retry: Retry) -> RequestOptions {
    RequestOptions::default().retry(retry).timeout(secs(1000))
}

fn get_with(retry: Retry) -> Harness {
    let mut h = Harness::default();
    h.request_with(1, get_record("k", Policy::All), retrying(retry));
    h
}

/// Makes the attempt that is starting find nothing.
fn fail(h: &mut Harness) {
    let id = h.start();
    h.ev(id, not_found(Vec::new()), true);
}

fn phase(h: &Harness) -> RequestPhase {
    h.tracker.snapshot(h.instant(h.now)).requests[0].phase
}

/// Moves the clock to the next retry, and returns the delay. Nothing else is due before.
fn wait(h: &mut Harness) -> Duration {
    assert_eq!((phase(h), h.tracker.live_queries()), (RequestPhase::BackingOff, 0), "without a slot");
    let (before, due) = (h.now, h.timeout().expect("a retry is due"));
    if let Some(early) = due.checked_sub(Duration::from_nanos(1)).filter(|early| *early > before) {
        h.tick(early);
        assert!(h.starts.is_empty(), "not a moment before");
    }
    h.tick(due);
    assert_eq!(h.starts.len(), 1);
    due - before
}

#[test]
fn a_request_has_the_given_number_of_attempts_including_the_first() {
    for (attempts, tried) in [(0, 1), (1, 1), (2, 2), (3, 3), (7, 7)] {
        let mut h = get_with(plain().attempts(attempts));
        for attempt in 1..=tried {
            fail(&mut h);
            assert_eq!(h.ended(1), attempt == tried, "{attempt} of {attempts}");
            if attempt < tried {
                wait(&mut h);
            }
        }
        assert_eq!(h.ending(1), "NotFound");
        assert!(h.finishes.is_empty());
        h.assert_empty();
    }
}

/// Only the deadline ends the default retries.
#[test]
fn the_default_retries_go_on_until_the_timeout() {
    let mut h = Harness::default();
    let options = RequestOptions::default().retry(Retry::default()).timeout(secs(8));
    h.request_with(1, get_record("k", Policy::All), options);
    let (mut attempts, mut last) = (0, h.now);
    while !h.ended(1) {
        (attempts, last) = (attempts + 1, h.now);
        let id = h.start();
        h.ev_with(id, not_found(Vec::new()), all_failed(), true);
        if !h.ended(1) {
            wait(&mut h);
        }
    }
    assert!(attempts > 3, "{attempts} attempts");
    assert!((secs(3)..secs(8)).contains(&last), "the last attempt started at {last:?}");
    assert!(h.now <= secs(8));
    assert_eq!(h.ending(1), "NoResponse");
    h.assert_empty();

    // An attempt that is silent ends at the deadline.
    let mut h = Harness::default();
    h.request_with(1, get_record("k", Policy::All), options);
    h.start();
    h.tick(secs(8));
    assert_eq!(h.ending(1), "Timeout");
}

#[test]
fn nothing_is_retried_by_default() {
    let mut h = Harness::default();
    h.get(1, "k");
    fail(&mut h);
    assert_eq!(h.ending(1), "NotFound");
    h.assert_empty();
}

#[test]
fn a_successful_attempt_is_the_last() {
    let mut h = get_with(plain());
    fail(&mut h);
    wait(&mut h);
    let id = h.start();
    h.ev(id, found("k", 1, b"value"), false);
    h.ev(id, records_finished(), true);
    assert_eq!(h.ending(1), "Ok");
    h.assert_empty();
}

#[test]
fn the_wait_doubles_up_to_its_cap() {
    let waits = |retry: Retry| {
        let mut h = get_with(retry);
        let mut waits = Vec::new();
        for _ in 1..retry.attempts {
            fail(&mut h);
            waits.push(wait(&mut h).as_millis());
        }
        waits
    };
    assert_eq!(waits(plain().attempts(6)), [100, 200, 400, 800, 1600]);
    assert_eq!(waits(plain().attempts(6).cap(millis(500))), [100, 200, 400, 500, 500]);
    assert_eq!(waits(plain().attempts(4).cap(millis(30))), [30, 30, 30]);
    // After forty doublings as well.
    let long = waits(Retry::default().attempts(50).base(millis(1)).cap(secs(10)).jitter_percent(0));
    assert_eq!((long[12], long[13], long[48]), (4096, 8192, 10_000));
}

#[test]
fn a_delay_is_at_least_a_millisecond() {
    let nothing = plain().attempts(4).base(Duration::ZERO);
    let no_cap = nothing.base(millis(100)).cap(Duration::ZERO);
    let drawn = nothing.base(Duration::from_nanos(1)).jitter_percent(100);
    for retry in [nothing, no_cap, drawn] {
        let mut h = get_with(retry);
        for _ in 0..3 {
            h.refuse(QueryStartError::NoKnownPeers);
            assert_eq!(wait(&mut h), millis(1), "{retry:?}");
        }
        h.refuse(QueryStartError::NoKnownPeers);
        assert_eq!(h.ending(1), "NoKnownPeers");
        h.assert_empty();
    }
}

#[test]
fn the_error_is_that_of_the_last_attempt() {
    let mut h = get_with(plain().attempts(4));
    fail(&mut h);
    wait(&mut h);
    h.refuse(QueryStartError::NoKnownPeers);
    wait(&mut h);
    let id = h.start();
    h.ev(id, get_timeout(), true);
    wait(&mut h);
    let id = h.start();
    let last = Progress { requests: 9, successes: 2, failures: 7 };
    h.ev_with(id, not_found(peers([3])), last, true);
    let Outcome::GetRecord(Err(GetRecordError::NotFound { closest_peers, certainty: _, rejected: 0, progress })) =
        h.outcome(1)
    else {
        panic!("{:?}", h.outcome(1))
    };
    assert_eq!((&**closest_peers, *progress), (&*peers([3]), last), "the last attempt's");
    h.assert_empty();
}

/// Records of a failed attempt do not count in the next.
#[test]
fn each_attempt_counts_its_quorum_anew() {
    let mut h = Harness::default();
    h.request_with(1, get_record("k", Policy::Quorum(Quorum::N(2))), retrying(plain()));
    for _ in 0..3 {
        let id = h.start();
        h.ev(id, found("k", 1, b"value"), false);
        h.ev(id, records_finished(), true);
        assert!(!h.ended(1));
        wait(&mut h);
    }
    let id = h.start();
    h.ev(id, found("k", 2, b"value"), false);
    h.ev(id, found("k", 1, b"value"), false);
    assert_eq!((h.ending(1).as_str(), h.finishes.as_slice()), ("Ok", &[id][..]));
}

/// From its lookup on: the closest peers may have changed.
#[test]
fn a_retried_put_starts_with_its_lookup() {
    let mut h = Harness::default();
    h.request_with(1, put("k", Quorum::All), retrying(plain()));
    let lookup = h.start();
    h.ev(lookup, closest_found([1, 2]), true);
    let store = h.start();
    h.ev(store, put_quorum_failed(peers([1])), true);
    wait(&mut h);
    let lookup = h.start();
    h.ev(lookup, closest_found([3]), true);
    let store = h.start();
    h.ev(store, put_ok(), true);
    h.stored(1, Ok(()));
    let Outcome::PutRecord(Ok(answer)) = h.outcome(1) else { panic!("{:?}", h.outcome(1)) };
    assert_eq!((answer.acknowledged.as_slice(), answer.unacknowledged.len()), (&peers([3])[..], 0));
    assert_eq!(answer.progress, some_progress().merge(some_progress()), "of this attempt");
    h.assert_empty();
}

// ---- deadlines and other ends

/// A get with a quorum of two whose first attempts found a record at each of the given peers.
fn quorum_missed_at(attempts: &[u8]) -> Harness {
    let mut h = Harness::default();
    h.request_with(1, get_record("k", Policy::Quorum(Quorum::N(2))), retrying(plain()).timeout(secs(5)));
    for (attempt, from) in (1..).zip(attempts) {
        let id = h.start();
        h.ev(id, found("k", *from, b"value"), false);
        h.ev(id, records_finished(), true);
        if attempt < attempts.len() {
            wait(&mut h);
        }
    }
    h
}

#[track_caller]
fn assert_timeout(h: &Harness, sources: &[u8], attempts: u32) {
    let Outcome::GetRecord(Err(GetRecordError::Timeout { found, progress })) = h.outcome(1) else {
        panic!("{:?}", h.outcome(1))
    };
    let from: Vec<_> = found.iter().map(|record| record.peer).collect();
    assert_eq!(from, sources.iter().map(|source| Some(peer(*source))).collect::<Vec<_>>());
    let expected = (0..attempts).fold(nobody(), |sum, _| sum.merge(some_progress()));
    assert_eq!(*progress, expected);
}

#[test]
fn a_timeout_keeps_the_records_of_earlier_attempts() {
    // In a later attempt that is silent,
    let mut h = quorum_missed_at(&[1, 2, 1]);
    wait(&mut h);
    h.start();
    h.tick(secs(5));
    assert_timeout(&h, &[1, 2], 3);

    // that has found something itself,
    let mut h = quorum_missed_at(&[1, 2]);
    wait(&mut h);
    let id = h.start();
    h.ev(id, found("k", 2, b"another"), false);
    h.tick(secs(5));
    assert_timeout(&h, &[2, 1], 3);

    // or that waits to begin, because no call came before the deadline.
    let mut h = quorum_missed_at(&[1]);
    h.tick(secs(5));
    assert_timeout(&h, &[1], 1);
}

#[test]
fn a_timeout_names_the_peers_that_earlier_attempts_sent_to() {
    for in_the_store in [false, true] {
        let mut h = Harness::default();
        let options = retrying(plain()).timeout(secs(5));
        h.request_with(1, put("k", Quorum::All), options);
        let lookup = h.start();
        h.ev(lookup, closest_found([1, 2]), true);
        let store = h.start();
        h.ev(store, put_quorum_failed(peers([1])), true);
        wait(&mut h);
        let lookup = h.start();
        if in_the_store {
            h.ev(lookup, closest_found([3, 2]), true);
            h.start();
        }
        h.tick(secs(5));
        let Outcome::PutRecord(Err(PutRecordError::Timeout { sent_to, progress })) = h.outcome(1) else {
            panic!("{:?}", h.outcome(1))
        };
        let expected = if in_the_store { peers([3, 2, 1]) } else { peers([1, 2]) };
        assert_eq!(*sent_to, expected);
        let queries = if in_the_store { 3 } else { 2 };
        assert_eq!(*progress, (0..queries).fold(nobody(), |sum, _| sum.merge(some_progress())));
    }
}

#[test]
fn no_retry_starts_at_the_deadline_or_later() {
    for (timeout, tried_again) in [(millis(99), false), (millis(100), false), (millis(101), true)] {
        let mut h = Harness::default();
        let options = retrying(plain()).timeout(timeout);
        h.request_with(1, get_record("k", Policy::All), options);
        fail(&mut h);
        assert_eq!(h.ended(1), !tried_again, "{timeout:?}");
        if tried_again {
            wait(&mut h);
            h.start();
            h.tick(timeout);
            assert_eq!((h.ending(1).as_str(), h.finishes.len()), ("Timeout", 1));
        } else {
            assert_eq!(h.ending(1), "NotFound", "the error is the last attempt's, at once");
            h.assert_empty();
        }
    }
}

/// A late tick starts nothing for a request that has expired.
#[test]
fn a_tick_after_the_deadline_starts_no_retry() {
    let mut h = Harness::default();
    h.request_with(1, get_record("k", Policy::All), retrying(plain()).timeout(secs(1)));
    fail(&mut h);
    h.tick(secs(20));
    assert!(h.ended(1));
    assert!(h.starts.is_empty());
    h.assert_empty();
}

#[test]
fn a_retry_that_waits_for_a_slot_until_its_deadline_never_starts() {
    let mut h = Harness::one_slot();
    h.request_with(1, get_record("k", Policy::All), retrying(plain()).timeout(secs(1)));
    fail(&mut h);
    h.request_within(2, get_record("other", Policy::All), secs(100));
    h.start();
    h.tick(millis(100));
    assert_eq!((phase(&h), h.starts.len()), (RequestPhase::BetweenSteps, 0));
    h.tick(secs(1));
    assert_eq!(h.ending(1), "Timeout", "it had begun");
    h.tick(secs(100));
    h.let_time_pass();
    assert!(h.starts.is_empty());
    h.assert_empty();
}

#[test]
fn a_request_that_backs_off_can_be_cancelled() {
    let mut h = get_with(plain());
    fail(&mut h);
    assert_eq!(phase(&h), RequestPhase::BackingOff);
    h.cancel(1);
    assert_eq!(h.ending(1), "Cancelled");
    h.assert_empty();
}

#[test]
fn a_shutdown_ends_a_request_that_backs_off_and_a_drain_does_not() {
    let mut h = get_with(plain());
    fail(&mut h);
    h.shut_down(false);
    assert_eq!(h.ending(1), "Shutdown");
    assert!(h.tracker.is_shut_down());
    h.assert_empty();

    let mut h = get_with(plain().attempts(3));
    fail(&mut h);
    h.shut_down(true);
    assert!(!h.tracker.is_shut_down());
    wait(&mut h);
    fail(&mut h);
    wait(&mut h);
    fail(&mut h);
    assert_eq!(h.ending(1), "NotFound");
    assert!(h.tracker.is_shut_down());
    h.assert_empty();
}

/// The stream would deliver its items twice.
#[test]
fn a_stream_that_has_delivered_items_is_not_retried() {
    let read = |streaming, found_some| {
        let mut h = Harness::default();
        let options = retrying(plain()).streaming(streaming);
        h.request_with(1, get_record("k", Policy::Quorum(Quorum::N(2))), options);
        let id = h.start();
        if found_some {
            h.ev(id, found("k", 1, b"value"), false);
        }
        h.ev(id, records_finished(), true);
        h.ended(1)
    };
    assert!(read(true, true));
    assert!(!read(true, false), "nothing was delivered");
    assert!(!read(false, true));

    // The same for a bootstrap that has reported phases.
    for streaming in [false, true] {
        let mut h = Harness::default();
        h.request_with(1, Operation::Bootstrap, retrying(plain()).streaming(streaming));
        let id = h.start();
        h.ev(id, bootstrap_timeout(Some(0)), true);
        assert_eq!(h.ended(1), streaming);
        h.let_time_pass();
        h.assert_empty();
    }
}

/// A stream that is retried delivers the items of its last attempt, once.
#[test]
fn a_retried_stream_delivers_each_item_once() {
    let mut h = Harness::default();
    h.request_with(1, get_record("k", Policy::All), retrying(plain()).streaming(true));
    fail(&mut h);
    wait(&mut h);
    let id = h.start();
    h.ev(id, found("k", 1, b"value"), false);
    h.ev(id, records_finished(), true);
    assert_eq!((h.ending(1).as_str(), h.items(1).len()), ("Ok", 1));
}

// ---- with other requests

#[test]
fn a_retry_waits_at_the_end_of_the_line_of_its_class() {
    for (priority, order) in
        [(Priority::Background, [3, 4, 1]), (Priority::Normal, [3, 1, 4]), (Priority::Interactive, [3, 1, 4])]
    {
        let mut h = Harness::one_slot();
        h.request_with(1, get_record("k", Policy::All), retrying(plain()).priority(priority));
        fail(&mut h);
        // One of its class was there before, and one of a lower class comes after it.
        h.request_of(2, get_record("2", Policy::All), priority);
        h.request_of(3, get_record("3", Policy::All), priority.max(Priority::Normal));
        let second = h.start();
        h.tick(millis(100));
        assert!(h.starts.is_empty(), "it takes nobody's slot away");
        let last = if priority == Priority::Background { Priority::Normal } else { priority };
        h.request_of(4, get_record("4", Policy::All), last);
        h.ev(second, not_found(Vec::new()), true);
        let mut started = Vec::new();
        for _ in 0..3 {
            started.push(h.starts[0].request.0);
            let id = h.start();
            h.ev(id, records_finished(), true);
        }
        assert_eq!(started, order, "{priority:?}");
    }
}

/// Requests that always fail leave the others their shares, with any number of attempts.
#[test]
fn retries_starve_no_other_request() {
    let mut h = Harness::one_slot();
    let retry = Retry::default().attempts(u32::MAX).base(millis(1)).cap(millis(1)).jitter_percent(0);
    let background = retrying(retry).priority(Priority::Background);
    for request in 0..4 {
        h.request_with(request, get_record(&own_key(request), Policy::All), background);
    }
    let mut starts = [0_u32; 5];
    for n in 0..200 {
        if n == 50 {
            h.request_of(4, get_record("interactive", Policy::All), Priority::Interactive);
        }
        let request = h.starts.front().expect("somebody waits").request.0;
        starts[request as usize] += 1;
        let id = h.start();
        h.tick(h.now + millis(5));
        h.ev(id, not_found(Vec::new()), true);
        assert!(n < 52 || h.ended(4), "the interactive one waits for one query at most");
    }
    assert_eq!(starts[4], 1);
    assert!(starts[..4].iter().all(|starts| (49..=51).contains(starts)), "{starts:?}");
}

/// A request that backs off has no slot and no place in the queue.
#[test]
fn a_request_that_backs_off_takes_no_place_in_the_queue() {
    let mut h = Harness::new(TrackerConfig::default().max_running(1).max_queued(1));
    h.request_with(1, get_record("k", Policy::All), retrying(plain()));
    fail(&mut h);
    h.get(2, "running");
    h.get(3, "queued");
    assert!(h.ask(4, get_record("one too many", Policy::All), RequestOptions::default()).is_err());
    h.tick(millis(100));
    assert_eq!(h.outcomes(), 0);
    assert!(h.ask(4, get_record("one too many", Policy::All), RequestOptions::default()).is_err());
}

/// Requests that share an attempt also share the next one if they retry while it runs.
#[test]
fn a_retry_joins_the_query_of_another() {
    let mut h = get_with(plain());
    h.request_with(2, get_record("k", Policy::All), retrying(plain().base(millis(150))));
    h.get(3, "k");
    fail(&mut h);
    assert_eq!(h.ending(3), "NotFound", "it did not ask for another attempt");
    h.tick(millis(100));
    let id = h.start();
    h.ev(id, found("k", 1, b"value"), false);
    h.tick(millis(150));
    assert!(h.starts.is_empty());
    h.ev(id, records_finished(), true);
    for request in [1, 2] {
        let Outcome::GetRecord(Ok(answer)) = h.outcome(request) else { panic!("{:?}", h.outcome(request)) };
        assert_eq!(answer.value(), b"value");
    }
    h.assert_empty();
}

/// A query that waits for a slot moves to the class of a retry that joins it.
#[test]
fn a_retry_that_joins_a_queued_query_moves_it_to_its_class() {
    let mut h = Harness::one_slot();
    let interactive = retrying(plain()).priority(Priority::Interactive);
    h.request_with(1, get_record("k", Policy::All), interactive);
    fail(&mut h);
    h.request_of(2, get_record("busy", Policy::All), Priority::Normal);
    let busy = h.start();
    h.request_of(3, get_record("other", Policy::All), Priority::Normal);
    h.request_of(4, get_record("k", Policy::All), Priority::Background);
    h.tick(millis(100));
    h.ev(busy, not_found(Vec::new()), true);
    assert_eq!(h.starts[0].query, kadence_core::Query::GetRecord { key: key("k") });
    let id = h.start();
    h.ev(id, found("k", 1, b"value"), false);
    h.ev(id, records_finished(), true);
    assert_eq!((h.ending(1).as_str(), h.ending(4).as_str(), h.ended(3)), ("Ok", "Ok", false));
}
