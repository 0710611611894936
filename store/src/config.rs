use std::time::Duration;

use kadence_core::Validators;

/// Rules and limits of a [`Store`](crate::Store). Records and providers of the node itself are subject to them, too,
/// unless stated otherwise.
///
/// All limits are inclusive: a value of exactly `max_value_len` bytes is stored. (libp2p's `MemoryStore` rejects a
/// value whose length is equal to its limit.)
///
/// ```
/// use std::time::Duration;
///
/// use kadence_store::{Store, StoreConfig};
/// use libp2p::PeerId;
///
/// let config = StoreConfig::default().max_records(100).max_ttl(Duration::from_secs(3600));
/// let store = Store::memory(PeerId::random(), config);
/// # drop(store);
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct StoreConfig {
    /// Validators of records by the namespace of their key. A validator decides which records are valid, and which of
    /// two records is better. Use the same ones as in
    /// [`TrackerConfig::validators`](field@kadence_core::TrackerConfig::validators). Default: none, so that every
    /// record is valid.
    pub validators: Validators,
    /// True to reject every record whose key is not in a namespace with a validator. Default: `false`.
    pub require_validator: bool,
    /// Maximum number of records, the node's own included. Default: 1,024, as in libp2p's `MemoryStore`.
    pub max_records: usize,
    /// Maximum length of the keys and values of all records together, in bytes, the node's own included. All records
    /// are held in memory, also if the store has a file. Default: 64 MiB, which is 1,024 values of the default maximum
    /// length.
    pub max_total_bytes: usize,
    /// Maximum length of a record's value, in bytes. Default: 64 KiB.
    pub max_value_len: usize,
    /// Maximum length of the key of a record or a provider, in bytes. Default: 256.
    pub max_key_len: usize,
    /// Maximum number of records of one publisher other than the local peer. Records without a publisher count together
    /// as those of one publisher. A record's publisher is only a claim, so that this limit does not stop malicious
    /// peers. Default: 512.
    pub max_records_per_publisher: usize,
    /// Maximum length of the keys and values of all records of one publisher other than the local peer together, in
    /// bytes. Records without a publisher count together as those of one publisher. Set it to at least the sum of
    /// `max_key_len` and `max_value_len`. Default: 32 MiB.
    pub max_bytes_per_publisher: usize,
    /// Maximum lifetime of a record or provider, from when it is inserted or renewed. A later expiry, or none, is
    /// replaced by the end of this time. Does not apply to the node's own. `None`: no limit. Default: 48 hours.
    pub max_ttl: Option<Duration>,
    /// Maximum number of keys with providers, those that the node itself provides included. Default: 16,384.
    pub max_provided_keys: usize,
    /// Maximum number of providers of a key. A key that has as many takes no further one until one of them is removed
    /// or expires; only the local peer takes the place of the latest one. Default: 20, kad's replication factor.
    pub max_providers_per_key: usize,
    /// Maximum number of providers of all keys together; a peer counts once for each key that it provides. Default:
    /// 65,536. For each, at most 16 addresses with together at most 1,024 bytes are stored. By calculation, 65,536
    /// providers take some 200 MiB of memory at worst, and usually a tenth of that.
    pub max_provider_records: usize,
    /// Maximum number of keys that one peer other than the local one provides. Default: 2,048, an eighth of the default
    /// of `max_provided_keys`.
    pub max_keys_per_provider: usize,
    /// Time within which a write to the store's file is flushed to the disk, so that the write survives a power
    /// failure. The flush starts after half of this time, and ends within the other half unless the disk is slow or
    /// fails. A flush that fails is logged, and repeated only after the next write or when the store is dropped. The
    /// end of the process loses no write, flushed or not. `None`: the store starts no thread, and flushes only when
    /// [`Store::flush`](crate::Store::flush) is called; until then its log grows with every write. Without a file this
    /// has no effect. Default: 1 s.
    pub flush_within: Option<Duration>,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            validators: Validators::default(),
            require_validator: false,
            max_records: 1024,
            max_total_bytes: 64 * 1024 * 1024,
            max_value_len: 64 * 1024,
            max_key_len: 256,
            max_records_per_publisher: 512,
            max_bytes_per_publisher: 32 * 1024 * 1024,
            max_ttl: Some(Duration::from_secs(48 * 3600)),
            max_provided_keys: 16 * 1024,
            max_providers_per_key: kadence_core::REPLICATION_FACTOR,
            max_provider_records: 64 * 1024,
            max_keys_per_provider: 2048,
            flush_within: Some(Duration::from_secs(1)),
        }
    }
}

macro_rules! setters {
    ($($field:ident: $type:ty),* $(,)?) => {
        impl StoreConfig {
            $(
                #[doc = concat!("Sets [`", stringify!($field), "`](field@Self::", stringify!($field), ").")]
                #[must_use]
                pub fn $field(mut self, $field: $type) -> Self {
                    self.$field = $field.into();
                    self
                }
            )*
        }
    };
}

setters! {
    validators: Validators,
    require_validator: bool,
    max_records: usize,
    max_total_bytes: usize,
    max_value_len: usize,
    max_key_len: usize,
    max_records_per_publisher: usize,
    max_bytes_per_publisher: usize,
    max_ttl: impl Into<Option<Duration>>,
    max_provided_keys: usize,
    max_providers_per_key: usize,
    max_provider_records: usize,
    max_keys_per_provider: usize,
    flush_within: impl Into<Option<Duration>>,
}
