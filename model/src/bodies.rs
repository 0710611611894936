//! What property tests, fuzz targets and regressions run.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use kadence_core::{LogValues, ReplayError, replay as replay_log};

use crate::{harness::Harness, input::Input, world::validators};

/// How words become inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Callers and kad keep to the rules.
    Legal,
    /// Neither does, now and then.
    Hostile,
}

impl Mode {
    /// The input that a word stands for.
    pub fn input(self, word: u64) -> Input {
        match self {
            Self::Legal => Input::legal(word),
            Self::Hostile => Input::hostile(word),
        }
    }
}

/// How often each kind of outcome and of fault came.
pub type Reached = BTreeMap<String, u64>;

/// So many inputs are enough to get anywhere; a fuzzer that makes them longer only gets slower.
const MOST_INPUTS: usize = 512;

/// Another epoch. A whole number of seconds would hide what is rounded.
const SHIFT: Duration = Duration::from_nanos(123_456_789_012_345);

/// Plays a schedule, ends it with nothing but time, and plays it again in another epoch, recorded.
///
/// # Panics
///
/// If the tracker does anything else than the model says, if the two runs differ, or if the log of the second one does
/// not replay.
pub fn play(config: u64, words: &[u64], mode: Mode) -> Reached {
    let run = |mut harness: Harness| {
        for word in words.iter().take(MOST_INPUTS) {
            harness.apply(&mode.input(*word));
        }
        harness.finish()
    };
    let (trace, reached) = run(Harness::new(config, Duration::ZERO));
    let (again, _) = run(Harness::recording(config, SHIFT, LogValues::Whole));
    assert_eq!(trace, again, "the same inputs gave other actions in another epoch");
    reached
}

/// The fuzz target `orderings`: any order of what callers and kad may do.
pub fn orderings(data: &[u8]) {
    play_bytes(data, Mode::Legal);
}

/// The fuzz target `events`: events, answers and times that should never come, among others.
pub fn events(data: &[u8]) {
    play_bytes(data, Mode::Hostile);
}

/// The fuzz target `replay`: logs of trackers, damaged in any way. Each is mended with what the replay says of it, until
/// it replays to its end: so a damaged line does not hide those behind it.
///
/// # Panics
///
/// If a replay panics, if it takes back what it accepted, or if a mended log does not replay in another epoch.
pub fn replay(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mended = mend(text.lines().take(MOST_LINES).map(str::to_owned).collect());
    assert_eq!(read(&mended, Instant::now() + SHIFT), Ok(mended.len()), "another epoch: {mended:#?}");
}

/// Mending replays the log for each line that it mends.
const MOST_LINES: usize = 128;

fn mend(mut lines: Vec<String>) -> Vec<String> {
    let epoch = Instant::now();
    // So many lines are in order, and stay so.
    let mut settled = 0;
    loop {
        let (line, instead) = match read(&lines, epoch) {
            Ok(agreed) => {
                assert_eq!(agreed, lines.len());
                return lines;
            }
            // The first line says how to read the others.
            Err(ReplayError::Malformed { line: 1 }) => return Vec::new(),
            Err(ReplayError::Malformed { line }) => (line, None),
            Err(ReplayError::Diverged { line, recorded: _, replayed }) => {
                (line, Some(replayed).filter(|replayed| !replayed.is_empty()))
            }
            Err(error) => unreachable!("unknown to the model: {error}"),
        };
        assert!(line > settled, "line {line} was in order: {lines:#?}");
        settled = line - 1 + usize::from(instead.is_some());
        lines.splice(line - 1..line, instead);
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

/// A schedule as a file has it: little-endian words. What is left over is dropped.
pub fn words_of(data: &[u8]) -> Vec<u64> {
    let (words, _) = data.as_chunks();
    words.iter().map(|word| u64::from_le_bytes(*word)).collect()
}

/// The file of a schedule.
pub fn bytes_of(config: u64, words: &[u64]) -> Vec<u8> {
    std::iter::once(&config).chain(words).flat_map(|word| word.to_le_bytes()).collect()
}
