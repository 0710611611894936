//! The registry on a peer-to-peer network.
//!
//! Start with [`registry::P2PRegistry`]. The other modules are its parts, which also work alone: signed [`head`]s of
//! packages, gossiped [`announce`]ments, the catalogue protocol ([`requests`]), and the [`transfer`] of blobs.

pub mod announce;
pub mod head;
pub mod registry;
mod reputation;
pub mod requests;
mod setters;
mod signed;
mod streams;
mod token_bucket;
pub mod transfer;

pub use reputation::{MAX_BAN, MAX_PEERS, PeerReputation, Reputation};
pub use signed::EnvelopeError;
