//! A kad that keeps its word: which events may come next for a query.

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
    input::Say,
    world::{key, local, peer, peers, value},
};

/// How many peers may hold a record: more than the few that are looked through without a set.
const PEERS: u8 = 12;

/// A query that kad runs.
#[derive(Debug, Clone)]
pub struct Kad {
    /// Its id.
    pub id: u32,
    query: Query,
    progress: Progress,
    /// Whom a record came from, the local store being nobody.
    sources: Vec<Option<PeerId>>,
    events: u32,
    /// What was put under the key of a read before it began.
    stored: Option<Vec<u8>>,
    /// Phases of a bootstrap that are still to come after the next one.
    remaining: u32,
    over: bool,
}

impl Kad {
    /// A query that was just started. `stored` is what was put under its key before.
    pub fn new(id: u32, query: Query, stored: Option<Vec<u8>>) -> Self {
        let (remaining, progress) = (id % 3, Progress::default());
        Self { id, query, progress, sources: Vec::new(), events: 0, stored, remaining, over: false }
    }

    /// Whether the last event has come.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// How far it got, once so many more peers have answered. Nothing when it is over.
    pub fn probe(&mut self, more: u8) -> Option<Progress> {
        self.progress.requests += u32::from(more);
        self.progress.successes += u32::from(more);
        Some(self.progress).filter(|_| !self.over)
    }

    /// The next event, chosen by `say` from those that kad may send at this time. None after the last.
    pub fn next(&mut self, say: Say, now: Instant) -> Option<QueryEvent<u32>> {
        if self.over {
            return None;
        }
        let (result, last) = match &self.query {
            Query::GetRecord { key } => self.get_record(key.clone(), say, now),
            Query::PutRecordTo { record, peers } => {
                let asked = peers.iter().enumerate().filter(|(at, _)| say.peers & (1 << (at % 8)) != 0);
                (put(record.key.clone(), asked.map(|(_, peer)| *peer).collect(), say), true)
            }
            Query::GetProviders { key } => get_providers(key.clone(), say),
            Query::StartProviding { key } => (start_providing(key.clone(), say), true),
            Query::GetClosestPeers { target } => (closest(target, say), true),
            Query::Bootstrap => {
                let last = self.remaining == 0;
                let result = bootstrap(self.remaining, say);
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
            // Each phase counts for itself.
            self.progress = Progress::default();
        }
        if !say.nobody {
            self.progress.requests += 1 + say.failures;
            self.progress.successes += u32::from(say.answered);
            self.progress.failures += say.failures;
        }
        Some(QueryEvent { id: self.id, result, progress: self.progress, last })
    }

    fn get_record(&self, key: RecordKey, say: Say, now: Instant) -> (QueryResult, bool) {
        // The local store is asked first, and every peer once.
        let mut from =
            (0..PEERS).map(|n| Some(peer(1 + (say.peer + n) % PEERS))).find(|peer| !self.sources.contains(peer));
        if say.local && self.events == 0 {
            from = Some(None);
        }
        match from {
            Some(peer) if !say.end => {
                let expires = say.expires.map(|after| now + after);
                // Most peers have what was put last.
                let stored = self.stored.clone().filter(|_| say.value >= 8);
                let value = stored.unwrap_or_else(|| value(say.value));
                let record = Record { expires, ..Record::new(say.key_or(key), value) };
                (QueryResult::GetRecord(Ok(GetRecordOk::FoundRecord(PeerRecord { peer, record }))), false)
            }
            _ if say.timeout => (QueryResult::GetRecord(Err(GetRecordError::Timeout { key })), true),
            _ if self.sources.is_empty() => {
                let closest_peers = peers(say.peers);
                (QueryResult::GetRecord(Err(GetRecordError::NotFound { key, closest_peers })), true)
            }
            _ => {
                let finished = GetRecordOk::FinishedWithNoAdditionalRecord { cache_candidates: without(say) };
                (QueryResult::GetRecord(Ok(finished)), true)
            }
        }
    }
}

impl Say {
    /// kad does not check that a record is stored under the key that was asked for.
    fn key_or(self, asked: RecordKey) -> RecordKey {
        if self.foreign { key(self.peer) } else { asked }
    }
}

/// Whoever answered and has no record; some of them may have had one a moment before.
fn without(say: Say) -> BTreeMap<KBucketDistance, PeerId> {
    let mut peers = peers(say.peers);
    if say.foreign {
        peers.push(local());
    }
    peers.into_iter().enumerate().map(|(at, peer)| (KBucketDistance(U256::from(at)), peer)).collect()
}

fn get_providers(key: RecordKey, say: Say) -> (QueryResult, bool) {
    let closest_peers = peers(say.peers);
    let (result, last) = if !say.end {
        let providers: HashSet<_> = peers(say.peers).into_iter().collect();
        (Ok(GetProvidersOk::FoundProviders { key, providers }), false)
    } else if say.timeout {
        (Err(GetProvidersError::Timeout { key, closest_peers }), true)
    } else {
        (Ok(GetProvidersOk::FinishedWithNoAdditionalRecord { closest_peers }), true)
    };
    (QueryResult::GetProviders(result), last)
}

fn put(key: RecordKey, success: Vec<PeerId>, say: Say) -> QueryResult {
    let quorum = NonZeroUsize::MIN;
    QueryResult::PutRecord(if say.timeout {
        Err(PutRecordError::Timeout { key, success, quorum })
    } else if say.end {
        Ok(PutRecordOk { key })
    } else {
        Err(PutRecordError::QuorumFailed { key, success, quorum })
    })
}

fn start_providing(key: RecordKey, say: Say) -> QueryResult {
    QueryResult::StartProviding(if say.timeout {
        Err(AddProviderError::Timeout { key })
    } else {
        Ok(AddProviderOk { key })
    })
}

fn closest(target: &RecordKey, say: Say) -> QueryResult {
    let mut found = peers(say.peers);
    if say.foreign {
        // Other nodes may name us among the closest, and it is not kad that leaves us out.
        found.push(local());
    }
    let peers = found.into_iter().map(|peer_id| PeerInfo { peer_id, addrs: Vec::new() }).collect();
    let key = target.to_vec();
    QueryResult::GetClosestPeers(if say.timeout {
        Err(GetClosestPeersError::Timeout { key, peers })
    } else {
        Ok(GetClosestPeersOk { key, peers })
    })
}

fn bootstrap(num_remaining: u32, say: Say) -> QueryResult {
    QueryResult::Bootstrap(if say.timeout {
        let num_remaining = Some(num_remaining).filter(|_| !say.foreign);
        Err(BootstrapError::Timeout { peer: local(), num_remaining })
    } else {
        Ok(BootstrapOk { peer: peer(say.peer), num_remaining })
    })
}

/// Any result of any kind, whether or not it makes sense.
pub(crate) fn any_result(kind: u8, say: Say, now: Instant) -> QueryResult {
    let key = key(say.value >> 3);
    match kind % 8 {
        0 => {
            let kad = Kad::new(0, Query::GetRecord { key: key.clone() }, None);
            // A find, or the end that does not fit what was found.
            if say.answered && say.end {
                let cache_candidates = BTreeMap::new();
                let finished = GetRecordOk::FinishedWithNoAdditionalRecord { cache_candidates };
                return QueryResult::GetRecord(Ok(finished));
            }
            kad.get_record(key, say, now).0
        }
        1 => put(key, [peers(say.peers), peers(say.peers), vec![local()]].concat(), say),
        2 => {
            let (mut result, _) = get_providers(key, say);
            if let QueryResult::GetProviders(Ok(GetProvidersOk::FoundProviders { key: _, providers })) = &mut result
                && say.local
            {
                providers.insert(local());
            }
            result
        }
        3 => start_providing(key, say),
        4 => match closest(&key, say) {
            QueryResult::GetClosestPeers(Ok(GetClosestPeersOk { key, peers })) => {
                let peers = [peers.clone(), peers].concat();
                QueryResult::GetClosestPeers(Ok(GetClosestPeersOk { key, peers }))
            }
            timeout => timeout,
        },
        5 => bootstrap(say.value.into(), say),
        6 => QueryResult::RepublishRecord(Ok(PutRecordOk { key })),
        _ => QueryResult::RepublishProvider(Ok(AddProviderOk { key })),
    }
}
