use std::time::Duration;

use libp2p::kad;

use crate::{OperationKind, Progress, RequestId};

/// Everything alive in a tracker at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot<Id = kad::QueryId> {
    /// Live requests, by id.
    pub requests: Vec<RequestView>,
    /// Live queries, oldest first. Their number is the number of slots in use.
    pub queries: Vec<QueryView<Id>>,
}

impl<Id> Snapshot<Id> {
    /// Whether nothing is alive.
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty() && self.queries.is_empty()
    }
}

/// A live request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestView {
    /// Its name.
    pub id: RequestId,
    /// What it asks for.
    pub operation: OperationKind,
    /// The key or target that it is about; empty for a bootstrap.
    pub key: Vec<u8>,
    /// Where it is in its life.
    pub phase: RequestPhase,
    /// Time since it was accepted.
    pub age: Duration,
    /// Time to its deadline.
    pub remaining: Duration,
}

/// Where a request is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RequestPhase {
    /// Waiting for a slot; no query has been started.
    Queued,
    /// A query is running for it.
    Running,
    /// Between two of its queries, waiting for a slot ahead of all queued requests.
    BetweenSteps,
    /// An attempt has failed, and the next one is not due yet.
    BackingOff,
    /// Its record is being put into the local store.
    Storing,
}

/// A live query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryView<Id = kad::QueryId> {
    /// kad's id for it, once kad has started it.
    pub id: Option<Id>,
    /// What kad runs: [`OperationKind::PutRecordTo`] for the second step of a put.
    pub operation: OperationKind,
    /// Where it is in its life.
    pub phase: QueryPhase,
    /// One of those who wait for it; nobody once it is finishing.
    pub request: Option<RequestId>,
    /// How many requests wait for it.
    pub waiters: usize,
    /// Time since its start was asked for.
    pub age: Duration,
    /// How far kad said it got.
    pub progress: Progress,
}

/// Where a query is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum QueryPhase {
    /// Its start was asked for, and kad has not given it an id yet.
    Starting,
    /// kad runs it for a request.
    Running,
    /// Nobody wants it any more; kad has not ended it yet.
    Finishing,
}

/// What the tracker has counted since it was made. Nothing here should grow in a healthy program but `accepted`,
/// `refused` and what is about the cache, and, in a network with silent peers or old records, `queries_finished_early` and
/// `read_repairs`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Requests accepted.
    pub accepted: u64,
    /// Requests refused at the call.
    pub refused: u64,
    /// Inputs that name a query or a step that is not alive.
    pub unknown_inputs: u64,
    /// Events whose kind of result does not fit their query.
    pub mismatched_events: u64,
    /// Records that came under another key than the one asked for; never an answer.
    pub foreign_records: u64,
    /// Records that the validator of their namespace rejected; never an answer.
    pub rejected_records: u64,
    /// Queries that kad ran of its own at the last census: its automatic bootstraps, republishing and replication.
    pub kad_own_queries: u64,
    /// Queries whose last event never came, and whose slot was taken back.
    pub lost_queries: u64,
    /// Corrections begun: reads for the best record after which peers that were out of date were sent it.
    pub read_repairs: u64,
    /// Queries, or phases of them, that were finished early because they had stalled.
    pub queries_finished_early: u64,
    /// Reads that were answered with what was [kept](crate::Cache).
    pub cache_hits: u64,
    /// Reads that would have been, but nothing that satisfies them was kept. Those of them that were then refused count,
    /// those that asked for a fresh answer do not.
    pub cache_misses: u64,
}
