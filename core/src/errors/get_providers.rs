use std::time::Duration;

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
        closest_peers: Vec<PeerId>,
        /// Conclusive if at least four of five of the peers asked answered and the query was not
        /// [finished early](crate::Stall).
        certainty: Certainty,
        /// Requests and answers of the query.
        progress: Progress,
        /// Time since this result was put into the [cache](crate::Cache). `None` if the result is not from the cache.
        cached: Option<Duration>,
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
        found: Vec<PeerId>,
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
    /// Returns `true` if another attempt could succeed; see [`Outcome::is_retryable`](crate::Outcome::is_retryable).
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::NotFound { certainty, .. } => *certainty == Certainty::Inconclusive,
            Self::NoResponse { .. } | Self::NoKnownPeers => true,
            Self::Timeout { found, progress: _ } => found.is_empty(),
            Self::Request(_) => false,
        }
    }
}
