//! `PeerTimeouts`: with a bare kad and a clock that the test advances, in networks, and in a node.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod manual_swarm;
mod networks;
mod single_node;
