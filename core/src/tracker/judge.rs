//! What each operation makes of kad's events: which query it begins with, when it is satisfied, what its outcome is.
//!
//! Everything here is a function of a request's operation and of what its query has found so far; the lifecycle, the
//! slots and the clock are the business of the parent module.

use std::{collections::BTreeSet, mem, num::NonZeroUsize, sync::Arc};

use libp2p::{
    PeerId,
    kad::{
        AddProviderOk, BootstrapError as KadBootstrapError, BootstrapOk, GetClosestPeersError as KadClosestError,
        GetClosestPeersOk, GetProvidersError as KadProvidersError, GetProvidersOk, GetRecordError as KadGetError,
        GetRecordOk, PeerInfo, PeerRecord, PutRecordError as KadPutError, PutRecordOk, QueryResult, Quorum,
    },
};

use crate::{
    BootstrapAnswer, BootstrapError, BootstrapPhase, ClosestPeersAnswer, GetClosestPeersError, GetProvidersError,
    GetRecordError, Item, Operation, OperationKind, Outcome, Policy, Progress, ProvideAnswer, ProvidersAnswer,
    PutAnswer, PutRecordError, Query, RecordAnswer, RequestError, StartError, StartProvidingError,
};

/// What a query has found so far, for the request that waits for it.
#[derive(Debug)]
pub(super) enum Findings {
    Records {
        records: Vec<Arc<PeerRecord>>,
        sources: BTreeSet<Option<PeerId>>,
    },
    Providers {
        providers: Vec<PeerId>,
        seen: BTreeSet<PeerId>,
    },
    /// kad names closest peers only in the last event.
    ClosestPeers,
    /// kad names the peers that acknowledged only in the last event.
    Put {
        asked: Arc<[PeerId]>,
        lookup: Progress,
    },
    Announcement,
    Bootstrap {
        phases: u32,
        failed: u32,
        finished: Progress,
    },
}

impl Findings {
    /// The empty findings of a query; `lookup` is the progress of the request's earlier steps.
    pub(super) fn of(query: &Query, lookup: Progress) -> Self {
        match query {
            Query::GetRecord { key: _ } => Self::Records { records: Vec::new(), sources: BTreeSet::new() },
            Query::GetProviders { key: _ } => Self::Providers { providers: Vec::new(), seen: BTreeSet::new() },
            Query::GetClosestPeers { target: _ } => Self::ClosestPeers,
            Query::PutRecordTo { record: _, peers } => Self::Put { asked: Arc::clone(peers), lookup },
            Query::StartProviding { key: _ } => Self::Announcement,
            Query::Bootstrap => Self::Bootstrap { phases: 0, failed: 0, finished: Progress::default() },
        }
    }
}

/// What becomes of a request at an event.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It waits for more.
    Continue,
    /// It is over. The query may still run.
    Done(Outcome),
    /// A put's lookup has found these peers to store at.
    StoreAt { peers: Arc<[PeerId]>, lookup: Progress },
    /// A put has its quorum: the record goes into the local store, and then this is its answer.
    KeepLocally(PutAnswer),
}

/// An event that cannot be about this query; it is counted and otherwise ignored.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The kind of result does not fit the query.
    Mismatch,
    /// A record under another key.
    ForeignRecord,
}

/// The first query of an operation.
pub(super) fn first_query(operation: &Operation) -> Query {
    match operation {
        Operation::GetRecord { key, policy: _ } => Query::GetRecord { key: key.clone() },
        Operation::PutRecord { record, quorum: _ } => Query::GetClosestPeers { target: record.key.clone() },
        Operation::PutRecordTo { record, peers, quorum: _ } => {
            Query::PutRecordTo { record: Arc::clone(record), peers: peers.as_slice().into() }
        }
        Operation::GetProviders { key, policy: _ } => Query::GetProviders { key: key.clone() },
        Operation::StartProviding { key } => Query::StartProviding { key: key.clone() },
        Operation::GetClosestPeers { target } => Query::GetClosestPeers { target: target.clone() },
        Operation::Bootstrap => Query::Bootstrap,
    }
}

/// Whether a result can belong to a query at all.
pub(super) fn fits(query: OperationKind, result: &QueryResult) -> bool {
    match result {
        QueryResult::Bootstrap(_) => query == OperationKind::Bootstrap,
        QueryResult::GetClosestPeers(_) => query == OperationKind::GetClosestPeers,
        QueryResult::GetProviders(_) => query == OperationKind::GetProviders,
        QueryResult::StartProviding(_) => query == OperationKind::StartProviding,
        QueryResult::GetRecord(_) => query == OperationKind::GetRecord,
        QueryResult::PutRecord(_) => query == OperationKind::PutRecordTo,
        QueryResult::RepublishProvider(_) | QueryResult::RepublishRecord(_) => false,
    }
}

/// The request that an event is judged for.
pub(super) struct Judge<'a> {
    pub(super) operation: &'a Operation,
    pub(super) local_peer: PeerId,
    pub(super) max_items: usize,
}

impl Judge<'_> {
    /// Takes an event into the findings and says what becomes of the request. New items go to `deliver`.
    ///
    /// Only `last` ends a query, whatever the result looks like.
    pub(super) fn event(
        &self,
        findings: &mut Findings,
        result: QueryResult,
        progress: Progress,
        last: bool,
        deliver: &mut dyn FnMut(Item),
    ) -> Result<Verdict, Fault> {
        match (result, findings) {
            (QueryResult::GetRecord(result), Findings::Records { records, sources }) => {
                let mut timed_out = false;
                let mut closest = Vec::new();
                let mut fault = None;
                match result {
                    Ok(GetRecordOk::FoundRecord(found)) => {
                        if found.record.key.as_ref() != self.operation.key() {
                            fault = Some(Fault::ForeignRecord);
                        } else if sources.insert(found.peer) {
                            let found = Arc::new(found);
                            deliver(Item::Record(Arc::clone(&found)));
                            records.push(found);
                        }
                    }
                    Ok(GetRecordOk::FinishedWithNoAdditionalRecord { cache_candidates: _ }) => {}
                    Err(KadGetError::NotFound { key: _, closest_peers }) => closest = closest_peers,
                    Err(KadGetError::Timeout { key: _ }) => timed_out = true,
                }
                if self.satisfied(records.len()) {
                    Ok(Verdict::Done(Outcome::GetRecord(record_answer(mem::take(records), progress, Vec::new()))))
                } else if last {
                    let records = mem::take(records);
                    Ok(Verdict::Done(Outcome::GetRecord(if timed_out {
                        Err(GetRecordError::Timeout { found: records, progress })
                    } else {
                        record_answer(records, progress, closest)
                    })))
                } else {
                    fault.map_or(Ok(Verdict::Continue), Err)
                }
            }
            (QueryResult::GetProviders(result), Findings::Providers { providers, seen }) => {
                let mut timed_out = false;
                let mut closest = Vec::new();
                match result {
                    Ok(GetProvidersOk::FoundProviders { key: _, providers: batch }) => {
                        // kad's set is randomly seeded: sorted, so that the same inputs give the same actions.
                        let batch: BTreeSet<PeerId> = batch.into_iter().collect();
                        for provider in batch {
                            if self.satisfied(providers.len()) {
                                break;
                            }
                            if seen.insert(provider) {
                                deliver(Item::Provider(provider));
                                providers.push(provider);
                            }
                        }
                    }
                    Ok(GetProvidersOk::FinishedWithNoAdditionalRecord { closest_peers }) => closest = closest_peers,
                    Err(KadProvidersError::Timeout { key: _, closest_peers: _ }) => timed_out = true,
                }
                if self.satisfied(providers.len()) {
                    let providers = mem::take(providers);
                    Ok(Verdict::Done(Outcome::GetProviders(providers_answer(providers, progress, Vec::new()))))
                } else if last {
                    let providers = mem::take(providers);
                    Ok(Verdict::Done(Outcome::GetProviders(if timed_out {
                        Err(GetProvidersError::Timeout { found: providers, progress })
                    } else {
                        providers_answer(providers, progress, closest)
                    })))
                } else {
                    Ok(Verdict::Continue)
                }
            }
            (QueryResult::GetClosestPeers(result), Findings::ClosestPeers) => {
                let (peers, timed_out) = match result {
                    Ok(GetClosestPeersOk { key: _, peers }) => (peers, false),
                    Err(KadClosestError::Timeout { key: _, peers }) => (peers, true),
                };
                if !last {
                    return Ok(Verdict::Continue);
                }
                Ok(match self.operation {
                    Operation::PutRecord { record: _, quorum } => self.put_lookup_ended(&peers, *quorum, progress),
                    _ => Verdict::Done(Outcome::GetClosestPeers(if timed_out {
                        Err(GetClosestPeersError::Timeout { peers, progress })
                    } else if !peers.is_empty() {
                        Ok(ClosestPeersAnswer { peers, progress })
                    } else if progress.requests == 0 {
                        Err(GetClosestPeersError::NoKnownPeers)
                    } else {
                        Err(GetClosestPeersError::NobodyAnswered { progress })
                    })),
                })
            }
            (QueryResult::PutRecord(result), Findings::Put { asked, lookup }) => {
                let acknowledged = match result {
                    Ok(PutRecordOk { key: _ }) => asked.to_vec(),
                    Err(
                        KadPutError::QuorumFailed { key: _, success, quorum: _ }
                        | KadPutError::Timeout { key: _, success, quorum: _ },
                    ) => distinct(success.into_iter().filter(|peer| asked.contains(peer))),
                };
                if !last {
                    return Ok(Verdict::Continue);
                }
                Ok(self.store_ended(acknowledged, asked.len(), lookup.merge(progress)))
            }
            (QueryResult::StartProviding(result), Findings::Announcement) => {
                let timed_out = match result {
                    Ok(AddProviderOk { key: _ }) => false,
                    Err(_timeout) => true,
                };
                if !last {
                    return Ok(Verdict::Continue);
                }
                Ok(Verdict::Done(Outcome::StartProviding(if timed_out {
                    Err(StartProvidingError::Timeout { progress })
                } else if progress.successes > 0 {
                    Ok(ProvideAnswer { progress })
                } else if progress.requests == 0 {
                    Err(StartProvidingError::NoKnownPeers)
                } else {
                    Err(StartProvidingError::NobodyAnswered { progress })
                })))
            }
            (QueryResult::Bootstrap(result), Findings::Bootstrap { phases, failed, finished }) => {
                let phase = match result {
                    Ok(BootstrapOk { peer: _, num_remaining }) => {
                        BootstrapPhase { ok: true, remaining: Some(num_remaining) }
                    }
                    Err(KadBootstrapError::Timeout { peer: _, num_remaining }) => {
                        BootstrapPhase { ok: false, remaining: num_remaining }
                    }
                };
                *phases = phases.saturating_add(1);
                *failed = failed.saturating_add(u32::from(!phase.ok));
                *finished = finished.merge(progress);
                deliver(Item::BootstrapPhase(phase));
                if !last {
                    return Ok(Verdict::Continue);
                }
                let (phases, failed, progress) = (*phases, *failed, *finished);
                Ok(Verdict::Done(Outcome::Bootstrap(if failed == phases {
                    Err(BootstrapError::AllPhasesFailed { phases, progress })
                } else if progress.requests > 0 && progress.successes == 0 {
                    Err(BootstrapError::NobodyAnswered { progress })
                } else {
                    Ok(BootstrapAnswer { phases, failed, progress })
                })))
            }
            (
                QueryResult::GetRecord(_)
                | QueryResult::GetProviders(_)
                | QueryResult::GetClosestPeers(_)
                | QueryResult::PutRecord(_)
                | QueryResult::StartProviding(_)
                | QueryResult::Bootstrap(_)
                | QueryResult::RepublishProvider(_)
                | QueryResult::RepublishRecord(_),
                _,
            ) => Err(Fault::Mismatch),
        }
    }

    /// The outcome at the deadline, with whatever was found; `None` if the request has no query running.
    pub(super) fn timeout(&self, findings: Option<Findings>, progress: Progress) -> Outcome {
        match (self.operation, findings) {
            (Operation::GetRecord { .. }, findings) => Outcome::GetRecord(Err(GetRecordError::Timeout {
                found: match findings {
                    Some(Findings::Records { records, sources: _ }) => records,
                    _ => Vec::new(),
                },
                progress,
            })),
            (Operation::GetProviders { .. }, findings) => Outcome::GetProviders(Err(GetProvidersError::Timeout {
                found: match findings {
                    Some(Findings::Providers { providers, seen: _ }) => providers,
                    _ => Vec::new(),
                },
                progress,
            })),
            (operation @ (Operation::PutRecord { .. } | Operation::PutRecordTo { .. }), findings) => {
                let (sent_to, lookup) = match findings {
                    Some(Findings::Put { asked, lookup }) => (asked.to_vec(), lookup),
                    _ => (Vec::new(), Progress::default()),
                };
                put_outcome(operation, Err(PutRecordError::Timeout { sent_to, progress: lookup.merge(progress) }))
            }
            (Operation::StartProviding { .. }, _) => {
                Outcome::StartProviding(Err(StartProvidingError::Timeout { progress }))
            }
            (Operation::GetClosestPeers { .. }, _) => {
                Outcome::GetClosestPeers(Err(GetClosestPeersError::Timeout { peers: Vec::new(), progress }))
            }
            (Operation::Bootstrap, findings) => Outcome::Bootstrap(Err(match findings {
                Some(Findings::Bootstrap { phases, failed, finished }) => {
                    BootstrapError::Timeout { phases, failed, progress: finished }
                }
                _ => BootstrapError::Timeout { phases: 0, failed: 0, progress },
            })),
        }
    }

    /// The outcome of a query that kad refused to start.
    pub(super) fn refused(&self, error: StartError) -> Outcome {
        match (self.operation.kind(), error) {
            (OperationKind::Bootstrap, StartError::NoKnownPeers) => {
                Outcome::Bootstrap(Err(BootstrapError::NoKnownPeers))
            }
            (OperationKind::GetRecord, StartError::NoKnownPeers) => {
                Outcome::GetRecord(Err(GetRecordError::NoKnownPeers))
            }
            (OperationKind::GetProviders, StartError::NoKnownPeers) => {
                Outcome::GetProviders(Err(GetProvidersError::NoKnownPeers))
            }
            (OperationKind::GetClosestPeers, StartError::NoKnownPeers) => {
                Outcome::GetClosestPeers(Err(GetClosestPeersError::NoKnownPeers))
            }
            (OperationKind::StartProviding, StartError::NoKnownPeers) => {
                Outcome::StartProviding(Err(StartProvidingError::NoKnownPeers))
            }
            (OperationKind::PutRecord | OperationKind::PutRecordTo, StartError::NoKnownPeers) => {
                put_outcome(self.operation, Err(PutRecordError::NoKnownPeers))
            }
            (OperationKind::StartProviding, StartError::Store(error)) => {
                Outcome::StartProviding(Err(StartProvidingError::Store(error)))
            }
            (kind, error @ StartError::Store(_)) => Outcome::failed(kind, RequestError::Refused(error)),
        }
    }

    fn satisfied(&self, items: usize) -> bool {
        let wanted = match self.operation {
            Operation::GetRecord { key: _, policy } | Operation::GetProviders { key: _, policy } => match policy {
                Policy::First => 1,
                Policy::Limit(limit) => *limit,
                Policy::All => usize::MAX,
            },
            _ => usize::MAX,
        };
        items >= wanted.min(self.max_items)
    }

    /// A put's lookup is over: kad's own timeout only means that fewer peers were found.
    fn put_lookup_ended(&self, peers: &[PeerInfo], quorum: Quorum, progress: Progress) -> Verdict {
        let peers = distinct(peers.iter().map(|info| info.peer_id).filter(|peer| *peer != self.local_peer));
        if peers.is_empty() {
            return Verdict::Done(Outcome::PutRecord(Err(if progress.requests == 0 {
                PutRecordError::NoKnownPeers
            } else {
                PutRecordError::NobodyAnswered { progress }
            })));
        }
        let needed = needed(quorum, peers.len());
        if needed.get() > peers.len() {
            return Verdict::Done(Outcome::PutRecord(Err(PutRecordError::TooFewPeers { found: peers.len(), needed })));
        }
        Verdict::StoreAt { peers: peers.into(), lookup: progress }
    }

    /// A store query is over.
    fn store_ended(&self, acknowledged: Vec<PeerId>, asked: usize, progress: Progress) -> Verdict {
        let quorum = match self.operation {
            Operation::PutRecord { record: _, quorum } | Operation::PutRecordTo { record: _, peers: _, quorum } => {
                *quorum
            }
            _ => Quorum::All,
        };
        let needed = needed(quorum, asked);
        if acknowledged.len() < needed.get() {
            let error = PutRecordError::QuorumFailed { acknowledged, needed, asked };
            return Verdict::Done(put_outcome(self.operation, Err(error)));
        }
        let answer = PutAnswer { acknowledged, asked, progress };
        if self.operation.kind() == OperationKind::PutRecord {
            Verdict::KeepLocally(answer)
        } else {
            Verdict::Done(Outcome::PutRecordTo(Ok(answer)))
        }
    }
}

/// Peers without repetitions, in their order.
pub(super) fn distinct(peers: impl Iterator<Item = PeerId>) -> Vec<PeerId> {
    let mut seen = BTreeSet::new();
    peers.filter(|peer| seen.insert(*peer)).collect()
}

/// How many of `peers` have to acknowledge. Unlike kad's own reading, `N` is not silently lowered.
pub(super) fn needed(quorum: Quorum, peers: usize) -> NonZeroUsize {
    let needed = match quorum {
        Quorum::One => 1,
        Quorum::Majority => peers / 2 + 1,
        Quorum::All => peers,
        Quorum::N(n) => n.get(),
    };
    NonZeroUsize::new(needed).unwrap_or(NonZeroUsize::MIN)
}

fn put_outcome(operation: &Operation, result: Result<PutAnswer, PutRecordError>) -> Outcome {
    if operation.kind() == OperationKind::PutRecordTo {
        Outcome::PutRecordTo(result)
    } else {
        Outcome::PutRecord(result)
    }
}

fn record_answer(
    records: Vec<Arc<PeerRecord>>,
    progress: Progress,
    closest_peers: Vec<PeerId>,
) -> Result<RecordAnswer, GetRecordError> {
    let mut records = records.into_iter();
    match records.next() {
        Some(record) => Ok(RecordAnswer { record, others: records.collect(), progress }),
        None if progress.requests == 0 => Err(GetRecordError::NoKnownPeers),
        None => Err(GetRecordError::NotFound { closest_peers, progress }),
    }
}

fn providers_answer(
    providers: Vec<PeerId>,
    progress: Progress,
    closest_peers: Vec<PeerId>,
) -> Result<ProvidersAnswer, GetProvidersError> {
    if !providers.is_empty() {
        Ok(ProvidersAnswer { providers, progress })
    } else if progress.requests == 0 {
        Err(GetProvidersError::NoKnownPeers)
    } else {
        Err(GetProvidersError::NotFound { closest_peers, progress })
    }
}
