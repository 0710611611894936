//! Reference model of [`QueryTracker`](kadence_core::QueryTracker): a simple tracker that predicts every action of the
//! real one, a harness that compares the two, and what callers may rely on whatever either of them does.
//!
//! ```text
//!   property tests ─┐                                        ┌──► QueryTracker ──┐
//!   fuzz targets   ─┼─► words ──► Input ──► Harness::apply ──┤                   ├──► equal, or a panic
//!   regressions    ─┘                                        └──► Model ─────────┘
//! ```
//!
//! A schedule is a list of 64-bit words. The first word selects the tracker's configuration; each further word is one
//! input. Words are all that has to be generated, shrunk and stored in a corpus.
//!
//! This crate is for Kadence's own tests. It is not published.

mod fixtures;
mod harness;
mod input;
mod kad;
mod promises;
mod reference;
mod targets;

pub use fixtures::{KEYS, Ranked, key, local, peer, peers, validators, value};
pub use harness::Harness;
pub use input::{AnyEvent, ClockStep, EventChoices, Input, RequestInput, StartAnswer, arbitrary_config};
pub use kad::KadQuery;
pub use reference::{Counters, Expected, Model};
pub use targets::{Coverage, Mode, bytes_of, events, orderings, play, replay, words_of};
