//! The package registry, unmodified, in a world: its blocking work runs in turn, and its clocks are those of the hosts.

#![cfg(test)]

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
use tempfile::TempDir;

struct Peer {
    host: Host,
    node: Node<RegistryBehaviour>,
    registry: P2PRegistry<SimRuntime>,
    _folder: TempDir,
}

async fn peer(host: Host, known: Vec<Multiaddr>) -> Peer {
    let (keypair, folder) = (Keypair::generate_ed25519(), tempfile::tempdir().unwrap());
    let mut node = NodeConfig::default()
        .identity(Identity::Keypair(keypair.clone()))
        .listen([host.multiaddr(PORT)])
        .bootstrap_peers(known);
    configure(&mut node);
    let config = RegistryConfig::in_folder(folder.path());
    let behaviour = RegistryBehaviour::new(&keypair, &config).unwrap();
    let mut node = host.node_with(node, |_| behaviour).await.unwrap();
    let registry = P2PRegistry::start(&mut node, host.runtime(), keypair, config).await.unwrap();
    Peer { host, node, registry, _folder: folder }
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

async fn release(peer: &Peer, folder: &Path, version: &str) -> (PackageId, Release) {
    let manifest = format!("name = \"pads\"\nversion = \"{version}\"\n");
    fs::write(folder.join(MANIFEST_FILE), manifest).unwrap();
    fs::write(folder.join("pads.txt"), "pads".repeat(50_000)).unwrap();
    let package = PackageId::new(peer.registry.publisher(), "pads".parse().unwrap()).unwrap();
    (package, Release::read(peer.registry.publisher(), folder).await.unwrap())
}

fn published_and_fetched() -> Ran<Duration> {
    let config = WorldConfig::default().latency(Latency::Constant(Duration::from_millis(40)));
    run(config, |world| async move {
        let peers = network(&world, 12).await;
        let folder = tempfile::tempdir().unwrap();
        let (package, release) = release(&peers[3], folder.path(), "1.0.0").await;
        peers[3].registry.publish(release).await.unwrap();
        // Its publisher is gone, and another peer has the contents.
        let index = peers[5].registry.index(&package).await.unwrap().unwrap();
        let version = index.versions().values().next().unwrap();
        peers[5].registry.fetch(&package, &version.archive, version.archive_size).await.unwrap();
        world.sleep(Duration::from_secs(10)).await;
        peers[3].host.set_online(false);
        let began = world.now();
        let index = peers[9].registry.index(&package).await.unwrap().unwrap();
        let version = index.versions().values().next().unwrap();
        peers[9].registry.fetch(&package, &version.archive, version.archive_size).await.unwrap();
        world.now() - began
    })
}

#[test]
fn a_package_is_published_and_fetched_from_a_mirror() {
    let ran = published_and_fetched();
    println!("a cold fetch took {:?}; {:?} in all, {} steps", ran.result, ran.took, ran.steps);
    assert!(ran.result < Duration::from_secs(15), "{:?}", ran.result);
}
