//! Fingerprint of all that happens in a world.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use futures_timer::schedule;

/// Hash of every poll of a task and every packet, in their order: equal for equal worlds.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trace(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    hash: AtomicU64,
    steps: AtomicU64,
}

impl Trace {
    /// Adds a step. One thread alone adds steps.
    pub(crate) fn note(&self, who: u64, what: u64) {
        let Counters { hash, steps } = &*self.0;
        let now = schedule::now().unwrap_or_default();
        let mixed = [now, who, what].into_iter().fold(hash.load(Relaxed), |hash, part| {
            // The step of FNV-1a (Fowler, Noll and Vo), on whole numbers.
            (hash ^ part).wrapping_mul(0x0100_0000_01b3).rotate_left(23)
        });
        hash.store(mixed, Relaxed);
        steps.fetch_add(1, Relaxed);
    }

    pub(crate) fn hash(&self) -> u64 {
        self.0.hash.load(Relaxed)
    }

    pub(crate) fn steps(&self) -> u64 {
        self.0.steps.load(Relaxed)
    }
}
