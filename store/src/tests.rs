mod bounds;
#[cfg(feature = "disk")]
mod file;
mod model;
mod providers;
mod records;

use std::{
    cmp::Ordering,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use kadence_core::{ValidationError, Validator, Validators};
use libp2p::{
    PeerId,
    kad::{KBucketKey, Record, RecordKey},
};

use crate::{Store, StoreConfig, clock::Clock};

pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// A manual clock.
#[derive(Debug)]
pub(crate) struct TestClock {
    start: Instant,
    passed: AtomicU64,
    wall: Mutex<SystemTime>,
}

impl TestClock {
    pub(crate) fn new() -> Arc<Self> {
        let wall = Mutex::new(UNIX_EPOCH + 500_000 * HOUR);
        Arc::new(Self { start: Instant::now(), passed: AtomicU64::new(0), wall })
    }

    pub(crate) fn pass(&self, span: Duration) {
        self.passed.fetch_add(span.as_millis() as u64, Relaxed);
        *self.wall.lock().unwrap() += span;
    }

    #[cfg(feature = "disk")]
    pub(crate) fn set_wall(&self, wall: SystemTime) {
        *self.wall.lock().unwrap() = wall;
    }
}

impl Clock for TestClock {
    fn now(&self) -> Instant {
        self.start + Duration::from_millis(self.passed.load(Relaxed))
    }

    #[cfg(feature = "disk")]
    fn wall(&self) -> SystemTime {
        *self.wall.lock().unwrap()
    }
}

/// Validates values that are decimal numbers, with any text after a `#`. The larger number is better.
#[derive(Debug)]
pub(crate) struct Numbers;

fn number(value: &[u8]) -> Option<u64> {
    std::str::from_utf8(value).ok()?.split('#').next()?.parse().ok()
}

impl Validator for Numbers {
    fn validate(&self, _: &RecordKey, value: &[u8]) -> Result<(), ValidationError> {
        number(value).map(drop).ok_or_else(|| ValidationError("not a number".to_owned()))
    }

    fn compare(&self, _: &RecordKey, left: &[u8], right: &[u8]) -> Ordering {
        number(left).cmp(&number(right))
    }
}

pub(crate) fn config() -> StoreConfig {
    StoreConfig { validators: Validators::default().with("n", Arc::new(Numbers)), ..StoreConfig::default() }
}

/// Returns a store and its clock.
pub(crate) fn store(local_peer: PeerId, config: StoreConfig) -> (Store, Arc<TestClock>) {
    let clock = TestClock::new();
    (Store::with_clock(local_peer, config, clock.clone()), clock)
}

pub(crate) fn record(key: &str, value: &str) -> Record {
    Record::new(key.as_bytes().to_vec(), value.as_bytes().to_vec())
}

pub(crate) fn by(publisher: PeerId, record: Record) -> Record {
    Record { publisher: Some(publisher), ..record }
}

pub(crate) fn until(expires: Instant, record: Record) -> Record {
    Record { expires: Some(expires), ..record }
}

/// Returns keys in the order of their distance to a peer, the closest first.
pub(crate) fn keys_by_distance(local_peer: PeerId, count: usize) -> Vec<String> {
    let local = KBucketKey::from(local_peer);
    let mut keys: Vec<String> = (0..count).map(|number| format!("key {number}")).collect();
    keys.sort_by_key(|key| local.distance(&KBucketKey::new(RecordKey::new(key))));
    keys
}
