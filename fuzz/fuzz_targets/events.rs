//! Fuzz target: compares the tracker with the model on inputs that include illegal events, answers and times.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kadence_model::events(data));
