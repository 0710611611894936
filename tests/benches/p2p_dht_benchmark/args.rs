//! What the command line asks for.

use std::env;

/// How it is called.
const USAGE: &str = "\
cargo bench --bench p2p_dht_benchmark -- [OPTIONS]

  --quick      some five minutes on two cores; the default
  --full       every runtime as often as the first
  --smoke      seconds, on a small network: whether the benchmark itself works. Also --test
  --json       one JSON object a line instead of the table
  --strict     a ratio or a time that misses its target fails the benchmark, too
  --help       this";

/// How much is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Quick,
    Full,
    Smoke,
}

/// What was asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Args {
    pub(crate) mode: Mode,
    pub(crate) json: bool,
    pub(crate) strict: bool,
}

/// What the command line comes to.
pub(crate) enum Asked {
    Run(Args),
    /// Print this, and be done.
    Print(&'static str),
    /// This argument is not known.
    Unknown(String),
}

/// Reads the command line.
///
/// `cargo bench` says `--bench`. Without it, this is `cargo test --benches` or `--all-targets`, which hands every target
/// the same filters and options of the test harness: they are let pass, and the benchmark only shows that it works.
pub(crate) fn read() -> Asked {
    let given: Vec<String> = env::args().skip(1).collect();
    let has = |option: &str| given.iter().any(|given| given == option);
    if has("--help") || has("-h") {
        return Asked::Print(USAGE);
    }
    let measures = has("--bench") || has("--quick") || has("--full");
    if !measures && has("--list") {
        return Asked::Print("p2p_dht_benchmark: benchmark");
    }
    let known = ["--bench", "--quick", "--full", "--smoke", "--test", "--json", "--strict"];
    if measures && let Some(unknown) = given.iter().find(|given| !known.contains(&given.as_str())) {
        return Asked::Unknown(format!("{unknown} is not known\n\n{USAGE}"));
    }
    let mode = if !measures || has("--smoke") || has("--test") {
        Mode::Smoke
    } else if has("--full") {
        Mode::Full
    } else {
        Mode::Quick
    };
    Asked::Run(Args { mode, json: has("--json"), strict: has("--strict") })
}
