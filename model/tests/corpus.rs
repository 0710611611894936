//! Replays the fuzzers' corpus on a stable compiler.

#![expect(clippy::unwrap_used, reason = "a test fails with it")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use kadence_core::{ReplayError, replay};
use kadence_model::validators;

type Body = fn(&[u8]);

/// Each fuzz target and its function. Each has a file in `fuzz/fuzz_targets` and a folder in `fuzz/corpus`.
const TARGETS: &[(&str, Body)] =
    &[("events", kadence_model::events), ("orderings", kadence_model::orderings), ("replay", kadence_model::replay)];

/// Limits that keep a clone of the repository small.
const MAX_FILES: usize = 500;
const MAX_BYTES: u64 = 1024 * 1024;

fn fuzz(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz").join(folder)
}

/// Returns the entries of a folder by name.
fn entries(folder: &Path) -> BTreeMap<String, PathBuf> {
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).map(|path| (name(&path), path)).collect()
}

#[test]
fn every_target_has_seeds_and_every_seed_belongs_to_a_target() {
    let targets: Vec<_> = TARGETS.iter().map(|(target, _)| (*target).to_owned()).collect();
    let files: Vec<_> = targets.iter().map(|target| format!("{target}.rs")).collect();
    assert_eq!(entries(&fuzz("fuzz_targets")).into_keys().collect::<Vec<_>>(), files);
    assert_eq!(entries(&fuzz("corpus")).into_keys().collect::<Vec<_>>(), targets);
    for target in &targets {
        let seeds = entries(&fuzz("corpus").join(target));
        assert!(!seeds.is_empty(), "{target} has no seeds");
        assert!(seeds.values().all(|seed| seed.is_file()), "{target} has seeds that are not files");
    }
    let manifest = fs::read_to_string(fuzz("Cargo.toml")).unwrap();
    for target in &targets {
        let declared = format!("[[bin]]\nname = \"{target}\"\npath = \"fuzz_targets/{target}.rs\"\n");
        assert_eq!(manifest.matches(&declared).count(), 1, "{target} must be declared exactly once in the manifest");
    }
    assert_eq!(manifest.matches("[[bin]]").count(), targets.len());
}

#[test]
fn the_corpus_is_small() {
    let seeds: Vec<_> =
        entries(&fuzz("corpus")).into_values().flat_map(|folder| entries(&folder).into_values()).collect();
    let bytes: u64 = seeds.iter().map(|seed| seed.metadata().unwrap().len()).sum();
    assert!(seeds.len() <= MAX_FILES && bytes <= MAX_BYTES, "{} files, {bytes} bytes", seeds.len());
}

/// A log in an outdated format is repaired to nothing, and would test nothing.
#[test]
fn recorded_logs_have_the_current_format() {
    let mut whole = 0;
    for (name, seed) in entries(&fuzz("corpus").join("replay")) {
        let log = fs::read_to_string(&seed).unwrap_or_default();
        let replayed = replay(log.lines(), Instant::now(), validators());
        if name.starts_with("log-") {
            assert_eq!(replayed, Ok(log.lines().count()), "{name}: see xtask/src/seeds.rs");
            whole += 1;
        } else if name.starts_with("hashed-") {
            let foreign = matches!(replayed, Err(ReplayError::Malformed { line: 1 }));
            assert!(!foreign, "{name}: see xtask/src/seeds.rs");
        }
    }
    assert!(whole >= 50, "{whole} logs");
}

#[test]
fn every_seed_passes() {
    for (target, body) in TARGETS {
        for (name, seed) in entries(&fuzz("corpus").join(target)) {
            // Shown if the test fails.
            println!("{target}/{name}");
            body(&fs::read(seed).unwrap());
        }
    }
}
