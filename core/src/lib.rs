//! The sans-IO core of Kadence: the state machine that turns requests into Kademlia
//! queries and kad's events into exactly one outcome for each request.
//!
//! ```text
//!   application ── Command ──►┌──────────────┐── Action ──► start, finish, store, deliver
//!                             │ QueryTracker │
//!   kad ───────── QueryEvent ►└──────────────┘── poll_timeout ──► when to call again
//!                    clock ─────────▲
//! ```
//!
//! It reads no clock, opens no socket, spawns nothing and locks nothing: the same inputs give the same actions. The
//! `kadence` crate drives it on a real libp2p swarm; a program with a loop of its own can do the same with the few
//! calls of [`QueryTracker`].

mod action;
mod config;
mod log;
mod metrics;
mod outcome;
mod request;
mod snapshot;
mod tracker;
mod validate;

pub use action::{Action, Command, CommandError, LOCAL_PEERS, Query, QueryEvent, QueryStartError, Started, StepId};
pub use config::{Cache, InvalidRequestError, MAX_RUNNING_CEILING, Overload, Stall, TrackerConfig};
pub use log::{LogValues, RecordingError, ReplayError, replay};
pub use metrics::{Histogram, Metrics, OutcomeKind};
pub use outcome::{
    BootstrapAnswer, BootstrapError, BootstrapPhase, Candidate, Certainty, ClosestPeersAnswer, GetClosestPeersError,
    GetProvidersError, GetRecordError, Item, Outcome, Progress, ProvideAnswer, ProvidersAnswer, PutAnswer,
    PutRecordError, RecordAnswer, RequestError, StartProvidingError,
};
pub use request::{
    Agree, LocalCopy, Operation, OperationKind, Policy, Priority, PutOptions, Request, RequestId, RequestOptions, Retry,
};
pub use snapshot::{QueryPhase, QueryView, RequestPhase, RequestView, Snapshot, Stats};
pub use tracker::QueryTracker;
pub use validate::{ValidationError, Validator, Validators};
