//! An async client for the libp2p Kademlia DHT, on any runtime.
//!
//! `kad::Behaviour` returns a `QueryId`, and the results come later, as events. With Kadence a query is a future:
//!
//! ```no_run
//! # use std::time::Duration;
//! # use kadence::{Client, libp2p::kad::{Record, RecordKey}};
//! # async fn example(client: Client) -> Result<(), Box<dyn std::error::Error>> {
//! let key = RecordKey::new(b"greeting");
//! client.put_record(Record::new(key.clone(), b"hello".to_vec())).await?;
//! let answer = client.get_record(key).timeout(Duration::from_secs(5)).await?;
//! assert_eq!(answer.value(), b"hello");
//! # Ok(())
//! # }
//! ```
//!
//! Every call ends exactly once, at its deadline at the latest, with an answer or a typed error that carries what was
//! found. Dropping it cancels its query. Nothing waits for a slow reader, and no queue is without a bound.
//!
//! # Where to begin
//!
//! - A node that only needs a DHT: `kadence_tokio::node` (see [`node`]).
//! - A swarm of your own: implement [`ContainsKad`] for its behaviour (a bare `kad::Behaviour` has it), and give the
//!   swarm to [`spawn`], or to a runtime crate's `spawn`.
//! - A loop of your own: [`Driver`] is a stream of swarm events that takes the place of the swarm in it.
//! - No driver at all: [`tracker`] is the state machine, for any loop.

mod alarm;
mod client;
mod contains_kad;
mod driver;
#[cfg(feature = "node")]
pub mod node;
mod response;
mod runtime;

/// The operations, as types: the parameter of a [`Call`].
pub mod kind {
    pub use crate::client::call::{
        Bootstrap, GetClosestPeers, GetProviders, GetRecord, Kind, NoItem, PutRecord, PutRecordTo, StartProviding,
    };
}

pub use alarm::{Alarm, Clock, Elapsed, deadline_after};
pub use client::{
    Client, DriverClosedError, Key, RemoveRecordError,
    call::{Call, CallFuture, CallStream, Update},
    find_peer::{FindPeerError, FoundPeer},
};
pub use contains_kad::ContainsKad;
pub use driver::{
    Driver, SwarmHandle,
    config::{DriverConfig, Recording},
    task::{Events, Lagged, Task, TaskEnd, spawn},
};
pub use kadence_core as tracker;
pub use kadence_core::{
    BootstrapAnswer, BootstrapError, BootstrapPhase, Cache, Candidate, Certainty, ClosestPeersAnswer,
    GetClosestPeersError, GetProvidersError, GetRecordError, InvalidRequestError, LocalCopy, LogValues, Metrics,
    OperationKind, OutcomeKind, Overload, Priority, Progress, ProvideAnswer, ProvidersAnswer, PutAnswer, PutOptions,
    PutRecordError, Quorum, REPLICATION_FACTOR, RecordAnswer, RequestError, Retry, Snapshot, Stall,
    StartProvidingError, Stats, TrackerConfig, ValidationError, Validator, Validators,
};
#[cfg(feature = "node")]
pub use kadence_store as store;
pub use libp2p;
pub use libp2p_kad_timeouts::{AdaptiveTimeout, PeerTimeoutConfig, PeerTimeoutStats, PeerTimeouts};
pub use runtime::{Runtime, Timer};
