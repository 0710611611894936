//! Ids of queries whose slot was taken back before their last event.

use std::{collections::VecDeque, hash::Hash};

use rustc_hash::FxHashSet;

/// Maximum number of ids remembered, so that a late event of such a query is not passed on as the application's. A
/// missing last event needs an anomaly in kad; a thousand exceed any burst of them, and take 24 KiB.
const CAPACITY: usize = 1024;

/// A bounded set that removes its oldest member first.
#[derive(Debug, Clone)]
pub(super) struct EvictedIds<Id> {
    order: VecDeque<Id>,
    members: FxHashSet<Id>,
}

impl<Id: Copy + Eq + Hash> EvictedIds<Id> {
    pub(super) fn new() -> Self {
        Self { order: VecDeque::new(), members: FxHashSet::default() }
    }

    /// Adds an id. Returns the member that was removed for it, if any.
    pub(super) fn insert(&mut self, id: Id) -> Option<Id> {
        if !self.members.insert(id) {
            return None;
        }
        self.order.push_back(id);
        if self.order.len() <= CAPACITY {
            return None;
        }
        let oldest = self.order.pop_front()?;
        self.members.remove(&oldest);
        Some(oldest)
    }

    pub(super) fn contains(&self, id: &Id) -> bool {
        self.members.contains(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_forgotten_first() {
        let mut evicted_ids = EvictedIds::new();
        for id in 0..=CAPACITY {
            evicted_ids.insert(id);
            evicted_ids.insert(id);
        }
        assert!(!evicted_ids.contains(&0));
        assert!((1..=CAPACITY).all(|id| evicted_ids.contains(&id)));
        assert_eq!(evicted_ids.order.len(), CAPACITY);
    }
}
