//! Logs of trackers, damaged in any way.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kadence_model::replay(data));
