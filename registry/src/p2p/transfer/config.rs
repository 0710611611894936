use std::time::Duration;

use super::wire::MAX_GROUPS;
use crate::{blob::GROUP_BYTES, p2p::setters::setters};

/// Configuration of a [`Fetcher`](super::Fetcher).
///
/// # Example
///
/// ```
/// use std::time::Duration;
///
/// use kadence_registry::p2p::transfer::FetchConfig;
///
/// let config = FetchConfig::default().providers(3).stall_timeout(Duration::from_secs(20));
/// assert_eq!(config.providers, 3);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct FetchConfig {
    /// Size of a piece, the unit of a request, in groups of 16 KiB. Values outside of 1 to 64 are clamped. Default: 16.
    pub piece_groups: u32,
    /// Maximum number of pieces that are requested from a provider in advance. 0 counts as 1. Default: 8.
    pub pipeline: usize,
    /// Maximum number of providers that are asked at the same time. 0 counts as 1. Default: 6.
    pub providers: usize,
    /// Maximum time to open a stream to a provider, including the dial and the wait for other dials. Default: 10 s.
    pub open_timeout: Duration,
    /// Maximum time to receive 16 KiB. Default: 10 s.
    pub step_timeout: Duration,
    /// Maximum time to receive a piece. Keep it well below `stall_timeout`, so that other providers get their turn
    /// before the fetch fails. Default: 20 s.
    pub piece_timeout: Duration,
    /// Time after which a piece is late and is requested from a second provider that is idle; a third follows after
    /// twice the time, and so on. Default: 1 s.
    pub hedge_after: Duration,
    /// Maximum time without any progress, after which the fetch fails. Default: 60 s.
    pub stall_timeout: Duration,
    /// Maximum time of a whole fetch. Default: 1 h.
    pub timeout: Duration,
    /// Time after which a provider that failed is asked again; twice the time after its second failure. Default: 500
    /// ms.
    pub retry_after: Duration,
}

impl Default for FetchConfig {
    /// Pieces of 256 KiB, eight in advance, were measured over loopback: with four, a stream waits for requests, which
    /// costs a fifth of the speed, and larger pieces are not faster.
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

setters!(FetchConfig {
    piece_groups: u32,
    pipeline: usize,
    providers: usize,
    open_timeout: Duration,
    step_timeout: Duration,
    piece_timeout: Duration,
    hedge_after: Duration,
    stall_timeout: Duration,
    timeout: Duration,
    retry_after: Duration,
});

impl FetchConfig {
    pub(super) fn piece_bytes(&self) -> u64 {
        u64::from(self.piece_groups.clamp(1, MAX_GROUPS)).saturating_mul(GROUP_BYTES)
    }
}

/// Limits of a [`Server`](super::Server).
///
/// # Example
///
/// ```
/// use kadence_registry::p2p::transfer::ServerConfig;
///
/// let config = ServerConfig::default().bytes_per_second(10 << 20).bytes_per_second_per_peer(2 << 20);
/// assert_eq!(config.streams, 64);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerConfig {
    /// Maximum number of open streams. Each takes up to 2 MiB of memory. Default: 64.
    pub streams: usize,
    /// Maximum number of open streams of one peer. Default: 4.
    pub streams_per_peer: usize,
    /// Bandwidth for all peers together, in bytes per second. 0 counts as 1. Default: 256 MiB/s.
    pub bytes_per_second: u64,
    /// Bandwidth for one peer, in bytes per second. 0 counts as 1. Default: 128 MiB/s.
    pub bytes_per_second_per_peer: u64,
    /// Time after which a stream without a request is closed. Default: 30 s.
    pub idle_timeout: Duration,
    /// Maximum time until a peer has taken 16 KiB of a response. Default: 10 s.
    pub step_timeout: Duration,
    /// Maximum time until a peer has taken a whole response of up to 1 MiB. Default: 60 s.
    pub response_timeout: Duration,
    /// Time after which a peer may come back whose stream was refused; it is sent to the peer. Default: 1 s.
    pub retry_after: Duration,
}

impl Default for ServerConfig {
    /// Limits that a laptop can spare; a home connection is slower than the bandwidth of one peer.
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

setters!(ServerConfig {
    streams: usize,
    streams_per_peer: usize,
    bytes_per_second: u64,
    bytes_per_second_per_peer: u64,
    idle_timeout: Duration,
    step_timeout: Duration,
    response_timeout: Duration,
    retry_after: Duration,
});
