use std::{fmt, sync::Arc, time::Duration};

use libp2p::{
    PeerId,
    kad::{Quorum, Record, RecordKey},
};

/// Names a request. The caller's side allocates it and never uses one twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

impl RequestId {
    /// From this one on, ids are the tracker's own: read_repairs of what a read has found to be out of date. A caller's
    /// request with such an id is refused.
    pub const FIRST_RESERVED: Self = Self(1 << 63);

    /// Whether this is a request of the tracker's own, for which no caller waits.
    pub fn is_reserved(self) -> bool {
        self >= Self::FIRST_RESERVED
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// What a caller asks for. Has exactly one outcome.
#[derive(Debug, Clone)]
pub struct Request {
    /// The request's name, never used before.
    pub id: RequestId,
    /// What is wanted.
    pub operation: Operation,
    /// How it is wanted.
    pub options: RequestOptions,
}

/// How a request is carried out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RequestOptions {
    /// Who goes first when requests wait for a slot.
    pub priority: Priority,
    /// Whether, and how, a request that failed is tried again. Never, by default.
    pub retry: Option<Retry>,
    /// The time from acceptance to the request's deadline; [`TrackerConfig::default_timeout`] if `None`. A span too
    /// long to be a point in time counts as "decades".
    ///
    /// [`TrackerConfig::default_timeout`]: crate::TrackerConfig::default_timeout
    pub timeout: Option<Duration>,
    /// Whether items are delivered one by one while the request runs ([`Action::Item`](crate::Action::Item)).
    /// The outcome carries all of them either way.
    pub streaming: bool,
    /// Whether the network is asked even if an answer was [kept](crate::Cache). The new answer is kept in its place.
    pub fresh: bool,
}

/// When a read is satisfied, so that nothing more is looked for on its behalf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// At the first item.
    First,
    /// At exactly this many items from distinct sources, or at the end of the query with at least one.
    Limit(usize),
    /// At the end of the query.
    All,
    /// Records only: when exactly this many distinct sources hold the same bytes. The local store is one source; a
    /// peer that has no record has no vote.
    Quorum(usize),
    /// Records only: the record that the namespace's [`Validator`](crate::Validator) prefers to all others.
    Best {
        /// How many sources must hold it before the rest of the query is not waited for.
        agree: Agree,
    },
}

/// How many sources of the best record are enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Agree {
    /// This many that hold the best record so far. Where the query ends with fewer, the best record is the answer
    /// all the same, and the answer says how many agree.
    N(usize),
    /// All that can be found: the query is waited for.
    All,
}

/// Which requests get a slot first. A lower class is never starved: see
/// [`TrackerConfig::shares`](crate::TrackerConfig::shares). A retry waits at the end of its class like a new request;
/// only the further steps of a put, and of a thorough lookup of the closest peers, go ahead of all classes, those of a
/// higher class first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Nobody waits for it: refreshing, repairing, prefetching.
    Background,
    /// The ordinary case.
    #[default]
    Normal,
    /// A person waits for it.
    Interactive,
}

impl Priority {
    /// All classes, the first to be served first.
    pub const ALL: [Self; 3] = [Self::Interactive, Self::Normal, Self::Background];

    /// The class's place in [`Self::ALL`].
    pub(crate) fn index(self) -> usize {
        match self {
            Self::Interactive => 0,
            Self::Normal => 1,
            Self::Background => 2,
        }
    }
}

/// How a request that failed is tried again. The deadline is not moved by it: a retry that could only begin after the
/// deadline does not take place, and the error is that of the last attempt. An attempt that the deadline ends is a
/// timeout, which names what earlier attempts have found and sent as well, after what the last one has.
///
/// What is retried is what another attempt may change ([`Outcome::is_retryable`](crate::Outcome::is_retryable)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// How often the request is tried, the first time included.
    pub attempts: u32,
    /// The wait after the first attempt. It doubles with each further one. No wait is shorter than a millisecond, so
    /// that a request which fails at once (nobody is known) does not keep its driver busy.
    pub base: Duration,
    /// The longest wait.
    pub cap: Duration,
    /// How many percent of a wait are drawn by lot, from 0 to 100, so that requests that failed together do not come
    /// back together. The lot depends on [`TrackerConfig::seed`](crate::TrackerConfig::seed), the request and the
    /// attempt alone.
    pub jitter_percent: u8,
}

/// The shortest wait before a retry, whatever was asked for.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);

impl Default for Retry {
    /// Three attempts, after 200 ms and then 400 ms, half of each drawn by lot.
    fn default() -> Self {
        Self { attempts: 3, base: Duration::from_millis(200), cap: Duration::from_secs(5), jitter_percent: 50 }
    }
}

impl Retry {
    /// The wait after attempt number `attempt` (from 1), where `lot` is evenly drawn from all `u64`.
    pub(crate) fn wait(&self, attempt: u32, lot: u64) -> Duration {
        let doublings = attempt.saturating_sub(1).min(31);
        let full = self.base.saturating_mul(1 << doublings).min(self.cap);
        let jitter = full.saturating_mul(u32::from(self.jitter_percent.min(100))) / 100;
        // The upper half of the lot over 2^32 is an even fraction of 1; nanoseconds of any sane wait fit.
        let drawn = (jitter.as_nanos().saturating_mul(u128::from(lot >> 32))) >> 32;
        let wait = full - jitter + Duration::from_nanos(u64::try_from(drawn).unwrap_or(u64::MAX)).min(jitter);
        wait.max(SHORTEST_WAIT)
    }
}

/// What a put does beside what its quorum says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PutOptions {
    /// Whether a quorum of more peers than were found is lowered to those. Without it, such a put fails with
    /// [`InsufficientPeers`](crate::PutRecordError::InsufficientPeers), as `N(n)` says.
    pub clamp_quorum: bool,
    /// When the record goes into the local store.
    pub local_copy: LocalCopy,
    /// From how many peers the record has to be read back, with exactly these bytes, before the put is a success. An
    /// acknowledgement is a peer's word; this is proof. Zero, the default, asks nobody.
    pub verify: usize,
}

/// When a put stores its record locally, from where it is republished.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LocalCopy {
    /// Once everything else has succeeded: a put that fails leaves none.
    #[default]
    OnSuccess,
    /// Before anything is sent: it stays, and is republished, whatever becomes of the put.
    First,
}

/// The seven operations, in the words of `kad::Behaviour`.
#[derive(Debug, Clone)]
pub enum Operation {
    /// Look up the records stored under a key.
    GetRecord {
        /// The record's key.
        key: RecordKey,
        /// When the answer is good enough.
        policy: Policy,
    },
    /// Store a record at the peers closest to its key, then locally, as its publisher.
    PutRecord {
        /// The record. Its publisher is set to the local peer.
        record: Arc<Record>,
        /// How many of the peers *found* must acknowledge it. `N(n)` is exact: fewer peers than `n` fail it. Where too few
        /// acknowledge, further peers are asked, unless the quorum is `All`.
        quorum: Quorum,
        /// What else is wanted.
        options: PutOptions,
    },
    /// Store a record, as it is, at peers of the caller's choice, and not locally.
    PutRecordTo {
        /// The record.
        record: Arc<Record>,
        /// Where it goes; repetitions and the own id are dropped.
        peers: Vec<PeerId>,
        /// How many of `peers` must acknowledge it.
        quorum: Quorum,
    },
    /// Look up the peers that provide a key.
    GetProviders {
        /// The key that is provided.
        key: RecordKey,
        /// When the answer is good enough.
        policy: Policy,
    },
    /// Announce the local peer as a provider of a key.
    StartProviding {
        /// The key that is provided.
        key: RecordKey,
    },
    /// Look up the up to 20 peers closest to a target.
    GetClosestPeers {
        /// The bytes whose hash is the target: a key's, or a peer id's (`PeerId::to_bytes`).
        target: RecordKey,
        /// Whether a second lookup, at the farthest of those whom the first has found, looks for who is missing among them.
        /// Peers name those whom they know to be closest, and where some of these are silent, others take their queue_slots in
        /// no answer: it takes a lookup beside the target to hear of them.
        thorough: bool,
    },
    /// Join the network: look up the own id, then a random one in every bucket farther away.
    Bootstrap,
}

impl Operation {
    /// Which operation this is.
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

    /// The key or target that the operation is about; empty for a bootstrap.
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

/// The name of an [`Operation`].
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
    /// The name of the operation, as `kad::Behaviour` spells it.
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
