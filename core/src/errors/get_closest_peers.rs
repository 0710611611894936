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
        /// Requests of the query.
        progress: Progress,
    },
    /// The deadline passed, or kad's own query timeout.
    #[error("deadline passed with {} peers found", peers.len())]
    Timeout {
        /// Peers that had answered, as far as kad has named them. kad names them only when a lookup ends: at the
        /// request's deadline these are the peers of a thorough lookup's first query, if that has ended, and none
        /// otherwise.
        peers: Vec<PeerInfo>,
        /// Requests and answers of all attempts, as last reported by kad.
        progress: Progress,
    },
    /// The routing table is empty: add a bootstrap peer, or wait for a connection.
    #[error("routing table is empty: add a bootstrap peer")]
    NoKnownPeers,
    /// The request failed for a reason that is common to all operations.
    #[error(transparent)]
    Request(#[from] RequestError),
}

impl GetClosestPeersError {
    /// Returns whether another attempt could succeed; see [`Outcome::is_retryable`](crate::Outcome::is_retryable).
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::NoResponse { .. } | Self::NoKnownPeers => true,
            Self::Timeout { peers, progress: _ } => peers.is_empty(),
            Self::Request(_) => false,
        }
    }
}
