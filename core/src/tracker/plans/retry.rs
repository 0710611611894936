//! Retries: a plan that runs another one again after a failure that another attempt could fix.

use super::{Ended, Plan, earlier::Earlier};
use crate::{Outcome, RequestId, Retry, TrackerConfig, tracker::results::QueryEnd, tracker::time::Time};

/// Attempts of a request with retries.
#[derive(Debug, Clone)]
pub(in crate::tracker) struct Attempts {
    retry: Retry,
    /// Number of failed attempts.
    failed: u32,
    /// Their results; few leave any.
    earlier: Option<Box<Earlier>>,
}

/// Bounds of the next attempt.
#[derive(Debug, Clone, Copy)]
pub(in crate::tracker) struct Limits {
    pub(in crate::tracker) request: RequestId,
    pub(in crate::tracker) streaming: bool,
    pub(in crate::tracker) now: Time,
    pub(in crate::tracker) deadline: Time,
}

impl Attempts {
    pub(in crate::tracker) fn new(retry: Retry) -> Self {
        Self { retry, failed: 0, earlier: None }
    }

    /// Ends an attempt of `plan`, whose last step was a query or not. Returns the time of the next attempt, if there is
    /// one.
    pub(in crate::tracker) fn next(
        &mut self,
        plan: &mut Plan,
        outcome: &Outcome,
        ended: Option<&Ended<'_>>,
        limits: Limits,
        config: &TrackerConfig,
    ) -> Option<Time> {
        let Limits { request, streaming, now, deadline } = limits;
        // Another attempt of a read would find as much again.
        let full =
            ended.is_some_and(|ended| matches!(ended.end, QueryEnd::Full)) && !matches!(plan, Plan::PutRecord(_));
        if !outcome.is_retryable() || full {
            return None;
        }
        let attempt = self.failed.saturating_add(1);
        // The stream would deliver its items twice.
        let repeats_items = streaming && ended.is_some_and(|ended| ended.results.has_items());
        if attempt >= self.retry.attempts || repeats_items {
            return None;
        }
        let until = now.after(self.retry.wait(attempt, jitter(config.seed, request, attempt)));
        if until >= deadline {
            return None;
        }
        self.failed = attempt;
        let earlier = Earlier::take(plan, ended);
        self.earlier = earlier.after(self.earlier.as_deref(), config.max_items);
        Some(until)
    }

    /// Adds the results of earlier attempts to a timeout.
    pub(in crate::tracker) fn complete(&self, outcome: &mut Outcome, max_items: usize) {
        if let Some(earlier) = &self.earlier {
            earlier.complete(outcome, max_items);
        }
    }
}

/// Returns a uniform random number that depends only on its arguments (the finaliser of SplitMix64, Steele et al.,
/// 2014).
fn jitter(seed: u64, id: RequestId, attempt: u32) -> u64 {
    let mut z = seed
        .wrapping_add(id.0.wrapping_mul(0x9E37_79B9_7F4A_7C15))
        .wrapping_add(u64::from(attempt).wrapping_mul(0xD1B5_4A32_D192_ED03));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
