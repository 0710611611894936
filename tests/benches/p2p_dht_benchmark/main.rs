//! Throughput, latency and correctness of gets: Kadence on every runtime, compared with the client that most programs
//! write for themselves.
//!
//! All nodes run in one process: servers with filled stores, connected through memory in plaintext, on the runtime that
//! is measured. Only figures of the same run are comparable.

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

/// Help text.
const USAGE: &str = "\
cargo bench --bench p2p_dht_benchmark -- [OPTIONS]

  --quick      default: about five minutes on two cores
  --full       five runs on every runtime instead of only on the first
  --smoke      a few seconds on a small network, to check that the benchmark works; also --test
  --json       print one JSON object per line instead of the table
  --strict     fail also if a ratio or time misses its target
  --help       print this text";

/// Runtime to measure on.
struct BenchRuntime {
    runtime: &'static str,
    run: fn(&'static str, &[Case], usize, &Size, &mut Report),
}

/// All runtimes. In quick mode, only the first one is measured several times.
const RUNTIMES: &[BenchRuntime] = &[
    BenchRuntime { runtime: "tokio, 2 threads", run: run_on::<TokioMultiThread> },
    BenchRuntime { runtime: "tokio, 1 thread", run: run_on::<TokioCurrentThread> },
    BenchRuntime { runtime: "async-std", run: run_on::<AsyncStd> },
    BenchRuntime { runtime: "smol, 2 threads", run: run_on::<Smol> },
];

/// Number of runs, for medians.
const RUNS: usize = 5;

/// In quick mode, fewer runs are done if they take longer than this: a busy machine takes several times as long.
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
        println!("\ntook {:.0} s", begun.elapsed().as_secs_f64());
    }
    // Figures of a busy machine are still of interest, so missed targets fail only in strict mode. A wrong answer
    // always fails.
    let matters = |check: &report::Check| !check.timing || args.strict;
    if checks.iter().any(|check| !check.ok && matters(check)) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Measures all cases once on one runtime, on a new network.
fn run_on<T: Runner>(runtime: &'static str, cases: &[Case], run: usize, size: &Size, report: &mut Report) {
    T::block_on(TransportKind::Memory, async |env| {
        let begun = Instant::now();
        let network = Network::start(env, size).await;
        // Warm-up: establishes connections, and lets buffers and tables grow to their working size.
        for client_kind in [ClientKind::Kadence, ClientKind::FirstEvent, ClientKind::FirstRecord] {
            network.get(env, Case { client_kind, load: size.first() }, 0, size).await;
        }
        eprintln!("{runtime}, run {}: network started in {:.1?}", run + 1, begun.elapsed());
        for &case in cases {
            let gets = network.get(env, case, run, size).await;
            eprintln!("{runtime}, run {}: {}, {}: {:.1?}", run + 1, case.load, case.client_kind, gets.wall);
            report.add(runtime, case, gets);
        }
    });
}
