#[cfg(feature = "quic")]
use futures::future::Either;
#[cfg(any(feature = "dns", feature = "quic"))]
use kadence::libp2p::Transport;
#[cfg(feature = "dns")]
use kadence::libp2p::dns;
#[cfg(feature = "quic")]
use kadence::libp2p::{core::muxing::StreamMuxerBox, quic};
use kadence::{
    libp2p::{identity::Keypair, noise, swarm::NetworkBehaviour, swarm::dummy, tcp},
    node::{BoxedTransport, Node, NodeConfig, NodeError, upgrade},
};
use tokio::runtime::Handle;

use crate::TokioRuntime;

/// Starts a node on TCP and QUIC, with names looked up by DNS, in the tokio runtime of the caller.
///
/// # Errors
///
/// Those of [`Node::start`].
///
/// # Panics
///
/// Outside of a tokio runtime, as `tokio::spawn` does.
pub async fn node(config: NodeConfig) -> Result<Node, NodeError> {
    node_with(config, |_| dummy::Behaviour).await
}

/// Starts a node with the application's own behaviour beside kad, made from the node's key pair.
///
/// # Errors
///
/// Those of [`Node::start`].
///
/// # Panics
///
/// Outside of a tokio runtime, as `tokio::spawn` does.
pub async fn node_with<X>(config: NodeConfig, app: impl FnOnce(&Keypair) -> X) -> Result<Node<X>, NodeError>
where
    X: NetworkBehaviour + Send,
    X::ToSwarm: Send,
{
    Node::start(TokioRuntime::from(Handle::current()), config, transport, app).await
}

/// TCP (noise and yamux over it) and QUIC, both behind DNS. For a swarm of your own.
///
/// On a system that names no name servers, addresses with names in them cannot be dialled.
///
/// # Errors
///
/// If the key pair cannot sign.
pub fn transport(keypair: &Keypair) -> Result<BoxedTransport, noise::Error> {
    #[cfg(feature = "dns")]
    match dns::tokio::Transport::system(base_transport(keypair)?) {
        Ok(transport) => return Ok(transport.boxed()),
        Err(error) => tracing::warn!(%error, "no name servers are configured: names in addresses are not resolved"),
    }
    base_transport(keypair)
}

fn base_transport(keypair: &Keypair) -> Result<BoxedTransport, noise::Error> {
    let tcp = upgrade(tcp::tokio::Transport::new(tcp::Config::default().nodelay(true)), keypair)?;
    #[cfg(feature = "quic")]
    let tcp = quic::tokio::Transport::new(quic::Config::new(keypair))
        .or_transport(tcp)
        .map(|either, _| match either {
            Either::Left((peer, connection)) => (peer, StreamMuxerBox::new(connection)),
            Either::Right((peer, connection)) => (peer, connection),
        })
        .boxed();
    Ok(tcp)
}
