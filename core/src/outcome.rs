//! Outcomes and items: everything that a request delivers to its caller.

use std::{error::Error, sync::Arc};

use libp2p::{PeerId, kad::PeerRecord};

use crate::{
    BootstrapAnswer, BootstrapError, ClosestPeersAnswer, GetClosestPeersError, GetProvidersError, GetRecordError,
    OperationKind, ProvideAnswer, ProvidersAnswer, PutAnswer, PutRecordError, RecordAnswer, RequestError,
    StartProvidingError,
};

/// Partial result of a [streaming](crate::RequestOptions::streaming) request, delivered before its outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A record. Its `peer` is the peer that sent it, or `None` for the local store.
    Record(Arc<PeerRecord>),
    /// A provider. Each is delivered at most once.
    Provider(PeerId),
    /// The end of one lookup of a bootstrap.
    BootstrapPhase(BootstrapPhase),
}

/// Result of one lookup of a bootstrap. The first lookup is for the local peer id; each further one refreshes a bucket
/// of the routing table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootstrapPhase {
    /// `true` if the lookup ended before kad's query timeout.
    pub ok: bool,
    /// Number of lookups still to come, as reported by kad. After a lookup that timed out, kad does not count the one
    /// that starts next. `None` if the first lookup timed out, which ends the bootstrap.
    pub remaining: Option<u32>,
}

/// Result of a request, delivered exactly once.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// Result of [`Operation::GetRecord`](crate::Operation::GetRecord).
    GetRecord(Result<RecordAnswer, GetRecordError>),
    /// Result of [`Operation::PutRecord`](crate::Operation::PutRecord).
    PutRecord(Result<PutAnswer, PutRecordError>),
    /// Result of [`Operation::PutRecordTo`](crate::Operation::PutRecordTo).
    PutRecordTo(Result<PutAnswer, PutRecordError>),
    /// Result of [`Operation::GetProviders`](crate::Operation::GetProviders).
    GetProviders(Result<ProvidersAnswer, GetProvidersError>),
    /// Result of [`Operation::StartProviding`](crate::Operation::StartProviding).
    StartProviding(Result<ProvideAnswer, StartProvidingError>),
    /// Result of [`Operation::GetClosestPeers`](crate::Operation::GetClosestPeers).
    GetClosestPeers(Result<ClosestPeersAnswer, GetClosestPeersError>),
    /// Result of [`Operation::Bootstrap`](crate::Operation::Bootstrap).
    Bootstrap(Result<BootstrapAnswer, BootstrapError>),
}

impl Outcome {
    /// Creates the outcome of an operation of this kind that failed with an error that all operations share.
    pub fn failed(kind: OperationKind, error: RequestError) -> Self {
        match kind {
            OperationKind::GetRecord => Self::GetRecord(Err(error.into())),
            OperationKind::PutRecord => Self::PutRecord(Err(error.into())),
            OperationKind::PutRecordTo => Self::PutRecordTo(Err(error.into())),
            OperationKind::GetProviders => Self::GetProviders(Err(error.into())),
            OperationKind::StartProviding => Self::StartProviding(Err(error.into())),
            OperationKind::GetClosestPeers => Self::GetClosestPeers(Err(error.into())),
            OperationKind::Bootstrap => Self::Bootstrap(Err(error.into())),
        }
    }

    /// Returns the kind of the operation that ended.
    pub fn kind(&self) -> OperationKind {
        match self {
            Self::GetRecord(_) => OperationKind::GetRecord,
            Self::PutRecord(_) => OperationKind::PutRecord,
            Self::PutRecordTo(_) => OperationKind::PutRecordTo,
            Self::GetProviders(_) => OperationKind::GetProviders,
            Self::StartProviding(_) => OperationKind::StartProviding,
            Self::GetClosestPeers(_) => OperationKind::GetClosestPeers,
            Self::Bootstrap(_) => OperationKind::Bootstrap,
        }
    }

    /// Returns `true` if the request succeeded.
    pub fn is_ok(&self) -> bool {
        self.error().is_none()
    }

    /// Returns `true` if another attempt could succeed, because peers come and go. [`Retry`](crate::Retry) then repeats
    /// the request, within its limits.
    ///
    /// Not repeated are
    /// - an answer;
    /// - every [`RequestError`]: for example, an invalid, refused or cancelled request, or one that expired in the
    ///   queue;
    /// - an entry that the local store rejected;
    /// - a [`Conflict`](GetRecordError::Conflict), a conclusive [`NotFound`](GetRecordError::NotFound), and a
    ///   `NotFound` after rejected records;
    /// - the timeout of a put or a bootstrap, and that of a get or lookup which found something.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::GetRecord(result) => result.as_ref().is_err_and(GetRecordError::is_retryable),
            Self::PutRecord(result) | Self::PutRecordTo(result) => {
                result.as_ref().is_err_and(PutRecordError::is_retryable)
            }
            Self::GetProviders(result) => result.as_ref().is_err_and(GetProvidersError::is_retryable),
            Self::StartProviding(result) => result.as_ref().is_err_and(StartProvidingError::is_retryable),
            Self::GetClosestPeers(result) => result.as_ref().is_err_and(GetClosestPeersError::is_retryable),
            Self::Bootstrap(result) => result.as_ref().is_err_and(BootstrapError::is_retryable),
        }
    }

    /// Returns whether the local provider entry of an announcement stays.
    pub(crate) fn keeps_provider(&self) -> bool {
        match self {
            Self::StartProviding(Ok(_)) => true,
            Self::StartProviding(Err(error)) => error.keeps_local_entry(),
            _ => false,
        }
    }

    /// Returns the error if the request failed.
    pub fn error(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::GetRecord(result) => result.as_ref().err().map(|e| e as _),
            Self::PutRecord(result) | Self::PutRecordTo(result) => result.as_ref().err().map(|e| e as _),
            Self::GetProviders(result) => result.as_ref().err().map(|e| e as _),
            Self::StartProviding(result) => result.as_ref().err().map(|e| e as _),
            Self::GetClosestPeers(result) => result.as_ref().err().map(|e| e as _),
            Self::Bootstrap(result) => result.as_ref().err().map(|e| e as _),
        }
    }
}

#[cfg(test)]
mod tests;
