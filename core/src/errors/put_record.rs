use std::num::NonZeroUsize;

use libp2p::{PeerId, kad::store};
use thiserror::Error;

use super::RequestError;
use crate::Progress;

/// Error of a put.
///
/// Unless a variant says otherwise, the record is not in the local store, except after
/// [`LocalCopy::First`](crate::LocalCopy::First), where it stays.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum PutRecordError {
    /// Fewer peers than the quorum acknowledged the record. Those that did keep it until it expires.
    #[error("{} of {asked} peers acknowledged the record, fewer than the quorum of {needed}", acknowledged.len())]
    QuorumFailed {
        /// Peers that acknowledged the record.
        acknowledged: Vec<PeerId>,
        /// Number of peers that had to acknowledge it.
        needed: NonZeroUsize,
        /// Number of peers that the record was sent to.
        asked: usize,
    },
    /// The quorum was reached, but fewer peers than [`PutOptions::verify`](crate::PutOptions::verify) returned the
    /// record when it was read back. Peers that stored it keep it until it expires.
    #[error("{verified} peers returned the record, {needed} were required")]
    NotVerified {
        /// Peers that acknowledged the record.
        acknowledged: Vec<PeerId>,
        /// Number of peers that returned it.
        verified: usize,
        /// Number of peers that had to return it.
        needed: usize,
    },
    /// No peer answered the lookup of the peers closest to the key. Nothing was sent.
    #[error("none of {} peers answered the lookup", progress.requests)]
    NoResponse {
        /// Requests of the lookup.
        progress: Progress,
    },
    /// Fewer peers were found than the quorum requires. Nothing was sent.
    #[error("{found} peers were found, fewer than the quorum of {needed}")]
    InsufficientPeers {
        /// Number of peers found by the lookups and in the routing table.
        found: usize,
        /// Number of peers that would have to acknowledge the record.
        needed: NonZeroUsize,
    },
    /// The deadline passed first. Any of `sent_to` may hold the record, because kad reports acknowledgements only when a
    /// query ends. If the quorum was reached just before the deadline, the local store may hold it as well.
    #[error("deadline passed with the record sent to {} peers", sent_to.len())]
    Timeout {
        /// Peers that the record was being sent to, those of the last attempt first. Empty if no lookup had ended.
        sent_to: Vec<PeerId>,
        /// Requests and answers of all attempts, as last reported by kad.
        progress: Progress,
    },
    /// The local store rejected the record. After [`LocalCopy::First`](crate::LocalCopy::First) nothing was sent;
    /// otherwise the quorum was reached, and the peers keep the record until it expires, but the local node does not
    /// republish it.
    #[error("local store rejected the record, which {} peers hold", acknowledged.len())]
    Store {
        /// Reason of the store.
        #[source]
        error: store::Error,
        /// Peers that acknowledged the record.
        acknowledged: Vec<PeerId>,
    },
    /// The routing table is empty: add a bootstrap peer, or wait for a connection.
    #[error("routing table is empty: add a bootstrap peer")]
    NoKnownPeers,
    /// The request failed for a reason that is common to all operations.
    #[error(transparent)]
    Request(#[from] RequestError),
}

impl PutRecordError {
    /// Returns whether another attempt could succeed; see [`Outcome::is_retryable`](crate::Outcome::is_retryable).
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
