//! Events, answers and times that should never come, against the model.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kadence_model::events(data));
