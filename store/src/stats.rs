use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use crate::{InsertError, InsertOutcome};

/// Sizes and counters of a store. Counters begin at 0 when the store is created or opened; only
/// [`expired`](Self::expired) and [`dropped_at_open`](Self::dropped_at_open) count the opening, too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreStats {
    /// Number of records, including expired ones that were not removed yet.
    pub records: u64,
    /// Total length of the keys and values of all records, in bytes, expired ones that were not removed yet included.
    pub record_bytes: u64,
    /// Number of providers of all keys together, including expired ones that were not removed yet. A peer counts once
    /// for each key that it provides.
    pub provider_records: u64,
    /// Number of keys with providers. An expired provider counts until it is removed.
    pub provided_keys: u64,
    /// Number of inserted records with the result [`InsertOutcome::New`] or [`InsertOutcome::Replaced`].
    pub accepted: u64,
    /// Number of inserted records with the result [`InsertOutcome::Refreshed`].
    pub refreshed: u64,
    /// Number of inserted records with the result [`InsertOutcome::Unchanged`].
    pub unchanged: u64,
    /// Numbers of failed insertions of records, by error.
    pub insert_errors: InsertErrorCounts,
    /// Number of insertions of providers that succeeded, including those that changed nothing.
    pub providers_accepted: u64,
    /// Numbers of failed insertions of providers, by error.
    pub provider_errors: InsertErrorCounts,
    /// Number of records and providers that were removed to make room for others. Expired ones that count in
    /// [`expired`](field@Self::expired) do not count here. Does not count those removed when a file is opened.
    pub evicted: u64,
    /// Number of records and providers that were removed because they had expired, including those found when a file is
    /// opened. Each insertion first removes up to 32 expired records and 32 expired providers, which count here; an expired
    /// one that is left after that and is then evicted or replaced does not. Neither does one that is removed by `remove`
    /// or `remove_provider`.
    pub expired: u64,
    /// Number of records and providers in the file that had not expired when the file was opened, but were removed
    /// because an insertion under the store's configuration would have rejected or evicted them.
    pub dropped_at_open: u64,
    /// Number of writes to the file that failed, flushes not included. An insertion whose write failed has no effect. A
    /// failed removal from the file is repeated with the next write; if the store is closed before that, the record or
    /// provider is found again at the next opening.
    pub disk_errors: u64,
    /// Longest time that a write to the file has taken since the opening, successful or not. A write blocks the task
    /// that polls the swarm. Zero for a store without a file; a sweep that has nothing to write counts as a very short
    /// write.
    pub longest_write: Duration,
}

/// Numbers of failed insertions, by variant of [`InsertError`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct InsertErrorCounts {
    /// Number of insertions that failed with [`InsertError::ValueTooLong`].
    pub value_too_long: u64,
    /// Number of insertions that failed with [`InsertError::KeyTooLong`].
    pub key_too_long: u64,
    /// Number of insertions that failed with [`InsertError::Expired`].
    pub expired: u64,
    /// Number of insertions that failed with [`InsertError::Invalid`].
    pub invalid: u64,
    /// Number of insertions that failed with [`InsertError::NoValidator`].
    pub no_validator: u64,
    /// Number of insertions that failed with [`InsertError::Worse`].
    pub worse: u64,
    /// Number of insertions that failed with [`InsertError::OwnRecord`].
    pub own_record: u64,
    /// Number of insertions that failed with [`InsertError::Full`].
    pub full: u64,
    /// Number of insertions that failed with [`InsertError::ShareFull`].
    pub share_full: u64,
    /// Number of insertions that failed with [`InsertError::TooManyProviders`].
    pub too_many_providers: u64,
    /// Number of insertions that failed with [`InsertError::Disk`].
    pub disk: u64,
}

impl InsertErrorCounts {
    /// Returns the sum of all counts.
    pub fn total(&self) -> u64 {
        let Self {
            value_too_long,
            key_too_long,
            expired,
            invalid,
            no_validator,
            worse,
            own_record,
            full,
            share_full,
            too_many_providers,
            disk,
        } = *self;
        [
            value_too_long,
            key_too_long,
            expired,
            invalid,
            no_validator,
            worse,
            own_record,
            full,
            share_full,
            too_many_providers,
            disk,
        ]
        .iter()
        .sum()
    }
}

/// Reads a store's counters, also while a swarm owns the store and after the store was dropped. Cheap to clone.
///
/// ```
/// use kadence_store::{Store, StoreConfig};
/// use libp2p::{PeerId, kad};
///
/// let local_peer_id = PeerId::random();
/// let store = Store::memory(local_peer_id, StoreConfig::default());
/// let stats = store.stats_handle();
/// let kad = kad::Behaviour::new(local_peer_id, store);
/// assert_eq!(stats.read().records, 0);
/// # drop(kad);
/// ```
#[derive(Debug, Clone, Default)]
pub struct StatsHandle(Arc<Counters>);

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) records: AtomicU64,
    pub(crate) record_bytes: AtomicU64,
    pub(crate) provider_records: AtomicU64,
    pub(crate) provided_keys: AtomicU64,
    accepted: AtomicU64,
    refreshed: AtomicU64,
    unchanged: AtomicU64,
    insert_errors: InsertErrorCounters,
    pub(crate) providers_accepted: AtomicU64,
    provider_errors: InsertErrorCounters,
    pub(crate) evicted: AtomicU64,
    pub(crate) expired: AtomicU64,
    pub(crate) dropped_at_open: AtomicU64,
    pub(crate) disk_errors: AtomicU64,
    longest_write_nanos: AtomicU64,
}

#[derive(Debug, Default)]
struct InsertErrorCounters {
    value_too_long: AtomicU64,
    key_too_long: AtomicU64,
    expired: AtomicU64,
    invalid: AtomicU64,
    no_validator: AtomicU64,
    worse: AtomicU64,
    own_record: AtomicU64,
    full: AtomicU64,
    share_full: AtomicU64,
    too_many_providers: AtomicU64,
    disk: AtomicU64,
}

impl StatsHandle {
    /// Returns the current values. The values are read one after the other, while the store may change: they need not
    /// be of the same moment.
    pub fn read(&self) -> StoreStats {
        let counters = &*self.0;
        StoreStats {
            records: counters.records.load(Relaxed),
            record_bytes: counters.record_bytes.load(Relaxed),
            provider_records: counters.provider_records.load(Relaxed),
            provided_keys: counters.provided_keys.load(Relaxed),
            accepted: counters.accepted.load(Relaxed),
            refreshed: counters.refreshed.load(Relaxed),
            unchanged: counters.unchanged.load(Relaxed),
            insert_errors: counters.insert_errors.read(),
            providers_accepted: counters.providers_accepted.load(Relaxed),
            provider_errors: counters.provider_errors.read(),
            evicted: counters.evicted.load(Relaxed),
            expired: counters.expired.load(Relaxed),
            dropped_at_open: counters.dropped_at_open.load(Relaxed),
            disk_errors: counters.disk_errors.load(Relaxed),
            longest_write: Duration::from_nanos(counters.longest_write_nanos.load(Relaxed)),
        }
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.0
    }
}

impl Counters {
    pub(crate) fn record(&self, result: &Result<InsertOutcome, InsertError>) {
        match result {
            Ok(InsertOutcome::New | InsertOutcome::Replaced) => one(&self.accepted),
            Ok(InsertOutcome::Refreshed) => one(&self.refreshed),
            Ok(InsertOutcome::Unchanged) => one(&self.unchanged),
            Err(error) => self.insert_errors.count(error),
        }
    }

    pub(crate) fn provider(&self, result: &Result<(), InsertError>) {
        match result {
            Ok(()) => one(&self.providers_accepted),
            Err(error) => self.provider_errors.count(error),
        }
    }

    pub(crate) fn wrote(&self, took: Duration) {
        self.longest_write_nanos.fetch_max(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }
}

impl InsertErrorCounters {
    fn count(&self, error: &InsertError) {
        one(match error {
            InsertError::ValueTooLong { .. } => &self.value_too_long,
            InsertError::KeyTooLong { .. } => &self.key_too_long,
            InsertError::Expired => &self.expired,
            InsertError::Invalid(_) => &self.invalid,
            InsertError::NoValidator => &self.no_validator,
            InsertError::Worse => &self.worse,
            InsertError::OwnRecord => &self.own_record,
            InsertError::Full => &self.full,
            InsertError::ShareFull => &self.share_full,
            InsertError::TooManyProviders => &self.too_many_providers,
            InsertError::Disk(_) => &self.disk,
        });
    }

    fn read(&self) -> InsertErrorCounts {
        InsertErrorCounts {
            value_too_long: self.value_too_long.load(Relaxed),
            key_too_long: self.key_too_long.load(Relaxed),
            expired: self.expired.load(Relaxed),
            invalid: self.invalid.load(Relaxed),
            no_validator: self.no_validator.load(Relaxed),
            worse: self.worse.load(Relaxed),
            own_record: self.own_record.load(Relaxed),
            full: self.full.load(Relaxed),
            share_full: self.share_full.load(Relaxed),
            too_many_providers: self.too_many_providers.load(Relaxed),
            disk: self.disk.load(Relaxed),
        }
    }
}

pub(crate) fn one(counter: &AtomicU64) {
    add(counter, 1);
}

pub(crate) fn add(counter: &AtomicU64, count: usize) {
    counter.fetch_add(count as u64, Relaxed);
}

pub(crate) fn set(gauge: &AtomicU64, value: usize) {
    gauge.store(value as u64, Relaxed);
}
