//! `--record`, and `kadence replay`: a log of every query of a command, for the report of a fault.

use std::{
    fs::{self, File},
    io::{LineWriter, Write},
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::Context;
use kadence_tokio::kadence::{
    DriverConfig, LogValues, Recording, Validators,
    tracker::{ReplayError, replay},
};
use serde_json::json;
use tracing::error;

use crate::{exit::Failure, output};

#[derive(Debug, clap::Args)]
pub(crate) struct RecordArgs {
    /// Write every query of this command, with its events, to a new file, for `kadence replay`. The file contains keys,
    /// peer ids and addresses, but of values only lengths and hashes
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Write the values to that file, too
    #[arg(long, requires = "record")]
    record_values: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ReplayArgs {
    /// File that --record has written. One of a stranger may make the program use much memory
    file: PathBuf,
    /// Print the result as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

impl RecordArgs {
    /// Returns the configuration of a driver that records if the arguments say so.
    ///
    /// # Errors
    ///
    /// If the file exists or cannot be created.
    pub(crate) fn driver(&self) -> Result<DriverConfig, Failure> {
        let config = DriverConfig::default();
        let Some(path) = &self.record else { return Ok(config) };
        let values = if self.record_values { LogValues::Whole } else { LogValues::Hashed };
        let file = File::create_new(path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(config.recording(Recording::new(values, writer(file, path))))
    }
}

/// Returns a sink for lines, which stops at the first one that cannot be written: a log with a gap cannot be replayed.
fn writer(file: File, path: &Path) -> impl FnMut(&str) + Send + 'static {
    let path = path.to_owned();
    let mut log = Some(LineWriter::new(file));
    move |line| {
        if let Some(file) = &mut log
            && let Err(error) = writeln!(file, "{line}")
        {
            error!(file = %path.display(), %error, "recording stopped");
            log = None;
        }
    }
}

/// Returns a text without control characters, at most so much that a line of a terminal or two hold it.
fn printable(text: &str) -> String {
    const LEN: usize = 400;
    let mut shown: String = text.chars().take(LEN).flat_map(char::escape_debug).collect();
    if text.chars().nth(LEN).is_some() {
        shown.push('…');
    }
    shown
}

/// Replays a recording, and reports whether the tracker takes the same actions again.
///
/// # Errors
///
/// If the file cannot be read or is no recording, or at the first action that differs.
pub(crate) fn run(args: &ReplayArgs) -> Result<(), Failure> {
    let ReplayArgs { file, json } = args;
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    // A program that was killed may have left a part of a line.
    let whole = text.rfind('\n').map_or("", |end| text.get(..end).unwrap_or_default());
    let lines = replay(whole.lines(), Instant::now(), Validators::default()).map_err(|error| {
        // The file may be a stranger's, and what is not text must not reach a terminal.
        let what = match &error {
            ReplayError::Diverged { .. } => "differs from its replay",
            _ => "is no recording of this version",
        };
        anyhow::anyhow!("{} {what}: {}", file.display(), printable(&error.to_string()))
    })?;
    if lines == 0 {
        return Err(anyhow::anyhow!("{} has no line", file.display()).into());
    }
    if *json {
        output::json(&json!({ "ok": true, "lines": lines }))?;
    } else {
        output::line(format_args!("{lines} lines, and the replay gives the same"))?;
    }
    Ok(())
}
