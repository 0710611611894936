//! Chance that comes again with its seed.

use libp2p::PeerId;

/// A sequence of draws that its seed alone decides (SplitMix64, Steele and others, 2014).
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// The sequence of a seed.
    pub fn new(seed: u64) -> Self {
        let mut rng = Self(seed);
        // Neighbouring seeds begin far apart.
        rng.0 = rng.next_u64();
        rng
    }

    /// Evenly drawn from all `u64`.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `n`, which is not zero.
    pub fn below(&mut self, n: usize) -> usize {
        // The upper half of the draw over 2^32 is an even fraction of 1.
        usize::try_from((u128::from(self.next_u64() >> 32) * n as u128) >> 32).expect("it is below n")
    }

    /// Whether something with so many chances in a hundred comes to pass.
    pub fn percent(&mut self, chances: usize) -> bool {
        self.below(100) < chances
    }

    /// One of several.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    /// The place of one of several, each with its weight.
    pub fn weighted(&mut self, weights: &[usize]) -> usize {
        let mut drawn = self.below(weights.iter().sum());
        for (place, weight) in weights.iter().enumerate() {
            match drawn.checked_sub(*weight) {
                Some(rest) => drawn = rest,
                None => return place,
            }
        }
        unreachable!("the draw is below the sum")
    }

    /// One of several values, each with its weight.
    pub fn weighted_value<T: Copy>(&mut self, of: &[(T, usize)]) -> T {
        let weights: Vec<_> = of.iter().map(|(_, weight)| *weight).collect();
        of[self.weighted(&weights)].0
    }

    /// A peer that nobody has met.
    pub fn peer(&mut self) -> PeerId {
        // A SHA2-256 multihash, as of a key that nobody has.
        let mut bytes = vec![0x12, 32];
        bytes.extend((0..4).flat_map(|_| self.next_u64().to_be_bytes()));
        PeerId::from_bytes(&bytes).expect("a peer id is a hash")
    }
}
