use std::num::NonZeroUsize;

use libp2p::{PeerId, kad::store};
use thiserror::Error;

use super::RequestError;
use crate::Progress;

/// Error of a put.
///
/// A put that fails has not stored its record in the local store, unless it ended while the record was being stored
/// there. With [`LocalCopy::First`](crate::LocalCopy::First), a record that the local store has accepted stays there
/// after any error.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum PutRecordError {
    /// Fewer peers than the quorum acknowledged the record. Peers that stored it keep it until it expires.
    #[error("{} of {asked} peers acknowledged the record, fewer than the quorum of {needed}", acknowledged.len())]
    QuorumFailed {
        /// Peers that acknowledged the record in the last attempt.
        acknowledged: Vec<PeerId>,
        /// Number of peers that had to acknowledge the record.
        needed: NonZeroUsize,
        /// Number of peers that were selected for the record in the last attempt.
        asked: usize,
    },
    /// The quorum was reached, but fewer peers than [`PutOptions::verify`](crate::PutOptions::verify) requires returned
    /// the record when it was read back. Peers that stored the record keep it until it expires.
    #[error("{verified} peers returned the record, {needed} were required")]
    NotVerified {
        /// Peers that acknowledged the record in the last attempt.
        acknowledged: Vec<PeerId>,
        /// Number of peers that returned the record in the last attempt.
        verified: usize,
        /// Number of peers that had to return the record.
        needed: usize,
    },
    /// No peer answered the lookup of the peers closest to the key. The last attempt has sent the record to no peer.
    #[error("none of {} peers answered the lookup", progress.requests)]
    NoResponse {
        /// Requests of the lookup. None was answered.
        progress: Progress,
    },
    /// Fewer peers were found than the quorum requires. The last attempt has sent the record to no peer.
    #[error("{found} peers were found, fewer than the quorum of {needed}")]
    InsufficientPeers {
        /// Number of distinct peers found by the lookups and in the routing table.
        found: usize,
        /// Number of peers that would have to acknowledge the record.
        needed: NonZeroUsize,
    },
    /// The deadline passed before the put had ended. Each peer in `sent_to` may hold the record, because kad names the
    /// peers that acknowledged only at the end of a query. The local store may hold the record if the deadline passed
    /// while the record was being stored there.
    #[error("deadline passed with the record sent to {} peers", sent_to.len())]
    Timeout {
        /// Peers that were selected for the record, those of the last attempt first. Empty if no query that sends the
        /// record had started.
        sent_to: Vec<PeerId>,
        /// Requests and answers of all attempts, as last reported by kad.
        progress: Progress,
    },
    /// The local store rejected the record. With [`LocalCopy::First`](crate::LocalCopy::First), the record was sent to
    /// no peer. Otherwise the quorum was reached, and peers that stored the record keep it until it expires, but the
    /// local node does not republish it.
    #[error("local store rejected the record, which {} peers have acknowledged", acknowledged.len())]
    Store {
        /// Error of the local store.
        #[source]
        error: store::Error,
        /// Peers that acknowledged the record in the last attempt. Empty with [`LocalCopy::First`](crate::LocalCopy::First).
        acknowledged: Vec<PeerId>,
    },
    /// The lookup ended without asking any peer, because the routing table is empty: add a bootstrap peer, or wait for
    /// a connection.
    #[error("routing table is empty: add a bootstrap peer")]
    NoKnownPeers,
    /// The request failed for a reason that is common to all operations.
    #[error(transparent)]
    Request(#[from] RequestError),
}

impl PutRecordError {
    /// Returns `true` if [`Retry`](crate::Retry), within its limits, repeats the request after this error;
    /// [`Outcome::is_retryable`](crate::Outcome::is_retryable) lists the errors that it does not repeat. `false` does
    /// not mean that a later request must fail: [`Overloaded`](RequestError::Overloaded), for example, is temporary.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::QuorumFailed { .. }
            | Self::NotVerified { .. }
            | Self::NoResponse { .. }
            | Self::InsufficientPeers { .. }
            | Self::NoKnownPeers => true,
            Self::Timeout { .. } | Self::Store { .. } | Self::Request(_) => false,
        }
    }
}
