use kadence::{
    libp2p::{
        identity::Keypair,
        noise,
        swarm::{NetworkBehaviour, dummy},
    },
    node::{BoxedTransport, Node, NodeConfig, NodeError, upgrade},
};
#[cfg(feature = "dns")]
use libp2p_async_io::dns;
use libp2p_async_io::tcp;

use crate::AsyncStdRuntime;

/// Starts a node on async-std's global executor. The node has TCP and, with the feature `dns`, DNS.
///
/// ```
/// use kadence_async_std::{NodeConfig, kadence::node::NodeError, node};
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
pub async fn node(config: NodeConfig) -> Result<Node, NodeError> {
    node_with(config, |_| dummy::Behaviour).await
}

/// Starts a node, like [`node`](fn@node), with an additional behaviour of the application, which `app` makes from the
/// node's key pair.
///
/// ```
/// use kadence_async_std::{
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
pub async fn node_with<X>(config: NodeConfig, app: impl FnOnce(&Keypair) -> X) -> Result<Node<X>, NodeError>
where
    X: NetworkBehaviour + Send,
    X::ToSwarm: Send,
{
    Node::start(AsyncStdRuntime, config, transport, app).await
}

/// Returns a node's transport, for a swarm of your own: TCP with noise and yamux and, with the feature `dns`, DNS.
///
/// # Errors
///
/// Fails if the key pair cannot sign.
pub fn transport(keypair: &Keypair) -> Result<BoxedTransport, noise::Error> {
    let tcp = tcp::Transport::new(tcp::Config::default());
    #[cfg(feature = "dns")]
    let tcp = dns::Transport::system(tcp);
    upgrade(tcp, keypair)
}
