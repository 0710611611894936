//! A second, naive tracker that predicts what [`QueryTracker`](kadence_core::QueryTracker) does, and the harness that
//! compares the two.
//!
//! ```text
//!   property tests ─┐                                        ┌──► QueryTracker ──┐
//!   fuzz targets   ─┼─► words ──► Input ──► Harness::apply ──┤                   ├──► equal, or a panic
//!   regressions    ─┘                                        └──► Model ─────────┘
//! ```
//!
//! A schedule is a list of 64-bit words, the first of which configures the tracker; each further one is an input. That
//! is all there is to generate, to shrink and to keep in a corpus.
//!
//! Nothing here is for applications.

mod bodies;
mod harness;
mod input;
mod kad;
mod reference;
mod world;

pub use bodies::{Mode, Reached, bytes_of, events, orderings, play, replay, words_of};
pub use harness::Harness;
pub use input::{Answer, Ask, Event, Input, Say, Wait, a_config};
pub use kad::Kad;
pub use reference::{Expected, Model, View};
pub use world::{KEYS, Ranked, key, local, peer, peers, validators, value};
