use thiserror::Error;

use super::RequestError;
use crate::Progress;

/// Error of a bootstrap.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum BootstrapError {
    /// Every lookup timed out in kad.
    #[error("all {phases} lookups timed out")]
    AllPhasesFailed {
        /// Number of lookups.
        phases: u32,
        /// Requests and answers of all lookups.
        progress: Progress,
    },
    /// None of the peers asked has answered.
    #[error("none of {} peers answered", progress.requests)]
    NoResponse {
        /// Requests of all lookups.
        progress: Progress,
    },
    /// The deadline passed first. Peers that the completed lookups added to the routing table stay there.
    #[error("deadline passed after {phases} lookups")]
    Timeout {
        /// Number of completed lookups.
        phases: u32,
        /// Number of them that timed out in kad.
        failed: u32,
        /// Requests and answers of the completed lookups.
        progress: Progress,
    },
    /// The routing table is empty: add a bootstrap peer, or wait for a connection.
    #[error("routing table is empty: add a bootstrap peer")]
    NoKnownPeers,
    /// The request failed for a reason that is common to all operations.
    #[error(transparent)]
    Request(#[from] RequestError),
}

impl BootstrapError {
    /// Returns whether another attempt could succeed; see [`Outcome::is_retryable`](crate::Outcome::is_retryable).
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::AllPhasesFailed { .. } | Self::NoResponse { .. } | Self::NoKnownPeers => true,
            Self::Timeout { .. } | Self::Request(_) => false,
        }
    }
}
