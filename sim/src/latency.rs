//! Latencies between hosts.

use std::time::Duration;

use crate::splitmix::mix;

/// One-way latency of each pair of hosts. It is the same in both directions and does not change.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Latency {
    /// The same for each pair.
    Constant(Duration),
    /// For each pair its own, drawn from a distribution of round-trip times: pairs of a share of all pairs and the round
    /// trip that this share does not exceed, both ascending. Between them, times are interpolated.
    RoundTrips(&'static [(f64, Duration)]),
}

impl Latency {
    /// Returns the latency of a pair. A host reaches itself in 20 microseconds.
    pub(crate) fn one_way(&self, a: usize, b: usize, seed: u64) -> Duration {
        if a == b {
            return Duration::from_micros(20);
        }
        match self {
            Self::Constant(span) => *span,
            Self::RoundTrips(distribution) => quantile(distribution, share(a.min(b), a.max(b), seed)) / 2,
        }
    }
}

/// Returns a number from 0 to 1 that depends only on the pair and the seed.
fn share(a: usize, b: usize, seed: u64) -> f64 {
    let pair = (a as u64) << 32 | b as u64;
    let z = mix(mix(seed.rotate_left(17) ^ pair));
    (z >> 11) as f64 / (1_u64 << 53) as f64
}

fn quantile(distribution: &[(f64, Duration)], share: f64) -> Duration {
    let (mut before, mut from) = (0.0, Duration::ZERO);
    for (upto, time) in distribution {
        if share <= *upto {
            let part = if *upto > before { (share - before) / (upto - before) } else { 1.0 };
            return from + (*time).saturating_sub(from).mul_f64(part);
        }
        (before, from) = (*upto, *time);
    }
    from
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALF: &[(f64, Duration)] =
        &[(0.0, Duration::from_millis(10)), (0.5, Duration::from_millis(100)), (1.0, Duration::from_millis(400))];

    #[test]
    fn latencies_follow_their_distribution_and_are_symmetric() {
        let latency = Latency::RoundTrips(HALF);
        let mut times: Vec<_> =
            (0..200).flat_map(|a| (0..a).map(move |b| (a, b))).map(|(a, b)| latency.one_way(a, b, 5)).collect();
        assert_eq!(latency.one_way(3, 8, 5), latency.one_way(8, 3, 5));
        assert_ne!(latency.one_way(3, 8, 5), latency.one_way(3, 8, 6));
        times.sort();
        let median = times[times.len() / 2];
        assert!((45..55).contains(&median.as_millis()), "{median:?}");
        assert!(times[0] >= Duration::from_millis(5) && times[times.len() - 1] <= Duration::from_millis(200));
    }
}
