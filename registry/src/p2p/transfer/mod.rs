//! Transfer of blobs between peers, over streams of the protocol [`BLOB_PROTOCOL`].
//!
//! A [`Server`] serves the blobs of a [`BlobStore`](crate::blob::BlobStore) within limits. A [`Fetcher`] fetches a blob
//! from several providers at once, in pieces that consist of groups of 16 KiB. Each group is verified against the
//! content id on arrival, so a provider that sends wrong data is noticed after one group. Complete pieces stay on the
//! disk if a download ends early; of the unfinished downloads of a store, the latest 32 are kept.
//!
//! # Wire format
//!
//! All numbers are little-endian. The peer that opens a stream sends any number of requests and need not wait for the
//! responses in between. A request has 44 bytes: the hash of the blob (32), the number of the first group (`u64`,
//! counted from 0) and the number of groups (`u32`, 1 to 64). A group has 16 KiB, and the last one of a blob may be
//! shorter. Responses come in the order of the requests, each with a head of 9 bytes, which is a status and a number
//! (`u64`):
//!
//! | status | meaning | number |
//! |---|---|---|
//! | 0 | have | size of the blob in bytes; the groups follow, as a bao slice in groups of 16 KiB without its length |
//! | 1 | not found | 0 |
//! | 2 | busy | time after which to ask again, in milliseconds |
//! | 3 | invalid request; the server then closes the stream | 0 |
//!
//! A request whose first group is after the end of a blob is answered with the last group, which proves the size: its
//! hashes fit no other size. Any other request for groups after the end is answered without them.

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
