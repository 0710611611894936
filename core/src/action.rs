//! What goes in and out of the tracker besides requests: kad's events, and what the tracker wants done.

use std::sync::Arc;

use libp2p::{
    PeerId,
    kad::{self, Record, RecordKey, store},
};
use thiserror::Error;

use crate::{Item, OperationKind, Outcome, Progress, Request, RequestError, RequestId};

/// What the caller's side tells the tracker.
#[derive(Debug, Clone)]
pub enum Command {
    /// A new request.
    Request(Request),
    /// The caller of a request is gone. Unknown and ended requests are passed over.
    Cancel {
        /// The request.
        id: RequestId,
    },
    /// Accept nothing any more.
    Shutdown {
        /// Whether requests that were accepted still get their answers. Otherwise they end now, with
        /// [`RequestError::Shutdown`].
        drain: bool,
    },
    /// The local store's entries under this key have changed without a request: what was [kept](crate::Cache) under it
    /// is dropped.
    Forget {
        /// The key.
        key: RecordKey,
    },
}

/// A request that was not accepted: it has no outcome of its own, and nothing was changed.
#[derive(Debug, Clone, Error)]
#[error("the request was refused")]
pub struct CommandError(#[from] pub RequestError);

/// An `OutboundQueryProgressed` of kad, as far as the tracker looks at it.
#[derive(Debug, Clone)]
pub struct QueryEvent<Id = kad::QueryId> {
    /// The query.
    pub id: Id,
    /// What kad says.
    pub result: kad::QueryResult,
    /// The event's `stats`.
    pub progress: Progress,
    /// The event's `step.last`: the only thing that makes an event terminal.
    pub last: bool,
}

/// Names one start of a query, before kad has given it an id.
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
    /// `kad::Behaviour::put_record_to`, always with `Quorum::All`: only then does the end of the query name every
    /// peer that acknowledged. The tracker counts them against the caller's quorum.
    PutRecordTo {
        /// The record.
        record: Arc<Record>,
        /// Where it goes: distinct peers, never the local one.
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
    /// Which of kad's operations this is.
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

/// kad has started a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Started<Id = kad::QueryId> {
    /// kad's id for it.
    pub id: Id,
    /// For [`Query::StartProviding`]: whether the local store already named us a provider of the key, so that an
    /// announcement that fails takes away only what it added. `false` for all others.
    pub had_provider: bool,
}

/// Why kad did not start a query.
#[derive(Debug, Clone, Error)]
pub enum QueryStartError {
    /// A bootstrap with an empty routing table.
    #[error("no peer is known")]
    NoKnownPeers,
    /// The local store refused the entry.
    #[error("the local store refused the entry")]
    Store(#[from] store::Error),
}

/// How many peers the answer to [`Action::LocalPeers`] needs to name: those that a put has asked by then, and as many as it
/// asks in another round.
pub const LOCAL_PEERS: usize = 80;

/// What the tracker wants done, in this order.
#[derive(Debug, Clone)]
pub enum Action<Id = kad::QueryId> {
    /// Start a query and answer with [`handle_started`](crate::QueryTracker::handle_started).
    Start {
        /// The name to answer with.
        step: StepId,
        /// On whose behalf, for logs.
        request: RequestId,
        /// What to start.
        query: Query,
    },
    /// Finish this query: a standing order. kad moves a put, a provide or a bootstrap only to its next phase, without
    /// any event, so `finish()` is repeated after every poll of the swarm that returned `Pending`, until the query's
    /// last event or [`Action::Forget`].
    Finish(Id),
    /// Finish this query once: it has stalled. What it has found by then is its result; a put, a provide or a bootstrap
    /// goes on to its next phase.
    FinishPhase(Id),
    /// Read this query's statistics, once the swarm has nothing more to say, and answer with
    /// [`handle_probe`](crate::QueryTracker::handle_probe). Before that, answers that have arrived are not counted yet.
    Probe(Id),
    /// Stop repeating [`Action::Finish`] for this query: its last event is not expected any more.
    Forget(Id),
    /// Name the peers of the own routing table that are closest to this target, the closest first, and answer with
    /// [`handle_local_peers`](crate::QueryTracker::handle_local_peers). [`LOCAL_PEERS`] of them are enough.
    LocalPeers {
        /// The request to answer for.
        request: RequestId,
        /// The bytes whose hash is the target.
        target: RecordKey,
    },
    /// Put this record into the local store and answer with [`handle_stored`](crate::QueryTracker::handle_stored).
    StoreLocal {
        /// The request to answer for.
        request: RequestId,
        /// The record.
        record: Arc<Record>,
    },
    /// `kad::Behaviour::stop_providing`: take back the local entry of an announcement that failed.
    StopProviding {
        /// The key that is no longer provided.
        key: RecordKey,
    },
    /// Deliver an item to the request's caller.
    Item {
        /// The request.
        request: RequestId,
        /// What was found.
        item: Item,
    },
    /// Deliver a request's one outcome to its caller. Nothing follows it.
    Outcome {
        /// The request.
        request: RequestId,
        /// How it ended.
        outcome: Outcome,
    },
}
