use std::time::{Duration, SystemTime};

use thiserror::Error;

use super::{EquivocationProof, SignedHead};
use crate::{ContentId, unix};

/// Tolerance for the difference between the clocks of a reader and a publisher: the drift of months without a time
/// service.
pub const CLOCK_TOLERANCE: Duration = Duration::from_secs(5 * 60);

/// Maximum step of the sequence number between two reads: one head every five minutes for a month. It keeps a thief of
/// the key from using up all numbers at once, so that the owner can continue.
pub const MAX_JUMP: u64 = 10_000;

/// Maximum validity of a head, from the time it is read. A holder can hide later heads for so long from a reader that
/// has seen none of them.
pub const MAX_VALIDITY: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// Highest head of a package that was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Highest sequence number seen.
    pub seq: u64,
    /// Head with that number. `None` after the user [accepted an equivocation](super::HeadStore::accept_equivocation):
    /// then any head with this number is accepted.
    pub head: Option<SignedHead>,
}

/// Relation of an accepted head to the checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// First head of its package.
    First,
    /// Newer than the checkpoint.
    Newer,
    /// Same as the checkpoint.
    Same,
}

/// Checks a verified head against the checkpoint of its package and the time.
///
/// # Errors
///
/// See [`HeadRejectedError`]. Errors of the chain come first: a head that is both outdated and expired is a rollback.
pub fn validate_head(
    seen: Option<&Checkpoint>,
    candidate: &SignedHead,
    now: SystemTime,
) -> Result<Accepted, HeadRejectedError> {
    let accepted = validate_chain(seen, candidate)?;
    let (now, not_after) = (unix::seconds(now), candidate.head().not_after);
    if now > not_after.saturating_add(CLOCK_TOLERANCE.as_secs()) {
        return Err(HeadRejectedError::Expired { not_after });
    }
    let latest = now.saturating_add(MAX_VALIDITY.as_secs()).saturating_add(CLOCK_TOLERANCE.as_secs());
    if not_after > latest {
        return Err(HeadRejectedError::ValidTooLong { not_after, latest });
    }
    Ok(accepted)
}

/// Checks a head against the checkpoint, without the time.
pub(super) fn validate_chain(seen: Option<&Checkpoint>, candidate: &SignedHead) -> Result<Accepted, HeadRejectedError> {
    // Any number is accepted for a first head, within the limits of the record.
    let Some(seen) = seen else { return Ok(Accepted::First) };
    if let Some(proof) = seen.head.as_ref().and_then(|head| EquivocationProof::of(head, candidate)) {
        return Err(HeadRejectedError::Equivocation { proof });
    }
    let offered = candidate.head().seq;
    if offered < seen.seq {
        let hash = seen.head.as_ref().map(SignedHead::hash);
        return Err(HeadRejectedError::Rollback { seen: seen.seq, offered, hash });
    }
    if offered - seen.seq > MAX_JUMP {
        return Err(HeadRejectedError::FastForward { seen: seen.seq, offered, max_jump: MAX_JUMP });
    }
    Ok(if offered == seen.seq { Accepted::Same } else { Accepted::Newer })
}

/// Reason why a head with a valid signature is rejected.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HeadRejectedError {
    /// A newer head was seen before: the holders of this one missed it, or hide it. Ask others, or use the cached head.
    #[error("outdated head: number {offered} is below number {seen}, which was seen before")]
    Rollback {
        /// Highest sequence number seen.
        seen: u64,
        /// Sequence number of this head.
        offered: u64,
        /// Hash of the head that was seen.
        hash: Option<ContentId>,
    },
    /// The head has expired: the publisher has not renewed it, or a newer one is hidden. Ask others, or the publisher.
    #[error("head expired at {not_after} (seconds since 1970)")]
    Expired {
        /// End of its validity, in seconds since 1970.
        not_after: u64,
    },
    /// The head is valid for longer than [`MAX_VALIDITY`], so that a holder could serve it for years. The publisher has
    /// to sign another one, unless the local clock is behind.
    #[error("head is valid until {not_after}, later than {latest} (seconds since 1970)")]
    ValidTooLong {
        /// End of its validity, in seconds since 1970.
        not_after: u64,
        /// Latest end that is accepted now, in seconds since 1970.
        latest: u64,
    },
    /// The sequence number is too far ahead: the publisher's key may be stolen. Ask the publisher. If the head is
    /// genuine, [`forget`](super::HeadStore::forget) the checkpoint.
    #[error("head number {offered} is more than {max_jump} above number {seen}")]
    FastForward {
        /// Highest sequence number seen.
        seen: u64,
        /// Sequence number of this head.
        offered: u64,
        /// Maximum step: [`MAX_JUMP`].
        max_jump: u64,
    },
    /// The publisher signed two conflicting heads: the key is stolen, or is used on two machines. Ask the publisher. If
    /// there is a good reason, [accept the equivocation](super::HeadStore::accept_equivocation).
    #[error("publisher signed two conflicting heads")]
    Equivocation {
        /// Both heads.
        proof: EquivocationProof,
    },
}
