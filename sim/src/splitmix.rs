//! SplitMix64 (Steele et al., 2014): random numbers without allocation, and a hash of a number.

const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

/// Returns a number that looks random and depends on this one alone.
pub(crate) fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(STEP);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Returns the next number of a generator.
pub(crate) fn next(state: &mut u64) -> u64 {
    let random = mix(*state);
    *state = state.wrapping_add(STEP);
    random
}
