//! Writes logs of random schedules as seeds of the fuzz target `replay`. To be run again when the format of logs
//! changes.
//!
//! ```text
//! cargo run -p xtask --features kadence -- seeds fuzz/corpus/replay
//! ```

use std::{fs, path::PathBuf, time::Duration};

use anyhow::Context;
use kadence_core::LogValues;
use kadence_model::{Harness, Mode};

const SEEDS: u64 = 60;

/// Further ones, without the values of records.
const HASHED: u64 = 10;

/// Writes the seeds into the folder named.
///
/// # Errors
///
/// If no folder is named, or it cannot be written.
pub(crate) fn write(args: &[String]) -> anyhow::Result<()> {
    let folder = PathBuf::from(args.first().context("name a folder: fuzz/corpus/replay")?);
    fs::create_dir_all(&folder)?;
    let mut state = 0;
    let mut words = std::iter::repeat_with(|| split_mix(&mut state));
    for seed in 0..SEEDS + HASHED {
        let (name, values) = if seed < SEEDS { ("log", LogValues::Whole) } else { ("hashed", LogValues::Hashed) };
        let mode = if seed % 2 == 0 { Mode::Legal } else { Mode::Hostile };
        let mut harness = Harness::recording(words.next().unwrap_or_default(), Duration::ZERO, values);
        for word in words.by_ref().take(usize::try_from(4 + seed)?) {
            harness.apply(&mode.input(word));
        }
        fs::write(folder.join(format!("{name}-{seed:02}")), harness.log().join("\n"))?;
    }
    Ok(())
}

/// Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}
