use std::{
    hash::{Hash, Hasher},
    time::Duration,
};

use rustc_hash::FxHasher;

/// Returns a time between two spans. It depends on them and on the seed alone, so that nodes with different seeds do not
/// act together, and a test can repeat it.
pub(super) fn between(shortest: Duration, longest: Duration, seed: impl Hash) -> Duration {
    let mut hasher = FxHasher::default();
    (seed, shortest, longest).hash(&mut hasher);
    let part = (hasher.finish() >> 32) as f64 / f64::from(u32::MAX);
    shortest + longest.saturating_sub(shortest).mul_f64(part)
}

#[cfg(test)]
mod tests {
    use libp2p::PeerId;

    use super::*;

    #[test]
    fn times_differ_between_seeds_and_stay_within_their_bounds() {
        let (shortest, longest) = (Duration::from_secs(1), Duration::from_secs(2));
        for seeds in [
            (0..100).map(|_| between(shortest, longest, PeerId::random())).collect::<Vec<_>>(),
            (0..100_u64).map(|draw| between(shortest, longest, draw)).collect(),
        ] {
            assert!(seeds.iter().all(|time| (shortest..=longest).contains(time)), "{seeds:?}");
            let (least, most) = (seeds.iter().min().unwrap(), seeds.iter().max().unwrap());
            assert!(*most - *least > (longest - shortest) / 2, "{seeds:?}");
        }
        assert_eq!(between(longest, shortest, 1), longest);
    }
}
