#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(feature = "disk", doc = include_str!("../README.md"))]
#![cfg_attr(not(feature = "disk"), doc = "A record store for libp2p's Kademlia DHT, without the feature `disk`.")]
//!
//! # Effect of an error
//!
//! Under `StoreInserts::Unfiltered`, kad's default, kad puts what a peer sends into the store at once, and resets the
//! peer's stream if the store returns an error. The sender sees that this node has not stored the record, but late:
//! libp2p-kad 0.49 does not wake the stream that it resets, so that the sender's request ends by its timeout of 10
//! seconds. Under `FilterBoth` kad confirms each record to its sender before the application has decided, and an error of
//! the store reaches nobody.
//!
//! # Which record stays
//!
//! There is one record for each key. A record is the node's own if its publisher is the local peer: kad passes no record
//! of a peer to the store that claims this.
//!
//! | stored record | new record | result |
//! |---|---|---|
//! | any | the same value | The later expiry holds. The publisher does not change, unless the new record is the node's own. |
//! | any | another value, in a namespace with a validator | The better one stays, by [`Validator::compare`](kadence_core::Validator::compare), and by the larger bytes if that returns `Equal`. Own records are compared in the same way. |
//! | the node's own | another value from a peer, no validator | The new record is rejected: a peer cannot replace it. |
//! | from a peer | another value, no validator | The new record replaces the old one, as in libp2p: nothing in a plain record says who may write it. |
//!
//! # What can be trusted
//!
//! The store does not know which peer has sent a record, and the publisher is only a claim. A limit for each publisher
//! therefore stops careless peers and not malicious ones. Against those stand the validators, and the rule that **closer
//! records evict farther ones** when the store is full: to flood it, an attacker needs keys that are closer to this node
//! than those of others, and own records are never evicted. Providers are different: kad accepts an announcement only
//! from the provider itself.

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
