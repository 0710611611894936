//! One record and another one: what is refused, and what stays.

use libp2p::{
    PeerId,
    kad::{
        ProviderRecord, Record, RecordKey,
        store::{Error, RecordStore},
    },
};

use super::{HOUR, TestClock, by, config, record, store, until};
use crate::{Refusal, Store, StoreConfig, Stored, clock::Clock};

fn name(result: &Result<Stored, Refusal>) -> String {
    match result {
        Ok(stored) => format!("{stored:?}"),
        Err(refusal) => format!("{refusal:?}").split([' ', '(']).next().unwrap().to_owned(),
    }
}

fn value(store: &Store, key: &str) -> Option<String> {
    store.get(&RecordKey::new(&key)).map(|record| String::from_utf8(record.value.clone()).unwrap())
}

#[test]
fn every_rule_between_a_stored_record_and_a_new_one() {
    let (ours, theirs) = (PeerId::random(), PeerId::random());
    let own = |value: &str| by(ours, record("/n/key", value));
    let other = |value: &str| by(theirs, record("/n/key", value));
    let own_plain = |value: &str| by(ours, record("plain", value));
    let other_plain = |value: &str| by(theirs, record("plain", value));
    // Stored, new, outcome, what is stored then.
    let table = [
        (other("5"), other("6"), "Replaced", "6"),
        (other("5"), other("4"), "Worse", "5"),
        (other("5"), other("5"), "Unchanged", "5"),
        (other("5#a"), other("5#b"), "Replaced", "5#b"),
        (other("5#b"), other("5#a"), "Worse", "5#b"),
        (other("5"), other("x"), "Invalid", "5"),
        (own("5"), other("6"), "Replaced", "6"),
        (own("5"), other("4"), "Worse", "5"),
        (own("5"), other("5"), "Unchanged", "5"),
        (other("5"), own("4"), "Worse", "5"),
        (other("5"), own("5"), "Refreshed", "5"),
        (other("5"), own("6"), "Replaced", "6"),
        (own("5"), own("4"), "Worse", "5"),
        (own("5"), own("x"), "Invalid", "5"),
        (other_plain("b"), other_plain("a"), "Replaced", "a"),
        (other_plain("a"), other_plain("a"), "Unchanged", "a"),
        (other_plain("a"), own_plain("b"), "Replaced", "b"),
        (other_plain("a"), own_plain("a"), "Refreshed", "a"),
        (own_plain("a"), other_plain("b"), "Ours", "a"),
        (own_plain("a"), other_plain("a"), "Unchanged", "a"),
        (own_plain("a"), own_plain("b"), "Replaced", "b"),
    ];
    for (number, (stored, new, outcome, remains)) in table.into_iter().enumerate() {
        let (mut store, _) = store(ours, config());
        let key = String::from_utf8(stored.key.to_vec()).unwrap();
        assert_eq!(store.insert(stored).unwrap(), Stored::New);
        assert_eq!(name(&store.insert(new)), outcome, "line {number}");
        assert_eq!(value(&store, &key).as_deref(), Some(remains), "line {number}");
        store.check();
    }
}

#[test]
fn what_may_not_be_stored_at_all() {
    let clock = TestClock::new();
    let limits =
        StoreConfig { max_value_len: 4, max_key_bytes: 8, require_validator: true, max_total_bytes: 20, ..config() };
    let now = clock.now();
    // What, by which reason, kad's reason.
    let table = [
        (record("/n/a", "12345"), "ValueTooLarge"),
        (record("/n/456789", "1"), "KeyTooLong"),
        (until(now, record("/n/a", "1")), "Expired"),
        (until(now - HOUR, record("/n/a", "1")), "Expired"),
        (record("/n/a", "x"), "Invalid"),
        (record("/o/a", "1"), "NoValidator"),
        (record("a", "1"), "NoValidator"),
    ];
    let mut store = Store::with_clock(PeerId::random(), limits, clock);
    let stats = store.stats_handle();
    for (refused, reason) in table {
        assert_eq!(name(&store.insert(refused.clone())), reason);
        let kads = store.put(refused.clone()).unwrap_err();
        assert_eq!(matches!(kads, Error::ValueTooLarge), reason.ends_with("TooLarge"), "{kads:?} for {reason}");
        assert!(store.get(&refused.key).is_none());
    }
    let refused = stats.read().refused;
    let reasons =
        [refused.value_too_large, refused.key_too_large, refused.expired, refused.invalid, refused.no_validator];
    assert_eq!((reasons, refused.total()), ([2, 2, 4, 2, 4], 14));
    assert_eq!((stats.read().records, stats.read().accepted), (0, 0));
}

#[test]
fn limits_are_inclusive() {
    let limits = StoreConfig { max_value_len: 4, max_key_bytes: 3, max_total_bytes: 7, max_records: 1, ..config() };
    let (mut store, _) = store(PeerId::random(), limits);
    assert_eq!(store.insert(record("abc", "1234")).unwrap(), Stored::New);
    assert_eq!(store.stats_handle().read().record_bytes, 7);
}

#[test]
fn the_same_bytes_again_live_longer_and_change_nothing_else() {
    let (ours, theirs) = (PeerId::random(), PeerId::random());
    let (mut store, clock) = store(ours, config());
    let now = clock.now();
    let key = RecordKey::new(&"key");
    let expires = |store: &Store| store.get(&key).map(|record| record.expires.unwrap());
    store.insert(by(theirs, until(now + 2 * HOUR, record("key", "a")))).unwrap();
    assert_eq!(store.insert(until(now + HOUR, record("key", "a"))).unwrap(), Stored::Unchanged);
    assert_eq!(expires(&store), Some(now + 2 * HOUR));
    assert_eq!(store.insert(until(now + 3 * HOUR, record("key", "a"))).unwrap(), Stored::Refreshed);
    assert_eq!(expires(&store), Some(now + 3 * HOUR));
    assert_eq!(store.get(&key).unwrap().publisher, Some(theirs));
    // Our own is not renewed by others; it lives as long as we say.
    store.insert(by(ours, until(now + HOUR, record("key", "a")))).unwrap();
    assert_eq!(store.insert(until(now + 3 * HOUR, record("key", "a"))).unwrap(), Stored::Unchanged);
    assert_eq!(expires(&store), Some(now + HOUR));
    store.check();
}

#[test]
fn others_records_end_at_the_limit_and_our_own_stay() {
    let ours = PeerId::random();
    let (mut store, clock) = store(ours, StoreConfig { max_ttl: Some(HOUR), ..config() });
    store.insert(record("a", "a")).unwrap();
    store.insert(until(clock.now() + 2 * HOUR, record("b", "b"))).unwrap();
    store.insert(by(ours, record("c", "c"))).unwrap();
    clock.pass(HOUR);
    assert_eq!((value(&store, "a"), value(&store, "b")), (None, None));
    assert_eq!(value(&store, "c").as_deref(), Some("c"));
}

#[test]
fn what_has_expired_is_not_returned_gives_way_to_anything_and_is_swept() {
    let (mut store, clock) = store(PeerId::random(), config());
    let stats = store.stats_handle();
    for number in 0..100 {
        store.insert(until(clock.now() + HOUR, record(&format!("/n/{number}"), "9"))).unwrap();
    }
    clock.pass(HOUR);
    assert_eq!((store.records().count(), value(&store, "/n/3")), (0, None));
    assert_eq!(stats.read().records, 100);
    // No better than the one that has expired.
    assert_eq!(store.insert(record("/n/99", "1")).unwrap(), Stored::New);
    assert!((68..=69).contains(&stats.read().records), "some at a time: {:?}", stats.read());
    store.sweep();
    assert_eq!(stats.read().records, 1);
    // One was replaced, or swept before that.
    assert!((99..=100).contains(&stats.read().expired));
    store.check();
}

#[test]
fn the_next_expiry_is_the_earliest_of_what_is_not_yet_swept() {
    let (mut store, clock) = store(PeerId::random(), config());
    assert_eq!(store.next_expiry(), None);
    let first = clock.now() + HOUR;
    for number in 0..100 {
        store.insert(until(first + HOUR, record(&format!("late {number}"), "a"))).unwrap();
    }
    let provider = ProviderRecord {
        expires: Some(first),
        ..ProviderRecord::new(RecordKey::new(&"key"), PeerId::random(), Vec::new())
    };
    store.insert_provider(provider).unwrap();
    assert_eq!(store.next_expiry(), Some(first));
    clock.pass(HOUR);
    assert!(!store.sweep_some());
    assert_eq!(store.next_expiry(), Some(first + HOUR));
    clock.pass(HOUR);
    let mut left = Vec::new();
    while store.sweep_some() {
        left.push(store.stats_handle().read().records);
    }
    assert_eq!((left, store.next_expiry()), (vec![68, 36, 4], None));
    store.check();
}

#[test]
fn a_removed_record_is_gone() {
    let (mut store, _) = store(PeerId::random(), config());
    store.insert(record("a", "a")).unwrap();
    store.remove(&RecordKey::new(&"b"));
    store.remove(&RecordKey::new(&"a"));
    assert_eq!((value(&store, "a"), store.records().count()), (None, 0));
    assert_eq!(store.stats_handle().read().record_bytes, 0);
    store.check();
}

#[test]
fn a_record_is_returned_as_it_was_put() {
    let ours = PeerId::random();
    let (mut store, clock) = store(ours, config());
    for put in [
        Record { publisher: None, expires: Some(clock.now() + HOUR), ..record("a", "") },
        Record { publisher: Some(PeerId::random()), expires: Some(clock.now() + 48 * HOUR), ..record("b", "b") },
        Record { publisher: Some(ours), expires: None, ..record("c", "c") },
        Record { publisher: Some(ours), expires: Some(clock.now() + 500 * HOUR), ..record("d", "d") },
    ] {
        store.put(put.clone()).unwrap();
        assert_eq!(*store.get(&put.key).unwrap(), put);
    }
    assert_eq!(store.records().count(), 4);
}
