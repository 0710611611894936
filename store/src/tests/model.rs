//! Compares the store with a map under random calls; with a file also under crashes.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Instant};

use libp2p::{
    PeerId,
    kad::{KBucketDistance, KBucketKey, Record, RecordKey, store::RecordStore},
};
use proptest::{collection::vec, prelude::*};

use super::{HOUR, TestClock, config, number};
use crate::{Store, StoreConfig, clock::Clock, policy::MIN_REFRESH};

const KEYS: usize = 12;

#[derive(Debug, Clone)]
enum Step {
    Put {
        key: usize,
        value: u8,
        len: usize,
        publisher: usize,
        hours: Option<u32>,
    },
    Remove {
        key: usize,
    },
    Pass {
        hours: u32,
    },
    /// A process that is killed, and the next one.
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let put = (0..KEYS, 0..12u8, 0..30usize, 0..4usize, prop::option::of(0..6u32));
    prop_oneof![
        10 => put.prop_map(|(key, value, len, publisher, hours)| Step::Put { key, value, len, publisher, hours }),
        1 => (0..KEYS).prop_map(|key| Step::Remove { key }),
        2 => (1..4u32).prop_map(|hours| Step::Pass { hours }),
        1 => Just(Step::Reopen),
    ]
}

/// Half of the keys have a validator.
fn key(number: usize) -> RecordKey {
    RecordKey::new(&if number.is_multiple_of(2) { format!("/n/{number}") } else { format!("plain {number}") })
}

fn limits() -> StoreConfig {
    StoreConfig {
        max_records: 7,
        max_total_bytes: 180,
        max_value_len: 25,
        max_records_per_publisher: 3,
        max_bytes_per_publisher: 80,
        max_ttl: Some(5 * HOUR),
        ..config()
    }
}

struct Model {
    local: PeerId,
    records: BTreeMap<KBucketDistance, Record>,
}

fn size(record: &Record) -> usize {
    record.key.as_ref().len() + record.value.len()
}

impl Model {
    fn distance(&self, key: &RecordKey) -> KBucketDistance {
        KBucketKey::from(self.local).distance(&KBucketKey::new(key.clone()))
    }

    /// Puts a record, and returns whether it was stored.
    fn put(&mut self, mut new: Record, now: Instant) -> bool {
        // The records are so few that each call sweeps all expired ones.
        self.records.retain(|_, record| !record.is_expired(now));
        let limits = limits();
        let valued = new.key.as_ref().starts_with(b"/n/");
        let ours = new.publisher == Some(self.local);
        if new.value.len() > limits.max_value_len || new.is_expired(now) || (valued && number(&new.value).is_none()) {
            return false;
        }
        if !ours {
            let most = now + limits.max_ttl.unwrap();
            new.expires = Some(new.expires.map_or(most, |expires| expires.min(most)));
        }
        let distance = self.distance(&new.key);
        if let Some(old) = self.records.get(&distance) {
            let old_ours = old.publisher == Some(self.local);
            if old.value == new.value {
                let longer = match (old.expires, new.expires) {
                    (Some(old), Some(new)) => new >= old + MIN_REFRESH,
                    (old, new) => old.is_some() && new.is_none(),
                };
                if ours {
                } else if !old_ours && longer {
                    new.publisher = old.publisher;
                } else {
                    return true;
                }
                if new == *old {
                    return true;
                }
            } else if valued {
                if (number(&new.value), &new.value) < (number(&old.value), &old.value) {
                    return false;
                }
            } else if old_ours && !ours {
                return false;
            }
        }
        let mut after = self.records.clone();
        after.remove(&distance);
        let publisher = new.publisher;
        after.insert(distance, new);
        if !ours {
            loop {
                let share: Vec<_> = after.iter().filter(|(_, record)| record.publisher == publisher).collect();
                let bytes: usize = share.iter().map(|(_, record)| size(record)).sum();
                if share.len() <= limits.max_records_per_publisher && bytes <= limits.max_bytes_per_publisher {
                    break;
                }
                let Some(farthest) = share.last().map(|(far, _)| **far).filter(|far| *far > distance) else {
                    return false;
                };
                after.remove(&farthest);
            }
        }
        while after.len() > limits.max_records || after.values().map(size).sum::<usize>() > limits.max_total_bytes {
            let evictable =
                |(far, record): &(&KBucketDistance, &Record)| record.publisher != Some(self.local) && **far != distance;
            let farthest = after.iter().rfind(evictable).map(|(far, _)| *far);
            let Some(farthest) = farthest.filter(|far| ours || *far > distance) else { return false };
            after.remove(&farthest);
        }
        self.records = after;
        true
    }
}

/// Place of the store.
struct File {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

fn run(steps: Vec<Step>, mut file: Option<File>) -> Result<(), TestCaseError> {
    let (local, clock) = (PeerId::random(), TestClock::new());
    let publishers = [Some(local), Some(PeerId::random()), Some(PeerId::random()), None];
    let open = |file: &Option<File>, clock: &Arc<TestClock>| match file {
        #[cfg(feature = "disk")]
        Some(file) => Store::open_with_clock(&file.path, local, limits(), clock.clone()).unwrap(),
        _ => Store::with_clock(local, limits(), clock.clone()),
    };
    let mut store = open(&file, &clock);
    let mut model = Model { local, records: BTreeMap::new() };
    for step in steps {
        let now = clock.now();
        match step {
            Step::Put { key: at, value, len, publisher, hours } => {
                let value = if value == 0 { "bad".to_owned() } else { format!("{value}#{}", "x".repeat(len)) };
                let record = Record {
                    key: key(at),
                    value: value.into_bytes(),
                    publisher: publishers[publisher],
                    expires: hours.map(|hours| now + hours * HOUR),
                };
                prop_assert_eq!(store.put(record.clone()).is_ok(), model.put(record, now));
            }
            Step::Remove { key: at } => {
                store.remove(&key(at));
                let distance = model.distance(&key(at));
                model.records.remove(&distance);
            }
            Step::Pass { hours } => clock.pass(hours * HOUR),
            Step::Reopen => {
                if let Some(before) = file.take() {
                    let folder = tempfile::tempdir().unwrap();
                    let path = folder.path().join("store");
                    for suffix in ["", "-wal"] {
                        let name = |path: &PathBuf| format!("{}{suffix}", path.display());
                        std::fs::copy(name(&before.path), name(&path)).unwrap();
                    }
                    file = Some(File { _folder: folder, path });
                    store = open(&file, &clock);
                }
            }
        }
        store.check();
        let now = clock.now();
        let live = model.records.values().filter(|record| !record.is_expired(now));
        let expected: BTreeMap<_, _> = live.map(|record| (record.key.to_vec(), record.clone())).collect();
        let actual: BTreeMap<_, _> = store.records().map(|record| (record.key.to_vec(), record.into_owned())).collect();
        prop_assert_eq!(&actual, &expected);
        for at in 0..KEYS {
            prop_assert_eq!(
                store.get(&key(at)).map(|record| record.into_owned()),
                actual.get(key(at).as_ref()).cloned()
            );
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn a_store_in_memory_equals_the_model(steps in vec(step(), 0..120)) {
        run(steps, None)?;
    }
}

#[cfg(feature = "disk")]
proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn with_a_file_it_does_the_same_through_crashes(steps in vec(step(), 0..60)) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        run(steps, Some(File { _folder: folder, path }))?;
    }
}
