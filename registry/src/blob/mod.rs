//! Blobs: immutable bytes in files, named by their BLAKE3 hash.
//!
//! Each blob has its hash tree next to it, so that any part of it can be verified, and proven to other peers, without
//! reading the rest. Reads verify everything: a blob that is damaged on the disk is set aside and never returned.

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
