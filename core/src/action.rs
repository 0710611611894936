//! Inputs and outputs of the tracker besides requests: commands, kad's events, and actions.

use std::sync::Arc;

use libp2p::{
    PeerId,
    kad::{self, Record, RecordKey, store},
};
use thiserror::Error;

use crate::{Item, OperationKind, Outcome, Progress, REPLICATION_FACTOR, Request, RequestError, RequestId};

/// Command to a [`QueryTracker`](crate::QueryTracker), from a caller or from the application.
#[derive(Debug, Clone)]
pub enum Command {
    /// Starts a request.
    Request(Request),
    /// Cancels a request, which ends with [`RequestError::Cancelled`]. Does nothing if no live request has this id.
    Cancel {
        /// Id of the request to cancel.
        id: RequestId,
    },
    /// Refuses all later requests, with [`RequestError::Shutdown`]. Accepted requests end as `drain` says.
    Shutdown {
        /// `true` lets the accepted requests of callers run to their end. `false` ends them now, with
        /// [`RequestError::Shutdown`]. Read repairs, which the tracker has started itself, end now in both cases.
        drain: bool,
    },
    /// Keeps later reads of this key from joining queries that have started, so that they see the change. Send it after
    /// the application has changed the local store directly, for example with `kad::Behaviour::remove_record`.
    Written {
        /// Key whose record or providers were changed.
        key: RecordKey,
    },
}

/// Error of a request that was not accepted, with the reason. The request has no outcome. It leaves nothing in the
/// tracker but counts in [`Stats`](crate::Stats).
#[derive(Debug, Clone, Error)]
#[error("request was not accepted")]
pub struct CommandError(#[from] pub RequestError);

/// Event of kad: the fields of an `OutboundQueryProgressed` that the tracker uses.
#[derive(Debug, Clone)]
pub struct QueryEvent<Id = kad::QueryId> {
    /// kad's id of the query.
    pub id: Id,
    /// The event's `result`.
    pub result: kad::QueryResult,
    /// The event's `stats`.
    pub progress: Progress,
    /// The event's `step.last`. The last event of a query ends it; all others are progress.
    pub last: bool,
}

/// Id of a query in the tracker. It links [`Action::Start`] to its answer,
/// [`handle_started`](crate::QueryTracker::handle_started), which tells the tracker the id that kad has given the
/// query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StepId(pub(crate) u64);

/// Query to start in kad. Each variant names the method of `kad::Behaviour` to call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Query {
    /// `kad::Behaviour::get_record`.
    GetRecord {
        /// The record's key.
        key: RecordKey,
    },
    /// `kad::Behaviour::put_record_to`. Always call it with `kad::Quorum::All`: with a lower quorum kad would end the
    /// query once the quorum is reached, without naming the peers that acknowledged. The tracker compares the number of
    /// acknowledgements with the caller's quorum.
    PutRecordTo {
        /// The record to store.
        record: Arc<Record>,
        /// Peers to store the record at: distinct, and never the local peer.
        peers: Arc<[PeerId]>,
    },
    /// `kad::Behaviour::get_providers`.
    GetProviders {
        /// Key to look up the providers of.
        key: RecordKey,
    },
    /// `kad::Behaviour::start_providing`.
    StartProviding {
        /// Key to announce the local peer for.
        key: RecordKey,
    },
    /// `kad::Behaviour::get_closest_peers`.
    GetClosestPeers {
        /// Bytes whose SHA-256 hash is the target of the lookup.
        target: RecordKey,
    },
    /// `kad::Behaviour::bootstrap`.
    Bootstrap,
}

impl Query {
    /// Returns the operation that kad carries out for this query. A query that stores a record is always
    /// [`OperationKind::PutRecordTo`], never [`OperationKind::PutRecord`].
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

/// Successful answer to [`Action::Start`]: kad has started the query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Started<Id = kad::QueryId> {
    /// Id that kad has given the query.
    pub id: Id,
    /// For [`Query::StartProviding`]: `true` if the local store named the local peer as a provider of the key already
    /// before kad started the query. That entry is kept even if the announcement fails, unless it came from another
    /// announcement that fails as well. `false` for all other queries.
    pub had_provider: bool,
}

/// Error that kad returned instead of starting a query.
#[derive(Debug, Clone, Error)]
pub enum QueryStartError {
    /// The routing table is empty. Of all queries, kad returns this error only for a bootstrap.
    #[error("routing table is empty: add a bootstrap peer")]
    NoKnownPeers,
    /// The local store rejected the provider entry. Of all queries, kad returns this error only for
    /// [`Query::StartProviding`].
    #[error("local store rejected the entry")]
    Store(#[from] store::Error),
    /// The swarm has no external address, and the driver requires one for [`Query::StartProviding`].
    #[error("no external address to announce")]
    NoExternalAddress,
}

/// Number of peers that suffice as the answer to [`Action::LocalPeers`]: 80. A put begins no
/// further round after it has asked 60, so more make a difference only to a put whose quorum is above 80.
pub const LOCAL_PEERS: usize = 4 * REPLICATION_FACTOR;

/// Action that the driver has to carry out. Carry actions out in the order in which
/// [`poll_action`](crate::QueryTracker::poll_action) returns them.
#[derive(Debug, Clone)]
pub enum Action<Id = kad::QueryId> {
    /// Starts a query in kad. Report the result with [`handle_started`](crate::QueryTracker::handle_started).
    Start {
        /// Id to report the result with.
        step: StepId,
        /// One of the requests that wait for the query. For logs only.
        request: RequestId,
        /// The query to start.
        query: Query,
    },
    /// Finishes this query, and keeps it finished: call `finish()` on it now, and again after every poll of the swarm
    /// that returned `Pending`, until the query's last event or [`Action::Forget`]. One call is not always enough,
    /// because it takes an announcement or a bootstrap only to its next phase.
    Finish(Id),
    /// Calls `finish()` on this query once, because the query has [stalled](crate::Stall). An announcement or a
    /// bootstrap goes on to its next phase, if it has one. Any other query ends with what it has so far.
    FinishPhase(Id),
    /// Reads this query's statistics once a poll of the swarm has returned `Pending`, and reports them with
    /// [`handle_probe`](crate::QueryTracker::handle_probe). Statistics that are read earlier may leave out answers that
    /// have arrived already.
    Probe(Id),
    /// Ends the repetition of [`Action::Finish`] for this query. The tracker has freed the query's slot, and no longer
    /// expects the query's last event.
    Forget(Id),
    /// Lists the peers of the routing table that are closest to this target, the closest first. Report them with
    /// [`handle_local_peers`](crate::QueryTracker::handle_local_peers). [`LOCAL_PEERS`] peers suffice.
    LocalPeers {
        /// Id of the request to report the peers for.
        request: RequestId,
        /// Bytes whose SHA-256 hash is the target.
        target: RecordKey,
    },
    /// Stores this record in the local store. Report the result with
    /// [`handle_stored`](crate::QueryTracker::handle_stored).
    StoreLocal {
        /// Id of the request to report the result for.
        request: RequestId,
        /// The record to store.
        record: Arc<Record>,
    },
    /// Calls `kad::Behaviour::stop_providing`. This removes the local entry of an announcement that has not succeeded.
    StopProviding {
        /// The key that is no longer provided.
        key: RecordKey,
    },
    /// Delivers an item of a [streaming](crate::RequestOptions::streaming) request to the request's caller.
    Item {
        /// The request.
        request: RequestId,
        /// The item.
        item: Item,
    },
    /// Delivers the only outcome of a request to its caller. No later action names this request.
    Outcome {
        /// The request.
        request: RequestId,
        /// The outcome.
        outcome: Outcome,
    },
}
