use std::time::Duration;

/// Bounds of a timeout that follows the measured round-trip times. Every timeout is at least one millisecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct AdaptiveTimeout {
    /// Timeout before the first measurement, within `min` and `max`. Each measurement moves the mean round-trip time an
    /// eighth of the way towards the measured time.
    pub initial: Duration,
    /// Lower bound of the timeout, for fast networks.
    pub min: Duration,
    /// Upper bound of the timeout, for slow networks. Takes precedence over `min`. After a response that took longer, the bound
    /// is five times as high until the next response that did not, unless `min` is as high as this: over a very slow link
    /// nobody would be heard.
    ///
    /// In two cases, this timeout applies in place of the measured one: to a request, while a query that waits for the
    /// peer has had no response at all; and to requests and dials, after up to eight peers in a row were given up without a
    /// response from any peer. See [`PeerTimeouts`](crate::PeerTimeouts).
    pub max: Duration,
}

impl AdaptiveTimeout {
    /// Returns the bounds of a timeout that is always `span`, or one millisecond if `span` is shorter. To let the
    /// timeout follow the measurements, widen the bounds with [`min`](Self::min()) and [`max`](Self::max()).
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
    /// Timeout of a request over an existing connection, from sending it to its response. Default: 500 ms at first,
    /// then from 100 ms to 2 s.
    ///
    /// Most round trips on the internet are shorter than 300 ms. A pause of the remote process or a lost packet can
    /// cost 100 ms on any network. After 2 s it is faster to ask another peer, where other peers respond sooner.
    pub requests: AdaptiveTimeout,
    /// Timeout of a put of a value of more than 4 KiB to a connected peer, from sending it to its response, which contains the
    /// value again. Also that of other requests while more than 16 KiB of such values are under way, because they may wait behind them.
    /// Default: 4 s at first, then from 1 to 10 s.
    pub uploads: AdaptiveTimeout,
    /// Timeout of a dial, until there is a connection. Default: 2 s at first, then from 500 ms to 5 s.
    ///
    /// A handshake over TCP takes four to six round trips, and a lost first packet costs a second.
    pub dials: AdaptiveTimeout,
    /// Number of mean deviations that are added to the mean round-trip time to get the timeout. Default: 4, as for the
    /// retransmission timeout of TCP (RFC 6298). Unless its upper bound is lower, the timeout is never less than twice
    /// the mean.
    pub deviations: u32,
    /// Number of requests that a lookup sends to connected peers at once. Default: 3, kad's default parallelism. Zero
    /// sends all requests at once.
    ///
    /// If kad's parallelism is greater, the other first requests are held back. Each response, and each request whose stream fails,
    /// releases two of them. The rest is released when the responses to the first requests are later than most, 10 to 100 ms
    /// after the first request, or later while large responses arrive: up to 5 s for those to other queries, and up to 15 s
    /// for its own. Requests to peers that have to be dialled are not held back.
    ///
    /// So a read whose first response has the value usually costs three requests to connected peers by default. If
    /// kad's parallelism is greater than this number, silent first peers delay a lookup by at most 100 ms while no large
    /// responses arrive, compared to sending all requests at once.
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
            uploads: AdaptiveTimeout {
                initial: Duration::from_secs(4),
                min: Duration::from_secs(1),
                max: Duration::from_secs(10),
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
    uploads: AdaptiveTimeout,
    dials: AdaptiveTimeout,
    deviations: u32,
    first_requests: usize,
});

/// Counters and current values of a [`PeerTimeouts`](crate::PeerTimeouts).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerTimeoutStats {
    /// Number of requests that were timed, answered or not.
    ///
    /// Announcements (`ADD_PROVIDER`) have no response and are not timed. The exception is an announcement that waits
    /// for a dial while a query waits for responses, because kad does not say what it sends over a new connection. For
    /// the same reason, a timed dial that no request waits for counts as one request once there is a connection.
    pub timed: u64,
    /// Number of timed requests that were answered while they counted as [`pending`](field@Self::pending).
    pub answered: u64,
    /// Number of timed requests that were given up: reported to kad as failed.
    pub given_up: u64,
    /// Number of late responses: those to requests that counted as [`abandoned`](field@Self::abandoned).
    pub late: u64,
    /// Number of requests that were held back and then never sent, because their query ended first, or, in a bootstrap,
    /// the lookup that they belong to. kad's own statistics count them as sent. A request that is dropped on its
    /// release, because its peer is no longer connected, does not count.
    pub never_sent: u64,
    /// Number of requests whose stream failed or reached kad's own timeout while they counted as
    /// [`pending`](field@Self::pending) or [`abandoned`](field@Self::abandoned). Requests to a peer whose last
    /// connection closed do not count.
    pub failed: u64,
    /// Number of dials that were timed.
    pub dials: u64,
    /// Number of timed dials that were given up: reported to kad as failed.
    pub dials_given_up: u64,
    /// Timeout of a request that is sent now.
    pub timeout: Duration,
    /// Timeout of a dial that starts now.
    pub dial_timeout: Duration,
    /// Number of requests and dials that are being timed, because a query waits for them. All requests that wait for
    /// the same dial count as one, and so do those that were sent when that dial had led to a connection.
    pub pending: usize,
    /// Number of requests and dials that were given up, or that no query waits for any more, and whose late responses
    /// are still measured. At most 1,024, beyond which the oldest are removed. kad closes the stream of a request after
    /// 10 s by default, which removes the request.
    pub abandoned: usize,
}
