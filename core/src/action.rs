//! Inputs and outputs of the tracker besides requests: commands, kad's events, and actions.

use std::sync::Arc;

use libp2p::{
    PeerId,
    kad::{self, Record, RecordKey, store},
};
use thiserror::Error;

use crate::{Item, OperationKind, Outcome, Progress, REPLICATION_FACTOR, Request, RequestError, RequestId};

/// Command of the caller's side.
#[derive(Debug, Clone)]
pub enum Command {
    /// Starts a request.
    Request(Request),
    /// Cancels a request. Does nothing if it is unknown or has ended.
    Cancel {
        /// The request.
        id: RequestId,
    },
    /// Accepts no more requests.
    Shutdown {
        /// Lets accepted requests run to their end. `false` ends them now, with [`RequestError::Shutdown`].
        drain: bool,
    },
    /// Drops the cached answers for this key. Used when the application has changed the local store directly, for
    /// example with `remove_record`.
    Forget {
        /// The key.
        key: RecordKey,
    },
}

/// Error of a request that was not accepted. It has no outcome, and the tracker has not changed.
#[derive(Debug, Clone, Error)]
#[error("request was not accepted")]
pub struct CommandError(#[from] pub RequestError);

/// Event of kad: the fields of an `OutboundQueryProgressed` that the tracker uses.
#[derive(Debug, Clone)]
pub struct QueryEvent<Id = kad::QueryId> {
    /// The query.
    pub id: Id,
    /// The event's `result`.
    pub result: kad::QueryResult,
    /// The event's `stats`.
    pub progress: Progress,
    /// The event's `step.last`. The last event of a query ends it; all others are progress.
    pub last: bool,
}

/// Id of a query's start, before kad has given the query an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StepId(pub(crate) u64);

/// A query for kad to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Query {
    /// `kad::Behaviour::get_record`.
    GetRecord {
        /// The record's key.
        key: RecordKey,
    },
    /// `kad::Behaviour::put_record_to`, always with `kad::Quorum::All`: only then does the end of the query name every
    /// peer that acknowledged. The tracker counts them against the caller's quorum.
    PutRecordTo {
        /// The record.
        record: Arc<Record>,
        /// Peers to store it at: distinct, and without the local one.
        peers: Arc<[PeerId]>,
    },
    /// `kad::Behaviour::get_providers`.
    GetProviders {
        /// The key that is provided.
        key: RecordKey,
    },
    /// `kad::Behaviour::start_providing`.
    StartProviding {
        /// The key that is provided.
        key: RecordKey,
    },
    /// `kad::Behaviour::get_closest_peers`.
    GetClosestPeers {
        /// The bytes whose hash is the target.
        target: RecordKey,
    },
    /// `kad::Behaviour::bootstrap`.
    Bootstrap,
}

impl Query {
    /// Returns the operation of kad.
    pub fn kind(&self) -> OperationKind {
        match self {
            Self::GetRecord { key: _ } => OperationKind::GetRecord,
            Self::PutRecordTo { record: _, peers: _ } => OperationKind::PutRecordTo,
            Self::GetProviders { key: _ } => OperationKind::GetProviders,
            Self::StartProviding { key: _ } => OperationKind::StartProviding,
            Self::GetClosestPeers { target: _ } => OperationKind::GetClosestPeers,
            Self::Bootstrap => OperationKind::Bootstrap,
        }
    }
}

/// Start of a query in kad.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Started<Id = kad::QueryId> {
    /// kad's id for it.
    pub id: Id,
    /// For [`Query::StartProviding`], whether the local store already named the local peer as a provider of the key. An
    /// announcement that fails then keeps that entry. `false` for all other queries.
    pub had_provider: bool,
}

/// Error that kad returned instead of starting a query.
#[derive(Debug, Clone, Error)]
pub enum QueryStartError {
    /// The routing table is empty. kad reports it for a bootstrap.
    #[error("routing table is empty: add a bootstrap peer")]
    NoKnownPeers,
    /// The local store rejected the provider entry.
    #[error("local store rejected the entry")]
    Store(#[from] store::Error),
}

/// Number of peers that are enough as the answer to [`Action::LocalPeers`]: the maximum number that a put has asked by
/// then, and that it asks in a further round.
pub const LOCAL_PEERS: usize = 4 * REPLICATION_FACTOR;

/// Action to carry out, in the order in which [`poll_action`](crate::QueryTracker::poll_action) returns them.
#[derive(Debug, Clone)]
pub enum Action<Id = kad::QueryId> {
    /// Starts a query. Report the result with [`handle_started`](crate::QueryTracker::handle_started).
    Start {
        /// Id to answer with.
        step: StepId,
        /// A request that waits for the query, for logs.
        request: RequestId,
        /// The query to start.
        query: Query,
    },
    /// Finishes this query, repeatedly: call `finish()` after every poll of the swarm that returned `Pending`, until
    /// the query's last event or [`Action::Forget`]. For a put, an announcement or a bootstrap kad only moves to the
    /// next phase, without any event.
    Finish(Id),
    /// Finishes this query once, because it has stalled. A lookup ends with what it has found; a put, an announcement
    /// or a bootstrap goes on to its next phase.
    FinishPhase(Id),
    /// Reads this query's statistics once a poll of the swarm returned `Pending`. Answer with
    /// [`handle_probe`](crate::QueryTracker::handle_probe). Before that, answers that have arrived may not be counted
    /// yet.
    Probe(Id),
    /// Ends the repetition of [`Action::Finish`] for this query: its last event is not expected any more.
    Forget(Id),
    /// Lists the peers of the routing table that are closest to this target, the closest first. Answer with
    /// [`handle_local_peers`](crate::QueryTracker::handle_local_peers); [`LOCAL_PEERS`] of them are enough.
    LocalPeers {
        /// The request to answer for.
        request: RequestId,
        /// The bytes whose hash is the target.
        target: RecordKey,
    },
    /// Stores this record locally. Answer with [`handle_stored`](crate::QueryTracker::handle_stored).
    StoreLocal {
        /// The request to answer for.
        request: RequestId,
        /// The record.
        record: Arc<Record>,
    },
    /// Calls `kad::Behaviour::stop_providing`, which removes the local entry of an announcement that failed.
    StopProviding {
        /// The key that is no longer provided.
        key: RecordKey,
    },
    /// Delivers an item to the request's caller.
    Item {
        /// The request.
        request: RequestId,
        /// The item.
        item: Item,
    },
    /// Delivers a request's only outcome to its caller. No action of this request follows it.
    Outcome {
        /// The request.
        request: RequestId,
        /// The outcome.
        outcome: Outcome,
    },
}
