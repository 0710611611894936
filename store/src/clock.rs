#[cfg(feature = "disk")]
use std::time::SystemTime;
use std::{fmt::Debug, time::Instant};

/// Both clocks. The monotonic one decides while the program runs; the wall clock is for the file only.
pub(crate) trait Clock: Debug + Send + Sync {
    fn now(&self) -> Instant;
    #[cfg(feature = "disk")]
    fn wall(&self) -> SystemTime;
}

#[derive(Debug)]
pub(crate) struct RealClock;

impl Clock for RealClock {
    fn now(&self) -> Instant {
        Instant::now()
    }

    #[cfg(feature = "disk")]
    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }
}
