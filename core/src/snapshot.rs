use std::time::Duration;

use libp2p::kad;

use crate::{OperationKind, Progress, RequestId, setters::setters};

/// The live requests of a tracker, and the queries that hold a slot, at one point in time.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot<Id = kad::QueryId> {
    /// Live requests, by id.
    pub requests: Vec<RequestView>,
    /// Live queries, oldest first: one for each slot in use.
    pub queries: Vec<QueryView<Id>>,
}

impl<Id> Snapshot<Id> {
    /// Creates a snapshot.
    pub fn new(requests: Vec<RequestView>, queries: Vec<QueryView<Id>>) -> Self {
        Self { requests, queries }
    }

    /// Returns whether nothing is alive.
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty() && self.queries.is_empty()
    }
}

/// Live request.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RequestView {
    /// Id of the request.
    pub id: RequestId,
    /// Operation of the request.
    pub operation: OperationKind,
    /// Key or target of the operation; empty for a bootstrap.
    pub key: Vec<u8>,
    /// Phase of the request.
    pub phase: RequestPhase,
    /// Time since its acceptance.
    pub age: Duration,
    /// Time to its deadline.
    pub remaining: Duration,
}

impl RequestView {
    /// Creates the view of a request that waits for a slot and has neither age nor time left.
    pub fn new(id: RequestId, operation: OperationKind, key: Vec<u8>) -> Self {
        Self { id, operation, key, phase: RequestPhase::Queued, age: Duration::ZERO, remaining: Duration::ZERO }
    }
}

setters!(RequestView { phase: RequestPhase, age: Duration, remaining: Duration });

/// Phase of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum RequestPhase {
    /// Waiting for a slot. No query has started yet.
    Queued,
    /// A query is running for it.
    Running,
    /// Between two of its queries: waiting for a slot, or for the peers of the routing table.
    BetweenSteps,
    /// Waiting for its next attempt after one that failed.
    BackingOff,
    /// Waiting for the local store to take its record.
    Storing,
}

/// Live query.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueryView<Id = kad::QueryId> {
    /// Id in kad. `None` until kad has started the query.
    pub id: Option<Id>,
    /// Operation of kad: [`OperationKind::PutRecordTo`] for the second step of a put.
    pub operation: OperationKind,
    /// Phase of the query.
    pub phase: QueryPhase,
    /// One of the requests that wait for it. `None` once it is finishing.
    pub request: Option<RequestId>,
    /// Number of requests that wait for it.
    pub waiters: usize,
    /// Time since the tracker asked kad to start it.
    pub age: Duration,
    /// Requests and answers, as last reported by kad.
    pub progress: Progress,
}

impl<Id> QueryView<Id> {
    /// Creates the view of a query that waits for its id, without requests and progress.
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

/// Phase of a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum QueryPhase {
    /// Waiting for kad to give it an id.
    Starting,
    /// Running for at least one request.
    Running,
    /// Without a request, and not yet ended by kad.
    Finishing,
}

/// Counters of a tracker since it was created. In a healthy program only `accepted`, `refused` and the counters of the
/// cache grow and, in a network with silent peers or outdated records, `queries_finished_early` and `read_repairs`.
/// `kad_own_queries` is not a counter but the latest number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Requests accepted.
    pub accepted: u64,
    /// Requests that were not accepted: invalid, refused or after a shutdown.
    pub refused: u64,
    /// Inputs for a query, step or request that is not alive, or that does not expect them.
    pub unknown_inputs: u64,
    /// Events whose result is of another kind than their query.
    pub mismatched_events: u64,
    /// Records received under another key than the one asked for. They are never part of an answer.
    pub foreign_records: u64,
    /// Records rejected by their namespace's validator. They are never part of an answer.
    pub rejected_records: u64,
    /// Queries that kad was running on its own (automatic bootstraps, republishing, replication) at the last
    /// [`handle_query_count`](crate::QueryTracker::handle_query_count).
    pub kad_own_queries: u64,
    /// Queries whose last event did not arrive in time, and whose slot was taken back.
    pub lost_queries: u64,
    /// Read repairs started: gets of the best record after which it was sent to peers that held a worse one or none.
    pub read_repairs: u64,
    /// Queries, or phases of queries, that were finished early because they had stalled.
    pub queries_finished_early: u64,
    /// Reads answered from the [cache](crate::Cache).
    pub cache_hits: u64,
    /// Reads that the cache could not answer, including those that were refused afterwards. Reads with
    /// [`RequestOptions::fresh`](crate::RequestOptions::fresh) do not count.
    pub cache_misses: u64,
}
