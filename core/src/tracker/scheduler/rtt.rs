//! Round-trip estimate, and the quiet time after which a query may have stalled.

use std::time::Duration;

use crate::Stall;

/// Number of round trips without progress that make a stall.
const ROUND_TRIPS: u32 = 3;

/// Weight of a new measurement: one eighth, as in TCP's smoothed round trip (RFC 6298).
const SMOOTHING: u32 = 8;

/// Minimum quiet time for any configuration, so that probes do not keep the driver busy.
const SHORTEST: Duration = Duration::from_millis(1);

/// Smoothed round trip, measured by the time in which queries get their first answers.
#[derive(Debug, Clone, Default)]
pub(super) struct RttEstimator {
    round_trip: Option<Duration>,
}

impl RttEstimator {
    /// Adds a measurement: a query had `answers` answers at its first event, `took` after its start. kad sends
    /// `parallelism` requests at a time, so these took at least `answers / parallelism` round trips.
    pub(super) fn measured(&mut self, took: Duration, answers: u32, stall: Option<&Stall>) {
        let Some(stall) = stall else { return };
        let rounds = answers.div_ceil(stall.parallelism.max(1)).max(1);
        let sample = (took / rounds).min(stall.max_quiet);
        self.round_trip = Some(match self.round_trip {
            None => sample,
            Some(smoothed) => smoothed - smoothed / SMOOTHING + sample / SMOOTHING,
        });
    }

    /// Returns the quiet time.
    pub(super) fn quiet(&self, stall: &Stall) -> Duration {
        let quiet = self.round_trip.map_or(stall.initial_quiet, |round_trip| round_trip.saturating_mul(ROUND_TRIPS));
        quiet.min(stall.max_quiet).max(stall.min_quiet).max(SHORTEST)
    }
}
