//! A query, from the first request that needs it until kad has ended it.

use std::sync::Arc;

use libp2p::kad::{Record, RecordKey};

use super::{
    waiters::{Available, Waiters},
    waiting::Line,
};
use crate::{
    OperationKind, Progress, Query, Validators,
    tracker::{results::QueryResults, time::Time},
};

/// Work for one query.
#[derive(Debug, Clone)]
pub(in crate::tracker) enum Job {
    Query(Query),
    /// Gets the record that a put has stored. Never shared: a read that started before the store proves nothing.
    ReadBack(Arc<Record>),
}

impl Job {
    /// Returns the query for kad.
    pub(super) fn query(&self) -> Query {
        match self {
            Self::Query(query) => query.clone(),
            Self::ReadBack(record) => Query::GetRecord { key: record.key.clone() },
        }
    }

    pub(super) fn kind(&self) -> OperationKind {
        match self {
            Self::Query(query) => query.kind(),
            Self::ReadBack(_) => OperationKind::GetRecord,
        }
    }

    /// Returns the key of a read of records.
    pub(in crate::tracker) fn key(&self) -> Option<&RecordKey> {
        match self {
            Self::Query(Query::GetRecord { key }) => Some(key),
            Self::ReadBack(record) => Some(&record.key),
            Self::Query(
                Query::GetProviders { key: _ }
                | Query::GetClosestPeers { target: _ }
                | Query::PutRecordTo { record: _, peers: _ }
                | Query::StartProviding { key: _ }
                | Query::Bootstrap,
            ) => None,
        }
    }

    /// Returns the key of an announcement.
    pub(in crate::tracker) fn announced(&self) -> Option<&RecordKey> {
        match self {
            Self::Query(Query::StartProviding { key }) => Some(key),
            Self::Query(_) | Self::ReadBack(_) => None,
        }
    }
}

/// A query and the requests that wait for it. From `Starting` on it holds a slot.
#[derive(Debug, Clone)]
pub(in crate::tracker) struct LiveQuery<Id> {
    pub(super) job: Job,
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
#[derive(Debug, Clone)]
pub(in crate::tracker) struct Work {
    pub(in crate::tracker) results: QueryResults,
    pub(in crate::tracker) progress: Progress,
    /// Set once the query could have asked or heard more: it was finished early, by the tracker or by the application,
    /// or a peer was given up.
    pub(in crate::tracker) cut_short: bool,
    /// Set by the latest event, if it came so late that kad may have stopped waiting for a peer.
    pub(in crate::tracker) outlasted: bool,
    /// Time of kad's last event for it, or of its start.
    pub(super) heard_at: Time,
    /// Time at which it last made progress.
    pub(super) moved_at: Time,
    /// Time of its next check for a stall.
    pub(super) stall_check_at: Option<Time>,
    /// Set while a probe is unanswered.
    pub(super) probed: bool,
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
#[derive(Debug, Clone)]
pub(super) enum QueryState<Id> {
    Queued { line: Line },
    Starting,
    Abandoned { finish_deadline: Time },
    Running { id: Id },
    Finishing { id: Id, finish_deadline: Time },
}

impl<Id> LiveQuery<Id> {
    /// Starts the query: from now on it can find something.
    pub(super) fn begin(&mut self, validators: &Validators, now: Time) {
        self.state = QueryState::Starting;
        self.asked_at = now;
        self.work = Some(Box::new(Work {
            results: QueryResults::of(&self.job),
            progress: Progress::default(),
            cut_short: false,
            outlasted: false,
            heard_at: now,
            moved_at: now,
            stall_check_at: None,
            probed: false,
            rtt_measured: false,
        }));
        self.count_votes(validators);
    }

    /// Counts votes, if a waiter needs them and the query has started.
    pub(super) fn count_votes(&mut self, validators: &Validators) {
        if self.votes
            && let (Some(work), Some(key)) = (&mut self.work, self.job.key())
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

    pub(in crate::tracker) fn job(&self) -> &Job {
        &self.job
    }

    pub(in crate::tracker) fn work(&self) -> Option<&Work> {
        self.work.as_deref()
    }
}
