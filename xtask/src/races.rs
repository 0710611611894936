//! Runs the driver's and the response channel's tests with the checker `shuttle`, which chooses the order of threads.

use std::{path::PathBuf, process::Command};

use anyhow::Context;

use crate::tools::{cargo, output, run};

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
    let program = messages.lines().rev().find_map(executable).context("cargo has built no test program")?;
    let mut tests = Command::new(program);
    tests.arg("--nocapture");
    if args.is_empty() {
        tests.arg(FILTER);
    }
    for name in args {
        tests.args(["driver", "response"].map(|module| format!("{FILTER}{module}::{name}")));
    }
    run(&mut tests)
}

/// Returns the program that a message of cargo names.
pub(crate) fn executable(message: &str) -> Option<PathBuf> {
    let message: serde_json::Value = serde_json::from_str(message).ok()?;
    message.get("executable")?.as_str().map(PathBuf::from)
}
