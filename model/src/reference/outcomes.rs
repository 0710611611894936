//! Outcomes of requests.

use std::{num::NonZeroUsize, sync::Arc};

use kadence_core::{
    BootstrapAnswer, BootstrapError, Candidate, Certainty, ClosestPeersAnswer, GetClosestPeersError, GetProvidersError,
    GetRecordError, Operation, Outcome, Policy, Progress, ProvideAnswer, ProvidersAnswer, PutAnswer, PutRecordError,
    Query, QueryStartError, Quorum, RecordAnswer, RequestError, StartProvidingError, Validator,
};
use libp2p::{
    PeerId,
    kad::{self, PeerInfo, PeerRecord, QueryResult},
};

use super::{
    LiveQuery,
    results::{self, QueryResults},
    sum,
};

/// Content of kad's last event. Fields that do not apply to the query are empty.
#[derive(Debug, Default, Clone)]
pub(super) struct QueryEnd {
    pub(super) timed_out: bool,
    /// Number of answers from which on an empty result is conclusive. `None` if it never is.
    pub(super) enough_answers: Option<usize>,
    /// The query ran for so long that kad may have stopped to wait for peers.
    pub(super) outlasted: bool,
    /// Closest peers of a read.
    pub(super) closest_peers: Vec<PeerId>,
    /// Closest peers that answered a read without a record.
    pub(super) without: Vec<PeerId>,
    /// Peers found by a lookup.
    pub(super) peers: Vec<PeerInfo>,
    /// Peers that acknowledged a put. `None`: all of them.
    acknowledged_by: Option<Vec<PeerId>>,
}

impl QueryEnd {
    /// Returns the ids of the peers found by a lookup.
    pub(super) fn found(&self) -> Vec<PeerId> {
        self.peers.iter().map(|info| info.peer_id).collect()
    }

    /// Reads kad's last event. The local node is removed from the peers found.
    pub(super) fn of(result: QueryResult, local: PeerId) -> Self {
        let mut query_end = Self::default();
        match result {
            QueryResult::GetRecord(Ok(kad::GetRecordOk::FinishedWithNoAdditionalRecord { cache_candidates })) => {
                query_end.without = cache_candidates.into_values().collect();
            }
            QueryResult::GetRecord(Ok(_))
            | QueryResult::GetProviders(Ok(kad::GetProvidersOk::FoundProviders { key: _, providers: _ }))
            | QueryResult::PutRecord(Ok(_))
            | QueryResult::StartProviding(Ok(_))
            | QueryResult::Bootstrap(_)
            | QueryResult::RepublishProvider(_)
            | QueryResult::RepublishRecord(_) => {}
            QueryResult::GetRecord(Err(kad::GetRecordError::NotFound { key: _, closest_peers }))
            | QueryResult::GetProviders(Ok(kad::GetProvidersOk::FinishedWithNoAdditionalRecord { closest_peers })) => {
                query_end.closest_peers = closest_peers;
            }
            QueryResult::GetProviders(Err(kad::GetProvidersError::Timeout { key: _, closest_peers })) => {
                (query_end.timed_out, query_end.closest_peers) = (true, closest_peers);
            }
            QueryResult::GetRecord(Err(kad::GetRecordError::Timeout { key: _ }))
            | QueryResult::StartProviding(Err(kad::AddProviderError::Timeout { key: _ })) => query_end.timed_out = true,
            QueryResult::GetClosestPeers(Ok(kad::GetClosestPeersOk { key: _, peers })) => query_end.peers = peers,
            QueryResult::GetClosestPeers(Err(kad::GetClosestPeersError::Timeout { key: _, peers })) => {
                (query_end.timed_out, query_end.peers) = (true, peers);
            }
            QueryResult::PutRecord(Err(
                kad::PutRecordError::QuorumFailed { key: _, success, quorum: _ }
                | kad::PutRecordError::Timeout { key: _, success, quorum: _ },
            )) => query_end.acknowledged_by = Some(success),
        }
        query_end.peers.retain(|info| info.peer_id != local);
        query_end
    }
}

/// Returns the outcome of a request whose query has ended. Puts to the closest peers are handled in
/// [`puts`](super::puts).
pub(super) fn ended(
    operation: &Operation,
    query: &LiveQuery,
    validator: Option<&dyn Validator>,
    query_end: &QueryEnd,
) -> Outcome {
    let progress = query.progress;
    let nobody_known = progress.requests == 0;
    match operation {
        Operation::GetRecord { .. } | Operation::GetProviders { .. } => {
            read(operation, (&query.results, progress), validator, false, query_end)
        }
        Operation::PutRecord { .. } => unreachable!("puts are handled in `puts`"),
        Operation::PutRecordTo { record: _, peers, quorum } => {
            Outcome::PutRecordTo(stored(peers, *quorum, query_end, progress))
        }
        Operation::StartProviding { key: _ } => Outcome::StartProviding(if query_end.timed_out {
            Err(StartProvidingError::Timeout { progress })
        } else if nobody_known && progress.successes == 0 {
            Err(StartProvidingError::NoKnownPeers)
        } else if progress.successes == 0 {
            Err(StartProvidingError::NoResponse { progress })
        } else {
            // kad counts the answers to the lookup and the announcements together, so half of them are announcements.
            // At most 20 peers get one.
            Ok(ProvideAnswer::new((progress.successes / 2).min(20), progress))
        }),
        Operation::GetClosestPeers { .. } => {
            let peers = query_end.peers.clone();
            Outcome::GetClosestPeers(if query_end.timed_out {
                Err(GetClosestPeersError::Timeout { peers: peers.into(), progress })
            } else if !peers.is_empty() {
                let mut answer = ClosestPeersAnswer::new(peers, progress);
                answer.certainty = certainty(query_end, progress);
                Ok(answer)
            } else if nobody_known {
                Err(GetClosestPeersError::NoKnownPeers)
            } else {
                Err(GetClosestPeersError::NoResponse { progress })
            })
        }
        Operation::Bootstrap => {
            let (phases, failed, progress) = bootstrap_totals(&query.results);
            Outcome::Bootstrap(if failed == phases {
                Err(BootstrapError::AllPhasesFailed { phases, progress })
            } else if progress.successes == 0 {
                Err(BootstrapError::NoResponse { progress })
            } else {
                Ok(BootstrapAnswer::new(phases, failed, progress))
            })
        }
    }
}

/// Returns the outcome of a get whose policy is satisfied, or whose query has ended.
pub(super) fn read(
    operation: &Operation,
    (found, progress): (&QueryResults, Progress),
    validator: Option<&dyn Validator>,
    satisfied: bool,
    query_end: &QueryEnd,
) -> Outcome {
    let closest_peers = query_end.closest_peers.clone();
    match operation {
        Operation::GetRecord { key: _, policy } => {
            let records = found.records.clone();
            let Some(first) = records.first().filter(|_| !query_end.timed_out) else {
                return Outcome::GetRecord(Err(if query_end.timed_out {
                    GetRecordError::Timeout { found: records.into(), progress }
                } else if progress.requests == 0 {
                    GetRecordError::NoKnownPeers
                } else if progress.successes == 0 {
                    GetRecordError::NoResponse { progress }
                } else {
                    GetRecordError::NotFound {
                        closest_peers: closest_peers.into(),
                        certainty: match found.rejected {
                            0 => certainty(query_end, progress),
                            _ => Certainty::Inconclusive,
                        },
                        rejected: found.rejected,
                        progress,
                    }
                }));
            };
            Outcome::GetRecord(match *policy {
                Policy::First => Ok(answer(first, &records, 1, progress)),
                Policy::Limit(limit) => Ok(answer(first, &records, limit, progress)),
                Policy::All => Ok(answer(first, &records, usize::MAX, progress)),
                Policy::Best { agree: _ } => {
                    Ok(answer(found.best(validator).unwrap_or(first), &records, usize::MAX, progress))
                }
                Policy::Quorum(_) if satisfied => {
                    Ok(answer(found.leading().unwrap_or(first), &records, usize::MAX, progress))
                }
                Policy::Quorum(quorum) => {
                    let needed = results::sources(quorum);
                    let candidates: Vec<_> =
                        found.candidates().into_iter().map(|first| candidate(first, found)).collect();
                    Err(if candidates.len() == 1 {
                        GetRecordError::QuorumNotReached { candidate: candidate(first, found), needed }
                    } else {
                        GetRecordError::Conflict { candidates: candidates.into(), needed }
                    })
                }
            })
        }
        Operation::GetProviders { key: _, policy } => {
            let mut providers = found.providers.clone();
            Outcome::GetProviders(if query_end.timed_out {
                Err(GetProvidersError::Timeout { found: providers.into(), progress })
            } else if !providers.is_empty() {
                providers.truncate(match *policy {
                    Policy::First => 1,
                    Policy::Limit(limit) => limit,
                    Policy::All | Policy::Quorum(_) | Policy::Best { agree: _ } => usize::MAX,
                });
                Ok(ProvidersAnswer::new(providers, progress))
            } else if progress.requests == 0 {
                Err(GetProvidersError::NoKnownPeers)
            } else if progress.successes == 0 {
                Err(GetProvidersError::NoResponse { progress })
            } else {
                Err(GetProvidersError::NotFound {
                    closest_peers: closest_peers.into(),
                    certainty: certainty(query_end, progress),
                    progress,
                })
            })
        }
        Operation::PutRecord { .. }
        | Operation::PutRecordTo { .. }
        | Operation::StartProviding { .. }
        | Operation::GetClosestPeers { .. }
        | Operation::Bootstrap => unreachable!("only gets are satisfied before the end of their query"),
    }
}

/// Returns the outcome of a request at its deadline. `query` is `None` if the current step has not sent anything.
pub(super) fn timeout(operation: &Operation, query: Option<&LiveQuery>, progress: Progress) -> Outcome {
    match operation {
        Operation::GetRecord { .. } => {
            let found = query.map_or_else(Vec::new, |query| query.results.records.clone());
            Outcome::GetRecord(Err(GetRecordError::Timeout { found: found.into(), progress }))
        }
        Operation::GetProviders { .. } => {
            let found = query.map_or_else(Vec::new, |query| query.results.providers.clone());
            Outcome::GetProviders(Err(GetProvidersError::Timeout { found: found.into(), progress }))
        }
        Operation::PutRecord { .. } => {
            Outcome::PutRecord(Err(PutRecordError::Timeout { sent_to: Vec::new(), progress }))
        }
        Operation::PutRecordTo { .. } => {
            Outcome::PutRecordTo(Err(PutRecordError::Timeout { sent_to: sent_to(query), progress }))
        }
        Operation::StartProviding { .. } => Outcome::StartProviding(Err(StartProvidingError::Timeout { progress })),
        Operation::GetClosestPeers { .. } => {
            Outcome::GetClosestPeers(Err(GetClosestPeersError::Timeout { peers: Arc::default(), progress }))
        }
        Operation::Bootstrap => {
            // Only phases that have ended count.
            let (phases, failed, progress) = query.map_or((0, 0, progress), |query| bootstrap_totals(&query.results));
            Outcome::Bootstrap(Err(BootstrapError::Timeout { phases, failed, progress }))
        }
    }
}

/// Results of a failed attempt.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) records: Vec<Arc<PeerRecord>>,
    pub(super) sent_to: Vec<PeerId>,
    pub(super) progress: Progress,
}

impl Attempt {
    pub(super) fn of(query: &LiveQuery) -> Self {
        Self { records: query.results.records.clone(), sent_to: sent_to(Some(query)), progress: query.progress }
    }
}

/// Adds the results of earlier attempts to a timeout, those of the latest attempt first.
pub(super) fn with_earlier(mut outcome: Outcome, earlier: &[Attempt], max_items: usize) -> Outcome {
    for attempt in earlier.iter().rev() {
        match &mut outcome {
            Outcome::GetRecord(Err(GetRecordError::Timeout { found, progress })) => {
                let mut all = found.to_vec();
                for record in &attempt.records {
                    if all.len() < max_items && all.iter().all(|known| known.peer != record.peer) {
                        all.push(Arc::clone(record));
                    }
                }
                *found = all.into();
                *progress = sum(*progress, attempt.progress);
            }
            Outcome::PutRecord(Err(PutRecordError::Timeout { sent_to, progress }))
            | Outcome::PutRecordTo(Err(PutRecordError::Timeout { sent_to, progress })) => {
                for peer in &attempt.sent_to {
                    if sent_to.len() < 1000 && !sent_to.contains(peer) {
                        sent_to.push(*peer);
                    }
                }
                *progress = sum(*progress, attempt.progress);
            }
            Outcome::GetProviders(Err(GetProvidersError::Timeout { found: _, progress }))
            | Outcome::StartProviding(Err(StartProvidingError::Timeout { progress }))
            | Outcome::GetClosestPeers(Err(GetClosestPeersError::Timeout { peers: _, progress })) => {
                *progress = sum(*progress, attempt.progress);
            }
            _ => {}
        }
    }
    outcome
}

/// Returns the outcome of a request whose query kad did not start.
pub(super) fn refused(operation: &Operation, error: &QueryStartError) -> Outcome {
    match (operation, error) {
        (Operation::StartProviding { .. }, QueryStartError::Store(error)) => {
            Outcome::StartProviding(Err(StartProvidingError::Store(error.clone())))
        }
        (Operation::StartProviding { .. }, QueryStartError::NoExternalAddress) => {
            Outcome::StartProviding(Err(StartProvidingError::NoExternalAddress))
        }
        (_, QueryStartError::Store(_) | QueryStartError::NoExternalAddress) => {
            failed(operation, RequestError::Refused(error.clone()))
        }
        (Operation::GetRecord { .. }, QueryStartError::NoKnownPeers) => {
            Outcome::GetRecord(Err(GetRecordError::NoKnownPeers))
        }
        (Operation::PutRecord { .. }, QueryStartError::NoKnownPeers) => {
            Outcome::PutRecord(Err(PutRecordError::NoKnownPeers))
        }
        (Operation::PutRecordTo { .. }, QueryStartError::NoKnownPeers) => {
            Outcome::PutRecordTo(Err(PutRecordError::NoKnownPeers))
        }
        (Operation::GetProviders { .. }, QueryStartError::NoKnownPeers) => {
            Outcome::GetProviders(Err(GetProvidersError::NoKnownPeers))
        }
        (Operation::StartProviding { .. }, QueryStartError::NoKnownPeers) => {
            Outcome::StartProviding(Err(StartProvidingError::NoKnownPeers))
        }
        (Operation::GetClosestPeers { .. }, QueryStartError::NoKnownPeers) => {
            Outcome::GetClosestPeers(Err(GetClosestPeersError::NoKnownPeers))
        }
        (Operation::Bootstrap, QueryStartError::NoKnownPeers) => Outcome::Bootstrap(Err(BootstrapError::NoKnownPeers)),
    }
}

pub(super) fn failed(operation: &Operation, error: RequestError) -> Outcome {
    match operation {
        Operation::GetRecord { .. } => Outcome::GetRecord(Err(GetRecordError::Request(error))),
        Operation::PutRecord { .. } => Outcome::PutRecord(Err(PutRecordError::Request(error))),
        Operation::PutRecordTo { .. } => Outcome::PutRecordTo(Err(PutRecordError::Request(error))),
        Operation::GetProviders { .. } => Outcome::GetProviders(Err(GetProvidersError::Request(error))),
        Operation::StartProviding { .. } => Outcome::StartProviding(Err(StartProvidingError::Request(error))),
        Operation::GetClosestPeers { .. } => Outcome::GetClosestPeers(Err(GetClosestPeersError::Request(error))),
        Operation::Bootstrap => Outcome::Bootstrap(Err(BootstrapError::Request(error))),
    }
}

/// Returns whether another attempt could succeed without discarding results.
pub(super) fn worth_retrying(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::GetRecord(Err(error)) => match error {
            GetRecordError::NotFound { certainty, rejected, .. } => {
                *certainty == Certainty::Inconclusive && *rejected == 0
            }
            GetRecordError::NoResponse { .. }
            | GetRecordError::QuorumNotReached { .. }
            | GetRecordError::NoKnownPeers => true,
            GetRecordError::Timeout { found, progress: _ } => found.is_empty(),
            GetRecordError::Conflict { .. } | GetRecordError::Request(_) => false,
            error => unreachable!("unknown to the model: {error}"),
        },
        Outcome::GetProviders(Err(error)) => match error {
            GetProvidersError::NotFound { certainty, .. } => *certainty == Certainty::Inconclusive,
            GetProvidersError::NoResponse { .. } | GetProvidersError::NoKnownPeers => true,
            GetProvidersError::Timeout { found, progress: _ } => found.is_empty(),
            GetProvidersError::Request(_) => false,
            error => unreachable!("unknown to the model: {error}"),
        },
        Outcome::PutRecord(Err(error)) | Outcome::PutRecordTo(Err(error)) => match error {
            PutRecordError::QuorumFailed { .. }
            | PutRecordError::NotVerified { .. }
            | PutRecordError::NoResponse { .. }
            | PutRecordError::InsufficientPeers { .. }
            | PutRecordError::NoKnownPeers => true,
            PutRecordError::Timeout { .. } | PutRecordError::Store { .. } | PutRecordError::Request(_) => false,
            error => unreachable!("unknown to the model: {error}"),
        },
        Outcome::StartProviding(Err(error)) => match error {
            StartProvidingError::NoResponse { .. }
            | StartProvidingError::Timeout { .. }
            | StartProvidingError::NoKnownPeers => true,
            StartProvidingError::Store(_)
            | StartProvidingError::NoExternalAddress
            | StartProvidingError::Request(_) => false,
            error => unreachable!("unknown to the model: {error}"),
        },
        Outcome::GetClosestPeers(Err(error)) => match error {
            GetClosestPeersError::NoResponse { .. } | GetClosestPeersError::NoKnownPeers => true,
            GetClosestPeersError::Timeout { peers, progress: _ } => peers.is_empty(),
            GetClosestPeersError::Request(_) => false,
            error => unreachable!("unknown to the model: {error}"),
        },
        Outcome::Bootstrap(Err(error)) => match error {
            BootstrapError::AllPhasesFailed { .. }
            | BootstrapError::NoResponse { .. }
            | BootstrapError::NoKnownPeers => true,
            BootstrapError::Timeout { .. } | BootstrapError::Request(_) => false,
            error => unreachable!("unknown to the model: {error}"),
        },
        Outcome::GetRecord(Ok(_))
        | Outcome::GetProviders(Ok(_))
        | Outcome::PutRecord(Ok(_))
        | Outcome::PutRecordTo(Ok(_))
        | Outcome::StartProviding(Ok(_))
        | Outcome::GetClosestPeers(Ok(_))
        | Outcome::Bootstrap(Ok(_)) => false,
    }
}

/// Returns `chosen` and the others of the first `limit` records.
fn answer(chosen: &Arc<PeerRecord>, records: &[Arc<PeerRecord>], limit: usize, progress: Progress) -> RecordAnswer {
    let records: Vec<_> = records.iter().take(limit).cloned().collect();
    let agreeing = records.iter().filter(|record| record.record.value == chosen.record.value).count();
    let dissenting = records.iter().filter(|record| record.record.value != chosen.record.value).count();
    let mut answer = RecordAnswer::new(Arc::clone(chosen), progress);
    (answer.agreeing, answer.dissenting) = (agreeing, dissenting);
    answer.others = records.into_iter().filter(|record| record.peer != chosen.peer).collect();
    answer
}

fn candidate(first: &Arc<PeerRecord>, found: &QueryResults) -> Candidate {
    Candidate::new(Arc::clone(first), found.votes(first))
}

/// Returns the peers that have acknowledged.
pub(super) fn acknowledged(peers: &[PeerId], query_end: &QueryEnd) -> Vec<PeerId> {
    match &query_end.acknowledged_by {
        None => peers.to_vec(),
        Some(acknowledged_by) => {
            let mut acknowledged = Vec::new();
            for peer in acknowledged_by {
                if peers.contains(peer) && !acknowledged.contains(peer) {
                    acknowledged.push(*peer);
                }
            }
            acknowledged
        }
    }
}

fn stored(
    peers: &[PeerId],
    quorum: Quorum,
    query_end: &QueryEnd,
    progress: Progress,
) -> Result<PutAnswer, PutRecordError> {
    let acknowledged = acknowledged(peers, query_end);
    let (asked, needed) = (peers.len(), needed(quorum, peers.len()));
    if acknowledged.len() >= needed.get() {
        let unacknowledged = peers.iter().filter(|peer| !acknowledged.contains(peer)).copied().collect();
        Ok(PutAnswer::new(acknowledged, unacknowledged, progress))
    } else {
        Err(PutRecordError::QuorumFailed { acknowledged, needed, asked })
    }
}

pub(super) fn needed(quorum: Quorum, peers: usize) -> NonZeroUsize {
    let needed = match quorum {
        Quorum::One => 1,
        Quorum::Majority => peers / 2 + 1,
        Quorum::All => peers,
        Quorum::N(n) => n as usize,
    };
    NonZeroUsize::new(needed).unwrap_or(NonZeroUsize::MIN)
}

/// Conclusive if enough peers, and at least four of five, have answered. Pending requests count after a long query alone.
pub(super) fn certainty(query_end: &QueryEnd, progress: Progress) -> Certainty {
    let asked = u64::from(if query_end.outlasted { progress.requests } else { 0 });
    let asked = asked.max(u64::from(progress.successes) + u64::from(progress.failures));
    if query_end.enough_answers.is_some_and(|enough| progress.successes as usize >= enough)
        && progress.successes > 0
        && u64::from(progress.successes) * 5 >= asked * 4
    {
        Certainty::Conclusive
    } else {
        Certainty::Inconclusive
    }
}

/// Returns the peers of a put that was given to kad.
fn sent_to(query: Option<&LiveQuery>) -> Vec<PeerId> {
    match query.map(|query| &query.query) {
        Some(Query::PutRecordTo { record: _, peers }) => peers.to_vec(),
        _ => Vec::new(),
    }
}

/// Returns the number of phases of a bootstrap, the number of failed ones, and the progress of all.
fn bootstrap_totals(found: &QueryResults) -> (u32, u32, Progress) {
    let count = |phases: usize| u32::try_from(phases).unwrap_or(u32::MAX);
    let failed = found.phases.iter().filter(|(ok, _)| !ok).count();
    let progress = found.phases.iter().fold(Progress::default(), |total, (_, progress)| sum(total, *progress));
    (count(found.phases.len()), count(failed), progress)
}
