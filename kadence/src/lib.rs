#![cfg_attr(docsrs, feature(doc_cfg))]
#![doc = include_str!("../README.md")]
//!
//! # What to read next
//!
//! - [`node`]: a node from one configuration, and its settings.
//! - [`Client`]: the operations; [`Call`]: their options; [`CallStream`]: items as they arrive.
//! - [`spawn`] and [`ContainsKad`]: Kadence in a swarm of your own; [`Events`]: the events of that swarm.
//! - [`Driver`]: Kadence in an event loop of your own; [`SwarmHandle`]: access to the swarm from outside the loop.
//! - [`DriverConfig`] and [`TrackerConfig`]: the limits of the driver and their defaults.
//! - [`Runtime`]: Kadence on another runtime.
//! - [`kadence_core`]: the state machine without the driver.
//! - In the repository: [architecture](https://github.com/kadence-rs/kadence/blob/main/docs/architecture.md),
//!   [decisions](https://github.com/kadence-rs/kadence/blob/main/docs/decisions.md) and
//!   [examples](https://github.com/kadence-rs/kadence/tree/main/examples).

mod alarm;
mod client;
mod contains_kad;
mod driver;
#[cfg(feature = "node")]
pub mod node;
#[cfg(all(test, shuttle))]
mod races;
mod response;
mod runtime;
mod sync;

/// Types that stand for the operations: the type parameter of a [`Call`].
pub mod kind {
    pub use crate::client::kind::{
        Bootstrap, FindPeer, GetClosestPeers, GetProviders, GetRecord, Kind, NoItem, PutRecord, PutRecordTo,
        StartProviding,
    };
}

pub use alarm::{Alarm, Clock, ElapsedError, deadline_after};
pub use client::{
    Client,
    call::{Call, CallFuture, CallStream, Update},
    connection::{DriverClosedError, RemoveRecordError},
    find_peer::{FindPeerError, FoundPeer},
    key::Key,
};
pub use contains_kad::ContainsKad;
pub use driver::{
    Driver, SwarmHandle,
    config::{DriverConfig, Recording},
    task::{Events, LaggedError, Spawned, Task, TaskEnd, spawn},
};
pub use kadence_core as tracker;
pub use kadence_core::{
    BootstrapAnswer, BootstrapError, BootstrapPhase, Candidate, Certainty, ClosestPeersAnswer, GetClosestPeersError,
    GetProvidersError, GetRecordError, InvalidRequestError, LocalCopy, LogValues, Metrics, Network, OperationKind,
    OutcomeKind, Priority, Progress, ProvideAnswer, ProvidersAnswer, PutAnswer, PutOptions, PutRecordError, Quorum,
    REPLICATION_FACTOR, Reachability, RecordAnswer, RequestError, Retry, Snapshot, Stall, StartProvidingError, Stats,
    TrackerConfig, ValidationError, Validator, Validators,
};
#[cfg(feature = "node")]
pub use kadence_store as store;
pub use libp2p;
pub use libp2p_kad_timeouts::{
    AdaptiveTimeout, CountedStream, PeerTimeoutConfig, PeerTimeoutStats, PeerTimeouts, ResponseProgress,
};
pub use runtime::{Runtime, Timer};
