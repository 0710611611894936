//! Fuzz target: compares the tracker with the model on any order of legal inputs.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kadence_model::orderings(data));
