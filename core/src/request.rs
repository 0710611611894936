use std::{fmt, sync::Arc, time::Duration};

use libp2p::{
    PeerId,
    kad::{Record, RecordKey},
};

use crate::{Quorum, setters::setters};

/// Id of a request. The caller allocates it and never uses one twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

impl RequestId {
    /// First id of the tracker's own requests, its read repairs. A caller's request with this id or a larger one is
    /// rejected.
    pub const FIRST_RESERVED: Self = Self(1 << 63);

    /// Returns whether this is a request of the tracker itself, without a caller.
    pub fn is_reserved(self) -> bool {
        self >= Self::FIRST_RESERVED
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// Request of a caller. Once accepted, it has exactly one outcome.
#[derive(Debug, Clone)]
pub struct Request {
    /// Id of the request, never used before.
    pub id: RequestId,
    /// Operation to carry out.
    pub operation: Operation,
    /// Options that all operations share.
    pub options: RequestOptions,
}

/// Options of a request that all operations share.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RequestOptions {
    /// Class in which the request waits for a slot. Default: [`Priority::Normal`].
    pub priority: Priority,
    /// Retries failures that another attempt could fix, until the timeout. `None`, the default, disables retries.
    pub retry: Option<Retry>,
    /// Time from acceptance to the request's deadline. `None`: [`TrackerConfig::default_timeout`]. More than thirty years
    /// count as thirty years.
    ///
    /// [`TrackerConfig::default_timeout`]: crate::TrackerConfig::default_timeout
    pub timeout: Option<Duration>,
    /// Delivers items one by one while the request runs ([`Action::Item`](crate::Action::Item)). The outcome contains all
    /// of them in either case. Default: off.
    pub streaming: bool,
    /// Asks the network even if the [cache](crate::Cache) has an answer. The new answer replaces the cached one.
    /// Default: off.
    pub fresh: bool,
}

setters!(RequestOptions {
    priority: Priority,
    streaming: bool,
    fresh: bool;
    into retry: Option<Retry>, timeout: Option<Duration>
});

/// Condition under which a read is satisfied and ends before its query does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Ends at the first item.
    First,
    /// Ends at exactly this many items from distinct sources, or at the end of the query with at least one. Zero is
    /// invalid.
    Limit(usize),
    /// Ends with the query.
    All,
    /// Records only: ends when enough distinct sources hold the same bytes. The local store is one source. A peer that
    /// has no record does not count.
    Quorum(Quorum),
    /// Records only: returns the record that the namespace's [`Validator`](crate::Validator) prefers to all others.
    Best {
        /// Number of sources that must hold the best record so far to end before the query does. `None` always waits for
        /// the end of the query.
        ///
        /// Where the query ends with fewer, the best record is still the answer; the answer says how many agree.
        agree: Option<Quorum>,
    },
}

/// Class of a request that waits for a slot.
///
/// A lower class never starves: see [`TrackerConfig::shares`](crate::TrackerConfig::shares). A retry waits at the end of
/// its class like a new request. The further steps of a put and of a thorough lookup go ahead of all classes, those of a
/// higher class first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Work that nobody waits for: refreshing, repairing, prefetching.
    Background,
    /// The default.
    #[default]
    Normal,
    /// Work that a person waits for.
    Interactive,
}

impl Priority {
    /// All classes, the highest first.
    pub const ALL: [Self; 3] = [Self::Interactive, Self::Normal, Self::Background];

    /// Index of the class in [`Self::ALL`].
    pub(crate) fn index(self) -> usize {
        match self {
            Self::Interactive => 0,
            Self::Normal => 1,
            Self::Background => 2,
        }
    }
}

/// Retries of a failed request, with exponential backoff and jitter.
///
/// Retries do not move the deadline. If the next attempt could only start after it, the request ends with the error of
/// the last attempt. If the deadline ends an attempt, the request ends with a timeout, which also names what earlier
/// attempts found and sent, after what the last one did.
///
/// Only errors that another attempt could fix are retried: see [`Outcome::is_retryable`](crate::Outcome::is_retryable).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Retry {
    /// Maximum number of attempts, including the first. Zero and one both mean no retry. Default: 3.
    pub attempts: u32,
    /// Delay after the first attempt. It doubles with each further one. At least one millisecond, so that a request that
    /// fails at once does not keep its driver busy. Default: 200 ms.
    pub base: Duration,
    /// Maximum delay. Default: 5 s.
    pub cap: Duration,
    /// Random part of each delay in percent, at most 100, so that requests that failed together do not retry together.
    /// Default: 50.
    ///
    /// It depends only on [`TrackerConfig::seed`](crate::TrackerConfig::seed), the request id and the attempt.
    pub jitter_percent: u8,
}

/// Minimum delay before a retry, for any configuration.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);

impl Default for Retry {
    fn default() -> Self {
        Self::new()
    }
}

setters!(const Retry { attempts: u32, base: Duration, cap: Duration, jitter_percent: u8 });

impl Retry {
    /// Creates retries with the default values, in a `const` as well.
    ///
    /// ```
    /// use std::time::Duration;
    /// use kadence_core::Retry;
    ///
    /// const PATIENT: Retry = Retry::new().attempts(10).cap(Duration::from_secs(2));
    /// ```
    pub const fn new() -> Self {
        Self { attempts: 3, base: Duration::from_millis(200), cap: Duration::from_secs(5), jitter_percent: 50 }
    }

    /// Returns the delay after attempt number `attempt`, counted from 1. `random` is uniform over all `u64`.
    pub(crate) fn wait(&self, attempt: u32, random: u64) -> Duration {
        let doublings = attempt.saturating_sub(1).min(31);
        let full = self.base.saturating_mul(1 << doublings).min(self.cap);
        let jitter = full.saturating_mul(u32::from(self.jitter_percent.min(100))) / 100;
        // The upper half of `random` over 2^32 is a uniform fraction of 1; the nanoseconds of any sane delay fit.
        let drawn = (jitter.as_nanos().saturating_mul(u128::from(random >> 32))) >> 32;
        let wait = full - jitter + Duration::from_nanos(u64::try_from(drawn).unwrap_or(u64::MAX)).min(jitter);
        wait.max(SHORTEST_WAIT)
    }
}

/// Additional options for a put.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PutOptions {
    /// Lowers a quorum that exceeds the number of peers found to that number. Without it, such a put fails with
    /// [`InsufficientPeers`](crate::PutRecordError::InsufficientPeers). Default: off.
    pub clamp_quorum: bool,
    /// Time at which the record is stored locally. Default: [`LocalCopy::OnSuccess`].
    pub local_copy: LocalCopy,
    /// Number of peers that must return the record with exactly these bytes before the put succeeds. It takes one more
    /// query. An acknowledgement is a claim; this is proof. Default: 0, which disables it.
    pub verify: usize,
}

setters!(const PutOptions { clamp_quorum: bool, local_copy: LocalCopy, verify: usize });

/// Time at which a put stores its record locally. kad republishes local records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LocalCopy {
    /// After everything else has succeeded. A put that fails leaves no local record.
    #[default]
    OnSuccess,
    /// Before anything is sent. The record stays, and is republished, even if the put fails.
    First,
}

/// The seven operations, with the names of `kad::Behaviour`.
#[derive(Debug, Clone)]
pub enum Operation {
    /// Looks up the records under a key.
    GetRecord {
        /// Key of the record.
        key: RecordKey,
        /// Condition that ends the get.
        policy: Policy,
    },
    /// Stores a record at the peers closest to its key, then locally, as its publisher.
    PutRecord {
        /// The record. Its publisher is set to the local peer.
        record: Arc<Record>,
        /// Number of the peers *found* that must acknowledge the record. `N(n)` fails if fewer than `n` are found. If too
        /// few acknowledge it, the record is sent to further peers, except with `All`.
        quorum: Quorum,
        /// Additional options.
        options: PutOptions,
    },
    /// Stores a record unchanged at the named peers, and not locally.
    PutRecordTo {
        /// The record.
        record: Arc<Record>,
        /// Peers to store it at. Duplicates and the local peer are removed.
        peers: Vec<PeerId>,
        /// Number of `peers` that must acknowledge it.
        quorum: Quorum,
    },
    /// Looks up the peers that provide a key.
    GetProviders {
        /// Key that is provided.
        key: RecordKey,
        /// Condition that ends the lookup.
        policy: Policy,
    },
    /// Announces the local peer as a provider of a key.
    StartProviding {
        /// Key that is provided.
        key: RecordKey,
    },
    /// Looks up the up to 20 peers closest to a target.
    GetClosestPeers {
        /// Bytes whose hash is the target: those of a key or of a peer id (`PeerId::to_bytes`).
        target: RecordKey,
        /// Runs a second query, for the farthest peer that the first has found, and returns the closest peers of both.
        ///
        /// Every peer asked names the 20 closest to the target that it knows, including silent ones, and so no peer
        /// names the next closer ones. Only a query for another target nearby finds them.
        thorough: bool,
    },
    /// Joins the network: looks up the local peer id, then a random one in every bucket farther away.
    Bootstrap,
}

impl Operation {
    /// Returns the operation without its parameters.
    pub fn kind(&self) -> OperationKind {
        match self {
            Self::GetRecord { key: _, policy: _ } => OperationKind::GetRecord,
            Self::PutRecord { record: _, quorum: _, options: _ } => OperationKind::PutRecord,
            Self::PutRecordTo { record: _, peers: _, quorum: _ } => OperationKind::PutRecordTo,
            Self::GetProviders { key: _, policy: _ } => OperationKind::GetProviders,
            Self::StartProviding { key: _ } => OperationKind::StartProviding,
            Self::GetClosestPeers { target: _, thorough: _ } => OperationKind::GetClosestPeers,
            Self::Bootstrap => OperationKind::Bootstrap,
        }
    }

    /// Returns the key or target of the operation; empty for a bootstrap.
    pub fn key(&self) -> &[u8] {
        match self {
            Self::GetRecord { key, policy: _ }
            | Self::GetProviders { key, policy: _ }
            | Self::StartProviding { key } => key.as_ref(),
            Self::PutRecord { record, quorum: _, options: _ } | Self::PutRecordTo { record, peers: _, quorum: _ } => {
                record.key.as_ref()
            }
            Self::GetClosestPeers { target, thorough: _ } => target.as_ref(),
            Self::Bootstrap => &[],
        }
    }
}

/// An [`Operation`] without its parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OperationKind {
    /// [`Operation::GetRecord`].
    GetRecord,
    /// [`Operation::PutRecord`].
    PutRecord,
    /// [`Operation::PutRecordTo`].
    PutRecordTo,
    /// [`Operation::GetProviders`].
    GetProviders,
    /// [`Operation::StartProviding`].
    StartProviding,
    /// [`Operation::GetClosestPeers`].
    GetClosestPeers,
    /// [`Operation::Bootstrap`].
    Bootstrap,
}

impl OperationKind {
    /// Returns the name of the operation as `kad::Behaviour` spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::GetRecord => "get_record",
            Self::PutRecord => "put_record",
            Self::PutRecordTo => "put_record_to",
            Self::GetProviders => "get_providers",
            Self::StartProviding => "start_providing",
            Self::GetClosestPeers => "get_closest_peers",
            Self::Bootstrap => "bootstrap",
        }
    }
}

impl fmt::Display for OperationKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
