//! Package registry on a peer-to-peer network.
//!
//! Start with [`registry::P2PRegistry`]. The other modules are its parts, which can also be used without it: [`head`]s,
//! which are signed records that name the newest list of a package's versions, gossiped [`announce`]ments of heads, the
//! protocol with which peers ask for each other's lists of announced packages ([`requests`]), and the [`transfer`] of
//! blobs.

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
