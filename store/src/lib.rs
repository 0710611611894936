#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(feature = "disk", doc = include_str!("../README.md"))]
#![cfg_attr(not(feature = "disk"), doc = "A record store for libp2p's Kademlia DHT, without the feature `disk`.")]
//!
//! # Effect of an error
//!
//! Under `StoreInserts::Unfiltered`, kad's default, kad puts a record that a peer sends into the store at once, and
//! resets the peer's stream if the store returns an error. The sender sees that this node has not stored the record,
//! but late: libp2p-kad 0.49 does not wake the stream that it resets, so that the sender's request ends by its timeout,
//! 10 seconds by default. Under `FilterBoth` kad confirms each record to its sender before the application has decided,
//! and no peer sees an error of the store.
//!
//! # Which record stays
//!
//! There is at most one record for each key. A record is the node's own if its publisher is the local peer: kad does
//! not pass on a peer's record that claims this publisher.
//!
//! | stored record | new record | result |
//! |---|---|---|
//! | any | the same value, the node's own record | The publisher and the expiry become those of the new record. |
//! | the node's own | the same value, not the node's own record | Nothing changes. |
//! | not the node's own | the same value, not the node's own record | The stored record stays, and takes over an expiry that is at least 60 seconds later. |
//! | any | another value, in a namespace with a validator | The better one stays, by [`Validator::compare`](kadence_core::Validator::compare), and by the larger bytes if that returns `Equal`. The node's own records are compared in the same way. |
//! | the node's own | another value, not the node's own record, no validator | The new record is rejected: a peer cannot replace it. |
//! | the node's own | another value, the node's own record, no validator | The new record replaces the old one. |
//! | not the node's own | another value, no validator | The new record replaces the old one, as in libp2p: nothing in a record without a validator says who may write it. |
//!
//! # What can be trusted
//!
//! The store does not know which peer has sent a record, and the publisher is only a claim. A limit for each publisher
//! therefore stops careless peers and not malicious ones. Against malicious ones there are the validators, and the rule
//! that **records with keys closer to this node evict farther ones** when the store is full: to displace records of
//! others, an attacker needs keys that are closer to this node, and own records are never evicted. Providers are
//! different: kad accepts an announcement only from the provider itself.

mod clock;
mod config;
#[cfg(feature = "disk")]
mod disk;
#[cfg(not(feature = "disk"))]
#[path = "no_disk.rs"]
mod disk;
mod error;
mod insert;
mod policy;
mod providers;
mod records;
mod stats;
mod store;
#[cfg(test)]
mod tests;

#[cfg(feature = "disk")]
pub use self::error::StoreOpenError;
pub use self::{
    config::StoreConfig,
    error::DiskError,
    insert::{InsertError, InsertOutcome},
    stats::{InsertErrorCounts, StatsHandle, StoreStats},
    store::Store,
};
