use std::time::Duration;

use crate::{Validators, setters::setters};

/// Maximum number of queries that the tracker runs at the same time, for any configuration.
///
/// At 100 live queries kad silently stops republishing the local node's records, so the maximum leaves it one.
pub const MAX_RUNNING_CEILING: usize = 99;

/// Bytes of a packet kept free for the up to 20 closer peers that a GET_VALUE response names besides the record: 200
/// bytes each, which hold a peer id and about ten short addresses.
pub(crate) const PACKET_RESERVE: usize = 4 * 1024;

/// Configuration of a [`QueryTracker`](crate::QueryTracker).
///
/// ```
/// use std::time::Duration;
/// use kadence_core::{Cache, TrackerConfig};
///
/// let config = TrackerConfig::default()
///     .max_running(16)
///     .default_timeout(Duration::from_secs(10))
///     .cache(Cache::default().max_age(Duration::from_secs(5)))
///     .stall(None);
/// # let _ = config;
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TrackerConfig {
    /// Maximum number of queries that run in kad at the same time, clamped to 1..=[`MAX_RUNNING_CEILING`]. Default: 32.
    ///
    /// 32 gave the throughput of 100 at a third of the latency. With far more, kad falsely reports records as not found. A
    /// query that no request waits for any more counts until kad has ended it.
    pub max_running: usize,
    /// Maximum number of requests that wait for a slot. Default: 4,096. The next one is refused with
    /// [`RequestError::Overloaded`](crate::RequestError::Overloaded) and changes nothing.
    ///
    /// A request that joins a running query needs no place in the queue, and neither does one that waits for its next
    /// step or attempt. The number of live requests is bounded as well: from twice `max_queued` +
    /// `max_running` on, a request that would join a running query is refused; from three times on, any other request is
    /// treated as if the queue were full.
    ///
    /// 4,096 waiting requests take about two megabytes. At some milliseconds a query they take a few seconds, less than
    /// the default timeout.
    pub max_queued: usize,
    /// Treatment of a request that arrives when the queue is full. Default: [`Overload::Refuse`].
    pub overload: Overload,
    /// Shares of query starts for each class of [`Priority`](crate::Priority), in the order of
    /// [`Priority::ALL`](crate::Priority::ALL), while all classes have requests waiting. Default: 8, 3 and 1 of each
    /// dozen.
    ///
    /// A class with nothing waiting leaves its share to the others. A share of zero counts as one, so no class starves.
    pub shares: [u32; 3],
    /// Seed of the random part of retry delays. The same seed gives the same delays. Default: 0.
    pub seed: u64,
    /// Validators by key namespace. Default: none.
    pub validators: Validators,
    /// Maximum number of bytes that a query may have found for a later request to join it. Such a request receives all
    /// of them at once; beyond the maximum it starts a query of its own. Default: 1 MiB.
    pub max_replay_bytes: usize,
    /// Timeout of a request that sets none, including its time in the queue. Default: 30 s.
    pub default_timeout: Duration,
    /// Time after which a finished query loses its slot even though kad has not reported its end. Default: 30 s.
    ///
    /// kad ends a finished query at its next poll, so after this time the end is not expected any more.
    pub finish_timeout: Duration,
    /// Condition under which a query is finished early because it makes no progress. `None` disables this: one silent
    /// peer then delays a lookup by the 10 s that kad waits for it. Default: [`Stall::default`].
    pub stall: Option<Stall>,
    /// Cache of answers for later requests. `None`, the default, disables it.
    pub cache: Option<Cache>,
    /// Maximum number of read repairs under way at the same time. Zero disables read repair. Default: 16.
    ///
    /// When a get with [`Policy::Best`](crate::Policy::Best) finds peers that hold a worse record, or close peers that
    /// hold none, the best one is sent to them in the background. Beyond the maximum they are not repaired.
    pub max_read_repairs: usize,
    /// Maximum number of items (records or providers) that one request collects, at least one. Default: 4,096.
    ///
    /// With that many, the request ends as if its policy were satisfied. This bounds the memory that peers can fill.
    pub max_items: usize,
    /// Maximum length of a request's key in bytes. Default: 1,024.
    pub max_key_len: usize,
    /// Maximum length of a record's value in bytes, besides the limit that [`max_packet_len`](Self#structfield.max_packet_len)
    /// sets. Default: 65 KiB less one byte, the maximum of kad's `MemoryStore`.
    pub max_value_len: usize,
    /// Maximum packet length of the network's nodes in bytes (`kad::Config::set_max_packet_size`). Default: 16 KiB,
    /// kad's default.
    ///
    /// In kad only the receiver checks it, and a longer record fails silently. The tracker rejects it at the call.
    pub max_packet_len: usize,
}

impl Default for TrackerConfig {
    fn default() -> Self {
        Self {
            max_running: 32,
            max_queued: 4096,
            overload: Overload::Refuse,
            shares: [8, 3, 1],
            seed: 0,
            validators: Validators::default(),
            max_replay_bytes: 1024 * 1024,
            default_timeout: Duration::from_secs(30),
            finish_timeout: Duration::from_secs(30),
            stall: Some(Stall::default()),
            max_read_repairs: 16,
            cache: None,
            max_items: 4096,
            max_key_len: 1024,
            max_value_len: 65 * 1024 - 1,
            max_packet_len: 16 * 1024,
        }
    }
}

impl TrackerConfig {
    /// Returns the maximum length in bytes of a value under a key of `key_len` bytes.
    ///
    /// A PUT_VALUE message carries the key twice, and a GET_VALUE response names closer peers besides the record.
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
    overload: Overload,
    shares: [u32; 3],
    seed: u64,
    validators: Validators,
    max_replay_bytes: usize,
    default_timeout: Duration,
    finish_timeout: Duration,
    max_read_repairs: usize,
    max_items: usize,
    max_key_len: usize,
    max_value_len: usize,
    max_packet_len: usize;
    into stall: Option<Stall>, cache: Option<Cache>
});

/// Detection of stalled queries: those that only wait for peers that do not answer.
///
/// A query has stalled when nothing has changed for the *quiet time*, three smoothed round trips, or for a multiple of
/// it while its policy is not satisfied or few peers have answered. The round trip is measured by the time in which
/// queries get their first answers. A query that no peer has answered is never finished early, because that would report
/// a slow network as an empty one.
///
/// With 5 % of the peers silent, a lookup takes some 200 ms with stall detection and 10 s without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stall {
    /// Minimum quiet time, at least one millisecond. Default: 100 ms; in less, a busy machine looks like a silent network.
    pub min_quiet: Duration,
    /// Maximum quiet time. Default: 2 s.
    pub max_quiet: Duration,
    /// Quiet time until a round trip has been measured. Default: 500 ms.
    pub initial_quiet: Duration,
    /// Number of requests that a lookup of kad has under way at the same time (`kad::Config::set_parallelism`).
    /// Default: 3, kad's default.
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

/// Cache of answers: a later request for the same key gets them at once, without asking the network.
///
/// Cached are, by key, the latest records or providers that satisfied a request, and the fact that there are
/// conclusively none ([`Certainty::Conclusive`](crate::Certainty)). A request is answered from the cache if the cached
/// items alone satisfy its policy: any item satisfies [`First`](crate::Policy::First), and enough of them
/// [`Limit`](crate::Policy::Limit) and [`Quorum`](crate::Policy::Quorum). Policies that wait for the end of a query
/// ([`All`](crate::Policy::All), [`Best`](crate::Policy::Best), and a limit that is not reached) are answered only from a
/// query that ran to its end and was answered by four of five peers, or that found [`TrackerConfig::max_items`].
///
/// Nothing is cached of a query that was cancelled, timed out, missed a quorum, or ended with too few answers. A put or
/// an announcement removes the entries under its key, both when it is accepted and when it ends, and nothing is cached of
/// a read that was running at that time.
///
/// An answer from the cache carries its age (`cached`). It takes no slot and no place in the queue.
/// [`RequestOptions::fresh`](crate::RequestOptions::fresh) asks the network instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cache {
    /// Maximum size of the cache in bytes: those of keys and values, 320 more for each entry and each record, and 80 for
    /// each peer id. When it is full, the entry that expires first is removed. Default: 8 MiB.
    pub max_bytes: usize,
    /// Maximum age of records and providers; a record that expires earlier ends its entry. Default: one minute, the
    /// longest that a user may see a record after another node has replaced it.
    pub max_age: Duration,
    /// Maximum age of a conclusive "not found". Default: 5 s, short because a caller that waits for a record to appear
    /// polls for it.
    pub max_age_not_found: Duration,
}

impl Default for Cache {
    fn default() -> Self {
        Self { max_bytes: 8 * 1024 * 1024, max_age: Duration::from_secs(60), max_age_not_found: Duration::from_secs(5) }
    }
}

setters!(const Cache { max_bytes: usize, max_age: Duration, max_age_not_found: Duration });

/// Treatment of a request when the queue is full.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Overload {
    /// Refuses the new request. No accepted request is lost.
    #[default]
    Refuse,
    /// Ends the last waiting request of the lowest class below the new request's
    /// [`Priority`](crate::Priority) with [`RequestError::Overloaded`](crate::RequestError::Overloaded). Refuses the new
    /// request if none of a lower class is waiting.
    Shed,
}
