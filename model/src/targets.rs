//! Entry points of property tests, fuzz targets and regression tests.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use kadence_core::{LogValues, ReplayError, replay as replay_log};

use crate::{fixtures::validators, harness::Harness, input::Input};

/// Interpretation of the words of a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Callers and kad follow the rules.
    Legal,
    /// Callers and kad occasionally break the rules.
    Hostile,
}

impl Mode {
    /// Decodes a word into an input.
    pub fn input(self, word: u64) -> Input {
        match self {
            Self::Legal => Input::legal(word),
            Self::Hostile => Input::hostile(word),
        }
    }
}

/// Number of times that each kind of outcome and anomaly occurred.
pub type Coverage = BTreeMap<String, u64>;

/// Maximum number of inputs of a schedule. Longer ones only slow the fuzzer down.
const MAX_INPUTS: usize = 512;

/// Offset of the second run's epoch. It is not a whole number of seconds, so that rounding errors become visible.
const EPOCH_SHIFT: Duration = Duration::from_nanos(123_456_789_012_345);

/// Runs a schedule and lets time alone end it. Then runs it again in another epoch, with recording enabled.
///
/// # Panics
///
/// Panics if the tracker deviates from the model, if the two runs differ, or if the recorded log does not replay.
pub fn play(config: u64, words: &[u64], mode: Mode) -> Coverage {
    let run = |mut harness: Harness| {
        for word in words.iter().take(MAX_INPUTS) {
            harness.apply(&mode.input(*word));
        }
        harness.finish()
    };
    let (trace, coverage) = run(Harness::new(config, Duration::ZERO));
    let (again, _) = run(Harness::recording(config, EPOCH_SHIFT, LogValues::Whole));
    assert_eq!(trace, again, "the same inputs gave different actions in another epoch");
    coverage
}

/// Fuzz target `orderings`: any order of legal inputs.
pub fn orderings(data: &[u8]) {
    play_bytes(data, Mode::Legal);
}

/// Fuzz target `events`: legal inputs mixed with events, answers and times that callers and kad never produce.
pub fn events(data: &[u8]) {
    play_bytes(data, Mode::Hostile);
}

/// Fuzz target `replay`: arbitrarily damaged logs of trackers. The target repairs each line with the output that the
/// replay expected, until the whole log replays. A damaged line therefore does not hide the lines after it.
///
/// # Panics
///
/// Panics if a replay panics, if it rejects a line that it accepted before, or if a repaired log does not replay in
/// another epoch.
pub fn replay(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let repaired = repair(text.lines().take(MAX_LINES).map(str::to_owned).collect());
    assert_eq!(
        read(&repaired, Instant::now() + EPOCH_SHIFT),
        Ok(repaired.len()),
        "the log does not replay in another epoch: {repaired:#?}"
    );
}

/// Maximum number of lines of a log. Repairing replays the whole log once per repaired line.
const MAX_LINES: usize = 128;

fn repair(mut lines: Vec<String>) -> Vec<String> {
    let epoch = Instant::now();
    // Number of leading lines that replay.
    let mut accepted = 0;
    loop {
        let (line, replacement) = match read(&lines, epoch) {
            Ok(agreed) => {
                assert_eq!(agreed, lines.len());
                return lines;
            }
            // The first line is the header; without it the other lines cannot be read.
            Err(ReplayError::Malformed { line: 1 }) => return Vec::new(),
            Err(ReplayError::Malformed { line }) => (line, None),
            Err(ReplayError::Diverged { line, recorded: _, replayed }) => {
                (line, Some(replayed).filter(|replayed| !replayed.is_empty()))
            }
            Err(error) => unreachable!("unknown to the model: {error}"),
        };
        assert!(line > accepted, "line {line} was accepted before: {lines:#?}");
        accepted = line - 1 + usize::from(replacement.is_some());
        lines.splice(line - 1..line, replacement);
    }
}

fn read(lines: &[String], epoch: Instant) -> Result<usize, ReplayError> {
    replay_log(lines.iter().map(String::as_str), epoch, validators())
}

fn play_bytes(data: &[u8], mode: Mode) {
    if let Some((config, words)) = words_of(data).split_first() {
        play(*config, words, mode);
    }
}

/// Decodes the file of a schedule: little-endian words. Trailing bytes are ignored.
pub fn words_of(data: &[u8]) -> Vec<u64> {
    let (words, _) = data.as_chunks();
    words.iter().map(|word| u64::from_le_bytes(*word)).collect()
}

/// Encodes a schedule as a file.
pub fn bytes_of(config: u64, words: &[u64]) -> Vec<u8> {
    std::iter::once(&config).chain(words).flat_map(|word| word.to_le_bytes()).collect()
}
