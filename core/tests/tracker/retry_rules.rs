//! Rules of retries: the errors that are retried, the jitter of delays, and announcements between attempts.

use std::time::Duration;

use kadence_core::{OperationKind, Policy, Quorum, RequestId, RequestOptions, Retry, TrackerConfig};
use proptest::prelude::*;

use crate::support::*;

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

// ---- errors that are retried

/// kad's last event, and whether the request is retried.
#[test]
fn only_retryable_outcomes_are_retried() {
    use OperationKind as Op;
    let cases = [
        (Op::GetRecord, not_found(Vec::new()), some_progress(), true),
        (Op::GetRecord, get_timeout(), some_progress(), true),
        (Op::GetRecord, found("k", 1, b"value"), some_progress(), false),
        (Op::GetProviders, providers_finished(), some_progress(), true),
        (Op::GetProviders, providers([1]), some_progress(), false),
        (Op::GetClosestPeers, closest_found([]), all_failed(), true),
        (Op::GetClosestPeers, closest_timeout([]), some_progress(), true),
        (Op::GetClosestPeers, closest_timeout([1]), some_progress(), false),
        (Op::PutRecord, closest_found([]), all_failed(), true),
        (Op::PutRecordTo, put_quorum_failed(Vec::new()), all_failed(), true),
        (Op::PutRecordTo, put_timeout(Vec::new()), all_failed(), true),
        (Op::StartProviding, provide_timeout(), some_progress(), true),
        (Op::StartProviding, provide_ok(), all_failed(), true),
        (Op::Bootstrap, bootstrap_timeout(None), some_progress(), true),
        (Op::Bootstrap, bootstrap_ok(0), some_progress(), false),
    ];
    for (kind, last, progress, again) in cases {
        let mut h = Harness::default();
        h.request_with(1, ordinary(kind), RequestOptions::default().retry(Retry::default()));
        let id = h.start();
        h.ev_with(id, last.clone(), progress, true);
        assert_eq!(h.ended(1), !again, "{kind} at {last:?}");
        h.let_time_pass();
        h.assert_empty();
    }
    // A rejection by the local store is not retried.
    let mut h = Harness::default();
    let options = RequestOptions::default().retry(Retry::default());
    h.request_with(1, provide("k"), options);
    h.refuse(store_error());
    assert_eq!(h.ending(1), "Store");
}

/// Another attempt would find as much again.
#[test]
fn a_request_whose_query_has_found_the_maximum_is_not_retried() {
    let bounds = [TrackerConfig::default().max_items(3), TrackerConfig::default().max_item_bytes(3)];
    for config in bounds {
        for (records, again) in [(2, true), (3, false)] {
            let mut h = Harness::new(config.clone());
            let options = RequestOptions::default().retry(Retry::default());
            h.request_with(1, get_record("k", Policy::Quorum(Quorum::N(4))), options);
            let id = h.start();
            for from in 1..=records {
                assert!(!h.ended(1));
                h.ev(id, found("k", from, b"v"), false);
            }
            assert_eq!(h.ended(1), !again);
            h.ev(id, records_finished(), true);
            assert_eq!(h.ended(1), !again);
            if !again {
                assert_eq!(h.ending(1), "QuorumNotReached");
            }
        }
    }
}

// ---- jitter of delays

const MANY: u32 = 6;

fn with_jitter(jitter_percent: u8) -> Retry {
    Retry::default().attempts(MANY + 1).base(millis(100)).cap(secs(60)).jitter_percent(jitter_percent)
}

/// Delays of request `id` after each of its attempts.
fn waits(seed: u64, id: u64, retry: Retry) -> Vec<Duration> {
    let mut h = Harness::new(TrackerConfig::default().seed(seed));
    let options = RequestOptions::default().retry(retry).timeout(secs(1000));
    h.request_with(id, get_record("k", Policy::All), options);
    let mut waits = Vec::new();
    for _ in 1..retry.attempts {
        let query = h.start();
        h.ev(query, not_found(Vec::new()), true);
        let due = h.timeout().expect("a retry is due");
        waits.push(due - h.now);
        h.tick(due);
    }
    waits
}

#[test]
fn the_same_seed_gives_the_same_delays_and_another_seed_gives_others() {
    let retry = with_jitter(50);
    assert_eq!(waits(7, 1, retry), waits(7, 1, retry));
    assert_ne!(waits(7, 1, retry), waits(8, 1, retry));
    assert_ne!(waits(7, 1, retry), waits(7, 2, retry), "those that failed together do not come back together");
    let relative: Vec<_> = (0..).zip(waits(7, 1, retry)).map(|(n, wait)| wait / (1 << n)).collect();
    assert!(relative.windows(2).any(|pair| pair[0].abs_diff(pair[1]) > millis(1)), "each attempt: {relative:?}");
}

/// Requests that failed together are spread over the whole random part.
#[test]
fn delays_are_spread_evenly() {
    let mut quarters = [0; 4];
    for id in 0..400 {
        let wait = waits(3, id, with_jitter(80).attempts(2))[0];
        let quarter = (wait - millis(20)).as_micros() * 4 / 80_000;
        quarters[quarter.min(3) as usize] += 1;
    }
    assert!(quarters.iter().all(|quarter| (70..130).contains(quarter)), "{quarters:?}");
}

proptest! {
    #![proptest_config(property())]

    #[test]
    fn a_wait_is_never_longer_than_its_full_length_nor_shorter_by_more_than_its_jitter(
        seed in any::<u64>(),
        id in 0..RequestId::FIRST_RESERVED.0,
        jitter in any::<u8>(),
        cap in 1..10_000_u64,
    ) {
        let retry = with_jitter(jitter).cap(millis(cap));
        for (attempt, wait) in (0..).zip(waits(seed, id, retry)) {
            let full = millis(100 * (1 << attempt)).min(millis(cap));
            let least = full - full * u32::from(jitter.min(100)) / 100;
            prop_assert!((least..=full).contains(&wait), "{wait:?} of {full:?} with {jitter} % by lot");
            prop_assert!(jitter > 0 || wait == full);
        }
    }
}

// ---- an announcement between its attempts

fn announce(h: &mut Harness, request: u64, attempts: u32) {
    let retry = Some(Retry::default().attempts(attempts).base(secs(1)).cap(secs(1)).jitter_percent(0));
    h.request_with(request, provide("k"), RequestOptions::default().retry(retry).timeout(secs(100)));
}

/// Between attempts the local store does not name the local peer as a provider.
#[test]
fn an_announcement_removes_its_entry_between_attempts() {
    let mut h = Harness::default();
    announce(&mut h, 1, 3);
    for attempt in 1..=3 {
        let id = h.start_with(false);
        assert_eq!(h.stopped.len(), attempt - 1);
        h.ev(id, provide_timeout(), true);
        assert_eq!(h.stopped.len(), attempt, "once for each attempt");
        h.tick(h.now + secs(1));
    }
    assert_eq!(h.ending(1), "Timeout");
    assert_eq!(h.stopped, [key("k"), key("k"), key("k")]);
    h.assert_empty();

    // The entry of a successful one stays.
    let mut h = Harness::default();
    announce(&mut h, 1, 3);
    let first = h.start_with(false);
    h.ev(first, provide_timeout(), true);
    h.tick(secs(1));
    let second = h.start_with(false);
    h.ev(second, provide_ok(), true);
    assert_eq!((h.ending(1).as_str(), h.stopped.len()), ("Ok", 1));
    h.assert_empty();
}

#[test]
fn an_entry_that_existed_before_stays_between_attempts() {
    let mut h = Harness::default();
    announce(&mut h, 1, 3);
    for _ in 0..3 {
        let id = h.start_with(true);
        h.ev(id, provide_timeout(), true);
        h.tick(h.now + secs(1));
    }
    assert_eq!(h.ending(1), "Timeout");
    assert!(h.stopped.is_empty());
    h.assert_empty();
}

#[test]
fn an_attempt_that_does_not_start_has_no_entry_to_remove() {
    let mut h = Harness::default();
    announce(&mut h, 1, 2);
    h.refuse(kadence_core::QueryStartError::NoKnownPeers);
    h.tick(secs(1));
    let id = h.start_with(false);
    h.ev(id, provide_ok(), true);
    assert_eq!(h.ending(1), "Ok");
    assert!(h.stopped.is_empty());
    h.assert_empty();
}

/// Cancelled or expired, while there is no entry to remove.
#[test]
fn an_announcement_that_ends_while_it_backs_off_removes_nothing_twice() {
    for end in [|h: &mut Harness| h.cancel(1), |h: &mut Harness| h.shut_down(false)] {
        let mut h = Harness::default();
        announce(&mut h, 1, 3);
        let id = h.start_with(false);
        h.ev(id, provide_timeout(), true);
        end(&mut h);
        assert!(h.ended(1));
        assert_eq!(h.stopped.len(), 1);
        h.let_time_pass();
        assert_eq!(h.stopped.len(), 1);
        h.assert_empty();
    }
}

/// Another announcement of the key that is alive or has succeeded keeps the entry.
#[test]
fn an_announcement_that_backs_off_leaves_the_entry_to_another_one() {
    for other_is_heard in [true, false] {
        let mut h = Harness::default();
        announce(&mut h, 1, 3);
        let first = h.start_with(false);
        h.request(2, provide("k"));
        let second = h.start_with(true);
        h.ev(first, provide_timeout(), true);
        assert!(h.stopped.is_empty(), "the second one is under way");
        h.ev(second, if other_is_heard { provide_ok() } else { provide_timeout() }, true);
        assert_eq!(h.stopped.len(), usize::from(!other_is_heard));
        // The next attempt of the first finds the entry that the second has left.
        h.tick(secs(1));
        let third = h.start_with(other_is_heard);
        h.ev(third, provide_timeout(), true);
        assert_eq!(h.stopped.len(), if other_is_heard { 0 } else { 2 });
    }
}

/// An announcement that backs off does not count as one with an entry, so its end removes nothing of a running one.
#[test]
fn an_announcement_that_ends_while_it_backs_off_leaves_the_entry_to_another_one() {
    let mut h = Harness::default();
    announce(&mut h, 1, 3);
    let first = h.start_with(false);
    h.request(2, provide("k"));
    let second = h.start_with(true);
    h.ev(first, provide_timeout(), true);
    h.cancel(1);
    assert!(h.stopped.is_empty(), "the second one is under way");
    h.ev(second, provide_ok(), true);
    assert!(h.stopped.is_empty());
    h.assert_empty();
}
