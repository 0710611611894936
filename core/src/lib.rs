#![doc = include_str!("../README.md")]

mod action;
mod answers;
mod config;
mod errors;
mod log;
mod metrics;
mod network;
mod outcome;
mod progress;
mod quorum;
mod request;
mod setters;
mod snapshot;
mod tracker;
mod validate;

pub use action::{Action, Command, CommandError, LOCAL_PEERS, Query, QueryEvent, QueryStartError, Started, StepId};
pub use answers::{
    BootstrapAnswer, Candidate, ClosestPeersAnswer, ProvideAnswer, ProvidersAnswer, PutAnswer, RecordAnswer,
};
pub use config::{MAX_RUNNING_CEILING, Stall, TrackerConfig};
pub use errors::{
    BootstrapError, GetClosestPeersError, GetProvidersError, GetRecordError, InvalidRequestError, PutRecordError,
    RequestError, StartProvidingError,
};
pub use log::{LogValues, RecordingError, ReplayError, replay};
pub use metrics::{Histogram, Metrics, OutcomeKind};
pub use network::{Network, Reachability};
pub use outcome::{BootstrapPhase, Item, Outcome};
pub use progress::{Certainty, Progress};
pub use quorum::{Quorum, REPLICATION_FACTOR};
pub use request::{
    LocalCopy, Operation, OperationKind, Policy, Priority, PutOptions, Request, RequestId, RequestOptions, Retry,
};
pub use snapshot::{QueryPhase, QueryView, RequestPhase, RequestView, Snapshot, Stats};
pub use tracker::QueryTracker;
pub use validate::{ValidationError, Validator, Validators};
