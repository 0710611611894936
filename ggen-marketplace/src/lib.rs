#![doc = include_str!("../README.md")]

#[cfg(feature = "p2p")]
pub use kadence_registry::*;
