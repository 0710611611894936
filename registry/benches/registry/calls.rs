//! Many concurrent calls.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::join_all;
use kadence_registry::{PackageId, Query, Registry, p2p::registry::P2PRegistry};
use kadence_smol::SmolRuntime;
use smol::{Executor, Timer};

use crate::{
    Size,
    network::{LONG, Network, files, release},
    report::{Report, milliseconds},
};

/// Target for the 95th percentile of `get_package` with many callers.
const GET: Duration = Duration::from_millis(200);

/// Outcome of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Ended {
    Right,
    Wrong(String),
    /// The call returned an error.
    Failed(String),
    /// The call did not end before the deadline.
    Lost,
}

impl Ended {
    fn of(is_right: bool, what: impl FnOnce() -> String) -> Self {
        if is_right { Self::Right } else { Self::Wrong(what()) }
    }
}

/// Outcomes of all calls.
#[derive(Debug, Default)]
struct Tally {
    times: Vec<Duration>,
    right: usize,
    wrong: Vec<String>,
    failed: Vec<String>,
    lost: usize,
}

impl Tally {
    fn add(&mut self, ended: Ended, took: Duration) {
        self.times.push(took);
        match ended {
            Ended::Right => self.right += 1,
            Ended::Wrong(what) => self.wrong.push(what),
            Ended::Failed(why) => self.failed.push(why),
            Ended::Lost => self.lost += 1,
        }
    }

    fn check(&self, what: &str, report: &mut Report) {
        let first = |all: &[String]| all.first().map_or_else(String::new, |first| format!(", the first: {first}"));
        let wrong =
            format!("{} right, {} wrong{}, {} lost", self.right, self.wrong.len(), first(&self.wrong), self.lost);
        report.always(format!("{what}: none is wrong or lost"), self.wrong.is_empty() && self.lost == 0, wrong);
        let failed = format!("{} failed{}", self.failed.len(), first(&self.failed));
        report.target(format!("{what}: none fails"), self.failed.is_empty(), failed);
    }
}

/// Measures callers that read one package after the other, on a node that looks up each head again and on a node that
/// caches heads.
pub(crate) async fn readers(
    network: &Network,
    executor: &Arc<Executor<'static>>,
    packages: &[PackageId],
    size: Size,
    report: &mut Report,
) {
    let [_, ordinary, .., fresh, _unaware] = network.peers.as_slice() else { return };
    for (what, peer) in [("heads looked up each time", fresh), ("as it is by default", ordinary)] {
        let first = callers(executor, &peer.registry, packages, size.callers, 1).await;
        first.check("the first get_package of each caller", report);
        report.row(format!("get_package, {} callers, nothing is here yet", size.callers), first.times, what);
        let all = callers(executor, &peer.registry, packages, size.callers, size.calls_each).await;
        all.check(&format!("get_package, {what}"), report);
        let times = report.row(format!("get_package, {} callers", size.callers), all.times, what);
        let p95 = times.percentile(95);
        let detail = format!("{:.0} ms", milliseconds(p95));
        report.target(format!("get_package, {what}: p95 below {GET:?}"), p95 < GET, detail);
    }
}

async fn callers(
    executor: &Arc<Executor<'static>>,
    registry: &P2PRegistry<SmolRuntime>,
    packages: &[PackageId],
    callers: usize,
    calls_each: usize,
) -> Tally {
    let tasks = (0..callers).map(|caller| {
        let (registry, packages) = (registry.clone(), packages.to_vec());
        executor.spawn(async move {
            let mut all = Vec::new();
            // Each caller has its own order, so that few read the same package at the same time.
            for id in packages.iter().cycle().skip(caller * 7).take(calls_each) {
                let begun = Instant::now();
                let ended = ended(get_package(&registry, id)).await;
                all.push((ended, begun.elapsed()));
            }
            all
        })
    });
    let mut tally = Tally::default();
    for (ended, took) in join_all(tasks).await.into_iter().flatten() {
        tally.add(ended, took);
    }
    tally
}

/// Measures calls of all kinds, started at the same time.
pub(crate) async fn mixed(
    network: &Network,
    executor: &Arc<Executor<'static>>,
    packages: &[PackageId],
    size: Size,
    report: &mut Report,
) {
    let [.., peer, _taker, _gatherer, _fresh, _unaware] = network.peers.as_slice() else { return };
    let begun = Instant::now();
    let tasks: Vec<_> = (0..size.mixed)
        .zip(packages.iter().cycle())
        .map(|(at, id)| {
            let (registry, id, unknown) = (peer.registry.clone(), id.clone(), peer.package(&format!("unknown-{at}")));
            let own = peer.package(&format!("mixed-{at}"));
            executor.spawn(async move {
                let begun = Instant::now();
                let ended = ended(call(at, &registry, &id, &unknown, &own)).await;
                (ended, begun.elapsed())
            })
        })
        .collect();
    let mut tally = Tally::default();
    for (ended, took) in join_all(tasks).await {
        tally.add(ended, took);
    }
    let what = format!("{} calls of all kinds at once", size.mixed);
    tally.check(&what, report);
    report.row(what, tally.times, format!("all after {:.1} s", begun.elapsed().as_secs_f64()));
}

/// Makes one of the mixed calls. Of 100 calls, 40 read a package, 20 list versions, 10 read metadata, 15 search, 10 ask
/// for an unknown package, 3 search the network, 2 publish.
async fn call(
    at: usize,
    registry: &P2PRegistry<SmolRuntime>,
    id: &PackageId,
    unknown: &PackageId,
    own: &PackageId,
) -> Ended {
    let failed = |error: &dyn std::fmt::Display| Ended::Failed(error.to_string());
    let query = || Query::text("package").expect("it is short");
    // 37 and 100 are coprime: the kinds are interleaved.
    match at * 37 % 100 {
        0..40 => get_package(registry, id).await,
        40..60 => match registry.list_versions(id).await {
            Ok(versions) => {
                Ended::of(versions.as_ref().is_some_and(|versions| versions.len() == 1), || format!("{versions:?}"))
            }
            Err(error) => failed(&error),
        },
        60..70 => match registry.metadata(id).await {
            Ok(metadata) => Ended::of(metadata.as_ref().is_some_and(|metadata| metadata.tags.len() == 1), || {
                format!("{metadata:?}")
            }),
            Err(error) => failed(&error),
        },
        70..85 => match registry.search(&query()).await {
            Ok(page) => Ended::of(page.total > 0, || "nothing was found".to_owned()),
            Err(error) => failed(&error),
        },
        85..95 => match registry.exists(unknown).await {
            Ok(exists) => Ended::of(!exists, || format!("{unknown} is there")),
            Err(error) => failed(&error),
        },
        95..98 => match registry.search_network(&query()).await {
            Ok(page) => Ended::of(page.total > 0, || "nothing was found".to_owned()),
            Err(error) => failed(&error),
        },
        _ => {
            let (release, _folder) = release(own, "1.0.0", &files(1 << 10, at as u64)).await;
            match registry.publish(release).await {
                Ok(receipt) => Ended::of(receipt.package == *own, || format!("{receipt:?}")),
                Err(error) => failed(&error),
            }
        }
    }
}

async fn get_package(registry: &P2PRegistry<SmolRuntime>, id: &PackageId) -> Ended {
    match registry.get_package(id).await {
        Ok(package) => {
            let is_right =
                package.as_ref().is_some_and(|package| package.id() == id && package.version().to_string() == "1.0.0");
            Ended::of(is_right, || format!("{id}: {package:?}"))
        }
        Err(error) => Ended::Failed(error.to_string()),
    }
}

async fn ended(call: impl Future<Output = Ended>) -> Ended {
    smol::future::or(call, async {
        Timer::after(LONG).await;
        Ended::Lost
    })
    .await
}
