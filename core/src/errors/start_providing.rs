use libp2p::kad::store;
use thiserror::Error;

use super::RequestError;
use crate::Progress;

/// Error of a provider announcement.
///
/// After [`NoKnownPeers`](Self::NoKnownPeers) and [`NoResponse`](Self::NoResponse), the local store names the local peer
/// as a provider of the key: the node was alone. kad announces the entry again at its interval (12 hours by default). A
/// ready-made node without a connected peer of its network announces it when the first one comes. After any other error, the store does not name the local
/// peer, unless it did so before the announcement, another announcement of the key has left its entry or is under way, or
/// the driver was dropped.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum StartProvidingError {
    /// No peer answered the lookup of the peers closest to the key, so the announcement was not sent.
    #[error("none of {} peers answered the lookup", progress.requests)]
    NoResponse {
        /// Requests of the lookup. None was answered.
        progress: Progress,
    },
    /// The deadline of the request passed, or kad's own query timeout. Some peers may have received the announcement.
    #[error("deadline passed before the announcement was sent to all peers")]
    Timeout {
        /// Requests and answers, as last reported by kad: of all attempts if the deadline of the request passed, and of
        /// the last attempt if kad's query timeout passed.
        progress: Progress,
    },
    /// The local store rejected the provider entry: raise the limits of the store, or stop providing another key.
    #[error("local store rejected the provider entry")]
    Store(#[source] store::Error),
    /// The lookup ended without asking any peer, because the routing table is empty: add a bootstrap peer, or wait for
    /// a connection.
    #[error("routing table is empty: add a bootstrap peer")]
    NoKnownPeers,
    /// The node has no external address, so that the announcement would not say where the provider is: most peers ignore
    /// such an announcement. Let the node listen, or add an external address.
    #[error("no external address to announce: listen on an address, or configure an external one")]
    NoExternalAddress,
    /// The request failed for a reason that is common to all operations.
    #[error(transparent)]
    Request(#[from] RequestError),
}

impl StartProvidingError {
    /// Returns `true` if [`Retry`](crate::Retry), within its limits, repeats the request after this error;
    /// [`Outcome::is_retryable`](crate::Outcome::is_retryable) lists the errors that it does not repeat. `false` does
    /// not mean that a later request must fail: [`Overloaded`](RequestError::Overloaded), for example, is temporary.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::NoResponse { .. } | Self::Timeout { .. } | Self::NoKnownPeers => true,
            Self::Store(_) | Self::NoExternalAddress | Self::Request(_) => false,
        }
    }

    /// Returns `true` if the local store names the local peer as a provider of the key although the announcement has
    /// failed.
    pub fn keeps_local_entry(&self) -> bool {
        match self {
            Self::NoResponse { .. } | Self::NoKnownPeers => true,
            Self::Timeout { .. } | Self::Store(_) | Self::NoExternalAddress | Self::Request(_) => false,
        }
    }
}
