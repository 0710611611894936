use thiserror::Error;

use crate::QueryStartError;

/// Error of a request for a reason that all operations share.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The request is invalid: change it before trying again.
    #[error("invalid request")]
    Invalid(#[from] InvalidRequestError),
    /// The request was refused because too many other requests have not ended. Try again later, or make fewer requests
    /// at a time.
    #[error("too many requests at once: try again later")]
    Overloaded,
    /// The deadline passed while the request was waiting for its first query to start. Try again with a longer timeout,
    /// or make fewer requests at a time.
    #[error("deadline passed before the query could start: too many queries are running, or the timeout is too short")]
    ExpiredInQueue,
    /// The caller cancelled the request.
    #[error("request was cancelled")]
    Cancelled,
    /// A shutdown was requested, or the driver was dropped.
    #[error("client has shut down")]
    Shutdown,
    /// Nobody has polled the driver until after the deadline: the loop that polls it waits for this call. Poll both side by
    /// side, or let a task of its own poll the driver.
    #[error("driver was not polled: the loop that polls it must not wait for a call")]
    NotPolled,
    /// kad could not start the query, for a reason that has no variant of its own in the error of this operation.
    #[error("kad could not start the query")]
    Refused(#[source] QueryStartError),
}

/// Error of an invalid request. The same request fails again. After [`DuplicateId`](Self::DuplicateId), send it with
/// another id.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum InvalidRequestError {
    /// The key or target is longer than [`TrackerConfig::max_key_len`](crate::TrackerConfig::max_key_len): use a hash
    /// of the key.
    #[error("key of {len} bytes is too long: at most {max} are allowed")]
    KeyTooLong {
        /// Length of the key in bytes.
        len: usize,
        /// Maximum length of a key in bytes.
        max: usize,
    },
    /// The value is longer than [`TrackerConfig::max_value_len_for`](crate::TrackerConfig::max_value_len_for) allows
    /// under this key: store the value elsewhere, and its address in the record.
    #[error("value of {len} bytes is too long: at most {max} are allowed under this key")]
    ValueTooLong {
        /// Length of the value in bytes.
        len: usize,
        /// Maximum length in bytes under this key.
        max: usize,
    },
    /// The record has already expired, so no peer would store it.
    #[error("record has already expired")]
    RecordExpired,
    /// The validator of the key's namespace rejects the record.
    #[error("record was rejected by its validator: {reason}")]
    Rejected {
        /// Reason that the validator gave.
        reason: String,
    },
    /// [`Policy::Best`](crate::Policy::Best) needs a validator that decides which of two records is better, and the
    /// namespace of the key has none.
    #[error("no validator is registered for the namespace of this key")]
    NoValidator,
    /// [`Policy::Quorum`](crate::Policy::Quorum) and [`Policy::Best`](crate::Policy::Best) apply to records only.
    #[error("this policy applies to records, not to providers")]
    PolicyForRecords,
    /// A [`Policy::Limit`](crate::Policy::Limit) or a [`Quorum`](crate::Quorum) is zero.
    #[error("limit or quorum is zero: use at least one")]
    ZeroLimit,
    /// The list of peers to store a record at is empty, or names only the local peer.
    #[error("no peer to store the record at: name at least one other than the local peer")]
    NoPeers,
    /// The quorum of a put to named peers is larger than the number of peers named, each counted once and the local
    /// peer not at all.
    #[error("quorum of {needed} cannot be reached at {peers} peers: name more peers, or lower the quorum")]
    QuorumExceedsPeers {
        /// Number of peers that would have to acknowledge the record.
        needed: usize,
        /// Number of peers named.
        peers: usize,
    },
    /// The request id is [`RequestId::FIRST_RESERVED`](crate::RequestId::FIRST_RESERVED) or larger. Such ids belong to
    /// the tracker.
    #[error("request id is reserved: use a smaller one")]
    ReservedId,
    /// A request with this id has not ended yet. Never use an id twice.
    #[error("request id is already in use")]
    DuplicateId,
}
