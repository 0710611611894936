//! Places in the queue: requests that wait for their first query to start.

use std::collections::BTreeSet;

use crate::{Overload, Priority, RequestId};

/// Number of places taken and, if requests may be shed, the requests that hold them.
#[derive(Debug)]
pub(super) struct QueueSlots {
    taken: usize,
    /// By class, in the order of [`Priority::ALL`]; only for [`Overload::Shed`], to keep waiting requests small.
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

    /// Returns the last request of the lowest class that has one waiting, if that class is below `than`. `None` as well
    /// if requests are never shed.
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
