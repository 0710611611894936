use thiserror::Error;

use super::RequestError;
use crate::Progress;

/// Error of a bootstrap.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum BootstrapError {
    /// Every lookup ended by kad's query timeout. If the first one, of the local peer id, ends so, kad starts no
    /// others.
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
        /// Requests of all lookups. None was answered.
        progress: Progress,
    },
    /// The deadline of the request passed before the last lookup ended. Peers that lookups have added to the routing
    /// table stay there.
    #[error("deadline passed after {phases} lookups")]
    Timeout {
        /// Number of lookups of the last attempt that ended before the deadline.
        phases: u32,
        /// Number of those lookups that ended by kad's query timeout.
        failed: u32,
        /// Requests and answers of the lookups that `phases` counts.
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
    /// Returns `true` if [`Retry`](crate::Retry), within its limits, repeats the request after this error;
    /// [`Outcome::is_retryable`](crate::Outcome::is_retryable) lists the errors that it does not repeat. `false` does
    /// not mean that a later request must fail: [`Overloaded`](RequestError::Overloaded), for example, is temporary.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::AllPhasesFailed { .. } | Self::NoResponse { .. } | Self::NoKnownPeers => true,
            Self::Timeout { .. } | Self::Request(_) => false,
        }
    }
}
