//! Live state: requests, queries and timers.

use std::cmp::Ordering;

use libp2p::kad::RecordKey;

use super::{
    closest::Closest,
    earlier::Earlier,
    policy,
    puts::Put,
    results::QueryResults,
    time::Time,
    waiters::{Available, Waiter, Waiters},
    waiting::Line,
};
use crate::{Operation, OperationKind, Priority, Progress, PutAnswer, Query, RequestId, Retry, StepId, Validators};

/// A request from its acceptance to its outcome.
///
/// ```text
///   every request        Attached ──► outcome
///   with a retry         Attached ──► BackingOff ──► Attached ──► …
///   put                  Attached (lookup) ──► Attached (store) ──► Storing ──► outcome: see `puts`
///   thorough lookup      Attached ──► Attached ──► outcome: see `closest`
/// ```
#[derive(Debug)]
pub(super) struct LiveRequest {
    pub(super) operation: Operation,
    pub(super) streaming: bool,
    pub(super) priority: Priority,
    /// Boxed, because few requests have one and many requests wait.
    pub(super) retry: Option<Box<Attempts>>,
    pub(super) accepted: Time,
    pub(super) deadline: Time,
    pub(super) phase: Phase,
    /// State of a put after its lookup.
    pub(super) put: Option<Box<Put>>,
    /// State of a thorough lookup after its first query.
    pub(super) closest: Option<Box<Closest>>,
    /// Set once a query has been started for it. Until then it holds a place in the queue.
    pub(super) begun: bool,
    /// Set for a put or a thorough lookup after its first query. Its further steps go ahead of others.
    pub(super) second_step: bool,
    /// Set once kad has started to announce the local peer, so that a failure removes the local entry.
    pub(super) announced: bool,
}

/// Attempts of a request with retries.
#[derive(Debug)]
pub(super) struct Attempts {
    pub(super) retry: Retry,
    /// Number of failed attempts.
    pub(super) failed: u32,
    /// Their results; few leave any.
    pub(super) earlier: Option<Box<Earlier>>,
}

#[derive(Debug)]
pub(super) enum Phase {
    /// Waiting for this query, which may itself be waiting for a slot.
    Attached { step: StepId },
    /// Waiting for its next attempt.
    BackingOff { until: Time },
    /// Waiting for the local store to take the record: before the first query if there is no answer, after the last one
    /// otherwise.
    Storing { answer: Option<Box<PutAnswer>> },
    /// Waiting for the peers of the routing table, to select further ones.
    Choosing,
}

/// A query and the requests that wait for it. From `Starting` on it holds a slot.
#[derive(Debug)]
pub(super) struct LiveQuery<Id> {
    pub(super) query: Query,
    pub(super) waiters: Waiters,
    /// `None` while the query waits for a slot: many wait, and have no results yet.
    pub(super) work: Option<Box<Work>>,
    /// Set if a waiter counts votes.
    pub(super) votes: bool,
    pub(super) state: QueryState<Id>,
    /// Time of its creation; from its start on, time of its start.
    pub(super) asked_at: Time,
}

/// Results and progress of a query since its start.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) results: QueryResults,
    pub(super) progress: Progress,
    /// Time of kad's last event for it, or of its start.
    pub(super) heard_at: Time,
    /// Time at which it last made progress.
    pub(super) moved_at: Time,
    /// Time of its next check for a stall.
    pub(super) look_at: Option<Time>,
    /// Set while a probe is unanswered.
    pub(super) probed: bool,
    /// Set once the tracker has finished it early, so that the network may hold more.
    pub(super) finished_early: bool,
    /// Set once its round trip has been measured.
    pub(super) rtt_measured: bool,
}

/// State of a query.
///
/// ```text
///   Queued ── slot is free ──► Starting ── started ──► Running ── last event ──► removed
///                                 │                       │
///                              no waiter               no waiter
///                                 ▼                       ▼
///                             Abandoned ── started ──► Finishing ── last event ──► removed
/// ```
///
/// `Queued` is removed without a waiter, `Starting` and `Abandoned` if kad cannot start the query. `Abandoned` and
/// `Finishing` are removed at their `finish_deadline` without the last event; the query id of the latter is remembered.
#[derive(Debug)]
pub(super) enum QueryState<Id> {
    Queued {
        line: Line,
    },
    Starting,
    Abandoned {
        finish_deadline: Time,
    },
    Running {
        id: Id,
    },
    /// Its last event is being handled. Removed before the next input.
    Ended {
        id: Id,
    },
    Finishing {
        id: Id,
        finish_deadline: Time,
    },
}

/// Identity of a query that requests may share. Ordered rather than hashed, because peers may influence the keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SharedQuery {
    kind: OperationKind,
    key: RecordKey,
}

impl SharedQuery {
    /// `None` for queries that are never shared.
    pub(super) fn of(query: &Query) -> Option<Self> {
        match query {
            Query::GetRecord { key } | Query::GetProviders { key } => {
                Some(Self { kind: query.kind(), key: key.clone() })
            }
            Query::GetClosestPeers { target } => Some(Self { kind: query.kind(), key: target.clone() }),
            Query::PutRecordTo { record: _, peers: _ } | Query::StartProviding { key: _ } | Query::Bootstrap => None,
        }
    }

    /// Returns the reads of a key.
    pub(super) fn reads(key: &RecordKey) -> [Self; 2] {
        [OperationKind::GetRecord, OperationKind::GetProviders].map(|kind| Self { kind, key: key.clone() })
    }

    pub(super) fn key(&self) -> &RecordKey {
        &self.key
    }
}

impl Ord for SharedQuery {
    fn cmp(&self, other: &Self) -> Ordering {
        self.kind.cmp(&other.kind).then_with(|| self.key.as_ref().cmp(other.key.as_ref()))
    }
}

impl PartialOrd for SharedQuery {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Live announcements of one key, from the time they are given a slot.
#[derive(Debug, Default)]
pub(super) struct Announcements {
    pub(super) live: usize,
    /// Presence of a local entry before the first of them. `None` until kad has started one.
    pub(super) had_provider: Option<bool>,
    pub(super) succeeded: bool,
}

/// A timer. At the same time, slots are taken back first, deadlines pass before retries start, and stall checks come
/// last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    Lost(StepId),
    Deadline(RequestId),
    Retry(RequestId),
    StallCheck(StepId),
}

impl<Id> LiveQuery<Id> {
    /// Starts the query: from now on it can find something.
    pub(super) fn begin(&mut self, validators: &Validators, now: Time) {
        self.asked_at = now;
        self.work = Some(Box::new(Work {
            results: QueryResults::of(&self.query),
            progress: Progress::default(),
            heard_at: now,
            moved_at: now,
            look_at: None,
            probed: false,
            finished_early: false,
            rtt_measured: false,
        }));
        self.count_votes(validators);
    }

    /// Counts votes, if a waiter needs them and the query has started.
    pub(super) fn count_votes(&mut self, validators: &Validators) {
        if self.votes
            && let (Some(work), Query::GetRecord { key }) = (&mut self.work, &self.query)
        {
            work.results.count_votes(key, validators);
        }
    }

    /// Returns the counts that thresholds are compared with.
    pub(super) fn available(&self) -> Available {
        self.work.as_ref().map_or(Available::NOTHING, |work| work.results.available())
    }

    /// Returns the requests and answers so far.
    pub(super) fn progress(&self) -> Progress {
        self.work.as_ref().map_or_else(Progress::default, |work| work.progress)
    }
}

pub(super) fn waiter(id: RequestId, request: &LiveRequest, max_items: usize) -> Waiter {
    Waiter {
        request: id,
        threshold: policy::threshold(&request.operation, max_items),
        // A put has no items for its caller; it reads back for itself.
        streaming: request.streaming && request.operation.kind() != OperationKind::PutRecord,
        line: if request.second_step { Line::FurtherStep(request.priority) } else { Line::New(request.priority) },
        begun: request.begun,
    }
}
