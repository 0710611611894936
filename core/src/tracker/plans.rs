//! Plans: what a request does next. One small state machine for each operation, without clock, queue or slots.
//!
//! ```text
//!   get, providers, lookup   query ──► done
//!   announcement, bootstrap  query ──► done
//!   put to named peers       query ──► done
//!   thorough lookup          query ──► query ──► done: see `thorough`
//!   put                      [store locally] ──► lookup ──► send … ──► [read back] ──► [store locally] ──► done: see `put`
//! ```
//!
//! A retry wraps any of them: see `retry`.

mod earlier;
mod put;
mod reads;
mod retry;
mod thorough;

use std::{num::NonZeroUsize, sync::Arc};

use libp2p::{
    PeerId,
    kad::{Record, RecordKey},
};

use self::{put::Put, thorough::Thorough};
pub(super) use self::{
    reads::Memo,
    retry::{Attempts, Limits},
};
use super::{
    results::{QueryEnd, QueryResults, without},
    scheduler::{Job, Threshold},
    time::Time,
};
use crate::{
    BootstrapAnswer, BootstrapError, Certainty, ClosestPeersAnswer, GetClosestPeersError, GetProvidersError,
    GetRecordError, Operation, OperationKind, Outcome, Policy, Progress, ProvideAnswer, PutAnswer, PutRecordError,
    Query, QueryStartError, Quorum, REPLICATION_FACTOR, RequestError, StartProvidingError,
};

/// State of a request's operation.
#[derive(Debug, Clone)]
pub(super) enum Plan {
    GetRecord {
        key: RecordKey,
        policy: Policy,
    },
    GetProviders {
        key: RecordKey,
        policy: Policy,
    },
    GetClosestPeers {
        target: RecordKey,
    },
    ThoroughLookup(Thorough),
    PutRecord(Put),
    PutRecordTo {
        record: Arc<Record>,
        peers: Arc<[PeerId]>,
        quorum: Quorum,
    },
    StartProviding {
        key: RecordKey,
        /// Set once kad has started to announce the local peer, so that a failure removes the local entry.
        announced: bool,
    },
    Bootstrap,
}

/// Next step of a request.
#[derive(Debug)]
pub(super) enum Next {
    /// Runs the first query of an attempt.
    Query(Job),
    /// Runs a further query, ahead of new requests.
    Further(Job),
    /// Stores this record locally.
    StoreLocal(Arc<Record>),
    /// Lists the peers of the routing table that are closest to this key.
    LocalPeers(RecordKey),
    /// Waits until this time for the next attempt.
    Wait(Time),
    /// Ends.
    Done(Outcome),
}

/// Result of the query that a request has waited for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ended<'a> {
    pub(super) results: &'a QueryResults,
    pub(super) progress: Progress,
    pub(super) end: &'a QueryEnd,
    /// Certainty of finding nothing.
    pub(super) certainty: Certainty,
}

impl Plan {
    pub(super) fn new(operation: Operation) -> Self {
        match operation {
            Operation::GetRecord { key, policy } => Self::GetRecord { key, policy },
            Operation::GetProviders { key, policy } => Self::GetProviders { key, policy },
            Operation::GetClosestPeers { target, thorough: false } => Self::GetClosestPeers { target },
            Operation::GetClosestPeers { target, thorough: true } => Self::ThoroughLookup(Thorough::new(target)),
            Operation::PutRecord { record, quorum, options } => Self::PutRecord(Put::new(record, quorum, options)),
            Operation::PutRecordTo { record, peers, quorum } => {
                Self::PutRecordTo { record, peers: peers.into(), quorum }
            }
            Operation::StartProviding { key } => Self::StartProviding { key, announced: false },
            Operation::Bootstrap => Self::Bootstrap,
        }
    }

    pub(super) fn kind(&self) -> OperationKind {
        match self {
            Self::GetRecord { .. } => OperationKind::GetRecord,
            Self::GetProviders { .. } => OperationKind::GetProviders,
            Self::GetClosestPeers { .. } | Self::ThoroughLookup(_) => OperationKind::GetClosestPeers,
            Self::PutRecord(_) => OperationKind::PutRecord,
            Self::PutRecordTo { .. } => OperationKind::PutRecordTo,
            Self::StartProviding { .. } => OperationKind::StartProviding,
            Self::Bootstrap => OperationKind::Bootstrap,
        }
    }

    /// Returns the key or target; empty for a bootstrap.
    pub(super) fn key(&self) -> &[u8] {
        match self {
            Self::GetRecord { key, .. } | Self::GetProviders { key, .. } | Self::StartProviding { key, .. } => {
                key.as_ref()
            }
            Self::GetClosestPeers { target } => target.as_ref(),
            Self::ThoroughLookup(lookup) => lookup.target().as_ref(),
            Self::PutRecord(put) => put.record().key.as_ref(),
            Self::PutRecordTo { record, .. } => record.key.as_ref(),
            Self::Bootstrap => &[],
        }
    }

    /// Returns the key that the operation writes to.
    pub(super) fn written(&self) -> Option<&RecordKey> {
        match self {
            Self::PutRecord(put) => Some(&put.record().key),
            Self::PutRecordTo { record, .. } => Some(&record.key),
            Self::StartProviding { key, .. } => Some(key),
            Self::GetRecord { .. }
            | Self::GetProviders { .. }
            | Self::GetClosestPeers { .. }
            | Self::ThoroughLookup(_)
            | Self::Bootstrap => None,
        }
    }

    /// Returns the first step of an accepted request.
    pub(super) fn first(&mut self) -> Next {
        match self {
            Self::PutRecord(put) => put.first(),
            _ => Next::Query(self.first_job()),
        }
    }

    /// Returns the first query of an attempt.
    pub(super) fn first_job(&self) -> Job {
        Job::Query(match self {
            Self::GetRecord { key, policy: _ } => Query::GetRecord { key: key.clone() },
            Self::GetProviders { key, policy: _ } => Query::GetProviders { key: key.clone() },
            Self::GetClosestPeers { target } => Query::GetClosestPeers { target: target.clone() },
            Self::ThoroughLookup(lookup) => Query::GetClosestPeers { target: lookup.target().clone() },
            Self::PutRecord(put) => Query::GetClosestPeers { target: put.record().key.clone() },
            Self::PutRecordTo { record, peers, quorum: _ } => {
                Query::PutRecordTo { record: Arc::clone(record), peers: Arc::clone(peers) }
            }
            Self::StartProviding { key, announced: _ } => Query::StartProviding { key: key.clone() },
            Self::Bootstrap => Query::Bootstrap,
        })
    }

    /// Returns the results that satisfy the request before the end of its query.
    pub(super) fn threshold(&self, job: &Job, max_items: usize) -> Threshold {
        match self {
            Self::GetRecord { key: _, policy } | Self::GetProviders { key: _, policy } => {
                reads::threshold(*policy, max_items)
            }
            Self::PutRecord(put) => put.threshold(job),
            Self::PutRecordTo { record: _, peers, quorum } => {
                Threshold::Acknowledgements { needed: count(needed(*quorum, peers.len()).get()), can_widen: false }
            }
            Self::GetClosestPeers { .. } | Self::ThoroughLookup(_) | Self::StartProviding { .. } | Self::Bootstrap => {
                Threshold::End
            }
        }
    }

    /// Returns the next step after the end of a query.
    pub(super) fn on_ended(&mut self, ended: &Ended<'_>, memo: &mut Memo) -> Next {
        let Ended { results, progress, end, certainty } = *ended;
        let outcome = match (&mut *self, results, end) {
            (Self::PutRecord(put), _, end) => return put.on_ended(results, end, progress),
            (Self::ThoroughLookup(lookup), _, end) => return lookup.on_ended(ended, end),
            (plan, _, QueryEnd::NotStarted(error)) => not_started(plan.kind(), error.clone()),
            (Self::GetRecord { key: _, policy }, QueryResults::Records(found), _) => {
                Outcome::GetRecord(reads::record(*policy, found, ended, memo))
            }
            (Self::GetProviders { key: _, policy }, QueryResults::Providers(found), _) => {
                Outcome::GetProviders(reads::providers(*policy, found, ended))
            }
            (Self::GetClosestPeers { target: _ }, _, QueryEnd::ClosestPeers { peers, timed_out }) => {
                Outcome::GetClosestPeers(closest_peers(peers, *timed_out, progress, certainty))
            }
            (
                Self::PutRecordTo { record: _, peers: _, quorum },
                QueryResults::Put { asked },
                QueryEnd::Stored { acknowledged },
            ) => {
                let (acknowledged, needed) = (acknowledged.clone(), needed(*quorum, asked.len()));
                Outcome::PutRecordTo(if acknowledged.len() < needed.get() {
                    Err(PutRecordError::QuorumFailed { acknowledged, needed, asked: asked.len() })
                } else {
                    let unacknowledged = without(asked, &acknowledged);
                    Ok(PutAnswer { acknowledged, unacknowledged, verified: 0, progress })
                })
            }
            (Self::StartProviding { .. }, _, QueryEnd::Announced { timed_out }) => {
                Outcome::StartProviding(if *timed_out {
                    Err(StartProvidingError::Timeout { progress })
                } else if progress.successes > 0 {
                    Ok(ProvideAnswer { sent_to: announced_to(progress), progress })
                } else if progress.requests == 0 {
                    Err(StartProvidingError::NoKnownPeers)
                } else {
                    Err(StartProvidingError::NoResponse { progress })
                })
            }
            (Self::Bootstrap, QueryResults::Bootstrap { phases, failed, finished }, QueryEnd::Bootstrapped) => {
                let (phases, failed, progress) = (*phases, *failed, *finished);
                Outcome::Bootstrap(if failed == phases {
                    Err(BootstrapError::AllPhasesFailed { phases, progress })
                } else if progress.successes == 0 {
                    Err(BootstrapError::NoResponse { progress })
                } else {
                    Ok(BootstrapAnswer { phases, failed, progress })
                })
            }
            // Unreachable: a request never waits for a query of another kind.
            (plan, _, _) => plan.timeout(Some((results, progress))),
        };
        Next::Done(outcome)
    }

    /// Returns the outcome at the deadline. `running`: the results so far, if a query was running.
    pub(super) fn timeout(&self, running: Option<(&QueryResults, Progress)>) -> Outcome {
        let progress = running.map_or_else(Progress::default, |(_, progress)| progress);
        let results = running.map(|(results, _)| results);
        match self {
            Self::GetRecord { .. } => Outcome::GetRecord(Err(GetRecordError::Timeout {
                found: match results {
                    Some(QueryResults::Records(records)) => records.list(),
                    _ => Arc::default(),
                },
                progress,
            })),
            Self::GetProviders { .. } => Outcome::GetProviders(Err(GetProvidersError::Timeout {
                found: match results {
                    Some(QueryResults::Providers(found)) => found.list(),
                    _ => Arc::default(),
                },
                progress,
            })),
            Self::GetClosestPeers { .. } => {
                Outcome::GetClosestPeers(Err(GetClosestPeersError::Timeout { peers: Arc::default(), progress }))
            }
            Self::ThoroughLookup(lookup) => Outcome::GetClosestPeers(Err(lookup.timeout(progress))),
            Self::PutRecord(put) => Outcome::PutRecord(Err(put.timeout(results, progress))),
            Self::PutRecordTo { .. } => {
                let sent_to = match results {
                    Some(QueryResults::Put { asked }) => asked.to_vec(),
                    _ => Vec::new(),
                };
                Outcome::PutRecordTo(Err(PutRecordError::Timeout { sent_to, progress }))
            }
            Self::StartProviding { .. } => Outcome::StartProviding(Err(StartProvidingError::Timeout { progress })),
            Self::Bootstrap => Outcome::Bootstrap(Err(match results {
                Some(QueryResults::Bootstrap { phases, failed, finished }) => {
                    BootstrapError::Timeout { phases: *phases, failed: *failed, progress: *finished }
                }
                _ => BootstrapError::Timeout { phases: 0, failed: 0, progress },
            })),
        }
    }

    /// Notes that kad has started to announce the local peer.
    pub(super) fn note_announced(&mut self) {
        if let Self::StartProviding { key: _, announced } = self {
            *announced = true;
        }
    }

    /// Returns the key of an announcement that kad has started, and forgets that it has.
    pub(super) fn take_announced(&mut self) -> Option<&RecordKey> {
        match self {
            Self::StartProviding { key, announced } => std::mem::take(announced).then_some(&*key),
            _ => None,
        }
    }
}

/// Returns the number of peers that must acknowledge. Unlike in kad, `N` is not silently lowered.
fn needed(quorum: Quorum, peers: usize) -> NonZeroUsize {
    NonZeroUsize::new(quorum.of(peers)).unwrap_or(NonZeroUsize::MIN)
}

/// Saturates: no query finds four billion items.
fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// Returns the number of peers that kad sent an announcement to. kad sends it to the peers that answered, 20 at most,
/// and counts each announcement as answered at once: so half of all answers are announcements, or 20 of them.
fn announced_to(progress: Progress) -> u32 {
    (progress.successes / 2).min(count(REPLICATION_FACTOR))
}

fn closest_peers(
    peers: &[libp2p::kad::PeerInfo],
    timed_out: bool,
    progress: Progress,
    certainty: Certainty,
) -> Result<ClosestPeersAnswer, GetClosestPeersError> {
    if timed_out {
        Err(GetClosestPeersError::Timeout { peers: peers.into(), progress })
    } else if !peers.is_empty() {
        Ok(ClosestPeersAnswer { peers: peers.into(), certainty, progress })
    } else if progress.requests == 0 {
        Err(GetClosestPeersError::NoKnownPeers)
    } else {
        Err(GetClosestPeersError::NoResponse { progress })
    }
}

/// Returns the outcome of a request whose query kad could not start.
fn not_started(kind: OperationKind, error: QueryStartError) -> Outcome {
    match (kind, error) {
        (OperationKind::Bootstrap, QueryStartError::NoKnownPeers) => {
            Outcome::Bootstrap(Err(BootstrapError::NoKnownPeers))
        }
        (OperationKind::GetRecord, QueryStartError::NoKnownPeers) => {
            Outcome::GetRecord(Err(GetRecordError::NoKnownPeers))
        }
        (OperationKind::GetProviders, QueryStartError::NoKnownPeers) => {
            Outcome::GetProviders(Err(GetProvidersError::NoKnownPeers))
        }
        (OperationKind::GetClosestPeers, QueryStartError::NoKnownPeers) => {
            Outcome::GetClosestPeers(Err(GetClosestPeersError::NoKnownPeers))
        }
        (OperationKind::StartProviding, QueryStartError::NoKnownPeers) => {
            Outcome::StartProviding(Err(StartProvidingError::NoKnownPeers))
        }
        (OperationKind::PutRecord, QueryStartError::NoKnownPeers) => {
            Outcome::PutRecord(Err(PutRecordError::NoKnownPeers))
        }
        (OperationKind::PutRecordTo, QueryStartError::NoKnownPeers) => {
            Outcome::PutRecordTo(Err(PutRecordError::NoKnownPeers))
        }
        (OperationKind::StartProviding, QueryStartError::Store(error)) => {
            Outcome::StartProviding(Err(StartProvidingError::Store(error)))
        }
        (OperationKind::StartProviding, QueryStartError::NoExternalAddress) => {
            Outcome::StartProviding(Err(StartProvidingError::NoExternalAddress))
        }
        (kind, error @ (QueryStartError::Store(_) | QueryStartError::NoExternalAddress)) => {
            Outcome::failed(kind, RequestError::Refused(error))
        }
    }
}
