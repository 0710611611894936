use std::time::Duration;

use libp2p::PeerId;

/// Event of a fetch in progress.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FetchEvent {
    /// More of the blob was verified and written.
    Progress {
        /// Number of bytes that are verified, including those of earlier runs.
        verified: u64,
        /// Size of the blob in bytes.
        total: u64,
    },
    /// A provider succeeded or failed: input for its reputation.
    Report(ProviderReport),
}

/// Outcome of a fetch from one provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProviderReport {
    /// The provider.
    pub peer: PeerId,
    /// Its outcome.
    pub outcome: ProviderOutcome,
}

/// Kinds of outcomes of a fetch from one provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProviderOutcome {
    /// The provider sent valid data.
    Success {
        /// Number of bytes.
        bytes: u64,
        /// Time since the provider was first asked.
        time: Duration,
    },
    /// The provider could not be reached, closed the connection, was too slow, or does not speak the protocol.
    Failed,
    /// The provider sent bytes that are not of this blob. It is not asked again.
    BadData,
    /// The provider has no capacity at the moment.
    Busy,
    /// The provider does not have the blob.
    NotFound,
}
