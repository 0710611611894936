//! The registry on a network of peers.

pub mod announce;
pub mod head;
mod signed;
mod unix;

pub use signed::EnvelopeError;
