//! The registry on a network of thirty nodes: how long publishing, hearing of it, resolving, fetching and reading take.
//!
//! All nodes are in one process, ordinary ones on smol, connected by loopback TCP with noise and yamux. The fetches are
//! beside copies of as many bytes over a bare stream, between the same nodes, in turns. Compare the figures of one run with
//! each other.

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

/// How it is called.
const USAGE: &str = "\
cargo bench -p ggen-marketplace --bench registry -- [OPTIONS]

  --smoke      seconds, on a small network: whether the benchmark itself works. Also --test
  --json       one JSON object a line instead of the table
  --strict     a target that is missed fails the benchmark; otherwise only a wrong answer does, or one that never comes
  --help       this";

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    /// Nodes that hear of everything.
    nodes: usize,
    /// The size of the large package.
    bytes: usize,
    /// How often the large package is published.
    versions: u64,
    /// How often it is fetched from one provider, and from several, and copied beside.
    fetches: usize,
    /// How often it is installed.
    installs: usize,
    /// Small packages of each node.
    packages: usize,
    /// Between two announcements: what the last one has left to do, such as reading the index, is over then.
    pause: Duration,
    /// Nodes that join later.
    newcomers: usize,
    /// Who asks one package after the other, at the same time.
    callers: usize,
    /// How often each of them asks.
    calls_each: usize,
    /// Calls of all kinds at once.
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
    // `cargo test` names no `--bench`.
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
