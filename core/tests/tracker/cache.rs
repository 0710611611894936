//! The cache: the answers that it holds, and the requests that it answers.

use std::{collections::BTreeMap, time::Duration};

use kadence_core::{
    Cache, Certainty, Command, GetProvidersError, GetRecordError, Item, Operation, OperationKind, Outcome, OutcomeKind,
    Policy, Progress, Quorum, RequestOptions, TrackerConfig,
};
use libp2p::kad::{GetRecordOk, PeerRecord, QueryResult, Record};

use crate::support::*;

/// A tracker that caches records for a minute, and their absence for five seconds.
fn caching() -> Harness {
    with_cache(Cache::default())
}

fn with_cache(cache: Cache) -> Harness {
    Harness::new(validating().cache(cache))
}

/// Every peer that was asked has answered.
fn all_answered() -> Progress {
    Progress { requests: 5, successes: 5, failures: 0 }
}

/// A request whose query finds these values, each at another peer, and ends.
fn read(h: &mut Harness, request: u64, name: &str, policy: Policy, values: &[&[u8]]) {
    h.request(request, get_record(name, policy));
    find(h, name, values, all_answered());
}

fn find(h: &mut Harness, name: &str, values: &[&[u8]], progress: Progress) {
    let id = h.start();
    for (peer, value) in (1..).zip(values) {
        h.ev_with(id, found(name, peer, value), progress, false);
    }
    let end = if values.is_empty() { not_found(peers([7])) } else { records_finished() };
    h.ev_with(id, end, progress, true);
}

/// Age of the answer to a request; `None` if it came from the network.
fn age(h: &Harness, request: u64) -> Option<Duration> {
    match h.outcome(request) {
        Outcome::GetRecord(Ok(answer)) => answer.cached,
        Outcome::GetProviders(Ok(answer)) => answer.cached,
        Outcome::GetRecord(Err(GetRecordError::NotFound { cached, .. }))
        | Outcome::GetProviders(Err(GetProvidersError::NotFound { cached, .. })) => *cached,
        other => panic!("{other:?}"),
    }
}

/// Returns whether a request for this operation is answered by the cache; if not, it is cancelled.
fn hits(h: &mut Harness, request: u64, operation: Operation) -> bool {
    let starts = h.starts.len();
    h.request(request, operation);
    let hit = h.ended(request);
    assert_eq!(hit, age_if_ended(h, request).is_some());
    assert_eq!(h.starts.len(), starts + usize::from(!hit));
    if !hit {
        let id = h.start();
        h.cancel(request);
        h.ev(id, not_found(Vec::new()), true);
    }
    hit
}

fn age_if_ended(h: &Harness, request: u64) -> Option<Duration> {
    if h.ended(request) { age(h, request) } else { None }
}

fn get(policy: Policy) -> Operation {
    get_record("k", policy)
}

#[test]
fn nothing_is_cached_by_default() {
    let mut h = Harness::default();
    read(&mut h, 1, "k", Policy::All, &[b"one"]);
    assert!(!hits(&mut h, 2, get(Policy::First)));
    assert_eq!((h.tracker.stats().cache_hits, h.tracker.stats().cache_misses), (0, 0));
}

#[test]
fn a_second_request_is_answered_at_once_with_the_age_of_the_answer() {
    let mut h = caching();
    read(&mut h, 1, "k", Policy::First, &[b"one"]);
    assert_eq!(age(&h, 1), None);
    h.now = secs(59);
    h.request(2, get(Policy::First));
    assert_eq!(age(&h, 2), Some(secs(59)));
    let (Outcome::GetRecord(Ok(first)), Outcome::GetRecord(Ok(second))) = (h.outcome(1), h.outcome(2)) else {
        panic!("{:?}", h.outcome(2))
    };
    assert_eq!((second.value(), &second.record), (&b"one"[..], &first.record));
    let stats = h.tracker.stats();
    assert_eq!((stats.accepted, stats.cache_hits, stats.cache_misses), (2, 1, 1));
    let durations = h.tracker.metrics().durations(OperationKind::GetRecord, OutcomeKind::Answered);
    assert_eq!(durations.count(), 2);
    h.assert_empty();
}

#[test]
fn an_answer_is_cached_until_its_maximum_age() {
    let mut h = caching();
    read(&mut h, 1, "k", Policy::All, &[b"one"]);
    h.now = secs(60) - Duration::from_nanos(1);
    assert!(hits(&mut h, 2, get(Policy::All)));
    h.now = secs(60);
    assert!(!hits(&mut h, 3, get(Policy::All)));
}

#[test]
fn an_answer_is_not_cached_beyond_the_expiry_of_any_of_its_records() {
    let mut h = caching();
    h.request(1, get(Policy::All));
    let id = h.start();
    for (from, expires) in [(1, None), (2, Some(h.instant(secs(3)))), (3, Some(h.instant(secs(9))))] {
        let record = Record { expires, ..record("k", b"one") };
        let found = GetRecordOk::FoundRecord(PeerRecord { peer: Some(peer(from)), record });
        h.ev_with(id, QueryResult::GetRecord(Ok(found)), all_answered(), false);
    }
    h.ev_with(id, records_finished(), all_answered(), true);
    h.now = secs(3) - Duration::from_nanos(1);
    assert!(hits(&mut h, 2, get(Policy::First)));
    h.now = secs(3);
    assert!(!hits(&mut h, 3, get(Policy::First)));
}

/// Every policy with every kind of cached answer.
#[test]
fn a_cached_answer_serves_the_policies_that_it_satisfies() {
    const V: &[&[u8]] = &[b"\x01", b"\x01", b"\x02"];
    let asked = [
        Policy::First,
        Policy::Limit(2),
        Policy::Limit(3),
        Policy::Limit(4),
        Policy::All,
        Policy::Quorum(Quorum::N(2)),
        Policy::Quorum(Quorum::N(3)),
        Policy::Best { agree: Some(Quorum::N(1)) },
        Policy::Best { agree: Some(Quorum::N(2)) },
        Policy::Best { agree: None },
    ];
    // The first request's policy, and which of the policies above its answer serves.
    let table = [
        (Policy::First, [true, false, false, false, false, false, false, true, false, false]),
        (Policy::Limit(2), [true, true, false, false, false, true, false, true, true, false]),
        (Policy::Limit(3), [true, true, true, false, false, true, false, true, false, false]),
        (Policy::Limit(4), [true, true, true, true, true, true, false, true, true, true]),
        (Policy::All, [true, true, true, true, true, true, false, true, true, true]),
        (Policy::Quorum(Quorum::N(2)), [true, true, false, false, false, true, false, true, true, false]),
        (Policy::Quorum(Quorum::N(3)), [false; 10]),
        (Policy::Best { agree: None }, [true, true, true, true, true, true, false, true, true, true]),
    ];
    for (first, expected) in table {
        let served = asked.map(|policy| {
            let mut h = caching();
            read(&mut h, 1, "/v/k", first, V);
            hits(&mut h, 2, get_record("/v/k", policy))
        });
        assert_eq!(served, expected, "{first:?}");
    }
}

/// The answer is the same as from the network.
#[test]
fn a_cached_answer_to_a_policy_is_the_one_that_a_query_gives() {
    let values: &[&[u8]] = &[b"\x01", b"\x02", b"\x01", b"\x03"];
    let policies =
        [Policy::First, Policy::Limit(3), Policy::All, Policy::Quorum(Quorum::N(2)), Policy::Best { agree: None }];
    for policy in policies {
        let mut h = caching();
        read(&mut h, 1, "/v/k", Policy::All, values);
        h.stream(2, get_record("/v/k", policy));
        let Outcome::GetRecord(Ok(kept)) = h.outcome(2).clone() else { panic!("{policy:?}: {:?}", h.outcome(2)) };
        assert_eq!(h.items(2).len(), kept.iter().count(), "{policy:?}");
        let value = match policy {
            Policy::Best { agree: _ } => b"\x03",
            _ => b"\x01",
        };
        assert_eq!((kept.value(), kept.progress), (&value[..], all_answered()), "{policy:?}");
    }
}

#[test]
fn a_stream_gets_the_items_of_a_cached_answer_and_then_its_end() {
    let mut h = caching();
    read(&mut h, 1, "k", Policy::All, &[b"one", b"two", b"three"]);
    let before = h.trace.len();
    h.stream(2, get(Policy::Limit(2)));
    let [Item::Record(first), Item::Record(second)] = h.items(2) else { panic!("{:?}", h.items(2)) };
    assert_eq!((&*first.record.value, &*second.record.value), (&b"one"[..], &b"two"[..]));
    assert_eq!(h.trace.len(), before + 3);
    assert!(h.trace[before + 2].contains("Outcome"));
}

#[test]
fn not_found_is_cached_for_a_short_time_and_only_if_conclusive() {
    let inconclusive = Progress { requests: 5, successes: 3, failures: 2 };
    for (progress, kept) in [(all_answered(), true), (inconclusive, false)] {
        let mut h = caching();
        h.request(1, get(Policy::First));
        find(&mut h, "k", &[], progress);
        h.now = secs(4);
        assert_eq!(hits(&mut h, 2, get(Policy::Quorum(Quorum::N(2)))), kept);
        if kept {
            let Outcome::GetRecord(Err(GetRecordError::NotFound {
                closest_peers,
                certainty,
                rejected: 0,
                progress: said,
                cached,
            })) = h.outcome(2)
            else {
                panic!("{:?}", h.outcome(2))
            };
            assert_eq!((closest_peers, *certainty, *said), (&peers([7]), Certainty::Conclusive, progress));
            assert_eq!(*cached, Some(secs(4)));
        }
        h.now = secs(5);
        assert!(!hits(&mut h, 3, get(Policy::First)));
    }
}

#[test]
fn items_of_a_query_with_too_few_answers_are_not_cached() {
    let mut h = caching();
    h.request(1, get(Policy::All));
    find(&mut h, "k", &[b"one"], Progress { requests: 10, successes: 5, failures: 5 });
    assert_eq!(h.ending(1), "Ok");
    assert!(!hits(&mut h, 2, get(Policy::First)));
}

#[test]
fn nothing_is_cached_of_a_query_that_was_cancelled_timed_out_or_missed_a_quorum() {
    for end in ["cancel", "deadline", "kad's timeout", "conflict", "too few"] {
        let mut h = caching();
        h.request_within(1, get(Policy::Quorum(Quorum::N(3))), secs(5));
        let id = h.start();
        h.ev_with(id, found("k", 1, b"one"), all_answered(), false);
        match end {
            "cancel" => h.cancel(1),
            "deadline" => h.tick(secs(5)),
            "kad's timeout" => h.ev_with(id, get_timeout(), all_answered(), true),
            "conflict" => {
                h.ev_with(id, found("k", 2, b"two"), all_answered(), false);
                h.ev_with(id, records_finished(), all_answered(), true);
            }
            _ => h.ev_with(id, records_finished(), all_answered(), true),
        }
        assert_ne!(h.ending(1), "Ok");
        if ["cancel", "deadline"].contains(&end) {
            h.ev_with(id, records_finished(), all_answered(), true);
        }
        assert!(!hits(&mut h, 2, get(Policy::First)), "{end}");
    }
}

#[test]
fn a_rejected_record_is_not_cached() {
    let mut h = caching();
    h.request(1, get_record("/v/k", Policy::All));
    find(&mut h, "/v/k", &[b"\x00", b"\x01"], all_answered());
    h.request(2, get_record("/v/k", Policy::All));
    let Outcome::GetRecord(Ok(answer)) = h.outcome(2) else { panic!("{:?}", h.outcome(2)) };
    assert_eq!((answer.value(), answer.iter().count()), (&b"\x01"[..], 1));
    assert!(answer.cached.is_some());
}

#[test]
fn providers_are_cached_separately_from_records() {
    let mut h = caching();
    h.request(1, get_providers("k", Policy::All));
    let id = h.start();
    h.ev_with(id, providers([1, 2]), all_answered(), false);
    h.ev_with(id, providers_finished(), all_answered(), true);
    assert!(!hits(&mut h, 2, get(Policy::First)));
    h.stream(3, get_providers("k", Policy::Limit(3)));
    let Outcome::GetProviders(Ok(answer)) = h.outcome(3) else { panic!("{:?}", h.outcome(3)) };
    assert_eq!((&answer.providers, answer.cached), (&peers([1, 2]), Some(Duration::ZERO)));
    assert_eq!(h.items(3).len(), 2);

    let mut h = caching();
    h.request(1, get_providers("k", Policy::All));
    let id = h.start();
    h.ev_with(id, providers_finished(), all_answered(), true);
    assert!(hits(&mut h, 2, get_providers("k", Policy::First)));
    assert_eq!(h.ending(2), "NotFound");
}

#[test]
fn a_fresh_read_asks_the_network_and_replaces_the_cached_answer() {
    let mut h = caching();
    read(&mut h, 1, "k", Policy::All, &[b"old"]);
    h.request_with(2, get(Policy::All), RequestOptions::default().fresh(true));
    find(&mut h, "k", &[b"new"], all_answered());
    assert_eq!(age(&h, 2), None);
    h.request(3, get(Policy::All));
    let Outcome::GetRecord(Ok(answer)) = h.outcome(3) else { panic!("{:?}", h.outcome(3)) };
    assert_eq!((answer.value(), answer.cached), (&b"new"[..], Some(Duration::ZERO)));
    assert_eq!(h.tracker.stats().cache_misses, 1, "the first request's");
}

#[test]
fn a_write_removes_the_cached_answers_under_its_key_only() {
    let writes = [put("k", Quorum::One), put_to("k", peers([1]), Quorum::One), provide("k")];
    for write in writes {
        let mut h = caching();
        read(&mut h, 1, "k", Policy::All, &[b"old"]);
        read(&mut h, 2, "other", Policy::All, &[b"old"]);
        h.request(3, write.clone());
        h.cancel(3);
        h.start_all();
        assert!(!hits(&mut h, 4, get(Policy::All)), "{write:?}");
        assert!(hits(&mut h, 5, get_record("other", Policy::All)));
    }
    let mut h = caching();
    read(&mut h, 1, "k", Policy::All, &[b"old"]);
    let at = h.instant(h.now);
    h.tracker.handle_command(Command::Forget { key: key("k") }, at).unwrap();
    assert!(!hits(&mut h, 2, get(Policy::All)));
}

#[test]
fn nothing_is_cached_of_a_read_that_was_running_during_a_write_to_its_key() {
    // A read that starts before, during and after the write.
    for (begins, ends, kept) in [(0, 1, false), (0, 2, false), (1, 1, false), (1, 2, false), (2, 2, true)] {
        let mut h = caching();
        let (mut reading, mut writing) = (0, 0);
        for time in 0..3 {
            if begins == time {
                h.request(1, get(Policy::All));
                reading = h.start();
            }
            if ends == time {
                h.ev_with(reading, found("k", 1, b"old"), all_answered(), false);
                h.ev_with(reading, records_finished(), all_answered(), true);
            }
            match time {
                0 => {
                    h.request(2, put_to("k", peers([1]), Quorum::One));
                    writing = h.start();
                }
                1 => h.ev(writing, put_ok(), true),
                _ => {}
            }
        }
        assert_eq!((h.ending(1).as_str(), h.ending(2).as_str()), ("Ok", "Ok"));
        assert_eq!(hits(&mut h, 3, get(Policy::All)), kept, "from {begins} to {ends}");
    }
}

/// A cached answer needs no place in the queue and no slot.
#[test]
fn a_cached_answer_is_available_when_the_queue_is_full() {
    let cache = Some(Cache::default());
    let mut h = Harness::new(TrackerConfig::default().max_running(1).max_queued(0).cache(cache));
    read(&mut h, 1, "k", Policy::All, &[b"one"]);
    h.get_own(2);
    assert!(h.ask(3, get_record("new", Policy::All), RequestOptions::default()).is_err());
    assert!(hits(&mut h, 4, get(Policy::All)));
    assert_eq!(h.tracker.live_requests(), 1);
}

#[test]
fn a_full_cache_removes_the_entry_that_expires_first_and_rejects_one_that_is_too_large() {
    let entry = 320 + 1 + 320 + 1 + 100;
    let mut h = with_cache(Cache::default().max_bytes(3 * entry));
    let value: &[u8] = &[1; 100];
    for (request, name) in [(1, "a"), (2, "b"), (3, "c"), (4, "a"), (5, "d")] {
        h.now += secs(1);
        let fresh = RequestOptions::default().fresh(true);
        h.request_with(request, get_record(name, Policy::All), fresh);
        find(&mut h, name, &[value], all_answered());
    }
    let kept: BTreeMap<_, _> = (10..)
        .zip(["a", "b", "c", "d"])
        .map(|(request, name)| (name, hits(&mut h, request, get_record(name, Policy::All))))
        .collect();
    assert_eq!(kept, BTreeMap::from([("a", true), ("b", false), ("c", true), ("d", true)]));
    let large = vec![1; 3 * entry];
    h.request_with(20, get_record("a", Policy::All), RequestOptions::default().fresh(true));
    find(&mut h, "a", &[&large], all_answered());
    assert!(!hits(&mut h, 21, get_record("a", Policy::All)), "the older answer is outdated");
    assert!(hits(&mut h, 22, get_record("c", Policy::All)), "nothing else gave way to it");
}
