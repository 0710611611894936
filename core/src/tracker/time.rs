//! Time inside the tracker: eight bytes, and never running backwards.

use std::{fmt, time::Duration};

use web_time::Instant;

/// Maximum distance of a deadline: thirty years.
const FAR_FUTURE: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// Nanoseconds since the first reading of the clock.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Time(u64);

#[cfg(not(test))]
impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ns", self.0)
    }
}

#[cfg(test)]
thread_local! {
    /// Time that others are printed relative to.
    static BASE: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

#[cfg(test)]
impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ns", i128::from(self.0) - i128::from(BASE.get()))
    }
}

#[cfg(test)]
impl Time {
    /// Prints times relative to this one, on this thread.
    pub(super) fn set_base(self) {
        BASE.set(self.0);
    }
}

impl Time {
    pub(super) const START: Self = Self(0);

    pub(super) fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(nanos(span.min(FAR_FUTURE))))
    }

    pub(super) fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// Turns the caller's clock into [`Time`] and back.
#[derive(Debug, Clone, Default)]
pub(super) struct Clock {
    epoch: Option<Instant>,
    latest: u64,
}

impl Clock {
    /// Takes a reading. A reading before the latest one counts as the latest.
    pub(super) fn advance(&mut self, now: Instant) -> Time {
        self.epoch.get_or_insert(now);
        let time = self.time(now);
        self.latest = time.0;
        time
    }

    /// Converts a reading without taking it.
    pub(super) fn time(&self, now: Instant) -> Time {
        let since = self.epoch.map_or(Duration::ZERO, |epoch| now.saturating_duration_since(epoch));
        Time(self.latest.max(nanos(since)))
    }

    /// Converts back. `None` before the first reading.
    pub(super) fn instant(&self, time: Time) -> Option<Instant> {
        let epoch = self.epoch?;
        epoch.checked_add(Duration::from_nanos(time.0)).or_else(|| epoch.checked_add(FAR_FUTURE)).or(Some(epoch))
    }
}

/// Saturates after five centuries.
fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}
