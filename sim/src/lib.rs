#![doc = include_str!("../README.md")]

mod connection;
mod disk;
mod foreign;
mod latency;
mod members;
mod network;
mod os;
mod plain;
mod runtime;
mod splitmix;
mod trace;
mod transport;
mod world;

pub use kadence;
pub use libp2p;

pub use self::{
    disk::{DiskState, clean_up_after},
    foreign::{ForeignPeer, Habit, WRONG_VALUE, keypairs_near},
    latency::Latency,
    members::{Member, PORT},
    network::{HostId, Link, Reach, Traffic},
    plain::PlainNode,
    runtime::{SimRuntime, SimTimer},
    world::{Host, Ran, World, WorldConfig, run},
};
