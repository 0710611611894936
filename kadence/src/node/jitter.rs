use std::{
    hash::{Hash, Hasher},
    time::Duration,
};

use libp2p::PeerId;
use rustc_hash::FxHasher;

/// Returns a time between two spans. It depends on them and on the seed alone, so that nodes with different seeds do not
/// act together, and a test can repeat it.
pub(super) fn between(shortest: Duration, longest: Duration, seed: impl Hash) -> Duration {
    let mut hasher = FxHasher::default();
    (seed, shortest, longest).hash(&mut hasher);
    let part = (hasher.finish() >> 32) as f64 / f64::from(u32::MAX);
    shortest + longest.saturating_sub(shortest).mul_f64(part)
}

/// Source of times that differ from each other and between nodes.
pub(super) struct Jitter {
    seed: Vec<u8>,
    draws: u64,
}

impl Jitter {
    pub(super) fn new(local_peer_id: PeerId) -> Self {
        Self { seed: local_peer_id.to_bytes(), draws: 0 }
    }

    /// Draws a time between two spans.
    pub(super) fn draw(&mut self, shortest: Duration, longest: Duration) -> Duration {
        self.draws += 1;
        between(shortest, longest, (&self.seed, self.draws))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_differ_between_seeds_and_stay_within_their_bounds() {
        let (shortest, longest) = (Duration::from_secs(1), Duration::from_secs(2));
        let mut jitter = Jitter::new(PeerId::random());
        for seeds in [
            (0..100).map(|_| between(shortest, longest, PeerId::random())).collect::<Vec<_>>(),
            (0..100_u64).map(|draw| between(shortest, longest, draw)).collect(),
            (0..100).map(|_| jitter.draw(shortest, longest)).collect(),
        ] {
            assert!(seeds.iter().all(|time| (shortest..=longest).contains(time)), "{seeds:?}");
            let (least, most) = (seeds.iter().min().unwrap(), seeds.iter().max().unwrap());
            assert!(*most - *least > (longest - shortest) / 2, "{seeds:?}");
        }
        assert_eq!(between(longest, shortest, 1), longest);
    }
}
