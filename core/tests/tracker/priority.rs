//! Priorities: classes are served by their shares, and further steps before new requests.

use kadence_core::{Policy, Priority, Quorum, RequestOptions, TrackerConfig};
use proptest::{collection::vec, prelude::*};

use crate::support::*;

fn config(shares: [u32; 3]) -> TrackerConfig {
    TrackerConfig::default().max_running(1).max_queued(usize::MAX).shares(shares)
}

/// A tracker whose one slot is taken by #0. It counts as a start of its class.
fn busy(config: TrackerConfig, priority: Priority) -> Harness {
    let mut h = Harness::new(config);
    ask(&mut h, 0, priority);
    h.start();
    h
}

/// A get with a key of its own.
fn ask(h: &mut Harness, request: u64, priority: Priority) {
    h.request_of(request, get_record(&own_key(request), Policy::All), priority);
}

/// Ends the running query, and returns the request whose query is next.
fn next(h: &mut Harness, running: u64) -> u64 {
    let id = h.id_of(running);
    h.ev(id, not_found(Vec::new()), true);
    let next = h.starts.front().expect("somebody waits").request.0;
    h.start();
    next
}

/// Request ids encode the class: 1,000,000 and more are of the first one, and so on. #0 is of the first as well.
fn class(request: u64) -> usize {
    (request / 1_000_000).max(1) as usize - 1
}

/// Number of requests of each class among the next `starts`, the running one included.
fn counts(h: &mut Harness, running: &mut u64, starts: u32) -> [u32; 3] {
    let mut counts = [0; 3];
    for _ in 0..starts {
        counts[class(*running)] += 1;
        *running = next(h, *running);
    }
    counts
}

/// `each` requests of every class, all of them waiting behind #0.
fn backlog(shares: [u32; 3], each: u64) -> Harness {
    let mut h = busy(config(shares), Priority::Interactive);
    for n in 0..each {
        for (class, priority) in (1..).zip(Priority::ALL) {
            ask(&mut h, class * 1_000_000 + n, priority);
        }
    }
    h
}

#[test]
fn each_dozen_of_a_long_backlog_is_eight_three_and_one() {
    let mut h = backlog([8, 3, 1], 300);
    let mut running = 0;
    for dozen in 0..30 {
        assert_eq!(counts(&mut h, &mut running, 12), [8, 3, 1], "dozen {dozen}");
    }
}

#[test]
fn other_shares_are_kept_and_zero_counts_as_one() {
    for (shares, starts, expected) in [
        ([1, 1, 1], 30, [10, 10, 10]),
        ([0, 0, 0], 30, [10, 10, 10]),
        ([5, 0, 0], 28, [20, 4, 4]),
        ([1, 2, 4], 28, [4, 8, 16]),
    ] {
        let mut h = backlog(shares, 50);
        assert_eq!(counts(&mut h, &mut 0, starts), expected, "{shares:?}");
    }
}

#[test]
fn a_class_is_served_in_order_of_arrival() {
    let mut h = backlog([8, 3, 1], 40);
    let mut running = 0;
    let mut orders = [const { Vec::new() }; 3];
    for _ in 0..120 {
        running = next(&mut h, running);
        orders[class(running)].push(running % 1_000_000);
    }
    for order in orders {
        assert_eq!(order, (0..40).collect::<Vec<_>>());
    }
}

/// A class without requests leaves its share to the others, and does not save it up.
#[test]
fn a_class_that_had_nothing_waiting_gets_no_more_than_its_share_afterwards() {
    let mut h = busy(config([8, 3, 1]), Priority::Interactive);
    (0..500).for_each(|n| ask(&mut h, 1_000_000 + n, Priority::Interactive));
    let mut running = 0;
    assert_eq!(counts(&mut h, &mut running, 200), [200, 0, 0]);
    (0..100).for_each(|n| ask(&mut h, 3_000_000 + n, Priority::Background));
    assert_eq!(counts(&mut h, &mut running, 90), [80, 0, 10]);
}

/// With any number of requests of higher classes.
#[test]
fn lower_classes_progress_under_constant_load_of_higher_ones() {
    let mut h = busy(config([8, 3, 1]), Priority::Interactive);
    (0..10).for_each(|n| ask(&mut h, 2_000_000 + n, Priority::Normal));
    (0..10).for_each(|n| ask(&mut h, 3_000_000 + n, Priority::Background));
    let (mut running, mut interactive) = (0, 0);
    let mut counts = [0; 3];
    for _ in 0..120 {
        // Two arrive for each one that is served.
        for _ in 0..2 {
            ask(&mut h, 1_000_000 + interactive, Priority::Interactive);
            interactive += 1;
        }
        running = next(&mut h, running);
        counts[class(running)] += 1;
    }
    assert_eq!((counts[1], counts[2]), (10, 10), "{counts:?}");
}

/// A full queue keeps the requests that it has accepted, and the lowest class still gets its share.
#[test]
fn the_lowest_class_gets_its_share_of_a_full_queue() {
    let mut h = busy(config([8, 3, 1]).max_queued(20), Priority::Interactive);
    (0..10).for_each(|n| ask(&mut h, 3_000_000 + n, Priority::Background));
    let (mut running, mut interactive, mut background) = (0, 0, 0);
    for _ in 0..90 {
        // As many as there is room for, and one that is refused.
        loop {
            interactive += 1;
            let operation = get_record(&own_key(1_000_000 + interactive), Policy::All);
            let options = RequestOptions::default().priority(Priority::Interactive);
            if h.ask(1_000_000 + interactive, operation, options).is_err() {
                break;
            }
        }
        running = next(&mut h, running);
        background += usize::from(class(running) == 2);
    }
    assert_eq!(background, 10, "one of nine");
    assert!(h.tracker.stats().refused >= 90);
}

/// A caller that makes its next request each time it was served gets no more than its share.
#[test]
fn one_request_at_a_time_does_not_bypass_the_shares() {
    let mut h = busy(config([8, 3, 1]), Priority::Interactive);
    (0..500).for_each(|n| ask(&mut h, 1_000_000 + n, Priority::Interactive));
    let (mut running, mut asked, mut counts) = (0, 0, [0; 3]);
    for _ in 0..180 {
        if asked == counts[2] {
            ask(&mut h, 3_000_000 + asked, Priority::Background);
            asked += 1;
        }
        running = next(&mut h, running);
        counts[class(running)] += 1;
    }
    assert!((19..=21).contains(&counts[2]), "{counts:?}");
}

/// A put in its second step holds results, and its caller has waited longer.
#[test]
fn a_further_step_goes_ahead_of_every_class() {
    let mut h = Harness::one_slot();
    h.request_of(1, put("k", Quorum::One), Priority::Background);
    let lookup = h.start();
    ask(&mut h, 2, Priority::Interactive);
    ask(&mut h, 3, Priority::Normal);
    h.ev(lookup, closest_found([1]), true);
    assert_eq!(h.starts.iter().map(|start| start.request.0).collect::<Vec<_>>(), [1]);
    let store = h.start();
    h.ev(store, put_ok(), true);
    assert_eq!(h.starts[0].request.0, 2);
}

// ---- requests that share a query in the queue

const SHARED: &str = "shared";

/// #1 to #3 wait: a shared background get, then a normal and an interactive one.
fn shared_in_the_background() -> Harness {
    let mut h = busy(config([8, 3, 1]), Priority::Background);
    h.request_of(1, get_record(SHARED, Policy::All), Priority::Background);
    ask(&mut h, 2, Priority::Normal);
    ask(&mut h, 3, Priority::Interactive);
    h
}

/// Order in which the queries start, each by the first request that it is for.
fn order(mut h: Harness) -> Vec<u64> {
    let mut order = Vec::new();
    let mut running = 0;
    while h.tracker.live_requests() > 1 || order.is_empty() {
        running = next(&mut h, running);
        order.push(running);
    }
    order
}

#[test]
fn a_queued_query_has_the_highest_priority_of_its_requests() {
    assert_eq!(order(shared_in_the_background()), [3, 2, 1]);

    // In its new class it has the place of its age: before #3.
    let mut h = shared_in_the_background();
    h.request_of(4, get_record(SHARED, Policy::All), Priority::Interactive);
    assert_eq!(order(h), [1, 2, 3]);

    // A lower class does not move it down.
    let mut h = shared_in_the_background();
    h.request_of(4, get_record(SHARED, Policy::All), Priority::Normal);
    h.request_of(5, get_record(SHARED, Policy::All), Priority::Background);
    assert_eq!(order(h), [3, 1, 2]);
}

#[test]
fn a_queued_query_falls_back_when_its_highest_request_leaves() {
    let mut h = shared_in_the_background();
    h.request_of(4, get_record(SHARED, Policy::All), Priority::Interactive);
    h.request_of(5, get_record(SHARED, Policy::All), Priority::Interactive);
    h.cancel(4);
    h.cancel(5);
    assert_eq!(order(h), [3, 2, 1]);

    // One of two requests ends, and the other keeps it there.
    let mut h = shared_in_the_background();
    h.request_of(4, get_record(SHARED, Policy::All), Priority::Interactive);
    h.request_of(5, get_record(SHARED, Policy::All), Priority::Interactive);
    h.cancel(5);
    assert_eq!(order(h), [1, 2, 3]);

    // The same at a deadline.
    let mut h = shared_in_the_background();
    let timeout = Some(secs(1));
    let options = RequestOptions::default().priority(Priority::Interactive).timeout(timeout);
    h.request_with(4, get_record(SHARED, Policy::All), options);
    h.tick(secs(1));
    assert_eq!(h.ending(4), "ExpiredInQueue");
    assert_eq!(order(h), [3, 2, 1]);
}

#[test]
fn a_request_that_expires_in_the_queue_leaves_its_query_to_the_others() {
    let mut h = busy(config([8, 3, 1]), Priority::Normal);
    for (request, timeout) in [(1, 5), (2, 2), (3, 9)] {
        h.request_within(request, get_record(SHARED, Policy::All), secs(timeout));
    }
    h.tick(secs(2));
    assert_eq!(h.ending(2), "ExpiredInQueue");
    h.tick(secs(5));
    assert_eq!((h.ending(1).as_str(), h.ended(3)), ("ExpiredInQueue", false));
    assert_eq!(next(&mut h, 0), 3);
    let id = h.id_of(3);
    h.ev(id, found(SHARED, 1, b"value"), false);
    h.ev(id, records_finished(), true);
    assert_eq!(h.ending(3), "Ok");
    h.assert_empty();
}

proptest! {
    #![proptest_config(property())]

    /// With a long backlog no class is ever more than one start away from its share.
    #[test]
    fn a_long_backlog_is_served_by_the_shares(shares in [1..10_u32, 1..10_u32, 1..10_u32], starts in 1..60_u32) {
        let mut h = backlog(shares, u64::from(starts));
        let counts = counts(&mut h, &mut 0, starts);
        let all: u32 = shares.iter().sum();
        for (count, share) in counts.into_iter().zip(shares) {
            let due = f64::from(starts) * f64::from(share) / f64::from(all);
            prop_assert!((f64::from(count) - due).abs() < 2.0, "{counts:?} of {shares:?} after {starts}");
        }
    }

    /// Every waiting request is served, for any requests that arrive meanwhile.
    #[test]
    fn no_class_starves(others in vec(0..3_usize, 100), shares in [0..9_u32, 0..9_u32, 0..9_u32]) {
        let mut h = busy(config(shares), Priority::Interactive);
        ask(&mut h, 3_000_000, Priority::Background);
        ask(&mut h, 2_000_000, Priority::Normal);
        let mut running = 0;
        let mut served = Vec::new();
        for (n, class) in (1..).zip(others) {
            ask(&mut h, (class as u64 + 1) * 1_000_000 + n, Priority::ALL[class]);
            running = next(&mut h, running);
            served.push(running);
        }
        prop_assert!(served.contains(&2_000_000) && served.contains(&3_000_000), "{shares:?}");
    }
}
