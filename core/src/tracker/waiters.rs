//! Requests that wait for one query, sorted by threshold, so that an event visits only those that it satisfies.

use std::collections::BTreeSet;

use super::waiting::Line;
use crate::{Priority, RequestId};

/// Results that satisfy a request before its query ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Threshold {
    /// Number of items.
    Items(u32),
    /// Number of sources with the same bytes.
    Votes(u32),
    /// Number of sources with the best bytes.
    BestVotes(u32),
    /// Only the end of the query.
    End,
}

impl Threshold {
    /// Returns the maximum number of earlier items to deliver to a request that joins late.
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
    pub(super) threshold: Threshold,
    pub(super) streaming: bool,
    /// Line in which it would wait alone.
    pub(super) line: Line,
    /// Set once a query has been started for it, so that it takes no place in the queue.
    pub(super) begun: bool,
}

/// Nearly every query has one waiter, which needs no allocation.
#[derive(Debug)]
pub(super) enum Waiters {
    None,
    One(Waiter),
    Many(Box<Sets>),
}

#[derive(Debug, Default)]
pub(super) struct Sets {
    by_threshold: BTreeSet<(Threshold, RequestId)>,
    streaming: BTreeSet<RequestId>,
    /// Number of waiters of each line, in the order of [`LINES`].
    by_line: [usize; LINES.len()],
}

/// All lines, in the order in which they are served.
const LINES: [Line; 6] = [
    Line::FurtherStep(Priority::Interactive),
    Line::FurtherStep(Priority::Normal),
    Line::FurtherStep(Priority::Background),
    Line::New(Priority::Interactive),
    Line::New(Priority::Normal),
    Line::New(Priority::Background),
];

/// Counts of a query's results so far.
#[derive(Debug, Clone, Copy)]
pub(super) struct Available {
    pub(super) items: usize,
    pub(super) votes: usize,
    pub(super) best_votes: usize,
}

impl Available {
    pub(super) const NOTHING: Self = Self { items: 0, votes: 0, best_votes: 0 };

    pub(super) fn satisfies(self, threshold: Threshold) -> bool {
        match threshold {
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
                if sets.by_threshold.is_empty() {
                    *self = Self::None;
                }
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::One(_) => 1,
            Self::Many(sets) => sets.by_threshold.len(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the request with the smallest threshold. `None` only if there is no waiter.
    pub(super) fn first(&self) -> Option<RequestId> {
        match self {
            Self::None => None,
            Self::One(waiter) => Some(waiter.request),
            Self::Many(sets) => sets.by_threshold.first().map(|(_, request)| *request),
        }
    }

    /// Returns a request that these results satisfy.
    pub(super) fn satisfied(&self, available: Available) -> Option<RequestId> {
        match self {
            Self::None => None,
            Self::One(waiter) => available.satisfies(waiter.threshold).then_some(waiter.request),
            // Only the smallest threshold of each kind is checked: three lookups for any number of waiters.
            Self::Many(sets) => {
                [Threshold::Items(0), Threshold::Votes(0), Threshold::BestVotes(0)].into_iter().find_map(|from| {
                    let (threshold, request) = sets.by_threshold.range((from, RequestId(0))..).next()?;
                    available.satisfies(*threshold).then_some(*request)
                })
            }
        }
    }

    /// Returns whether a request waits for more items or votes than have been found, and not just for the end of the
    /// query.
    pub(super) fn want_more(&self, max_items: usize) -> bool {
        let wants_more = |threshold| match threshold {
            Threshold::Items(needed) => (needed as usize) < max_items,
            Threshold::Votes(_) => true,
            // With fewer votes, the best record is still an answer.
            Threshold::BestVotes(_) | Threshold::End => false,
        };
        match self {
            Self::None => false,
            Self::One(waiter) => wants_more(waiter.threshold),
            Self::Many(sets) => [Threshold::Items(0), Threshold::Votes(0)].into_iter().any(|from| {
                sets.by_threshold
                    .range((from, RequestId(0))..)
                    .next()
                    .is_some_and(|(threshold, _)| wants_more(*threshold))
            }),
        }
    }

    /// Returns the requests that stream items, by id.
    pub(super) fn streaming(&self) -> impl Iterator<Item = RequestId> + '_ {
        let (one, many) = match self {
            Self::None => (None, None),
            Self::One(waiter) => (waiter.streaming.then_some(waiter.request), None),
            Self::Many(sets) => (None, Some(&sets.streaming)),
        };
        one.into_iter().chain(many.into_iter().flatten().copied())
    }

    /// Returns the line that is served first among those of the waiters.
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

    /// Returns all requests, by threshold.
    pub(super) fn iter(&self) -> impl Iterator<Item = RequestId> + '_ {
        let (one, many) = match self {
            Self::None => (None, None),
            Self::One(waiter) => (Some(waiter.request), None),
            Self::Many(sets) => (None, Some(&sets.by_threshold)),
        };
        one.into_iter().chain(many.into_iter().flatten().map(|(_, request)| *request))
    }
}

impl Sets {
    fn add(&mut self, waiter: Waiter) {
        self.by_threshold.insert((waiter.threshold, waiter.request));
        if waiter.streaming {
            self.streaming.insert(waiter.request);
        }
        *self.of_line(waiter.line) += 1;
    }

    fn remove(&mut self, waiter: Waiter) {
        if self.by_threshold.remove(&(waiter.threshold, waiter.request)) {
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
