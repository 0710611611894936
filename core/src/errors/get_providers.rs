use std::time::Duration;

use libp2p::PeerId;
use thiserror::Error;

use super::RequestError;
use crate::{Certainty, Progress};

/// Error of a provider lookup.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum GetProvidersError {
    /// No peer that answered knows a provider.
    #[error("no provider found: {} of {} peers answered, which is {certainty}", progress.successes, progress.requests)]
    NotFound {
        /// Peers closest to the key among those that answered.
        closest_peers: Vec<PeerId>,
        /// Conclusive if enough peers answered to conclude that no provider exists.
        certainty: Certainty,
        /// Requests and answers of the query.
        progress: Progress,
        /// Age of this result if it came from the [cache](crate::Cache); `None` if it came from the network.
        cached: Option<Duration>,
    },
    /// None of the peers asked has answered. This says nothing about the key.
    #[error("none of {} peers answered", progress.requests)]
    NoResponse {
        /// Requests of the query.
        progress: Progress,
    },
    /// The deadline passed, or kad's own query timeout, before the policy was satisfied.
    #[error("deadline passed with {} providers found", found.len())]
    Timeout {
        /// Providers found before the deadline, by order of arrival.
        found: Vec<PeerId>,
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

impl GetProvidersError {
    /// Returns whether another attempt could succeed; see [`Outcome::is_retryable`](crate::Outcome::is_retryable).
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::NotFound { certainty, .. } => *certainty == Certainty::Inconclusive,
            Self::NoResponse { .. } | Self::NoKnownPeers => true,
            Self::Timeout { found, progress: _ } => found.is_empty(),
            Self::Request(_) => false,
        }
    }
}
