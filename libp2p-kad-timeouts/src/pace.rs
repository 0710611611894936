use std::time::{Duration, Instant};

use super::{AdaptiveTimeout, round_trip::RoundTrip};

/// How many peers in a row may be given up without a sign of life from anybody, at the most; and no more than have
/// answered each query that waits, so that a small network is never given up as a whole. Where half of all peers are
/// silent, so many in a row are one in 256; and a lookup that lost so many to a network that was gone for a moment has
/// heard as many.
pub(super) const IN_A_ROW: u32 = 8;

/// How long something takes, and whether anything at all has come.
#[derive(Debug)]
pub(super) struct Pace {
    round_trip: RoundTrip,
    last_sign: Option<Instant>,
    given_up_since: u32,
}

impl Pace {
    pub(super) fn new(bounds: AdaptiveTimeout, deviations: u32) -> Self {
        Self { round_trip: RoundTrip::new(bounds, deviations), last_sign: None, given_up_since: 0 }
    }

    pub(super) fn sample(&mut self, took: Duration) {
        self.round_trip.sample(took);
    }

    /// Something has come.
    pub(super) fn sign(&mut self, now: Instant) {
        self.last_sign = Some(now);
        self.given_up_since = 0;
    }

    /// Whether the network is alive, by all that is known: then who has been silent since `since` is silent by himself.
    /// Every query that waits for it was answered by so many peers at least.
    pub(super) fn is_proven(&self, since: Instant, answered_by: u32) -> bool {
        self.last_sign.is_some_and(|sign| sign > since || self.given_up_since < answered_by.min(IN_A_ROW))
    }

    /// Somebody is given up who was waited for since then.
    pub(super) fn give_up(&mut self, since: Instant) {
        if self.last_sign.is_some_and(|sign| sign <= since) {
            self.given_up_since = self.given_up_since.saturating_add(1);
        }
    }

    pub(super) fn patience(&self) -> Duration {
        self.round_trip.patience()
    }

    /// Most answers are there after this time.
    pub(super) fn usual(&self) -> Duration {
        self.round_trip.usual()
    }

    /// How long to wait while there is no sign of life.
    pub(super) fn longest(&self) -> Duration {
        self.round_trip.longest()
    }
}
