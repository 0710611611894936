//! A record store for libp2p's Kademlia DHT: it validates what peers put, has bounds that one peer cannot fill, and can
//! keep everything in a file.
//!
//! [`Store`] goes into a `kad::Behaviour` in the place of libp2p's `MemoryStore`:
//!
//! ```
//! use kadence_store::{Store, StoreConfig};
//! use libp2p::{PeerId, kad};
//!
//! let local_peer = PeerId::random();
//! let store = Store::memory(local_peer, StoreConfig::default());
//! let stats = store.stats_handle();
//! let kad = kad::Behaviour::new(local_peer, store);
//! // The swarm owns the store now; its counters can still be read.
//! assert_eq!(stats.read().records, 0);
//! # drop(kad);
//! ```
//!
//! # What a refusal does
//!
//! Under `StoreInserts::Unfiltered`, kad's default, kad puts what a peer sends into the store at once, and resets the
//! peer's stream if that is an error: the sender sees that this node has not stored the record. Under `FilterBoth` the
//! sender is told of a success whatever happens afterwards, so there a refusal is known to nobody.
//!
//! The sender hears of it late: libp2p-kad 0.49 does not wake the stream that it resets, so that the sender's request ends
//! by its timeout of 10 seconds.
//!
//! # Which record stays
//!
//! There is one record for each key.
//!
//! | stored | new | what happens |
//! |---|---|---|
//! | any | the same bytes | the later expiry holds; who published it does not change, unless the new one is ours |
//! | any | in a namespace with a validator | the better one stays, by [`Validator::compare`](kadence_core::Validator::compare), and by the larger bytes if that says equal: also against a record of our own, and also if the new one is ours |
//! | ours | plain, from a peer | refused: a peer cannot take our place |
//! | from a peer | plain | the last one stays, as in libp2p: nothing about a plain record says who may write it |
//!
//! A record is ours if its publisher is the local peer: kad passes no record of a peer to the store that claims this.
//!
//! # What can be trusted
//!
//! The store is not told which peer sent a record, and the publisher is only a claim. So a limit for each publisher stops
//! the careless and not the malicious; against these stand the validators, and that **closer records push out farther
//! ones** when the store is full: flooding it takes keys that are closer to this node than those of others, and never
//! touches our own. Providers are different: kad accepts an announcement only from the provider itself.

mod clock;
mod config;
#[cfg(feature = "disk")]
mod disk;
#[cfg(not(feature = "disk"))]
#[path = "no_disk.rs"]
mod disk;
mod error;
mod providers;
mod records;
mod rules;
mod stats;
mod store;
#[cfg(test)]
mod tests;

#[cfg(feature = "disk")]
pub use self::error::StoreOpenError;
pub use self::{
    config::StoreConfig,
    error::{DiskError, Refusal},
    stats::{Refused, StatsHandle, StoreStats},
    store::{Store, Stored},
};
