//! `kadence demo --registry`: publishers, readers and, with the feature `attackers`, attackers in one process.

#[cfg(feature = "attackers")]
mod adversary;
#[cfg(feature = "attackers")]
mod attacks;
mod member;
mod report;
mod sources;
mod work;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::Context;
use futures::future::{join_all, try_join_all};
use kadence_registry::PackageId;
use kadence_tokio::kadence::{TaskEnd, libp2p::StreamProtocol};
use tempfile::TempDir;
use tokio::time::timeout;

#[cfg(feature = "attackers")]
use self::adversary::Adversary;
use self::{
    member::{Member, Place, knows},
    report::{Report, Times},
    sources::Source,
};
use super::{
    BOOTSTRAP_TIMEOUT, CALLERS, WAIT,
    progress::{Progress, Watchdog},
    report::{Check, Conclusion},
    retry,
};
use crate::DemoArgs;

/// Number of honest nodes. The first ones publish, the next two read, and the others store records.
const NODES: usize = 12;

/// Number of nodes that publish.
const PUBLISHERS: usize = 5;

/// Index of the node that reads during the whole demonstration.
const READER: usize = 5;

/// Index of the node that reads only after a publisher was killed.
const LATE_READER: usize = 6;

/// Index of the publisher with a slow line: the last one. A reader that fetches from it has time to ask others as well.
const SLOW: usize = PUBLISHERS - 1;

/// Bytes that the slow publisher serves to each peer in a second.
const SLOW_BYTES_PER_SECOND: u64 = 2 * 1024 * 1024;

/// A published package and the folder that it came from.
struct Published {
    source: Source,
    id: PackageId,
    publisher: usize,
}

/// State shared by the phases.
struct Demo {
    /// The honest nodes. `None` for one that was killed.
    members: Vec<Option<Member>>,
    /// The attackers so far. They run until the end.
    #[cfg(feature = "attackers")]
    attackers: Vec<Adversary>,
    packages: Vec<Published>,
    times: Times,
    checks: Vec<Check>,
    progress: Progress,
    #[cfg(feature = "attackers")]
    protocol: StreamProtocol,
    #[cfg(feature = "attackers")]
    seed: u64,
    folder: TempDir,
}

/// Publishes, finds and installs packages in a network, attacks it, shuts it down, and reports.
///
/// # Errors
///
/// If the network does not start, the packages cannot be read, or an operation fails without which the next one cannot
/// run.
pub(super) async fn run(args: DemoArgs, protocol: StreamProtocol) -> anyhow::Result<Conclusion> {
    let DemoArgs { path, json, seed, timeout, .. } = args;
    let started = Instant::now();
    let mut progress = Progress::new();
    // Dropped before the report is printed, so that only one of the two prints.
    let _watchdog = Watchdog::start(timeout, &progress, json);
    let folder = tempfile::tempdir().context("cannot create a temporary folder")?;
    let sources = match &path {
        Some(from) => sources::folders(from, &folder.path().join("sources"))?,
        None => sources::samples(&folder.path().join("sources"))?,
    };

    let members = start(&folder, &protocol, &mut progress).await?;
    let mut demo = Demo {
        members,
        #[cfg(feature = "attackers")]
        attackers: Vec::new(),
        packages: Vec::new(),
        times: Times::default(),
        checks: Vec::new(),
        progress,
        #[cfg(feature = "attackers")]
        protocol,
        #[cfg(feature = "attackers")]
        seed,
        folder,
    };
    demo.publish(sources).await?;
    demo.discover().await?;
    demo.search().await?;
    demo.install().await?;
    #[cfg(feature = "attackers")]
    demo.forge().await?;
    #[cfg(feature = "attackers")]
    demo.roll_back().await?;
    #[cfg(feature = "attackers")]
    demo.corrupt().await?;
    demo.kill().await?;
    #[cfg(feature = "attackers")]
    demo.spam().await?;
    demo.shutdown().await;

    let Demo { packages, times, checks, .. } = demo;
    let report = Report {
        ok: checks.iter().all(|check| check.ok),
        nodes: NODES,
        publishers: PUBLISHERS,
        attackers: cfg!(feature = "attackers"),
        packages: packages.iter().map(|package| package.id.to_string()).collect(),
        times,
        checks,
        seed,
        seconds: started.elapsed().as_secs_f64(),
    };
    report.conclude()
}

/// Starts the honest nodes and waits until each knows all others.
async fn start(
    folder: &TempDir,
    protocol: &StreamProtocol,
    progress: &mut Progress,
) -> anyhow::Result<Vec<Option<Member>>> {
    progress.begin("start", NODES);
    rlimit::increase_nofile_limit(4096).ok();
    let place = |index: usize, peers| Place {
        index,
        folder: folder.path().join(format!("node-{index}")),
        protocol: protocol.clone(),
        peers,
        rate: (index == SLOW).then_some(SLOW_BYTES_PER_SECOND),
    };
    let first = Member::start(place(0, Vec::new())).await.context("cannot start the first node")?;
    let seeds = first.node.listen_addrs();
    let others = (1..NODES).map(|index| Member::start(place(index, seeds.clone())));
    let others = try_join_all(others).await.context("cannot start a node")?;
    let members: Vec<Member> = std::iter::once(first).chain(others).collect();
    try_join_all(members.iter().map(|member| member.node.ready(WAIT)))
        .await
        .context("a node did not find any other")?;
    for some in members.chunks(CALLERS) {
        let bootstraps =
            some.iter().map(|member| member.node.client().bootstrap().retry(retry()).timeout(BOOTSTRAP_TIMEOUT));
        try_join_all(bootstraps.map(IntoFuture::into_future)).await.context("a node cannot bootstrap")?;
    }
    try_join_all(members.iter().map(|member| knows(&member.node, NODES - 1))).await?;
    progress.end(format_args!("{NODES} nodes on tokio, async-std and smol; each knows all others"));
    Ok(members.into_iter().map(Some).collect())
}

impl Demo {
    fn check(&mut self, name: &'static str, ok: bool, detail: impl Into<String>) {
        self.checks.push(Check { name, ok, detail: detail.into() });
    }

    /// Returns an honest node.
    ///
    /// # Errors
    ///
    /// If it was killed.
    fn member(&self, index: usize) -> anyhow::Result<&Member> {
        self.members.get(index).and_then(Option::as_ref).with_context(|| format!("node {index} was killed"))
    }

    /// Returns the honest nodes that were not killed.
    fn living(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().flatten()
    }

    fn folder(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    async fn shutdown(&mut self) {
        let members: Vec<Member> = self.members.drain(..).flatten().collect();
        let all = members.len();
        self.progress.begin("shutdown", all);
        #[cfg(feature = "attackers")]
        join_all(self.attackers.drain(..).map(|attacker| timeout(WAIT, attacker.node.shutdown()))).await;
        let ends = join_all(members.into_iter().map(|member| async move {
            member.p2p.close().await;
            timeout(WAIT, member.node.shutdown()).await
        }));
        let finished = ends.await.iter().filter(|end| matches!(end, Ok(TaskEnd::Finished))).count();
        self.check(
            "every remaining honest node shuts down gracefully",
            finished == all,
            format!("{finished} of {all}"),
        );
        self.progress.end(format_args!("{finished} of {all} nodes"));
    }
}

/// Returns milliseconds, for figures.
fn ms(span: Duration) -> f64 {
    span.as_secs_f64() * 1000.0
}
