use std::{fmt, sync::Arc, time::Duration};

use libp2p::{
    PeerId,
    kad::{Record, RecordKey},
};

use crate::{Quorum, setters::setters};

/// Id of a request. The caller chooses it, and must not use the same id twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

impl RequestId {
    /// Smallest id that is reserved for the tracker's own requests, its read repairs: 2^63. A caller's request with
    /// this id or a larger one is rejected.
    pub const FIRST_RESERVED: Self = Self(1 << 63);

    /// Returns `true` if the id is reserved for requests of the tracker itself, which have no caller.
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
    /// Id of the request, smaller than [`RequestId::FIRST_RESERVED`] and never used before.
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
    /// Class in which the request waits until its query can start. Default: [`Priority::Normal`].
    pub priority: Priority,
    /// Retries failures that another attempt could fix, until the deadline. `None`, the default, disables retries.
    pub retry: Option<Retry>,
    /// Time from acceptance to the request's deadline. `None`, the default, stands for
    /// [`TrackerConfig::default_timeout`]. With zero the request ends at once, with an answer only if a running
    /// query already has one. More than thirty years count as thirty years.
    ///
    /// [`TrackerConfig::default_timeout`]: crate::TrackerConfig::default_timeout
    pub timeout: Option<Duration>,
    /// Delivers records, providers and bootstrap phases one by one while the request runs
    /// ([`Action::Item`](crate::Action::Item)). Other operations have no items. With and without streaming, a
    /// successful outcome contains the records or providers. The outcome of a bootstrap contains the number of its phases,
    /// which are its lookups. Default: off.
    pub streaming: bool,
    /// Never joins a query that has started, so that everything that the request finds was found after its acceptance.
    /// Default: off.
    pub fresh: bool,
}

setters!(RequestOptions {
    priority: Priority,
    streaming: bool,
    fresh: bool;
    into retry: Option<Retry>, timeout: Option<Duration>
});

/// Condition under which a read ends, and the records or providers that it returns. A read that finds nothing, or that
/// a timeout ends, fails with any policy. A query ends early at
/// [`TrackerConfig::max_items`](crate::TrackerConfig::max_items) or
/// [`max_item_bytes`](crate::TrackerConfig::max_item_bytes), and may end early if it [stalls](crate::Stall).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Ends at the first item, and returns it alone.
    First,
    /// Ends when this number of items (records from distinct sources, or distinct providers) has been found, and
    /// returns them. If the query ends with fewer, returns those found. Zero is invalid.
    Limit(usize),
    /// Ends with the query, and returns all items found.
    All,
    /// Records only: ends when enough distinct sources hold the same bytes. The local store is one source. A peer that
    /// has no record does not count. Fails if the query ends before.
    Quorum(Quorum),
    /// Records only: returns the best record found, by the [`Validator`](crate::Validator) of the key's namespace.
    /// Invalid if the namespace has none.
    Best {
        /// Number of sources that must hold the best record found so far for the get to end before the query does.
        /// `None` waits for the end of the query.
        ///
        /// If the query ends with fewer, the best record is still the answer.
        /// [`RecordAnswer::agreeing`](crate::RecordAnswer::agreeing) is the number of sources that hold it.
        agree: Option<Quorum>,
    },
}

/// Class of a request that waits for its query to start.
///
/// A lower class never starves: see [`TrackerConfig::shares`](crate::TrackerConfig::shares). A retry waits at the end
/// of its class, like a new request. The further queries of a put or a thorough lookup go ahead of all classes; among
/// them, those of a higher class go first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Work that nobody waits for, such as refreshing and prefetching. Read repairs are in this class.
    Background,
    /// The default class.
    #[default]
    Normal,
    /// Work that a person waits for.
    Interactive,
}

impl Priority {
    /// All classes, the highest first.
    pub const ALL: [Self; 3] = [Self::Interactive, Self::Normal, Self::Background];
}

/// Retries of a failed request, with exponential backoff and jitter.
///
/// Only errors that another attempt could fix are retried: see [`Outcome::is_retryable`](crate::Outcome::is_retryable).
/// A streaming request is not retried once it has delivered an item, because the next attempt would deliver it again.
///
/// Retries do not move the deadline. If the next attempt could not start before the deadline, the request ends at once
/// with the error of the last attempt. If the deadline passes during a later attempt, the request ends with a timeout.
/// The timeout of a get also contains the records that earlier attempts found, and that of a put the peers that they
/// sent the record to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Retry {
    /// Maximum number of attempts, including the first. Zero and one both disable retries. Default: `u32::MAX`, so that
    /// only the deadline limits the number.
    pub attempts: u32,
    /// Delay after the first attempt, before jitter. It doubles after each further attempt. Default: 200 ms. Every
    /// delay is at least one millisecond, so that a request that fails at once does not keep its driver busy.
    pub base: Duration,
    /// Maximum delay, not counting a wait for a slot. Default: 5 s.
    pub cap: Duration,
    /// Random part of each delay in percent, so that requests that failed together do not retry together: 50 draws each
    /// delay between half and the whole of its full length. More than 100 counts as 100. Default: 50.
    ///
    /// The random number depends only on [`TrackerConfig::seed`](crate::TrackerConfig::seed), the request id and the
    /// number of the attempt.
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
    /// Returns the default retries, also in a `const`.
    ///
    /// ```
    /// use std::time::Duration;
    /// use kadence_core::Retry;
    ///
    /// const PATIENT: Retry = Retry::new().attempts(10).cap(Duration::from_secs(2));
    /// ```
    pub const fn new() -> Self {
        Self { attempts: u32::MAX, base: Duration::from_millis(200), cap: Duration::from_secs(5), jitter_percent: 50 }
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

/// Additional options of [`Operation::PutRecord`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PutOptions {
    /// If the first lookup finds peers, but fewer than the quorum requires, lowers the quorum to the number found.
    /// Without this option, such a put looks for further peers, and fails with
    /// [`InsufficientPeers`](crate::PutRecordError::InsufficientPeers) if there are too few. Default: off.
    pub clamp_quorum: bool,
    /// Time at which the record is stored in the local store. Default: [`LocalCopy::OnSuccess`].
    pub local_copy: LocalCopy,
    /// Number of peers that must return exactly the record's value in a lookup, after the quorum is reached, for the
    /// put to succeed. Unlike an acknowledgement, this shows that a peer holds the record. The local store does not
    /// count. Default: 0, which disables the lookup.
    pub verify: usize,
}

setters!(const PutOptions { clamp_quorum: bool, local_copy: LocalCopy, verify: usize });

/// Time at which a put stores its record in the local store, from which kad republishes it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LocalCopy {
    /// After everything else has succeeded. A put that fails does not change the local store, except if it ends (for
    /// example at its deadline) while the record is being stored.
    #[default]
    OnSuccess,
    /// As soon as the put is accepted, before anything is sent. The record stays in the local store, and kad
    /// republishes it, even if the put fails later.
    First,
}

/// Operation that a request carries out. The seven operations have the names of methods of `kad::Behaviour`.
#[derive(Debug, Clone)]
pub enum Operation {
    /// Looks up the records under a key.
    GetRecord {
        /// Key of the record.
        key: RecordKey,
        /// Condition that ends the get.
        policy: Policy,
    },
    /// Stores a record at the peers closest to its key, and in the local store ([`PutOptions::local_copy`] says when).
    PutRecord {
        /// The record. Its publisher is set to the local peer.
        record: Arc<Record>,
        /// Number of peers that must acknowledge the record. `Majority` and `All` count against the peers that the
        /// first lookup finds. If fewer peers are found than `N(n)` requires (see [`PutOptions::clamp_quorum`]), or
        /// too few acknowledge the record, the put looks for further peers, except with `All`. It sends the record in
        /// at most three rounds.
        quorum: Quorum,
        /// Additional options.
        options: PutOptions,
    },
    /// Stores a record at the named peers, and not in the local store. The publisher of the record is not changed.
    PutRecordTo {
        /// The record.
        record: Arc<Record>,
        /// Peers to store the record at. Duplicates and the local peer are removed. At least one other peer must
        /// remain.
        peers: Vec<PeerId>,
        /// Number of peers that must acknowledge the record, counted against `peers` without duplicates and the local
        /// peer.
        quorum: Quorum,
    },
    /// Looks up the providers of a key.
    GetProviders {
        /// Key that the providers provide.
        key: RecordKey,
        /// Condition that ends the lookup.
        policy: Policy,
    },
    /// Announces the local peer as a provider of a key, and adds it to the providers in the local store.
    StartProviding {
        /// Key that is provided.
        key: RecordKey,
    },
    /// Looks up the peers closest to a target, up to 20.
    GetClosestPeers {
        /// Bytes whose SHA-256 hash is the target: those of a key or of a peer id (`PeerId::to_bytes`).
        target: RecordKey,
        /// Runs a second lookup, for the id of the farthest peer that the first one has found, and returns the up to 20
        /// closest peers of both.
        ///
        /// A peer answers a lookup with the 20 closest peers that it knows, including silent ones. So for each silent
        /// peer among these 20, a lookup can miss one that is a little farther away. A second lookup, for a target
        /// nearby, usually finds the missing peers.
        thorough: bool,
    },
    /// Joins the network: looks up the local peer id, then a random peer id for each bucket of the routing table that
    /// is farther away than that of the closest known peer.
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

    /// Returns the bytes of the key or target of the operation. Empty for a bootstrap.
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
