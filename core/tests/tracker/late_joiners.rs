//! Late joiners: a request that joins a running query gets the items so far, once each, and then the rest.

use kadence_core::{Item, Outcome, Policy, TrackerConfig};
use proptest::{collection::vec, prelude::*, sample::Index};

use crate::support::*;

/// Values of the records delivered to a stream, in order.
fn delivered(h: &Harness, request: u64) -> Vec<u8> {
    let value = |item: &Item| match item {
        Item::Record(record) => record.record.value[0],
        other => panic!("{other:?}"),
    };
    h.items(request).iter().map(value).collect()
}

/// Values of an answer, in order.
fn answered(h: &Harness, request: u64) -> Vec<u8> {
    match h.outcome(request) {
        Outcome::GetRecord(Ok(answer)) => answer.iter().map(|found| found.record.value[0]).collect(),
        other => panic!("{other:?}"),
    }
}

/// A query for all records that has found `n`, with the values 1, 2, …
fn that_found(n: u8) -> (Harness, u32) {
    let mut h = Harness::default();
    h.get(0, "k");
    let id = h.start();
    for from in 1..=n {
        h.ev(id, found("k", from, &[from]), false);
    }
    (h, id)
}

#[test]
fn a_late_stream_gets_the_items_so_far_in_their_order_and_then_the_rest() {
    let (mut h, id) = that_found(3);
    h.stream(1, get_record("k", Policy::All));
    assert_eq!(delivered(&h, 1), [1, 2, 3], "at once");
    h.ev(id, found("k", 2, &[2]), false);
    h.ev(id, found("k", 4, &[4]), false);
    h.stream(2, get_record("k", Policy::All));
    h.ev(id, found("k", 5, &[5]), false);
    h.ev(id, records_finished(), true);
    for request in [1, 2] {
        assert_eq!(delivered(&h, request), [1, 2, 3, 4, 5]);
        assert_eq!(answered(&h, request), [1, 2, 3, 4, 5]);
    }
    assert!(h.items(0).is_empty(), "nothing for one who did not ask for it");
    h.assert_empty();
}

#[test]
fn a_late_request_without_a_stream_gets_all_items_in_its_outcome() {
    let (mut h, id) = that_found(3);
    h.get(1, "k");
    assert!(h.items(1).is_empty());
    h.ev(id, records_finished(), true);
    assert_eq!(answered(&h, 1), [1, 2, 3]);
}

#[test]
fn a_late_limit_gets_exactly_its_limit() {
    for streaming in [false, true] {
        for limit in 1..=6 {
            let (mut h, id) = that_found(3);
            let options = kadence_core::RequestOptions::default().streaming(streaming);
            h.request_with(1, get_record("k", Policy::Limit(limit)), options);
            assert_eq!(h.ended(1), limit <= 3, "one who is satisfied already ends at once");
            for from in 4..=8 {
                h.ev(id, found("k", from, &[from]), false);
                assert_eq!(h.ended(1), limit <= usize::from(from));
            }
            let expected: Vec<u8> = (1..=limit as u8).collect();
            assert_eq!(answered(&h, 1), expected);
            assert_eq!(delivered(&h, 1), if streaming { expected } else { Vec::new() });
            assert!(h.finishes.is_empty(), "the first one wants them all");
        }
    }
}

#[test]
fn a_late_first_ends_at_once_with_the_first() {
    let (mut h, id) = that_found(3);
    h.stream(1, get_record("k", Policy::First));
    assert_eq!((answered(&h, 1), delivered(&h, 1)), (vec![1], vec![1]));
    assert!(h.finishes.is_empty());
    h.cancel(0);
    assert_eq!(h.finishes, [id]);
}

#[test]
fn late_streams_of_providers_get_those_so_far() {
    let mut h = Harness::default();
    h.request(0, get_providers("k", Policy::All));
    let id = h.start();
    h.ev(id, providers([3, 1]), false);
    h.ev(id, providers([2]), false);
    h.stream(1, get_providers("k", Policy::All));
    h.stream(2, get_providers("k", Policy::Limit(2)));
    assert_eq!((h.items(1).len(), h.items(2).len(), h.ended(2)), (3, 2, true));
    h.ev(id, providers([2, 4]), false);
    h.ev(id, providers_finished(), true);
    let Outcome::GetProviders(Ok(answer)) = h.outcome(0) else { panic!("{:?}", h.outcome(0)) };
    let items: Vec<_> = answer.providers.iter().copied().map(Item::Provider).collect();
    assert_eq!(h.items(1), items);
    assert_eq!(h.items(2), &items[..2]);
}

/// The outcome at its own deadline includes the records found before it joined.
#[test]
fn a_late_request_at_its_deadline_has_the_items_found_before_it_joined() {
    let (mut h, _) = that_found(3);
    h.tick(secs(1));
    h.request_within(1, get_record("k", Policy::All), secs(0));
    assert_eq!(h.ending(1), "Timeout", "it did not expire in the queue");
    let Outcome::GetRecord(Err(kadence_core::GetRecordError::Timeout { found, progress })) = h.outcome(1) else {
        panic!("{:?}", h.outcome(1))
    };
    assert_eq!((found.len(), *progress), (3, some_progress()));
    assert!(h.finishes.is_empty());
}

/// A request that joins a starting query misses nothing.
#[test]
fn a_stream_that_joins_before_the_first_event_gets_everything_once() {
    let mut h = Harness::default();
    h.stream(1, get_record("k", Policy::All));
    h.stream(2, get_record("k", Policy::All));
    let id = h.start();
    h.stream(3, get_record("k", Policy::All));
    for from in 1..=3 {
        h.ev(id, found("k", from, &[from]), false);
    }
    for request in 1..=3 {
        assert_eq!(delivered(&h, request), [1, 2, 3]);
    }
}

/// Otherwise a popular key with large records would keep them in memory forever.
#[test]
fn a_request_beyond_the_bytes_of_a_replay_starts_its_own_query() {
    let mut h = Harness::new(TrackerConfig::default().max_replay_bytes(10));
    h.stream(1, get_record("k", Policy::All));
    let first = h.start();
    h.ev(first, found("k", 1, &[1; 6]), false);
    h.ev(first, found("k", 2, &[2; 4]), false);
    h.stream(2, get_record("k", Policy::All));
    assert_eq!((h.starts.len(), delivered(&h, 2)), (0, vec![1, 2]), "ten bytes are not beyond ten");
    h.ev(first, found("k", 3, &[3]), false);
    h.stream(3, get_record("k", Policy::All));
    let second = h.start();
    assert!(h.items(3).is_empty());

    // The next request joins the second query; further records of the first query are for its two requests only.
    h.stream(4, get_record("k", Policy::All));
    assert!(h.starts.is_empty());
    h.ev(first, found("k", 4, &[4]), false);
    h.ev(second, found("k", 9, &[9]), false);
    assert_eq!([1, 2, 3, 4].map(|request| delivered(&h, request).len()), [4, 4, 1, 1]);

    // The end of the first query leaves the second one shared.
    h.ev(first, records_finished(), true);
    h.stream(5, get_record("k", Policy::All));
    assert_eq!((h.starts.len(), delivered(&h, 5)), (0, vec![9]));
    h.ev(second, records_finished(), true);
    assert_eq!(h.outcomes(), 5);
    h.assert_empty();
}

/// The same for its cancellation.
#[test]
fn a_full_query_that_is_cancelled_leaves_the_next_one_joinable() {
    let mut h = Harness::new(TrackerConfig::default().max_replay_bytes(0));
    h.get(1, "k");
    let first = h.start();
    h.ev(first, found("k", 1, &[1]), false);
    h.get(2, "k");
    h.start();
    h.cancel(1);
    h.ev(first, records_finished(), true);
    h.get(3, "k");
    assert!(h.starts.is_empty());
}

proptest! {
    #![proptest_config(property())]

    /// A stream gets exactly the first items, once each, whenever it joins and for any policies of the others.
    #[test]
    fn every_stream_gets_every_item_once_whenever_it_joins(
        records in 1..15_u8,
        joiners in vec((any::<Index>(), proptest::option::of(1..20_usize)), 1..6),
    ) {
        let mut h = Harness::default();
        h.get(100, "k");
        let id = h.start();
        let at = |index: &Index| index.index(usize::from(records) + 1);
        for n in 0..=records {
            if n > 0 {
                h.ev(id, found("k", n, &[n]), false);
            }
            for (request, (join, limit)) in (0..).zip(&joiners) {
                if at(join) == usize::from(n) {
                    h.stream(request, get_record("k", limit.map_or(Policy::All, Policy::Limit)));
                }
            }
        }
        h.ev(id, records_finished(), true);
        for (request, (_, limit)) in (0..).zip(&joiners) {
            let expected: Vec<u8> = (1..=records).take(limit.unwrap_or(usize::MAX)).collect();
            prop_assert_eq!(delivered(&h, request), expected);
        }
        h.assert_empty();
    }
}
