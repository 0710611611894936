use std::fmt;

use libp2p::kad;

/// Number of requests that a query has sent to peers, and their results.
///
/// A copy of kad's `QueryStats`, whose fields are private and whose `duration` reads the clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Requests sent to peers.
    pub requests: u32,
    /// Requests that were answered.
    pub successes: u32,
    /// Requests that failed: no connection, an error response, or kad's timeout for a peer.
    pub failures: u32,
}

impl Progress {
    /// Returns the number of requests that have neither been answered nor failed.
    pub fn pending(&self) -> u32 {
        self.requests.saturating_sub(self.successes).saturating_sub(self.failures)
    }

    /// Returns whether an empty result is conclusive: at least four of five requests were answered.
    pub fn certainty(&self) -> Certainty {
        let unanswered = self.requests.saturating_sub(self.successes);
        if self.successes > 0 && unanswered.saturating_mul(4) <= self.successes {
            Certainty::Conclusive
        } else {
            Certainty::Inconclusive
        }
    }

    /// Returns the sum of two queries' progress.
    #[must_use]
    pub fn merge(self, other: Self) -> Self {
        Self {
            requests: self.requests.saturating_add(other.requests),
            successes: self.successes.saturating_add(other.successes),
            failures: self.failures.saturating_add(other.failures),
        }
    }
}

impl From<&kad::QueryStats> for Progress {
    fn from(stats: &kad::QueryStats) -> Self {
        Self { requests: stats.num_requests(), successes: stats.num_successes(), failures: stats.num_failures() }
    }
}

/// Meaning of an empty result: whether it shows that nothing exists under the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Certainty {
    /// At least four of five of the peers asked have answered. A record is stored at up to 20 peers, so it is unlikely
    /// that only the silent ones hold it.
    Conclusive,
    /// Too few peers have answered: another peer may hold what was asked for. Try again.
    Inconclusive,
}

impl fmt::Display for Certainty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Conclusive => "conclusive",
            Self::Inconclusive => "inconclusive",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pending_requests_are_those_without_answer_or_failure() {
        assert_eq!(Progress { requests: 5, successes: 2, failures: 1 }.pending(), 2);
        // Inconsistent counts do not wrap around.
        assert_eq!(Progress { requests: 2, successes: 2, failures: 1 }.pending(), 0);
    }
}
