//! Catalogue protocol: a peer can be asked for a page of its catalogue, which is its list of announced packages, and
//! for packages that match a text.
//!
//! Answers consist of signed announcements, so that a peer can leave some out, but cannot forge those of other
//! publishers. [`CatalogueClient::matches`] verifies them; those of a page have to be
//! [verified](super::announce::CataloguePage::verify) by the caller. One stream carries one request and its answer.

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
