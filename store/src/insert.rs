use kadence_core::ValidationError;
use libp2p::kad::store;
use thiserror::Error;

use crate::DiskError;

/// Result of an insertion of a record that was not rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InsertOutcome {
    /// There was no record with this key, or only an expired one.
    New,
    /// The new record replaced a stored one that had another value.
    Replaced,
    /// A record with the same value was stored already. Its expiry is now later or, if the new record is the node's
    /// own, its publisher and expiry are now those of the new record.
    Refreshed,
    /// A record with the same value was stored already, and nothing has changed, for example because the new expiry is
    /// less than 60 seconds later.
    Unchanged,
}

/// Error of inserting a record or a provider. Nothing was stored.
///
/// The methods of [`RecordStore`](store::RecordStore) return kad's error instead, which has fewer variants: for a
/// record [`store::Error::ValueTooLarge`] if the value or the key is too long and otherwise
/// [`store::Error::MaxRecords`], for a provider [`store::Error::MaxProvidedKeys`], except that
/// [`TooManyProviders`](Self::TooManyProviders) becomes `Ok`. [`StoreStats`](crate::StoreStats) counts the variants of
/// this type.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum InsertError {
    /// The value is longer than [`StoreConfig::max_value_len`](field@crate::StoreConfig::max_value_len). Split it, or
    /// store a reference to it.
    #[error("value of {len} bytes is too long: at most {max} are stored")]
    ValueTooLong {
        /// Length of the value, in bytes.
        len: usize,
        /// Maximum length, in bytes.
        max: usize,
    },
    /// The key is longer than [`StoreConfig::max_key_len`](field@crate::StoreConfig::max_key_len). Use a hash as the
    /// key.
    #[error("key of {len} bytes is too long: at most {max} are stored")]
    KeyTooLong {
        /// Length of the key, in bytes.
        len: usize,
        /// Maximum length, in bytes.
        max: usize,
    },
    /// The record or provider had expired before it was inserted.
    #[error("record or provider has expired")]
    Expired,
    /// The validator of the key's namespace has rejected the record.
    #[error("record is invalid")]
    Invalid(#[source] ValidationError),
    /// The key is not in a namespace with a validator, and
    /// [`StoreConfig::require_validator`](field@crate::StoreConfig::require_validator) is set.
    #[error("no validator for the namespace of the key")]
    NoValidator,
    /// The record that is stored under the key is better by the namespace's validator or, if the validator finds both
    /// equal, has the larger bytes. Read the stored record, and put one that is better still.
    #[error("a better record is stored under this key")]
    Worse,
    /// The node's own record with another value is stored under the key, and the key is not in a namespace with a
    /// validator: only the node itself can replace the record.
    #[error("a record of this node's own is stored under this key")]
    OwnRecord,
    /// The record or provider does not fit into the store, and evicting the records or providers whose keys are farther
    /// from this node would not make enough room. The node's own records and providers are never evicted; a new one of
    /// the node itself also evicts closer ones of other peers. One record evicts at most 64 others: a record that needs
    /// the room of more is rejected.
    #[error("store is full of records closer to this node")]
    Full,
    /// The record or provider does not fit into the share of the store that [`StoreConfig`](crate::StoreConfig) allows
    /// one publisher or provider, and evicting entries of the same publisher or provider whose keys are farther from
    /// this node, at most 64, would not make enough room. Does not apply to the local peer.
    #[error("publisher or provider has used its share of the store")]
    ShareFull,
    /// The key has the maximum number of providers,
    /// [`StoreConfig::max_providers_per_key`](field@crate::StoreConfig::max_providers_per_key).
    /// [`RecordStore::add_provider`](store::RecordStore::add_provider) returns `Ok` instead of this error.
    #[error("key has the maximum number of providers")]
    TooManyProviders,
    /// The file cannot be written. The insertion has had no effect in memory either.
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
