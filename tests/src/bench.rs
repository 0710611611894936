//! What benchmarks have in common: what the command line asks for, and time.

use std::{env, future::poll_fn, pin::pin, process::ExitCode, time::Duration};

use kadence::{Runtime, Timer};

/// How much is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// What can be waited for.
    Quick,
    /// All there is.
    Full,
    /// Seconds: whether the benchmark itself works.
    Smoke,
}

/// What was asked for.
#[derive(Debug, Clone, Copy)]
pub struct Args {
    /// How much is measured.
    pub mode: Mode,
    /// One JSON object a line instead of tables.
    pub json: bool,
    /// What depends on the machine as well fails the benchmark, too.
    pub strict: bool,
}

/// What the command line comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stop {
    /// Print this, and be done.
    Print(String),
    /// This argument is not known.
    Unknown(String),
}

/// Runs the benchmark of this name as the command line asks, whose options are those that its usage names.
pub fn main(name: &str, usage: &str, measure: impl FnOnce(Args) -> ExitCode) -> ExitCode {
    match args(name, usage) {
        Ok(args) => measure(args),
        Err(Stop::Print(text)) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(Stop::Unknown(text)) => {
            eprintln!("{text}");
            ExitCode::from(2)
        }
    }
}

/// `cargo bench` says `--bench`. Without it, this is `cargo test --benches` or `--all-targets`, which hands every target
/// the same filters and options of the test harness: they are let pass, and the benchmark only shows that it works.
fn args(name: &str, usage: &str) -> Result<Args, Stop> {
    let given: Vec<String> = env::args().skip(1).collect();
    let has = |option: &str| given.iter().any(|given| given == option);
    if has("--help") || has("-h") {
        return Err(Stop::Print(usage.to_owned()));
    }
    let measures = has("--bench") || has("--quick") || has("--full");
    if !measures && has("--list") {
        return Err(Stop::Print(format!("{name}: benchmark")));
    }
    let is_known =
        |given: &str| given == "--bench" || given == "--test" || usage.split_whitespace().any(|word| word == given);
    if measures && let Some(unknown) = given.iter().find(|given| !is_known(given)) {
        return Err(Stop::Unknown(format!("{unknown} is not known\n\n{usage}")));
    }
    let mode = if !measures || has("--smoke") || has("--test") {
        Mode::Smoke
    } else if has("--full") {
        Mode::Full
    } else {
        Mode::Quick
    };
    Ok(Args { mode, json: has("--json"), strict: has("--strict") })
}

/// Waits: what is measured may take its time.
pub async fn wait<R: Runtime>(runtime: &R, span: Duration) {
    let mut timer = pin!(runtime.timer(runtime.now() + span));
    poll_fn(|cx| timer.as_mut().poll_elapsed(cx)).await;
}
