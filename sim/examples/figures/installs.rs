//! Cold installs of packages: a registry that has never met a package resolves and installs it.

use std::{fs, time::Duration};

use kadence_registry::{
    MANIFEST_FILE, PackageId, PublishError, Registry, Release,
    p2p::registry::{P2PRegistry, RegistryBehaviour, RegistryConfig, configure},
    resolve::{install, resolve},
};
use kadence_sim::{
    Host, Link, PORT, SimRuntime, World,
    kadence::node::{Identity, Node, NodeConfig},
    libp2p::{Multiaddr, identity::Keypair},
};
use rand::{Rng, seq::IndexedRandom};
use semver::VersionReq;

use crate::{AnyError, Calls, Network};

/// Registries that install.
const READERS: usize = 4;

/// Number of names under which a publisher tries to publish a package.
const TRIES: usize = 10;

/// Length of the one file of a package, in bytes.
const FILE_LEN: usize = 100_000;

struct Peer {
    host: Host,
    _node: Node<RegistryBehaviour>,
    registry: P2PRegistry<SimRuntime>,
}

impl Peer {
    async fn start(host: Host, known: Vec<Multiaddr>) -> Result<Self, AnyError> {
        let keypair = Keypair::generate_ed25519();
        let mut config = NodeConfig::default()
            .identity(Identity::Keypair(keypair.clone()))
            .listen([host.multiaddr(PORT)])
            .bootstrap_peers(known);
        configure(&mut config);
        let registry = RegistryConfig::in_folder(host.disk());
        let behaviour = RegistryBehaviour::new(&keypair, &registry)?;
        let mut node = host.node_with(config, |_| behaviour).await?;
        let registry = P2PRegistry::start(&mut node, host.runtime(), keypair, registry).await?;
        Ok(Self { host, _node: node, registry })
    }

    /// Publishes a package that cannot be compressed.
    async fn publish(&self, world: &World, number: usize) -> Result<PackageId, AnyError> {
        let folder = world.folder()?;
        let content: Vec<u8> = world.random(|random| (0..FILE_LEN).map(|_| random.random()).collect());
        fs::write(folder.join("file"), content)?;
        for tried in 1.. {
            let name = format!("package-{number}-{tried}");
            fs::write(folder.join(MANIFEST_FILE), format!("name = \"{name}\"\nversion = \"1.0.0\"\n"))?;
            let release = Release::read(self.registry.publisher(), &folder).await?;
            match self.registry.publish(release).await {
                Ok(_receipt) => return Ok(PackageId::new(self.registry.publisher(), name.parse()?)?),
                // Until 16.1, answers that are late count as missing: it is not known whether there are versions already.
                Err(PublishError::Versions(_)) if tried < TRIES => {}
                Err(error) => return Err(error.into()),
            }
        }
        unreachable!("the last try returns")
    }

    async fn install(&self, package: &PackageId) -> Result<(), AnyError> {
        let lock = resolve(&[(package.clone(), VersionReq::STAR)], &self.registry, None).await?;
        install(&lock, &self.registry, self.host.disk().join("packages")).await?;
        Ok(())
    }
}

/// Publishes as many packages as there are rounds, before the silent peers are silent, and installs each at another registry.
pub(crate) async fn measure(network: &Network, rounds: usize) -> Result<Calls, AnyError> {
    let world = &network.world;
    let start = || Peer::start(world.host(Link::default()), world.some_of(&network.addresses));
    let publisher = start().await?;
    let mut readers = Vec::new();
    for _ in 0..READERS {
        readers.push(start().await?);
    }
    world.sleep(Duration::from_secs(60)).await;
    let mut packages = Vec::new();
    for number in 0..rounds {
        packages.push(publisher.publish(world, number).await?);
    }
    network.silence();
    // The announcements are not part of an install.
    world.sleep(Duration::from_secs(30)).await;
    let mut calls = Calls::default();
    for package in packages {
        let Some(reader) = world.random(|random| readers.choose(random)) else { break };
        let (before, began) = (reader.host.traffic(), world.now());
        let installed = reader.install(&package).await;
        calls.times.push(world.now() - began);
        let after = reader.host.traffic();
        calls.failed += usize::from(installed.is_err());
        calls.packets += after.packets - before.packets;
        calls.bytes += after.bytes - before.bytes;
        world.sleep(Duration::from_secs(1)).await;
    }
    Ok(calls)
}
