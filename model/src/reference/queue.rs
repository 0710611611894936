//! Order in which queries get a free slot.

use kadence_core::Priority;

use super::{Awaiting, LiveQuery, LiveRequest, Model, State};

/// Position of a query that waits for a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum QueuePosition {
    /// Not queued yet.
    Unset,
    Class(Priority),
    /// In front of all classes: the second step of a put or lookup.
    Front(Priority),
}

/// Positions of the priority classes.
#[derive(Debug)]
pub(super) struct ClassShares {
    classes: [(Priority, ClassShare); 3],
    last_start: u64,
}

#[derive(Debug)]
struct ClassShare {
    position: u64,
    step: u64,
}

impl ClassShares {
    /// The step of a class is the product of the other classes' shares, hence proportional to the inverse of its own
    /// share.
    pub(super) fn new(shares: [u32; 3]) -> Self {
        let [a, b, c] = shares.map(|share| u64::from(share.max(1)));
        let [first, second, third] = Priority::ALL;
        let class_share = |step| ClassShare { position: 0, step };
        Self {
            classes: [(first, class_share(b * c)), (second, class_share(a * c)), (third, class_share(a * b))],
            last_start: 0,
        }
    }

    fn class_share(&mut self, class: Priority) -> Option<&mut ClassShare> {
        self.classes.iter_mut().find(|(of, _)| *of == class).map(|(_, class_share)| class_share)
    }

    fn position(&self, class: Priority) -> Option<u64> {
        self.classes.iter().find(|(of, _)| *of == class).map(|(_, class_share)| class_share.position)
    }
}

impl Model {
    /// Returns the requests that wait for a slot and never had one.
    fn new_requests_in_queue(&self) -> impl Iterator<Item = &LiveRequest> {
        self.requests.iter().filter(|request| match request.awaiting {
            Awaiting::Query(step) => {
                !request.past_first_step
                    && self.query(step).is_some_and(|query| matches!(query.state, State::Waiting(_)))
            }
            Awaiting::Retry(_) | Awaiting::LocalStore(_) | Awaiting::LocalPeers => false,
        })
    }

    pub(super) fn queued(&self) -> usize {
        self.new_requests_in_queue().count()
    }

    /// Queues a query at the position that the highest of its waiters determines.
    pub(super) fn enqueue(&mut self, step: u64) {
        let waits = |request: &&LiveRequest| matches!(request.awaiting, Awaiting::Query(of) if of == step);
        let waiters: Vec<_> = self.requests.iter().filter(waits).collect();
        let ahead = waiters.iter().any(|request| request.second_step);
        let Some(class) = waiters.iter().map(|request| request.options.priority).max() else { return };
        let position = if ahead { QueuePosition::Front(class) } else { QueuePosition::Class(class) };
        let Some(query) = self.query_mut(step) else { return };
        if query.state == State::Waiting(position) {
            return;
        }
        if ahead {
            query.state = State::Waiting(position);
            return;
        }
        let was_empty = self.class(class).is_empty();
        let last_start = self.class_shares.last_start;
        if was_empty && let Some(class_share) = self.class_shares.class_share(class) {
            class_share.position = class_share.position.max(last_start);
        }
        if let Some(query) = self.query_mut(step) {
            query.state = State::Waiting(position);
        }
    }

    pub(super) fn next_in_queue(&mut self) -> Option<u64> {
        for class in Priority::ALL {
            let ahead = self.queries.iter().find(|query| query.state == State::Waiting(QueuePosition::Front(class)));
            if let Some(query) = ahead {
                return Some(query.step);
            }
        }
        // On a tie, `min_by_key` returns the first element, which is the highest class.
        let class = Priority::ALL
            .into_iter()
            .filter(|class| !self.class(*class).is_empty())
            .min_by_key(|class| self.class_shares.position(*class))?;
        let first = self.class(class).first().copied();
        let class_share = self.class_shares.class_share(class)?;
        let position = class_share.position;
        class_share.position += class_share.step;
        self.class_shares.last_start = position;
        first
    }

    /// Returns the queries of a class, first come, first served.
    fn class(&self, class: Priority) -> Vec<u64> {
        let is_in_class = |query: &&LiveQuery| query.state == State::Waiting(QueuePosition::Class(class));
        self.queries.iter().filter(is_in_class).map(|query| query.step).collect()
    }
}
