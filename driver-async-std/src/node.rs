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

/// Starts a node on TCP, with names looked up by DNS, on async-std's executor.
///
/// # Errors
///
/// Those of [`Node::start`].
pub async fn node(config: NodeConfig) -> Result<Node, NodeError> {
    node_with(config, |_| dummy::Behaviour).await
}

/// Starts a node with the application's own behaviour beside kad, made from the node's key pair.
///
/// # Errors
///
/// Those of [`Node::start`].
pub async fn node_with<X>(config: NodeConfig, app: impl FnOnce(&Keypair) -> X) -> Result<Node<X>, NodeError>
where
    X: NetworkBehaviour + Send,
    X::ToSwarm: Send,
{
    Node::start(AsyncStdRuntime, config, transport, app).await
}

/// TCP with noise and yamux over it, behind DNS. For a swarm of your own.
///
/// # Errors
///
/// If the key pair cannot sign.
pub fn transport(keypair: &Keypair) -> Result<BoxedTransport, noise::Error> {
    let tcp = tcp::Transport::new(tcp::Config::default());
    #[cfg(feature = "dns")]
    let tcp = dns::Transport::system(tcp);
    upgrade(tcp, keypair)
}
