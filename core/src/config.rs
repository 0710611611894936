use std::time::Duration;

use crate::{Validators, setters::setters};

/// Upper bound of [`TrackerConfig::max_running`]: 99. While 100 or more queries are live in kad, kad starts no query to
/// republish or replicate records, and reports no error.
pub const MAX_RUNNING_CEILING: usize = 99;

/// Bytes of a packet kept free for the up to 20 closer peers that a GET_VALUE response names besides the record: 200
/// bytes each, which hold a peer id and about ten short addresses.
pub(crate) const PACKET_RESERVE: usize = 4 * 1024;

/// Configuration of a [`QueryTracker`](crate::QueryTracker).
///
/// ```
/// use std::time::Duration;
/// use kadence_core::TrackerConfig;
///
/// let config = TrackerConfig::default()
///     .max_running(16)
///     .default_timeout(Duration::from_secs(10))
///     .stall(None);
/// # let _ = config;
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TrackerConfig {
    /// Maximum number of queries that the tracker runs in kad at the same time, clamped to
    /// 1..=[`MAX_RUNNING_CEILING`]. Each running query takes one *slot*. Default: 32.
    ///
    /// In a benchmark, 32 slots gave the throughput of 100 at a third of the latency. With far more queries, kad
    /// falsely reports records as not found. A query that no request waits for any more keeps its slot until kad has
    /// ended it, at most for [`finish_timeout`](Self#structfield.finish_timeout).
    pub max_running: usize,
    /// Maximum number of requests that wait for a slot for their first query. Default: 4,096. While that many wait and
    /// no slot is free, further requests are refused with
    /// [`RequestError::Overloaded`](crate::RequestError::Overloaded).
    ///
    /// Some requests need no place in the queue, for example those that join a running query, and those that wait for a
    /// further query or for another attempt. Therefore the number of live requests is bounded as well. A request that
    /// would join a running query is refused at `2 * (max_queued + max_running)`, any other request at
    /// `3 * (max_queued + max_running)`.
    ///
    /// 4,096 waiting requests take about two megabytes of memory, not counting their keys and, for puts, their records.
    /// If a query takes some milliseconds, all of them are started within a few seconds, before the default timeout.
    pub max_queued: usize,
    /// Relative numbers of queries started for each class of [`Priority`](crate::Priority), in the order of
    /// [`Priority::ALL`](crate::Priority::ALL): interactive, normal, background. Default: `[8, 3, 1]`, so that of 12
    /// starts, 8 are for interactive requests while all classes have requests waiting.
    ///
    /// A class without waiting requests leaves its share to the others. A share of zero counts as 1, so that no
    /// class starves, and more than 27,720 as 27,720. The further queries of a put or a thorough lookup go ahead of all classes.
    pub shares: [u32; 3],
    /// Seed of the random part of retry delays. Default: 0. Besides the seed, the random number depends only on the
    /// request id and the number of the attempt, so nodes with the same seed draw the same numbers for the same ids.
    pub seed: u64,
    /// Validators by key namespace, for the records of gets and puts. Other records are not validated. Default: none.
    pub validators: Validators,
    /// Maximum number of bytes that a running query may have found for a later request for the same key to join it. The
    /// joining request receives what was found so far. Beyond the maximum, a later request starts a new query. Default:
    /// 1 MiB. Values of records count with their length, providers with the size of a `PeerId`.
    pub max_replay_bytes: usize,
    /// Timeout of a request that sets none, counted from its acceptance, so that it includes the time in the queue.
    /// Default: 30 s.
    pub default_timeout: Duration,
    /// Time after which a query loses its slot although kad has not reported its end. It is counted from the end of the
    /// last request that waited for the query, when the tracker asks kad to finish it. Default: 30 s.
    ///
    /// kad ends a finished query at its next poll, so the end is not expected after this time. A running query about
    /// which kad has reported nothing for this time is not joined by further requests.
    pub finish_timeout: Duration,
    /// Detection of queries that make no progress, which are finished early. `None` disables it: a silent peer can then
    /// delay a lookup by the 10 s that kad waits for it. Default: `Some(Stall::default())`.
    pub stall: Option<Stall>,
    /// Maximum number of read repairs under way at the same time. Zero disables read repair. Default: 16.
    ///
    /// A read repair sends the best record found by a get with [`Policy::Best`](crate::Policy::Best), in the
    /// background, to peers that returned another valid record. After a get that ran to the end of its query, it also
    /// sends the record to the peers that kad names as the closest without one: one peer with kad's default `Caching`.
    /// Among all peers that returned a valid record or that kad named, only the 20 closest to the key are considered.
    /// While the maximum is under way, no further read repair is started.
    pub max_read_repairs: usize,
    /// Maximum number of items (records or providers) that a query collects. Zero counts as one. Default: 4,096.
    ///
    /// When a query has found this number, the requests that wait for it end as they would at the end of the query: one
    /// with [`Policy::Quorum`](crate::Policy::Quorum) fails if the quorum has not been reached. This bounds the memory
    /// that peers can fill, together with [`max_item_bytes`](Self#structfield.max_item_bytes).
    pub max_items: usize,
    /// Number of bytes after which a query collects no further item, counted as in
    /// [`max_replay_bytes`](Self#structfield.max_replay_bytes). Zero counts as one. Default: 8 MiB, the records of more
    /// than 500 full packets of 16 KiB. When a query has found this many bytes, the requests that wait for it
    /// end as described for [`max_items`](Self#structfield.max_items).
    pub max_item_bytes: usize,
    /// Number of nodes that the network is expected to have. With `None`, the default, the estimate in
    /// [`Network::size`](crate::Network::size) is used, if there is one.
    ///
    /// An empty result is conclusive only if half of the network's nodes have answered, or 10 in a network of 20 or
    /// more. Without this setting at least 3 have to answer in a network of any size, and 10 while the size is unknown.
    /// See [`Certainty`](crate::Certainty).
    pub expected_network_size: Option<usize>,
    /// Maximum length of the key or target of a request in bytes. A request with a longer one is rejected. Default:
    /// 1,024.
    pub max_key_len: usize,
    /// Maximum length of the value of a put in bytes, if [`max_packet_len`](Self#structfield.max_packet_len) does not
    /// require a smaller one: see [`max_value_len_for`](Self::max_value_len_for). Default: 66,559 (65 KiB less one
    /// byte), the maximum of kad's `MemoryStore`.
    pub max_value_len: usize,
    /// Maximum packet length of the network's nodes in bytes (`kad::Config::set_max_packet_size`). Default: 16 KiB, as
    /// in kad.
    ///
    /// kad checks the length only when it receives a message, so a put of a longer record would fail without a reason.
    /// The tracker rejects such a put at once.
    pub max_packet_len: usize,
}

impl Default for TrackerConfig {
    fn default() -> Self {
        Self {
            max_running: 32,
            max_queued: 4096,
            shares: [8, 3, 1],
            seed: 0,
            validators: Validators::default(),
            max_replay_bytes: 1024 * 1024,
            default_timeout: Duration::from_secs(30),
            finish_timeout: Duration::from_secs(30),
            stall: Some(Stall::default()),
            max_read_repairs: 16,
            max_items: 4096,
            max_item_bytes: 8 * 1024 * 1024,
            expected_network_size: None,
            max_key_len: 1024,
            max_value_len: 65 * 1024 - 1,
            max_packet_len: 16 * 1024,
        }
    }
}

impl TrackerConfig {
    /// Returns the maximum length in bytes of a value under a key of `key_len` bytes: the smaller of `max_value_len`
    /// and `max_packet_len - 4096 - 2 * key_len`, or zero if that is negative.
    ///
    /// A PUT_VALUE message contains the key twice. A GET_VALUE response contains up to 20 closer peers besides the
    /// record, for which 4,096 bytes are kept free.
    pub fn max_value_len_for(&self, key_len: usize) -> usize {
        self.max_packet_len
            .saturating_sub(PACKET_RESERVE)
            .saturating_sub(key_len.saturating_mul(2))
            .min(self.max_value_len)
    }
}

setters!(TrackerConfig {
    max_running: usize,
    max_queued: usize,
    shares: [u32; 3],
    seed: u64,
    validators: Validators,
    max_replay_bytes: usize,
    default_timeout: Duration,
    finish_timeout: Duration,
    max_read_repairs: usize,
    max_items: usize,
    max_item_bytes: usize,
    max_key_len: usize,
    max_value_len: usize,
    max_packet_len: usize;
    into stall: Option<Stall>, expected_network_size: Option<usize>
});

/// Detection of stalled queries: those that only wait for peers that do not answer. A stalled query is finished early:
/// an announcement or a bootstrap goes on to its next phase, if it has one, and any other query ends with what it has
/// so far.
///
/// A query has stalled when kad has reported no event for it, and its counts of requests, answers and failures have not
/// changed, for the *quiet time*, or for two to eight times as long if further answers are more likely to matter. A lookup of
/// peers with few answers, that of a put or an announcement included, waits for `max_quiet` at least: near peers answer at
/// once, and far ones have to be dialled. The quiet time is three round trips, within `min_quiet` and `max_quiet`. The length of a round trip is a moving average,
/// estimated from the time that lookups take until kad first reports answers.
///
/// A query that no peer has answered is never finished early, because that would report a slow network as an empty one.
/// The one exception is a query of [`Operation::PutRecord`](crate::Operation::PutRecord) that stores the record,
/// because the put can usually go on with other peers. A read of records or providers has a limit of its own: while
/// fewer than ten peers have answered and more than a quarter of the peers asked, not counting those that failed, have
/// not answered, it is finished early only if it has found something, and no request waits for a number of items or for
/// a quorum. For `All` and `Best`, one item is enough. Not finished early is an [`Operation::PutRecordTo`](crate::Operation::PutRecordTo) whose quorum is
/// not reached while kad has yet to ask some of its peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stall {
    /// Minimum quiet time. Less than one millisecond counts as one. Takes precedence over `max_quiet`. Default: 100 ms;
    /// with less, a busy machine looks like a silent network.
    pub min_quiet: Duration,
    /// Maximum quiet time, and the least time without progress after which a lookup with few answers is finished early.
    /// Default: 2 s.
    pub max_quiet: Duration,
    /// Quiet time until a round trip has been measured, within `min_quiet` and `max_quiet`. Default: 500 ms.
    pub initial_quiet: Duration,
    /// Parallelism of kad's lookups. Set it to the value given to `kad::Config::set_parallelism`. Default: 3, kad's
    /// default.
    pub parallelism: u32,
}

impl Default for Stall {
    fn default() -> Self {
        Self {
            min_quiet: Duration::from_millis(100),
            max_quiet: Duration::from_secs(2),
            initial_quiet: Duration::from_millis(500),
            parallelism: 3,
        }
    }
}

setters!(const Stall { min_quiet: Duration, max_quiet: Duration, initial_quiet: Duration, parallelism: u32 });
