//! Which records and providers may be stored, and which of two records of a key stays.

use std::{
    cmp::Ordering,
    time::{Duration, Instant},
};

use libp2p::{
    Multiaddr, PeerId,
    kad::{ProviderRecord, Record, RecordKey},
};

use crate::{Refusal, StoreConfig};

/// A later expiry is worth a write only if it is so much later: replicas come every hour, each a little off.
pub(crate) const WORTH_A_REFRESH: Duration = Duration::from_secs(60);

/// How many addresses of a provider are kept, and how many bytes they have together; the others are left out. What a
/// peer says about itself has a bound.
const MAX_ADDRESSES: usize = 16;
const MAX_ADDRESS_BYTES: usize = 1024;

/// What has to be done with a record that may be stored.
#[derive(Debug)]
pub(crate) enum Verdict {
    Insert,
    Replace,
    /// The stored one is to be replaced by this one, which differs only in its expiry or publisher.
    Refresh(Record),
    Unchanged,
}

/// Everything that can be said without looking at what is stored.
pub(crate) fn admit(record: &Record, now: Instant, config: &StoreConfig) -> Result<(), Refusal> {
    let (bytes, max) = (record.value.len(), config.max_value_len);
    if bytes > max {
        return Err(Refusal::ValueTooLarge { bytes, max });
    }
    admit_key(&record.key, config)?;
    if record.is_expired(now) {
        return Err(Refusal::Expired);
    }
    match config.validators.of(record.key.as_ref()) {
        Some(validator) => validator.validate(&record.key, &record.value).map_err(Refusal::Invalid),
        None if config.require_validator => Err(Refusal::NoValidator),
        None => Ok(()),
    }
}

pub(crate) fn admit_key(key: &RecordKey, config: &StoreConfig) -> Result<(), Refusal> {
    let (bytes, max) = (key.as_ref().len(), config.max_key_bytes);
    if bytes > max { Err(Refusal::KeyTooLong { bytes, max }) } else { Ok(()) }
}

/// Two records of one key, both admitted, neither expired.
pub(crate) fn judge(
    stored: Option<&Record>,
    new: &Record,
    local_peer: PeerId,
    config: &StoreConfig,
) -> Result<Verdict, Refusal> {
    let Some(stored) = stored else { return Ok(Verdict::Insert) };
    let ours = |record: &Record| record.publisher == Some(local_peer);
    if stored.value == new.value {
        return Ok(judge_equal(stored, new, ours(stored), ours(new)));
    }
    match config.validators.of(new.key.as_ref()) {
        // As all readers do: what the validator calls equal is told apart by the bytes.
        Some(validator) => {
            match validator.compare(&new.key, &new.value, &stored.value).then_with(|| new.value.cmp(&stored.value)) {
                Ordering::Greater => Ok(Verdict::Replace),
                Ordering::Equal | Ordering::Less => Err(Refusal::Worse),
            }
        }
        None if ours(stored) && !ours(new) => Err(Refusal::Ours),
        None => Ok(Verdict::Replace),
    }
}

fn judge_equal(stored: &Record, new: &Record, stored_is_ours: bool, new_is_ours: bool) -> Verdict {
    let refreshed = if new_is_ours {
        new.clone()
    } else if !stored_is_ours && is_worth_it(stored.expires, new.expires) {
        Record { expires: new.expires, ..stored.clone() }
    } else {
        return Verdict::Unchanged;
    };
    if refreshed == *stored { Verdict::Unchanged } else { Verdict::Refresh(refreshed) }
}

pub(crate) fn is_worth_it(stored: Option<Instant>, new: Option<Instant>) -> bool {
    match (stored, new) {
        (None, _) => false,
        (Some(_), None) => true,
        (Some(stored), Some(new)) => new.saturating_duration_since(stored) >= WORTH_A_REFRESH,
    }
}

/// The smaller of what was wished and what the store grants to others.
pub(crate) fn clamp(expires: Option<Instant>, now: Instant, config: &StoreConfig) -> Option<Instant> {
    let limit = config.max_ttl.and_then(|ttl| now.checked_add(ttl));
    match (expires, limit) {
        (Some(expires), Some(limit)) => Some(expires.min(limit)),
        (expires, limit) => expires.or(limit),
    }
}

/// Leaves out the addresses that are too many.
pub(crate) fn cut_addresses(provider: &mut ProviderRecord) {
    let mut bytes = 0;
    let fits = |address: &&Multiaddr| {
        bytes += address.as_ref().len();
        bytes <= MAX_ADDRESS_BYTES
    };
    let kept = provider.addresses.iter().take(MAX_ADDRESSES).take_while(fits).count();
    provider.addresses.truncate(kept);
}
