use std::time::Duration;

use kadence_core::Validators;

/// Rules and limits of a [`Store`](crate::Store).
///
/// All limits are inclusive, unlike the value limit of `MemoryStore`: a value of `max_value_len` bytes is stored.
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
    /// Validators of records by namespace: decide which records are valid, and which of two is better. Use those of the
    /// tracker. Default: none, so that every record is a plain one.
    pub validators: Validators,
    /// Reject records whose namespace has no validator. Default: `false`.
    pub require_validator: bool,
    /// Maximum number of records, own ones included. Default: 1,024, as in kad.
    pub max_records: usize,
    /// Maximum length of all keys and values of records together, in bytes, own ones included. All of them are also held
    /// in memory. Default: 64 MiB, which is 1,024 values of the maximum length.
    pub max_total_bytes: usize,
    /// Maximum length of a record's value, in bytes. Default: 64 KiB.
    pub max_value_len: usize,
    /// Maximum length of a record's or provider's key, in bytes. Default: 256. The keys that other implementations accept
    /// have at most 80.
    pub max_key_len: usize,
    /// Maximum number of records of one publisher other than the local peer, and of all records without a publisher
    /// together. A publisher is only a claim: this is no defence against malice. Default: 512.
    pub max_records_per_publisher: usize,
    /// Maximum length of the keys and values of the same records, in bytes. Set it to at least `max_key_len` and
    /// `max_value_len` together. Default: 32 MiB.
    pub max_bytes_per_publisher: usize,
    /// Maximum lifetime of a record or provider other than the node's own. Also applies if it has no expiry. `None`: no
    /// limit. Default: 48 hours, as in kad.
    pub max_ttl: Option<Duration>,
    /// Maximum number of keys with providers, own ones included. Default: 16,384.
    pub max_provided_keys: usize,
    /// Maximum number of providers of a key. The first ones stay until they expire. Default: 20, kad's replication
    /// factor.
    pub max_providers_per_key: usize,
    /// Maximum number of providers of all keys together. Default: 65,536. As each has at most 16 addresses with at most
    /// 1,024 bytes in total, this is some 100 MiB at worst, and a tenth of that in practice.
    pub max_provider_records: usize,
    /// Maximum number of keys that one peer other than the local one provides. Default: 2,048, an eighth of all keys.
    pub max_keys_per_provider: usize,
    /// Time after which a write survives a power failure, if the store has a file and the disk honours flushes. A write
    /// survives a killed process at once. Default: 1 s.
    pub flush_within: Duration,
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
            flush_within: Duration::from_secs(1),
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
    flush_within: Duration,
}
