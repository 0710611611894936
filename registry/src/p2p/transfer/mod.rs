//! Blobs from peer to peer, over streams of the protocol [`BLOB_PROTOCOL`].
//!
//! A [`Server`] hands out what is in a [`BlobStore`](crate::blob::BlobStore), within limits. A [`Fetcher`] gets a blob
//! from several providers at once: every 16 KiB are verified against the content id as they arrive, so that a provider
//! that sends anything else is noticed after 16 KiB at most, and what was fetched is kept when a download ends early.
//!
//! # On the wire
//!
//! All numbers are little-endian. On a stream, the one that opened it sends any number of requests of 44 bytes, without
//! waiting for responses if it likes: 32 bytes of hash, the first group (`u64`) and how many (`u32`, 1 to 64), where a
//! group is 16 KiB. The responses come in the same order, each with a head of 9 bytes, a status and a number (`u64`):
//!
//! | status | | number |
//! |---|---|---|
//! | 0 | have | the blob's size in bytes; the groups follow, as a bao slice in groups of 16 KiB |
//! | 1 | not found | 0 |
//! | 2 | busy | when to ask again, in milliseconds |
//! | 3 | refused: the request is against the rules | 0 |
//!
//! Groups behind the end of a blob stand for its last one. It proves the size: with another one, its hashes do not fit.

mod config;
mod download;
mod error;
mod events;
mod fetcher;
mod limits;
mod pieces;
mod proof;
mod request;
mod server;
mod wire;
mod worker;

#[cfg(test)]
mod tests;

pub use config::{FetchConfig, ServerConfig};
pub use error::FetchError;
pub use events::{FetchEvent, ProviderOutcome, ProviderReport};
pub use fetcher::Fetcher;
pub use request::{BlobProvider, FetchRequest};
pub use server::{ProtocolTakenError, Server, ServerStats, StatsHandle};
pub use wire::{BLOB_PROTOCOL, MAX_BLOB_LEN};
