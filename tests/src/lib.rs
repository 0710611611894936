//! Test networks for Kadence, and the test suite that every runtime has to pass.
//!
//! Networks consist of real swarms with kad and identify, connected through memory or loopback TCP and driven by
//! Kadence. The code is generic over [`TestRuntime`]. A new runtime therefore needs an `impl` of that trait, a
//! [`Runner`], and a short test file that calls [`suite!`].
//!
//! | task | item |
//! |---|---|
//! | run a test with a time limit | [`run`] |
//! | create nodes and networks | [`TestEnv`], [`NodeConfig`] |
//! | a peer that accepts every request and answers none | [`SilentNode`] |
//! | a peer that is slow, sends wrong data or breaks connections, as its [`Script`] says | [`ScriptedNode`] |
//! | an application with its own event loop | [`OwnLoop`] |
//! | a clock that only the test advances | [`ManualClock`] |
//! | count the polls of a spawned driver | [`CountedPolls`] |
//! | code shared by the benchmarks | [`mod@bench`] |
//! | the test suite | [`mod@suite`] |
//!
//! Tests do not sleep to let something happen. They wait for an event, or poll until a condition holds; [`run`] fails a
//! test whose event never comes.

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
    async_std::{AsyncStd, AsyncStdTestRuntime},
    behaviour::{Behaviour, BehaviourEvent},
    clock::{ManualClock, ManualTimer, Wakes},
    network::{TestEnv, TransportKind, bucket, keypair_in_bucket},
    node::{Contact, Node, NodeConfig, NodeEvent, PROTOCOL, live_queries, with_kad},
    own_loop::{BareKad, OwnLoop},
    polls::CountedPolls,
    run::{LIMIT, Runner, TestRuntime, run},
    scripted::{AnswerMode, RequestKind, Script, ScriptedNode},
    silent::{SilentHandler, SilentKad, SilentNode},
    smol::Smol,
    tokio::{TokioCurrentThread, TokioMultiThread, TokioPaused},
    transport::secured,
};

/// Makes tests of scenarios: functions of the calling module that take a function which starts a node. Each runs with that
/// module's `tokio_node` on tokio, and with its `smol_node` on smol.
#[macro_export]
macro_rules! on_tokio_and_smol {
    ($($scenario:ident),* $(,)?) => {
        mod on_tokio {
            $(#[tokio::test]
            async fn $scenario() {
                super::$scenario(super::tokio_node).await;
            })*
        }

        mod on_smol {
            $(#[test]
            fn $scenario() {
                smol::block_on(super::$scenario(super::smol_node));
            })*
        }
    };
}

/// Compiles the code in the README.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

/// Compiles the code in the guide.
#[cfg(doctest)]
#[doc = include_str!("../../docs/moving-from-with-async-std.md")]
struct Moving;
