//! A full store.

use libp2p::{
    PeerId,
    kad::{RecordKey, store::RecordStore},
};

use super::{HOUR, by, config, keys_by_distance, record, store, until};
use crate::{InsertError, InsertOutcome, Store, StoreConfig, clock::Clock, records::MAX_EVICTIONS};

fn stored(store: &Store, keys: &[String]) -> Vec<usize> {
    (0..keys.len()).filter(|at| store.get(&RecordKey::new(&keys[*at])).is_some()).collect()
}

#[test]
fn closer_records_evict_the_farthest() {
    let local = PeerId::random();
    let keys = keys_by_distance(local, 10);
    let (mut store, _) = store(local, StoreConfig { max_records: 3, ..config() });
    for at in [2, 9, 5] {
        store.insert(record(&keys[at], "v")).unwrap();
    }
    assert!(matches!(store.insert(record(&keys[9], "w")), Ok(InsertOutcome::Replaced)), "a replacement needs no room");
    store.insert(record(&keys[8], "v")).unwrap();
    assert_eq!(stored(&store, &keys), [2, 5, 8]);
    assert!(matches!(store.insert(record(&keys[9], "v")), Err(InsertError::Full)));
    store.insert(record(&keys[0], "v")).unwrap();
    assert_eq!(stored(&store, &keys), [0, 2, 5]);
    assert_eq!(store.stats_handle().read().evicted, 2);
    store.check();
}

#[test]
fn own_records_are_never_evicted_and_evict_closer_ones() {
    let local = PeerId::random();
    let keys = keys_by_distance(local, 5);
    let (mut store, _) = store(local, StoreConfig { max_records: 2, ..config() });
    store.insert(record(&keys[0], "v")).unwrap();
    store.insert(record(&keys[1], "v")).unwrap();
    store.insert(by(local, record(&keys[4], "v"))).unwrap();
    assert_eq!(stored(&store, &keys), [0, 4]);
    store.insert(by(local, record(&keys[3], "v"))).unwrap();
    assert_eq!(stored(&store, &keys), [3, 4]);
    assert!(matches!(store.insert(record(&keys[0], "v")), Err(InsertError::Full)));
    assert!(matches!(store.insert(by(local, record(&keys[2], "v"))), Err(InsertError::Full)));
    store.check();
}

#[test]
fn expired_records_are_evicted_before_the_farthest() {
    let local = PeerId::random();
    let keys = keys_by_distance(local, 5);
    let (mut store, clock) = store(local, StoreConfig { max_records: 2, ..config() });
    store.insert(until(clock.now() + HOUR, record(&keys[0], "v"))).unwrap();
    store.insert(record(&keys[3], "v")).unwrap();
    clock.pass(HOUR);
    store.insert(record(&keys[4], "v")).unwrap();
    assert_eq!(stored(&store, &keys), [3, 4]);
}

#[test]
fn a_large_record_evicts_a_bounded_number_of_small_ones() {
    let local = PeerId::random();
    let keys = keys_by_distance(local, 200);
    let longest = keys.iter().map(String::len).max().unwrap();
    let limit = 199 * (longest + 10);
    let limits =
        StoreConfig { max_total_bytes: limit, max_bytes_per_publisher: usize::MAX, max_value_len: limit, ..config() };
    let (mut store, _) = store(local, limits);
    for key in &keys[1..] {
        store.insert(record(key, &"v".repeat(longest + 10 - key.len()))).unwrap();
    }
    let each = longest + 10;
    let large = |count: usize| record(&keys[0], &"v".repeat(each * count - keys[0].len()));
    assert!(matches!(store.insert(large(MAX_EVICTIONS + 1)), Err(InsertError::Full)));
    assert_eq!(store.records().count(), 199, "a rejected record evicts nothing");
    store.insert(large(MAX_EVICTIONS)).unwrap();
    assert_eq!(store.records().count(), 200 - MAX_EVICTIONS);
    assert_eq!(store.stats_handle().read().record_bytes as usize, limit);
    store.check();
}

#[test]
fn a_publisher_with_a_full_share_evicts_its_own_records() {
    let local = PeerId::random();
    let (greedy, modest) = (PeerId::random(), PeerId::random());
    let keys = keys_by_distance(local, 10);
    let (mut store, _) = store(local, StoreConfig { max_records_per_publisher: 2, ..config() });
    for at in [8, 3] {
        store.insert(by(greedy, record(&keys[at], "v"))).unwrap();
    }
    assert!(matches!(store.insert(by(greedy, record(&keys[9], "v"))), Err(InsertError::ShareFull)));
    store.insert(by(modest, record(&keys[9], "v"))).unwrap();
    store.insert(by(greedy, record(&keys[5], "v"))).unwrap();
    assert_eq!(stored(&store, &keys), [3, 5, 9]);
    // Records without a publisher share one limit.
    for at in [6, 7] {
        store.insert(record(&keys[at], "v")).unwrap();
    }
    assert!(matches!(store.insert(record(&keys[8], "v")), Err(InsertError::ShareFull)));
    // Own records are limited by the size of the store only.
    for at in [0, 1, 2] {
        store.insert(by(local, record(&keys[at], "v"))).unwrap();
    }
    store.check();
}

#[test]
fn the_bytes_of_a_publisher_are_limited() {
    let local = PeerId::random();
    let keys = keys_by_distance(local, 3);
    let (mut store, _) = store(local, StoreConfig { max_bytes_per_publisher: 20, ..config() });
    store.insert(record(&keys[1], "vvvvvvvv")).unwrap();
    assert!(matches!(store.insert(record(&keys[2], "vvvvvvvv")), Err(InsertError::ShareFull)));
    assert!(matches!(store.insert(record(&keys[1], &"v".repeat(30))), Err(InsertError::ShareFull)));
    store.insert(record(&keys[0], "vvvvvvvv")).unwrap();
    assert_eq!(stored(&store, &keys), [0]);
    let stranger = by(PeerId::random(), record(&keys[1], &"v".repeat(30)));
    assert!(matches!(store.insert(stranger), Err(InsertError::ShareFull)));
    store.check();
}
