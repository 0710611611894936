use std::time::Duration;

use super::wire::MAX_GROUPS;
use crate::blob::GROUP_BYTES;

/// How blobs are fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchConfig {
    /// Groups of 16 KiB that are asked for at a time, 1 to 64.
    pub piece_groups: u32,
    /// How many pieces each provider is asked for ahead, at least 1.
    pub pipeline: usize,
    /// Providers at a time, at least 1.
    pub providers: usize,
    /// How long it may take to have a stream, connecting included.
    pub open_timeout: Duration,
    /// How long 16 KiB may take.
    pub step_timeout: Duration,
    /// How long a piece may take. Well below `stall_timeout`: others are to have their turn before all is given up.
    pub piece_timeout: Duration,
    /// When a piece is so late that another provider is asked for it, too, if it has nothing else to do; after twice the
    /// time, a third, and so on.
    pub hedge_after: Duration,
    /// How long there may be no progress at all.
    pub stall_timeout: Duration,
    /// How long all of it may take.
    pub timeout: Duration,
    /// How long a provider is left alone after a failure; after the second, twice as long.
    pub retry_after: Duration,
}

impl Default for FetchConfig {
    /// Pieces of 256 KiB, eight ahead, as measured over loopback: with four, a stream waits for requests, which costs a
    /// fifth; larger pieces make nothing faster.
    fn default() -> Self {
        Self {
            piece_groups: 16,
            pipeline: 8,
            providers: 6,
            open_timeout: Duration::from_secs(10),
            step_timeout: Duration::from_secs(10),
            piece_timeout: Duration::from_secs(20),
            hedge_after: Duration::from_secs(1),
            stall_timeout: Duration::from_secs(60),
            timeout: Duration::from_secs(60 * 60),
            retry_after: Duration::from_millis(500),
        }
    }
}

impl FetchConfig {
    pub(super) fn piece_bytes(&self) -> u64 {
        u64::from(self.piece_groups.clamp(1, MAX_GROUPS)).saturating_mul(GROUP_BYTES)
    }
}

/// How much is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerConfig {
    /// Streams at a time. Each takes up to 2 MiB of memory.
    pub streams: usize,
    /// Streams at a time of one peer.
    pub streams_per_peer: usize,
    /// Bytes per second for all peers together.
    pub bytes_per_second: u64,
    /// Bytes per second for one peer.
    pub bytes_per_second_per_peer: u64,
    /// How long a stream may be without a request.
    pub idle_timeout: Duration,
    /// How long it may take until a peer has taken 16 KiB.
    pub step_timeout: Duration,
    /// How long it may take until a peer has taken an answer, which has up to 1 MiB.
    pub response_timeout: Duration,
    /// What peers are told that have to come back because there is no room.
    pub retry_after: Duration,
}

impl Default for ServerConfig {
    /// A home connection's worth for each peer, and no more than a laptop has to spare.
    fn default() -> Self {
        Self {
            streams: 64,
            streams_per_peer: 4,
            bytes_per_second: 256 << 20,
            bytes_per_second_per_peer: 128 << 20,
            idle_timeout: Duration::from_secs(30),
            step_timeout: Duration::from_secs(10),
            response_timeout: Duration::from_secs(60),
            retry_after: Duration::from_secs(1),
        }
    }
}
