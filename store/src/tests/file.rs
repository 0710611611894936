//! The file: contents, restarts, and damage.

use std::{
    fs,
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use kadence_sqlite::rusqlite::Connection;
use libp2p::{
    PeerId,
    kad::{ProviderRecord, Record, RecordKey, store::RecordStore},
};
use tempfile::{TempDir, tempdir};

use super::{HOUR, TestClock, by, config, keys_by_distance, record, until};
use crate::{InsertError, Store, StoreConfig, StoreOpenError, clock::Clock};

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

/// Copies the files as a killed process leaves them: nothing is done to close them.
fn crash(path: &Path) -> (TempDir, PathBuf) {
    let (folder, copy) = place();
    for suffix in ["", "-wal"] {
        let name = |path: &Path| PathBuf::from(format!("{}{suffix}", path.display()));
        fs::copy(name(path), name(&copy)).unwrap();
    }
    (folder, copy)
}

#[test]
fn everything_is_restored_after_a_restart_or_a_crash() {
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
fn removed_evicted_and_swept_records_do_not_come_back() {
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
    assert_eq!(store.stats_handle().read().expired, 0, "the sweep has removed it from the file");
    assert!(get(&store, &keys[2]).is_some());
}

#[test]
fn expiries_pass_between_runs_and_a_clock_that_jumps_back_extends_no_life() {
    let (_folder, path) = place();
    let (local, clock) = (PeerId::random(), TestClock::new());
    let mut store = open(&path, local, &clock);
    store.insert(until(clock.now() + 5 * HOUR, record("a", "a"))).unwrap();
    store.insert(until(clock.now() + HOUR, record("b", "b"))).unwrap();
    drop(store);
    // Only the wall clock advances between two runs.
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
fn records_that_are_invalid_or_over_the_limits_are_dropped_at_open() {
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
fn under_another_identity_earlier_own_records_expire() {
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
fn two_stores_cannot_open_one_file() {
    let (_folder, path) = place();
    let (local, clock) = (PeerId::random(), TestClock::new());
    let first = open(&path, local, &clock);
    let second = Store::open(&path, local, config());
    assert!(matches!(second, Err(StoreOpenError::InUse { .. })), "{second:?}");
    drop(first);
    open(&path, local, &clock);
}

#[test]
fn a_foreign_file_is_rejected_and_left_unchanged() {
    let (_folder, path) = place();
    let foreign = b"Some text, or a picture, or the key of a safe: anything but a database.".repeat(50);
    fs::write(&path, &foreign).unwrap();
    let result = Store::open(&path, PeerId::random(), config());
    assert!(matches!(result, Err(StoreOpenError::Foreign { .. })), "{result:?}");
    assert_eq!(fs::read(&path).unwrap(), foreign);

    let (_folder, path) = place();
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE bookmarks (url TEXT)").unwrap();
    let bytes = fs::read(&path).unwrap();
    let result = Store::open(&path, PeerId::random(), config());
    assert!(matches!(result, Err(StoreOpenError::Foreign { .. })), "{result:?}");
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

#[test]
fn a_later_version_is_rejected() {
    let (_folder, path) = place();
    drop(open(&path, PeerId::random(), &TestClock::new()));
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 7).unwrap();
    let result = Store::open(&path, PeerId::random(), config());
    assert!(matches!(result, Err(StoreOpenError::Version { found: 7, known: 1, .. })), "{result:?}");
}

#[test]
fn a_missing_folder_is_a_disk_error() {
    let (_folder, path) = place();
    let result = Store::open(path.join("below"), PeerId::random(), config());
    assert!(matches!(result, Err(StoreOpenError::Disk { .. })), "{result:?}");
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
    let (mut rejected, mut opened) = (0, 0);
    for at in (0..whole.len()).step_by(997) {
        let (_folder, copy) = place();
        let mut bytes = whole.clone();
        bytes[at] ^= 0x41;
        fs::write(&copy, bytes).unwrap();
        match Store::open_with_clock(&copy, local, config(), clock.clone()) {
            // The byte is in unused space.
            Ok(store) => {
                opened += 1;
                assert!(store.records().all(|record| record.value == value.as_bytes()), "byte {at}");
                assert_eq!(store.records().count(), 20, "byte {at}");
            }
            Err(StoreOpenError::Corrupt { .. } | StoreOpenError::Foreign { .. } | StoreOpenError::Version { .. }) => {
                rejected += 1;
            }
            Err(other) => panic!("byte {at}: {other:?}"),
        }
    }
    assert!(rejected > 10 && opened > 0, "{rejected} were found, {opened} were harmless");
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
fn a_failed_write_stores_nothing_and_a_failed_removal_is_repeated() {
    let (_folder, path) = place();
    let (local, clock) = (PeerId::random(), TestClock::new());
    let mut store = open(&path, local, &clock);
    store.insert(by(local, record("a", "a"))).unwrap();
    store.break_file(true);
    assert!(matches!(store.insert(record("b", "b")), Err(InsertError::Disk(_))));
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

#[test]
fn without_a_time_nothing_is_flushed_until_it_is_asked_for() {
    let (_folder, path) = place();
    let (local, clock) = (PeerId::random(), TestClock::new());
    let mut store =
        Store::open_with_clock(&path, local, config().flush_within(None), Arc::<TestClock>::clone(&clock)).unwrap();
    store.insert(record("a", "a")).unwrap();
    // What is in the log alone is not on the disk.
    let without_log = || {
        let (folder, copy) = place();
        fs::copy(&path, &copy).unwrap();
        (folder, open(&copy, local, &clock))
    };
    assert_eq!(get(&without_log().1, "a"), None);
    store.flush().unwrap();
    assert!(get(&without_log().1, "a").is_some());
    // A killed process loses nothing, as ever.
    store.insert(record("b", "b")).unwrap();
    let (_copied, copy) = crash(&path);
    assert!(get(&open(&copy, local, &clock), "b").is_some());
}
