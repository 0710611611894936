//! Fuzz target: replays damaged logs of trackers.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kadence_model::replay(data));
