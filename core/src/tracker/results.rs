//! What a query has found so far, for all requests that wait for it.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use libp2p::{
    PeerId,
    kad::{
        AddProviderError as KadProvideError, AddProviderOk, BootstrapError as KadBootstrapError, BootstrapOk,
        GetClosestPeersError as KadClosestError, GetClosestPeersOk, GetProvidersError as KadProvidersError,
        GetProvidersOk, GetRecordError as KadGetError, GetRecordOk, PeerInfo, PeerRecord,
        PutRecordError as KadPutError, PutRecordOk, QueryResult, RecordKey,
    },
};

use super::waiters::Available;
use crate::{BootstrapPhase, Candidate, Item, OperationKind, Progress, Query, Validator, Validators};

/// What a query has found so far.
#[derive(Debug)]
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
#[derive(Debug, Default)]
pub(super) struct Records {
    pub(super) records: Vec<Arc<PeerRecord>>,
    /// Who sent them; kept only once there are more than [`FEW`].
    sources: BTreeSet<Option<PeerId>>,
    bytes: usize,
    /// How many a validator has rejected.
    pub(super) rejected: u32,
    /// Kept only once a request asks for a quorum or for the best.
    tally: Option<Box<Tally>>,
}

/// So many records are looked through faster than a set of their sources is built, and most queries find fewer.
const FEW: usize = 8;

/// Distinct providers.
#[derive(Debug, Default)]
pub(super) struct Providers {
    pub(super) providers: Vec<PeerId>,
    seen: BTreeSet<PeerId>,
}

/// Votes by value.
#[derive(Debug, Default)]
pub(super) struct Tally {
    votes: BTreeMap<ByValue, usize>,
    /// The first value to have had the most votes.
    top: Option<(ByValue, usize)>,
    best: Option<ByValue>,
}

/// A record that is the same as another if its bytes are.
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

/// What an event says about the end of its query. It is the end only if the event is the last.
#[derive(Debug)]
pub(super) enum QueryEnd {
    /// `without` are the closest of those who answered and have no record; one that was `finished_early` was ended early.
    Read {
        closest_peers: Vec<PeerId>,
        without: Vec<PeerId>,
        timed_out: bool,
        finished_early: bool,
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

/// What an event brings.
#[derive(Debug)]
pub(super) struct ResultDelta {
    /// Items to be taken in one by one: between two of them, requests may end.
    pub(super) items: NewItems,
    pub(super) ending: Option<QueryEnd>,
    pub(super) fault: Option<Anomaly>,
}

/// Items that were not there before.
#[derive(Debug)]
pub(super) enum NewItems {
    None,
    One(Item),
    /// kad's set is randomly seeded; this one is sorted, so that the same inputs give the same actions.
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

/// Something in an event that can be no answer; it is counted and otherwise ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Anomaly {
    /// The kind of result does not fit the query.
    Mismatch,
    /// A record under another key.
    ForeignRecord,
    /// A record that its validator rejects.
    Rejected,
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

/// Peers without repetitions, in their order.
pub(super) fn distinct(peers: impl Iterator<Item = PeerId>) -> Vec<PeerId> {
    let mut seen = BTreeSet::new();
    peers.filter(|peer| seen.insert(*peer)).collect()
}

impl QueryEnd {
    /// The end of a read that needs nothing more, or may have nothing more.
    pub(super) const ENOUGH: Self =
        Self::Read { closest_peers: Vec::new(), without: Vec::new(), timed_out: false, finished_early: false };
}

impl QueryResults {
    /// The empty findings of a query.
    pub(super) fn of(query: &Query) -> Self {
        match query {
            Query::GetRecord { key: _ } => Self::Records(Records::default()),
            Query::GetProviders { key: _ } => Self::Providers(Providers::default()),
            Query::GetClosestPeers { target: _ } => Self::ClosestPeers,
            Query::PutRecordTo { record: _, peers } => Self::Put { asked: Arc::clone(peers) },
            Query::StartProviding { key: _ } => Self::Announcement,
            Query::Bootstrap => Self::Bootstrap { phases: 0, failed: 0, finished: Progress::default() },
        }
    }

    /// Takes an event apart. Its items come into the findings by [`add`](Self::add).
    pub(super) fn news(
        &mut self,
        query: &Query,
        result: QueryResult,
        progress: Progress,
        validators: &Validators,
    ) -> ResultDelta {
        let (mut items, mut fault) = (NewItems::None, None);
        let ending = match (result, self, query) {
            (QueryResult::GetRecord(result), Self::Records(records), Query::GetRecord { key }) => {
                let (mut closest_peers, mut without, mut timed_out) = (Vec::new(), Vec::new(), false);
                match result {
                    Ok(GetRecordOk::FoundRecord(found)) => match records.check(key, &found, validators) {
                        Ok(true) => items = NewItems::One(Item::Record(Arc::new(found))),
                        Ok(false) => {}
                        Err(error) => {
                            records.rejected += u32::from(error == Anomaly::Rejected);
                            fault = Some(error);
                        }
                    },
                    Ok(GetRecordOk::FinishedWithNoAdditionalRecord { cache_candidates }) => {
                        without = cache_candidates.into_values().collect();
                    }
                    Err(KadGetError::NotFound { key: _, closest_peers: peers }) => closest_peers = peers,
                    Err(KadGetError::Timeout { key: _ }) => timed_out = true,
                }
                Some(QueryEnd::Read { closest_peers, without, timed_out, finished_early: false })
            }
            (QueryResult::GetProviders(result), Self::Providers(found), Query::GetProviders { key: _ }) => {
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
                Some(QueryEnd::Read { closest_peers, without: Vec::new(), timed_out, finished_early: false })
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
                fault = Some(Anomaly::Mismatch);
                None
            }
        };
        ResultDelta { items, ending, fault }
    }

    /// Takes an item of the news in.
    pub(super) fn add(&mut self, query: &Query, item: &Item, validators: &Validators) {
        match (self, item, query) {
            (Self::Records(records), Item::Record(record), Query::GetRecord { key }) => {
                records.add(key, record, validators.of(key.as_ref()));
            }
            (Self::Providers(found), Item::Provider(provider), _) => {
                if found.seen.insert(*provider) {
                    found.providers.push(*provider);
                }
            }
            // Counted when the event came.
            (_, Item::BootstrapPhase(_) | Item::Record(_) | Item::Provider(_), _) => {}
        }
    }

    /// What there is to satisfy waiters with.
    pub(super) fn offer(&self) -> Available {
        let (items, tally) = match self {
            Self::Records(records) => (records.records.len(), records.tally.as_deref()),
            Self::Providers(providers) => (providers.providers.len(), None),
            Self::ClosestPeers | Self::Put { .. } | Self::Announcement | Self::Bootstrap { .. } => (0, None),
        };
        Available {
            items,
            votes: tally.and_then(|tally| tally.top.as_ref()).map_or(0, |(_, votes)| *votes),
            best_votes: tally.map_or(0, Tally::best_votes),
        }
    }

    /// Whether any item was found.
    pub(super) fn has_items(&self) -> bool {
        match self {
            Self::Records(records) => !records.records.is_empty(),
            Self::Providers(providers) => !providers.providers.is_empty(),
            Self::Bootstrap { phases, failed: _, finished: _ } => *phases > 0,
            Self::ClosestPeers | Self::Put { .. } | Self::Announcement => false,
        }
    }

    /// The first items so far, for a request that joins late.
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

    /// How many bytes a late joiner's replay would hold alive.
    pub(super) fn replay_bytes(&self) -> usize {
        match self {
            Self::Records(records) => records.bytes,
            Self::Providers(providers) => providers.providers.len().saturating_mul(size_of::<PeerId>()),
            Self::ClosestPeers | Self::Put { .. } | Self::Announcement | Self::Bootstrap { .. } => 0,
        }
    }

    /// The items so far, for a cache; nothing is added to them any more. `None` of what is not a read.
    pub(super) fn items(&self) -> Option<Self> {
        match self {
            Self::Records(Records { records, .. }) => {
                Some(Self::Records(Records { records: records.clone(), ..Records::default() }))
            }
            Self::Providers(Providers { providers, seen: _ }) => {
                Some(Self::Providers(Providers { providers: providers.clone(), ..Providers::default() }))
            }
            Self::ClosestPeers | Self::Put { .. } | Self::Announcement | Self::Bootstrap { .. } => None,
        }
    }

    /// The records so far.
    pub(super) fn records(&self) -> &[Arc<PeerRecord>] {
        match self {
            Self::Records(found) => &found.records,
            Self::Providers(_)
            | Self::ClosestPeers
            | Self::Put { .. }
            | Self::Announcement
            | Self::Bootstrap { .. } => &[],
        }
    }

    /// Whether nothing was found but what was rejected: then it is not told that there is nothing.
    pub(super) fn is_doubtful(&self) -> bool {
        matches!(self, Self::Records(found) if found.records.is_empty() && found.rejected > 0)
    }

    /// Begins to count votes, those of the records so far included.
    pub(super) fn count_votes(&mut self, key: &RecordKey, validators: &Validators) {
        if let Self::Records(records) = self {
            records.count_votes(key, validators.of(key.as_ref()));
        }
    }
}

impl Records {
    /// Whether a record is new and may be an answer.
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

    fn add(&mut self, key: &RecordKey, found: &Arc<PeerRecord>, validator: Option<&dyn Validator>) {
        if self.records.len() == FEW {
            self.sources = self.records.iter().map(|record| record.peer).collect();
        }
        if self.records.len() >= FEW {
            self.sources.insert(found.peer);
        }
        self.bytes = self.bytes.saturating_add(found.record.value.len());
        self.records.push(Arc::clone(found));
        if let Some(tally) = &mut self.tally {
            tally.add(key, found, validator);
        }
    }

    fn count_votes(&mut self, key: &RecordKey, validator: Option<&dyn Validator>) {
        if self.tally.is_none() {
            let mut tally = Box::<Tally>::default();
            self.records.iter().for_each(|record| tally.add(key, record, validator));
            self.tally = Some(tally);
        }
    }

    /// The first record whose value has the most votes.
    pub(super) fn top(&self) -> Option<&Arc<PeerRecord>> {
        self.tally.as_ref()?.top.as_ref().map(|(ByValue(record), _)| record)
    }

    /// The best record, by its validator.
    pub(super) fn best(&self) -> Option<&Arc<PeerRecord>> {
        self.tally.as_ref()?.best.as_ref().map(|ByValue(record)| record)
    }

    /// Every value with its votes, the most frequent first, and among equals the one that came first.
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
