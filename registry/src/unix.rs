//! Times as documents have them: in seconds since 1970.

use std::time::{SystemTime, UNIX_EPOCH};

/// A time before 1970 is 1970: it is of a clock that was never set, and nothing has expired then.
pub(crate) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The same in milliseconds, for what is only compared within this process.
#[cfg(feature = "p2p")]
pub(crate) fn millis(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
