//! The network's side of the registry.

pub mod transfer;
