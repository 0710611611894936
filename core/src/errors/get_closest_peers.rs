use std::sync::Arc;

use libp2p::kad::PeerInfo;
use thiserror::Error;

use super::RequestError;
use crate::Progress;

/// Error of a lookup of the closest peers.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum GetClosestPeersError {
    /// None of the peers asked has answered.
    #[error("none of {} peers answered", progress.requests)]
    NoResponse {
        /// Requests of the lookup. None was answered.
        progress: Progress,
    },
    /// The deadline of the request passed, or kad's own query timeout.
    #[error("deadline passed with {} peers found", peers.len())]
    Timeout {
        /// Peers that had answered, as far as kad has named them. kad names peers only at the end of a lookup. After
        /// kad's query timeout, they are those of the lookup. At the deadline of the request, they are those of the
        /// first lookup of a [thorough](crate::Operation::GetClosestPeers::thorough) request if that lookup had ended,
        /// and none otherwise.
        peers: Arc<[PeerInfo]>,
        /// Requests and answers, as last reported by kad: of all attempts if the deadline of the request passed, and of
        /// the last attempt if kad's query timeout passed.
        progress: Progress,
    },
    /// The query ended without asking any peer, because the routing table is empty: add a bootstrap peer, or wait for a
    /// connection.
    #[error("routing table is empty: add a bootstrap peer")]
    NoKnownPeers,
    /// The request failed for a reason that is common to all operations.
    #[error(transparent)]
    Request(#[from] RequestError),
}

impl GetClosestPeersError {
    /// Returns `true` if [`Retry`](crate::Retry), within its limits, repeats the request after this error;
    /// [`Outcome::is_retryable`](crate::Outcome::is_retryable) lists the errors that it does not repeat. `false` does
    /// not mean that a later request must fail: [`Overloaded`](RequestError::Overloaded), for example, is temporary.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::NoResponse { .. } | Self::NoKnownPeers => true,
            Self::Timeout { peers, progress: _ } => peers.is_empty(),
            Self::Request(_) => false,
        }
    }
}
