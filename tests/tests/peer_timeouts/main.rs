//! A kad that gives silent peers up: driven by hand with a clock of the test's, in networks, and in a node.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod manual_swarm;
mod networks;
mod single_node;
