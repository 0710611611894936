use web_time::Instant;

/// Maximum number of peers that are given up in a row, without a response from anybody in between. The limit is lower
/// where fewer peers have responded to each waiting query, so that a small network is never given up as a whole. Where
/// half of all peers are silent, eight in a row are one case in 256, and a lookup that loses eight peers to a network
/// that was gone for a moment has heard from eight others.
pub(super) const MAX_IN_A_ROW: u32 = 8;

/// Evidence that the network is alive: tells a silent peer from a silent network.
#[derive(Debug, Default)]
pub(super) struct Liveness {
    last_response: Option<Instant>,
    given_up_since: u32,
}

impl Liveness {
    /// Notes a response of any peer.
    pub(super) fn on_response(&mut self, now: Instant) {
        self.last_response = Some(now);
        self.given_up_since = 0;
    }

    /// Returns whether the network counts as alive, so that a peer that has been silent since `since` is itself at
    /// fault. At least `answered_by` peers have responded to each query that waits for it.
    pub(super) fn is_proven(&self, since: Instant, answered_by: u32) -> bool {
        self.last_response.is_some_and(|last| last > since || self.given_up_since < answered_by.min(MAX_IN_A_ROW))
    }

    /// Notes that a peer which was waited for since `since` is given up.
    pub(super) fn on_given_up(&mut self, since: Instant) {
        if self.last_response.is_some_and(|last| last <= since) {
            self.given_up_since = self.given_up_since.saturating_add(1);
        }
    }
}
