//! The catalogue protocol: a peer can be asked for a page of its catalogue, and for packages that match a text.
//!
//! Answers consist of signed announcements, which the client verifies one by one. A peer can leave some out, but cannot
//! invent any. One stream carries one request and its answer.

mod client;
mod server;
mod wire;

use libp2p::StreamProtocol;

pub use client::{CatalogueClient, CatalogueClientError, Matches};
pub use server::{CatalogueSource, serve_catalogue};
pub use wire::{CatalogueRequest, CatalogueRequestError, MAX_MATCHES, MAX_TEXT_LEN};

/// Name of the catalogue protocol.
pub const CATALOGUE_PROTOCOL: StreamProtocol = StreamProtocol::new("/kadence/catalogue/1");

#[cfg(test)]
mod tests;
