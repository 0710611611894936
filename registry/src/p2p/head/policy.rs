use std::time::{Duration, SystemTime};

use thiserror::Error;

use super::{EquivocationProof, SignedHead};
use crate::{ContentId, unix};

/// How far a reader's clock may be behind or ahead of the publisher's: what clocks without a time service drift in months.
pub const CLOCK_TOLERANCE: Duration = Duration::from_secs(5 * 60);

/// By how much the number may grow between two readings: a head every five minutes for a month. It keeps a thief of the key
/// from using up all numbers at once; the owner can go on after them.
pub const MAX_JUMP: u64 = 10_000;

/// How long a head may be valid, from when it is read: for so long a holder can hide all later ones from somebody who has
/// seen none.
pub const MAX_VALIDITY: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// What is remembered of a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The highest sequence number seen.
    pub seq: u64,
    /// The head with that number. `None` if there was more than one, and the user has [forgiven](super::HeadStore::accept_equivocation)
    /// it: any with this number is taken then.
    pub head: Option<SignedHead>,
}

/// What a good head is to what was remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// The first of its package.
    First,
    /// Newer than what was seen.
    Newer,
    /// What was seen already.
    Same,
}

/// Whether a verified head may be believed, after what was seen of its package.
///
/// # Errors
///
/// See [`HeadRejectedError`]. What it says about the chain comes first: a head that is both old and expired is a rollback.
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

/// The part that needs no clock.
pub(super) fn validate_chain(seen: Option<&Checkpoint>, candidate: &SignedHead) -> Result<Accepted, HeadRejectedError> {
    // A first one may have any number: what the record allows bounds it.
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

/// Why a head that its publisher has signed is not believed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum HeadRejectedError {
    /// A newer one was seen already: those who hold this one have missed it, or hide it. Ask others, or use what is cached.
    #[error("head {offered} is older than head {seen}, which was seen already")]
    Rollback {
        /// The highest number seen.
        seen: u64,
        /// The number of this one.
        offered: u64,
        /// The name of the head that was seen.
        hash: Option<ContentId>,
    },
    /// The publisher has not renewed it, or a newer one is hidden. Ask others, or ask the publisher.
    #[error("the head has expired at {not_after} (seconds since 1970)")]
    Expired {
        /// Its last second, since 1970.
        not_after: u64,
    },
    /// It is valid for longer than heads may be: a holder could serve it for years. The publisher has to sign another, or
    /// this machine's clock is behind.
    #[error("the head is valid until {not_after}, longer than until {latest} (seconds since 1970)")]
    ValidTooLong {
        /// Its last second, since 1970.
        not_after: u64,
        /// The latest that is accepted now.
        latest: u64,
    },
    /// Its number is higher than a publisher can have come to: perhaps the key was stolen. Ask the publisher; then
    /// [forget](super::HeadStore::forget) what was seen, if it is as it should be.
    #[error("head {offered} is more than {max_jump} above head {seen}")]
    FastForward {
        /// The highest number seen.
        seen: u64,
        /// The number of this one.
        offered: u64,
        /// By how much it may be higher.
        max_jump: u64,
    },
    /// The publisher has signed two heads of which only one can be: the key was stolen, or was used on two machines. Ask the
    /// publisher; then [accept_equivocation](super::HeadStore::accept_equivocation), if there is a good reason.
    #[error("the publisher has signed two heads that contradict each other")]
    Equivocation {
        /// Both of them.
        proof: EquivocationProof,
    },
}
