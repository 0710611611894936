//! Latency and throughput of the registry on a network of thirty nodes: publishing, announcing, resolving, fetching,
//! reading.
//!
//! All nodes run in one process on smol, connected by loopback TCP with noise and yamux. Each fetch alternates with a
//! copy of as many bytes over a bare stream between the same nodes. Compare only figures of the same run.

#![expect(clippy::expect_used, reason = "a benchmark that cannot measure has to stop")]

mod calls;
mod network;
mod report;
#[path = "../support/mod.rs"]
mod support;
mod transfers;

use std::{
    env,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use smol::Executor;

use self::{
    network::{Network, Role},
    report::Report,
    support::on_all_cores,
};

const USAGE: &str = "\
cargo bench -p kadence-registry --bench registry -- [OPTIONS]

  --smoke      checks in seconds, on a small network, that the benchmark works. Also --test
  --json       prints one JSON object per line instead of the table
  --strict     fails on a missed target; without it, only a wrong or missing answer fails
  --help       prints this help";

/// Size of the measurement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    /// Nodes that receive announcements.
    nodes: usize,
    /// Size of the large package, in bytes.
    bytes: usize,
    /// Versions of the large package.
    versions: u64,
    /// Fetches from one provider, fetches from several, and copies next to each.
    fetches: usize,
    /// Installations.
    installs: usize,
    /// Small packages of each node.
    packages: usize,
    /// Pause between two announcements, in which work caused by the last one ends, such as reading the index.
    pause: Duration,
    /// Nodes that join at the end.
    newcomers: usize,
    /// Concurrent callers, each of which makes one call after the other.
    callers: usize,
    /// Calls of each caller.
    calls_each: usize,
    /// Concurrent calls of all kinds.
    mixed: usize,
}

const FULL: Size = Size {
    nodes: 30,
    bytes: 10 << 20,
    versions: 5,
    fetches: 15,
    installs: 5,
    packages: 2,
    pause: Duration::from_millis(300),
    newcomers: 3,
    callers: 64,
    calls_each: 20,
    mixed: 1000,
};

const SMOKE: Size = Size {
    nodes: 7,
    bytes: 300 << 10,
    versions: 1,
    fetches: 1,
    installs: 1,
    packages: 1,
    pause: Duration::from_millis(20),
    newcomers: 1,
    callers: 4,
    calls_each: 2,
    mixed: 40,
};

fn main() -> ExitCode {
    let given: Vec<String> = env::args().skip(1).collect();
    let has = |option: &str| given.iter().any(|given| given == option);
    if has("--help") {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    if has("--list") {
        println!("registry: benchmark");
        return ExitCode::SUCCESS;
    }
    // `cargo test` does not pass `--bench`.
    let is_smoke = !has("--bench") || has("--test") || has("--smoke");
    let (begun, size) = (Instant::now(), if is_smoke { SMOKE } else { FULL });
    let report = on_all_cores(async |executor| measure(&executor, size).await);
    if has("--json") {
        print!("{}", report.lines());
    } else {
        println!("{} nodes, a package of {} KiB\n\n{}", size.nodes, size.bytes >> 10, report.table());
        println!("\nafter {:.0} s", begun.elapsed().as_secs_f64());
    }
    if report.is_ok(has("--strict")) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn measure(executor: &Arc<Executor<'static>>, size: Size) -> Report {
    let (mut report, begun) = (Report::default(), Instant::now());
    let mut roles = vec![Role::Ordinary; size.nodes];
    for (role, special) in roles.iter_mut().rev().zip([Role::Fresh, Role::Gatherer, Role::Taker]) {
        *role = special;
    }
    roles.push(Role::Unaware);
    let network = Network::start(executor, &roles).await;
    eprintln!("{} nodes after {:.1?}", roles.len(), begun.elapsed());
    let small = transfers::announcements(&network, size, &mut report).await;
    transfers::large(&network, executor, size, &mut report).await;
    calls::readers(&network, executor, &small, size, &mut report).await;
    calls::mixed(&network, executor, &small, size, &mut report).await;
    report
}
