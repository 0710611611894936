//! Overload: refusals when the queue is full, and the exact bound of the queue.

use kadence_core::{
    CommandError, InvalidRequestError, Policy, Priority, Quorum, RequestError, RequestOptions, RequestPhase, Retry,
    Stats, TrackerConfig,
};
use proptest::{collection::vec, prelude::*, sample::Index};

use crate::support::*;

/// One slot, and a queue of this length.
fn queue_of(max_queued: usize) -> TrackerConfig {
    TrackerConfig::default().max_running(1).max_queued(max_queued)
}

/// A get with a key of its own.
fn ask(h: &mut Harness, request: u64, priority: Priority) -> Result<(), CommandError> {
    let options = RequestOptions::default().priority(priority);
    h.ask(request, get_record(&own_key(request), Policy::All), options)
}

/// One slot, which #0 holds, and a full queue with one request of each of the given classes, from #1.
fn full_of(classes: &[Priority]) -> Harness {
    let mut h = Harness::new(queue_of(classes.len()));
    ask(&mut h, 0, Priority::Background).expect("there is a slot");
    h.start();
    for (request, class) in (1..).zip(classes) {
        ask(&mut h, request, *class).expect("there is room");
    }
    h
}

#[track_caller]
fn assert_refused(h: &mut Harness, request: u64, priority: Priority) {
    let (trace, refused) = (h.trace.len(), h.tracker.stats().refused);
    let error = ask(h, request, priority).unwrap_err();
    assert!(matches!(error.0, RequestError::Overloaded), "{error:?}");
    assert_eq!(h.trace.len(), trace, "a refusal changes nothing");
    assert_eq!(h.tracker.stats().refused, refused + 1);
}

#[test]
fn a_full_queue_refuses_at_once_and_loses_no_accepted_request() {
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
    // Every accepted request is answered in turn, and its place is free for the next.
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

/// The class of a request does not matter: no request makes room for another one.
#[test]
fn a_full_queue_refuses_every_class_and_ends_no_accepted_request() {
    use Priority::{Background, Interactive, Normal};
    let mut h = full_of(&[Background, Normal, Interactive, Background, Normal]);
    for (request, class) in (10..).zip([Interactive, Normal, Background]) {
        assert_refused(&mut h, request, class);
    }
    assert_eq!(h.outcomes(), 0);
    assert!(h.finishes.is_empty());
    h.cancel(4);
    ask(&mut h, 13, Background).expect("there is room again");
    assert_refused(&mut h, 14, Interactive);
}

/// A request needs a free slot then.
#[test]
fn without_a_queue_every_request_beyond_the_slots_is_refused() {
    let mut h = Harness::new(queue_of(0));
    ask(&mut h, 0, Priority::Background).expect("there is a slot");
    assert_refused(&mut h, 1, Priority::Interactive);
    assert!(!h.ended(0));
    let id = h.start();
    h.ev(id, not_found(Vec::new()), true);
    ask(&mut h, 2, Priority::Background).expect("the slot is free again");
}

/// Another attempt takes no place in the queue: its request has begun.
#[test]
fn a_request_between_its_steps_takes_no_place_in_the_queue() {
    let mut h = Harness::new(queue_of(1));
    let retry = Some(Retry::default().base(secs(0)));
    let options = RequestOptions::default().priority(Priority::Background).retry(retry);
    h.request_with(1, get_record("k", Policy::All), options);
    h.request_of(2, get_record("waiting", Policy::All), Priority::Interactive);
    let first = h.start();
    h.ev(first, not_found(Vec::new()), true);
    let second = h.start();
    h.tick(std::time::Duration::from_millis(1));
    let phase = |h: &Harness, at: usize| h.tracker.snapshot(h.instant(h.now)).requests[at].phase;
    assert_eq!([phase(&h, 0), phase(&h, 1)], [RequestPhase::BetweenSteps, RequestPhase::Running]);
    ask(&mut h, 3, Priority::Interactive).expect("the queue is empty");
    assert_refused(&mut h, 4, Priority::Interactive);
    assert_eq!(h.outcomes(), 0);
    h.ev(second, not_found(Vec::new()), true);
    assert_eq!(h.starts[0].request.0, 3, "in the line of its class");
}

/// The caller of an invalid request learns that it is invalid, and does not try it again.
#[test]
fn a_full_queue_rejects_an_invalid_request_as_invalid() {
    let mut h = full_of(&[Priority::Background]);
    let options = RequestOptions::default().priority(Priority::Interactive);
    let zero = h.ask(10, get_record("k", Policy::Limit(0)), options).unwrap_err();
    assert!(matches!(zero.0, RequestError::Invalid(InvalidRequestError::ZeroLimit)), "{zero:?}");
    let alive = h.ask(1, get_record("k", Policy::All), options).unwrap_err();
    assert!(matches!(alive.0, RequestError::Invalid(InvalidRequestError::DuplicateId)), "{alive:?}");
    h.shut_down(true);
    let late = h.ask(11, get_record("k", Policy::All), options).unwrap_err();
    assert!(matches!(late.0, RequestError::Shutdown), "{late:?}");
    assert_eq!(h.outcomes(), 0);
}

/// Each request that shares a queued query takes a place, and all places are free when it starts.
#[test]
fn requests_that_share_a_queued_query_take_a_place_each() {
    let mut h = Harness::new(TrackerConfig::default().max_running(1).max_queued(3));
    h.get(0, "busy");
    let busy = h.start();
    (1..=3).for_each(|request| h.get(request, "k"));
    assert!(h.ask(4, get_record("k", Policy::All), RequestOptions::default()).is_err());
    h.cancel(2);
    h.get(5, "k");
    assert_refused(&mut h, 6, Priority::Normal);
    h.ev(busy, not_found(Vec::new()), true);
    (7..=9).for_each(|request| h.get_own(request));
    assert_refused(&mut h, 10, Priority::Normal);
}

/// A retry that waits for a slot takes no place, for it has begun; a request that joins it has not.
#[test]
fn a_request_that_joins_a_queued_retry_takes_a_place() {
    let mut h = Harness::new(TrackerConfig::default().max_running(1).max_queued(1));
    let retry = Some(Retry::default().base(secs(1)).jitter_percent(0));
    h.request_with(1, get_record("k", Policy::All), RequestOptions::default().retry(retry));
    let first = h.start();
    h.ev(first, not_found(Vec::new()), true);
    h.get(2, "busy");
    h.tick(secs(1));
    h.get(3, "k");
    let phases: Vec<_> = h.tracker.snapshot(h.instant(h.now)).requests.iter().map(|request| request.phase).collect();
    assert_eq!(phases, [RequestPhase::BetweenSteps, RequestPhase::Running, RequestPhase::Queued]);
    assert_refused(&mut h, 4, Priority::Normal);
    h.cancel(3);
    ask(&mut h, 5, Priority::Normal).expect("there is room again");
}

/// Requests that back off hold neither a slot nor a place, but their number is bounded.
#[test]
fn requests_that_back_off_are_bounded() {
    use Priority::{Interactive, Normal};
    let retry = Some(Retry::default().attempts(2).base(secs(3600)).cap(secs(3600)).jitter_percent(0));
    let mut h = Harness::new(queue_of(1));
    let options = RequestOptions::default().retry(retry).timeout(secs(24 * 3600));
    for request in 0..6 {
        h.request_with(request, get_record(&own_key(request), Policy::All), options);
        let id = h.start();
        h.ev(id, not_found(Vec::new()), true);
    }
    assert_eq!((h.tracker.live_requests(), h.tracker.live_queries(), h.outcomes()), (6, 0, 0));
    assert_refused(&mut h, 6, Normal);
    assert_refused(&mut h, 6, Interactive);
    h.cancel(0);
    ask(&mut h, 7, Normal).expect("there is room again");
    assert_refused(&mut h, 8, Normal);
}

/// The queue is not full, but too many requests are alive: a higher class is refused as well, and nobody ends for it.
#[test]
fn a_request_is_refused_when_too_many_are_alive_although_the_queue_has_room() {
    use Priority::{Background, Interactive};
    let mut h = Harness::new(queue_of(2));
    let retry = Some(Retry::default().attempts(2).base(secs(3600)).cap(secs(3600)).jitter_percent(0));
    let options = RequestOptions::default().retry(retry).timeout(secs(24 * 3600));
    for request in 0..7 {
        h.request_with(request, get_record(&own_key(request), Policy::All), options);
        let id = h.start();
        h.ev(id, not_found(Vec::new()), true);
    }
    ask(&mut h, 7, Background).expect("there is a slot");
    ask(&mut h, 8, Background).expect("there is room");
    assert_refused(&mut h, 9, Background);
    assert_refused(&mut h, 10, Interactive);
    assert_eq!((h.outcomes(), h.tracker.live_requests()), (0, 9));
}

/// Joining stops earlier than everything else, so joiners lock nobody out.
#[test]
fn joiners_leave_room_for_the_others() {
    let mut h = Harness::new(queue_of(1));
    h.get(0, "k");
    h.start();
    (1..4).for_each(|request| h.get(request, "k"));
    assert!(h.ask(4, get_record("k", Policy::All), RequestOptions::default()).is_err());
    ask(&mut h, 5, Priority::Normal).expect("the queue is empty");
    assert_refused(&mut h, 6, Priority::Normal);
}

/// It waits for no slot, so no request has to make room for it.
#[test]
fn a_request_that_joins_a_running_query_needs_no_place_in_the_queue() {
    for started in [false, true] {
        let mut h = Harness::new(queue_of(1));
        h.get(0, "k");
        h.request_of(1, get_record("other", Policy::All), Priority::Background);
        if started {
            h.start();
        }
        let options = RequestOptions::default().priority(Priority::Interactive);
        let joined = h.ask(2, get_record("k", Policy::All), options);
        assert!(joined.is_ok(), "{joined:?}");
        assert!(!h.ended(1), "#1 was ended for a request that needs no place");
        assert_refused(&mut h, 3, Priority::Interactive);
    }
}

#[test]
fn a_query_count_changes_only_the_stats() {
    let mut h = Harness::slots(2);
    (0..4).for_each(|request| h.get_own(request));
    h.start_all();
    for (live, own) in [(2, 0), (102, 100), (7, 5), (0, 0), (usize::MAX, usize::MAX - 2), (3, 1)] {
        let (trace, due) = (h.trace.len(), h.timeout());
        let before = h.tracker.snapshot(h.instant(h.now));
        h.query_count(live);
        let stats = h.tracker.stats();
        let mut expected = Stats::default();
        (expected.accepted, expected.kad_own_queries) = (4, own as u64);
        assert_eq!(stats, expected, "{live} live");
        assert_eq!((h.trace.len(), h.timeout()), (trace, due), "kad's own queries take nobody's slot");
        assert_eq!(h.tracker.snapshot(h.instant(h.now)), before);
    }
    // Slots do not depend on kad's own queries.
    h.query_count(99);
    let first = h.id_of(0);
    h.ev(first, not_found(Vec::new()), true);
    assert_eq!((h.starts.len(), h.tracker.live_queries()), (1, 2));
    // A query count at a deadline is an input like any other.
    h.now = secs(30);
    h.query_count(99);
    assert_eq!(h.tracker.live_requests(), 0);
}

#[derive(Debug, Clone)]
enum Input {
    Ask {
        key: u8,
        put: bool,
        class: usize,
    },
    Cancel(Index),
    Start,
    /// A running query ends; a put goes on to its store.
    End(Index),
    Forward(u64),
}

fn an_input() -> impl Strategy<Value = Input> {
    prop_oneof![
        10 => (0..6_u8, any::<bool>(), 0..3_usize).prop_map(|(key, put, class)| Input::Ask { key, put, class }),
        2 => any::<Index>().prop_map(Input::Cancel),
        5 => Just(Input::Start),
        3 => any::<Index>().prop_map(Input::End),
        1 => (0..8_000_u64).prop_map(Input::Forward),
    ]
}

proptest! {
    #![proptest_config(property())]

    #[test]
    fn after_any_schedule_the_queue_takes_exactly_its_maximum(
        (max_running, max_queued) in (1..4_usize, 0..7_usize),
        inputs in vec(an_input(), 0..80),
    ) {
        let mut h = Harness::new(TrackerConfig::default().max_running(max_running).max_queued(max_queued));
        let queued = |h: &Harness| {
            let requests = h.tracker.snapshot(h.instant(h.now)).requests;
            requests.iter().filter(|request| request.phase == RequestPhase::Queued).count()
        };
        let mut requests = 0;
        for input in inputs {
            match input {
                Input::Ask { key, put: is_put, class } => {
                    let key = format!("{key}");
                    let operation = if is_put { put(&key, Quorum::One) } else { closest(&key) };
                    let options = RequestOptions::default().priority(Priority::ALL[class]);
                    requests += u64::from(h.ask(requests, operation, options).is_ok());
                }
                Input::Cancel(request) => h.cancel(request.index(requests as usize + 1) as u64),
                Input::Start if h.starts.is_empty() => {}
                Input::Start => {
                    h.start();
                }
                Input::End(which) => {
                    let queries = h.tracker.snapshot(h.instant(h.now)).queries;
                    let running = queries.iter().filter_map(|query| Some((query.id?, query.operation)));
                    let running: Vec<_> = running.collect();
                    if !running.is_empty() {
                        let (id, kind) = *which.get(&running);
                        let is_lookup = kind == kadence_core::OperationKind::GetClosestPeers;
                        h.ev(id, if is_lookup { closest_found([1]) } else { put_ok() }, true);
                    }
                }
                Input::Forward(millis) => h.tick(h.now + std::time::Duration::from_millis(millis)),
            }
            prop_assert!(queued(&h) <= max_queued, "{} in a queue of {max_queued}", queued(&h));
        }
        let mut room = 0;
        while ask(&mut h, requests + room, Priority::Background).is_ok() {
            room += 1;
            prop_assert!(room <= 20, "the queue has no end");
        }
        // Otherwise too many requests share running queries, or wait for their stores.
        let crowded = h.tracker.live_requests() == 3 * (max_queued + max_running);
        prop_assert!(crowded || (queued(&h), h.tracker.live_queries()) == (max_queued, max_running));
    }
}
