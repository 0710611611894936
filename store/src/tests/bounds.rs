//! A store that is full.

use libp2p::{
    PeerId,
    kad::{RecordKey, store::RecordStore},
};

use super::{HOUR, by, config, keys_by_distance, record, store, until};
use crate::{Refusal, Store, StoreConfig, clock::Clock, records::MAX_EVICTIONS};

fn stored(store: &Store, keys: &[String]) -> Vec<usize> {
    (0..keys.len()).filter(|at| store.get(&RecordKey::new(&keys[*at])).is_some()).collect()
}

#[test]
fn closer_records_push_out_the_farthest() {
    let local = PeerId::random();
    let keys = keys_by_distance(local, 10);
    let (mut store, _) = store(local, StoreConfig { max_records: 3, ..config() });
    for at in [2, 9, 5] {
        store.insert(record(&keys[at], "v")).unwrap();
    }
    assert!(matches!(store.insert(record(&keys[9], "w")), Ok(crate::Stored::Replaced)), "its place is its own");
    store.insert(record(&keys[8], "v")).unwrap();
    assert_eq!(stored(&store, &keys), [2, 5, 8]);
    assert!(matches!(store.insert(record(&keys[9], "v")), Err(Refusal::Full)));
    store.insert(record(&keys[0], "v")).unwrap();
    assert_eq!(stored(&store, &keys), [0, 2, 5]);
    assert_eq!(store.stats_handle().read().evicted, 2);
    store.check();
}

#[test]
fn our_own_are_never_pushed_out_and_need_no_closeness() {
    let local = PeerId::random();
    let keys = keys_by_distance(local, 5);
    let (mut store, _) = store(local, StoreConfig { max_records: 2, ..config() });
    store.insert(record(&keys[0], "v")).unwrap();
    store.insert(record(&keys[1], "v")).unwrap();
    store.insert(by(local, record(&keys[4], "v"))).unwrap();
    assert_eq!(stored(&store, &keys), [0, 4]);
    store.insert(by(local, record(&keys[3], "v"))).unwrap();
    assert_eq!(stored(&store, &keys), [3, 4]);
    assert!(matches!(store.insert(record(&keys[0], "v")), Err(Refusal::Full)));
    assert!(matches!(store.insert(by(local, record(&keys[2], "v"))), Err(Refusal::Full)));
    store.check();
}

#[test]
fn the_expired_go_before_the_farthest() {
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
fn bytes_are_made_room_for_by_as_many_as_it_takes_but_not_without_end() {
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
    assert!(matches!(store.insert(large(MAX_EVICTIONS + 1)), Err(Refusal::Full)));
    assert_eq!(store.records().count(), 199, "a refused record pushes nothing out");
    store.insert(large(MAX_EVICTIONS)).unwrap();
    assert_eq!(store.records().count(), 200 - MAX_EVICTIONS);
    assert_eq!(store.stats_handle().read().record_bytes as usize, limit);
    store.check();
}

#[test]
fn a_publisher_that_has_its_share_competes_with_itself() {
    let local = PeerId::random();
    let (greedy, modest) = (PeerId::random(), PeerId::random());
    let keys = keys_by_distance(local, 10);
    let (mut store, _) = store(local, StoreConfig { max_records_per_publisher: 2, ..config() });
    for at in [8, 3] {
        store.insert(by(greedy, record(&keys[at], "v"))).unwrap();
    }
    assert!(matches!(store.insert(by(greedy, record(&keys[9], "v"))), Err(Refusal::ShareFull)));
    store.insert(by(modest, record(&keys[9], "v"))).unwrap();
    store.insert(by(greedy, record(&keys[5], "v"))).unwrap();
    assert_eq!(stored(&store, &keys), [3, 5, 9]);
    // Those without a publisher have one share together.
    for at in [6, 7] {
        store.insert(record(&keys[at], "v")).unwrap();
    }
    assert!(matches!(store.insert(record(&keys[8], "v")), Err(Refusal::ShareFull)));
    // Our own have no limit but that of the store.
    for at in [0, 1, 2] {
        store.insert(by(local, record(&keys[at], "v"))).unwrap();
    }
    store.check();
}

#[test]
fn bytes_of_a_publisher_have_a_limit_too() {
    let local = PeerId::random();
    let keys = keys_by_distance(local, 3);
    let (mut store, _) = store(local, StoreConfig { max_bytes_per_publisher: 20, ..config() });
    store.insert(record(&keys[1], "vvvvvvvv")).unwrap();
    assert!(matches!(store.insert(record(&keys[2], "vvvvvvvv")), Err(Refusal::ShareFull)));
    assert!(matches!(store.insert(record(&keys[1], &"v".repeat(30))), Err(Refusal::ShareFull)));
    store.insert(record(&keys[0], "vvvvvvvv")).unwrap();
    assert_eq!(stored(&store, &keys), [0]);
    let stranger = by(PeerId::random(), record(&keys[1], &"v".repeat(30)));
    assert!(matches!(store.insert(stranger), Err(Refusal::ShareFull)));
    store.check();
}
