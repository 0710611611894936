//! Blobs: bytes that are immutable and have their BLAKE3 hash for a name, in files.
//!
//! Beside each blob lies its hash tree, so that any part of it can be verified, and proven to others, without reading the
//! rest. Everything is verified when it is read: what has gone bad on the disk is set aside, not handed out.

mod error;
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
