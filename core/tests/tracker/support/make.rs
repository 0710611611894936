//! Short names for kad's results and for the seven operations.

use std::{collections::BTreeMap, num::NonZeroUsize, sync::Arc};

use kadence_core::{Operation, OperationKind, Policy, Progress, PutOptions, QueryStartError, Quorum};
use libp2p::{
    PeerId,
    kad::{
        AddProviderError, AddProviderOk, BootstrapError, BootstrapOk, GetClosestPeersError, GetClosestPeersOk,
        GetProvidersError, GetProvidersOk, GetRecordError, GetRecordOk, KBucketDistance, PeerInfo, PeerRecord,
        PutRecordError, PutRecordOk, QueryResult, Record, RecordKey, U256, store,
    },
};

pub(crate) const OPERATIONS: [OperationKind; 7] = [
    OperationKind::GetRecord,
    OperationKind::PutRecord,
    OperationKind::PutRecordTo,
    OperationKind::GetProviders,
    OperationKind::StartProviding,
    OperationKind::GetClosestPeers,
    OperationKind::Bootstrap,
];

/// A peer id for each number: the bytes of a SHA-256 multihash.
pub(crate) fn peer(n: u8) -> PeerId {
    let mut bytes = vec![n; 34];
    bytes[0] = 0x12;
    bytes[1] = 32;
    PeerId::from_bytes(&bytes).expect("a SHA-256 multihash is a peer id")
}

pub(crate) fn peers(numbers: impl IntoIterator<Item = u8>) -> Vec<PeerId> {
    numbers.into_iter().map(peer).collect()
}

/// The tracker's own node.
pub(crate) fn local() -> PeerId {
    peer(255)
}

pub(crate) fn key(name: &str) -> RecordKey {
    RecordKey::new(&name)
}

/// A key that no other request uses.
pub(crate) fn own_key(request: u64) -> String {
    format!("the key of #{request}")
}

pub(crate) fn record(name: &str, value: &[u8]) -> Record {
    Record::new(key(name), value.to_vec())
}

pub(crate) fn some_progress() -> Progress {
    Progress { requests: 4, successes: 3, failures: 1 }
}

/// Requests without answers.
pub(crate) fn all_failed() -> Progress {
    Progress { requests: 4, successes: 0, failures: 4 }
}

/// No requests: there was no peer to ask.
pub(crate) fn nobody() -> Progress {
    Progress::default()
}

// ---- operations

pub(crate) fn get_record(name: &str, policy: Policy) -> Operation {
    Operation::GetRecord { key: key(name), policy }
}

pub(crate) fn get_providers(name: &str, policy: Policy) -> Operation {
    Operation::GetProviders { key: key(name), policy }
}

pub(crate) fn put(name: &str, quorum: Quorum) -> Operation {
    Operation::PutRecord { record: Arc::new(record(name, b"value")), quorum, options: PutOptions::default() }
}

pub(crate) fn put_to(name: &str, peers: Vec<PeerId>, quorum: Quorum) -> Operation {
    Operation::PutRecordTo { record: Arc::new(record(name, b"value")), peers, quorum }
}

pub(crate) fn provide(name: &str) -> Operation {
    Operation::StartProviding { key: key(name) }
}

pub(crate) fn closest(name: &str) -> Operation {
    Operation::GetClosestPeers { target: key(name), thorough: false }
}

pub(crate) fn closest_thorough(name: &str) -> Operation {
    Operation::GetClosestPeers { target: key(name), thorough: true }
}

/// An ordinary request of each kind, for the key `k`.
pub(crate) fn ordinary(kind: OperationKind) -> Operation {
    match kind {
        OperationKind::GetRecord => get_record("k", Policy::All),
        OperationKind::PutRecord => put("k", Quorum::One),
        OperationKind::PutRecordTo => put_to("k", peers([1]), Quorum::One),
        OperationKind::GetProviders => get_providers("k", Policy::All),
        OperationKind::StartProviding => provide("k"),
        OperationKind::GetClosestPeers => closest("k"),
        OperationKind::Bootstrap => Operation::Bootstrap,
    }
}

pub(crate) fn n(n: usize) -> Quorum {
    n.into()
}

pub(crate) fn nonzero(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).expect("not zero")
}

pub(crate) fn store_error() -> QueryStartError {
    QueryStartError::Store(store::Error::MaxProvidedKeys)
}

// ---- kad's results

/// A record with the value `value` from the peer `from`.
pub(crate) fn found(name: &str, from: u8, value: &[u8]) -> QueryResult {
    found_at(name, Some(peer(from)), value)
}

/// A record from a peer, or from the local store.
pub(crate) fn found_at(name: &str, peer: Option<PeerId>, value: &[u8]) -> QueryResult {
    QueryResult::GetRecord(Ok(GetRecordOk::FoundRecord(PeerRecord { peer, record: record(name, value) })))
}

pub(crate) fn records_finished() -> QueryResult {
    records_finished_without([])
}

/// The end of a get for which kad lists the closest peers without a record.
pub(crate) fn records_finished_without(numbers: impl IntoIterator<Item = u8>) -> QueryResult {
    let distance = |at: usize| KBucketDistance(U256::from(at));
    let cache_candidates: BTreeMap<_, _> =
        peers(numbers).into_iter().enumerate().map(|(at, peer)| (distance(at), peer)).collect();
    QueryResult::GetRecord(Ok(GetRecordOk::FinishedWithNoAdditionalRecord { cache_candidates }))
}

pub(crate) fn not_found(closest_peers: Vec<PeerId>) -> QueryResult {
    QueryResult::GetRecord(Err(GetRecordError::NotFound { key: key("k"), closest_peers }))
}

pub(crate) fn get_timeout() -> QueryResult {
    QueryResult::GetRecord(Err(GetRecordError::Timeout { key: key("k") }))
}

pub(crate) fn providers(numbers: impl IntoIterator<Item = u8>) -> QueryResult {
    let providers = numbers.into_iter().map(peer).collect();
    QueryResult::GetProviders(Ok(GetProvidersOk::FoundProviders { key: key("k"), providers }))
}

pub(crate) fn providers_finished() -> QueryResult {
    let closest_peers = peers([7]);
    QueryResult::GetProviders(Ok(GetProvidersOk::FinishedWithNoAdditionalRecord { closest_peers }))
}

pub(crate) fn providers_timeout() -> QueryResult {
    QueryResult::GetProviders(Err(GetProvidersError::Timeout { key: key("k"), closest_peers: Vec::new() }))
}

fn infos(numbers: impl IntoIterator<Item = u8>) -> Vec<PeerInfo> {
    numbers.into_iter().map(|n| PeerInfo { peer_id: peer(n), addrs: Vec::new() }).collect()
}

pub(crate) fn closest_found(numbers: impl IntoIterator<Item = u8>) -> QueryResult {
    QueryResult::GetClosestPeers(Ok(GetClosestPeersOk { key: b"k".to_vec(), peers: infos(numbers) }))
}

pub(crate) fn closest_timeout(numbers: impl IntoIterator<Item = u8>) -> QueryResult {
    QueryResult::GetClosestPeers(Err(GetClosestPeersError::Timeout { key: b"k".to_vec(), peers: infos(numbers) }))
}

pub(crate) fn put_ok() -> QueryResult {
    QueryResult::PutRecord(Ok(PutRecordOk { key: key("k") }))
}

pub(crate) fn put_quorum_failed(success: Vec<PeerId>) -> QueryResult {
    QueryResult::PutRecord(Err(PutRecordError::QuorumFailed { key: key("k"), success, quorum: nonzero(20) }))
}

pub(crate) fn put_timeout(success: Vec<PeerId>) -> QueryResult {
    QueryResult::PutRecord(Err(PutRecordError::Timeout { key: key("k"), success, quorum: nonzero(20) }))
}

pub(crate) fn provide_ok() -> QueryResult {
    QueryResult::StartProviding(Ok(AddProviderOk { key: key("k") }))
}

pub(crate) fn provide_timeout() -> QueryResult {
    QueryResult::StartProviding(Err(AddProviderError::Timeout { key: key("k") }))
}

pub(crate) fn bootstrap_ok(num_remaining: u32) -> QueryResult {
    QueryResult::Bootstrap(Ok(BootstrapOk { peer: peer(1), num_remaining }))
}

pub(crate) fn bootstrap_timeout(num_remaining: Option<u32>) -> QueryResult {
    QueryResult::Bootstrap(Err(BootstrapError::Timeout { peer: peer(1), num_remaining }))
}

/// A result of kad's own work.
pub(crate) fn republished() -> QueryResult {
    QueryResult::RepublishRecord(Ok(PutRecordOk { key: key("k") }))
}

pub(crate) fn provider_republished() -> QueryResult {
    QueryResult::RepublishProvider(Ok(AddProviderOk { key: key("k") }))
}
