use std::time::Duration;

use super::config::AdaptiveTimeout;

/// A smoothed round-trip time and its deviation, as for TCP's retransmission timeout (RFC 6298), with two differences.
///
/// The first sample does not replace the initial estimate but is weighed against it, so that a single neighbour that
/// responds at once does not make everybody else late. And the timeout is at least twice the mean: where all responses
/// take equally long, the deviation approaches zero, and the first slightly slower response must not be late.
#[derive(Debug, Clone)]
pub(super) struct RttEstimator {
    bounds: AdaptiveTimeout,
    deviations: u32,
    mean: Duration,
    deviation: Duration,
    /// The last sample was longer than the maximum timeout.
    is_slow: bool,
}

impl RttEstimator {
    pub(super) fn new(bounds: AdaptiveTimeout, deviations: u32) -> Self {
        // The mean and deviation that give the initial timeout.
        let mean = bounds.initial.saturating_mul(2) / deviations.saturating_add(2).max(4);
        Self { bounds, deviations, mean, deviation: mean / 2, is_slow: false }
    }

    /// Adds a measured round trip. Longer ones than the maximum timeout count as that.
    pub(super) fn sample(&mut self, rtt: Duration) {
        self.is_slow = rtt > self.bounds.max && self.bounds.min < self.bounds.max;
        let rtt = rtt.min(self.max());
        self.deviation = weigh(self.deviation, 3, self.mean.abs_diff(rtt));
        self.mean = weigh(self.mean, 7, rtt);
    }

    /// Returns the current timeout. With at least four deviations, a single sample that is longer than all before
    /// raises it above that sample, up to the maximum.
    pub(super) fn timeout(&self) -> Duration {
        let deviating = self.mean.saturating_add(self.deviation.saturating_mul(self.deviations));
        let enough = deviating.max(self.mean.saturating_mul(2));
        enough.max(self.bounds.min).min(self.max()).max(SHORTEST)
    }

    /// Returns the time after which most responses have come: the mean and two deviations.
    pub(super) fn usual(&self) -> Duration {
        self.mean.saturating_add(self.deviation.saturating_mul(2)).min(self.timeout())
    }

    /// Returns the timeout that applies while nobody responds.
    pub(super) fn max_timeout(&self) -> Duration {
        self.max().max(SHORTEST)
    }

    /// Returns the maximum timeout: the configured one, or five times that from a response that took longer until the next one
    /// that did not. Otherwise nobody would ever be heard over a slow link, such as one of two satellites.
    fn max(&self) -> Duration {
        if self.is_slow { self.bounds.max.saturating_mul(5) } else { self.bounds.max }
    }
}

/// Minimum of any timeout: zero would make the loop spin.
const SHORTEST: Duration = Duration::from_millis(1);

/// Returns the average of `old`, weighted by `parts`, and `new`, weighted by one.
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

    fn new() -> RttEstimator {
        let config = PeerTimeoutConfig::default();
        RttEstimator::new(config.requests, config.deviations)
    }

    #[test]
    fn the_first_timeout_is_the_initial_one() {
        assert!(new().timeout().abs_diff(ms(500)) < ms(1), "{:?}", new().timeout());
    }

    #[test]
    fn one_lookup_in_a_fast_network_shortens_the_timeout_and_one_fast_response_does_not() {
        let mut rtt = new();
        rtt.sample(ms(1));
        assert!(rtt.timeout() > ms(450), "{:?}", rtt.timeout());
        (0..25).for_each(|_| rtt.sample(ms(1)));
        assert_eq!(rtt.timeout(), ms(100));
    }

    #[test]
    fn one_slow_response_is_enough_to_wait_for_others_like_it() {
        let mut rtt = new();
        (0..100).for_each(|_| rtt.sample(ms(5)));
        assert_eq!(rtt.timeout(), ms(100));
        for slow in [300, 1500] {
            let mut rtt = rtt.clone();
            rtt.sample(ms(slow));
            assert!(rtt.timeout() > ms(slow), "{slow}: {:?}", rtt.timeout());
        }
    }

    #[test]
    fn responses_that_all_take_equally_long_leave_room_for_a_slower_one() {
        let mut rtt = new();
        (0..100).for_each(|_| rtt.sample(ms(700)));
        assert!(rtt.timeout() >= ms(1390), "{:?}", rtt.timeout());
    }

    #[test]
    fn after_a_response_that_took_longer_than_the_maximum_others_like_it_are_waited_for() {
        let mut rtt = new();
        (0..100).for_each(|_| rtt.sample(ms(5)));
        rtt.sample(ms(2800));
        assert!(rtt.timeout() > ms(2800), "{:?}", rtt.timeout());
        assert_eq!(rtt.max_timeout(), ms(10_000));
        // One response in time ends this.
        rtt.sample(ms(5));
        assert_eq!(rtt.max_timeout(), ms(2000));
        let fixed = AdaptiveTimeout::fixed(ms(700));
        let mut rtt = RttEstimator::new(fixed, 4);
        rtt.sample(ms(2800));
        assert_eq!((rtt.timeout(), rtt.max_timeout()), (ms(700), ms(700)));
    }

    #[test]
    fn the_timeout_stays_within_any_bounds() {
        let mut rtt = new();
        (0..100).for_each(|_| rtt.sample(Duration::MAX));
        assert_eq!(rtt.timeout(), ms(10_000));
        rtt.sample(ms(2000));
        assert_eq!(rtt.timeout(), ms(2000));
        let odd = AdaptiveTimeout { initial: Duration::MAX, min: ms(10), max: Duration::ZERO };
        for deviations in [0, 1, u32::MAX] {
            let mut rtt = RttEstimator::new(odd, deviations);
            (0..3).for_each(|_| rtt.sample(Duration::MAX));
            assert_eq!(rtt.timeout(), SHORTEST);
        }
    }
}
