//! Kadence on tokio.

#[cfg(feature = "node")]
mod node;
mod runtime;

use kadence::{
    Client, ContainsKad, DriverConfig, Events, SwarmHandle, Task,
    libp2p::{Swarm, swarm::SwarmEvent},
};

#[cfg(feature = "node")]
pub use self::node::{node, node_with, transport};
pub use self::runtime::{TokioRuntime, TokioTimer};
pub use kadence;
#[cfg(feature = "node")]
pub use kadence::node::{Identity, Node, NodeConfig};

/// Drives a swarm in a tokio task of its own; see [`kadence::spawn`].
///
/// # Panics
///
/// Outside of a tokio runtime, as `tokio::spawn` does, or in one without a timer. [`kadence::spawn`] takes a
/// [`TokioRuntime`] made from a handle instead.
pub fn spawn<B>(swarm: Swarm<B>, config: DriverConfig) -> (Client, SwarmHandle<B>, Events<SwarmEvent<B::ToSwarm>>, Task)
where
    B: ContainsKad + Send,
    B::ToSwarm: Send,
{
    let runtime = TokioRuntime::from(tokio::runtime::Handle::current());
    kadence::spawn(&runtime, swarm, config)
}
