//! The registry on a network of peers.

pub mod announce;
mod deadline;
pub mod head;
pub mod registry;
mod reputation;
pub mod requests;
mod signed;
mod streams;
mod token_bucket;
pub mod transfer;

pub use reputation::{MAX_BAN, MAX_PEERS, PeerReputation, Reputation};
pub use signed::EnvelopeError;
