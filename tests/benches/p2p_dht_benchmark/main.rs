//! How many gets a second, how long each takes, and how many are answered wrongly: Kadence on every runtime, beside the
//! client that most programs write for themselves.
//!
//! The network is real and in one process: servers with filled stores, connected through memory in plaintext, all
//! on the runtime that is measured. Compare the figures of one run with each other.

#![expect(clippy::expect_used, clippy::indexing_slicing, reason = "a benchmark that cannot measure has to stop")]
#![expect(clippy::cast_precision_loss, reason = "figures for people")]

mod burst;
mod client;
mod naive;
mod network;
mod plan;
mod report;

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use kadence_tests::{
    AsyncStd, Runner, Smol, TokioCurrentThread, TokioMultiThread, TransportKind,
    bench::{self, Args, Mode},
};

use self::{
    network::Network,
    plan::{Case, ClientKind, Size},
    report::Report,
};

/// How it is called.
const USAGE: &str = "\
cargo bench --bench p2p_dht_benchmark -- [OPTIONS]

  --quick      some five minutes on two cores; the default
  --full       every runtime as often as the first
  --smoke      seconds, on a small network: whether the benchmark itself works. Also --test
  --json       one JSON object a line instead of the table
  --strict     a ratio or a time that misses its target fails the benchmark, too
  --help       this";

/// A runtime to measure on.
struct BenchRuntime {
    runtime: &'static str,
    run: fn(&'static str, &[Case], usize, &Size, &mut Report),
}

/// Every runtime; the first is the one whose figures are medians in the quick mode, too.
const RUNTIMES: &[BenchRuntime] = &[
    BenchRuntime { runtime: "tokio, 2 threads", run: run_on::<TokioMultiThread> },
    BenchRuntime { runtime: "tokio, 1 thread", run: run_on::<TokioCurrentThread> },
    BenchRuntime { runtime: "async-std", run: run_on::<AsyncStd> },
    BenchRuntime { runtime: "smol, 2 threads", run: run_on::<Smol> },
];

/// How often everything is measured, for a median.
const RUNS: usize = 5;

/// After this time, the quick mode is content with three runs: a busy machine takes several times as long.
const LONG_ENOUGH: Duration = Duration::from_secs(4 * 60);
const FEWEST_RUNS: usize = 3;

fn main() -> ExitCode {
    bench::main("p2p_dht_benchmark", USAGE, measure)
}

fn measure(args: Args) -> ExitCode {
    let begun = Instant::now();
    let size = Size::of(args.mode);
    let mut report = Report::default();
    for run in 0..if args.mode == Mode::Smoke { 1 } else { RUNS } {
        if args.mode == Mode::Quick && run >= FEWEST_RUNS && begun.elapsed() > LONG_ENOUGH {
            break;
        }
        for (n, runtime_index) in RUNTIMES.iter().enumerate() {
            if run == 0 || n == 0 || args.mode == Mode::Full {
                (runtime_index.run)(runtime_index.runtime, &size.cases(args.mode, run, n), run, &size, &mut report);
            }
        }
    }
    let checks = report.checks(&size);
    if args.json {
        print!("{}", report.lines());
        for check in &checks {
            println!("{}", serde_json::json!({ "check": check.name, "ok": check.ok, "detail": check.detail }));
        }
    } else {
        println!("{size}\n");
        println!("{}", report.table());
        for comparison in report.comparisons() {
            println!("{comparison}");
        }
        println!();
        for check in &checks {
            println!("{:<7}{} ({})", if check.ok { "ok" } else { "NOT OK" }, check.name, check.detail);
        }
        println!("\nafter {:.0} s", begun.elapsed().as_secs_f64());
    }
    // Whoever measures on a busy machine wants to see the figures; a false answer is one anywhere.
    let matters = |check: &report::Check| !check.timing || args.strict;
    if checks.iter().any(|check| !check.ok && matters(check)) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// One run of everything on one runtime, on a network of its own.
fn run_on<T: Runner>(runtime: &'static str, cases: &[Case], run: usize, size: &Size, report: &mut Report) {
    T::block_on(TransportKind::Memory, async |env| {
        let begun = Instant::now();
        let network = Network::start(env, size).await;
        // Not measured: connections are made, and everything grows to its working size.
        for client_kind in [ClientKind::Kadence, ClientKind::FirstEvent, ClientKind::FirstRecord] {
            network.get(env, Case { client_kind, load: size.first() }, 0, size).await;
        }
        eprintln!("{runtime}, run {}: the network stands after {:.1?}", run + 1, begun.elapsed());
        for &case in cases {
            let gets = network.get(env, case, run, size).await;
            eprintln!("{runtime}, run {}: {}, {}: {:.1?}", run + 1, case.load, case.client_kind, gets.wall);
            report.add(runtime, case, gets);
        }
    });
}
