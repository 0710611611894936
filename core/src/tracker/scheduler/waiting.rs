//! Queries that wait for a slot, and the choice of the next one.

use std::{cmp::Reverse, collections::BTreeSet};

use crate::{Priority, StepId};

/// Line in which a query waits. Ordered by service: the greater goes first.
///
/// Further steps of a put and of a thorough lookup go ahead of all others: the result of their first query is fresh,
/// and they have waited for their turn already. There are few of them for each query that had its turn, so no class
/// starves. Everything else waits in the line of its class, retries included: a request may be retried any number of
/// times, and if its attempts went ahead, a few requests that always fail would keep all others from starting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::tracker) enum Line {
    New(Priority),
    FurtherStep(Priority),
}

/// The lines, each first come, first served: step ids ascend, so the smallest came first.
///
/// Stride scheduling selects the next class: each start moves its class forward by the inverse of its share, and the
/// class that is furthest behind is next, or the higher one of two that are level. A class that was empty continues
/// level with the others, so it cannot save up unused shares.
#[derive(Debug, Clone)]
pub(super) struct WaitingLine {
    /// The higher class first; within a class first come, first served.
    further: BTreeSet<(Reverse<Priority>, StepId)>,
    classes: [Class; 3],
    /// Position of the class that was served last.
    reached: u64,
}

#[derive(Debug, Clone, Default)]
struct Class {
    queue: BTreeSet<StepId>,
    stride: u64,
    position: u64,
}

/// Divisible by every small share, so that strides are exact.
const FULL_STRIDE: u64 = 27_720;

impl WaitingLine {
    pub(super) fn new(shares: [u32; 3]) -> Self {
        let classes = shares.map(|share| Class {
            stride: (FULL_STRIDE / u64::from(share.clamp(1, 27_720))).max(1),
            ..Class::default()
        });
        Self { further: BTreeSet::new(), classes, reached: 0 }
    }

    pub(super) fn insert(&mut self, line: Line, step: StepId) {
        match line {
            Line::FurtherStep(priority) => {
                self.further.insert((Reverse(priority), step));
            }
            Line::New(priority) => {
                let reached = self.reached;
                let class = self.class(priority);
                if class.queue.is_empty() {
                    class.position = class.position.max(reached);
                }
                class.queue.insert(step);
            }
        }
    }

    /// Moves a query to another line, where it keeps the place of its age.
    pub(super) fn change(&mut self, from: Line, to: Line, step: StepId) {
        if from != to {
            self.remove(from, step);
            self.insert(to, step);
        }
    }

    pub(super) fn remove(&mut self, line: Line, step: StepId) {
        match line {
            Line::FurtherStep(priority) => self.further.remove(&(Reverse(priority), step)),
            Line::New(priority) => self.class(priority).queue.remove(&step),
        };
    }

    pub(super) fn pop(&mut self) -> Option<StepId> {
        if let Some((_, step)) = self.further.pop_first() {
            return Some(step);
        }
        let class =
            self.classes.iter_mut().filter(|class| !class.queue.is_empty()).min_by_key(|class| class.position)?;
        self.reached = class.position;
        class.position += class.stride;
        class.queue.pop_first()
    }

    fn class(&mut self, priority: Priority) -> &mut Class {
        let [interactive, normal, background] = &mut self.classes;
        match priority {
            Priority::Interactive => interactive,
            Priority::Normal => normal,
            Priority::Background => background,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn starts(line: &mut WaitingLine, n: usize, classes: &[Priority]) -> Vec<usize> {
        let mut waiting = BTreeMap::new();
        for step in 0..n as u64 * 3 {
            if let Some(class) = classes.get(step as usize % 3) {
                waiting.insert(StepId(step), *class);
                line.insert(Line::New(*class), StepId(step));
            }
        }
        let started: Vec<_> = (0..n).map(|_| waiting[&line.pop().unwrap()]).collect();
        while line.pop().is_some() {}
        Priority::ALL.map(|class| started.iter().filter(|started| **started == class).count()).to_vec()
    }

    #[test]
    fn each_class_gets_its_share_of_a_dozen() {
        let mut line = WaitingLine::new([8, 3, 1]);
        assert_eq!(starts(&mut line, 12, &Priority::ALL), [8, 3, 1]);
    }

    #[test]
    fn an_empty_class_leaves_its_share_to_the_others() {
        let mut line = WaitingLine::new([8, 3, 1]);
        assert_eq!(starts(&mut line, 9, &[Priority::Interactive, Priority::Background]), [8, 0, 1]);
    }

    #[test]
    fn a_class_that_was_empty_saves_nothing_up() {
        let mut line = WaitingLine::new([8, 3, 1]);
        assert_eq!(starts(&mut line, 1200, &[Priority::Interactive]), [1200, 0, 0]);
        assert_eq!(starts(&mut line, 12, &Priority::ALL), [8, 3, 1]);
    }

    #[test]
    fn further_steps_go_first_by_their_class_and_then_by_their_age() {
        let mut line = WaitingLine::new([8, 3, 1]);
        line.insert(Line::New(Priority::Interactive), StepId(1));
        for (step, priority) in (2..).zip([Priority::Background, Priority::Interactive, Priority::Interactive]) {
            line.insert(Line::FurtherStep(priority), StepId(step));
        }
        let order: Vec<_> = std::iter::from_fn(|| line.pop()).collect();
        assert_eq!(order, [3, 4, 2, 1].map(StepId));
    }

    #[test]
    fn a_query_that_moves_to_a_higher_line_keeps_the_place_of_its_age() {
        let mut line = WaitingLine::new([1, 1, 1]);
        line.insert(Line::New(Priority::Background), StepId(1));
        line.insert(Line::New(Priority::Interactive), StepId(2));
        line.change(Line::New(Priority::Background), Line::New(Priority::Interactive), StepId(1));
        assert_eq!([line.pop(), line.pop(), line.pop()], [Some(StepId(1)), Some(StepId(2)), None]);
    }
}
