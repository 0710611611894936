//! Results of a query, for all requests that wait for it.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, OnceLock},
};

use libp2p::{
    PeerId,
    kad::{
        AddProviderError as KadProvideError, AddProviderOk, BootstrapError as KadBootstrapError, BootstrapOk,
        GetClosestPeersError as KadClosestError, GetClosestPeersOk, GetProvidersError as KadProvidersError,
        GetProvidersOk, GetRecordError as KadGetError, GetRecordOk, PeerInfo, PeerRecord,
        PutRecordError as KadPutError, PutRecordOk, QueryResult, Record, RecordKey,
    },
};

use super::scheduler::{Available, Job};
use crate::{BootstrapPhase, Candidate, Item, OperationKind, Progress, Query, QueryStartError, Validator, Validators};

/// Results of a query so far.
#[derive(Debug, Clone)]
pub(super) enum QueryResults {
    Records(Records),
    Providers(Providers),
    /// kad names closest peers only in the last event.
    ClosestPeers,
    /// kad names the peers that acknowledged only in the last event.
    Put {
        asked: Arc<[PeerId]>,
    },
    Announcement,
    Bootstrap {
        phases: u32,
        failed: u32,
        finished: Progress,
    },
}

/// Valid records from distinct sources.
#[derive(Debug, Clone, Default)]
pub(super) struct Records {
    pub(super) records: Vec<Arc<PeerRecord>>,
    /// The records as one slice for any number of answers; made when it is first needed.
    list: OnceLock<Arc<[Arc<PeerRecord>]>>,
    /// Their sources; filled only once there are more than [`FEW`].
    sources: BTreeSet<Option<PeerId>>,
    bytes: usize,
    /// Number of records that the validator rejected.
    pub(super) rejected: u32,
    /// Filled only once a request needs a quorum or the best record.
    tally: Option<Box<Tally>>,
    /// Set for a query that reads a record back after a put.
    read_back: Option<ReadBack>,
}

/// Record that a put has sent, and the number of peers that returned it.
#[derive(Debug, Clone)]
struct ReadBack {
    expected: Arc<Record>,
    copies: usize,
}

/// Number of records up to which a linear search is faster than a set of sources. Most queries find fewer.
const FEW: usize = 8;

/// Distinct providers.
#[derive(Debug, Clone, Default)]
pub(super) struct Providers {
    pub(super) providers: Vec<PeerId>,
    list: OnceLock<Arc<[PeerId]>>,
    seen: BTreeSet<PeerId>,
}

/// Votes by value.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    votes: BTreeMap<ByValue, usize>,
    /// The first value that reached the most votes.
    top: Option<(ByValue, usize)>,
    best: Option<ByValue>,
}

/// A record that compares by its value only.
#[derive(Debug, Clone)]
pub(super) struct ByValue(Arc<PeerRecord>);

impl ByValue {
    fn bytes(&self) -> &[u8] {
        &self.0.record.value
    }
}

impl Ord for ByValue {
    fn cmp(&self, other: &Self) -> Ordering {
        self.bytes().cmp(other.bytes())
    }
}

impl PartialOrd for ByValue {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for ByValue {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Eq for ByValue {}

/// End of a query for a request that waits for it.
#[derive(Debug)]
pub(super) enum QueryEnd {
    /// The results so far satisfy the request. The query may go on for others.
    Satisfied,
    /// The query has found as much as one request may collect.
    Full,
    /// kad could not start it.
    NotStarted(QueryStartError),
    /// `without`: the closest peers that answered and have no record.
    Read {
        closest_peers: Arc<[PeerId]>,
        without: Vec<PeerId>,
        timed_out: bool,
    },
    ClosestPeers {
        peers: Vec<PeerInfo>,
        timed_out: bool,
    },
    Stored {
        acknowledged: Vec<PeerId>,
    },
    Announced {
        timed_out: bool,
    },
    Bootstrapped,
}

/// Results of one event.
#[derive(Debug)]
pub(super) struct ResultDelta {
    /// Items to add one by one, because requests may end between two of them.
    pub(super) items: NewItems,
    /// The end of the query, if the event is its last.
    pub(super) end: Option<QueryEnd>,
    pub(super) anomaly: Option<Anomaly>,
}

/// Items that the query had not found before.
#[derive(Debug)]
pub(super) enum NewItems {
    None,
    One(Item),
    /// kad's set is randomly seeded. This one is sorted, so that the same inputs give the same actions.
    Providers(BTreeSet<PeerId>),
}

impl NewItems {
    pub(super) fn next(&mut self) -> Option<Item> {
        match self {
            Self::None => None,
            Self::One(_) => match std::mem::replace(self, Self::None) {
                Self::One(item) => Some(item),
                Self::None | Self::Providers(_) => None,
            },
            Self::Providers(providers) => providers.pop_first().map(Item::Provider),
        }
    }
}

/// Content of an event that cannot be part of an answer. It is counted and otherwise ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Anomaly {
    /// The kind of result does not fit the query.
    Mismatch,
    /// A record under another key.
    ForeignRecord,
    /// A record that its validator rejects.
    Rejected,
}

/// Returns whether a result can belong to a query of this kind.
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

/// Returns the peers without duplicates, in their order.
pub(super) fn distinct(peers: impl Iterator<Item = PeerId>) -> Vec<PeerId> {
    let mut seen = BTreeSet::new();
    peers.filter(|peer| seen.insert(*peer)).collect()
}

/// Returns the peers as a slice to share. Most events name none, and an empty slice takes no allocation.
fn shared(peers: &[PeerId]) -> Arc<[PeerId]> {
    if peers.is_empty() { Arc::default() } else { peers.into() }
}

/// Returns the peers that are not in `others`.
pub(super) fn without(peers: &[PeerId], others: &[PeerId]) -> Vec<PeerId> {
    let others: BTreeSet<_> = others.iter().collect();
    peers.iter().filter(|peer| !others.contains(peer)).copied().collect()
}

impl QueryResults {
    /// Creates the empty results of a query.
    pub(super) fn of(job: &Job) -> Self {
        match job {
            Job::ReadBack(record) => {
                let read_back = Some(ReadBack { expected: Arc::clone(record), copies: 0 });
                Self::Records(Records { read_back, ..Records::default() })
            }
            Job::Query(Query::GetRecord { key: _ }) => Self::Records(Records::default()),
            Job::Query(Query::GetProviders { key: _ }) => Self::Providers(Providers::default()),
            Job::Query(Query::GetClosestPeers { target: _ }) => Self::ClosestPeers,
            Job::Query(Query::PutRecordTo { record: _, peers }) => Self::Put { asked: Arc::clone(peers) },
            Job::Query(Query::StartProviding { key: _ }) => Self::Announcement,
            Job::Query(Query::Bootstrap) => Self::Bootstrap { phases: 0, failed: 0, finished: Progress::default() },
        }
    }

    /// Takes an event apart. [`add`](Self::add) adds its items to the results.
    pub(super) fn delta(
        &mut self,
        job: &Job,
        result: QueryResult,
        progress: Progress,
        validators: &Validators,
    ) -> ResultDelta {
        let (mut items, mut anomaly) = (NewItems::None, None);
        let end = match (result, self, job.key()) {
            (QueryResult::GetRecord(result), Self::Records(records), Some(key)) => {
                let (mut closest_peers, mut without, mut timed_out) = (Vec::new(), Vec::new(), false);
                match result {
                    Ok(GetRecordOk::FoundRecord(found)) => match records.check(key, &found, validators) {
                        Ok(true) => items = NewItems::One(Item::Record(Arc::new(found))),
                        Ok(false) => {}
                        Err(error) => {
                            records.rejected += u32::from(error == Anomaly::Rejected);
                            anomaly = Some(error);
                        }
                    },
                    Ok(GetRecordOk::FinishedWithNoAdditionalRecord { cache_candidates }) => {
                        without = cache_candidates.into_values().collect();
                    }
                    Err(KadGetError::NotFound { key: _, closest_peers: peers }) => closest_peers = peers,
                    Err(KadGetError::Timeout { key: _ }) => timed_out = true,
                }
                Some(QueryEnd::Read { closest_peers: shared(&closest_peers), without, timed_out })
            }
            (QueryResult::GetProviders(result), Self::Providers(found), _) => {
                let (mut closest_peers, mut timed_out) = (Vec::new(), false);
                match result {
                    Ok(GetProvidersOk::FoundProviders { key: _, providers }) => {
                        let new = providers.into_iter().filter(|provider| !found.seen.contains(provider));
                        items = NewItems::Providers(new.collect());
                    }
                    Ok(GetProvidersOk::FinishedWithNoAdditionalRecord { closest_peers: peers }) => {
                        closest_peers = peers;
                    }
                    Err(KadProvidersError::Timeout { key: _, closest_peers: peers }) => {
                        (closest_peers, timed_out) = (peers, true);
                    }
                }
                Some(QueryEnd::Read { closest_peers: shared(&closest_peers), without: Vec::new(), timed_out })
            }
            (QueryResult::GetClosestPeers(result), Self::ClosestPeers, _) => {
                let (peers, timed_out) = match result {
                    Ok(GetClosestPeersOk { key: _, peers }) => (peers, false),
                    Err(KadClosestError::Timeout { key: _, peers }) => (peers, true),
                };
                Some(QueryEnd::ClosestPeers { peers, timed_out })
            }
            (QueryResult::PutRecord(result), Self::Put { asked }, _) => {
                let acknowledged = match result {
                    Ok(PutRecordOk { key: _ }) => asked.to_vec(),
                    Err(
                        KadPutError::QuorumFailed { key: _, success, quorum: _ }
                        | KadPutError::Timeout { key: _, success, quorum: _ },
                    ) => distinct(success.into_iter().filter(|peer| asked.contains(peer))),
                };
                Some(QueryEnd::Stored { acknowledged })
            }
            (QueryResult::StartProviding(result), Self::Announcement, _) => {
                let timed_out = match result {
                    Ok(AddProviderOk { key: _ }) => false,
                    Err(KadProvideError::Timeout { key: _ }) => true,
                };
                Some(QueryEnd::Announced { timed_out })
            }
            (QueryResult::Bootstrap(result), Self::Bootstrap { phases, failed, finished }, _) => {
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
                items = NewItems::One(Item::BootstrapPhase(phase));
                Some(QueryEnd::Bootstrapped)
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
                _,
            ) => {
                anomaly = Some(Anomaly::Mismatch);
                None
            }
        };
        ResultDelta { items, end, anomaly }
    }

    /// Adds an item of an event.
    pub(super) fn add(&mut self, item: &Item, validators: &Validators) {
        match (self, item) {
            (Self::Records(records), Item::Record(record)) => records.add(record, validators),
            (Self::Providers(found), Item::Provider(provider)) => {
                if found.seen.insert(*provider) {
                    found.list = OnceLock::new();
                    found.providers.push(*provider);
                }
            }
            // Counted when the event arrived.
            (_, Item::BootstrapPhase(_) | Item::Record(_) | Item::Provider(_)) => {}
        }
    }

    /// Returns the counts that thresholds are compared with.
    pub(super) fn available(&self) -> Available {
        match self {
            Self::Records(Records { records, tally, read_back, .. }) => Available {
                items: records.len(),
                votes: tally.as_ref().and_then(|tally| tally.top.as_ref()).map_or(0, |(_, votes)| *votes),
                best_votes: tally.as_ref().map_or(0, |tally| tally.best_votes()),
                copies: read_back.as_ref().map_or(0, |read_back| read_back.copies),
            },
            Self::Providers(found) => Available { items: found.providers.len(), ..Available::NOTHING },
            Self::ClosestPeers | Self::Put { .. } | Self::Announcement | Self::Bootstrap { .. } => Available::NOTHING,
        }
    }

    /// Returns whether any item was found.
    pub(super) fn has_items(&self) -> bool {
        match self {
            Self::Records(records) => !records.records.is_empty(),
            Self::Providers(providers) => !providers.providers.is_empty(),
            Self::Bootstrap { phases, failed: _, finished: _ } => *phases > 0,
            Self::ClosestPeers | Self::Put { .. } | Self::Announcement => false,
        }
    }

    /// Delivers the first items so far, to a request that joins late.
    pub(super) fn replay(&self, at_most: usize, deliver: &mut dyn FnMut(Item)) {
        match self {
            Self::Records(records) => {
                records.records.iter().take(at_most).for_each(|record| deliver(Item::Record(Arc::clone(record))));
            }
            Self::Providers(providers) => {
                providers.providers.iter().take(at_most).for_each(|provider| deliver(Item::Provider(*provider)));
            }
            Self::ClosestPeers | Self::Put { .. } | Self::Announcement | Self::Bootstrap { .. } => {}
        }
    }

    /// Returns the number of bytes of the items so far.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Records(records) => records.bytes,
            Self::Providers(providers) => providers.providers.len().saturating_mul(size_of::<PeerId>()),
            Self::ClosestPeers | Self::Put { .. } | Self::Announcement | Self::Bootstrap { .. } => 0,
        }
    }

    /// Starts to count votes, including those of the records so far.
    pub(super) fn count_votes(&mut self, key: &RecordKey, validators: &Validators) {
        if let Self::Records(records) = self {
            records.count_votes(key, validators.of(key.as_ref()));
        }
    }
}

impl Records {
    /// Returns whether a record's source is new, or the reason why the record cannot be part of an answer.
    fn check(&self, key: &RecordKey, found: &PeerRecord, validators: &Validators) -> Result<bool, Anomaly> {
        if found.record.key != *key {
            return Err(Anomaly::ForeignRecord);
        }
        if let Some(validator) = validators.of(key.as_ref())
            && validator.validate(key, &found.record.value).is_err()
        {
            return Err(Anomaly::Rejected);
        }
        Ok(!self.has_heard(found.peer))
    }

    fn has_heard(&self, source: Option<PeerId>) -> bool {
        if self.records.len() <= FEW {
            self.records.iter().any(|record| record.peer == source)
        } else {
            self.sources.contains(&source)
        }
    }

    fn add(&mut self, found: &Arc<PeerRecord>, validators: &Validators) {
        if self.records.len() == FEW {
            self.sources = self.records.iter().map(|record| record.peer).collect();
        }
        if self.records.len() >= FEW {
            self.sources.insert(found.peer);
        }
        self.bytes = self.bytes.saturating_add(found.record.value.len());
        self.records.push(Arc::clone(found));
        self.list = OnceLock::new();
        if let Some(tally) = &mut self.tally {
            let key = &found.record.key;
            tally.add(key, found, validators.of(key.as_ref()));
        }
        // The local store proves nothing about peers.
        if let Some(ReadBack { expected, copies }) = &mut self.read_back
            && found.peer.is_some()
            && found.record.value == expected.value
        {
            *copies += 1;
        }
    }

    fn count_votes(&mut self, key: &RecordKey, validator: Option<&dyn Validator>) {
        if self.tally.is_none() {
            let mut tally = Box::<Tally>::default();
            self.records.iter().for_each(|record| tally.add(key, record, validator));
            self.tally = Some(tally);
        }
    }

    /// Returns all records as one slice.
    pub(super) fn list(&self) -> Arc<[Arc<PeerRecord>]> {
        Arc::clone(self.list.get_or_init(|| self.records.as_slice().into()))
    }

    /// Returns the first record whose value has the most votes.
    pub(super) fn top(&self) -> Option<&Arc<PeerRecord>> {
        self.tally.as_ref()?.top.as_ref().map(|(ByValue(record), _)| record)
    }

    /// Returns the best record by its validator.
    pub(super) fn best(&self) -> Option<&Arc<PeerRecord>> {
        self.tally.as_ref()?.best.as_ref().map(|ByValue(record)| record)
    }

    /// Returns every value with its votes: the one with most votes first, and among equals the one that arrived first.
    pub(super) fn candidates(&self) -> Vec<Candidate> {
        let Some(tally) = &self.tally else { return Vec::new() };
        let mut seen = BTreeSet::new();
        let mut candidates: Vec<_> = self
            .records
            .iter()
            .filter_map(|record| {
                let value = ByValue(Arc::clone(record));
                let votes = *tally.votes.get(&value)?;
                seen.insert(value).then(|| Candidate { record: Arc::clone(record), votes })
            })
            .collect();
        candidates.sort_by_key(|candidate| std::cmp::Reverse(candidate.votes));
        candidates
    }
}

impl Providers {
    /// Returns all providers as one slice.
    pub(super) fn list(&self) -> Arc<[PeerId]> {
        Arc::clone(self.list.get_or_init(|| self.providers.as_slice().into()))
    }
}

impl Tally {
    fn add(&mut self, key: &RecordKey, record: &Arc<PeerRecord>, validator: Option<&dyn Validator>) {
        let value = ByValue(Arc::clone(record));
        *self.votes.entry(value.clone()).or_insert(0) += 1;
        // The map's own key is the first record with these bytes.
        if let Some((first, votes)) = self.votes.get_key_value(&value)
            && self.top.as_ref().is_none_or(|(_, most)| votes > most)
        {
            self.top = Some((first.clone(), *votes));
        }
        let Some(validator) = validator else { return };
        let better = self.best.as_ref().is_none_or(|best| {
            validator.compare(key, value.bytes(), best.bytes()).then_with(|| value.bytes().cmp(best.bytes())).is_gt()
        });
        if better {
            self.best = Some(value);
        }
    }

    fn best_votes(&self) -> usize {
        self.best.as_ref().and_then(|best| self.votes.get(best)).copied().unwrap_or(0)
    }
}
