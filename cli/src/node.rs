//! `kadence node`, and functions that other commands share with it.

use std::{collections::HashSet, io};

use futures::{FutureExt, StreamExt, future::BoxFuture};
use kadence_tokio::kadence::{
    libp2p::{
        Multiaddr, PeerId,
        swarm::{NetworkBehaviour, SwarmEvent, dummy},
    },
    node::{Identity, Node, NodeConfig, NodeEvent, NodeStore},
};
use serde_json::json;
use tracing::info;

use crate::{args::NetworkArgs, exit::Failure, options::NodeArgs, output};

/// Runs a node until a signal comes.
///
/// # Errors
///
/// If it cannot start, or ends by itself.
pub(crate) async fn run(args: NodeArgs, network: NetworkArgs) -> Result<(), Failure> {
    let NodeArgs { listen, peers, identity, store, record, json } = args;
    // From here on, a signal shuts the node down gracefully.
    let signal = signal()?;
    let config = NodeConfig::default()
        .identity(identity.map_or(Identity::Ephemeral, Identity::File))
        .listen(listen.addresses)
        .bootstrap_peers(peers)
        .store(store.map_or(NodeStore::Memory, NodeStore::Disk))
        .driver(record.driver()?)
        .protocol(network.protocol)
        .expected_network_size(network.network_size);
    let mut node = kadence_tokio::node(config).await?;
    let mut addresses = Addresses::new(json);
    serve(&mut node, signal, |node| addresses.print_new(node)).await?;
    node.shutdown().await;
    Ok(())
}

/// Runs a node until a signal comes, and logs its peers. `on_address` is called at the start, and each time the node
/// may have a new address.
///
/// # Errors
///
/// If the node ends by itself, or with the error of `on_address`.
pub(crate) async fn serve(
    node: &mut Node,
    mut signal: BoxFuture<'static, ()>,
    mut on_address: impl FnMut(&Node) -> io::Result<()>,
) -> Result<(), Failure> {
    let Some(mut events) = node.events() else { return Ok(()) };
    on_address(node)?;
    loop {
        let event = tokio::select! {
            biased;
            () = &mut signal => {
                info!("shutting down");
                return Ok(());
            }
            event = events.next() => event,
        };
        match event {
            Some(Ok(SwarmEvent::NewListenAddr { .. }) | Err(_)) => on_address(node)?,
            Some(Ok(event)) => log(&event),
            None => return Err(anyhow::anyhow!("node ended by itself").into()),
        }
    }
}

/// Logs the first and the last connection of a peer, and failed dials.
fn log(event: &NodeEvent<dummy::Behaviour>) {
    match event {
        SwarmEvent::ConnectionEstablished { peer_id, endpoint, num_established, .. } if num_established.get() == 1 => {
            info!(peer = %peer_id, address = %endpoint.get_remote_address(), "connected");
        }
        SwarmEvent::ConnectionClosed { peer_id, num_established: 0, .. } => info!(peer = %peer_id, "disconnected"),
        SwarmEvent::OutgoingConnectionError { peer_id: Some(peer_id), error, .. } => {
            info!(peer = %peer_id, error = kadence_demo::output::chain(error), "dial failed");
        }
        _ => {}
    }
}

/// Prints each address of a node once.
pub(crate) struct Addresses {
    printed: HashSet<Multiaddr>,
    json: bool,
}

impl Addresses {
    pub(crate) fn new(json: bool) -> Self {
        Self { printed: HashSet::new(), json }
    }

    /// Prints the addresses that were not printed before.
    ///
    /// # Errors
    ///
    /// If stdout cannot be written.
    pub(crate) fn print_new<X: NetworkBehaviour>(&mut self, node: &Node<X>) -> io::Result<()> {
        for address in node.listen_addrs() {
            if self.printed.insert(address.clone()) {
                print(&address, node.local_peer_id(), self.json)?;
            }
        }
        Ok(())
    }
}

fn print(address: &Multiaddr, peer: PeerId, json: bool) -> io::Result<()> {
    if json {
        output::json(&json!({ "address": address.to_string(), "peer": peer.to_string() }))
    } else {
        output::line(address)
    }
}

/// Returns a future that is ready at Ctrl-C or, on Unix, SIGTERM.
///
/// # Errors
///
/// If the system does not allow a handler for signals.
pub(crate) fn signal() -> io::Result<BoxFuture<'static, ()>> {
    #[cfg(unix)]
    let signal = {
        use tokio::signal::unix::{SignalKind, signal};
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        }
    };
    #[cfg(not(unix))]
    let signal = async {
        // Without a handler, the system ends the process at Ctrl-C.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    Ok(signal.boxed())
}
