use std::sync::Arc;

use libp2p::{PeerId, kad::PeerRecord};
use thiserror::Error;

use super::RequestError;
use crate::{Candidate, Certainty, Progress};

/// Error of a get.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum GetRecordError {
    /// Peers answered, and none of them returned a valid record. The local store has none either.
    #[error("record not found: {} of {} peers answered, which is {certainty}", progress.successes, progress.requests)]
    NotFound {
        /// Up to 20 peers closest to the key among those that answered, the closest first. Empty if a record was found
        /// that was invalid or had another key, because kad then names no peers.
        closest_peers: Arc<[PeerId]>,
        /// Conclusive if the result shows that no record exists: see [`Certainty`]. Never if `rejected` is not zero.
        certainty: Certainty,
        /// Number of records that the validator of the key's namespace rejected. If it is not zero, the result is
        /// inconclusive, because a peer that returned an invalid record may have hidden a valid one.
        rejected: u32,
        /// Requests and answers of the query.
        progress: Progress,
    },
    /// None of the peers asked has answered. This says nothing about whether a record exists.
    #[error("none of {} peers answered", progress.requests)]
    NoResponse {
        /// Requests of the query. None was answered.
        progress: Progress,
    },
    /// The query ended with different values from different sources, and no value reached the quorum.
    #[error("{} different values were found, none at {needed} sources", candidates.len())]
    Conflict {
        /// All values found, the one with the most sources first, and of equal ones the first to arrive first.
        candidates: Arc<[Candidate]>,
        /// Number of sources that had to hold the same value.
        needed: usize,
    },
    /// The query ended with the same value from all sources that hold a record, and they are fewer than the quorum.
    #[error("{} sources hold the record, fewer than the quorum of {needed}", candidate.votes)]
    QuorumNotReached {
        /// The value, and the number of its sources.
        candidate: Candidate,
        /// Number of sources that had to hold the same value.
        needed: usize,
    },
    /// The deadline of the request passed, or kad's own query timeout, before the policy was satisfied.
    #[error("deadline passed with {} records found", found.len())]
    Timeout {
        /// Records found, one for each source, by order of arrival. If the deadline of the request passed, those of
        /// earlier attempts follow those of the last attempt.
        found: Arc<[Arc<PeerRecord>]>,
        /// Requests and answers, as last reported by kad: of all attempts if the deadline of the request passed, and of
        /// the last attempt if kad's query timeout passed.
        progress: Progress,
    },
    /// The query ended without a record and without asking any peer, because the routing table is empty: add a
    /// bootstrap peer, or wait for a connection.
    #[error("routing table is empty: add a bootstrap peer")]
    NoKnownPeers,
    /// The request failed for a reason that is common to all operations.
    #[error(transparent)]
    Request(#[from] RequestError),
}

impl GetRecordError {
    /// Returns `true` if [`Retry`](crate::Retry), within its limits, repeats the request after this error;
    /// [`Outcome::is_retryable`](crate::Outcome::is_retryable) lists the errors that it does not repeat. `false` does
    /// not mean that a later request must fail: [`Overloaded`](RequestError::Overloaded), for example, is temporary.
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
