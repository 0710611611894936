//! Any order of what callers and kad may do, against the model.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kadence_model::orderings(data));
