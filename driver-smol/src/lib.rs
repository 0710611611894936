//! Kadence on smol.
//!
//! No tokio is compiled, and no async-std.

#[cfg(feature = "node")]
mod node;
mod runtime;

use kadence::{
    Client, ContainsKad, DriverConfig, Events, SwarmHandle, Task,
    libp2p::{Swarm, swarm::SwarmEvent},
};

#[cfg(feature = "node")]
pub use self::node::{node, node_with, transport};
pub use self::runtime::{SmolRuntime, SmolTimer};
pub use kadence;
#[cfg(feature = "node")]
pub use kadence::node::{Identity, Node, NodeConfig};

/// Drives a swarm in a task of its own on smol's global executor; see [`kadence::spawn`], which takes a [`SmolRuntime`]
/// on an executor of yours instead.
pub fn spawn<B>(swarm: Swarm<B>, config: DriverConfig) -> (Client, SwarmHandle<B>, Events<SwarmEvent<B::ToSwarm>>, Task)
where
    B: ContainsKad + Send,
    B::ToSwarm: Send,
{
    kadence::spawn(&SmolRuntime::default(), swarm, config)
}
