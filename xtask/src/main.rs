//! Checks, mutants and measurements of this workspace: `cargo xtask`.
//!
//! ```text
//! cargo xtask ci [STEP..]             every check that a change passes; --list names the steps
//! cargo xtask nightly [STEP..]        longer checks, run before an issue is resolved or a version is released
//! cargo xtask prose                   doc comments and texts that break the rules of CONTRIBUTING.md
//! cargo xtask names                   identifiers and files that have an old name (old-names.txt)
//! cargo xtask mutants [--registry | --driver | --worlds] [--list | --each] [WORD..]
//! cargo xtask races [TEST..]          callers against the driver, in orders that a checker chooses
//! cargo xtask sim --seeds N | --seed S | --shrink S      random worlds of the simulator
//! cargo xtask figures [NODES [ROUNDS]]    figures in virtual time, of Kadence and of plain kad
//! cargo xtask instructions            instructions per request, counted by valgrind
//!
//! These compile Kadence, and need its feature:
//! cargo run -p xtask --features kadence -- seeds FOLDER              writes seeds of the fuzz target `replay`
//! cargo run --release -p xtask --features kadence -- stalls FOLDER   longest pauses of the store
//! ```

mod builds;
mod ci;
mod files;
mod mutants;
mod names;
mod prose;
mod races;
#[cfg(feature = "kadence")]
mod seeds;
mod sim;
#[cfg(feature = "kadence")]
mod stalls;
mod steps;
mod tools;

use std::{env, process::ExitCode};

use anyhow::bail;

const USAGE: &str =
    "usage: cargo xtask ci | nightly | prose | names | mutants | races | sim | figures | instructions | seeds | stalls";

fn main() -> ExitCode {
    let mut args = env::args().skip(1);
    let command = args.next().unwrap_or_default();
    let rest: Vec<String> = args.collect();
    match run(&command, &rest) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: &str, args: &[String]) -> anyhow::Result<()> {
    match command {
        "ci" => ci::run(steps::CI, args),
        "nightly" => ci::run(steps::NIGHTLY, args),
        "prose" => prose::check(),
        "names" => names::check(),
        "mutants" => mutants::run(args),
        "races" => races::check(args),
        "sim" => sim::worlds(args),
        "figures" => sim::figures(args),
        "instructions" => steps::instructions(),
        #[cfg(feature = "kadence")]
        "seeds" => seeds::write(args),
        #[cfg(feature = "kadence")]
        "stalls" => stalls::measure(args),
        #[cfg(not(feature = "kadence"))]
        "seeds" | "stalls" => bail!("`{command}` needs `cargo run -p xtask --features kadence -- {command}`"),
        _ => bail!("{USAGE}"),
    }
}
