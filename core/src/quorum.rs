use std::num::NonZeroUsize;

use libp2p::kad;

/// Number of peers at which kad stores a record by default, and maximum number of peers that a lookup returns:
/// Kademlia's `k`, 20.
///
/// kad can be given another replication factor (`kad::Config::set_replication_factor`), but the tracker always counts
/// with this one.
pub const REPLICATION_FACTOR: usize = kad::K_VALUE.get();

/// Minimum number of sources that must agree on a record, or of peers that must acknowledge one.
///
/// | | a get: sources that hold the same bytes | a put: peers that acknowledge |
/// |---|---|---|
/// | `One` | 1 | 1 |
/// | `Majority` | 11: more than half of [`REPLICATION_FACTOR`] | more than half of the peers found |
/// | `All` | 20: [`REPLICATION_FACTOR`] | every peer found |
/// | `N(n)` | `n` | `n`, even if fewer are found (without [`clamp_quorum`](crate::PutOptions::clamp_quorum)) |
///
/// The local store is one source of a get. For a get, `Majority` and `All` are computed from the replication factor,
/// because a lookup cannot know how many peers hold a record. For
/// [`Operation::PutRecord`](crate::Operation::PutRecord), the peers found are those that the first lookup of the put
/// returns. For [`Operation::PutRecordTo`](crate::Operation::PutRecordTo), they are those that the caller named, each
/// counted once, except the local peer; an `n` above their number is rejected.
///
/// `N(0)` is invalid: the request is rejected with
/// [`InvalidRequestError::ZeroLimit`](crate::InvalidRequestError::ZeroLimit).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Quorum {
    /// At least one source or peer.
    One,
    /// More than half of the possible sources or peers.
    Majority,
    /// All possible sources or peers.
    All,
    /// At least this many sources or peers. [`Quorum::from`] converts a `usize`.
    N(u32),
}

impl Quorum {
    /// Returns the number that the quorum requires out of `total` possible sources or peers. `One` and `N(n)` do not
    /// depend on `total`, and may exceed it. `Majority` of zero is 1.
    #[must_use]
    pub const fn of(self, total: usize) -> usize {
        match self {
            Self::One => 1,
            Self::Majority => total / 2 + 1,
            Self::All => total,
            Self::N(n) => n as usize,
        }
    }

    /// Returns the number of sources that a get with this quorum requires.
    pub(crate) const fn of_sources(self) -> usize {
        self.of(REPLICATION_FACTOR)
    }
}

/// Converts a number `n` into `N(n)`. A number beyond `u32::MAX` becomes `N(u32::MAX)`, which no query reaches either.
impl From<usize> for Quorum {
    fn from(n: usize) -> Self {
        Self::N(u32::try_from(n).unwrap_or(u32::MAX))
    }
}

/// Converts a number as `From<usize>` does.
impl From<NonZeroUsize> for Quorum {
    fn from(n: NonZeroUsize) -> Self {
        n.get().into()
    }
}

impl From<kad::Quorum> for Quorum {
    fn from(quorum: kad::Quorum) -> Self {
        match quorum {
            kad::Quorum::One => Self::One,
            kad::Quorum::Majority => Self::Majority,
            kad::Quorum::All => Self::All,
            kad::Quorum::N(n) => n.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_get_counts_against_the_replication_factor() {
        let needed = [Quorum::One, Quorum::Majority, Quorum::All, Quorum::N(3)].map(Quorum::of_sources);
        assert_eq!(needed, [1, 11, 20, 3]);
    }

    #[test]
    fn a_put_counts_against_the_peers_that_it_asks() {
        let needed = [Quorum::One, Quorum::Majority, Quorum::All, Quorum::N(9)].map(|quorum| quorum.of(4));
        assert_eq!(needed, [1, 3, 4, 9]);
    }

    /// Waiting requests are many: a larger `Quorum` would make each of them larger.
    #[test]
    fn a_policy_takes_sixteen_bytes() {
        assert_eq!((size_of::<Option<Quorum>>(), size_of::<crate::Policy>()), (8, 16));
    }

    #[test]
    fn numbers_and_the_quorum_of_kad_convert() {
        let three = NonZeroUsize::MIN.saturating_add(2);
        for quorum in [Quorum::from(3), three.into(), kad::Quorum::N(three).into()] {
            assert_eq!(quorum, Quorum::N(3));
        }
        assert_eq!(Quorum::from(usize::MAX), Quorum::N(u32::MAX));
        let kads = [kad::Quorum::One, kad::Quorum::Majority, kad::Quorum::All].map(Quorum::from);
        assert_eq!(kads, [Quorum::One, Quorum::Majority, Quorum::All]);
    }
}
