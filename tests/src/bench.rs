//! Code shared by the benchmarks: the command line and waiting.

use std::{env, future::poll_fn, pin::pin, process::ExitCode, time::Duration};

use kadence::{Runtime, Timer};

/// Mode of a benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The default: a few minutes.
    Quick,
    /// Every measurement at full length.
    Full,
    /// A few seconds, to check that the benchmark works.
    Smoke,
}

/// Options of the command line.
#[derive(Debug, Clone, Copy)]
pub struct Args {
    /// Mode of the benchmark.
    pub mode: Mode,
    /// Print one JSON object per line instead of tables.
    pub json: bool,
    /// Fail also if a check fails that depends on the machine.
    pub strict: bool,
}

/// Reason not to measure.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stop {
    /// Print this text and exit with success.
    Print(String),
    /// Print this message about an unknown argument and exit with an error.
    Unknown(String),
}

/// Runs a benchmark as the command line asks. The known options are the words of `usage`.
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

/// `cargo bench` passes `--bench`. Without it, this is `cargo test --benches` or `--all-targets`, which passes the same
/// filters and test harness options to every target. They are ignored, and the benchmark runs in smoke mode.
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
        return Err(Stop::Unknown(format!("unknown argument: {unknown}\n\n{usage}")));
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

/// Waits for this time on the runtime's clock.
pub async fn wait<R: Runtime>(runtime: &R, span: Duration) {
    let mut timer = pin!(runtime.timer(runtime.now() + span));
    poll_fn(|cx| timer.as_mut().poll_elapsed(cx)).await;
}
