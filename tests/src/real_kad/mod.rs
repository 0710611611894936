//! The tracker on top of the real kad, without a network.
//!
//! [`RealKad`] polls `kad::Behaviour` as a swarm would, and carries out the tracker's actions as the driver does. Peers
//! are simulated; each is of a [`PeerKind`]. The tracker's clock is virtual. kad reads the system clock, so what it
//! does after a time (giving up a silent peer after 10 s, ending a query at its timeout) is not covered, unless the
//! timeout is zero.
//!
//! | task | item |
//! |---|---|
//! | a node, its calls and its event loop | [`RealKad`], [`Setup`] |
//! | driver faults to inject | [`Fault`] |
//! | behaviour of peers | [`PeerKind`] |
//! | random runs | [`run_seed`], [`RunConfig`] |
//!
//! Runs with bootstraps cannot be repeated exactly, because kad uses its own random numbers for the targets of bucket
//! lookups. A seed that failed may have to be tried several times. The last lines of the trace of a failed run are
//! printed.

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
