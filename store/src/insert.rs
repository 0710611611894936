use kadence_core::ValidationError;
use libp2p::kad::store;
use thiserror::Error;

use crate::DiskError;

/// Result of an insertion that was not rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InsertOutcome {
    /// There was no record with this key.
    New,
    /// The record replaced another one.
    Replaced,
    /// The value was stored already, and now lives longer or has become the node's own.
    Refreshed,
    /// The value was stored already, and nothing has changed.
    Unchanged,
}

/// Error of inserting a record or a provider. Nothing was stored.
///
/// kad's own error has fewer variants. [`RecordStore`](store::RecordStore)'s methods return the nearest of them, and
/// [`StoreStats`](crate::StoreStats) counts the variants of this type.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum InsertError {
    /// The value is too long. Split it, or store a reference to it.
    #[error("value of {len} bytes is too long: at most {max} are stored")]
    ValueTooLong {
        /// Length of the value, in bytes.
        len: usize,
        /// Maximum length.
        max: usize,
    },
    /// The key is too long. Use its hash.
    #[error("key of {len} bytes is too long: at most {max} are stored")]
    KeyTooLong {
        /// Length of the key, in bytes.
        len: usize,
        /// Maximum length.
        max: usize,
    },
    /// The record or provider had expired before it came.
    #[error("record or provider has expired")]
    Expired,
    /// The validator of the namespace has rejected the record. Another attempt fails, too.
    #[error("record is invalid")]
    Invalid(#[source] ValidationError),
    /// The namespace has no validator, and the store requires one.
    #[error("no validator for the namespace of the key")]
    NoValidator,
    /// A better record is stored. Read it, and put one that is better still.
    #[error("a better record is stored under this key")]
    Worse,
    /// A plain record of the node's own is stored, which only the node itself can replace.
    #[error("a record of this node's own is stored under this key")]
    OwnRecord,
    /// The store is full of records or providers that are closer to this node, or its own. Other nodes are closer to the
    /// key.
    #[error("store is full of records closer to this node")]
    Full,
    /// The publisher or provider has used its share of the store, with keys that are closer to this node.
    #[error("publisher or provider has used its share of the store")]
    ShareFull,
    /// The key has the maximum number of providers. As with kad's own store, kad does not see this error.
    #[error("key has the maximum number of providers")]
    TooManyProviders,
    /// The file cannot be written. The record is not in memory either.
    #[error("the store's file cannot be written")]
    Disk(#[source] DiskError),
}

impl InsertError {
    /// Returns kad's nearest error for a record.
    pub(crate) fn of_record(&self) -> store::Error {
        match self {
            Self::ValueTooLong { .. } | Self::KeyTooLong { .. } => store::Error::ValueTooLarge,
            Self::Expired
            | Self::Invalid(_)
            | Self::NoValidator
            | Self::Worse
            | Self::OwnRecord
            | Self::Full
            | Self::ShareFull
            | Self::TooManyProviders
            | Self::Disk(_) => store::Error::MaxRecords,
        }
    }
}
