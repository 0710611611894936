use std::time::{Duration, SystemTime};

use thiserror::Error;

use super::{Head, MAX_HEAD_INDEX_LEN, MAX_SEQ, MAX_VALIDITY, SignedHead};
use crate::{ContentId, PackageId, p2p::setters::setters, unix};

/// Validity periods of a new head.
///
/// # Example
///
/// ```
/// use std::time::Duration;
///
/// use kadence_registry::p2p::head::Lifetime;
///
/// let lifetime = Lifetime::default().ttl(Duration::from_secs(60));
/// assert_eq!(lifetime.validity, Duration::from_secs(30 * 24 * 60 * 60));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lifetime {
    /// Time from signing until the head expires, at most [`MAX_VALIDITY`]; fractions of a second are dropped. Before
    /// that, the publisher has to sign the next head. A running [`P2PRegistry`](crate::p2p::registry::P2PRegistry) of
    /// the publisher does so in the second half of this time, if it has a connected peer and can make sure that there
    /// is no newer head. Default: 30 days.
    pub validity: Duration,
    /// Time from a lookup for which a reader may use the head before it looks for a newer one; fractions of a second
    /// are dropped. Default: 5 minutes.
    pub ttl: Duration,
}

impl Default for Lifetime {
    /// Returns a validity of 30 days and a `ttl` of 5 minutes.
    fn default() -> Self {
        Self { validity: Duration::from_secs(30 * 24 * 60 * 60), ttl: Duration::from_secs(5 * 60) }
    }
}

setters!(Lifetime { validity: Duration, ttl: Duration });

/// Returns the unsigned head that follows `previous`, or for `None` the first head of the package. `index_size` is in
/// bytes, and the validity begins at `now`.
///
/// # Errors
///
/// See [`NextHeadError`].
pub fn next_head(
    package: &PackageId,
    previous: Option<&SignedHead>,
    index: ContentId,
    index_size: u64,
    lifetime: Lifetime,
    now: SystemTime,
) -> Result<Head, NextHeadError> {
    if previous.is_some_and(|previous| previous.head().package != *package) {
        return Err(NextHeadError::OtherPackage);
    }
    if !(1..=MAX_HEAD_INDEX_LEN).contains(&index_size) {
        return Err(NextHeadError::IndexSize { size: index_size });
    }
    if lifetime.validity > MAX_VALIDITY {
        return Err(NextHeadError::Validity);
    }
    let seq = previous.map_or(0, |previous| previous.head().seq).saturating_add(1);
    if seq > MAX_SEQ {
        return Err(NextHeadError::Ended);
    }
    Ok(Head {
        schema: Head::schema(),
        package: package.clone(),
        seq,
        prev: previous.map(SignedHead::hash),
        index,
        index_size,
        not_after: unix::seconds(now).saturating_add(lifetime.validity.as_secs()),
        ttl: lifetime.ttl.as_secs(),
    })
}

/// Error of creating the next head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NextHeadError {
    /// The previous head is one of another package.
    #[error("previous head belongs to another package")]
    OtherPackage,
    /// The index is empty or longer than [`MAX_HEAD_INDEX_LEN`].
    #[error("index of {size} bytes: the size must be from 1 to {MAX_HEAD_INDEX_LEN} bytes")]
    IndexSize {
        /// Size of the index in bytes.
        size: u64,
    },
    /// The validity is longer than [`MAX_VALIDITY`]. No head was made, because readers could reject it.
    #[error("validity of the head is too long: at most 366 days are allowed")]
    Validity,
    /// The previous head has the number [`MAX_SEQ`], so that there is no next one. Publish under another name.
    #[error("package has used all its sequence numbers: publish under another name")]
    Ended,
}
