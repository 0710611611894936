//! What a peer can be asked for directly: a page of its catalogue, and what it knows that matches a text.
//!
//! An answer has nothing but signed announcements in it, which the asker verifies one by one: a peer can leave something out,
//! but cannot make anything up. One stream carries one question and its answer.

mod client;
mod server;
mod wire;

use libp2p::StreamProtocol;

pub use client::{CatalogueClient, CatalogueClientError, Matches};
pub use server::{CatalogueSource, serve_catalogue};
pub use wire::{CatalogueRequest, CatalogueRequestError, MAX_MATCHES, MAX_TEXT_LEN};

/// The protocol's name.
pub const CATALOGUE_PROTOCOL: StreamProtocol = StreamProtocol::new("/kadence/catalogue/1");

#[cfg(test)]
mod tests;
