//! Converts times of the monotonic clock to the wall-clock times of the file.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::clock::Clock;

/// A point in time on both clocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    pub(super) now: Instant,
    pub(super) wall: SystemTime,
}

/// An expiry in the file.
///
/// `left` protects against clock changes: no row lives longer than the time that was left when it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WallExpiry {
    /// Milliseconds since 1970.
    pub(super) at: i64,
    /// Milliseconds left when it was written.
    pub(super) left: i64,
}

impl Moment {
    pub(super) fn read(clock: &dyn Clock) -> Self {
        Self { now: clock.now(), wall: clock.wall() }
    }

    pub(super) fn to_wall(self, expires: Instant) -> WallExpiry {
        let left = millis(expires.saturating_duration_since(self.now));
        WallExpiry { at: since_1970(self.wall).saturating_add(left), left }
    }

    /// Returns the expiry on the monotonic clock of this process; `None` if it has passed.
    pub(super) fn to_instant(self, expiry: WallExpiry) -> Option<Instant> {
        let left = expiry.at.saturating_sub(since_1970(self.wall)).min(expiry.left);
        let left = u64::try_from(left).ok().filter(|left| *left > 0)?;
        self.now.checked_add(Duration::from_millis(left))
    }
}

fn since_1970(wall: SystemTime) -> i64 {
    wall.duration_since(UNIX_EPOCH).map_or(0, millis)
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn an_expiry_survives_the_time_between_two_runs() {
        let wall = UNIX_EPOCH + 500_000 * HOUR;
        let first = Moment { now: Instant::now(), wall };
        let written = first.to_wall(first.now + 5 * HOUR);
        // The monotonic clock of the second run has nothing to do with that of the first.
        let second = Moment { now: first.now + 1000 * HOUR, wall: wall + 2 * HOUR };
        assert_eq!(second.to_instant(written), Some(second.now + 3 * HOUR));
        let late = Moment { wall: wall + 5 * HOUR, ..second };
        assert_eq!(late.to_instant(written), None);
    }

    #[test]
    fn a_clock_that_jumps_never_lengthens_a_life() {
        let wall = UNIX_EPOCH + 500_000 * HOUR;
        let first = Moment { now: Instant::now(), wall };
        let written = first.to_wall(first.now + 5 * HOUR);
        for wall in [UNIX_EPOCH, UNIX_EPOCH - HOUR, wall - HOUR] {
            let back = Moment { wall, ..first };
            assert_eq!(back.to_instant(written), Some(back.now + 5 * HOUR));
        }
    }

    #[test]
    fn times_without_end_are_no_panic() {
        let moment = Moment { now: Instant::now(), wall: UNIX_EPOCH + HOUR };
        assert_eq!(moment.to_instant(WallExpiry { at: i64::MIN, left: i64::MIN }), None);
        // The clock may be unable to represent such a time; then the row has expired.
        assert!(moment.to_instant(WallExpiry { at: i64::MAX, left: i64::MAX }).is_none_or(|at| at > moment.now));
        assert_eq!(moment.to_wall(moment.now - HOUR).left, 0);
    }
}
