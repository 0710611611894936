//! Locks and channels between callers and the driver.
//!
//! The tests of [`races`](crate::races) are compiled with `--cfg shuttle`. Then the locks are those of the checker, and
//! the channels a model on these locks, so that the checker chooses which thread goes on at each of them. A node's own
//! state and the sink of a recording have locks of the standard library: no caller waits for another through them.

#[cfg(not(all(test, shuttle)))]
pub(crate) use std::sync::{Mutex, MutexGuard};

#[cfg(not(all(test, shuttle)))]
pub(crate) use async_channel as channel;
#[cfg(all(test, shuttle))]
pub(crate) use shuttle::sync::{Mutex, MutexGuard};

#[cfg(all(test, shuttle))]
pub(crate) use crate::races::channel;
