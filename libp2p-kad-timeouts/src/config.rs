use std::time::Duration;

/// How long a peer is waited for: this at first, and later what the network has shown to be enough, within bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdaptiveTimeout {
    /// Before anything was measured. It is a guess that gives way to what is measured, by an eighth at each answer.
    pub initial: Duration,
    /// Never less, however fast the network is.
    pub min: Duration,
    /// Never more, however slow the network is; and so long is waited as long as nobody at all answers, or has answered
    /// the query, because then it may be our own network that is silent. If it is less than `min`, it counts.
    pub max: Duration,
}

/// What a [`PeerTimeouts`](super::PeerTimeouts) waits for, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerTimeoutConfig {
    /// From a request to its answer. Default: 500 ms at first, then from 100 ms to 2 s. Most round trips of the
    /// internet are shorter than 300 ms; a pause of the peer's process or a lost packet takes 100 ms on any network; and
    /// who takes more than 2 s is not worth waiting for, because a lookup has other peers to ask.
    pub requests: AdaptiveTimeout,
    /// From a dial to its connection. Default: 2 s at first, then from 500 ms to 5 s: a handshake over TCP is four to
    /// six round trips, and a lost first packet costs a second.
    pub dials: AdaptiveTimeout,
    /// How many times the mean deviation is added to the mean. Default: 4, as for TCP's timeout (RFC 6298). The patience
    /// is never less than twice the mean.
    pub deviations: u32,
    /// How many peers a query asks before anybody has answered it. Of the others that kad wants asked (its parallelism)
    /// two are asked at each answer or broken stream, and all that are left when answers to the first requests would be
    /// later than most, 100 ms at the latest: a read whose first peer has the value costs three requests, and one whose
    /// first three peers are silent is not held up by them. Default: 3, kad's own parallelism. Zero holds nothing back.
    pub first_requests: usize,
}

impl Default for PeerTimeoutConfig {
    fn default() -> Self {
        Self {
            requests: AdaptiveTimeout {
                initial: Duration::from_millis(500),
                min: Duration::from_millis(100),
                max: Duration::from_secs(2),
            },
            dials: AdaptiveTimeout {
                initial: Duration::from_secs(2),
                min: Duration::from_millis(500),
                max: Duration::from_secs(5),
            },
            deviations: 4,
            first_requests: 3,
        }
    }
}

/// What a [`PeerTimeouts`](super::PeerTimeouts) has done, and what it waits for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PeerTimeoutStats {
    /// Requests whose answer was waited for. Announcements have no answer and are not among them, but for those that had
    /// to wait for a dial while queries ran: kad does not say what it sends over a new connection.
    pub timed: u64,
    /// Of these, those that were answered in time.
    pub answered: u64,
    /// Of these, those that kad was told to wait for no longer.
    pub given_up: u64,
    /// Answers that came after that, or after the query had ended.
    pub late: u64,
    /// Requests that were held back, and were of no use any more when their query had ended. kad's own statistics count
    /// them as sent.
    pub spared: u64,
    /// Requests whose stream broke.
    pub failed: u64,
    /// Dials that were waited for.
    pub dials: u64,
    /// Of these, those that kad was told to wait for no longer.
    pub dials_given_up: u64,
    /// How long a request is waited for at present.
    pub patience: Duration,
    /// How long a dial is waited for at present.
    pub dial_patience: Duration,
    /// Requests and dials that are waited for at present. Zero when no query runs.
    pub waiting: usize,
    /// Requests and dials that nobody waits for any more, and that are remembered because a late answer says how slow
    /// the network is. At most 1,024; kad ends their streams 10 s after they were opened, and then they are forgotten.
    pub remembered: usize,
}
