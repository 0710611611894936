//! Outcomes and items: everything that a request delivers to its caller.

use std::{error::Error, sync::Arc, time::Duration};

use libp2p::{PeerId, kad::PeerRecord};

use crate::{
    BootstrapAnswer, BootstrapError, Certainty, ClosestPeersAnswer, GetClosestPeersError, GetProvidersError,
    GetRecordError, OperationKind, ProvideAnswer, ProvidersAnswer, PutAnswer, PutRecordError, RecordAnswer,
    RequestError, StartProvidingError,
};

/// Result delivered while its request runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A record with the peer that sent it, or `None` for the local store. Shared, not copied.
    Record(Arc<PeerRecord>),
    /// A provider, each at most once.
    Provider(PeerId),
    /// A lookup of a bootstrap has ended.
    BootstrapPhase(BootstrapPhase),
}

/// Result of one lookup of a bootstrap: the first is for the local peer id, each further one refreshes a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootstrapPhase {
    /// `true` if the lookup ended before kad's timeout.
    pub ok: bool,
    /// Number of lookups still to come. `None` if kad does not know.
    pub remaining: Option<u32>,
}

/// Result of a request, delivered once.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// Of [`Operation::GetRecord`](crate::Operation::GetRecord).
    GetRecord(Result<RecordAnswer, GetRecordError>),
    /// Of [`Operation::PutRecord`](crate::Operation::PutRecord).
    PutRecord(Result<PutAnswer, PutRecordError>),
    /// Of [`Operation::PutRecordTo`](crate::Operation::PutRecordTo).
    PutRecordTo(Result<PutAnswer, PutRecordError>),
    /// Of [`Operation::GetProviders`](crate::Operation::GetProviders).
    GetProviders(Result<ProvidersAnswer, GetProvidersError>),
    /// Of [`Operation::StartProviding`](crate::Operation::StartProviding).
    StartProviding(Result<ProvideAnswer, StartProvidingError>),
    /// Of [`Operation::GetClosestPeers`](crate::Operation::GetClosestPeers).
    GetClosestPeers(Result<ClosestPeersAnswer, GetClosestPeersError>),
    /// Of [`Operation::Bootstrap`](crate::Operation::Bootstrap).
    Bootstrap(Result<BootstrapAnswer, BootstrapError>),
}

impl Outcome {
    /// Creates the outcome of an operation that failed for a reason that all operations share.
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

    /// Returns the operation that ended.
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

    /// Returns whether the request got an answer.
    pub fn is_ok(&self) -> bool {
        self.error().is_none()
    }

    /// Returns whether another attempt could end differently, because peers come and go.
    ///
    /// Not retryable are
    /// - an answer;
    /// - an invalid, refused or cancelled request, and one that expired in the queue;
    /// - an entry that the local store rejected;
    /// - a [`Conflict`](GetRecordError::Conflict), a conclusive [`NotFound`](GetRecordError::NotFound), and one with
    ///   rejected records;
    /// - the timeout of a put or a bootstrap, and that of a lookup which found something.
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

    /// Returns whether the outcome is an answer or a conclusive "not found", which may be cached.
    pub(crate) fn is_found_out(&self) -> bool {
        match self {
            Self::GetRecord(Err(GetRecordError::NotFound { certainty, .. }))
            | Self::GetProviders(Err(GetProvidersError::NotFound { certainty, .. })) => {
                *certainty == Certainty::Conclusive
            }
            _ => self.is_ok(),
        }
    }

    /// Marks the outcome as one from the cache, `age` after it was found.
    pub(crate) fn kept_for(mut self, age: Duration) -> Self {
        if let Self::GetRecord(Ok(RecordAnswer { cached, .. }) | Err(GetRecordError::NotFound { cached, .. }))
        | Self::GetProviders(
            Ok(ProvidersAnswer { cached, .. }) | Err(GetProvidersError::NotFound { cached, .. }),
        ) = &mut self
        {
            *cached = Some(age);
        }
        self
    }
}

#[cfg(test)]
mod tests;
