//! Who is next when a slot is free.

use kadence_core::{Priority, RequestId};

use super::{LiveQuery, LiveRequest, Model, Place, State};

/// Where a query that waits for a slot stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line {
    /// Nowhere yet.
    None,
    Class(Priority),
    /// The second step of a put: ahead of all others.
    Ahead(Priority),
}

/// How far each class has come.
#[derive(Debug)]
pub(super) struct Turns {
    classes: [(Priority, Turn); 3],
    last_start: u64,
}

#[derive(Debug)]
struct Turn {
    position: u64,
    step: u64,
}

impl Turns {
    /// Steps are to each other as the inverses of the shares: the product of all shares by one's own.
    pub(super) fn new(shares: [u32; 3]) -> Self {
        let [a, b, c] = shares.map(|share| u64::from(share.max(1)));
        let [first, second, third] = Priority::ALL;
        let turn = |step| Turn { position: 0, step };
        Self { classes: [(first, turn(b * c)), (second, turn(a * c)), (third, turn(a * b))], last_start: 0 }
    }

    fn turn(&mut self, class: Priority) -> Option<&mut Turn> {
        self.classes.iter_mut().find(|(of, _)| *of == class).map(|(_, turn)| turn)
    }

    fn position(&self, class: Priority) -> Option<u64> {
        self.classes.iter().find(|(of, _)| *of == class).map(|(_, turn)| turn.position)
    }
}

impl Model {
    /// The requests that wait for a slot and were never given one.
    fn new_in_line(&self) -> impl Iterator<Item = &LiveRequest> {
        self.requests.iter().filter(|request| match request.place {
            Place::Query(step) => {
                !request.begun && self.query(step).is_some_and(|query| matches!(query.state, State::Waiting(_)))
            }
            Place::Retry(_) | Place::LocalStore(_) | Place::LocalPeers => false,
        })
    }

    pub(super) fn queued(&self) -> usize {
        self.new_in_line().count()
    }

    /// Puts a waiting query where the first of its waiters would stand.
    pub(super) fn stand(&mut self, step: u64) {
        let waits = |request: &&LiveRequest| matches!(request.place, Place::Query(of) if of == step);
        let waiters: Vec<_> = self.requests.iter().filter(waits).collect();
        let ahead = waiters.iter().any(|request| request.second_step);
        let Some(class) = waiters.iter().map(|request| request.options.priority).max() else { return };
        let line = if ahead { Line::Ahead(class) } else { Line::Class(class) };
        let Some(query) = self.query_mut(step) else { return };
        if query.state == State::Waiting(line) {
            return;
        }
        if ahead {
            query.state = State::Waiting(line);
            return;
        }
        let was_empty = self.class(class).is_empty();
        let last_start = self.turns.last_start;
        if was_empty && let Some(turn) = self.turns.turn(class) {
            turn.position = turn.position.max(last_start);
        }
        if let Some(query) = self.query_mut(step) {
            query.state = State::Waiting(line);
        }
    }

    pub(super) fn next_in_line(&mut self) -> Option<u64> {
        for class in Priority::ALL {
            let ahead = self.queries.iter().find(|query| query.state == State::Waiting(Line::Ahead(class)));
            if let Some(query) = ahead {
                return Some(query.step);
            }
        }
        // The first of the minima, which is the highest class.
        let class = Priority::ALL
            .into_iter()
            .filter(|class| !self.class(*class).is_empty())
            .min_by_key(|class| self.turns.position(*class))?;
        let first = self.class(class).first().copied();
        let turn = self.turns.turn(class)?;
        let position = turn.position;
        turn.position += turn.step;
        self.turns.last_start = position;
        first
    }

    /// The one to be shed for a request of this class: of the lowest class below it, the last.
    pub(super) fn last_below(&self, than: Priority) -> Option<RequestId> {
        let below = || self.new_in_line().filter(|request| request.options.priority < than);
        let lowest = below().map(|request| request.options.priority).min()?;
        below().filter(|request| request.options.priority == lowest).map(|request| request.id).max()
    }

    /// The queries that stand in a class, first come first.
    fn class(&self, class: Priority) -> Vec<u64> {
        let stands = |query: &&LiveQuery| query.state == State::Waiting(Line::Class(class));
        self.queries.iter().filter(stands).map(|query| query.step).collect()
    }
}
