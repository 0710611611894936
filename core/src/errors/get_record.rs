use std::{sync::Arc, time::Duration};

use libp2p::{PeerId, kad::PeerRecord};
use thiserror::Error;

use super::RequestError;
use crate::{Candidate, Certainty, Progress};

/// Error of a get.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum GetRecordError {
    /// No peer that answered holds the record.
    #[error("record not found: {} of {} peers answered, which is {certainty}", progress.successes, progress.requests)]
    NotFound {
        /// Peers closest to the key among those that answered.
        closest_peers: Vec<PeerId>,
        /// Conclusive if enough peers answered to conclude that no record exists.
        certainty: Certainty,
        /// Number of records that the validator of the key's namespace rejected. If there are any, the result is
        /// inconclusive: a peer that sent an invalid record may have hidden a valid one.
        rejected: u32,
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
    /// The query ended, sources hold different values, and none of them reached the quorum.
    #[error("{} different values were found, none at {needed} sources", candidates.len())]
    Conflict {
        /// Every value, the one with the most sources first.
        candidates: Vec<Candidate>,
        /// Number of sources that had to agree.
        needed: usize,
    },
    /// The query ended, all sources hold the same value, and they are fewer than the quorum.
    #[error("{} sources hold the record, fewer than the quorum of {needed}", candidate.votes)]
    QuorumNotReached {
        /// The value.
        candidate: Candidate,
        /// Number of sources that had to agree.
        needed: usize,
    },
    /// The deadline passed, or kad's own query timeout, before the policy was satisfied.
    #[error("deadline passed with {} records found", found.len())]
    Timeout {
        /// Records found before the deadline, one for each source: those of the last attempt first, by order of arrival.
        found: Vec<Arc<PeerRecord>>,
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

impl GetRecordError {
    /// Returns whether another attempt could succeed; see [`Outcome::is_retryable`](crate::Outcome::is_retryable).
    pub fn is_retryable(&self) -> bool {
        match self {
            // A peer that sent an invalid record would send it again.
            Self::NotFound { certainty, rejected, .. } => *certainty == Certainty::Inconclusive && *rejected == 0,
            Self::NoResponse { .. } | Self::NoKnownPeers | Self::QuorumNotReached { .. } => true,
            Self::Timeout { found, progress: _ } => found.is_empty(),
            Self::Conflict { .. } | Self::Request(_) => false,
        }
    }
}
