//! ggen's package marketplace on the Kadence registry.
//!
//! With the feature `p2p` this crate re-exports [`kadence_registry`], whose `P2PRegistry` publishes, finds and fetches packages
//! over a libp2p DHT and gossipsub.

#[cfg(feature = "p2p")]
pub use kadence_registry::*;
