use std::fmt;

use libp2p::kad;

/// Counts of the requests that one or more queries have sent to peers, and of their results.
///
/// Copied from kad's `QueryStats`, whose fields are private and whose `duration` reads the clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Requests to peers, including those that still wait for a connection.
    pub requests: u32,
    /// Requests that were answered. An answer after the request had failed does not count. kad counts an announcement of a
    /// provider to a peer, which has no answer, as answered at once.
    pub successes: u32,
    /// Requests that failed, for example because there was no connection, or the stream timed out (after 10 s by
    /// default).
    pub failures: u32,
}

impl Progress {
    /// Returns the number of requests that have neither been answered nor failed.
    pub fn pending(&self) -> u32 {
        self.requests.saturating_sub(self.successes).saturating_sub(self.failures)
    }

    /// Returns `true` if at least one request, and at least four of five, were answered.
    pub fn most_answered(&self) -> bool {
        let unanswered = self.requests.saturating_sub(self.successes);
        self.successes > 0 && unanswered.saturating_mul(4) <= self.successes
    }

    /// Returns the sums of the counts of `self` and `other`.
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
///
/// A result is conclusive if all of the following hold:
///
/// - Of the peers whose requests were answered or failed, at least four of five have answered. If the query ran for 10 s or
///   longer, the time after which kad ends a query without a peer, pending requests count as failed: those of a shorter
///   query went to farther peers than those that have answered.
/// - At least half of the network's nodes have answered. This minimum is never below 3 or above 10, and it is 10 while
///   the size of the network is unknown.
///   [`TrackerConfig::expected_network_size`](crate::TrackerConfig::expected_network_size) sets the size, and lowers
///   the bound of 3 to 1.
/// - The query has ended by itself: the tracker has not [finished it early](crate::Stall), and the driver has not
///   reported that the application has, or that a peer was given up
///   ([`handle_cut_short`](crate::QueryTracker::handle_cut_short)).
/// - No record was rejected by a validator.
/// - The node is not [isolated](crate::Reachability::Isolated).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Certainty {
    /// Nothing was found, and very likely nothing exists: a record would be stored at up to 20 peers, and enough have
    /// answered to make it unlikely that only others hold it.
    Conclusive,
    /// Something may exist, and another attempt may find it.
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
