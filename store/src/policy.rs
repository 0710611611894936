//! Decides which records and providers may be stored, and which of two records of a key stays.

use std::{
    cmp::Ordering,
    time::{Duration, Instant},
};

use libp2p::{
    Multiaddr, PeerId,
    kad::{ProviderRecord, Record, RecordKey},
};

use crate::{InsertError, StoreConfig};

/// Minimum by which a later expiry is worth a write: replicas come every hour, each with a slightly different expiry.
pub(crate) const MIN_REFRESH: Duration = Duration::from_secs(60);

/// Maximum number and total length of a provider's addresses. Further ones are left out, because a peer can claim as
/// many as it likes.
const MAX_ADDRESSES: usize = 16;
const MAX_ADDRESS_BYTES: usize = 1024;

/// Decision about a valid record.
#[derive(Debug)]
pub(crate) enum Verdict {
    Insert,
    Replace,
    /// Replace the stored record by this one, which differs only in its expiry or publisher.
    Refresh(Record),
    Unchanged,
}

/// Checks a record without regard to the stored one.
pub(crate) fn validate_record(record: &Record, now: Instant, config: &StoreConfig) -> Result<(), InsertError> {
    let (len, max) = (record.value.len(), config.max_value_len);
    if len > max {
        return Err(InsertError::ValueTooLong { len, max });
    }
    validate_key(&record.key, config)?;
    if record.is_expired(now) {
        return Err(InsertError::Expired);
    }
    match config.validators.of(record.key.as_ref()) {
        Some(validator) => validator.validate(&record.key, &record.value).map_err(InsertError::Invalid),
        None if config.require_validator => Err(InsertError::NoValidator),
        None => Ok(()),
    }
}

pub(crate) fn validate_key(key: &RecordKey, config: &StoreConfig) -> Result<(), InsertError> {
    let (len, max) = (key.as_ref().len(), config.max_key_len);
    if len > max { Err(InsertError::KeyTooLong { len, max }) } else { Ok(()) }
}

/// Compares a new record with the stored one of its key. Both are valid and have not expired.
pub(crate) fn compare_record(
    stored: Option<&Record>,
    new: &Record,
    local_peer: PeerId,
    config: &StoreConfig,
) -> Result<Verdict, InsertError> {
    let Some(stored) = stored else { return Ok(Verdict::Insert) };
    let is_own = |record: &Record| record.publisher == Some(local_peer);
    if stored.value == new.value {
        return Ok(compare_equal(stored, new, is_own(stored), is_own(new)));
    }
    match config.validators.of(new.key.as_ref()) {
        // Equal records are ordered by their bytes, as all readers do.
        Some(validator) => {
            match validator.compare(&new.key, &new.value, &stored.value).then_with(|| new.value.cmp(&stored.value)) {
                Ordering::Greater => Ok(Verdict::Replace),
                Ordering::Equal | Ordering::Less => Err(InsertError::Worse),
            }
        }
        None if is_own(stored) && !is_own(new) => Err(InsertError::OwnRecord),
        None => Ok(Verdict::Replace),
    }
}

/// Compares two records with the same value.
fn compare_equal(stored: &Record, new: &Record, stored_is_own: bool, new_is_own: bool) -> Verdict {
    let refreshed = if new_is_own {
        new.clone()
    } else if !stored_is_own && is_worth_a_write(stored.expires, new.expires) {
        Record { expires: new.expires, ..stored.clone() }
    } else {
        return Verdict::Unchanged;
    };
    if refreshed == *stored { Verdict::Unchanged } else { Verdict::Refresh(refreshed) }
}

/// Returns whether a later expiry is worth a write.
pub(crate) fn is_worth_a_write(stored: Option<Instant>, new: Option<Instant>) -> bool {
    match (stored, new) {
        (None, _) => false,
        (Some(_), None) => true,
        (Some(stored), Some(new)) => new.saturating_duration_since(stored) >= MIN_REFRESH,
    }
}

/// Returns the earlier one of the requested expiry and the maximum of others' records.
pub(crate) fn limit_expiry(expires: Option<Instant>, now: Instant, config: &StoreConfig) -> Option<Instant> {
    let limit = config.max_ttl.and_then(|ttl| now.checked_add(ttl));
    match (expires, limit) {
        (Some(expires), Some(limit)) => Some(expires.min(limit)),
        (expires, limit) => expires.or(limit),
    }
}

/// Removes the addresses above the limits, and their memory: a peer may have sent 60,000 empty ones in one message.
pub(crate) fn limit_addresses(provider: &mut ProviderRecord) {
    let mut bytes = 0;
    let fits = |address: &&Multiaddr| {
        bytes += address.as_ref().len();
        bytes <= MAX_ADDRESS_BYTES
    };
    let kept = provider.addresses.iter().take(MAX_ADDRESSES).take_while(fits).count();
    provider.addresses.truncate(kept);
    provider.addresses.shrink_to_fit();
}
