//! Kadence on async-std.
//!
//! async-std is discontinued (RUSTSEC-2025-0052): this is for programs that are on it. Those that can choose take
//! `kadence-smol`, on the same reactor, or `kadence-tokio`. No tokio is compiled.

#[cfg(feature = "node")]
mod node;
mod runtime;

use kadence::{
    Client, ContainsKad, DriverConfig, Events, SwarmHandle, Task,
    libp2p::{Swarm, swarm::SwarmEvent},
};

#[cfg(feature = "node")]
pub use self::node::{node, node_with, transport};
pub use self::runtime::{AsyncStdRuntime, AsyncStdTimer};
pub use kadence;
#[cfg(feature = "node")]
pub use kadence::node::{Identity, Node, NodeConfig};

/// Drives a swarm in an async-std task of its own; see [`kadence::spawn`].
pub fn spawn<B>(swarm: Swarm<B>, config: DriverConfig) -> (Client, SwarmHandle<B>, Events<SwarmEvent<B::ToSwarm>>, Task)
where
    B: ContainsKad + Send,
    B::ToSwarm: Send,
{
    kadence::spawn(&AsyncStdRuntime, swarm, config)
}
