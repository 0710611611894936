//! The package registry, unmodified, in a world: its blocking work runs in turn, and its clocks are those of the hosts.

use std::{fs, path::Path, time::Duration};

use kadence_registry::{
    MANIFEST_FILE, PackageId, Registry, Release,
    p2p::registry::{P2PRegistry, RegistryBehaviour, RegistryConfig, configure},
};
use kadence_sim::{
    Host, Latency, Link, PORT, Ran, SimRuntime, World, WorldConfig,
    kadence::node::{Identity, Node, NodeConfig},
    libp2p::{Multiaddr, identity::Keypair},
    run,
};

use crate::finding::{Finding, MINUTE, config, ensure, fails_until, holds};

struct Peer {
    host: Host,
    node: Node<RegistryBehaviour>,
    registry: P2PRegistry<SimRuntime>,
}

async fn peer(host: Host, known: Vec<Multiaddr>) -> Peer {
    let keypair = Keypair::generate_ed25519();
    let mut node = NodeConfig::default()
        .identity(Identity::Keypair(keypair.clone()))
        .listen([host.multiaddr(PORT)])
        .bootstrap_peers(known);
    configure(&mut node);
    let config = RegistryConfig::in_folder(host.disk());
    let behaviour = RegistryBehaviour::new(&keypair, &config).unwrap();
    let mut node = host.node_with(node, |_| behaviour).await.unwrap();
    let registry = P2PRegistry::start(&mut node, host.runtime(), keypair, config).await.unwrap();
    Peer { host, node, registry }
}

async fn network(world: &World, number: usize) -> Vec<Peer> {
    let mut peers: Vec<Peer> = Vec::new();
    for _ in 0..number {
        let known = peers.iter().take(3).flat_map(|peer| peer.node.listen_addrs()).collect();
        peers.push(peer(world.host(Link::default()), known).await);
        world.sleep(Duration::from_secs(1)).await;
    }
    world.sleep(Duration::from_secs(60)).await;
    peers
}

async fn release(peer: &Peer, folder: &Path) -> (PackageId, Release) {
    let manifest = "name = \"pads\"\nversion = \"1.0.0\"\n";
    fs::write(folder.join(MANIFEST_FILE), manifest).unwrap();
    fs::write(folder.join("pads.txt"), "pads".repeat(50_000)).unwrap();
    let package = PackageId::new(peer.registry.publisher(), "pads".parse().unwrap()).unwrap();
    (package, Release::read(peer.registry.publisher(), folder).await.unwrap())
}

async fn publish(peer: &Peer) -> PackageId {
    let folder = peer.host.world().folder().unwrap();
    let (package, release) = release(peer, &folder).await;
    peer.registry.publish(release).await.unwrap();
    package
}

async fn fetch(peer: &Peer, package: &PackageId) {
    let index = peer.registry.index(package).await.unwrap().unwrap();
    let version = index.versions().values().next().unwrap();
    peer.registry.fetch(package, &version.archive, version.archive_size).await.unwrap();
}

fn published_and_fetched() -> Ran<Duration> {
    let config = WorldConfig::default().latency(Latency::Constant(Duration::from_millis(40)));
    run(config, |world| async move {
        let peers = network(&world, 12).await;
        let package = publish(&peers[3]).await;
        // Its publisher is gone, and another peer has the contents.
        fetch(&peers[5], &package).await;
        world.sleep(Duration::from_secs(10)).await;
        peers[3].host.set_online(false);
        let began = world.now();
        fetch(&peers[9], &package).await;
        world.now() - began
    })
}

#[test]
fn a_package_is_published_and_fetched_from_a_mirror() {
    let ran = published_and_fetched();
    println!("a cold fetch took {:?}; {:?} in all, {} steps", ran.result, ran.took, ran.steps);
    assert!(ran.result < Duration::from_secs(15), "{:?}", ran.result);
}

/// kad keeps a record for 48 hours, and only the publisher stores it again.
#[test]
fn a_package_outlives_its_publisher_as_long_as_a_mirror_has_it() {
    let finding = run(config().limit(100 * 60 * MINUTE), |world| async move {
        let peers = network(&world, 4).await;
        let package = publish(&peers[1]).await;
        fetch(&peers[2], &package).await;
        peers[1].host.set_online(false);
        world.sleep(50 * 60 * MINUTE).await;
        let newcomer = peer(world.host(Link::default()), peers[0].node.listen_addrs()).await;
        world.sleep(MINUTE).await;
        let found = newcomer.registry.index(&package).await;
        ensure(matches!(&found, Ok(Some(_))), || {
            format!(
                "50 hours later the index is {:?}",
                found.map(|index| index.is_some()).map_err(|error| error.to_string())
            )
        })
    });
    fails_until("18.3", "50 hours later the index is Ok(false)", finding.result);
}

/// Publishes and reads a package while the clocks of the publisher and of the reader are wrong. Nobody is banned for that,
/// and an error of publishing or reading names the clock.
async fn read_with_clocks(world: World, publisher_ahead: i64, reader_ahead: i64) -> Finding {
    let peers = network(&world, 4).await;
    peers[1].host.set_wall_clock(publisher_ahead);
    peers[2].host.set_wall_clock(reader_ahead);
    world.sleep(MINUTE).await;
    let folder = world.folder().unwrap();
    let (package, release) = release(&peers[1], &folder).await;
    let published = peers[1].host.by_clock(peers[1].registry.publish(release)).await;
    let published = published.map(|_receipt| ()).map_err(|error| error.to_string());
    world.sleep(15 * MINUTE).await;
    let read = peers[2].host.by_clock(peers[2].registry.index(&package)).await;
    let read = read.map(|index| index.is_some()).map_err(|error| error.to_string());
    let all = || peers.iter().enumerate();
    let banned: Vec<_> = all()
        .flat_map(|(by, peer)| all().map(move |(of, other)| (by, peer, of, other)))
        .filter(|(_, peer, _, other)| {
            let reputation = peer.registry.reputation().get(&other.node.local_peer_id());
            reputation.is_some_and(|reputation| reputation.bad > 0)
        })
        .map(|(by, _, of, _)| format!("{by} bans {of}"))
        .collect();
    let names_clock = |error: Option<&String>| error.is_some_and(|error| error.contains("clock"));
    let is_known = read == Ok(true) || names_clock(read.as_ref().err()) || names_clock(published.as_ref().err());
    ensure(is_known && banned.is_empty(), || format!("bans: {banned:?}; published: {published:?}; read: {read:?}"))
}

#[test]
fn a_publisher_whose_clock_is_a_day_ahead_is_not_banned() {
    let finding = run(config(), |world| read_with_clocks(world, 86_400, 0));
    fails_until("18.4", "bans: [\"", finding.result);
}

#[test]
fn a_publisher_whose_clock_is_four_hundred_days_ahead_is_told_so() {
    let finding = run(config(), |world| read_with_clocks(world, 400 * 86_400, 0));
    fails_until("18.4", "bans: [\"", finding.result);
}

#[test]
fn a_reader_whose_clock_is_twenty_minutes_behind_bans_nobody() {
    let finding = run(config(), |world| read_with_clocks(world, 0, -1_200));
    fails_until("18.4", "bans: [\"", finding.result);
}

#[test]
fn clocks_that_differ_by_a_minute_do_no_harm() {
    let finding = run(config(), |world| read_with_clocks(world, 60, -60));
    holds(finding.result);
}
