//! Token buckets, one for each key, in bounded space.

use std::{collections::HashMap, hash::Hash, time::Duration};

/// How often something may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// A further one after each of these, in the long run.
    pub every: Duration,
    /// How many at once, after a time of none.
    pub burst: u32,
}

impl Rate {
    fn every_millis(self) -> u64 {
        u64::try_from(self.every.as_millis()).unwrap_or(u64::MAX).max(1)
    }

    fn burst_millis(self) -> u64 {
        self.every_millis().saturating_mul(u64::from(self.burst))
    }

    /// Takes a token. A bucket is the time, in milliseconds, at which it will be full.
    fn take(self, full_at: &mut u64, now: u64) -> bool {
        *full_at = self.bounded(*full_at, now);
        let after = (*full_at).saturating_add(self.every_millis());
        let is_left = after <= now.saturating_add(self.burst_millis());
        if is_left {
            *full_at = after;
        }
        is_left
    }

    /// Takes a token if so many are left after it.
    pub(super) fn take_above(self, left: u32, full_at: &mut u64, now: u64) -> bool {
        let after = self.bounded(*full_at, now).saturating_add(self.every_millis());
        let kept = self.every_millis().saturating_mul(u64::from(left));
        after.saturating_add(kept) <= now.saturating_add(self.burst_millis()) && self.take(full_at, now)
    }

    /// A clock that was set back does not make a debt larger than it can be.
    fn bounded(self, full_at: u64, now: u64) -> u64 {
        full_at.clamp(now, now.saturating_add(self.burst_millis()))
    }
}

/// A bucket for each key.
///
/// Room is made only by buckets that are full: a new one is the same, so that nobody gets rid of a debt, or loses a token,
/// because others came. Keys without room share one bucket.
#[derive(Debug)]
pub(in crate::p2p) struct Buckets<K> {
    rate: Rate,
    max: usize,
    full_at: HashMap<K, u64>,
    shared: u64,
    /// No bucket is full before that.
    swept_until: u64,
}

impl<K: Hash + Eq> Buckets<K> {
    pub(in crate::p2p) fn new(rate: Rate, max: usize) -> Self {
        Self { rate, max, full_at: HashMap::new(), shared: 0, swept_until: 0 }
    }

    /// Takes a token from the bucket of this key; false if there is none. `now` is in milliseconds.
    pub(in crate::p2p) fn take(&mut self, key: K, now: u64) -> bool {
        if !self.full_at.contains_key(&key) && self.full_at.len() >= self.max && !self.sweep(now) {
            return self.rate.take(&mut self.shared, now);
        }
        self.rate.take(self.full_at.entry(key).or_insert(0), now)
    }

    /// Whether the bucket of this key has a token. None is taken.
    pub(super) fn has(&mut self, key: &K, now: u64) -> bool {
        let has_room = self.full_at.contains_key(key) || self.full_at.len() < self.max || self.sweep(now);
        let mut full_at = if has_room { self.full_at.get(key).copied().unwrap_or(0) } else { self.shared };
        self.rate.take(&mut full_at, now)
    }

    /// True if there is room.
    fn sweep(&mut self, now: u64) -> bool {
        // To look at all of them for each message would be the attack's work done for it.
        if now >= self.swept_until || self.swept_until > now.saturating_add(self.rate.every_millis()) {
            self.full_at.retain(|_, full_at| {
                *full_at = self.rate.bounded(*full_at, now);
                *full_at > now
            });
            self.swept_until = now.saturating_add(self.rate.every_millis());
        }
        self.full_at.len() < self.max
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.full_at.len()
    }
}
