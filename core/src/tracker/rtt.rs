//! How fast the network answers, and how long a silence is too long.

use std::time::Duration;

use crate::Stall;

/// So many round trips without a movement are a stall.
const ROUND_TRIPS: u32 = 3;

/// A new measurement counts for an eighth, as in TCP's smoothed round trip (RFC 6298).
const SMOOTHING: u32 = 8;

/// The shortest quiet time, whatever was asked for, so that nobody is kept busy by looking.
const SHORTEST: Duration = Duration::from_millis(1);

/// A smoothed round trip, measured from how long queries take for their first answers.
#[derive(Debug, Default)]
pub(super) struct RttEstimator {
    round_trip: Option<Duration>,
}

impl RttEstimator {
    /// A query had so many answers when it was first heard of, so long after its start. kad has a few requests under way
    /// at a time, and every further few wait for answers to the first: so it took at least so many round trips.
    pub(super) fn measured(&mut self, took: Duration, answers: u32, stall: Option<&Stall>) {
        let Some(stall) = stall else { return };
        let rounds = answers.div_ceil(stall.parallelism.max(1)).max(1);
        let sample = (took / rounds).min(stall.max_quiet);
        self.round_trip = Some(match self.round_trip {
            None => sample,
            Some(smoothed) => smoothed - smoothed / SMOOTHING + sample / SMOOTHING,
        });
    }

    /// How long a query may be quiet.
    pub(super) fn quiet(&self, stall: &Stall) -> Duration {
        let quiet = self.round_trip.map_or(stall.initial_quiet, |round_trip| round_trip.saturating_mul(ROUND_TRIPS));
        quiet.min(stall.max_quiet).max(stall.min_quiet).max(SHORTEST)
    }
}
