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
    /// Size of a piece, the unit of a request, in groups of 16 KiB. Values outside of 1 to 64 are clamped. Default: 16,
    /// which is 256 KiB.
    pub piece_groups: u32,
    /// Maximum number of pieces that are assigned to one provider and not yet received and written. They are requested
    /// without waiting for each other. 0 counts as 1. Default: 8.
    pub pipeline: usize,
    /// Maximum number of providers that one fetch asks at the same time. 0 counts as 1. Default: 6.
    pub providers: usize,
    /// Maximum time to open a stream to a provider, including the dial and the wait for other dials of the fetcher.
    /// Default: 10 s.
    pub open_timeout: Duration,
    /// Maximum time of each step of a transfer: to send a request, to wait for the head of a response, or to receive up
    /// to 16 KiB of it. Default: 10 s.
    pub step_timeout: Duration,
    /// Maximum time to receive a piece, from the arrival of the head of its response. Keep it well below
    /// `stall_timeout`, so that other providers are asked before the fetch fails. Default: 20 s.
    pub piece_timeout: Duration,
    /// Time from the assignment of a piece to a provider after which the piece is late. It is then also requested from
    /// a second provider that is idle; a third follows after twice the time, and so on, up to six. Default: 1 s.
    pub hedge_after: Duration,
    /// Maximum time without progress, after which the fetch fails. Progress is the proof of the blob's size, and each
    /// new piece that is verified and written. Default: 60 s.
    pub stall_timeout: Duration,
    /// Maximum time of a whole fetch, including the wait for another fetch of the same blob. Default: 1 h.
    pub timeout: Duration,
    /// Time after which a provider that could not be reached, or whose stream failed, is asked again. After the second
    /// failure in a row the time is doubled, and after the third one the provider is given up. Default: 500 ms.
    ///
    /// A provider that answers that it is busy is asked again after the time that it names, but not earlier than after
    /// this time and not later than after 10 s. A provider that closes a stream before its first response also counts
    /// as busy: when it was busy for the first, second, third time in a row, it is asked again after one, two, three
    /// times this time, and so on, at most 10 s. A busy provider, both kinds counted, is asked again up to nine times
    /// in a row. A complete piece from a provider resets its counts.
    pub retry_after: Duration,
}

impl Default for FetchConfig {
    /// Returns the documented defaults. In measurements over loopback, a `pipeline` of four was a fifth slower than one
    /// of eight, and pieces of more than 256 KiB were not faster.
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
    /// Maximum number of streams that are served at the same time, of all peers together. Each takes up to some 2 MiB
    /// of memory. Further streams are refused. Default: 64.
    pub streams: usize,
    /// Maximum number of streams of one peer that are served at the same time. Default: 4.
    pub streams_per_peer: usize,
    /// Bandwidth for all peers together, in bytes per second. 0 counts as 1. Default: 256 MiB/s.
    ///
    /// A request that would have to wait for more than 2 s gets the answer that the server is busy. A request for more
    /// than three times this number of bytes is therefore never served; by default, a [`Fetcher`](super::Fetcher)
    /// requests 256 KiB at a time.
    pub bytes_per_second: u64,
    /// Bandwidth for one peer, in bytes per second. 0 counts as 1. Requests are delayed and refused as described for
    /// [`bytes_per_second`](field@Self::bytes_per_second). Default: 128 MiB/s.
    pub bytes_per_second_per_peer: u64,
    /// Maximum time from the opening of a stream, or from the end of a response, until the next response is ready,
    /// including the wait for the peer's request. The stream is closed after this time. Default: 30 s.
    pub idle_timeout: Duration,
    /// Maximum time until a peer has taken 16 KiB of a response, after which the stream is closed. Default: 10 s.
    pub step_timeout: Duration,
    /// Maximum time until a peer has taken a whole response, after which the stream is closed. Default: 60 s.
    pub response_timeout: Duration,
    /// Time, sent to a peer whose stream was refused, after which it should open one again. Default: 1 s.
    pub retry_after: Duration,
}

impl Default for ServerConfig {
    /// Returns the documented defaults, which a laptop can spare. Most home connections are slower than the bandwidth
    /// for one peer.
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
