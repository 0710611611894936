use std::time::Duration;

use libp2p::kad;

use crate::{OperationKind, Progress, RequestId, setters::setters};

/// The live requests and the running queries of a tracker at one point in time.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot<Id = kad::QueryId> {
    /// Requests that were accepted and have not ended, and read repairs, in ascending order of their ids.
    pub requests: Vec<RequestView>,
    /// Queries that hold a slot, in the order in which the tracker created them. Queries that wait for a slot are not
    /// included.
    pub queries: Vec<QueryView<Id>>,
}

impl<Id> Snapshot<Id> {
    /// Creates a snapshot of the given requests and queries.
    pub fn new(requests: Vec<RequestView>, queries: Vec<QueryView<Id>>) -> Self {
        Self { requests, queries }
    }

    /// Returns `true` if there is no request and no query.
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty() && self.queries.is_empty()
    }
}

/// A live request in a [`Snapshot`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RequestView {
    /// Id of the request.
    pub id: RequestId,
    /// Operation of the request.
    pub operation: OperationKind,
    /// Key or target of the operation. Empty for a bootstrap.
    pub key: Vec<u8>,
    /// Phase of the request.
    pub phase: RequestPhase,
    /// Time since the request was accepted.
    pub age: Duration,
    /// Time until the deadline of the request. Zero if the deadline has passed.
    pub remaining: Duration,
}

impl RequestView {
    /// Creates the view of a request that is [`Queued`](RequestPhase::Queued), with an `age` and a `remaining` time of
    /// zero.
    pub fn new(id: RequestId, operation: OperationKind, key: Vec<u8>) -> Self {
        Self { id, operation, key, phase: RequestPhase::Queued, age: Duration::ZERO, remaining: Duration::ZERO }
    }
}

setters!(RequestView { phase: RequestPhase, age: Duration, remaining: Duration });

/// Phase of a live request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum RequestPhase {
    /// The first query of the request waits for a slot.
    Queued,
    /// A query for the request is starting or running.
    Running,
    /// A later query of the request, which may be that of another attempt, waits for a slot, or a put waits for the
    /// peers of the routing table. A read repair that waits for a slot is also in this phase.
    BetweenSteps,
    /// The last attempt has failed, and the delay before the next one has not passed.
    BackingOff,
    /// The request waits for the local store to store its record.
    Storing,
}

/// A query that holds one of the [`TrackerConfig::max_running`](crate::TrackerConfig::max_running) slots, in a
/// [`Snapshot`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueryView<Id = kad::QueryId> {
    /// Id of the query in kad. `None` until kad has reported that the query has started.
    pub id: Option<Id>,
    /// Operation that kad carries out. A put has lookups ([`OperationKind::GetClosestPeers`], or
    /// [`OperationKind::GetRecord`] to read the record back) and stores ([`OperationKind::PutRecordTo`]).
    pub operation: OperationKind,
    /// Phase of the query.
    pub phase: QueryPhase,
    /// One of the requests that wait for the query. `None` if no request waits for it any more.
    pub request: Option<RequestId>,
    /// Number of requests that wait for the query.
    pub waiters: usize,
    /// Time since the tracker asked kad to start the query.
    pub age: Duration,
    /// Requests, answers and failures of the query, as last reported by kad. kad counts anew in each lookup of a bootstrap,
    /// and when an announcement begins to send to the closest peers: the counts of the phases before are not included.
    pub progress: Progress,
}

impl<Id> QueryView<Id> {
    /// Creates the view of a query that is [`Starting`](QueryPhase::Starting), without id, requests and progress.
    pub fn new(operation: OperationKind) -> Self {
        Self {
            id: None,
            operation,
            phase: QueryPhase::Starting,
            request: None,
            waiters: 0,
            age: Duration::ZERO,
            progress: Progress::default(),
        }
    }
}

/// Phase of a query that holds a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum QueryPhase {
    /// The tracker has asked kad to start the query, and waits for its id.
    Starting,
    /// The query runs in kad for at least one request.
    Running,
    /// No request waits for the query any more, and kad has not ended it yet.
    Finishing,
}

/// Counters of a tracker since it was created, except `kad_own_queries`, which is the latest number.
///
/// In a healthy network only `accepted` and `refused` grow, and with silent peers, or outdated or missing
/// records, also `queries_finished_early` and `read_repairs`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Requests that were accepted, without read repairs.
    pub accepted: u64,
    /// Requests that were not accepted, because they were invalid, or the tracker was overloaded or shutting down.
    pub refused: u64,
    /// Unexpected inputs: for example, an event of a query that is not alive, or an answer that no request waits for.
    pub unknown_inputs: u64,
    /// Events whose result does not belong to the kind of their query.
    pub mismatched_events: u64,
    /// Records received under another key than the one asked for. They are never part of an answer.
    pub foreign_records: u64,
    /// Records received that the validator of their namespace rejected. They are never part of an answer.
    pub rejected_records: u64,
    /// Queries in kad that the tracker had not started, or had given up, at the last
    /// [`handle_query_count`](crate::QueryTracker::handle_query_count): those of kad itself (automatic bootstraps,
    /// republishing, replication) and those of the application.
    pub kad_own_queries: u64,
    /// Queries that lost their slot because kad had not reported their end within
    /// [`TrackerConfig::finish_timeout`](crate::TrackerConfig::finish_timeout).
    pub lost_queries: u64,
    /// Read repairs started. A read repair sends the best record that a get has found to peers that held a worse one or
    /// none.
    pub read_repairs: u64,
    /// Queries, or phases of an announcement or a bootstrap, that were finished early because they had
    /// [stalled](crate::Stall).
    pub queries_finished_early: u64,
}
