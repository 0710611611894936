//! Runs the driver's and the response channel's tests with the checker `shuttle`, which chooses the order of threads.

use std::{path::PathBuf, process::Command, time::Duration};

use anyhow::{Context, bail};

use crate::tools::{cargo, output, run_within};

/// A loop without a lock is not noticed by the checker.
const LIMIT: Duration = Duration::from_secs(1200);

/// Arguments of cargo that compile the races. The flag is for this one crate: as one for all, it would compile every
/// dependency again.
pub(crate) const COMPILE: [&str; 11] = [
    "rustc",
    "--package=kadence",
    "--lib",
    "--no-default-features",
    "--profile=test",
    "--message-format=json-render-diagnostics",
    "--",
    "--cfg",
    "shuttle",
    "-D",
    "warnings",
];

/// Part of the name of every such test.
pub(crate) const FILTER: &str = "races::";

/// Runs the races whose names begin with one of `args`, or all.
///
/// # Errors
///
/// If the tests do not compile or one fails.
pub(crate) fn check(args: &[String]) -> anyhow::Result<()> {
    let messages = output(&mut cargo(&COMPILE))?;
    let program = program_of(&messages).context("cargo has built no test program")?;
    let names: Vec<_> = match args {
        [] => vec![FILTER.to_owned()],
        names => names
            .iter()
            .flat_map(|name| ["driver", "response"].map(|module| format!("{FILTER}{module}::{name}")))
            .collect(),
    };
    if !output(Command::new(&program).arg("--list").args(&names))?.contains(FILTER) {
        bail!("no race has one of these names: {args:?}");
    }
    run_within(LIMIT, Command::new(program).arg("--nocapture").args(&names))
}

/// Returns the program that cargo's messages name.
pub(crate) fn program_of(messages: &str) -> Option<PathBuf> {
    messages.lines().rev().find_map(|message| {
        let message: serde_json::Value = serde_json::from_str(message).ok()?;
        message.get("executable")?.as_str().map(PathBuf::from)
    })
}
