//! Installs a package into the folder `packages`, on any runtime:
//! `cargo run -p kadence-tests --example registry -- tokio ADDRESS PUBLISHER/NAME`. The address is one that
//! `kadence pkg serve` prints.

use std::{env::args, error::Error, time::Duration};

use kadence_registry::{
    PackageId,
    p2p::registry::{P2PRegistry, RegistryBehaviour, RegistryConfig, configure},
    resolve::{install, resolve},
};
use kadence_tokio::{
    Identity, Node, NodeConfig,
    kadence::{Runtime, node::NodeError},
};
use libp2p::identity::Keypair;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> Result<()> {
    let arguments: Vec<String> = args().skip(1).collect();
    let [runtime, peer, package] = arguments.as_slice() else {
        return Err("usage: RUNTIME ADDRESS PUBLISHER/NAME".into());
    };
    let id: PackageId = package.parse()?;

    // A program that publishes keeps its key pair in a file.
    let keypair = Keypair::generate_ed25519();
    let mut node = NodeConfig::default().identity(Identity::Keypair(keypair.clone())).bootstrap_peers([peer.parse()?]);
    configure(&mut node);
    let config = RegistryConfig::in_folder("registry");
    let market = RegistryBehaviour::new(&keypair, &config)?;

    // The runtimes differ in the name of the crate and in the `block_on` around it.
    match runtime.as_str() {
        "tokio" => tokio::runtime::Runtime::new()?.block_on(async {
            let runtime = kadence_tokio::TokioRuntime::current().ok_or("not on tokio")?;
            get(kadence_tokio::node_with(node, |_| market).await, runtime, keypair, config, id).await
        }),
        "async-std" => async_std::task::block_on(async {
            let runtime = kadence_async_std::AsyncStdRuntime;
            get(kadence_async_std::node_with(node, |_| market).await, runtime, keypair, config, id).await
        }),
        "smol" => smol::block_on(async {
            let runtime = kadence_smol::SmolRuntime::default();
            get(kadence_smol::node_with(node, |_| market).await, runtime, keypair, config, id).await
        }),
        other => Err(format!("unknown runtime {other}: use tokio, async-std or smol").into()),
    }
}

async fn get<R: Runtime>(
    node: std::result::Result<Node<RegistryBehaviour>, NodeError>,
    runtime: R,
    keypair: Keypair,
    config: RegistryConfig,
    id: PackageId,
) -> Result<()> {
    let mut node = node?;
    let registry = P2PRegistry::start(&mut node, runtime, keypair, config).await?;
    node.ready(Duration::from_secs(10)).await?;

    let lock = resolve(&[(id, "*".parse()?)], &registry, None).await?;
    lock.write("ggen.lock").await?;
    for package in install(&lock, &registry, "packages").await?.packages {
        println!("{} {}: {}", package.package, package.version, package.path.display());
    }
    registry.close().await;
    node.shutdown().await;
    Ok(())
}
