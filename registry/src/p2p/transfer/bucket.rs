use std::time::{Duration, Instant};

/// A token bucket of bytes that can go into debt: whoever takes is told how long to wait first, so that large takes need
/// no large bucket.
#[derive(Debug, Clone)]
pub(super) struct Bucket {
    /// Bytes per second.
    rate: u64,
    /// How much can be saved up: one second's worth.
    level: f64,
    at: Instant,
}

impl Bucket {
    /// A full one. No rate of 0: nothing would ever be sent.
    pub(super) fn new(rate: u64, now: Instant) -> Self {
        let rate = rate.max(1);
        Self { rate, level: per_second(rate), at: now }
    }

    /// How long to wait if these bytes were taken now.
    pub(super) fn wait(&mut self, bytes: u64, now: Instant) -> Duration {
        self.refill(now);
        let missing = per_second(bytes) - self.level;
        Duration::try_from_secs_f64(missing / per_second(self.rate)).unwrap_or(Duration::ZERO)
    }

    pub(super) fn take(&mut self, bytes: u64, now: Instant) {
        self.refill(now);
        self.level -= per_second(bytes);
    }

    pub(super) fn give_back(&mut self, bytes: u64, now: Instant) {
        self.refill(now);
        self.level = (self.level + per_second(bytes)).min(per_second(self.rate));
    }

    /// Whether it is as if nothing had ever been taken.
    pub(super) fn is_full(&mut self, now: Instant) -> bool {
        self.refill(now);
        self.level >= per_second(self.rate)
    }

    fn refill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.at);
        self.at = self.at.max(now);
        let full = per_second(self.rate);
        self.level = (self.level + elapsed.as_secs_f64() * full).min(full);
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate needs no more than 53 bits")]
fn per_second(bytes: u64) -> f64 {
    bytes as f64
}
