//! Who waits for a slot, and who is next.

use std::collections::BTreeMap;

use crate::RequestId;

/// A place in the line. Places are given out in rising order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket(u64);

/// Two lines, each first come, first served: further steps of running requests go ahead of new requests, because a
/// request that has begun holds results, and its caller has waited longer.
#[derive(Debug, Default)]
pub(super) struct WaitingLine {
    next: u64,
    steps: BTreeMap<Ticket, RequestId>,
    requests: BTreeMap<Ticket, RequestId>,
}

impl WaitingLine {
    pub(super) fn push_request(&mut self, id: RequestId) -> Ticket {
        let ticket = self.ticket();
        self.requests.insert(ticket, id);
        ticket
    }

    pub(super) fn push_step(&mut self, id: RequestId) -> Ticket {
        let ticket = self.ticket();
        self.steps.insert(ticket, id);
        ticket
    }

    pub(super) fn pop(&mut self) -> Option<RequestId> {
        self.steps.pop_first().or_else(|| self.requests.pop_first()).map(|(_, id)| id)
    }

    pub(super) fn remove(&mut self, ticket: Ticket) {
        if self.steps.remove(&ticket).is_none() {
            self.requests.remove(&ticket);
        }
    }

    /// How many new requests wait.
    pub(super) fn requests(&self) -> usize {
        self.requests.len()
    }

    fn ticket(&mut self) -> Ticket {
        self.next += 1;
        Ticket(self.next)
    }
}
