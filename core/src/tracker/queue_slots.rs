//! The queue_slots in the queue: requests that wait for their first query to start.

use std::collections::BTreeSet;

use crate::{Overload, Priority, RequestId};

/// How many queue_slots are taken, and, if requests may be shed, by whom.
#[derive(Debug)]
pub(super) struct QueueSlots {
    taken: usize,
    /// By class, in the order of [`Priority::ALL`]; only where it is asked for, because a request that waits should be
    /// small.
    by_class: Option<[BTreeSet<RequestId>; 3]>,
}

impl QueueSlots {
    pub(super) fn new(overload: Overload) -> Self {
        let by_class = match overload {
            Overload::Refuse => None,
            Overload::Shed => Some(<[BTreeSet<RequestId>; 3]>::default()),
        };
        Self { taken: 0, by_class }
    }

    pub(super) fn take(&mut self, request: RequestId, priority: Priority) {
        self.taken += 1;
        if let Some(class) = self.class(priority) {
            class.insert(request);
        }
    }

    pub(super) fn leave(&mut self, request: RequestId, priority: Priority) {
        self.taken -= 1;
        if let Some(class) = self.class(priority) {
            class.remove(&request);
        }
    }

    pub(super) fn taken(&self) -> usize {
        self.taken
    }

    /// The last of the lowest class that has a request waiting, if that class is below `than`. `None` as well if nobody
    /// is ever shed.
    pub(super) fn last_below(&self, than: Priority) -> Option<RequestId> {
        let classes = self.by_class.as_ref()?;
        Priority::ALL
            .into_iter()
            .zip(classes)
            .rev()
            .take_while(|(priority, _)| *priority < than)
            .find_map(|(_, class)| class.last().copied())
    }

    fn class(&mut self, priority: Priority) -> Option<&mut BTreeSet<RequestId>> {
        self.by_class.as_mut()?.get_mut(priority.index())
    }
}
