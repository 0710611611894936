//! `kadence demo`: a whole network in this process, and the proof that it works.

mod args;
mod disturb;
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

use kadence_tokio::kadence::libp2p::StreamProtocol;
use rand::{SeedableRng, rngs::StdRng};

pub use self::report::ChecksFailed;
use self::{
    disturb::{Cancelled, Killed},
    files::{Source, Stored},
    measure::Measures,
    network::Network,
    progress::{Progress, Watchdog},
    report::{Check, Report, conclude},
};
pub use crate::args::{DemoArgs, protocol, span};

/// How many calls are under way at once: several, and few enough that the times are those of calls and not of a queue.
const CALLERS: usize = 4;

/// The timeout of every call. Far above what loopback takes, so that reaching it means something is wrong.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// The timeout of a bootstrap, which is many lookups, all of them while every node connects to every other. That takes a
/// time that grows with the square of the number of nodes.
const BOOTSTRAP_TIMEOUT: Duration = Duration::from_secs(60);

/// The bound of what is waited for beside calls: readiness, tables, shutdowns.
const WAIT: Duration = Duration::from_secs(20);

/// How often something is looked at that nobody tells of.
const POLL: Duration = Duration::from_millis(20);

/// What 95 of 100 gets have to stay below. An optimised program needs a small part of it on an idle computer; without
/// optimisation nothing is promised.
const GET_P95_MS: f64 = 200.0;

/// What the phases share.
struct Demo {
    network: Network,
    stored: Vec<Stored>,
    refused: usize,
    measures: Measures,
    cancelled: Cancelled,
    killed: Killed,
    checks: Vec<Check>,
    progress: Progress,
    rng: StdRng,
}

/// Starts the network, works with it, disturbs it, ends it, and reports.
///
/// # Errors
///
/// If the network does not come up, the files cannot be read, or a check fails.
pub async fn run(args: DemoArgs, protocol: StreamProtocol) -> anyhow::Result<()> {
    if args.registry {
        #[cfg(feature = "registry")]
        return Box::pin(registry::run(args, protocol)).await;
        #[cfg(not(feature = "registry"))]
        anyhow::bail!("this build has no registry: run `cargo run --features attackers -- demo --registry`");
    }
    if args.mixed && cfg!(not(feature = "mixed")) {
        anyhow::bail!("this build has one runtime: run `cargo run --features mixed -- demo --mixed`");
    }
    let DemoArgs { registry: _, nodes, mixed, path, json, seed, timeout } = args;
    let began = Instant::now();
    let mut progress = Progress::new();
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
        refused: 0,
        measures,
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

    let report = demo.report(servers, mixed, source.len(), seed, began.elapsed());
    conclude(&report, report.table(), &report.checks, json)
}

impl Demo {
    fn check(&mut self, name: &'static str, ok: bool, detail: impl Into<String>) {
        self.checks.push(Check { name, ok, detail: detail.into() });
    }

    async fn shutdown(&mut self) {
        self.progress.begin("shutdown", self.network.len());
        let (finished, all) = self.network.shutdown().await;
        self.check("every other node shuts down gracefully", finished == all, format!("{finished} of {all}"));
        self.progress.end(format_args!("{finished} of {all} nodes"));
    }

    fn report(self, nodes: usize, mixed: bool, files: usize, seed: u64, took: Duration) -> Report {
        let Self { measures, mut checks, cancelled, killed, stored, refused, .. } = self;
        let operations = measures.summaries();
        let failed = operations.failed();
        let detail =
            if failed == 0 { String::new() } else { format!("{failed} failed: {}", measures.first_failures()) };
        checks.push(Check { name: "no operation fails", ok: failed == 0, detail });
        let p95 = operations.get.p95_ms;
        checks.push(Check {
            name: "95 of 100 gets take less than 200 ms",
            ok: p95.is_some_and(|p95| p95 < GET_P95_MS) || cfg!(debug_assertions),
            detail: match p95 {
                Some(p95) if cfg!(debug_assertions) => format!("{p95:.1} ms, not judged in a debug build"),
                Some(p95) => format!("{p95:.1} ms"),
                None => "nothing was measured".to_owned(),
            },
        });
        Report {
            ok: checks.iter().all(|check| check.ok),
            nodes,
            mixed,
            clients: network::CLIENTS,
            files,
            stored: stored.len(),
            stored_bytes: stored.iter().map(|file| file.value.len()).sum(),
            refused,
            operations,
            cancelled,
            killed,
            checks,
            seed,
            seconds: took.as_secs_f64(),
        }
    }
}
