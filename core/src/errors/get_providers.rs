use std::sync::Arc;

use libp2p::PeerId;
use thiserror::Error;

use super::RequestError;
use crate::{Certainty, Progress};

/// Error of a provider lookup.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum GetProvidersError {
    /// Peers answered, and none of them knows a provider. The local store has none either.
    #[error("no provider found: {} of {} peers answered, which is {certainty}", progress.successes, progress.requests)]
    NotFound {
        /// Up to 20 peers closest to the key among those that answered, the closest first.
        closest_peers: Arc<[PeerId]>,
        /// Conclusive if the result shows that no provider exists: see [`Certainty`].
        certainty: Certainty,
        /// Requests and answers of the query.
        progress: Progress,
    },
    /// None of the peers asked has answered. This says nothing about whether the key has providers.
    #[error("none of {} peers answered", progress.requests)]
    NoResponse {
        /// Requests of the query. None was answered.
        progress: Progress,
    },
    /// The deadline of the request passed, or kad's own query timeout, before the policy was satisfied.
    #[error("deadline passed with {} providers found", found.len())]
    Timeout {
        /// Providers that the last attempt had found, by order of arrival. Earlier attempts found none.
        found: Arc<[PeerId]>,
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

impl GetProvidersError {
    /// Returns `true` if [`Retry`](crate::Retry), within its limits, repeats the request after this error;
    /// [`Outcome::is_retryable`](crate::Outcome::is_retryable) lists the errors that it does not repeat. `false` does
    /// not mean that a later request must fail: [`Overloaded`](RequestError::Overloaded), for example, is temporary.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::NotFound { certainty, .. } => *certainty == Certainty::Inconclusive,
            Self::NoResponse { .. } | Self::NoKnownPeers => true,
            Self::Timeout { found, progress: _ } => found.is_empty(),
            Self::Request(_) => false,
        }
    }
}
