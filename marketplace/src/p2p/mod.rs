//! The registry on a network of peers.
