//! Requests that wait for one query, sorted by threshold, so that an event visits only those that it satisfies.

use std::collections::BTreeSet;

use super::waiting::Line;
use crate::{Priority, RequestId};

/// Results that satisfy a request before its query ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::tracker) enum Threshold {
    /// Number of items.
    Items(u32),
    /// Number of sources with the same bytes.
    Votes(u32),
    /// Number of sources with the best bytes. `u32::MAX`: the best record at the end of the query.
    BestVotes(u32),
    /// Number of peers that returned the record of a put.
    Copies(u32),
    /// The end of a store. `needed` acknowledgements are enough; with fewer, the request can ask other peers if
    /// `can_widen`. kad reports acknowledgements only at the end, so they satisfy nothing before it.
    Acknowledgements { needed: u32, can_widen: bool },
    /// Only the end of the query.
    End,
}

impl Threshold {
    /// Returns the maximum number of earlier items to deliver to a request that joins late.
    pub(super) fn at_most(self) -> usize {
        match self {
            Self::Items(needed) => needed as usize,
            Self::Votes(_) | Self::BestVotes(_) | Self::Copies(_) | Self::Acknowledgements { .. } | Self::End => {
                usize::MAX
            }
        }
    }

    /// Returns whether votes have to be counted.
    pub(super) fn counts_votes(self) -> bool {
        matches!(self, Self::Votes(_) | Self::BestVotes(_))
    }

    /// Returns whether the request waits for more than has been found, and not just for the end of the query.
    fn wants_more(self, max_items: usize) -> bool {
        match self {
            Self::Items(needed) => (needed as usize) < max_items,
            Self::Votes(_) | Self::Copies(_) => true,
            // With fewer votes, the best record is still an answer.
            Self::BestVotes(_) | Self::Acknowledgements { .. } | Self::End => false,
        }
    }
}

/// A request that waits for a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::tracker) struct Waiter {
    pub(in crate::tracker) request: RequestId,
    pub(in crate::tracker) threshold: Threshold,
    /// Line in which it would wait alone.
    pub(in crate::tracker) line: Line,
    pub(in crate::tracker) streaming: bool,
    /// Set after its first query, so that it takes no place in the queue.
    pub(in crate::tracker) begun: bool,
    /// Set if it must not join a query that has started.
    pub(in crate::tracker) fresh: bool,
}

/// Nearly every query has one waiter, which needs no allocation.
#[derive(Debug, Clone)]
pub(super) enum Waiters {
    None,
    One(Waiter),
    Many(Box<Sets>),
}

#[derive(Debug, Clone, Default)]
pub(super) struct Sets {
    by_threshold: BTreeSet<(Threshold, RequestId)>,
    streaming: BTreeSet<RequestId>,
    /// Number of waiters of each line, in the order of [`LINES`]. Kept while the query waits for a slot.
    by_line: [usize; LINES.len()],
    /// Number of waiters that take a place in the queue. Kept while the query waits for a slot.
    new: usize,
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
pub(in crate::tracker) struct Available {
    pub(in crate::tracker) items: usize,
    pub(in crate::tracker) votes: usize,
    pub(in crate::tracker) best_votes: usize,
    pub(in crate::tracker) copies: usize,
}

impl Available {
    pub(in crate::tracker) const NOTHING: Self = Self { items: 0, votes: 0, best_votes: 0, copies: 0 };

    pub(super) fn satisfies(self, threshold: Threshold) -> bool {
        match threshold {
            Threshold::Items(needed) => self.items >= needed as usize,
            Threshold::Votes(needed) => self.votes >= needed as usize,
            Threshold::BestVotes(needed) => self.best_votes >= needed as usize,
            Threshold::Copies(needed) => self.copies >= needed as usize,
            Threshold::Acknowledgements { .. } | Threshold::End => false,
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

    pub(super) fn remove(&mut self, waiter: &Waiter) {
        match self {
            Self::None => {}
            Self::One(only) if only.request == waiter.request => *self = Self::None,
            Self::One(_) => {}
            Self::Many(sets) => {
                sets.remove(waiter);
                self.drop_empty();
            }
        }
    }

    /// Removes and returns the request with the smallest threshold. Only once the query has started.
    pub(super) fn pop_first(&mut self) -> Option<RequestId> {
        match self {
            Self::None => None,
            Self::One(Waiter { request, .. }) => {
                let request = *request;
                *self = Self::None;
                Some(request)
            }
            Self::Many(sets) => {
                let (_, request) = sets.by_threshold.pop_first()?;
                sets.streaming.remove(&request);
                self.drop_empty();
                Some(request)
            }
        }
    }

    /// Removes and returns a request that these results satisfy. Only once the query has started.
    pub(super) fn pop_satisfied(&mut self, available: Available) -> Option<RequestId> {
        match self {
            Self::None => None,
            Self::One(waiter) if available.satisfies(waiter.threshold) => self.pop_first(),
            Self::One(_) => None,
            Self::Many(sets) => {
                let first = *sets.smallest().find(|(threshold, _)| available.satisfies(*threshold))?;
                sets.by_threshold.remove(&first);
                sets.streaming.remove(&first.1);
                self.drop_empty();
                Some(first.1)
            }
        }
    }

    fn drop_empty(&mut self) {
        if let Self::Many(sets) = self
            && sets.by_threshold.is_empty()
        {
            *self = Self::None;
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

    /// Returns the smallest threshold. `None` only if there is no waiter.
    pub(super) fn first_threshold(&self) -> Option<Threshold> {
        match self {
            Self::None => None,
            Self::One(waiter) => Some(waiter.threshold),
            Self::Many(sets) => sets.by_threshold.first().map(|(threshold, _)| *threshold),
        }
    }

    /// Returns whether a request waits for more than has been found, and not just for the end of the query.
    pub(super) fn want_more(&self, max_items: usize) -> bool {
        match self {
            Self::None => false,
            Self::One(waiter) => waiter.threshold.wants_more(max_items),
            Self::Many(sets) => sets.smallest().any(|(threshold, _)| threshold.wants_more(max_items)),
        }
    }

    /// Returns the number of waiters that take a place in the queue.
    pub(super) fn new_ones(&self) -> usize {
        match self {
            Self::None => 0,
            Self::One(waiter) => usize::from(!waiter.begun),
            Self::Many(sets) => sets.new,
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
}

impl Sets {
    fn add(&mut self, waiter: Waiter) {
        self.by_threshold.insert((waiter.threshold, waiter.request));
        if waiter.streaming {
            self.streaming.insert(waiter.request);
        }
        *self.of_line(waiter.line) += 1;
        self.new += usize::from(!waiter.begun);
    }

    fn remove(&mut self, waiter: &Waiter) {
        if self.by_threshold.remove(&(waiter.threshold, waiter.request)) {
            self.streaming.remove(&waiter.request);
            *self.of_line(waiter.line) -= 1;
            self.new -= usize::from(!waiter.begun);
        }
    }

    /// Returns the waiter with the smallest threshold of each kind that results can satisfy: three lookups for any
    /// number of waiters. A query that reads back has only one.
    fn smallest(&self) -> impl Iterator<Item = &(Threshold, RequestId)> {
        [Threshold::Items(0), Threshold::Votes(0), Threshold::BestVotes(0)]
            .into_iter()
            .filter_map(|from| self.by_threshold.range((from, RequestId(0))..).next())
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
