use std::time::Duration;

use libp2p::PeerId;

/// What happens while a blob is fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FetchEvent {
    /// So much is verified and written, what was there from an earlier time included.
    Progress {
        /// Bytes.
        verified: u64,
        /// The size of the blob in bytes.
        total: u64,
    },
    /// Something that a peer's reputation is made of.
    Report(ProviderReport),
}

/// How it went with a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProviderReport {
    /// Who.
    pub peer: PeerId,
    /// How.
    pub outcome: ProviderOutcome,
}

/// How it went with a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProviderOutcome {
    /// It has sent what was asked for.
    Success {
        /// So many bytes.
        bytes: u64,
        /// In this time, from when it was first asked.
        time: Duration,
    },
    /// It could not be reached, has gone away, was too slow, or does not speak the protocol.
    Failed,
    /// It has sent bytes that are not of this blob. It is not asked again.
    BadData,
    /// It had no room for us.
    Busy,
    /// It does not have it.
    NotFound,
}
