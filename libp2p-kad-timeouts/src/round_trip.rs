use std::time::Duration;

use super::AdaptiveTimeout;

/// A smoothed round trip time and its deviation, as TCP has it (RFC 6298), but for the beginning: there the first
/// sample is everything, here the initial patience counts as one that came before, so that a single neighbour that
/// answers at once does not make everybody else late. And where all answers take equally long, the deviation comes to
/// nothing, which must not make the first one late that takes a little longer: the patience is twice the mean at least.
#[derive(Debug, Clone)]
pub(super) struct RoundTrip {
    bounds: AdaptiveTimeout,
    deviations: u32,
    mean: Duration,
    deviation: Duration,
}

impl RoundTrip {
    pub(super) fn new(bounds: AdaptiveTimeout, deviations: u32) -> Self {
        // As if the first sample had been such that the patience is now the initial one.
        let mean = bounds.initial.saturating_mul(2) / deviations.saturating_add(2).max(4);
        Self { bounds, deviations, mean, deviation: mean / 2 }
    }

    /// What one more took. A peer that answers after an hour says no more than one that takes all there is to wait.
    pub(super) fn sample(&mut self, took: Duration) {
        let took = took.min(self.bounds.max);
        self.deviation = weigh(self.deviation, 3, self.mean.abs_diff(took));
        self.mean = weigh(self.mean, 7, took);
    }

    /// How long to wait. After a single sample that is longer than all before, it is longer than that sample already.
    pub(super) fn patience(&self) -> Duration {
        let deviating = self.mean.saturating_add(self.deviation.saturating_mul(self.deviations));
        let enough = deviating.max(self.mean.saturating_mul(2));
        enough.max(self.bounds.min).min(self.bounds.max).max(SHORTEST)
    }

    /// Most answers are there after this time.
    pub(super) fn usual(&self) -> Duration {
        self.mean.saturating_add(self.deviation.saturating_mul(2)).min(self.patience())
    }

    /// How long to wait while nobody answers.
    pub(super) fn longest(&self) -> Duration {
        self.bounds.max.max(SHORTEST)
    }
}

/// A patience of nothing would make the loop spin.
const SHORTEST: Duration = Duration::from_millis(1);

/// So many parts of the old and one of the new.
fn weigh(old: Duration, parts: u32, new: Duration) -> Duration {
    old.saturating_mul(parts).saturating_add(new) / parts.saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PeerTimeoutConfig;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn new() -> RoundTrip {
        let config = PeerTimeoutConfig::default();
        RoundTrip::new(config.requests, config.deviations)
    }

    #[test]
    fn it_begins_with_the_initial_patience() {
        assert!(new().patience().abs_diff(ms(500)) < ms(1), "{:?}", new().patience());
    }

    #[test]
    fn one_lookup_in_a_fast_network_makes_it_short_and_one_quick_answer_does_not() {
        let mut trip = new();
        trip.sample(ms(1));
        assert!(trip.patience() > ms(450), "{:?}", trip.patience());
        (0..25).for_each(|_| trip.sample(ms(1)));
        assert_eq!(trip.patience(), ms(100));
    }

    #[test]
    fn one_slow_answer_is_enough_to_wait_for_others_like_it() {
        let mut trip = new();
        (0..100).for_each(|_| trip.sample(ms(5)));
        assert_eq!(trip.patience(), ms(100));
        for slow in [300, 1500] {
            let mut trip = trip.clone();
            trip.sample(ms(slow));
            assert!(trip.patience() > ms(slow), "{slow}: {:?}", trip.patience());
        }
    }

    #[test]
    fn answers_that_all_take_equally_long_leave_room_for_one_that_takes_longer() {
        let mut trip = new();
        (0..100).for_each(|_| trip.sample(ms(700)));
        assert!(trip.patience() >= ms(1390), "{:?}", trip.patience());
    }

    #[test]
    fn it_stays_within_its_bounds_whatever_they_are() {
        let mut trip = new();
        (0..100).for_each(|_| trip.sample(Duration::MAX));
        assert_eq!(trip.patience(), ms(2000));
        let odd = AdaptiveTimeout { initial: Duration::MAX, min: ms(10), max: Duration::ZERO };
        for deviations in [0, 1, u32::MAX] {
            let mut trip = RoundTrip::new(odd, deviations);
            (0..3).for_each(|_| trip.sample(Duration::MAX));
            assert_eq!(trip.patience(), SHORTEST);
        }
    }
}
