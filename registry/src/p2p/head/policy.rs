use std::time::{Duration, SystemTime};

use thiserror::Error;

use super::{EquivocationProof, SignedHead};
use crate::{ContentId, unix};

/// Tolerance for the difference between the clocks of a reader and a publisher: 5 minutes, which is the drift of months
/// without a time service.
pub const CLOCK_TOLERANCE: Duration = Duration::from_secs(5 * 60);

/// Maximum step from the highest sequence number that a reader has seen to that of a newer head: one head every five
/// minutes for a month. Readers that know the package therefore reject a head with which a thief of the key tries to
/// use up all numbers at once.
pub const MAX_JUMP: u64 = 10_000;

/// Maximum time from now to the end of a head's validity: 366 days. Readers add [`CLOCK_TOLERANCE`]. A holder of an old head can hide later ones from a reader that has seen none of them, for at
/// most this time plus twice [`CLOCK_TOLERANCE`].
pub const MAX_VALIDITY: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// Highest sequence number of a package that was seen, with its head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Highest sequence number seen.
    pub seq: u64,
    /// Head with that number. `None` after the user [accepted an equivocation](super::HeadStore::accept_equivocation):
    /// then no head with that number conflicts, until one with a higher number is recorded.
    pub head: Option<SignedHead>,
}

/// Relation of an accepted head to the checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// There is no checkpoint of the package.
    First,
    /// The sequence number is higher than that of the checkpoint.
    Newer,
    /// The sequence number is that of the checkpoint, and the heads do not conflict.
    Same,
}

/// Checks a verified head against the checkpoint of its package, and against the time `now`. Without a checkpoint,
/// every sequence number is accepted.
///
/// # Errors
///
/// See [`HeadRejectedError`]. Conflicts are checked first, then the sequence number, then the time: a head that does
/// not conflict, and is both outdated and expired, is a [`Rollback`](HeadRejectedError::Rollback).
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
    /// A head with a higher sequence number was seen before: the peers that hold this one missed the newer one, or hide
    /// the newer one. Ask other peers, or use the head of the checkpoint.
    #[error("outdated head: number {offered} is below number {seen}, which was seen before")]
    Rollback {
        /// Highest sequence number seen.
        seen: u64,
        /// Sequence number of this head.
        offered: u64,
        /// Hash of the head that was seen. `None` if the checkpoint has no head.
        hash: Option<ContentId>,
    },
    /// The end of the validity has passed by more than [`CLOCK_TOLERANCE`]: the publisher has not signed a later head,
    /// peers missed or hide the later head, or the local clock is ahead. Ask other peers, or the publisher.
    #[error("head expired at {not_after} (seconds since 1970)")]
    Expired {
        /// End of its validity, in seconds since 1970.
        not_after: u64,
    },
    /// The head is valid for longer than [`MAX_VALIDITY`] plus [`CLOCK_TOLERANCE`] from now, so that a holder could
    /// serve it for more than a year. The publisher has to sign another one, unless the local clock is behind.
    #[error("head is valid until {not_after}, later than {latest} (seconds since 1970)")]
    ValidTooLong {
        /// End of its validity, in seconds since 1970.
        not_after: u64,
        /// Latest end that is accepted now, in seconds since 1970.
        latest: u64,
    },
    /// The sequence number is more than [`MAX_JUMP`] above the highest one seen: the publisher's key may be stolen. Ask
    /// the publisher. If the head is genuine, [`forget`](super::HeadStore::forget) the checkpoint.
    #[error("head number {offered} is more than {max_jump} above number {seen}")]
    FastForward {
        /// Highest sequence number seen.
        seen: u64,
        /// Sequence number of this head.
        offered: u64,
        /// Maximum step: [`MAX_JUMP`].
        max_jump: u64,
    },
    /// The publisher signed two conflicting heads (see [`EquivocationProof`]): for example, the key is stolen, or is
    /// used on two machines. Ask the publisher. If there is a good reason, [accept the
    /// equivocation](super::HeadStore::accept_equivocation).
    #[error("publisher signed two conflicting heads")]
    Equivocation {
        /// Both heads, with their signatures.
        proof: EquivocationProof,
    },
}
