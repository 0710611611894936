#![doc = include_str!("../README.md")]

mod connection;
mod latency;
mod members;
mod network;
mod os;
mod runtime;
mod splitmix;
mod trace;
mod transport;
mod world;

pub use kadence;
pub use libp2p;

pub use self::{
    latency::Latency,
    members::{Member, PORT},
    network::{HostId, Link, Reach, Traffic},
    runtime::{SimRuntime, SimTimer},
    world::{Host, Ran, World, WorldConfig, run},
};
