use std::{num::NonZeroUsize, sync::Arc};

use libp2p::kad::{PeerInfo, Record, RecordKey, store};

use super::*;
use crate::{Candidate, Certainty, InvalidRequestError, Progress, QueryStartError};

const OPERATIONS: [OperationKind; 7] = [
    OperationKind::GetRecord,
    OperationKind::PutRecord,
    OperationKind::PutRecordTo,
    OperationKind::GetProviders,
    OperationKind::StartProviding,
    OperationKind::GetClosestPeers,
    OperationKind::Bootstrap,
];

fn peer(n: u8) -> PeerId {
    // An identity multihash of one byte.
    PeerId::from_bytes(&[0, 1, n]).expect("a peer id")
}

fn peers<const N: usize>(ids: [u8; N]) -> Vec<PeerId> {
    ids.map(peer).to_vec()
}

fn a_record() -> Arc<PeerRecord> {
    Arc::new(PeerRecord { peer: Some(peer(1)), record: Record::new(RecordKey::new(b"k"), b"value".to_vec()) })
}

fn candidate() -> Candidate {
    Candidate::new(a_record(), 1)
}

/// Fails to compile when an operation has a new error, which then has to be added to the table.
fn is_in_the_table(outcome: &Outcome) {
    match outcome {
        Outcome::GetRecord(Err(error)) => match error {
            GetRecordError::NotFound { .. } | GetRecordError::NoResponse { .. } | GetRecordError::Conflict { .. } => {}
            GetRecordError::QuorumNotReached { .. } | GetRecordError::Timeout { .. } => {}
            GetRecordError::NoKnownPeers | GetRecordError::Request(_) => {}
        },
        Outcome::PutRecord(Err(error)) | Outcome::PutRecordTo(Err(error)) => match error {
            PutRecordError::QuorumFailed { .. } | PutRecordError::NoResponse { .. } => {}
            PutRecordError::NotVerified { .. } => {}
            PutRecordError::InsufficientPeers { .. }
            | PutRecordError::Timeout { .. }
            | PutRecordError::Store { .. } => {}
            PutRecordError::NoKnownPeers | PutRecordError::Request(_) => {}
        },
        Outcome::GetProviders(Err(error)) => match error {
            GetProvidersError::NotFound { .. } | GetProvidersError::NoResponse { .. } => {}
            GetProvidersError::Timeout { .. } | GetProvidersError::NoKnownPeers | GetProvidersError::Request(_) => {}
        },
        Outcome::StartProviding(Err(error)) => match error {
            StartProvidingError::NoResponse { .. } | StartProvidingError::Timeout { .. } => {}
            StartProvidingError::Store(_)
            | StartProvidingError::NoKnownPeers
            | StartProvidingError::NoExternalAddress
            | StartProvidingError::Request(_) => {}
        },
        Outcome::GetClosestPeers(Err(error)) => match error {
            GetClosestPeersError::NoResponse { .. } | GetClosestPeersError::Timeout { .. } => {}
            GetClosestPeersError::NoKnownPeers | GetClosestPeersError::Request(_) => {}
        },
        Outcome::Bootstrap(Err(error)) => match error {
            BootstrapError::AllPhasesFailed { .. } | BootstrapError::NoResponse { .. } => {}
            BootstrapError::Timeout { .. } | BootstrapError::NoKnownPeers | BootstrapError::Request(_) => {}
        },
        _ => assert!(outcome.is_ok(), "{outcome:?}"),
    }
}

/// Every outcome, and whether it is retryable.
fn table() -> Vec<(Outcome, bool)> {
    let progress = Progress { requests: 4, successes: 3, failures: 1 };
    let needed = NonZeroUsize::MIN.saturating_add(1);
    let some_peers = || vec![PeerInfo { peer_id: peer(1), addrs: Vec::new() }];
    let closest_peers = Arc::default;

    let mut table: Vec<(Outcome, bool)> = Vec::new();
    for (error, again) in [
        (
            GetRecordError::NotFound {
                closest_peers: closest_peers(),
                certainty: Certainty::Inconclusive,
                rejected: 0,
                progress,
            },
            true,
        ),
        (
            GetRecordError::NotFound {
                closest_peers: closest_peers(),
                certainty: Certainty::Inconclusive,
                rejected: 1,
                progress,
            },
            false,
        ),
        (
            GetRecordError::NotFound {
                closest_peers: closest_peers(),
                certainty: Certainty::Conclusive,
                rejected: 0,
                progress,
            },
            false,
        ),
        (GetRecordError::NoResponse { progress }, true),
        (GetRecordError::NoKnownPeers, true),
        (GetRecordError::QuorumNotReached { candidate: candidate(), needed: 2 }, true),
        (GetRecordError::Conflict { candidates: [candidate(), candidate()].into(), needed: 2 }, false),
        (GetRecordError::Timeout { found: Arc::default(), progress }, true),
        (GetRecordError::Timeout { found: [a_record()].into(), progress }, false),
    ] {
        table.push((Outcome::GetRecord(Err(error)), again));
    }
    for (error, again) in [
        (PutRecordError::QuorumFailed { acknowledged: peers([1]), needed, asked: 2 }, true),
        (PutRecordError::NotVerified { acknowledged: peers([1]), verified: 1, needed: 2 }, true),
        (PutRecordError::NoResponse { progress }, true),
        (PutRecordError::InsufficientPeers { found: 1, needed }, true),
        (PutRecordError::NoKnownPeers, true),
        (PutRecordError::Timeout { sent_to: Vec::new(), progress }, false),
        (PutRecordError::Store { error: store::Error::MaxRecords, acknowledged: peers([1]) }, false),
    ] {
        table.push((Outcome::PutRecord(Err(error.clone())), again));
        table.push((Outcome::PutRecordTo(Err(error)), again));
    }
    for (error, again) in [
        (
            GetProvidersError::NotFound {
                closest_peers: closest_peers(),
                certainty: Certainty::Inconclusive,
                progress,
            },
            true,
        ),
        (
            GetProvidersError::NotFound { closest_peers: closest_peers(), certainty: Certainty::Conclusive, progress },
            false,
        ),
        (GetProvidersError::NoResponse { progress }, true),
        (GetProvidersError::NoKnownPeers, true),
        (GetProvidersError::Timeout { found: Arc::default(), progress }, true),
        (GetProvidersError::Timeout { found: peers([1]).into(), progress }, false),
    ] {
        table.push((Outcome::GetProviders(Err(error)), again));
    }
    for (error, again) in [
        (StartProvidingError::NoResponse { progress }, true),
        (StartProvidingError::Timeout { progress }, true),
        (StartProvidingError::NoKnownPeers, true),
        (StartProvidingError::NoExternalAddress, false),
        (StartProvidingError::Store(store::Error::MaxProvidedKeys), false),
    ] {
        table.push((Outcome::StartProviding(Err(error)), again));
    }
    for (error, again) in [
        (GetClosestPeersError::NoResponse { progress }, true),
        (GetClosestPeersError::NoKnownPeers, true),
        (GetClosestPeersError::Timeout { peers: Arc::default(), progress }, true),
        (GetClosestPeersError::Timeout { peers: some_peers().into(), progress }, false),
    ] {
        table.push((Outcome::GetClosestPeers(Err(error)), again));
    }
    for (error, again) in [
        (BootstrapError::AllPhasesFailed { phases: 2, progress }, true),
        (BootstrapError::NoResponse { progress }, true),
        (BootstrapError::NoKnownPeers, true),
        (BootstrapError::Timeout { phases: 1, failed: 1, progress }, false),
    ] {
        table.push((Outcome::Bootstrap(Err(error)), again));
    }

    // Caused by the caller, the deadline or the request itself.
    let common = || {
        [
            RequestError::Invalid(InvalidRequestError::ZeroLimit),
            RequestError::Overloaded,
            RequestError::ExpiredInQueue,
            RequestError::Cancelled,
            RequestError::Shutdown,
            RequestError::NotPolled,
            RequestError::Refused(QueryStartError::Store(store::Error::MaxProvidedKeys)),
        ]
    };
    table.extend(OPERATIONS.into_iter().flat_map(|kind| common().map(|error| (Outcome::failed(kind, error), false))));

    let put = PutAnswer::new(peers([1]), peers([2]), progress);
    let get = RecordAnswer::new(a_record(), progress);
    let answers = [
        Outcome::GetRecord(Ok(get)),
        Outcome::PutRecord(Ok(put.clone())),
        Outcome::PutRecordTo(Ok(put)),
        Outcome::GetProviders(Ok(ProvidersAnswer::new(peers([1]), progress))),
        Outcome::StartProviding(Ok(ProvideAnswer::new(1, progress))),
        Outcome::GetClosestPeers(Ok(ClosestPeersAnswer::new(some_peers(), progress))),
        Outcome::Bootstrap(Ok(BootstrapAnswer::new(2, 1, progress))),
    ];
    table.extend(answers.map(|answer| (answer, false)));
    table
}

#[test]
fn only_errors_that_another_attempt_could_fix_are_retryable() {
    for (outcome, retryable) in table() {
        is_in_the_table(&outcome);
        assert_eq!(outcome.is_retryable(), retryable, "{outcome:?}");
    }
}
