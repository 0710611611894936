//! Unix times, as documents contain them.

use std::time::{SystemTime, UNIX_EPOCH};

/// Returns a time in seconds since 1970. A time before 1970, from a clock that was never set, counts as 1970: nothing
/// has expired then.
pub(crate) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Returns a time in milliseconds since 1970, for comparisons within this process.
#[cfg(feature = "p2p")]
pub(crate) fn millis(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
