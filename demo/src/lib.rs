//! Demonstrations of Kadence: `kadence demo` runs a whole network in this process and checks its answers,
//! `kadence demo --registry` a package registry on such a network.
//!
//! The exit code says whether all answers were right. Times are figures: none of them fails a demonstration, except
//! the limits that tell a slow call from one that hangs.

mod args;
mod faults;
mod files;
mod measure;
mod network;
pub mod output;
mod progress;
#[cfg(feature = "registry")]
mod registry;
mod report;
mod work;

use std::time::{Duration, Instant};

use kadence_tokio::kadence::{Retry, libp2p::StreamProtocol};
use rand::{SeedableRng, rngs::StdRng};

pub use self::report::ChecksFailedError;
use self::{
    faults::{Cancelled, Killed},
    files::{Source, Stored},
    measure::Measures,
    network::Network,
    progress::{Progress, Watchdog},
    report::{Check, Conclusion, Report},
    work::ClosestLookups,
};
pub use crate::args::{DemoArgs, parse_protocol, parse_timeout};

/// Number of calls under way at the same time. Several, and few enough that the measured times are those of calls
/// and not of a queue.
const CALLERS: usize = 4;

/// Timeout of every call but bootstraps. Hundreds of times what loopback takes, so that a call that reaches it hangs,
/// also on a busy computer.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// Timeout of a bootstrap. It consists of many lookups, and runs while every node connects to every other, which takes
/// a time that grows with the square of the number of nodes.
const BOOTSTRAP_TIMEOUT: Duration = Duration::from_secs(120);

/// Maximum wait for anything but a call: readiness, full routing tables, shutdowns.
const WAIT: Duration = Duration::from_secs(60);

/// Interval between two looks at a state that sends no event when it changes.
const POLL: Duration = Duration::from_millis(20);

/// Returns the retries of reads and writes. On a busy computer a peer may answer too late to count, and a call that
/// fails for that reason says so in its error.
fn retry() -> Retry {
    Retry::default().attempts(10).cap(Duration::from_secs(2))
}

/// State shared by the phases of the network's demonstration.
struct Demo {
    network: Network,
    stored: Vec<Stored>,
    /// Number of files rejected because their value is too large for a record.
    rejected: usize,
    measures: Measures,
    closest: ClosestLookups,
    cancelled: Cancelled,
    killed: Killed,
    checks: Vec<Check>,
    progress: Progress,
    rng: StdRng,
}

/// Runs a demonstration and prints its report on stdout.
///
/// # Errors
///
/// [`ChecksFailedError`] after the report was printed, if a check failed. Another error, without a report, if the files
/// cannot be read, the network does not start, stdout cannot be written, or the build lacks a feature.
pub async fn run(args: DemoArgs, protocol: StreamProtocol) -> anyhow::Result<()> {
    let json = args.json;
    let conclusion = Box::pin(conclude(args, protocol)).await?;
    conclusion.print(json)
}

/// Runs the demonstration that the arguments ask for.
async fn conclude(args: DemoArgs, protocol: StreamProtocol) -> anyhow::Result<Conclusion> {
    if args.registry {
        #[cfg(feature = "registry")]
        return registry::run(args, protocol).await;
        #[cfg(not(feature = "registry"))]
        anyhow::bail!("this build has no registry: run `cargo run --features attackers -- demo --registry`");
    }
    if args.mixed && cfg!(not(feature = "mixed")) {
        anyhow::bail!("this build has one runtime: run `cargo run --features mixed -- demo --mixed`");
    }
    run_network(args, protocol).await
}

/// Starts a network, uses it, injects faults, shuts it down, and reports.
async fn run_network(args: DemoArgs, protocol: StreamProtocol) -> anyhow::Result<Conclusion> {
    let DemoArgs {
        registry: _,
        nodes,
        mixed,
        path,
        json,
        seed,
        timeout,
        #[cfg(test)]
        fail_a_check,
    } = args;
    let started = Instant::now();
    let mut progress = Progress::new();
    // Dropped before the report is printed, so that only one of the two prints.
    let _watchdog = Watchdog::start(timeout, &progress, json);
    let source = match &path {
        Some(folder) => Source::folder(folder)?,
        None => Source::samples(),
    };

    let mut measures = Measures::default();
    let servers = usize::from(nodes);
    let network = Network::start(servers, mixed, source.len(), protocol, &mut progress, &mut measures).await?;
    let mut demo = Demo {
        network,
        stored: Vec::new(),
        rejected: 0,
        measures,
        closest: ClosestLookups::default(),
        cancelled: Cancelled::default(),
        killed: Killed::default(),
        checks: Vec::new(),
        progress,
        rng: StdRng::seed_from_u64(seed),
    };
    demo.put(&source).await?;
    demo.get().await;
    if mixed {
        demo.get_across().await;
    }
    demo.get_all().await;
    demo.get_missing().await;
    demo.provide().await;
    demo.closest().await;
    demo.cancel().await;
    demo.kill().await;
    demo.shutdown().await;
    #[cfg(test)]
    if fail_a_check {
        demo.check("a check that a test made fail", false, "");
    }

    demo.report(servers, mixed, source.len(), seed, started.elapsed()).conclude()
}

impl Demo {
    fn check(&mut self, name: &'static str, ok: bool, detail: impl Into<String>) {
        self.checks.push(Check { name, ok, detail: detail.into() });
    }

    async fn shutdown(&mut self) {
        self.progress.begin("shutdown", self.network.len());
        let (finished, all) = self.network.shutdown().await;
        self.check("every remaining node shuts down gracefully", finished == all, format!("{finished} of {all}"));
        self.progress.end(format_args!("{finished} of {all} nodes"));
    }

    fn report(self, nodes: usize, mixed: bool, files: usize, seed: u64, took: Duration) -> Report {
        let Self { measures, mut checks, closest, cancelled, killed, stored, rejected, .. } = self;
        let operations = measures.summaries();
        let failed = operations.failed();
        let detail =
            if failed == 0 { String::new() } else { format!("{failed} failed: {}", measures.first_failures()) };
        checks.push(Check { name: "no operation fails", ok: failed == 0, detail });
        Report {
            ok: checks.iter().all(|check| check.ok),
            nodes,
            mixed,
            clients: network::CLIENTS,
            files,
            stored: stored.len(),
            stored_bytes: stored.iter().map(|file| file.value.len()).sum(),
            rejected,
            operations,
            closest,
            cancelled,
            killed,
            checks,
            seed,
            seconds: took.as_secs_f64(),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use kadence_tokio::kadence::node::DEFAULT_PROTOCOL;
    use serde_json::Value;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        demo: DemoArgs,
    }

    #[test]
    fn a_failed_check_prints_one_json_object_and_is_an_error() {
        let mut args = Program::parse_from(["demo", "--nodes", "4", "--json"]).demo;
        args.fail_a_check = true;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let conclusion = runtime.block_on(conclude(args, DEFAULT_PROTOCOL)).unwrap();
        let mut stdout = Vec::new();
        let error = conclusion.print_to(&mut stdout, true).unwrap_err();
        assert!(error.is::<ChecksFailedError>() && error.to_string().starts_with("1 of "), "{error}");
        output::write_error(&mut stdout, &error, true);
        let object: Value = serde_json::from_slice(&stdout).expect("one object");
        assert_eq!(object["ok"], false);
        let failed: Vec<_> = object["checks"].as_array().unwrap().iter().filter(|check| check["ok"] == false).collect();
        assert_eq!(failed.len(), 1);
        assert_eq!(failed[0]["name"], "a check that a test made fail");
    }
}
