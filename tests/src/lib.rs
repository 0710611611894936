//! Test networks for Kadence, and the suite that every runtime has to pass.
//!
//! A network here is real: real swarms with kad and identify, connected through memory or loopback TCP, each driven by
//! Kadence. Nothing in it knows the runtime: it is generic over [`TestRuntime`], so a further runtime is an `impl` of
//! that trait, a [`Runner`], and a test file of a few lines that calls [`suite!`].
//!
//! | what | where |
//! |---|---|
//! | run a test so that it fails where it would hang | [`run`] |
//! | make nodes and networks | [`Bed`], [`NodeConfig`] |
//! | a peer that takes every request and answers none | [`SilentNode`] |
//! | a peer that is slow, refuses, lies or hangs up, by a [`Script`] | [`ScriptedNode`] |
//! | an application with a loop of its own | [`OwnLoop`] |
//! | time that stands still until it is told to move | [`ManualClock`] |
//! | how often a spawned driver is polled | [`CountedPolls`] |
//! | what benchmarks have in common | [`mod@bench`] |
//! | the tests | [`mod@suite`] |
//!
//! Nothing sleeps in the hope that something has happened by then: a test waits for the event itself, or looks again
//! and again until it sees what it waits for, and [`run`] ends it if that never comes.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "this is test code, and a test fails by panicking"
)]

mod async_std;
mod behaviour;
pub mod bench;
mod clock;
mod network;
mod node;
mod own_loop;
mod polls;
pub mod real_kad;
mod run;
mod scripted;
mod silent;
mod smol;
pub mod suite;
mod tokio;
mod transport;

pub use self::{
    async_std::{AsyncStd, AsyncStdOfTest},
    behaviour::{Behaviour, BehaviourEvent},
    clock::{ManualClock, ManualTimer, Wakes},
    network::{Bed, Wire, bucket, keypair_in_bucket},
    node::{Contact, Node, NodeConfig, NodeEvent, PROTOCOL, live_queries, with_kad},
    own_loop::{BareKad, OwnLoop},
    polls::CountedPolls,
    run::{LIMIT, Runner, TestRuntime, run},
    scripted::{Asks, Conduct, Script, ScriptedNode},
    silent::{SilentHandler, SilentKad, SilentNode},
    smol::Smol,
    tokio::{TokioCurrentThread, TokioMultiThread},
    transport::secured,
};

/// The code in the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

/// The code in the guide compiles.
#[cfg(doctest)]
#[doc = include_str!("../../docs/moving-from-with-async-std.md")]
struct Moving;
