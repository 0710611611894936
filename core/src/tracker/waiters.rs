//! The requests that wait for one query, sorted by what satisfies them, so that an event touches only those that it
//! satisfies.

use std::collections::BTreeSet;

use super::waiting::Line;
use crate::{Priority, RequestId};

/// What a request needs of its query before the query's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Threshold {
    /// So many items.
    Items(u32),
    /// So many sources with the same bytes.
    Votes(u32),
    /// So many sources with the best bytes.
    BestVotes(u32),
    /// Nothing less than the end.
    End,
}

impl Threshold {
    /// How many items are delivered of those that a query has found before.
    pub(super) fn at_most(self) -> usize {
        match self {
            Self::Items(needed) => needed as usize,
            Self::Votes(_) | Self::BestVotes(_) | Self::End => usize::MAX,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Waiter {
    pub(super) request: RequestId,
    pub(super) need: Threshold,
    pub(super) streaming: bool,
    /// Where it would stand alone.
    pub(super) line: Line,
    /// Whether a query was started for it before, so that it takes no place in the queue.
    pub(super) begun: bool,
}

/// Nearly every query has one waiter, which costs nothing beside itself.
#[derive(Debug)]
pub(super) enum Waiters {
    None,
    One(Waiter),
    Many(Box<Sets>),
}

#[derive(Debug, Default)]
pub(super) struct Sets {
    by_need: BTreeSet<(Threshold, RequestId)>,
    streaming: BTreeSet<RequestId>,
    /// How many would stand in each line, in the order of [`LINES`].
    by_line: [usize; LINES.len()],
}

/// The lines, the first to be served first.
const LINES: [Line; 6] = [
    Line::FurtherStep(Priority::Interactive),
    Line::FurtherStep(Priority::Normal),
    Line::FurtherStep(Priority::Background),
    Line::New(Priority::Interactive),
    Line::New(Priority::Normal),
    Line::New(Priority::Background),
];

/// What a query has to offer so far.
#[derive(Debug, Clone, Copy)]
pub(super) struct Available {
    pub(super) items: usize,
    pub(super) votes: usize,
    pub(super) best_votes: usize,
}

impl Available {
    pub(super) const NOTHING: Self = Self { items: 0, votes: 0, best_votes: 0 };

    pub(super) fn satisfies(self, need: Threshold) -> bool {
        match need {
            Threshold::Items(needed) => self.items >= needed as usize,
            Threshold::Votes(needed) => self.votes >= needed as usize,
            Threshold::BestVotes(needed) => self.best_votes >= needed as usize,
            Threshold::End => false,
        }
    }
}

impl Waiters {
    pub(super) fn add(&mut self, waiter: Waiter) {
        match std::mem::replace(self, Self::None) {
            Self::None => *self = Self::One(waiter),
            Self::One(first) => {
                let mut sets = Box::<Sets>::default();
                sets.add(first);
                sets.add(waiter);
                *self = Self::Many(sets);
            }
            Self::Many(mut sets) => {
                sets.add(waiter);
                *self = Self::Many(sets);
            }
        }
    }

    pub(super) fn remove(&mut self, waiter: Waiter) {
        match self {
            Self::None => {}
            Self::One(only) if only.request == waiter.request => *self = Self::None,
            Self::One(_) => {}
            Self::Many(sets) => {
                sets.remove(waiter);
                if sets.by_need.is_empty() {
                    *self = Self::None;
                }
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::One(_) => 1,
            Self::Many(sets) => sets.by_need.len(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The request with the smallest need. `None` only if there is no waiter.
    pub(super) fn first(&self) -> Option<RequestId> {
        match self {
            Self::None => None,
            Self::One(waiter) => Some(waiter.request),
            Self::Many(sets) => sets.by_need.first().map(|(_, request)| *request),
        }
    }

    /// A request that this offer satisfies.
    pub(super) fn satisfied(&self, offer: Available) -> Option<RequestId> {
        match self {
            Self::None => None,
            Self::One(waiter) => offer.satisfies(waiter.need).then_some(waiter.request),
            // Of each kind of need the smallest is looked at: three look-ups, however many wait.
            Self::Many(sets) => {
                [Threshold::Items(0), Threshold::Votes(0), Threshold::BestVotes(0)].into_iter().find_map(|from| {
                    let (need, request) = sets.by_need.range((from, RequestId(0))..).next()?;
                    offer.satisfies(*need).then_some(*request)
                })
            }
        }
    }

    /// Whether somebody waits for more items or votes than there are, and not for all that can be found.
    pub(super) fn want_more(&self, max_items: usize) -> bool {
        let wants_more = |need| match need {
            Threshold::Items(needed) => (needed as usize) < max_items,
            Threshold::Votes(_) => true,
            // Where the best is found by fewer, it is an answer all the same.
            Threshold::BestVotes(_) | Threshold::End => false,
        };
        match self {
            Self::None => false,
            Self::One(waiter) => wants_more(waiter.need),
            Self::Many(sets) => [Threshold::Items(0), Threshold::Votes(0)].into_iter().any(|from| {
                sets.by_need.range((from, RequestId(0))..).next().is_some_and(|(need, _)| wants_more(*need))
            }),
        }
    }

    /// Those that want items as they come, by id.
    pub(super) fn streaming(&self) -> impl Iterator<Item = RequestId> + '_ {
        let (one, many) = match self {
            Self::None => (None, None),
            Self::One(waiter) => (waiter.streaming.then_some(waiter.request), None),
            Self::Many(sets) => (None, Some(&sets.streaming)),
        };
        one.into_iter().chain(many.into_iter().flatten().copied())
    }

    /// The line that serves them first.
    pub(super) fn line(&self) -> Line {
        match self {
            Self::None => Line::New(Priority::Background),
            Self::One(waiter) => waiter.line,
            Self::Many(sets) => LINES
                .into_iter()
                .zip(sets.by_line)
                .find_map(|(line, count)| (count > 0).then_some(line))
                .unwrap_or(Line::New(Priority::Background)),
        }
    }

    /// All of them, by what they need.
    pub(super) fn iter(&self) -> impl Iterator<Item = RequestId> + '_ {
        let (one, many) = match self {
            Self::None => (None, None),
            Self::One(waiter) => (Some(waiter.request), None),
            Self::Many(sets) => (None, Some(&sets.by_need)),
        };
        one.into_iter().chain(many.into_iter().flatten().map(|(_, request)| *request))
    }
}

impl Sets {
    fn add(&mut self, waiter: Waiter) {
        self.by_need.insert((waiter.need, waiter.request));
        if waiter.streaming {
            self.streaming.insert(waiter.request);
        }
        *self.of_line(waiter.line) += 1;
    }

    fn remove(&mut self, waiter: Waiter) {
        if self.by_need.remove(&(waiter.need, waiter.request)) {
            self.streaming.remove(&waiter.request);
            *self.of_line(waiter.line) -= 1;
        }
    }

    fn of_line(&mut self, line: Line) -> &mut usize {
        let [further_interactive, further_normal, further_background, interactive, normal, background] =
            &mut self.by_line;
        match line {
            Line::FurtherStep(Priority::Interactive) => further_interactive,
            Line::FurtherStep(Priority::Normal) => further_normal,
            Line::FurtherStep(Priority::Background) => further_background,
            Line::New(Priority::Interactive) => interactive,
            Line::New(Priority::Normal) => normal,
            Line::New(Priority::Background) => background,
        }
    }
}
