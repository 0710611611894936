//! Locks and channels of everything that runs on more than one thread.
//!
//! The tests of [`races`](crate::races) are compiled with `--cfg shuttle`. Then the locks are those of the checker, and
//! the channels a model on these locks, so that the checker chooses which thread goes on at each of them.

#[cfg(not(shuttle))]
pub(crate) use std::sync::{Mutex, MutexGuard};

#[cfg(not(shuttle))]
pub(crate) use async_channel as channel;
#[cfg(shuttle)]
pub(crate) use shuttle::sync::{Mutex, MutexGuard};

#[cfg(shuttle)]
pub(crate) use crate::races::channel;
