//! Token buckets: single ones, and one for each key in bounded space.

use std::{collections::HashMap, hash::Hash, time::Duration};

/// Rate limit in the form of a token bucket: up to `burst` events at once, and one event per `every` in the long run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Interval after which one more event is allowed. Values below one millisecond count as one millisecond.
    pub every: Duration,
    /// Maximum number of events at once. A used-up burst is available in full again after `burst` intervals without an
    /// event. 0 allows no event at all.
    pub burst: u32,
}

/// Fill rate and capacity of a bucket.
#[derive(Debug, Clone, Copy)]
pub(super) struct Refill {
    tokens: u64,
    per: Duration,
    /// Time in which an empty bucket fills up.
    capacity: Duration,
}

impl Refill {
    /// Returns a rate in tokens per second, with room for the tokens of one second. A rate of 0 counts as 1: a bucket
    /// that never fills would block its user for ever.
    pub(super) fn per_second(tokens: u64) -> Self {
        Self { tokens: tokens.max(1), per: Duration::from_secs(1), capacity: Duration::from_secs(1) }
    }

    /// Rounded up, so that rounding never allows more than the rate.
    fn time_of(self, tokens: u64) -> Duration {
        from_nanos(self.nanos(tokens).div_ceil(u128::from(self.tokens)))
    }

    fn time_given_back(self, tokens: u64) -> Duration {
        from_nanos(self.nanos(tokens) / u128::from(self.tokens))
    }

    fn nanos(self, tokens: u64) -> u128 {
        self.per.as_nanos().saturating_mul(u128::from(tokens))
    }
}

impl From<Rate> for Refill {
    fn from(rate: Rate) -> Self {
        let every = rate.every.max(Duration::from_millis(1));
        Self { tokens: 1, per: every, capacity: every.saturating_mul(rate.burst) }
    }
}

fn from_nanos(nanos: u128) -> Duration {
    const PER_SECOND: u128 = 1_000_000_000;
    let seconds = u64::try_from(nanos / PER_SECOND);
    let rest = u32::try_from(nanos % PER_SECOND).unwrap_or_default();
    seconds.map_or(Duration::MAX, |seconds| Duration::new(seconds, rest))
}

/// A token bucket, stored as the time at which it is full. The default is a full bucket.
///
/// Every `now` is the time since a fixed point that the caller chooses.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct TokenBucket {
    full_at: Duration,
}

impl TokenBucket {
    /// Takes one token; `false` if there is none. The clock may be set back.
    pub(super) fn try_take(&mut self, refill: Refill, now: Duration) -> bool {
        self.try_take_above(0, refill, now)
    }

    /// Takes one token if at least `left` tokens remain after it. The clock may be set back.
    pub(super) fn try_take_above(&mut self, left: u32, refill: Refill, now: Duration) -> bool {
        // A clock that was set back must not leave a debt larger than a bucket can have.
        self.full_at = self.full_at.min(now.saturating_add(refill.capacity));
        let is_allowed = self.wait(refill, u64::from(left).saturating_add(1), now).is_zero();
        if is_allowed {
            self.take(refill, 1, now);
        }
        is_allowed
    }

    /// Returns the time until these tokens could be taken without a debt. The clock must be monotonic.
    pub(super) fn wait(&self, refill: Refill, tokens: u64, now: Duration) -> Duration {
        let full_at = self.full_at.max(now).saturating_add(refill.time_of(tokens));
        full_at.saturating_sub(now.saturating_add(refill.capacity))
    }

    /// Takes tokens, into debt if there are too few: a large amount needs no large bucket. The clock must be monotonic.
    pub(super) fn take(&mut self, refill: Refill, tokens: u64, now: Duration) {
        self.full_at = self.full_at.max(now).saturating_add(refill.time_of(tokens));
    }

    /// Returns tokens that were taken and not used. What exceeds the capacity is lost.
    pub(super) fn give_back(&mut self, refill: Refill, tokens: u64) {
        self.full_at = self.full_at.saturating_sub(refill.time_given_back(tokens));
    }

    /// Returns whether the bucket is in the state of a new one.
    pub(super) fn is_full(&self, now: Duration) -> bool {
        self.full_at <= now
    }
}

/// Token buckets by key, all with the same rate.
///
/// Only full buckets are removed to make room: a full bucket equals a new one, so nobody loses a debt or a token
/// because others came. Keys for which there is no room share one bucket.
#[derive(Debug)]
pub(super) struct KeyedBuckets<K> {
    refill: Refill,
    max: usize,
    buckets: HashMap<K, TokenBucket>,
    shared: TokenBucket,
    /// No sweep is useful before this time.
    swept_until: Duration,
}

impl<K: Hash + Eq> KeyedBuckets<K> {
    pub(super) fn new(rate: Rate, max: usize) -> Self {
        Self {
            refill: rate.into(),
            max,
            buckets: HashMap::new(),
            shared: TokenBucket::default(),
            swept_until: Duration::ZERO,
        }
    }

    /// Takes one token from the bucket of the key; `false` if there is none. The clock may be set back.
    pub(super) fn try_take(&mut self, key: K, now: Duration) -> bool {
        let bucket = if self.has_room(&key, now) { self.buckets.entry(key).or_default() } else { &mut self.shared };
        bucket.try_take(self.refill, now)
    }

    /// Returns whether [`try_take`](Self::try_take) would succeed, without taking a token.
    pub(super) fn has_token(&mut self, key: &K, now: Duration) -> bool {
        let has_room = self.has_room(key, now);
        let mut bucket = if has_room { self.buckets.get(key).copied().unwrap_or_default() } else { self.shared };
        bucket.try_take(self.refill, now)
    }

    /// Returns whether the key has a bucket of its own or can get one.
    fn has_room(&mut self, key: &K, now: Duration) -> bool {
        self.buckets.contains_key(key) || self.buckets.len() < self.max || self.sweep(now)
    }

    /// Removes full buckets. Returns whether there is room now.
    fn sweep(&mut self, now: Duration) -> bool {
        // At most once an interval: a sweep for each message would make a flood more expensive for us.
        let until = now.saturating_add(self.refill.per);
        if now >= self.swept_until || self.swept_until > until {
            let latest = now.saturating_add(self.refill.capacity);
            self.buckets.retain(|_, bucket| {
                bucket.full_at = bucket.full_at.min(latest);
                !bucket.is_full(now)
            });
            self.swept_until = until;
        }
        self.buckets.len() < self.max
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RATE: Rate = Rate { every: Duration::from_secs(1), burst: 2 };

    fn millis(now: u64) -> Duration {
        Duration::from_millis(now)
    }

    proptest! {
        /// Apart from the burst of one second at the beginning.
        #[test]
        fn a_user_that_waits_as_asked_gets_no_more_than_the_rate(
            rate in 1_u64..1_000_000,
            takes in prop::collection::vec((0_u64..2_000_000, 0_u64..3000), 1..50),
        ) {
            let (refill, mut bucket) = (Refill::per_second(rate), TokenBucket::default());
            let (mut now, mut taken) = (Duration::ZERO, 0);
            for (bytes, pause) in takes {
                now += millis(pause) + bucket.wait(refill, bytes, now);
                bucket.take(refill, bytes, now);
                taken += bytes;
                let allowed = rate as f64 * (now.as_secs_f64() + 1.0);
                prop_assert!(taken as f64 <= allowed * 1.000_001 + 1.0, "{} of {}", taken, allowed);
            }
        }
    }

    #[test]
    fn extreme_rates_neither_overflow_nor_block() {
        for rate in [0, 1, u64::MAX] {
            let (refill, mut bucket) = (Refill::per_second(rate), TokenBucket::default());
            bucket.take(refill, u64::MAX, millis(1));
            bucket.give_back(refill, u64::MAX);
            assert!(bucket.is_full(millis(1)), "{rate}");
            assert!(bucket.wait(refill, u64::MAX, Duration::MAX).is_zero(), "{rate}");
        }
        let refill = Refill::from(Rate { every: Duration::MAX, burst: u32::MAX });
        let mut bucket = TokenBucket::default();
        assert!(bucket.try_take(refill, millis(1)) && bucket.try_take_above(u32::MAX, refill, Duration::MAX));
    }

    #[test]
    fn a_reserve_of_tokens_is_left() {
        let (refill, mut bucket) = (Refill::from(Rate { burst: 4, ..RATE }), TokenBucket::default());
        assert!(bucket.try_take_above(2, refill, millis(0)) && bucket.try_take_above(2, refill, millis(0)));
        assert!(!bucket.try_take_above(2, refill, millis(0)));
        assert!(bucket.try_take_above(1, refill, millis(0)) && bucket.try_take(refill, millis(0)));
        assert!(!bucket.try_take(refill, millis(999)));
        assert!(bucket.try_take(refill, millis(1000)));
    }

    #[test]
    fn a_bucket_is_kept_until_it_is_full_and_keys_without_room_share_one() {
        let mut buckets = KeyedBuckets::new(RATE, 3);
        for key in 0..3 {
            let mut take = || buckets.try_take(key, millis(10_000));
            assert!(take() && take() && !take());
        }
        // Two tokens for all others, whose arrival does not clear the debts of the first three.
        assert_eq!((3..100).filter(|key| buckets.try_take(*key, millis(10_500))).count(), 2);
        assert_eq!(buckets.buckets.len(), 3);
        assert!(!buckets.try_take(0, millis(10_500)));
        assert!(buckets.try_take(0, millis(11_000)));
        // The buckets of 1 and 2 are full and make room.
        assert!(buckets.try_take(3, millis(12_000)) && buckets.try_take(4, millis(12_000)));
        assert_eq!(buckets.buckets.len(), 3);
        assert!(buckets.has_token(&0, millis(12_000)));
        assert!(buckets.try_take(0, millis(12_000)) && !buckets.try_take(0, millis(12_000)));
        assert!(!buckets.has_token(&0, millis(12_000)));
    }

    #[test]
    fn a_clock_that_is_set_back_blocks_a_bucket_no_longer_than_it_takes_to_fill() {
        let mut buckets = KeyedBuckets::new(RATE, 3);
        assert!(buckets.try_take(0, millis(1_000_000_000)) && buckets.try_take(0, millis(1_000_000_000)));
        assert!(!buckets.try_take(0, millis(5_000)));
        assert!(buckets.try_take(0, millis(6_000)));
        assert!(buckets.try_take(0, millis(8_000)));
    }
}
