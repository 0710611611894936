//! The simulator, which is a workspace of its own: its checks, its random worlds and its figures.

use std::{env, path::PathBuf, process::Command, time::Duration};

use crate::{
    files,
    tools::{cargo, run_within, target_dir},
};

/// A world that hangs is ended by the program that plays it.
const LIMIT: Duration = Duration::from_secs(24 * 60 * 60);

const CHECK_LIMIT: Duration = Duration::from_secs(2400);

/// Worlds of a check.
const WORLDS: &str = "40";

/// Formatting, lints, tests, documentation, some random worlds, and the figures of a small network.
///
/// # Errors
///
/// If one of them fails.
pub(crate) fn check() -> anyhow::Result<()> {
    if !cfg!(target_os = "linux") {
        println!("the simulator needs Linux");
        return Ok(());
    }
    for args in [
        &["fmt", "--all", "--check"][..],
        &["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"],
        // One world at a time: libp2p counts ids up for all of a process, and so each run is the same.
        &["test", "--workspace", "--locked", "--", "--test-threads", "1"],
        &["run", "--locked", "--example", "behaviour"],
        &["doc", "--workspace", "--no-deps", "--locked"],
    ] {
        run_within(CHECK_LIMIT, command(args).env("RUSTDOCFLAGS", "-D warnings"))?;
    }
    worlds(&["--seeds".to_owned(), WORLDS.to_owned()])?;
    figures(&["--check".to_owned()])
}

/// Plays random worlds: `--seeds N [--from M] [--log FILE]`, `--seed S`, `--shrink S` or `--plan FILE`.
///
/// # Errors
///
/// If an invariant was violated.
pub(crate) fn worlds(args: &[String]) -> anyhow::Result<()> {
    let mut worlds = command(&["run", "--quiet", "--locked", "--example", "worlds", "--"]);
    run_within(LIMIT, worlds.args(absolute(args)?))
}

/// Prints the tables of figures in virtual time: `figures [NODES [ROUNDS [FOLDER]]]`, `--check` or `--write`.
///
/// # Errors
///
/// If the program fails.
pub(crate) fn figures(args: &[String]) -> anyhow::Result<()> {
    let mut figures = command(&["run", "--quiet", "--locked", "--example", "figures", "--"]);
    run_within(LIMIT, figures.args(absolute(args)?))
}

/// Returns the arguments with paths from the root, because the program runs in another folder.
fn absolute(args: &[String]) -> anyhow::Result<Vec<PathBuf>> {
    let here = env::current_dir()?;
    let is_path = |arg: &String| !arg.starts_with('-') && arg.parse::<u64>().is_err();
    Ok(args.iter().map(|arg| if is_path(arg) { here.join(arg) } else { arg.into() }).collect())
}

/// Returns a command of cargo in the simulator's workspace.
fn command(args: &[&str]) -> Command {
    let mut command = cargo(args);
    command.current_dir(files::root().join("sim")).env("CARGO_TARGET_DIR", target_dir().join("sim"));
    command
}
