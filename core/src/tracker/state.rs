//! What is alive: requests, queries, and what is due.

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
///   Attached ──► outcome      A put:    Attached (lookup) ──► Attached (store) ──► Storing ──► outcome: see `puts`
///    ▲     │                  A retry:  Attached ──► BackingOff ──► Attached
///    └─ BackingOff ──► outcome             A thorough lookup: Attached ──► Attached ──► outcome: see `closest`
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
    /// Of a put that is past its lookup.
    pub(super) put: Option<Box<Put>>,
    /// Of a thorough lookup whose first part has ended.
    pub(super) closest: Option<Box<Closest>>,
    /// Whether a query was ever started for it. Until then it counts as queued.
    pub(super) begun: bool,
    /// Whether it is a put, or a thorough lookup, whose first lookup has ended, so that its further steps go ahead of
    /// others.
    pub(super) second_step: bool,
    /// Whether kad was told to announce us, so that a failure takes the local entry back.
    pub(super) announced: bool,
}

/// The attempts of a request that may have several.
#[derive(Debug)]
pub(super) struct Attempts {
    pub(super) retry: Retry,
    /// How many have failed.
    pub(super) failed: u32,
    /// What they have left; few leave anything.
    pub(super) earlier: Option<Box<Earlier>>,
}

#[derive(Debug)]
pub(super) enum Phase {
    /// Waits for this query, which may itself wait for a slot.
    Attached { step: StepId },
    /// Waits before its next attempt.
    BackingOff { until: Time },
    /// Its record is on its way into the local store.
    /// Without an answer, it has not begun.
    Storing { answer: Option<Box<PutAnswer>> },
    /// Waits to be told whom else it may ask.
    Choosing,
}

/// A query and those who wait for it. From Starting on it holds a slot.
#[derive(Debug)]
pub(super) struct LiveQuery<Id> {
    pub(super) query: Query,
    pub(super) waiters: Waiters,
    /// From the start on; a query that waits for a slot has come to nothing, and many wait.
    pub(super) work: Option<Box<Work>>,
    /// Whether a waiter counts votes.
    pub(super) votes: bool,
    pub(super) state: QueryState<Id>,
    /// When it was first wanted; from its start on, when it was started.
    pub(super) asked_at: Time,
}

/// What a query has come to since its start.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) findings: QueryResults,
    pub(super) progress: Progress,
    /// When kad last said something of it of its own, or its start was asked for.
    pub(super) heard_at: Time,
    /// When it was last known to get on.
    pub(super) moved_at: Time,
    /// When it is looked after.
    pub(super) look_at: Option<Time>,
    /// Whether kad was asked for its progress and has not answered yet.
    pub(super) probed: bool,
    /// Whether it was told to make do with what it had, so that there may be more.
    pub(super) finished_early: bool,
    /// Whether its pace was measured, or cannot be any more.
    pub(super) paced: bool,
}

/// ```text
///            a slot is free           started            nobody wants it          last event
///   Queued ────────────────► Starting ──────► Running ────────────────► Finishing ─────────► gone
///      │ nobody wants it        │ nobody wants it │ last event             ▲  └ finish_timeout ─► gone, evicted_ids
///      └──► gone                ▼       started   └──────────► gone        │
///                           Abandoned ─────────────────────────────────────┘
///                              └ refused, or finish_timeout ──► gone                 Starting: gone when refused
/// ```
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
    /// Its last event is being taken in; gone before the next input.
    Ended {
        id: Id,
    },
    Finishing {
        id: Id,
        finish_deadline: Time,
    },
}

/// What makes two reads the same. Ordered, because strangers may have a say in the keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SharedQuery {
    kind: OperationKind,
    key: RecordKey,
}

impl SharedQuery {
    /// `None` for queries that are nobody else's business.
    pub(super) fn of(query: &Query) -> Option<Self> {
        match query {
            Query::GetRecord { key } | Query::GetProviders { key } => {
                Some(Self { kind: query.kind(), key: key.clone() })
            }
            Query::GetClosestPeers { target } => Some(Self { kind: query.kind(), key: target.clone() }),
            Query::PutRecordTo { record: _, peers: _ } | Query::StartProviding { key: _ } | Query::Bootstrap => None,
        }
    }

    /// The reads of a key.
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

/// The announcements of one key that are under way, from the order to start them.
#[derive(Debug, Default)]
pub(super) struct Announcements {
    pub(super) live: usize,
    /// Whether the local store named us a provider before the first of them; unknown until kad has answered its start.
    pub(super) had_provider: Option<bool>,
    pub(super) succeeded: bool,
}

/// What is due at a point in time. At the same point, slots come back first, deadlines pass before
/// retries begin, and what has stalled is looked for last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    Lost(StepId),
    Deadline(RequestId),
    Retry(RequestId),
    Look(StepId),
}

impl<Id> LiveQuery<Id> {
    /// From now on it can find something.
    pub(super) fn begin(&mut self, validators: &Validators, now: Time) {
        self.asked_at = now;
        self.work = Some(Box::new(Work {
            findings: QueryResults::of(&self.query),
            progress: Progress::default(),
            heard_at: now,
            moved_at: now,
            look_at: None,
            probed: false,
            finished_early: false,
            paced: false,
        }));
        self.count_votes(validators);
    }

    /// Counts votes, if a waiter wants it and there is something to count.
    pub(super) fn count_votes(&mut self, validators: &Validators) {
        if self.votes
            && let (Some(work), Query::GetRecord { key }) = (&mut self.work, &self.query)
        {
            work.findings.count_votes(key, validators);
        }
    }

    /// What there is to satisfy waiters with.
    pub(super) fn offer(&self) -> Available {
        self.work.as_ref().map_or(Available::NOTHING, |work| work.findings.offer())
    }

    /// How far it got.
    pub(super) fn progress(&self) -> Progress {
        self.work.as_ref().map_or_else(Progress::default, |work| work.progress)
    }
}

pub(super) fn waiter(id: RequestId, request: &LiveRequest, max_items: usize) -> Waiter {
    Waiter {
        request: id,
        need: policy::need(&request.operation, max_items),
        // A put has no items: it reads back for itself.
        streaming: request.streaming && request.operation.kind() != OperationKind::PutRecord,
        line: if request.second_step { Line::FurtherStep(request.priority) } else { Line::New(request.priority) },
        begun: request.begun,
    }
}
