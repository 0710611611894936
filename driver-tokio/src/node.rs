#[cfg(feature = "quic")]
use futures::future::Either;
#[cfg(any(feature = "dns", feature = "quic"))]
use kadence::libp2p::Transport;
#[cfg(feature = "quic")]
use kadence::libp2p::core::muxing::StreamMuxerBox;
use kadence::{
    libp2p::{identity::Keypair, noise, swarm::NetworkBehaviour, swarm::dummy},
    node::{BoxedTransport, Node, NodeConfig, NodeError, upgrade},
};
#[cfg(feature = "dns")]
use libp2p_dns as dns;
#[cfg(feature = "quic")]
use libp2p_quic as quic;
use tokio::runtime::Handle;

use crate::{TokioRuntime, tcp_ports::TcpTransport};

/// Starts a node in the current tokio runtime. The node has the transport of [`transport`]: TCP and, with the features
/// `quic` and `dns`, QUIC and DNS.
///
/// ```
/// use kadence_tokio::{NodeConfig, kadence::node::NodeError, node};
///
/// async fn client() -> Result<(), NodeError> {
///     let node = node(NodeConfig::default()).await?;
///     println!("{:?}", node.client().get_record("greeting").await);
///     node.shutdown().await;
///     Ok(())
/// }
/// ```
///
/// # Errors
///
/// Fails with the errors of [`Node::start`].
///
/// # Panics
///
/// The future panics if it is polled outside a tokio runtime. If the timers or the I/O of the runtime are not enabled
/// (`tokio::runtime::Builder::enable_all`), this function or the task of the node may panic.
pub async fn node(config: NodeConfig) -> Result<Node, NodeError> {
    node_with(config, |_| dummy::Behaviour).await
}

/// Starts a node, like [`node`](fn@node), with an additional behaviour of the application, which `app` makes from the
/// node's key pair.
///
/// ```
/// use kadence_tokio::{
///     Node, NodeConfig,
///     kadence::{libp2p::swarm::dummy, node::NodeError},
///     node_with,
/// };
///
/// async fn start() -> Result<Node<dummy::Behaviour>, NodeError> {
///     node_with(NodeConfig::default(), |_keypair| dummy::Behaviour).await
/// }
/// ```
///
/// # Errors
///
/// Fails with the errors of [`Node::start`].
///
/// # Panics
///
/// The future panics if it is polled outside a tokio runtime. If the timers or the I/O of the runtime are not enabled
/// (`tokio::runtime::Builder::enable_all`), this function or the task of the node may panic.
pub async fn node_with<X>(config: NodeConfig, app: impl FnOnce(&Keypair) -> X) -> Result<Node<X>, NodeError>
where
    X: NetworkBehaviour + Send,
    X::ToSwarm: Send,
{
    Node::start(TokioRuntime::from(Handle::current()), config, transport, app).await
}

/// Returns a node's transport, for a swarm of your own: TCP with noise and yamux and, with the features `quic` and
/// `dns`, QUIC and DNS.
///
/// If the system's list of name servers cannot be read, a warning is logged, and addresses with names cannot be
/// dialled.
///
/// # Errors
///
/// Fails if the key pair cannot sign.
pub fn transport(keypair: &Keypair) -> Result<BoxedTransport, noise::Error> {
    #[cfg(feature = "dns")]
    match dns::tokio::Transport::system(base_transport(keypair)?) {
        Ok(transport) => return Ok(transport.boxed()),
        Err(error) => tracing::warn!(%error, "system has no name servers: names in addresses are not resolved"),
    }
    base_transport(keypair)
}

fn base_transport(keypair: &Keypair) -> Result<BoxedTransport, noise::Error> {
    let tcp = upgrade(TcpTransport::new(), keypair)?;
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
