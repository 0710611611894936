use std::time::{Duration, SystemTime};

use thiserror::Error;

use super::{Head, MAX_HEAD_INDEX_LEN, MAX_SEQ, MAX_VALIDITY, SignedHead};
use crate::{ContentId, PackageId, unix};

/// For how long a head is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetime {
    /// Nobody believes it after that. At most [`MAX_VALIDITY`]; the publisher has to renew it before.
    pub validity: Duration,
    /// Readers may use it for so long before they ask again.
    pub ttl: Duration,
}

impl Default for Lifetime {
    /// Thirty days, so that a publisher can be on holiday; and five minutes, so that a release is seen.
    fn default() -> Self {
        Self { validity: Duration::from_secs(30 * 24 * 60 * 60), ttl: Duration::from_secs(5 * 60) }
    }
}

/// The head that comes after `previous`, or the first one. It is still to be signed.
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

/// Why there is no next head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NextHeadError {
    /// The previous head is of another package.
    #[error("the previous head is of another package")]
    OtherPackage,
    /// The index is empty or longer than [`MAX_HEAD_INDEX_LEN`].
    #[error("index of {size} bytes: the size must be from 1 to {MAX_HEAD_INDEX_LEN} bytes")]
    IndexSize {
        /// Size of the index in bytes.
        size: u64,
    },
    /// Nobody would believe it: choose at most [`MAX_VALIDITY`].
    #[error("a head cannot be valid for that long")]
    Validity,
    /// The last number is used. Publish under another name.
    #[error("the package has used all its sequence numbers")]
    Ended,
}
