//! Blobs: immutable bytes in files, named by their BLAKE3 hash.
//!
//! The hash tree of each blob of more than 16 KiB is stored next to it, so that any part of the blob can be verified,
//! and proven to other peers, without reading the rest. Reads verify all bytes that they return. A blob that turns out
//! to be damaged on the disk is moved out of the store, or deleted if 16 damaged blobs are already kept or the blob
//! cannot be moved.

#[cfg(feature = "p2p")]
mod downloads;
mod error;
mod files;
#[cfg(feature = "p2p")]
mod partial;
mod reader;
mod store;
mod tree;

#[cfg(test)]
mod tests;

pub use error::BlobError;
#[cfg(feature = "p2p")]
pub(crate) use partial::{Pair, Partial};
pub use reader::BlobReader;
pub use store::BlobStore;
#[cfg(feature = "p2p")]
pub(crate) use tree::{GROUP_BYTES, GROUPS, group_range, groups_in};
