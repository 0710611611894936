//! A kad that gives silent peers up: driven by hand with a clock of the test's, in networks, and in a node.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod by_hand;
mod hand;
mod networks;
