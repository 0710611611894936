//! What the file keeps, and what it does not take for one of its own.

use std::{
    fs,
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use libp2p::{
    PeerId,
    kad::{ProviderRecord, Record, RecordKey, store::RecordStore},
};
use tempfile::{TempDir, tempdir};

use super::{HOUR, TestClock, by, config, keys_by_distance, record, until};
use crate::{Refusal, Store, StoreConfig, StoreOpenError, clock::Clock};

fn place() -> (TempDir, PathBuf) {
    let folder = tempdir().unwrap();
    let path = folder.path().join("store");
    (folder, path)
}

fn open(path: &Path, local: PeerId, clock: &Arc<TestClock>) -> Store {
    let store = Store::open_with_clock(path, local, config(), clock.clone()).unwrap();
    store.check();
    store
}

fn get(store: &Store, key: &str) -> Option<Record> {
    store.get(&RecordKey::new(&key)).map(|record| record.into_owned())
}

/// What a process that is killed leaves: the files as they are, without the work of closing them.
fn crash(path: &Path) -> (TempDir, PathBuf) {
    let (folder, copy) = place();
    for suffix in ["", "-wal"] {
        let name = |path: &Path| PathBuf::from(format!("{}{suffix}", path.display()));
        fs::copy(name(path), name(&copy)).unwrap();
    }
    (folder, copy)
}

#[test]
fn everything_is_there_again_as_it_was() {
    let (_folder, path) = place();
    let (local, peer, clock) = (PeerId::random(), PeerId::random(), TestClock::new());
    let records = [
        by(local, record("own", "")),
        by(peer, until(clock.now() + 5 * HOUR, record("other", "value"))),
        until(clock.now() + 40 * HOUR, record("/n/1", "1")),
    ];
    let providers = [peer, local, PeerId::random()].map(|peer| ProviderRecord {
        key: RecordKey::new(&"provided"),
        provider: peer,
        expires: (peer != local).then(|| clock.now() + 7 * HOUR),
        addresses: vec!["/dns4/a.example/tcp/1".parse().unwrap()],
    });
    let mut store = open(&path, local, &clock);
    for record in &records {
        store.put(record.clone()).unwrap();
    }
    for provider in &providers {
        store.add_provider(provider.clone()).unwrap();
    }
    // The first is renewed, and keeps its place.
    store.add_provider(ProviderRecord { addresses: Vec::new(), ..providers[0].clone() }).unwrap();
    let (_crashed, copy) = crash(&path);
    drop(store);
    for path in [path, copy] {
        let store = open(&path, local, &clock);
        for record in &records {
            assert_eq!(store.get(&record.key).as_deref(), Some(record));
        }
        let again = store.providers(&providers[0].key);
        let parts = |list: &[ProviderRecord]| -> Vec<_> {
            list.iter().map(|one| (one.provider, one.expires, one.addresses.len())).collect()
        };
        let mut expected = parts(&providers);
        expected[0].2 = 0;
        assert_eq!(parts(&again), expected);
        assert_eq!(store.provided().count(), 1);
    }
}

#[test]
fn what_was_removed_pushed_out_or_swept_does_not_come_back() {
    let (_folder, path) = place();
    let (local, clock) = (PeerId::random(), TestClock::new());
    let keys = keys_by_distance(local, 4);
    let limits = StoreConfig { max_records: 2, ..config() };
    let mut store = Store::open_with_clock(&path, local, limits, clock.clone()).unwrap();
    store.insert(record(&keys[3], "pushed out")).unwrap();
    store.insert(until(clock.now() + HOUR, record(&keys[0], "expires"))).unwrap();
    store.insert(record(&keys[2], "stays")).unwrap();
    clock.pass(HOUR);
    store.sweep();
    store.insert(record(&keys[1], "removed")).unwrap();
    store.remove(&RecordKey::new(&keys[1]));
    drop(store);
    let store = open(&path, local, &clock);
    assert_eq!(store.records().count(), 1);
    assert_eq!(store.stats_handle().read().expired, 0, "the sweep has cut it from the file");
    assert!(get(&store, &keys[2]).is_some());
}

#[test]
fn time_passes_between_two_runs_and_a_clock_that_jumps_back_gives_none_of_it_back_twice() {
    let (_folder, path) = place();
    let (local, clock) = (PeerId::random(), TestClock::new());
    let mut store = open(&path, local, &clock);
    store.insert(until(clock.now() + 5 * HOUR, record("a", "a"))).unwrap();
    store.insert(until(clock.now() + HOUR, record("b", "b"))).unwrap();
    drop(store);
    // Only the wall's clock knows of it.
    clock.set_wall(clock.wall() + 2 * HOUR);
    let store = open(&path, local, &clock);
    assert_eq!(get(&store, "a").unwrap().expires, Some(clock.now() + 3 * HOUR));
    assert_eq!((get(&store, "b"), store.stats_handle().read().expired), (None, 1));
    drop(store);
    clock.set_wall(UNIX_EPOCH);
    let store = open(&path, local, &clock);
    assert_eq!(get(&store, "a").unwrap().expires, Some(clock.now() + 5 * HOUR), "never more than it had");
    drop(store);
    clock.set_wall(SystemTime::now() + 1_000_000 * HOUR);
    assert!(get(&open(&path, local, &clock), "a").is_none());
}

#[test]
fn what_is_invalid_or_too_much_by_now_is_dropped() {
    let (_folder, path) = place();
    let (local, clock) = (PeerId::random(), TestClock::new());
    let keys = keys_by_distance(local, 5);
    let plain = StoreConfig::default();
    let mut store = Store::open_with_clock(&path, local, plain, clock.clone()).unwrap();
    store.insert(record("/n/1", "not a number")).unwrap();
    for key in &keys {
        store.insert(record(key, "v")).unwrap();
    }
    drop(store);
    let limits = StoreConfig { max_records: 2, ..config() };
    let store = Store::open_with_clock(&path, local, limits, clock.clone()).unwrap();
    let left: Vec<_> = keys.iter().filter(|key| get(&store, key).is_some()).collect();
    assert_eq!(left, [&keys[0], &keys[1]]);
    assert_eq!((store.stats_handle().read().dropped_at_open, store.records().count()), (4, 2));
    drop(store);
    assert_eq!(open(&path, local, &clock).stats_handle().read().dropped_at_open, 0);
}

#[test]
fn under_another_identity_what_was_ours_is_that_of_others_and_expires() {
    let (_folder, path) = place();
    let (first, second, clock) = (PeerId::random(), PeerId::random(), TestClock::new());
    let mut store = open(&path, first, &clock);
    store.insert(by(first, record("a", "a"))).unwrap();
    store.insert_provider(ProviderRecord::new(b"p".to_vec(), first, Vec::new())).unwrap();
    drop(store);
    let store = open(&path, second, &clock);
    assert_eq!(get(&store, "a").unwrap().expires, Some(clock.now() + 48 * HOUR));
    assert_eq!(store.provided().count(), 0);
    drop(store);
    clock.pass(47 * HOUR);
    let store = open(&path, second, &clock);
    assert_eq!(get(&store, "a").unwrap().expires, Some(clock.now() + HOUR), "a start renews nothing");
    assert_eq!(store.providers(&RecordKey::new(&"p"))[0].expires, Some(clock.now() + HOUR));
}

#[test]
fn two_stores_cannot_have_one_file() {
    let (_folder, path) = place();
    let (local, clock) = (PeerId::random(), TestClock::new());
    let first = open(&path, local, &clock);
    let second = Store::open(&path, local, config());
    assert!(matches!(second, Err(StoreOpenError::InUse { .. })), "{second:?}");
    drop(first);
    open(&path, local, &clock);
}

#[test]
fn a_foreign_file_is_named_and_left_alone() {
    let (_folder, path) = place();
    let foreign = b"A letter, or a picture, or the key of a safe: anything but a database.".repeat(50);
    fs::write(&path, &foreign).unwrap();
    let refusal = Store::open(&path, PeerId::random(), config());
    assert!(matches!(refusal, Err(StoreOpenError::Foreign { .. })), "{refusal:?}");
    assert_eq!(fs::read(&path).unwrap(), foreign);

    let (_folder, path) = place();
    rusqlite::Connection::open(&path).unwrap().execute_batch("CREATE TABLE bookmarks (url TEXT)").unwrap();
    let bytes = fs::read(&path).unwrap();
    let refusal = Store::open(&path, PeerId::random(), config());
    assert!(matches!(refusal, Err(StoreOpenError::Foreign { .. })), "{refusal:?}");
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

#[test]
fn a_later_version_is_refused() {
    let (_folder, path) = place();
    drop(open(&path, PeerId::random(), &TestClock::new()));
    rusqlite::Connection::open(&path).unwrap().pragma_update(None, "user_version", 7).unwrap();
    let refusal = Store::open(&path, PeerId::random(), config());
    assert!(matches!(refusal, Err(StoreOpenError::Version { found: 7, known: 1, .. })), "{refusal:?}");
}

#[test]
fn a_folder_that_is_missing_is_an_error_of_the_disk() {
    let (_folder, path) = place();
    let refusal = Store::open(path.join("below"), PeerId::random(), config());
    assert!(matches!(refusal, Err(StoreOpenError::Disk { .. })), "{refusal:?}");
}

#[test]
fn a_changed_byte_anywhere_is_found_or_harmless() {
    let (_folder, path) = place();
    let (local, clock) = (PeerId::random(), TestClock::new());
    let mut store = open(&path, local, &clock);
    let value = "0123456789".repeat(100);
    for number in 0..20 {
        store.insert(record(&format!("key {number}"), &value)).unwrap();
    }
    drop(store);
    let whole = fs::read(&path).unwrap();
    let (mut refused, mut opened) = (0, 0);
    for at in (0..whole.len()).step_by(997) {
        let (_folder, copy) = place();
        let mut bytes = whole.clone();
        bytes[at] ^= 0x41;
        fs::write(&copy, bytes).unwrap();
        match Store::open_with_clock(&copy, local, config(), clock.clone()) {
            // In what no row uses.
            Ok(store) => {
                opened += 1;
                assert!(store.records().all(|record| record.value == value.as_bytes()), "byte {at}");
                assert_eq!(store.records().count(), 20, "byte {at}");
            }
            Err(StoreOpenError::Corrupt { .. } | StoreOpenError::Foreign { .. } | StoreOpenError::Version { .. }) => {
                refused += 1
            }
            Err(other) => panic!("byte {at}: {other:?}"),
        }
    }
    assert!(refused > 10 && opened > 0, "{refused} were found, {opened} were harmless");
}

#[test]
fn a_log_that_was_cut_short_loses_its_last_writes_alone() {
    let (_folder, path) = place();
    let (local, clock) = (PeerId::random(), TestClock::new());
    let mut store = open(&path, local, &clock);
    for number in 0..20 {
        store.insert(by(local, record(&format!("{number:02}"), "v"))).unwrap();
    }
    let log_of = |path: &Path| PathBuf::from(format!("{}-wal", path.display()));
    let len = fs::metadata(log_of(&path)).unwrap().len();
    let mut seen = std::collections::BTreeSet::new();
    for cut in (0..=len).step_by(2049) {
        let (_crashed, copy) = crash(&path);
        let mut log = fs::OpenOptions::new().write(true).read(true).open(log_of(&copy)).unwrap();
        log.set_len(cut).unwrap();
        // What the disk had there before.
        log.seek(SeekFrom::End(0)).unwrap();
        log.write_all(&[0xa5; 3000]).unwrap();
        log.rewind().unwrap();
        assert!(log.read(&mut [0]).is_ok());
        drop(log);
        let store = open(&copy, local, &clock);
        let count = store.records().count();
        assert!((0..count).all(|number| get(&store, &format!("{number:02}")).is_some()), "the first {count}");
        seen.insert(count);
    }
    assert!(seen.len() > 10, "{seen:?}");
}

#[test]
fn a_write_that_fails_is_refused_and_a_removal_is_made_up_for() {
    let (_folder, path) = place();
    let (local, clock) = (PeerId::random(), TestClock::new());
    let mut store = open(&path, local, &clock);
    store.insert(by(local, record("a", "a"))).unwrap();
    store.break_file(true);
    assert!(matches!(store.insert(record("b", "b")), Err(Refusal::Disk(_))));
    assert!(get(&store, "b").is_none());
    store.remove(&RecordKey::new(&"a"));
    assert!(get(&store, "a").is_none());
    assert_eq!(store.stats_handle().read().disk_errors, 2);
    store.break_file(false);
    store.insert(record("c", "c")).unwrap();
    store.flush().unwrap();
    drop(store);
    let store = open(&path, local, &clock);
    assert_eq!((get(&store, "a"), store.records().count()), (None, 1));
}
