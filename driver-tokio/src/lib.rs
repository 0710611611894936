#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(feature = "node", doc = include_str!("../README.md"))]
#![cfg_attr(not(feature = "node"), doc = "Kadence on tokio.")]
//!
//! # What to read next
//!
//! - `NodeConfig`: the settings of a node. `node_with` adds a behaviour of your own.
//! - [`kadence::Client`]: the operations.
//! - [`spawn`]: Kadence in a swarm of your own.
//! - [`kadence::Driver`]: Kadence in an event loop of your own, with a [`TokioRuntime`].
//! - [Choosing a runtime](https://github.com/kadence-rs/kadence/blob/main/docs/choosing-a-runtime.md).

#[cfg(feature = "node")]
mod node;
mod runtime;
#[cfg(feature = "node")]
mod tcp_ports;

use kadence::{ContainsKad, DriverConfig, libp2p::Swarm};

#[cfg(feature = "node")]
pub use self::node::{node, node_with, transport};
pub use self::runtime::{TokioRuntime, TokioTimer};
#[cfg(feature = "node")]
pub use kadence::node::{Identity, Node, NodeConfig};
pub use kadence::{self, Spawned};

/// Runs a driver for a swarm in a task of the current tokio runtime. See [`kadence::spawn`].
///
/// ```
/// use kadence_tokio::{
///     Spawned,
///     kadence::{ContainsKad, DriverConfig, libp2p::Swarm},
/// };
///
/// async fn run<B>(swarm: Swarm<B>)
/// where
///     B: ContainsKad + Send,
///     B::ToSwarm: Send,
/// {
///     let Spawned { client, swarm, events, task } = kadence_tokio::spawn(swarm, DriverConfig::default());
///     drop((swarm, events));
///     println!("{:?}", client.get_record("greeting").await);
///     client.shutdown().await;
///     task.await;
/// }
/// ```
///
/// For another runtime than the current one, use [`kadence::spawn`] with a [`TokioRuntime`] made from a handle.
///
/// # Panics
///
/// Panics outside a tokio runtime, as `tokio::spawn` does. In a runtime without timers, the task panics when it first
/// sets a timer, usually for the first call that the driver accepts. Every pending and later call then ends with
/// `Shutdown`.
pub fn spawn<B>(swarm: Swarm<B>, config: DriverConfig) -> Spawned<B>
where
    B: ContainsKad + Send,
    B::ToSwarm: Send,
{
    let runtime = TokioRuntime::from(tokio::runtime::Handle::current());
    kadence::spawn(&runtime, swarm, config)
}
