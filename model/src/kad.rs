//! Simulation of kad's queries: chooses among the events that kad may send next.

use std::{
    collections::{BTreeMap, HashSet},
    num::NonZeroUsize,
    time::Instant,
};

use kadence_core::{Progress, Query, QueryEvent};
use libp2p::{
    PeerId,
    kad::{
        AddProviderError, AddProviderOk, BootstrapError, BootstrapOk, GetClosestPeersError, GetClosestPeersOk,
        GetProvidersError, GetProvidersOk, GetRecordError, GetRecordOk, KBucketDistance, PeerInfo, PeerRecord,
        PutRecordError, PutRecordOk, QueryResult, Record, RecordKey, U256,
    },
};

use crate::{
    fixtures::{key, local, peer, peers, value},
    input::EventChoices,
};

/// Number of peers that may hold a record. It exceeds the number of sources that the tracker compares without a set.
const HOLDERS: u8 = 12;

/// A query that kad runs.
#[derive(Debug, Clone)]
pub struct KadQuery {
    /// Id of the query.
    pub id: u32,
    query: Query,
    progress: Progress,
    /// Sources of the records so far. `None` is the local store.
    sources: Vec<Option<PeerId>>,
    events: u32,
    /// Value that was put under the key before this read began.
    stored: Option<Vec<u8>>,
    /// Phases of a bootstrap that remain after the next one.
    remaining: u32,
    over: bool,
}

impl KadQuery {
    /// Starts a query. `stored` is the value that was last put under its key.
    pub fn new(id: u32, query: Query, stored: Option<Vec<u8>>) -> Self {
        let (remaining, progress) = (id % 3, Progress::default());
        Self { id, query, progress, sources: Vec::new(), events: 0, stored, remaining, over: false }
    }

    /// Returns whether the last event was sent.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Counts `more` answers and returns the progress, or `None` if the query has ended.
    pub fn probe(&mut self, more: u8) -> Option<Progress> {
        self.progress.requests += u32::from(more);
        self.progress.successes += u32::from(more);
        Some(self.progress).filter(|_| !self.over)
    }

    /// Returns the next event, or `None` after the last one. `choices` selects it among those that kad may send at this
    /// time.
    pub fn next(&mut self, choices: EventChoices, now: Instant) -> Option<QueryEvent<u32>> {
        if self.over {
            return None;
        }
        let (result, last) = match &self.query {
            Query::GetRecord { key } => self.get_record(key.clone(), choices, now),
            Query::PutRecordTo { record, peers } => {
                let asked = peers.iter().enumerate().filter(|(at, _)| choices.peers & (1 << (at % 8)) != 0);
                (put(record.key.clone(), asked.map(|(_, peer)| *peer).collect(), choices), true)
            }
            Query::GetProviders { key } => get_providers(key.clone(), choices),
            Query::StartProviding { key } => (start_providing(key.clone(), choices), true),
            Query::GetClosestPeers { target } => (closest(target, choices), true),
            Query::Bootstrap => {
                let last = self.remaining == 0;
                let result = bootstrap(self.remaining, choices);
                self.remaining = self.remaining.saturating_sub(1);
                (result, last)
            }
        };
        if let QueryResult::GetRecord(Ok(GetRecordOk::FoundRecord(found))) = &result {
            self.sources.push(found.peer);
        }
        self.events += 1;
        self.over = last;
        if let Query::Bootstrap = self.query {
            // kad counts each phase of a bootstrap separately.
            self.progress = Progress::default();
        }
        if !choices.nobody {
            self.progress.requests += 1 + choices.failures;
            self.progress.successes += u32::from(choices.answered);
            self.progress.failures += choices.failures;
        }
        Some(QueryEvent { id: self.id, result, progress: self.progress, last })
    }

    fn get_record(&self, key: RecordKey, choices: EventChoices, now: Instant) -> (QueryResult, bool) {
        // kad reads the local store first, and asks each peer once.
        let mut from = (0..HOLDERS)
            .map(|n| Some(peer(1 + (choices.peer + n) % HOLDERS)))
            .find(|peer| !self.sources.contains(peer));
        if choices.local && self.events == 0 {
            from = Some(None);
        }
        match from {
            Some(peer) if !choices.end => {
                let expires = choices.expires.map(|after| now + after);
                // Most peers hold the value that was put last.
                let stored = self.stored.clone().filter(|_| choices.value >= 8);
                let value = stored.unwrap_or_else(|| value(choices.value));
                let record = Record { expires, ..Record::new(choices.key_or(key), value) };
                (QueryResult::GetRecord(Ok(GetRecordOk::FoundRecord(PeerRecord { peer, record }))), false)
            }
            _ if choices.timeout => (QueryResult::GetRecord(Err(GetRecordError::Timeout { key })), true),
            _ if self.sources.is_empty() => {
                let closest_peers = peers(choices.peers);
                (QueryResult::GetRecord(Err(GetRecordError::NotFound { key, closest_peers })), true)
            }
            _ => {
                let finished =
                    GetRecordOk::FinishedWithNoAdditionalRecord { cache_candidates: peers_without_record(choices) };
                (QueryResult::GetRecord(Ok(finished)), true)
            }
        }
    }
}

impl EventChoices {
    /// kad does not check that a record has the key that was asked for.
    fn key_or(self, asked: RecordKey) -> RecordKey {
        if self.foreign { key(self.peer) } else { asked }
    }
}

/// Returns the peers that answered without a record. Some of them may have sent one before.
fn peers_without_record(choices: EventChoices) -> BTreeMap<KBucketDistance, PeerId> {
    let mut peers = peers(choices.peers);
    if choices.foreign {
        peers.push(local());
    }
    peers.into_iter().enumerate().map(|(at, peer)| (KBucketDistance(U256::from(at)), peer)).collect()
}

fn get_providers(key: RecordKey, choices: EventChoices) -> (QueryResult, bool) {
    let closest_peers = peers(choices.peers);
    let (result, last) = if !choices.end {
        let providers: HashSet<_> = peers(choices.peers).into_iter().collect();
        (Ok(GetProvidersOk::FoundProviders { key, providers }), false)
    } else if choices.timeout {
        (Err(GetProvidersError::Timeout { key, closest_peers }), true)
    } else {
        (Ok(GetProvidersOk::FinishedWithNoAdditionalRecord { closest_peers }), true)
    };
    (QueryResult::GetProviders(result), last)
}

fn put(key: RecordKey, success: Vec<PeerId>, choices: EventChoices) -> QueryResult {
    let quorum = NonZeroUsize::MIN;
    QueryResult::PutRecord(if choices.timeout {
        Err(PutRecordError::Timeout { key, success, quorum })
    } else if choices.end {
        Ok(PutRecordOk { key })
    } else {
        Err(PutRecordError::QuorumFailed { key, success, quorum })
    })
}

fn start_providing(key: RecordKey, choices: EventChoices) -> QueryResult {
    QueryResult::StartProviding(if choices.timeout {
        Err(AddProviderError::Timeout { key })
    } else {
        Ok(AddProviderOk { key })
    })
}

fn closest(target: &RecordKey, choices: EventChoices) -> QueryResult {
    let mut found = peers(choices.peers);
    if choices.foreign {
        // Other nodes may name the local node among the closest peers, and kad does not remove it.
        found.push(local());
    }
    let peers = found.into_iter().map(|peer_id| PeerInfo { peer_id, addrs: Vec::new() }).collect();
    let key = target.to_vec();
    QueryResult::GetClosestPeers(if choices.timeout {
        Err(GetClosestPeersError::Timeout { key, peers })
    } else {
        Ok(GetClosestPeersOk { key, peers })
    })
}

fn bootstrap(num_remaining: u32, choices: EventChoices) -> QueryResult {
    QueryResult::Bootstrap(if choices.timeout {
        let num_remaining = Some(num_remaining).filter(|_| !choices.foreign);
        Err(BootstrapError::Timeout { peer: local(), num_remaining })
    } else {
        Ok(BootstrapOk { peer: peer(choices.peer), num_remaining })
    })
}

/// Returns an arbitrary result of any kind; it need not make sense.
pub(crate) fn any_result(kind: u8, choices: EventChoices, now: Instant) -> QueryResult {
    let key = key(choices.value >> 3);
    match kind % 8 {
        0 => {
            let kad = KadQuery::new(0, Query::GetRecord { key: key.clone() }, None);
            // A record, or an end that contradicts the records found.
            if choices.answered && choices.end {
                let cache_candidates = BTreeMap::new();
                let finished = GetRecordOk::FinishedWithNoAdditionalRecord { cache_candidates };
                return QueryResult::GetRecord(Ok(finished));
            }
            kad.get_record(key, choices, now).0
        }
        1 => put(key, [peers(choices.peers), peers(choices.peers), vec![local()]].concat(), choices),
        2 => {
            let (mut result, _) = get_providers(key, choices);
            if let QueryResult::GetProviders(Ok(GetProvidersOk::FoundProviders { key: _, providers })) = &mut result
                && choices.local
            {
                providers.insert(local());
            }
            result
        }
        3 => start_providing(key, choices),
        4 => match closest(&key, choices) {
            QueryResult::GetClosestPeers(Ok(GetClosestPeersOk { key, peers })) => {
                let peers = [peers.clone(), peers].concat();
                QueryResult::GetClosestPeers(Ok(GetClosestPeersOk { key, peers }))
            }
            timeout => timeout,
        },
        5 => bootstrap(choices.value.into(), choices),
        6 => QueryResult::RepublishRecord(Ok(PutRecordOk { key })),
        _ => QueryResult::RepublishProvider(Ok(AddProviderOk { key })),
    }
}
