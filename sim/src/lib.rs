//! A whole libp2p network in one thread and in virtual time.

mod connection;
mod latency;
mod network;
mod os;
mod runtime;
mod trace;
mod transport;
mod world;

pub use kadence;
pub use libp2p;

pub use self::{
    latency::Latency,
    network::{HostId, Link, Reach, Traffic},
    runtime::{SimRuntime, SimTimer},
    world::{Host, Ran, World, WorldConfig, run},
};
