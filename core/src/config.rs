use std::time::Duration;

use thiserror::Error;

use crate::Validators;

/// The most queries of ours that may run at once, whatever the configuration says.
///
/// At 100 live queries kad stops republishing our own records without a word, so the ceiling leaves it one.
pub const MAX_RUNNING_CEILING: usize = 99;

/// Room kept free in a packet for the up to 20 closer peers that a GET_VALUE response names beside the record:
/// 200 bytes each are a peer id and about ten short addresses.
pub(crate) const PACKET_RESERVE: usize = 4 * 1024;

/// What a [`QueryTracker`](crate::QueryTracker) is allowed to do.
#[derive(Debug, Clone)]
pub struct TrackerConfig {
    /// How many queries of ours kad may run at once; clamped to 1..=[`MAX_RUNNING_CEILING`].
    ///
    /// 32 gave the throughput of 100 at a third of the latency; far more than that makes kad answer falsely that
    /// records do not exist. A query that nobody wants any more counts until kad has ended it.
    pub max_running: usize,
    /// How many requests may wait for a slot. The next one is refused with
    /// [`RequestError::Overloaded`](crate::RequestError::Overloaded) and changes nothing.
    ///
    /// A request that joins a query which is already running waits for no slot and takes no place here, and neither does
    /// one that has begun, while it waits for its next step or attempt. Of all requests together, at most three times as
    /// many live at once as the queue and the slots hold; from twice as many on, none may join a running query.
    ///
    /// 4,096 pending requests take about two megabytes and, at some milliseconds a query, a few seconds to work off,
    /// which is less than the default timeout.
    pub max_queued: usize,
    /// What happens to a request for which there is no room in the queue.
    pub overload: Overload,
    /// How many of each dozen starts each class of [`Priority`](crate::Priority) gets while all of them have requests waiting, in the
    /// order of [`Priority::ALL`](crate::Priority::ALL). A class that has nothing waiting leaves its share to the others; a share of zero
    /// counts as one, so no class is ever starved.
    pub shares: [u32; 3],
    /// What the random part of retries is drawn from. The same seed gives the same waits.
    pub seed: u64,
    /// Validators by key namespace.
    pub validators: Validators,
    /// How many bytes of records a query may have found so that a later request for the same key still joins it and
    /// gets them all. Beyond that, the later one starts a query of its own.
    pub max_replay_bytes: usize,
    /// The timeout of a request that names none. Time spent in the queue counts.
    pub default_timeout: Duration,
    /// How long a finished query may keep its slot without kad's last event before the slot is taken back.
    ///
    /// kad ends a finished query at its next poll, so 30 s without a last event means that it never comes.
    pub finish_timeout: Duration,
    /// When a query that gets on no longer is told to make do with what it has. `None`: never, so that one silent peer
    /// holds a lookup up for the 10 seconds that kad gives it.
    pub stall: Option<Stall>,
    /// Which answers are kept for a while and given to later requests without asking the network. `None`: none.
    pub cache: Option<Cache>,
    /// How many read_repairs may be under way at a time. When a read for the best record has found peers that hold a worse
    /// one, or none though they are among the closest, they are sent the best one, in the background. Beyond this number
    /// they are left as they are; zero corrects nobody. Default: 16.
    pub max_read_repairs: usize,
    /// The most items (records or providers) that one request collects. At that number the request ends as if its
    /// policy were satisfied, so that peers that answer without end cannot fill the memory.
    pub max_items: usize,
    /// The longest key that a request may name, in bytes.
    pub max_key_len: usize,
    /// The longest value that a put may carry, in bytes, whatever the packet would take. The default is the longest
    /// that kad's `MemoryStore` takes.
    pub max_value_len: usize,
    /// The packet limit of the network's nodes (`kad::Config::set_max_packet_size`), in bytes. kad checks it at the
    /// receiver only, where a record that is too large fails without a word; the tracker refuses it at the call.
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
    /// The longest value that a put under a key of `key_len` bytes may carry.
    ///
    /// A PUT_VALUE message carries the key twice; a response to GET_VALUE names closer peers as well.
    pub fn max_value_len_for(&self, key_len: usize) -> usize {
        self.max_packet_len
            .saturating_sub(PACKET_RESERVE)
            .saturating_sub(key_len.saturating_mul(2))
            .min(self.max_value_len)
    }
}

/// When a query has stalled: peers that were asked are silent, and nothing else is left to ask.
///
/// A query may be quiet for three times a smoothed round trip, which is measured from how long queries take for their
/// first answers. One whose policy is not satisfied, or of which few peers have answered, gets several times that; one
/// that no peer has answered is not finished at all, because that would turn slow into nothing. The figures behind it: with 5 %
/// of peers silent, a lookup takes kad 10 s, and with this some 200 ms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stall {
    /// The shortest quiet time: below that, what the machine is busy with looks like silence. Default: 100 ms; at least a
    /// millisecond.
    pub min_quiet: Duration,
    /// The longest quiet time. Default: 2 s.
    pub max_quiet: Duration,
    /// The quiet time for as long as no round trip was measured. Default: 500 ms.
    pub initial_quiet: Duration,
    /// How many requests kad has under way at a time in a lookup (`kad::Config::set_parallelism`). Default: 3, which is
    /// kad's.
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

/// Answers that are kept, so that who asks for the same soon after gets them at once.
///
/// Kept are, by key, the latest records or providers that satisfied a request, and that there are conclusively none
/// ([`Certainty::Conclusive`](crate::Certainty)). A request gets what was kept if its policy is satisfied by just these
/// items, as if a query had found them: [`First`](crate::Policy::First) by any, [`Limit`](crate::Policy::Limit) and
/// [`Quorum`](crate::Policy::Quorum) by as many. What waits for the end of a query ([`All`](crate::Policy::All),
/// [`Best`](crate::Policy::Best), and a limit that is not reached) is given it only from a query that ran to its end and
/// of which four of five peers answered, or that found [`TrackerConfig::max_items`]. Otherwise the network is asked.
///
/// Nothing is kept of a query that was cancelled, that timed out or missed a quorum, or that ended with fewer answers
/// than that. A put or an announcement drops what was kept under its key, both when it is accepted and when it ends, and
/// of a read that was under way at that time nothing is kept.
///
/// Whoever gets such an answer is told its age (`cached` in the answer), takes no place in the queue and no slot, and
/// can ask for a new one with [`RequestOptions::fresh`](crate::RequestOptions::fresh).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cache {
    /// How many bytes of keys and items are kept, with 320 more for each entry and each record, and 80 for each peer id.
    /// When it is full, what would expire soonest goes first. Default: 8 MiB.
    pub max_bytes: usize,
    /// How long records and providers are kept, unless one of the records expires before. Default: one minute: about as
    /// long as a user may go on seeing what somebody else has just replaced.
    pub max_age: Duration,
    /// How long it is evicted_ids that there is nothing. Default: 5 s, because whoever waits for a record to appear asks
    /// again and again.
    pub max_age_not_found: Duration,
}

impl Default for Cache {
    fn default() -> Self {
        Self { max_bytes: 8 * 1024 * 1024, max_age: Duration::from_secs(60), max_age_not_found: Duration::from_secs(5) }
    }
}

/// What happens to a request for which there is no room in the queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Overload {
    /// It is refused; nothing that was accepted is lost.
    #[default]
    Refuse,
    /// If a request of a lower [`Priority`](crate::Priority) waits, the last of the lowest class ends with
    /// [`RequestError::Overloaded`](crate::RequestError::Overloaded) in its place; otherwise it is refused.
    Shed,
}

/// Why a request could not be taken as it was asked: calling again without a change gives the same error.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidRequestError {
    /// The key is longer than [`TrackerConfig::max_key_len`]: use a hash of it.
    #[error("the key has {len} bytes, the limit is {max}")]
    KeyTooLong {
        /// Bytes of the key.
        len: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// The value is longer than the network's packets carry: store it elsewhere, and its address here.
    #[error("the value has {len} bytes, the limit is {max}")]
    ValueTooLong {
        /// Bytes of the value.
        len: usize,
        /// Bytes allowed under this key.
        max: usize,
    },
    /// The record's expiry is not in the future, so no peer would keep it.
    #[error("the record has already expired")]
    RecordExpired,
    /// The key's namespace has a validator, and it rejects the record.
    #[error("the record is not valid: {reason}")]
    Rejected {
        /// The validator's reason.
        reason: String,
    },
    /// [`Policy::Best`](crate::Policy::Best) needs a validator for the key's namespace to say which record is better.
    #[error("no validator is registered for the namespace of this key")]
    NoValidator,
    /// [`Policy::Quorum`](crate::Policy::Quorum) and [`Policy::Best`](crate::Policy::Best) are about records.
    #[error("this policy is for records, not for providers")]
    PolicyForRecords,
    /// A limit or quorum of zero can never be asked for in earnest.
    #[error("a limit or quorum of zero asks for nothing")]
    ZeroLimit,
    /// The list of peers to store at is empty, once the own peer id is taken out.
    #[error("there is no peer to store the record at")]
    NoPeers,
    /// Ids from [`RequestId::FIRST_RESERVED`](crate::RequestId::FIRST_RESERVED) on are the tracker's.
    #[error("this id is not the caller's to choose")]
    ReservedId,
    /// A request with this id is alive: ids are allocated by the caller's side and never used twice.
    #[error("a request with this id is already running")]
    DuplicateId,
}
