//! Random numbers that are reproducible from a seed.

use libp2p::PeerId;

/// Random number generator (SplitMix64; Steele, Lea and Flood, 2014).
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// Creates a generator with this seed.
    pub fn new(seed: u64) -> Self {
        let mut rng = Self(seed);
        // Neighbouring seeds must not produce similar sequences.
        rng.0 = rng.next_u64();
        rng
    }

    /// Returns a uniformly distributed `u64`.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Returns a uniformly distributed number below `n`, which must not be zero.
    pub fn below(&mut self, n: usize) -> usize {
        // The upper half of the number divided by 2^32 is a uniformly distributed fraction of 1.
        usize::try_from((u128::from(self.next_u64() >> 32) * n as u128) >> 32)
            .expect("the product is less than n * 2^32")
    }

    /// Returns `true` with this probability, in percent.
    pub fn percent(&mut self, chances: usize) -> bool {
        self.below(100) < chances
    }

    /// Returns one of the elements.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    /// Returns the index of one of the weights, with a probability proportional to it.
    pub fn weighted(&mut self, weights: &[usize]) -> usize {
        let mut drawn = self.below(weights.iter().sum());
        for (place, weight) in weights.iter().enumerate() {
            match drawn.checked_sub(*weight) {
                Some(rest) => drawn = rest,
                None => return place,
            }
        }
        unreachable!("the number is less than the sum of the weights")
    }

    /// Returns one of the values, with a probability proportional to its weight.
    pub fn weighted_value<T: Copy>(&mut self, of: &[(T, usize)]) -> T {
        let weights: Vec<_> = of.iter().map(|(_, weight)| *weight).collect();
        of[self.weighted(&weights)].0
    }

    /// Returns a random peer id.
    pub fn peer(&mut self) -> PeerId {
        // A SHA2-256 multihash, as of a public key.
        let mut bytes = vec![0x12, 32];
        bytes.extend((0..4).flat_map(|_| self.next_u64().to_be_bytes()));
        PeerId::from_bytes(&bytes).expect("a SHA2-256 multihash is a valid peer id")
    }
}
