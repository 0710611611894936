//! Admission: the validity of a request, before anything changes.

use std::sync::Arc;

use libp2p::{PeerId, kad::Record};
use web_time::Instant;

use super::results::distinct;
use crate::{InvalidRequestError, Operation, Policy, Quorum, TrackerConfig};

/// Validates an operation.
pub(super) fn check(
    operation: &Operation,
    config: &TrackerConfig,
    local_peer: &PeerId,
    now: Option<Instant>,
) -> Result<(), InvalidRequestError> {
    let (len, max) = (operation.key().len(), config.max_key_len);
    if len > max {
        return Err(InvalidRequestError::KeyTooLong { len, max });
    }
    match operation {
        Operation::GetRecord { key, policy } => match policy {
            Policy::Limit(0) | Policy::Quorum(Quorum::N(0)) | Policy::Best { agree: Some(Quorum::N(0)) } => {
                Err(InvalidRequestError::ZeroLimit)
            }
            Policy::Best { agree: _ } if config.validators.of(key.as_ref()).is_none() => {
                Err(InvalidRequestError::NoValidator)
            }
            Policy::First | Policy::Limit(_) | Policy::All | Policy::Quorum(_) | Policy::Best { agree: _ } => Ok(()),
        },
        Operation::GetProviders { key: _, policy } => match policy {
            Policy::Limit(0) => Err(InvalidRequestError::ZeroLimit),
            Policy::Quorum(_) | Policy::Best { agree: _ } => Err(InvalidRequestError::PolicyForRecords),
            Policy::First | Policy::Limit(_) | Policy::All => Ok(()),
        },
        Operation::PutRecord { record: _, quorum: Quorum::N(0), options: _ }
        | Operation::PutRecordTo { record: _, peers: _, quorum: Quorum::N(0) } => Err(InvalidRequestError::ZeroLimit),
        Operation::PutRecord { record, quorum: _, options: _ } => check_record(record, config, now),
        Operation::PutRecordTo { record, peers, quorum } => {
            check_record(record, config, now)?;
            let peers = remote(peers, local_peer).len();
            let needed = quorum.of(peers);
            match peers {
                0 => Err(InvalidRequestError::NoPeers),
                _ if needed > peers => Err(InvalidRequestError::QuorumExceedsPeers { needed, peers }),
                _ => Ok(()),
            }
        }
        Operation::StartProviding { .. } | Operation::GetClosestPeers { .. } | Operation::Bootstrap => Ok(()),
    }
}

fn check_record(record: &Record, config: &TrackerConfig, now: Option<Instant>) -> Result<(), InvalidRequestError> {
    let (len, max) = (record.value.len(), config.max_value_len_for(record.key.as_ref().len()));
    if len > max {
        return Err(InvalidRequestError::ValueTooLong { len, max });
    }
    if now.is_some_and(|now| record.is_expired(now)) {
        return Err(InvalidRequestError::RecordExpired);
    }
    if let Some(validator) = config.validators.of(record.key.as_ref()) {
        validator
            .validate(&record.key, &record.value)
            .map_err(|rejected| InvalidRequestError::Rejected { reason: rejected.to_string() })?;
    }
    Ok(())
}

/// Adapts an accepted operation to kad.
pub(super) fn adopt(mut operation: Operation, local_peer: &PeerId) -> Operation {
    match &mut operation {
        Operation::PutRecord { record, quorum: _, options: _ } => {
            // Copies the record only if the caller still holds it.
            if record.publisher != Some(*local_peer) {
                Arc::make_mut(record).publisher = Some(*local_peer);
            }
        }
        Operation::PutRecordTo { record: _, peers, quorum: _ } => *peers = remote(peers, local_peer),
        Operation::GetRecord { .. }
        | Operation::GetProviders { .. }
        | Operation::StartProviding { .. }
        | Operation::GetClosestPeers { .. }
        | Operation::Bootstrap => {}
    }
    operation
}

/// Returns the peers that kad can store a record at: it never ends a store at the local peer, and a duplicate makes
/// `Quorum::All` impossible.
fn remote(peers: &[PeerId], local_peer: &PeerId) -> Vec<PeerId> {
    distinct(peers.iter().copied().filter(|peer| peer != local_peer))
}
