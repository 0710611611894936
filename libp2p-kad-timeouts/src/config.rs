use std::time::Duration;

/// Bounds of a timeout that follows the measured round-trip times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct AdaptiveTimeout {
    /// Timeout before anything was measured. Each measurement moves the estimate by an eighth.
    pub initial: Duration,
    /// Lower bound of the timeout, for fast networks.
    pub min: Duration,
    /// Upper bound of the timeout, for slow networks. It also applies while nobody at all has responded, or nobody has
    /// responded to the query, because the local network may be down. Takes precedence over `min`.
    pub max: Duration,
}

impl AdaptiveTimeout {
    /// Returns a timeout that is always `span`. Widen it with [`min`](Self::min()) and [`max`](Self::max()).
    pub const fn fixed(span: Duration) -> Self {
        Self { initial: span, min: span, max: span }
    }
}

/// Timeouts of a [`PeerTimeouts`](crate::PeerTimeouts).
///
/// ```
/// use std::time::Duration;
///
/// use libp2p_kad_timeouts::{AdaptiveTimeout, PeerTimeoutConfig};
///
/// // For a network in one data centre.
/// let requests = AdaptiveTimeout::fixed(Duration::from_millis(200))
///     .min(Duration::from_millis(50))
///     .max(Duration::from_secs(1));
/// let config = PeerTimeoutConfig::default().requests(requests).first_requests(2);
/// assert_eq!(config.requests.initial, Duration::from_millis(200));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerTimeoutConfig {
    /// Time from a request to its response. Default: 500 ms at first, then from 100 ms to 2 s.
    ///
    /// Most round trips on the internet are shorter than 300 ms. A pause of the remote process or a lost packet costs
    /// 100 ms on any network. Beyond 2 s another peer answers sooner.
    pub requests: AdaptiveTimeout,
    /// Time from a dial to its connection. Default: 2 s at first, then from 500 ms to 5 s.
    ///
    /// A handshake over TCP takes four to six round trips, and a lost first packet costs a second.
    pub dials: AdaptiveTimeout,
    /// Number of mean deviations added to the mean round-trip time. Default: 4, as for TCP's timeout (RFC 6298). The
    /// timeout is never less than twice the mean.
    pub deviations: u32,
    /// Number of requests that a lookup sends before its first response. Default: 3, kad's own parallelism. Zero sends
    /// all at once.
    ///
    /// Further requests, up to kad's parallelism, are held back. Each response or failed request sends two of them. All
    /// that are left are sent when responses to the first ones are later than most, after 100 ms at the latest. So a
    /// read whose first peer has the value costs three requests, and three silent peers hardly delay it.
    pub first_requests: usize,
}

impl Default for PeerTimeoutConfig {
    fn default() -> Self {
        Self {
            requests: AdaptiveTimeout {
                initial: Duration::from_millis(500),
                min: Duration::from_millis(100),
                max: Duration::from_secs(2),
            },
            dials: AdaptiveTimeout {
                initial: Duration::from_secs(2),
                min: Duration::from_millis(500),
                max: Duration::from_secs(5),
            },
            deviations: 4,
            first_requests: 3,
        }
    }
}

macro_rules! setters {
    ($config:ident { $($field:ident: $type:ty),* $(,)? }) => {
        impl $config {
            $(
                #[doc = concat!("Sets [`", stringify!($field), "`](field@Self::", stringify!($field), ").")]
                #[must_use]
                pub const fn $field(mut self, $field: $type) -> Self {
                    self.$field = $field;
                    self
                }
            )*
        }
    };
}

setters!(AdaptiveTimeout { initial: Duration, min: Duration, max: Duration });
setters!(PeerTimeoutConfig {
    requests: AdaptiveTimeout,
    dials: AdaptiveTimeout,
    deviations: u32,
    first_requests: usize,
});

/// Counters and current values of a [`PeerTimeouts`](crate::PeerTimeouts).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerTimeoutStats {
    /// Requests whose response was timed.
    ///
    /// Announcements (`ADD_PROVIDER`) have no response and are not counted, except for those that waited for a dial
    /// while a query ran: kad does not say what it sends over a new connection.
    pub timed: u64,
    /// Timed requests that were answered in time.
    pub answered: u64,
    /// Timed requests that were reported to kad as failed.
    pub given_up: u64,
    /// Responses that came after their request was given up or their query had ended.
    pub late: u64,
    /// Requests that were held back until their query had ended, and never sent. kad's own statistics count them as
    /// sent.
    pub never_sent: u64,
    /// Requests whose stream failed.
    pub failed: u64,
    /// Dials that were timed.
    pub dials: u64,
    /// Timed dials that were reported to kad as failed.
    pub dials_given_up: u64,
    /// Current timeout of a request.
    pub timeout: Duration,
    /// Current timeout of a dial.
    pub dial_timeout: Duration,
    /// Number of requests and dials that a query waits for. Zero when no query runs.
    pub pending: usize,
    /// Number of requests and dials that no query waits for any more, and whose late response would still be measured.
    /// At most 1,024. kad closes their streams 10 s after they were opened, which removes them.
    pub abandoned: usize,
}
