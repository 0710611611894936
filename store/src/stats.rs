use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use crate::{Refusal, store::Stored};

/// What a store has and has done, read at one time. Counters begin with 0 when the store is opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Records there are, those included that have expired and are not yet swept.
    pub records: u64,
    /// Bytes of their keys and values.
    pub record_bytes: u64,
    /// Providers there are, of all keys.
    pub provider_records: u64,
    /// Keys that have providers.
    pub provided_keys: u64,
    /// Records that were stored, under a new key or in place of another one.
    pub accepted: u64,
    /// Records that were there and live longer now.
    pub refreshed: u64,
    /// Records that were there.
    pub unchanged: u64,
    /// Records that were refused, by reason.
    pub refused: Refused,
    /// Providers that were entered or renewed.
    pub providers_accepted: u64,
    /// Providers that were refused, by reason.
    pub providers_refused: Refused,
    /// Records and providers that had to give way to others.
    pub evicted: u64,
    /// Records and providers that have expired and were swept.
    pub expired: u64,
    /// Records that were in the file and not taken from it: invalid by now, or over the limits.
    pub dropped_at_open: u64,
    /// Writes that failed. A failed put is refused; a failed removal is tried again with the next write.
    pub disk_errors: u64,
    /// The longest that a write to the file has taken, and with it stopped the swarm.
    pub longest_write: Duration,
}

/// Counters of refusals, by the variant of [`Refusal`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Refused {
    /// [`Refusal::ValueTooLarge`].
    pub value_too_large: u64,
    /// [`Refusal::KeyTooLong`].
    pub key_too_large: u64,
    /// [`Refusal::Expired`].
    pub expired: u64,
    /// [`Refusal::Invalid`].
    pub invalid: u64,
    /// [`Refusal::NoValidator`].
    pub no_validator: u64,
    /// [`Refusal::Worse`].
    pub worse: u64,
    /// [`Refusal::Ours`].
    pub ours: u64,
    /// [`Refusal::Full`].
    pub full: u64,
    /// [`Refusal::ShareFull`].
    pub share_full: u64,
    /// [`Refusal::KeyFull`].
    pub key_full: u64,
    /// [`Refusal::Disk`].
    pub disk: u64,
}

impl Refused {
    /// All of them together.
    pub fn total(&self) -> u64 {
        let Self {
            value_too_large,
            key_too_large,
            expired,
            invalid,
            no_validator,
            worse,
            ours,
            full,
            share_full,
            key_full,
            disk,
        } = *self;
        [value_too_large, key_too_large, expired, invalid, no_validator, worse, ours, full, share_full, key_full, disk]
            .iter()
            .sum()
    }
}

/// Reads a store's counters while a swarm owns the store. Cheap to clone.
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
    refused: RefusedCounters,
    pub(crate) providers_accepted: AtomicU64,
    providers_refused: RefusedCounters,
    pub(crate) evicted: AtomicU64,
    pub(crate) expired: AtomicU64,
    pub(crate) dropped_at_open: AtomicU64,
    pub(crate) disk_errors: AtomicU64,
    longest_write_nanos: AtomicU64,
}

#[derive(Debug, Default)]
struct RefusedCounters {
    value_too_large: AtomicU64,
    key_too_large: AtomicU64,
    expired: AtomicU64,
    invalid: AtomicU64,
    no_validator: AtomicU64,
    worse: AtomicU64,
    ours: AtomicU64,
    full: AtomicU64,
    share_full: AtomicU64,
    key_full: AtomicU64,
    disk: AtomicU64,
}

impl StatsHandle {
    /// The counters as they are now. They are read one after the other, so that of two that change together one may be
    /// ahead.
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
            refused: counters.refused.read(),
            providers_accepted: counters.providers_accepted.load(Relaxed),
            providers_refused: counters.providers_refused.read(),
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
    pub(crate) fn record(&self, result: &Result<Stored, Refusal>) {
        match result {
            Ok(Stored::New | Stored::Replaced) => one(&self.accepted),
            Ok(Stored::Refreshed) => one(&self.refreshed),
            Ok(Stored::Unchanged) => one(&self.unchanged),
            Err(refusal) => self.refused.count(refusal),
        }
    }

    pub(crate) fn provider(&self, result: &Result<(), Refusal>) {
        match result {
            Ok(()) => one(&self.providers_accepted),
            Err(refusal) => self.providers_refused.count(refusal),
        }
    }

    pub(crate) fn wrote(&self, took: Duration) {
        self.longest_write_nanos.fetch_max(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }
}

impl RefusedCounters {
    fn count(&self, refusal: &Refusal) {
        one(match refusal {
            Refusal::ValueTooLarge { .. } => &self.value_too_large,
            Refusal::KeyTooLong { .. } => &self.key_too_large,
            Refusal::Expired => &self.expired,
            Refusal::Invalid(_) => &self.invalid,
            Refusal::NoValidator => &self.no_validator,
            Refusal::Worse => &self.worse,
            Refusal::Ours => &self.ours,
            Refusal::Full => &self.full,
            Refusal::ShareFull => &self.share_full,
            Refusal::KeyFull => &self.key_full,
            Refusal::Disk(_) => &self.disk,
        });
    }

    fn read(&self) -> Refused {
        Refused {
            value_too_large: self.value_too_large.load(Relaxed),
            key_too_large: self.key_too_large.load(Relaxed),
            expired: self.expired.load(Relaxed),
            invalid: self.invalid.load(Relaxed),
            no_validator: self.no_validator.load(Relaxed),
            worse: self.worse.load(Relaxed),
            ours: self.ours.load(Relaxed),
            full: self.full.load(Relaxed),
            share_full: self.share_full.load(Relaxed),
            key_full: self.key_full.load(Relaxed),
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
