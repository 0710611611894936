//! Measurements without concurrency: publishing, announcing, resolving, fetching, installing.

use std::{
    fmt::Debug,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime},
};

use futures::{StreamExt, future::join_all};
use kadence::LocalCopy;
use kadence_registry::{
    ContentId, Package, PackageId, Registry, Step,
    archive::{PackOptions, pack},
    blob::BlobStore,
    p2p::{
        announce::{Announcement, DEFAULT_TOPIC, SignedAnnouncement},
        head::{SignedHead, dht_key},
        registry::{RegistryEvent, RegistryEvents},
    },
    resolve::{Lock, install, resolve},
};
use libp2p::kad::Quorum;
use libp2p_gossipsub::IdentTopic;
use semver::VersionReq;
use smol::{Executor, Timer};

use crate::{
    Size,
    network::{LONG, Network, Peer, Role, files, release},
    report::{Report, Times, milliseconds},
};

/// Target for the time in which 95 of 100 nodes receive an announcement.
const HEARD: Duration = Duration::from_secs(1);

/// Minimum speed of a fetch as a share of the bare stream's.
const FETCH: f64 = 0.5;

/// Maximum number of attempts of a call.
const TRIES: usize = 10;

/// Number of calls that failed and were repeated.
static REPEATED: AtomicUsize = AtomicUsize::new(0);

/// Number of peers that have the large package in the end.
const PROVIDERS: usize = 4;

/// Publishes the small packages one after the other, and returns their ids. Measures how long each node takes to
/// receive the announcement, and how long resolving takes on a node that receives none.
pub(crate) async fn announcements(network: &Network, size: Size, report: &mut Report) -> Vec<PackageId> {
    let [peers @ .., unaware] = network.peers.as_slice() else { return Vec::new() };
    let (mut packages, mut publishing, mut resolving) = (Vec::new(), Vec::new(), Vec::new());
    let (mut of_calls, mut of_messages, mut unheard, mut badly) = (Vec::new(), Vec::new(), 0, 0);
    for round in 0..size.packages {
        for (at, publisher) in peers.iter().enumerate() {
            let id = publisher.package(&format!("small-{round}"));
            let content = files(4 << 10, (round * peers.len() + at) as u64);
            let (release, _folder) = release(&id, "1.0.0", &content).await;
            let others = || peers.iter().filter(|peer| peer.id() != publisher.id());

            let begun = Instant::now();
            let heard = join_all(others().map(|peer| heard(peer.registry.events(), &id, begun)));
            let publish = async {
                let receipt = again(async || publisher.registry.publish(release.clone()).await).await;
                (receipt, begun.elapsed())
            };
            let (heard, (receipt, took)) = futures::join!(heard, publish);
            publishing.push(took);
            badly += usize::from(!receipt.steps.all_succeeded());
            of_calls.extend(heard.iter().map(|heard| heard.unwrap_or(LONG)));
            unheard += heard.iter().filter(|heard| heard.is_none()).count();

            if unaware.registry.discovered_packages().is_empty() {
                let begun = Instant::now();
                let lock = locked(unaware, &id).await;
                resolving.push(begun.elapsed());
                assert!(lock.get(&id).is_some_and(|pinned| pinned.manifest == receipt.manifest), "another manifest");
            }
            Timer::after(size.pause).await;

            // An announcement of a package that does not exist measures the message alone.
            let news = publisher.package(&format!("news-{round}"));
            let message = announcement(publisher, &news, receipt.index);
            let begun = Instant::now();
            let heard = join_all(others().map(|peer| self::heard(peer.registry.events(), &news, begun)));
            let send = publisher.node.swarm().with(move |swarm| {
                swarm.behaviour_mut().app.gossipsub.publish(IdentTopic::new(DEFAULT_TOPIC), message)
            });
            let (heard, sent) = futures::join!(heard, send);
            sent.expect("the node runs").expect("there are peers");
            of_messages.extend(heard.iter().map(|heard| heard.unwrap_or(LONG)));
            unheard += heard.iter().filter(|heard| heard.is_none()).count();
            packages.push(id);
            Timer::after(size.pause).await;
        }
    }
    let others = peers.len() - 1;
    report.row("publish a small package", publishing, "");
    let of_calls = report.row("  until each other node knows, from the call", of_calls, format!("{others} nodes"));
    let of_messages = report.row("announcement, until each other node knows", of_messages, format!("{others} nodes"));
    report.row("cold resolve, by a node that has not heard of it", resolving, "");
    for (what, times) in [("announcement", of_messages), ("publish, with all its steps", of_calls)] {
        let p95 = times.percentile(95);
        let detail = format!("{:.0} ms", milliseconds(p95));
        report.target(format!("{what}: known to all others within {HEARD:?} (p95)"), p95 <= HEARD, detail);
    }
    report.always("every announcement is heard by every node", unheard == 0, format!("{unheard} not heard"));
    report.target("every step of every publication is well", badly == 0, format!("{badly} not"));
    packages
}

/// Waits for an announcement, and returns the time since `begun`. `None` if it does not come.
async fn heard(mut events: RegistryEvents, id: &PackageId, begun: Instant) -> Option<Duration> {
    let find = async {
        while let Some(event) = events.next().await {
            match event {
                RegistryEvent::PackageDiscovered { package, .. } if package == *id => return Some(begun.elapsed()),
                _ => {}
            }
        }
        None
    };
    smol::future::or(find, async {
        Timer::after(LONG).await;
        None
    })
    .await
}

/// Creates an announcement like the registry's for the first version of a package.
fn announcement(publisher: &Peer, package: &PackageId, index: ContentId) -> Vec<u8> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("it is later than 1970");
    let announcement = Announcement {
        schema: Announcement::SCHEMA,
        package: package.clone(),
        version: "1.0.0".parse().expect("a version"),
        seq: 1,
        head: ContentId::of(b"a head"),
        index,
        title: "News".to_owned(),
        published_at: now.as_secs(),
    };
    SignedAnnouncement::sign(&publisher.keypair, announcement).expect("it is valid").bytes().to_owned()
}

async fn locked(peer: &Peer, id: &PackageId) -> Lock {
    again(async || resolve(&[(id.clone(), VersionReq::STAR)], &peer.registry, None).await).await
}

/// Publishes a large package, fetches it from one peer and from several, and installs it.
pub(crate) async fn large(network: &Network, executor: &Arc<Executor<'static>>, size: Size, report: &mut Report) {
    let [publisher, others @ .., taker, gatherer, _fresh, _unaware] = network.peers.as_slice() else { return };
    let id = publisher.package("large");
    let (mut publishing, mut last) = (Vec::new(), None);
    for version in 0..size.versions {
        let content = files(size.bytes, 1000 + version);
        let (release, folder) = release(&id, &format!("1.{version}.0"), &content).await;
        let begun = Instant::now();
        let receipt = again(async || publisher.registry.publish(release.clone()).await).await;
        publishing.push(begun.elapsed());
        last = Some((receipt, folder, content));
        Timer::after(size.pause).await;
    }
    let Some((receipt, folder, content)) = last else { return };
    report.row("publish the large package", publishing, "");
    steps(publisher, &id, folder.path(), size, report).await;

    publisher.serve_copies(executor, Arc::new(content.iter().flat_map(|(_, bytes)| bytes.clone()).collect()));
    let package = read(taker, &id).await;
    let (copies, fetches) = side_by_side(taker, publisher, &package, size).await;
    let (of_copies, of_fetches) = (speed(size, &copies), speed(size, &fetches));
    let copies = report.row("copy it over a bare stream", copies, of_copies);
    let fetches = report.row("fetch it from its one provider", fetches, of_fetches);
    let mut ratios = vec![("one provider", copies.median().as_secs_f64() / fetches.median().as_secs_f64())];

    for other in others.iter().take(PROVIDERS - 1) {
        let package = read(other, &id).await;
        again(async || other.registry.archive(&package).await).await;
    }
    let package = read(gatherer, &id).await;
    all_offered(gatherer, &receipt.archive).await;
    let served = || -> Vec<u64> { others.iter().map(|peer| peer.registry.server_stats().bytes).collect() };
    let before = served();
    let (copies, fetches) = side_by_side(gatherer, publisher, &package, size).await;
    let (of_copies, of_fetches) = (speed(size, &copies), speed(size, &fetches));
    let copies = report.row("copy it over a bare stream, again", copies, of_copies);
    let what = format!("fetch it from {PROVIDERS} providers");
    let gave = served().iter().zip(&before).filter(|(after, before)| after > before).count();
    let fetches = report.row(what, fetches, format!("{of_fetches}; {gave} besides the publisher gave some"));
    report.target(
        "several providers give it where it is looked for at once",
        gave > 0,
        format!("{gave} besides the publisher"),
    );
    ratios.push(("several providers", copies.median().as_secs_f64() / fetches.median().as_secs_f64()));
    for (who, ratio) in ratios {
        let what = format!("fetch from {who}: at least {FETCH} times the speed of the bare stream");
        report.target(what, ratio >= FETCH, format!("{ratio:.2}"));
    }

    let (mut installing, mut same) = (Vec::new(), true);
    for _ in 0..size.installs {
        forget(taker, &receipt.archive).await;
        let target = tempfile::tempdir().expect("a folder");
        let begun = Instant::now();
        let lock = locked(taker, &id).await;
        let installed = again(async || install(&lock, &taker.registry, target.path()).await).await;
        installing.push(begun.elapsed());
        same &= installed.packages.first().is_some_and(|package| is_there(&package.path, &content));
    }
    report.row("resolve, fetch and install it", installing, "");

    let (mut ready, mut resolved, mut installed) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..size.newcomers {
        let begun = Instant::now();
        let newcomer = network.node(Role::Ordinary).await;
        newcomer.node.ready(LONG).await.expect("the network is there");
        ready.push(begun.elapsed());
        let lock = locked(&newcomer, &id).await;
        resolved.push(begun.elapsed());
        let target = tempfile::tempdir().expect("a folder");
        let packages = again(async || install(&lock, &newcomer.registry, target.path()).await).await.packages;
        installed.push(begun.elapsed());
        same &= packages.first().is_some_and(|package| is_there(&package.path, &content));
        newcomer.node.shutdown().await;
    }
    report.row("a new node, from its start: ready", ready, "");
    report.row("  large package resolved", resolved, "");
    report.row("  large package installed", installed, "");
    let times = size.installs + size.newcomers;
    let repeated = REPEATED.load(Relaxed);
    report.target("no single call has to be made again", repeated == 0, format!("{repeated} times"));
    report.always("every installed byte is what was published", same, format!("installed {times} times"));
}

/// Measures the steps of publishing separately.
async fn steps(publisher: &Peer, id: &PackageId, folder: &Path, size: Size, report: &mut Report) {
    let client = publisher.node.client();
    let key = dht_key(id).expect("an Ed25519 key");
    let (mut packs, mut provides, mut puts, mut reads) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..size.versions {
        let folder = folder.to_owned();
        let packing = blocking::unblock(move || {
            let store = tempfile::tempdir().expect("a folder");
            let store = BlobStore::open(store.path()).expect("a store");
            let mut file = tempfile::tempfile().expect("a file");
            pack(&folder, &PackOptions::default(), &file).expect("a package");
            std::io::Seek::rewind(&mut file).expect("a file");
            store.put_reader(file, u64::MAX).expect("the disk works");
        });
        packs.push(timed(packing).await.1);

        let contents = [0_u8; 3].map(|at| ContentId::of(&[at, round as u8]));
        let provide = async {
            for content in &contents {
                again(async || client.start_providing(content.provider_key()).await).await;
            }
        };
        provides.push(timed(provide).await.1);

        let read = again(async || client.get_record(key.clone()).best().fresh().await);
        let (found, took) = timed(read).await;
        reads.push(took);
        let head = SignedHead::verify(found.value(), id).expect("it is signed");
        let record = head.to_record(SystemTime::now(), Instant::now()).expect("an Ed25519 key");
        let put = || client.put_record(record.clone()).quorum(Quorum::Majority).clamp_quorum();
        puts.push(timed(again(async || put().local_copy(LocalCopy::First).await)).await.1);
    }
    for (step, times) in
        [(Step::Archive, packs), (Step::Provide, provides), (Step::Head, puts), (Step::ReadBack, reads)]
    {
        report.row(format!("  the same as its step \"{step}\" alone"), times, "");
    }
}

async fn read(peer: &Peer, id: &PackageId) -> Package {
    again(async || peer.registry.get_package(id).await).await.expect("it is published")
}

/// Repeats a call until it succeeds, as a program on a busy machine would. The time of all attempts counts.
async fn again<T, E: Debug>(mut call: impl AsyncFnMut() -> Result<T, E>) -> T {
    for _ in 1..TRIES {
        match call().await {
            Ok(answer) => return answer,
            Err(error) => eprintln!("once more: {error:?}"),
        }
        REPEATED.fetch_add(1, Relaxed);
    }
    call().await.expect("the network is there")
}

async fn timed<T>(work: impl Future<Output = T>) -> (T, Duration) {
    let begun = Instant::now();
    (work.await, begun.elapsed())
}

/// Alternates copies over a bare stream and fetches.
async fn side_by_side(taker: &Peer, publisher: &Peer, package: &Package, size: Size) -> (Times, Times) {
    let archive = package.contents().archive;
    let (mut copies, mut fetches) = (Vec::new(), Vec::new());
    for _ in 0..size.fetches {
        let (copied, took) = timed(taker.copy_from(publisher.id())).await;
        assert_eq!(copied, size.bytes, "not all was copied");
        copies.push(took);
        forget(taker, &archive).await;
        fetches.push(timed(again(async || taker.registry.archive(package).await)).await.1);
    }
    (copies.into(), fetches.into())
}

async fn forget(peer: &Peer, content: &ContentId) {
    let (blobs, content) = (peer.registry.blobs().clone(), *content);
    blocking::unblock(move || blobs.remove(&content)).await.expect("the disk works");
}

/// Waits until the network names all providers.
async fn all_offered(peer: &Peer, content: &ContentId) {
    let begun = Instant::now();
    loop {
        let found = again(async || peer.node.client().get_providers(content.provider_key()).await).await;
        if found.providers.len() >= PROVIDERS {
            return;
        }
        assert!(begun.elapsed() < LONG, "{} providers are known", found.providers.len());
        Timer::after(Duration::from_millis(20)).await;
    }
}

fn is_there(folder: &Path, content: &[(String, Vec<u8>)]) -> bool {
    content.iter().all(|(file, bytes)| std::fs::read(folder.join(file)).is_ok_and(|found| found == *bytes))
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn speed(size: Size, times: &Times) -> String {
    format!("{:.0} MiB/s", size.bytes as f64 / f64::from(1 << 20) / times.median().as_secs_f64())
}
