//! Policies: the first query of an operation, the results that satisfy it, and its outcome.
//!
//! Everything here is a pure function of an operation and of query results. The parent module has the lifecycle, the
//! slots and the clock.

use std::{collections::BTreeSet, num::NonZeroUsize, sync::Arc};

use libp2p::{PeerId, kad::PeerRecord};

use super::{
    results::{QueryEnd, QueryResults, Records},
    state::LiveRequest,
    waiters::{Available, Threshold},
};
use crate::{
    BootstrapAnswer, BootstrapError, Certainty, ClosestPeersAnswer, GetClosestPeersError, GetProvidersError,
    GetRecordError, Operation, OperationKind, Outcome, Policy, Progress, ProvideAnswer, ProvidersAnswer, PutAnswer,
    PutRecordError, Query, QueryStartError, Quorum, REPLICATION_FACTOR, RecordAnswer, RequestError,
    StartProvidingError,
};

/// Returns the first query of an operation.
pub(super) fn first_query(operation: &Operation) -> Query {
    match operation {
        Operation::GetRecord { key, policy: _ } => Query::GetRecord { key: key.clone() },
        Operation::PutRecord { record, quorum: _, options: _ } => Query::GetClosestPeers { target: record.key.clone() },
        Operation::PutRecordTo { record, peers, quorum: _ } => {
            Query::PutRecordTo { record: Arc::clone(record), peers: peers.as_slice().into() }
        }
        Operation::GetProviders { key, policy: _ } => Query::GetProviders { key: key.clone() },
        Operation::StartProviding { key } => Query::StartProviding { key: key.clone() },
        Operation::GetClosestPeers { target, thorough: _ } => Query::GetClosestPeers { target: target.clone() },
        Operation::Bootstrap => Query::Bootstrap,
    }
}

/// Returns the threshold that satisfies an operation before its query's end.
pub(super) fn threshold(operation: &Operation, max_items: usize) -> Threshold {
    match operation {
        Operation::GetRecord { key: _, policy } | Operation::GetProviders { key: _, policy } => match policy {
            Policy::First => Threshold::Items(1),
            Policy::Limit(limit) => Threshold::Items(count((*limit).min(max_items))),
            Policy::All | Policy::Best { agree: None } => Threshold::Items(count(max_items)),
            Policy::Quorum(quorum) => Threshold::Votes(count(quorum.of_sources())),
            Policy::Best { agree: Some(quorum) } => Threshold::BestVotes(count(quorum.of_sources())),
        },
        Operation::PutRecord { .. }
        | Operation::PutRecordTo { .. }
        | Operation::StartProviding { .. }
        | Operation::GetClosestPeers { .. }
        | Operation::Bootstrap => Threshold::End,
    }
}

/// Saturates: no query finds four billion items.
fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// Returns whether an operation counts votes.
pub(super) fn votes(operation: &Operation) -> bool {
    matches!(operation, Operation::GetRecord { key: _, policy: Policy::Quorum(_) | Policy::Best { agree: _ } })
}

/// Number of answers that are enough of the up to 20 that a lookup aims for.
const MANY_ANSWERS: u32 = 10;

/// Returns the multiple of the quiet time after which a query is finished early. `None` if it never is.
///
/// `request` is the first request that waits for the query, `wants_more` says whether a request waits for items or
/// votes that have not been found, `available` is what has been found, and `parallelism` the number of peers that kad asks
/// at the same time.
pub(super) fn patience(
    query: &Query,
    request: &LiveRequest,
    available: Available,
    wants_more: bool,
    progress: Progress,
    parallelism: u32,
) -> Option<u32> {
    let answers = progress.successes;
    let enough = answers >= MANY_ANSWERS || (answers > 0 && answers >= progress.pending().saturating_mul(3));
    match query {
        // The peers that answered are the result. If few did, or if kad asks as many as it may at the same time and
        // could know others, the silent ones get more time, enough for a dial.
        Query::GetClosestPeers { target: _ } | Query::StartProviding { key: _ } | Query::Bootstrap => match answers {
            0 => None,
            _ if enough && progress.pending() < parallelism => Some(1),
            _ => Some(4),
        },
        Query::GetRecord { key: _ } | Query::GetProviders { key: _ } => {
            if !enough {
                // Silent peers may hold what has not been found.
                (available.items > 0 && answers > 0 && !wants_more).then_some(3)
            } else if wants_more {
                Some(8)
            } else if available.items == 0 {
                Some(4)
            } else {
                Some(1)
            }
        }
        Query::PutRecordTo { record: _, peers } => {
            let missing = match (&request.operation, &request.put) {
                (Operation::PutRecord { .. }, Some(put)) => put.missing(),
                (Operation::PutRecordTo { record: _, peers: _, quorum }, _) => needed(*quorum, peers.len()).get(),
                _ => return None,
            };
            // kad asks a few at a time, and has not asked all yet.
            let asks_on = (progress.requests as usize) < peers.len();
            // A put to the closest peers can continue with others; one to named peers cannot.
            let goes_on = request.put.is_some();
            match answers {
                _ if answers as usize >= missing => Some(1),
                0 => goes_on.then_some(3),
                _ if asks_on => goes_on.then_some(4),
                _ => Some(if goes_on { 2 } else { 4 }),
            }
        }
    }
}

/// Returns the outcome of an operation whose threshold is reached.
pub(super) fn satisfied(operation: &Operation, results: &QueryResults, progress: Progress) -> Outcome {
    match (operation, results) {
        (Operation::GetRecord { key: _, policy: Policy::Quorum(_) }, QueryResults::Records(records)) => {
            Outcome::GetRecord(match records.top() {
                Some(top) => Ok(record_answer(top, &records.records, progress)),
                None => read_record(Policy::First, records, &QueryEnd::ENOUGH, progress),
            })
        }
        (Operation::GetRecord { key: _, policy }, QueryResults::Records(records)) => {
            Outcome::GetRecord(read_record(*policy, records, &QueryEnd::ENOUGH, progress))
        }
        (Operation::GetProviders { key: _, policy }, QueryResults::Providers(found)) => {
            Outcome::GetProviders(read_providers(*policy, &found.providers, &QueryEnd::ENOUGH, progress))
        }
        (operation, _) => timeout(operation, None, progress),
    }
}

/// Returns the outcome of an operation of one step whose query has ended.
pub(super) fn ended(operation: &Operation, results: &QueryResults, end: &QueryEnd, progress: Progress) -> Outcome {
    match (operation, results, end) {
        (Operation::GetRecord { key: _, policy }, QueryResults::Records(records), end) => {
            Outcome::GetRecord(read_record(*policy, records, end, progress))
        }
        (Operation::GetProviders { key: _, policy }, QueryResults::Providers(found), end) => {
            Outcome::GetProviders(read_providers(*policy, &found.providers, end, progress))
        }
        (
            Operation::PutRecordTo { record: _, peers: _, quorum },
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
        (Operation::GetClosestPeers { .. }, _, QueryEnd::ClosestPeers { peers, timed_out }) => {
            Outcome::GetClosestPeers(if *timed_out {
                Err(GetClosestPeersError::Timeout { peers: peers.clone(), progress })
            } else if !peers.is_empty() {
                Ok(ClosestPeersAnswer { peers: peers.clone(), progress })
            } else if progress.requests == 0 {
                Err(GetClosestPeersError::NoKnownPeers)
            } else {
                Err(GetClosestPeersError::NoResponse { progress })
            })
        }
        (Operation::StartProviding { key: _ }, _, QueryEnd::Announced { timed_out }) => {
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
        (Operation::Bootstrap, QueryResults::Bootstrap { phases, failed, finished }, QueryEnd::Bootstrapped) => {
            let (phases, failed, progress) = (*phases, *failed, *finished);
            Outcome::Bootstrap(if failed == phases {
                Err(BootstrapError::AllPhasesFailed { phases, progress })
            } else if progress.requests > 0 && progress.successes == 0 {
                Err(BootstrapError::NoResponse { progress })
            } else {
                Ok(BootstrapAnswer { phases, failed, progress })
            })
        }
        // Unreachable: an operation never waits for a query of another kind.
        (operation, results, _) => timeout(operation, Some(results), progress),
    }
}

/// Returns the number of peers that kad sent an announcement to. kad sends it to the peers that answered, 20 at most,
/// and counts each announcement as answered at once: so half of all answers are announcements, or 20 of them.
fn announced_to(progress: Progress) -> u32 {
    (progress.successes / 2).min(count(REPLICATION_FACTOR))
}

/// Returns the outcome at the deadline with the results so far; `None` if no query was running.
pub(super) fn timeout(operation: &Operation, results: Option<&QueryResults>, progress: Progress) -> Outcome {
    match operation {
        Operation::GetRecord { .. } => Outcome::GetRecord(Err(GetRecordError::Timeout {
            found: match results {
                Some(QueryResults::Records(records)) => records.records.clone(),
                _ => Vec::new(),
            },
            progress,
        })),
        Operation::GetProviders { .. } => Outcome::GetProviders(Err(GetProvidersError::Timeout {
            found: match results {
                Some(QueryResults::Providers(found)) => found.providers.clone(),
                _ => Vec::new(),
            },
            progress,
        })),
        Operation::PutRecord { .. } | Operation::PutRecordTo { .. } => {
            let sent_to = match results {
                Some(QueryResults::Put { asked }) => asked.to_vec(),
                _ => Vec::new(),
            };
            put_outcome(operation, Err(PutRecordError::Timeout { sent_to, progress }))
        }
        Operation::StartProviding { .. } => Outcome::StartProviding(Err(StartProvidingError::Timeout { progress })),
        Operation::GetClosestPeers { .. } => {
            Outcome::GetClosestPeers(Err(GetClosestPeersError::Timeout { peers: Vec::new(), progress }))
        }
        Operation::Bootstrap => Outcome::Bootstrap(Err(match results {
            Some(QueryResults::Bootstrap { phases, failed, finished }) => {
                BootstrapError::Timeout { phases: *phases, failed: *failed, progress: *finished }
            }
            _ => BootstrapError::Timeout { phases: 0, failed: 0, progress },
        })),
    }
}

/// Returns the outcome of a request whose query kad could not start.
pub(super) fn refused(operation: &Operation, error: QueryStartError) -> Outcome {
    match (operation.kind(), error) {
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
        (OperationKind::PutRecord | OperationKind::PutRecordTo, QueryStartError::NoKnownPeers) => {
            put_outcome(operation, Err(PutRecordError::NoKnownPeers))
        }
        (OperationKind::StartProviding, QueryStartError::Store(error)) => {
            Outcome::StartProviding(Err(StartProvidingError::Store(error)))
        }
        (kind, error @ QueryStartError::Store(_)) => Outcome::failed(kind, RequestError::Refused(error)),
    }
}

fn read_record(
    policy: Policy,
    found: &Records,
    end: &QueryEnd,
    progress: Progress,
) -> Result<RecordAnswer, GetRecordError> {
    let records = found.records.as_slice();
    if let QueryEnd::Read { timed_out: true, .. } = end {
        return Err(GetRecordError::Timeout { found: records.to_vec(), progress });
    }
    let Some(first) = records.first() else {
        return Err(if progress.requests == 0 {
            GetRecordError::NoKnownPeers
        } else if progress.successes == 0 {
            GetRecordError::NoResponse { progress }
        } else {
            GetRecordError::NotFound {
                closest_peers: closest_peers(end),
                certainty: if found.rejected > 0 { Certainty::Inconclusive } else { certainty(end, progress) },
                rejected: found.rejected,
                progress,
                cached: None,
            }
        });
    };
    match policy {
        Policy::First => Ok(record_answer(first, records.get(..1).unwrap_or_default(), progress)),
        Policy::Limit(limit) => Ok(record_answer(first, records.get(..limit).unwrap_or(records), progress)),
        Policy::All => Ok(record_answer(first, records, progress)),
        Policy::Best { agree: _ } => Ok(record_answer(found.best().unwrap_or(first), records, progress)),
        Policy::Quorum(quorum) => {
            let needed = quorum.of_sources();
            let mut candidates = found.candidates();
            match (candidates.pop(), candidates.is_empty()) {
                (Some(candidate), true) => Err(GetRecordError::QuorumNotReached { candidate, needed }),
                (last, _) => {
                    candidates.extend(last);
                    Err(GetRecordError::Conflict { candidates, needed })
                }
            }
        }
    }
}

/// Creates the answer that selects `chosen`, one of `records`.
fn record_answer(chosen: &Arc<PeerRecord>, records: &[Arc<PeerRecord>], progress: Progress) -> RecordAnswer {
    let agreeing = records.iter().filter(|record| record.record.value == chosen.record.value).count();
    RecordAnswer {
        record: Arc::clone(chosen),
        others: records.iter().filter(|record| !Arc::ptr_eq(record, chosen)).cloned().collect(),
        agreeing,
        dissenting: records.len().saturating_sub(agreeing),
        repairing: 0,
        progress,
        cached: None,
    }
}

fn read_providers(
    policy: Policy,
    providers: &[PeerId],
    end: &QueryEnd,
    progress: Progress,
) -> Result<ProvidersAnswer, GetProvidersError> {
    if let QueryEnd::Read { timed_out: true, .. } = end {
        return Err(GetProvidersError::Timeout { found: providers.to_vec(), progress });
    }
    if providers.is_empty() {
        return Err(if progress.requests == 0 {
            GetProvidersError::NoKnownPeers
        } else if progress.successes == 0 {
            GetProvidersError::NoResponse { progress }
        } else {
            GetProvidersError::NotFound {
                closest_peers: closest_peers(end),
                certainty: certainty(end, progress),
                progress,
                cached: None,
            }
        });
    }
    let wanted = match policy {
        Policy::First => 1,
        Policy::Limit(limit) => limit,
        Policy::All | Policy::Quorum(_) | Policy::Best { agree: _ } => providers.len(),
    };
    let providers = providers.get(..wanted).unwrap_or(providers).to_vec();
    Ok(ProvidersAnswer { providers, progress, cached: None })
}

/// Returns whether an empty result is conclusive. A query that was finished early is not: it could have asked others.
pub(super) fn certainty(end: &QueryEnd, progress: Progress) -> Certainty {
    match end {
        QueryEnd::Read { finished_early: true, .. } => Certainty::Inconclusive,
        _ => progress.certainty(),
    }
}

fn closest_peers(end: &QueryEnd) -> Vec<PeerId> {
    match end {
        QueryEnd::Read { closest_peers, .. } => closest_peers.clone(),
        QueryEnd::ClosestPeers { .. }
        | QueryEnd::Stored { .. }
        | QueryEnd::Announced { .. }
        | QueryEnd::Bootstrapped => Vec::new(),
    }
}

/// Returns the peers that are not in `others`.
pub(super) fn without(peers: &[PeerId], others: &[PeerId]) -> Vec<PeerId> {
    let others: BTreeSet<_> = others.iter().collect();
    peers.iter().filter(|peer| !others.contains(peer)).copied().collect()
}

/// Returns the number of peers that must acknowledge. Unlike in kad, `N` is not silently lowered.
pub(super) fn needed(quorum: Quorum, peers: usize) -> NonZeroUsize {
    NonZeroUsize::new(quorum.of(peers)).unwrap_or(NonZeroUsize::MIN)
}

fn put_outcome(operation: &Operation, result: Result<PutAnswer, PutRecordError>) -> Outcome {
    if operation.kind() == OperationKind::PutRecordTo {
        Outcome::PutRecordTo(result)
    } else {
        Outcome::PutRecord(result)
    }
}
