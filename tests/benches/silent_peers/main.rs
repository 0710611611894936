//! Cost of silent peers: Kadence's node compared with plain kad, both with their default configuration.
//!
//! A silent peer accepts connections, reports that it speaks the protocol, and answers no request. In networks with
//! different shares of silent peers, both clients run the same operations at the same time. They have the same identity
//! and therefore the same routing table. All nodes run in one process, connected through memory in plaintext. Only
//! figures of the same run are comparable.

#![expect(clippy::expect_used, reason = "a benchmark that cannot measure has to stop")]
#![expect(clippy::cast_precision_loss, reason = "figures for people")]

mod client;
mod network;
mod plain;
mod plan;
mod report;

use std::{process::ExitCode, sync::Arc, time::Instant};

use futures::future::{join, join_all};
use kadence_tests::{
    Runner, TestEnv, TestRuntime, TokioMultiThread, TransportKind,
    bench::{self, Args, Mode, wait},
};

use self::{
    client::Completed,
    network::Network,
    plan::{ClientKind, Operation, Size},
    report::Report,
};

/// Help text.
const USAGE: &str = "\
cargo bench -p kadence-tests --bench silent_peers -- [OPTIONS]

  --quick      default: about four minutes on two cores
  --smoke      a few seconds on a small network, to check that the benchmark works; also --test
  --json       print one JSON object per line instead of the table
  --strict     fail also if a target is missed; otherwise only a wrong value fails the benchmark, or an operation
               of Kadence that fails although no peer is silent
  --help       print this text";

fn main() -> ExitCode {
    bench::main("silent_peers", USAGE, measure)
}

fn measure(args: Args) -> ExitCode {
    let begun = Instant::now();
    let size = Size::of(args.mode);
    let mut report = Report::default();
    for &percent in size.silent_percents {
        TokioMultiThread::block_on(TransportKind::Memory, async |env| share(env, percent, &size, &mut report).await);
    }
    let checks = report.checks(&size, args.mode == Mode::Smoke);
    if args.json {
        print!("{}", report.lines());
        for check in &checks {
            println!("{}", serde_json::json!({ "check": check.name, "ok": check.ok, "detail": check.detail }));
        }
    } else {
        println!("{size}\n");
        println!("{}", report.table());
        for check in &checks {
            println!("{:<7}{} ({})", if check.ok { "ok" } else { "NOT OK" }, check.name, check.detail);
        }
        println!("\ntook {:.0} s", begun.elapsed().as_secs_f64());
    }
    let matters = |check: &report::Check| check.always || args.strict;
    if checks.iter().any(|check| !check.ok && matters(check)) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Measures all networks with one share of silent peers, in percent.
async fn share<R: TestRuntime>(env: &TestEnv<R>, percent: usize, size: &Size, report: &mut Report) {
    let begun = Instant::now();
    let networks = join_all((0..size.networks).map(|number| Network::start(env, number, percent, size))).await;
    let networks: Vec<_> = networks.into_iter().map(Arc::new).collect();
    for network in &networks {
        report.tables(network.tables().await);
    }
    eprintln!("{percent} % silent: {} networks started in {:.1?}", size.networks, begun.elapsed());
    let begun = Instant::now();
    let mut all =
        if percent == 0 { in_turns(env, &networks, size).await } else { side_by_side(env, &networks, size).await };
    for network in &networks {
        network.count_copies(&mut all).await;
    }
    eprintln!("{percent} % silent: {} operations in {:.1?}", all.len(), begun.elapsed());
    for (client_kind, completed) in all {
        report.add(percent, client_kind, completed);
    }
}

/// Runs one operation at a time, alternating between the clients. Used without silent peers, where the times of single
/// operations are compared.
async fn in_turns<R: TestRuntime>(
    env: &TestEnv<R>,
    networks: &[Arc<Network>],
    size: &Size,
) -> Vec<(ClientKind, Completed)> {
    let mut all = Vec::new();
    // One kind of operation after the other, so that compared operations follow similar ones.
    for operation in Operation::ALL {
        for round in 0..size.rounds_in_turns {
            // The second client benefits from warm caches.
            let turns = if round % 2 == 0 {
                [ClientKind::Kadence, ClientKind::Plain]
            } else {
                [ClientKind::Plain, ClientKind::Kadence]
            };
            for network in networks {
                for client_kind in turns {
                    all.push((client_kind, network.run(env.runtime(), client_kind, operation, round, size).await));
                }
            }
        }
    }
    all
}

/// Runs Kadence's operations in succession in every network at once. Plain kad's operations run concurrently to them,
/// because each takes seconds.
async fn side_by_side<R: TestRuntime>(
    env: &TestEnv<R>,
    networks: &[Arc<Network>],
    size: &Size,
) -> Vec<(ClientKind, Completed)> {
    let ours = networks.iter().map(|network| {
        let (runtime, network, size) = (env.runtime().clone(), Arc::clone(network), size.clone());
        env.spawn(async move {
            let (begun, mut completed) = (Instant::now(), Vec::new());
            for (round, operation) in Operation::in_order(size.rounds) {
                // The first round always runs, so that no cell of the table is empty.
                if round == 0 || begun.elapsed() < size.max_duration {
                    completed.push((
                        ClientKind::Kadence,
                        network.run(&runtime, ClientKind::Kadence, operation, round, &size).await,
                    ));
                }
            }
            completed
        })
    });
    let theirs = networks.iter().flat_map(|network| {
        let jobs = (0..size.plain_rounds).flat_map(|round| Operation::ALL.map(|operation| (round, operation)));
        jobs.enumerate().map(move |(place, (round, operation))| {
            let (runtime, network, size) = (env.runtime().clone(), Arc::clone(network), size.clone());
            env.spawn(async move {
                let place = u32::try_from(place).unwrap_or(u32::MAX);
                // Start times differ between networks, too.
                let offset = size.plain_interval.mul_f64(network.number as f64 / size.networks as f64);
                wait(&runtime, size.plain_interval * place + offset).await;
                (ClientKind::Plain, network.run(&runtime, ClientKind::Plain, operation, round, &size).await)
            })
        })
    });
    let (ours, theirs) = join(join_all(ours), join_all(theirs)).await;
    ours.into_iter().flatten().chain(theirs).collect()
}
