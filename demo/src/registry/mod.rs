//! `kadence demo --registry`: publishers, readers and attackers, all on this computer.

#[cfg(feature = "attackers")]
mod attacks;
#[cfg(feature = "attackers")]
mod evil;
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
use self::evil::Evil;
use self::{
    member::{Member, Place, knows},
    report::{Report, Times},
    sources::Source,
};
use super::{
    BOOTSTRAP_TIMEOUT, CALLERS, WAIT,
    progress::{Progress, Watchdog},
    report::{Check, conclude},
};
use crate::DemoArgs;

/// The honest nodes. The first of them publish, the next two read, and the others hold what there is.
const NODES: usize = 12;
const PUBLISHERS: usize = 5;
const READER: usize = 5;
const LATE_READER: usize = 6;

/// The last of the publishers has a slow line, so that those who fetch from it have time to ask others as well.
const SLOW: usize = PUBLISHERS - 1;
const SLOW_BYTES_PER_SECOND: u64 = 2 * 1024 * 1024;

/// A package that is in the network, and the folder that it came from.
struct Published {
    source: Source,
    id: PackageId,
    publisher: usize,
}

/// What the phases share.
struct Demo {
    /// `None`: it was killed.
    members: Vec<Option<Member>>,
    /// They stay, so that the honest nodes have to live with them.
    #[cfg(feature = "attackers")]
    attackers: Vec<Evil>,
    packages: Vec<Published>,
    times: Times,
    checks: Vec<Check>,
    progress: Progress,
    protocol: StreamProtocol,
    seed: u64,
    folder: TempDir,
}

/// Publishes, finds and installs packages in a network, attacks it, ends it, and reports.
///
/// # Errors
///
/// If the network does not come up, the packages cannot be read, or a check fails.
pub(super) async fn run(args: DemoArgs, protocol: StreamProtocol) -> anyhow::Result<()> {
    let DemoArgs { path, json, seed, timeout, .. } = args;
    let began = Instant::now();
    let mut progress = Progress::new();
    let _watchdog = Watchdog::start(timeout, &progress, json);
    let folder = tempfile::tempdir().context("there is no room for temporary files")?;
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
        protocol,
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
        packages: packages.iter().map(|package| package.id.to_string()).collect(),
        times,
        checks,
        seed,
        seconds: began.elapsed().as_secs_f64(),
    };
    conclude(&report, report.table(), &report.checks, json)
}

/// Starts the honest nodes, and waits until each knows all others.
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
    let first = Member::start(place(0, Vec::new())).await.context("the first node")?;
    let seeds = first.node.listen_addrs();
    let others = (1..NODES).map(|index| Member::start(place(index, seeds.clone())));
    let others = try_join_all(others).await.context("a node")?;
    let members: Vec<Member> = std::iter::once(first).chain(others).collect();
    try_join_all(members.iter().map(|member| member.node.ready(WAIT))).await.context("a node finds no other")?;
    for some in members.chunks(CALLERS) {
        let bootstraps = some.iter().map(|member| member.node.client().bootstrap().timeout(BOOTSTRAP_TIMEOUT));
        try_join_all(bootstraps.map(IntoFuture::into_future)).await.context("a node finds no neighbours")?;
    }
    try_join_all(members.iter().map(|member| knows(&member.node, NODES - 1))).await?;
    progress.end(format_args!("{NODES} nodes on tokio, async-std and smol, and each knows all others"));
    Ok(members.into_iter().map(Some).collect())
}

impl Demo {
    fn check(&mut self, name: &'static str, ok: bool, detail: impl Into<String>) {
        self.checks.push(Check { name, ok, detail: detail.into() });
    }

    /// # Errors
    ///
    /// If it was killed.
    fn member(&self, index: usize) -> anyhow::Result<&Member> {
        self.members.get(index).and_then(Option::as_ref).with_context(|| format!("node {index} is gone"))
    }

    /// Those who live.
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
        join_all(self.attackers.drain(..).map(|evil| timeout(WAIT, evil.node.shutdown()))).await;
        let ends = join_all(members.into_iter().map(|member| async move {
            member.market.close().await;
            timeout(WAIT, member.node.shutdown()).await
        }));
        let finished = ends.await.iter().filter(|end| matches!(end, Ok(TaskEnd::Finished))).count();
        self.check("every other honest node shuts down gracefully", finished == all, format!("{finished} of {all}"));
        self.progress.end(format_args!("{finished} of {all} nodes"));
    }
}

/// Milliseconds, for figures.
fn ms(span: Duration) -> f64 {
    span.as_secs_f64() * 1000.0
}
