use std::time::Duration;

use kadence_core::Validators;

/// The rules and limits of a [`Store`](crate::Store).
///
/// All limits are inclusive, unlike `MemoryStore`'s of a value: a value of `max_value_len` is taken.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// Who says which records are valid, and which of two is better: the same as the tracker's. Default: nobody, so that
    /// every record is a plain one.
    pub validators: Validators,
    /// Whether a record is refused if no validator is registered for the namespace of its key. Default: no.
    pub require_validator: bool,
    /// How many records there are at most, our own included. Default: 1,024, which is kad's.
    pub max_records: usize,
    /// How many bytes all keys and values of records take at most, our own included. Everything is also held in memory.
    /// Default: 64 MiB, 1,024 of the longest values.
    pub max_total_bytes: usize,
    /// The longest value of a record, in bytes. Default: 64 KiB.
    pub max_value_len: usize,
    /// The longest key of a record or of providers, in bytes. Default: 256; the keys that other implementations accept
    /// have at most 80.
    pub max_key_bytes: usize,
    /// How many records one publisher other than the local peer may have, and all records without a publisher together.
    /// A publisher is only a claim: this is no defence against malice. Default: 512.
    pub max_records_per_publisher: usize,
    /// How many bytes of keys and values these records may have. Should not be less than a single record may have.
    /// Default: 32 MiB.
    pub max_bytes_per_publisher: usize,
    /// How long a record or provider other than our own lives at most, also if kad sets no expiry. Default: 48 hours,
    /// which is kad's.
    pub max_ttl: Option<Duration>,
    /// How many keys have providers at most, those that we provide included. Default: 16,384.
    pub max_provided_keys: usize,
    /// How many providers a key has at most; who is there, stays until it expires. Default: 20, kad's replication
    /// factor.
    pub max_providers_per_key: usize,
    /// How many providers all keys have together at most. Default: 65,536; as each has at most 16 addresses of at most
    /// 1,024 bytes together, some 100 MiB at the very worst, and a tenth of it in practice.
    pub max_provider_records: usize,
    /// How many keys one peer other than the local one provides at most. Default: 2,048, an eighth of all keys.
    pub max_keys_per_provider: usize,
    /// In what time after a write a power failure cannot take it any more, if there is a file and its disk does not lie.
    /// A process that is killed loses nothing in any case. Default: 1 s.
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
            max_key_bytes: 256,
            max_records_per_publisher: 512,
            max_bytes_per_publisher: 32 * 1024 * 1024,
            max_ttl: Some(Duration::from_secs(48 * 3600)),
            max_provided_keys: 16 * 1024,
            max_providers_per_key: 20,
            max_provider_records: 64 * 1024,
            max_keys_per_provider: 2048,
            flush_within: Duration::from_secs(1),
        }
    }
}
