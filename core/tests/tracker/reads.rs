//! Reads: the items that count, each once, and the end of a read.

use kadence_core::{GetClosestPeersError, GetProvidersError, GetRecordError, Item, Outcome, Policy, TrackerConfig};

use crate::support::*;

/// Values of an answered get, in order.
fn values(h: &Harness) -> Vec<Vec<u8>> {
    match h.outcome(1) {
        Outcome::GetRecord(Ok(answer)) => answer.iter().map(|found| found.record.value.clone()).collect(),
        other => panic!("{other:?}"),
    }
}

fn reading(policy: Policy) -> (Harness, u32) {
    let mut h = Harness::default();
    h.stream(1, get_record("k", policy));
    let id = h.start();
    (h, id)
}

#[test]
fn the_first_record_satisfies_first_and_finishes_the_query() {
    let (mut h, id) = reading(Policy::First);
    h.ev(id, found("k", 1, b"one"), false);
    assert_eq!(values(&h), [b"one"]);
    assert_eq!(h.finishes, [id]);
}

#[test]
fn a_limit_of_records_is_exact() {
    let (mut h, id) = reading(Policy::Limit(2));
    h.ev(id, found("k", 1, b"one"), false);
    assert!(!h.ended(1));
    h.ev(id, found("k", 2, b"two"), false);
    h.ev(id, found("k", 3, b"three"), false);
    assert_eq!(values(&h), [b"one".to_vec(), b"two".to_vec()]);
    assert_eq!((h.items(1).len(), &h.finishes), (2, &vec![id]));
}

#[test]
fn a_limit_that_is_not_reached_ends_with_the_items_found() {
    let (mut h, id) = reading(Policy::Limit(10));
    h.ev(id, found("k", 1, b"one"), false);
    h.ev(id, records_finished(), true);
    assert_eq!(values(&h), [b"one"]);
    assert!(h.finishes.is_empty(), "kad had ended it");
    h.assert_empty();
}

/// If the item that satisfies the policy is in the last event, there is nothing to finish.
#[test]
fn a_last_event_that_satisfies_leaves_nothing_to_finish() {
    let (mut h, id) = reading(Policy::First);
    h.ev(id, found("k", 1, b"one"), true);
    assert_eq!(values(&h), [b"one"]);
    assert!(h.finishes.is_empty());
    h.assert_empty();
}

#[test]
fn each_source_counts_once_and_the_local_store_is_one() {
    let (mut h, id) = reading(Policy::Limit(3));
    h.ev(id, found_at("k", None, b"local"), false);
    h.ev(id, found_at("k", None, b"local"), false);
    h.ev(id, found("k", 1, b"one"), false);
    h.ev(id, found("k", 1, b"other"), false);
    assert!(!h.ended(1), "there were two sources");
    h.ev(id, found("k", 2, b"one"), false);
    assert_eq!(values(&h), [b"local".to_vec(), b"one".to_vec(), b"one".to_vec()]);
    assert_eq!(h.items(1).len(), 3);
}

/// kad does not check that a record has the requested key.
#[test]
fn a_record_under_another_key_is_never_an_answer() {
    for policy in [Policy::First, Policy::Limit(1), Policy::All] {
        let (mut h, id) = reading(policy);
        h.ev(id, found("other", 1, b"foreign"), false);
        h.ev(id, found("", 2, b"foreign"), false);
        assert!(!h.ended(1), "{policy:?}");
        assert!(h.items(1).is_empty());
        assert_eq!(h.tracker.stats().foreign_records, 2);
        // The same peer may still send the right one.
        h.ev(id, found("k", 1, b"right"), false);
        h.ev(id, records_finished(), true);
        assert_eq!(values(&h), [b"right"], "{policy:?}");
    }
}

/// kad does not send one in a last event; if it did, it would be counted and ignored as well.
#[test]
fn a_foreign_record_in_a_last_event_is_counted_and_not_an_answer() {
    let (mut h, id) = reading(Policy::All);
    h.ev(id, found("other", 1, b"foreign"), true);
    assert_eq!(h.ending(1), "NotFound");
    h.assert_empty();
    assert_eq!(h.tracker.stats().foreign_records, 1);
}

#[test]
fn not_found_names_the_closest_peers() {
    let (mut h, id) = reading(Policy::All);
    h.ev(id, not_found(peers([4, 5])), true);
    let Outcome::GetRecord(Err(GetRecordError::NotFound { closest_peers, certainty: _, rejected: 0, progress })) =
        h.outcome(1)
    else {
        panic!("{:?}", h.outcome(1))
    };
    assert_eq!((&**closest_peers, *progress), (&*peers([4, 5]), some_progress()));
}

/// kad finds its own copy without any peer.
#[test]
fn a_local_copy_is_an_answer_on_an_empty_routing_table() {
    let (mut h, id) = reading(Policy::All);
    h.ev_with(id, found_at("k", None, b"local"), nobody(), false);
    h.ev_with(id, records_finished(), nobody(), true);
    assert_eq!(values(&h), [b"local"]);
}

#[test]
fn each_provider_is_an_item_once() {
    let mut h = Harness::default();
    h.stream(1, get_providers("k", Policy::All));
    let id = h.start();
    h.ev(id, providers([1, 2]), false);
    h.ev(id, providers([]), false);
    h.ev(id, providers([2, 3]), false);
    h.ev(id, providers([1, 2, 3]), false);
    h.ev(id, providers_finished(), true);
    let Outcome::GetProviders(Ok(answer)) = h.outcome(1) else { panic!("{:?}", h.outcome(1)) };
    assert_eq!(*answer.providers, peers([1, 2, 3]));
    assert_eq!(h.items(1), peers([1, 2, 3]).into_iter().map(Item::Provider).collect::<Vec<_>>());
}

#[test]
fn a_provider_lookup_that_times_out_keeps_the_providers_found() {
    // By kad's timeout, and by the deadline.
    for last_event in [true, false] {
        let mut h = Harness::default();
        h.request_within(1, get_providers("k", Policy::Limit(5)), secs(5));
        let id = h.start();
        h.ev(id, providers([1, 2]), false);
        if last_event {
            h.ev(id, providers_timeout(), true);
        } else {
            h.tick(secs(5));
        }
        let Outcome::GetProviders(Err(GetProvidersError::Timeout { found, progress })) = h.outcome(1) else {
            panic!("{:?}", h.outcome(1))
        };
        assert_eq!((&**found, *progress), (&*peers([1, 2]), some_progress()));
    }
}

#[test]
fn a_lookup_of_closest_peers_that_kad_timed_out_keeps_the_peers_found() {
    let mut h = Harness::default();
    h.request(1, closest("k"));
    let id = h.start();
    h.ev(id, closest_timeout([1, 2]), true);
    let Outcome::GetClosestPeers(Err(GetClosestPeersError::Timeout { peers: found, .. })) = h.outcome(1) else {
        panic!("{:?}", h.outcome(1))
    };
    assert_eq!(found.iter().map(|info| info.peer_id).collect::<Vec<_>>(), peers([1, 2]));
}

/// A few long records are as many as many short ones. The records beyond the maximum are not added for anybody.
#[test]
fn no_query_collects_more_bytes_than_the_maximum() {
    let mut h = Harness::new(TrackerConfig::default().max_item_bytes(25));
    h.request(1, get_record("k", Policy::All));
    h.stream(2, get_record("k", Policy::All));
    h.stream(3, get_record("k", Policy::Limit(100)));
    h.request(4, get_record("k", Policy::Quorum(n(4))));
    let id = h.start();
    for from in 1..=9 {
        assert!((1..=4).all(|request| h.ended(request) == (from > 3)), "after {}", from - 1);
        h.ev(id, found("k", from, &[0; 10]), false);
    }
    for request in 1..=3 {
        let Outcome::GetRecord(Ok(answer)) = h.outcome(request) else { panic!("{:?}", h.outcome(request)) };
        assert_eq!(answer.iter().map(|found| found.peer).collect::<Vec<_>>(), [1, 2, 3].map(|n| Some(peer(n))));
    }
    assert_eq!([1, 2, 3].map(|request| h.items(request).len()), [0, 3, 3]);
    assert_eq!((h.ending(4).as_str(), h.finishes.as_slice()), ("QuorumNotReached", &[id][..]));
    h.ev(id, records_finished(), true);
    h.assert_empty();

    // A provider counts with the size of its id. Those of one response are added one by one.
    let two = TrackerConfig::default().max_item_bytes(2 * size_of::<libp2p::PeerId>());
    let mut h = Harness::new(two);
    h.request(1, get_providers("k", Policy::All));
    h.stream(2, get_providers("k", Policy::All));
    let id = h.start();
    h.ev(id, providers([1, 2, 3]), false);
    for request in [1, 2] {
        let Outcome::GetProviders(Ok(answer)) = h.outcome(request) else { panic!("{:?}", h.outcome(request)) };
        assert_eq!(*answer.providers, peers([1, 2]));
    }
    assert_eq!((h.items(2).len(), h.finishes.as_slice()), (2, &[id][..]));

    // A maximum of zero counts as one byte, and a record without a value has none.
    let mut h = Harness::new(TrackerConfig::default().max_item_bytes(0));
    h.request(1, get_record("k", Policy::All));
    let id = h.start();
    h.ev(id, found("k", 1, b""), false);
    assert!(!h.ended(1));
    h.ev(id, found("k", 2, b"v"), false);
    assert_eq!(values(&h).len(), 2);
}

/// Peers that answer without end cannot fill the memory: at the maximum the request ends as if it were satisfied.
#[test]
fn no_request_collects_more_than_the_maximum() {
    let bounded = |max_items, operation| {
        let mut h = Harness::new(TrackerConfig::default().max_items(max_items));
        h.stream(1, operation);
        let id = h.start();
        (h, id)
    };
    for policy in [Policy::All, Policy::Limit(100)] {
        let (mut h, id) = bounded(3, get_record("k", policy));
        for from in 1..=50 {
            assert_eq!(h.ended(1), from > 3);
            h.ev(id, found("k", from, b"value"), false);
        }
        assert_eq!((values(&h).len(), h.items(1).len()), (3, 3));
        assert_eq!(h.finishes, [id]);

        let (mut h, id) = bounded(3, get_providers("k", policy));
        h.ev(id, providers(1..=2), false);
        assert!(!h.ended(1));
        h.ev(id, providers(1..=50), false);
        let Outcome::GetProviders(Ok(answer)) = h.outcome(1) else { panic!("{:?}", h.outcome(1)) };
        assert_eq!((answer.providers.len(), h.items(1).len()), (3, 3));
    }
    // A smaller limit still applies, and a maximum of zero counts as one.
    let (mut h, id) = bounded(3, get_record("k", Policy::Limit(2)));
    h.ev(id, found("k", 1, b"value"), false);
    h.ev(id, found("k", 2, b"value"), false);
    assert_eq!(values(&h).len(), 2);
    let (mut h, id) = bounded(0, get_providers("k", Policy::All));
    h.ev(id, providers([]), false);
    assert!(!h.ended(1), "an empty batch fills no bound");
    h.ev(id, providers([1, 2]), false);
    let Outcome::GetProviders(Ok(answer)) = h.outcome(1) else { panic!("{:?}", h.outcome(1)) };
    assert_eq!(*answer.providers, peers([1]));
}
