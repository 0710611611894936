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
    /// Each host is in a region, drawn at random, and a pair has the round trip of its two regions, in milliseconds: a
    /// table with a row and a column for each region.
    Regions(&'static [&'static [f64]]),
}

/// Round trips between ten regions of a cloud, in milliseconds: the averages that were measured between those of Amazon Web
/// Services in 2017 and published under the name "Latency Between AWS Global Regions", rounded, in both directions the same.
/// Within a region, 5 ms are assumed.
///
/// The regions are Virginia, California, Oregon, Ireland, Frankfurt, Tokyo, Seoul, Singapore, Sydney and São Paulo. The
/// median of all pairs is 158 ms.
#[rustfmt::skip]
const CLOUD_REGIONS: &[&[f64]] = &[
    &[  5.0,  72.0,  88.0,  81.0,  89.0, 145.0, 177.0, 217.0, 230.0, 120.0],
    &[ 72.0,   5.0,  19.0, 153.0, 167.0, 103.0, 132.0, 174.0, 158.0, 193.0],
    &[ 88.0,  19.0,   5.0, 137.0, 160.0,  89.0, 118.0, 161.0, 162.0, 183.0],
    &[ 81.0, 153.0, 137.0,   5.0,  20.0, 212.0, 242.0, 239.0, 310.0, 191.0],
    &[ 89.0, 167.0, 160.0,  20.0,   5.0, 237.0, 266.0, 326.0, 323.0, 195.0],
    &[145.0, 103.0,  89.0, 212.0, 237.0,   5.0,  31.0,  74.0, 104.0, 257.0],
    &[177.0, 132.0, 118.0, 242.0, 266.0,  31.0,   5.0,  72.0, 134.0, 286.0],
    &[217.0, 174.0, 161.0, 239.0, 326.0,  74.0,  72.0,   5.0, 175.0, 328.0],
    &[230.0, 158.0, 162.0, 310.0, 323.0, 104.0, 134.0, 175.0,   5.0, 323.0],
    &[120.0, 193.0, 183.0, 191.0, 195.0, 257.0, 286.0, 328.0, 323.0,   5.0],
];

impl Latency {
    /// Round trips between ten regions of a cloud, from 19 ms to 328 ms, and 5 ms within a region: averages measured between
    /// those of Amazon Web Services in 2017. The median of two hosts is 158 ms.
    pub const CLOUD_REGIONS: Self = Self::Regions(CLOUD_REGIONS);

    /// Returns the latency of a pair. A host reaches itself in 20 microseconds.
    pub(crate) fn one_way(&self, a: usize, b: usize, seed: u64) -> Duration {
        if a == b {
            return Duration::from_micros(20);
        }
        match self {
            Self::Constant(span) => *span,
            Self::RoundTrips(distribution) => quantile(distribution, share(a.min(b), a.max(b), seed)) / 2,
            Self::Regions(table) => {
                let region = |host| mix(seed.rotate_left(29) ^ mix(host as u64)) as usize % table.len().max(1);
                let (a, b) = (region(a), region(b));
                // The same in both directions, also with a table that is not.
                let millis = table.get(a.min(b)).and_then(|row| row.get(a.max(b))).copied().unwrap_or_default();
                Duration::from_secs_f64(millis.max(0.0) / 2_000.0)
            }
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
    fn regions_are_as_far_from_each_other_as_their_table_says() {
        let latency = Latency::CLOUD_REGIONS;
        let mut times: Vec<_> = (0..200).flat_map(|a| (0..a).map(move |b| (a, b))).collect();
        times.retain(|(a, b)| latency.one_way(*a, *b, 5) == latency.one_way(*b, *a, 5));
        assert_eq!(times.len(), 200 * 199 / 2);
        let mut times: Vec<_> = times.into_iter().map(|(a, b)| 2 * latency.one_way(a, b, 5)).collect();
        times.sort();
        let (least, median, most) = (times[0], times[times.len() / 2], times[times.len() - 1]);
        assert_eq!([least, most].map(|time| time.as_millis()), [5, 328]);
        assert!((140..175).contains(&median.as_millis()), "{median:?}");
        for (at, row) in CLOUD_REGIONS.iter().enumerate() {
            assert!(
                CLOUD_REGIONS.iter().zip(*row).all(|(other, time)| other[at] == *time),
                "row {at} is not symmetric"
            );
        }
    }

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
