use std::time::Duration;

use libp2p::PeerId;

/// Event of a fetch in progress.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FetchEvent {
    /// The size of the blob was proven, or one more piece was verified and written. Also sent, with `verified` back at
    /// 0, if the finished download was damaged on the disk and is fetched anew.
    Progress {
        /// Number of bytes that are verified and written, rounded up to whole pieces, including those of earlier
        /// fetches that this one resumes. At most `total`.
        verified: u64,
        /// Size of the blob in bytes.
        total: u64,
    },
    /// Outcome of one provider, as input for its reputation. Sent after each failed attempt; when the fetch succeeds,
    /// for providers that sent valid data and no bad data; and when the fetch times out, for each provider with a late
    /// piece.
    Report(ProviderReport),
}

/// Outcome of a fetch from one provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProviderReport {
    /// The provider.
    pub peer: PeerId,
    /// Outcome of this provider.
    pub outcome: ProviderOutcome,
}

/// Kinds of outcomes of a fetch from one provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProviderOutcome {
    /// The provider sent valid data, and the fetch succeeded.
    Success {
        /// Number of valid bytes from this provider, including pieces that another provider delivered first.
        bytes: u64,
        /// Time from when this provider was asked until the end of the fetch. If it was asked several times, the time
        /// counts from the attempt that brought its first valid data.
        time: Duration,
    },
    /// The provider could not be reached, was too slow, does not speak the protocol, or rejected the request as
    /// invalid; or it closed the stream after its first response or, when it had been busy nine times in a row, before
    /// that.
    Failed,
    /// The provider sent bytes that are not of this blob, or violated the protocol. This fetch does not ask it again.
    BadData,
    /// The provider has no capacity at the moment: it said so, or closed the stream before its first response. The
    /// provider is asked again, up to nine times in a row.
    Busy,
    /// The provider does not have the blob. This fetch does not ask it again.
    NotFound,
}
