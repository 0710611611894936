//! A stored record and a new one: which is rejected, and which stays.

use libp2p::{
    PeerId,
    kad::{
        ProviderRecord, Record, RecordKey,
        store::{Error, RecordStore},
    },
};

use super::{HOUR, TestClock, by, config, record, store, until};
use crate::{InsertError, InsertOutcome, Store, StoreConfig, clock::Clock};

fn name(result: &Result<InsertOutcome, InsertError>) -> String {
    match result {
        Ok(stored) => format!("{stored:?}"),
        Err(error) => format!("{error:?}").split([' ', '(']).next().unwrap().to_owned(),
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
    // Stored record, new record, outcome, value that stays.
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
        (own_plain("a"), other_plain("b"), "OwnRecord", "a"),
        (own_plain("a"), other_plain("a"), "Unchanged", "a"),
        (own_plain("a"), own_plain("b"), "Replaced", "b"),
    ];
    for (number, (stored, new, outcome, remains)) in table.into_iter().enumerate() {
        let (mut store, _) = store(ours, config());
        let key = String::from_utf8(stored.key.to_vec()).unwrap();
        assert_eq!(store.insert(stored).unwrap(), InsertOutcome::New);
        assert_eq!(name(&store.insert(new)), outcome, "line {number}");
        assert_eq!(value(&store, &key).as_deref(), Some(remains), "line {number}");
        store.check();
    }
}

#[test]
fn invalid_records_are_rejected() {
    let clock = TestClock::new();
    let limits =
        StoreConfig { max_value_len: 4, max_key_len: 8, require_validator: true, max_total_bytes: 20, ..config() };
    let now = clock.now();
    // Record and reason.
    let table = [
        (record("/n/a", "12345"), "ValueTooLong"),
        (record("/n/456789", "1"), "KeyTooLong"),
        (until(now, record("/n/a", "1")), "Expired"),
        (until(now - HOUR, record("/n/a", "1")), "Expired"),
        (record("/n/a", "x"), "Invalid"),
        (record("/o/a", "1"), "NoValidator"),
        (record("a", "1"), "NoValidator"),
    ];
    let mut store = Store::with_clock(PeerId::random(), limits, clock);
    let stats = store.stats_handle();
    for (record, reason) in table {
        assert_eq!(name(&store.insert(record.clone())), reason);
        let kads = store.put(record.clone()).unwrap_err();
        assert_eq!(matches!(kads, Error::ValueTooLarge), reason.ends_with("TooLong"), "{kads:?} for {reason}");
        assert!(store.get(&record.key).is_none());
    }
    let errors = stats.read().insert_errors;
    let reasons = [errors.value_too_long, errors.key_too_long, errors.expired, errors.invalid, errors.no_validator];
    assert_eq!((reasons, errors.total()), ([2, 2, 4, 2, 4], 14));
    assert_eq!((stats.read().records, stats.read().accepted), (0, 0));
}

#[test]
fn limits_are_inclusive() {
    let limits = StoreConfig { max_value_len: 4, max_key_len: 3, max_total_bytes: 7, max_records: 1, ..config() };
    let (mut store, _) = store(PeerId::random(), limits);
    assert_eq!(store.insert(record("abc", "1234")).unwrap(), InsertOutcome::New);
    assert_eq!(store.stats_handle().read().record_bytes, 7);
}

#[test]
fn the_same_value_again_extends_the_expiry_only() {
    let (ours, theirs) = (PeerId::random(), PeerId::random());
    let (mut store, clock) = store(ours, config());
    let now = clock.now();
    let key = RecordKey::new(&"key");
    let expires = |store: &Store| store.get(&key).map(|record| record.expires.unwrap());
    store.insert(by(theirs, until(now + 2 * HOUR, record("key", "a")))).unwrap();
    assert_eq!(store.insert(until(now + HOUR, record("key", "a"))).unwrap(), InsertOutcome::Unchanged);
    assert_eq!(expires(&store), Some(now + 2 * HOUR));
    assert_eq!(store.insert(until(now + 3 * HOUR, record("key", "a"))).unwrap(), InsertOutcome::Refreshed);
    assert_eq!(expires(&store), Some(now + 3 * HOUR));
    assert_eq!(store.get(&key).unwrap().publisher, Some(theirs));
    // An own record is not renewed by others.
    store.insert(by(ours, until(now + HOUR, record("key", "a")))).unwrap();
    assert_eq!(store.insert(until(now + 3 * HOUR, record("key", "a"))).unwrap(), InsertOutcome::Unchanged);
    assert_eq!(expires(&store), Some(now + HOUR));
    store.check();
}

#[test]
fn records_of_others_expire_at_the_limit_and_own_ones_stay() {
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
fn expired_records_are_not_returned_are_replaced_by_any_record_and_are_swept() {
    let (mut store, clock) = store(PeerId::random(), config());
    let stats = store.stats_handle();
    for number in 0..100 {
        store.insert(until(clock.now() + HOUR, record(&format!("/n/{number}"), "9"))).unwrap();
    }
    clock.pass(HOUR);
    assert_eq!((store.records().count(), value(&store, "/n/3")), (0, None));
    assert_eq!(stats.read().records, 100);
    // It is worse than the expired one.
    assert_eq!(store.insert(record("/n/99", "1")).unwrap(), InsertOutcome::New);
    assert!((68..=69).contains(&stats.read().records), "some at a time: {:?}", stats.read());
    store.sweep();
    assert_eq!(stats.read().records, 1);
    // One was replaced, or swept before.
    assert!((99..=100).contains(&stats.read().expired));
    store.check();
}

#[test]
fn the_next_expiry_is_the_earliest_that_was_not_swept() {
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
