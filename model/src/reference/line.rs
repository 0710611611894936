//! Who is next when a slot is free.

use kadence_core::{Priority, RequestId};

use super::{LiveQuery, Model, Place, State};

/// Where a query that waits for a slot stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line {
    /// Nowhere yet.
    None,
    Class(Priority),
    /// A running request waits for it: ahead of all new ones.
    Ahead,
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
    /// How many requests wait for a slot that were never given one.
    pub(super) fn queued(&self) -> usize {
        let new = |query: &&LiveQuery| matches!(query.state, State::Waiting(Line::Class(_)));
        self.queries.iter().filter(new).map(|query| self.waiters(query.step).len()).sum()
    }

    /// Puts a waiting query into the line of the highest of its waiters.
    pub(super) fn stand(&mut self, step: u64) {
        let class = self
            .requests
            .iter()
            .filter(|request| matches!(request.place, Place::Query(of) if of == step))
            .map(|request| request.options.priority)
            .max();
        let (Some(class), Some(query)) = (class, self.query(step)) else { return };
        let line = Line::Class(class);
        if query.state == State::Waiting(Line::Ahead) || query.state == State::Waiting(line) {
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
        let ahead = self.queries.iter().find(|query| query.state == State::Waiting(Line::Ahead));
        if let Some(query) = ahead {
            return Some(query.step);
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

    /// The one to be shed for a request of this class: of the lowest class below it, the query that came last, and of
    /// its waiters the one that is served last.
    pub(super) fn last_below(&self, than: Priority) -> Option<RequestId> {
        let lowest = Priority::ALL.into_iter().filter(|class| *class < than && !self.class(*class).is_empty()).min()?;
        let query = self.class(lowest).last().copied()?;
        self.waiters(query).last().copied()
    }

    /// The queries that stand in a class, first come first.
    fn class(&self, class: Priority) -> Vec<u64> {
        let stands = |query: &&LiveQuery| query.state == State::Waiting(Line::Class(class));
        self.queries.iter().filter(stands).map(|query| query.step).collect()
    }
}
