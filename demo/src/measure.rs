//! Durations and failures of calls.

use std::{
    error::Error,
    future::IntoFuture,
    time::{Duration, Instant},
};

use serde::Serialize;

use crate::output::chain;

/// Awaits a call. Returns how long it took, and its result.
pub(super) async fn timed<C: IntoFuture>(call: C) -> (Duration, C::Output) {
    let began = Instant::now();
    let result = call.await;
    (began.elapsed(), result)
}

/// Durations and failures of the calls of one operation.
#[derive(Debug, Default)]
pub(super) struct Samples {
    ok: Vec<Duration>,
    failed: Vec<String>,
}

impl Samples {
    /// Counts a call and returns its answer, if it succeeded.
    pub(super) fn add<T, E: Error + 'static>(&mut self, (took, result): (Duration, Result<T, E>)) -> Option<T> {
        match result {
            Ok(answer) => {
                self.ok.push(took);
                Some(answer)
            }
            Err(error) => {
                self.failed.push(chain(&error));
                None
            }
        }
    }

    /// Returns the first failure, as a text to append to a figure. Empty if none failed.
    pub(super) fn first_failure(&self) -> String {
        self.failed.first().map(|failure| format!("; the first failure: {failure}")).unwrap_or_default()
    }

    pub(super) fn summary(&self) -> Summary {
        let mut sorted = self.ok.clone();
        sorted.sort_unstable();
        Summary {
            count: self.ok.len() + self.failed.len(),
            ok: self.ok.len(),
            failed: self.failed.len(),
            p50_ms: percentile(&sorted, 50).map(milliseconds),
            p95_ms: percentile(&sorted, 95).map(milliseconds),
            max_ms: sorted.last().copied().map(milliseconds),
        }
    }
}

/// Durations and failures of the calls of every operation.
#[derive(Debug, Default)]
pub(super) struct Measures {
    pub(super) put: Samples,
    pub(super) get: Samples,
    pub(super) get_all: Samples,
    pub(super) provide: Samples,
    pub(super) providers: Samples,
    pub(super) closest: Samples,
    pub(super) bootstrap: Samples,
}

impl Measures {
    pub(super) fn summaries(&self) -> Operations {
        Operations {
            put: self.put.summary(),
            get: self.get.summary(),
            get_all: self.get_all.summary(),
            provide: self.provide.summary(),
            providers: self.providers.summary(),
            closest: self.closest.summary(),
            bootstrap: self.bootstrap.summary(),
        }
    }

    /// Returns the first failure of each operation that has one.
    pub(super) fn first_failures(&self) -> String {
        let Self { put, get, get_all, provide, providers, closest, bootstrap } = self;
        let all = [put, get, get_all, provide, providers, closest, bootstrap];
        all.iter().filter_map(|samples| samples.failed.first()).cloned().collect::<Vec<_>>().join("; ")
    }
}

/// Figures of one operation. The times are those of the calls that succeeded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(super) struct Summary {
    pub(super) count: usize,
    pub(super) ok: usize,
    pub(super) failed: usize,
    pub(super) p50_ms: Option<f64>,
    pub(super) p95_ms: Option<f64>,
    pub(super) max_ms: Option<f64>,
}

/// Figures of every operation.
#[derive(Debug, Default, Serialize)]
pub(super) struct Operations {
    pub(super) put: Summary,
    pub(super) get: Summary,
    pub(super) get_all: Summary,
    pub(super) provide: Summary,
    pub(super) providers: Summary,
    pub(super) closest: Summary,
    pub(super) bootstrap: Summary,
}

impl Operations {
    pub(super) fn rows(&self) -> [(&'static str, Summary); 7] {
        let Self { put, get, get_all, provide, providers, closest, bootstrap } = *self;
        [
            ("bootstrap", bootstrap),
            ("put", put),
            ("get", get),
            ("get all copies", get_all),
            ("provide", provide),
            ("providers", providers),
            ("closest peers", closest),
        ]
    }

    pub(super) fn failed(&self) -> usize {
        self.rows().iter().map(|(_, summary)| summary.failed).sum()
    }
}

/// Returns the smallest of the sorted samples that at least `percent` of 100 samples do not exceed (nearest rank).
fn percentile(sorted: &[Duration], percent: usize) -> Option<Duration> {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied()
}

/// Returns milliseconds with three decimals, so that printed figures are short.
fn milliseconds(span: Duration) -> f64 {
    span.as_micros() as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn ms(values: impl IntoIterator<Item = u64>) -> Vec<Duration> {
        values.into_iter().map(Duration::from_millis).collect()
    }

    #[test]
    fn a_percentile_is_a_sample() {
        let hundred = ms(1..=100);
        assert_eq!(percentile(&hundred, 50), Some(Duration::from_millis(50)));
        assert_eq!(percentile(&hundred, 95), Some(Duration::from_millis(95)));
        assert_eq!(percentile(&hundred, 100), Some(Duration::from_millis(100)));
        let three = ms([10, 20, 30]);
        assert_eq!(percentile(&three, 50), Some(Duration::from_millis(20)));
        assert_eq!(percentile(&three, 95), Some(Duration::from_millis(30)));
        assert_eq!(percentile(&ms([7]), 95), Some(Duration::from_millis(7)));
        assert_eq!(percentile(&[], 95), None);
    }

    #[test]
    fn a_failed_call_has_no_duration() {
        let mut samples = Samples::default();
        for millis in [3, 1, 2] {
            assert_eq!(samples.add((Duration::from_millis(millis), Ok::<_, io::Error>(millis))), Some(millis));
        }
        let slow: Result<(), _> = Err(io::Error::other("too slow"));
        assert_eq!(samples.add((Duration::from_secs(10), slow)), None);
        let expected = Summary { count: 4, ok: 3, failed: 1, p50_ms: Some(2.0), p95_ms: Some(3.0), max_ms: Some(3.0) };
        assert_eq!(samples.summary(), expected);
    }
}
