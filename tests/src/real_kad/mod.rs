//! The real kad under the real tracker, without a network.
//!
//! [`RealKad`] drives `kad::Behaviour` by hand, as a swarm would, and carries out the tracker's actions, as the driver
//! does. The peers are a script: each has a [`PeerKind`]. The tracker's clock is virtual; kad reads its own, so what it
//! does by the clock (a silent peer is given up after 10 s, a query after its timeout) is no part of it, unless the
//! timeout is zero.
//!
//! | what | where |
//! |---|---|
//! | a node, its calls and its loop | [`RealKad`], [`Setup`] |
//! | what a driver could do wrong | [`Fault`] |
//! | how peers behave | [`PeerKind`] |
//! | what chance makes of it all | [`run_seed`], [`RunConfig`] |
//!
//! One thing cannot be repeated: kad draws the targets of a bootstrap's bucket lookups from a chance of its own, so a
//! run with bootstraps is not the same twice, and a seed that failed may have to be tried more than once. The last
//! lines of a run that fails are printed.

mod checks;
mod event_loop;
mod expected;
mod harness;
mod kad_events;
mod network;
mod peers;
mod rng;
mod schedule;
mod setup;
mod trace;
mod wire;

pub use self::{
    harness::RealKad,
    kad_events::Phases,
    network::Counts,
    peers::PeerKind,
    rng::Rng,
    schedule::{Report, RunConfig, run_seed},
    setup::{Fault, Setup},
};
