//! The fuzzers' corpus, on a stable compiler: every run replays, long runs discover.

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

/// Each target with its body. A file under `fuzz/fuzz_targets` and a folder under `fuzz/corpus` belong to each.
const TARGETS: &[(&str, Body)] =
    &[("events", kadence_model::events), ("orderings", kadence_model::orderings), ("replay", kadence_model::replay)];

/// What a clone of the repository is asked to carry.
const MOST_FILES: usize = 500;
const MOST_BYTES: u64 = 1024 * 1024;

fn fuzz(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz").join(folder)
}

/// What is in a folder, by name.
fn entries(folder: &Path) -> BTreeMap<String, PathBuf> {
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).map(|path| (name(&path), path)).collect()
}

#[test]
fn every_seed_has_a_target_and_every_target_seeds() {
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
        assert_eq!(manifest.matches(&declared).count(), 1, "{target} is not declared once in the manifest");
    }
    assert_eq!(manifest.matches("[[bin]]").count(), targets.len());
}

#[test]
fn the_corpus_is_small() {
    let seeds: Vec<_> =
        entries(&fuzz("corpus")).into_values().flat_map(|folder| entries(&folder).into_values()).collect();
    let bytes: u64 = seeds.iter().map(|seed| seed.metadata().unwrap().len()).sum();
    assert!(seeds.len() <= MOST_FILES && bytes <= MOST_BYTES, "{} files, {bytes} bytes", seeds.len());
}

/// A log of another format mends to nothing, and would test nothing.
#[test]
fn the_recorded_logs_are_in_the_format_of_today() {
    let mut whole = 0;
    for (name, seed) in entries(&fuzz("corpus").join("replay")) {
        let log = fs::read_to_string(&seed).unwrap_or_default();
        let replayed = replay(log.lines(), Instant::now(), validators());
        if name.starts_with("log-") {
            assert_eq!(replayed, Ok(log.lines().count()), "{name}: see model/examples/seeds.rs");
            whole += 1;
        } else if name.starts_with("hashed-") {
            let foreign = matches!(replayed, Err(ReplayError::Malformed { line: 1 }));
            assert!(!foreign, "{name}: see model/examples/seeds.rs");
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
