//! Requests that a query has made before anybody has answered it, and that wait for their turn. No clock, no kad: time
//! and events come as arguments.

use std::{
    collections::{BTreeMap, VecDeque},
    hash::Hash,
    time::Instant,
};

use rustc_hash::FxHashMap;

/// How many requests go at an answer. With the one that kad makes in place of the answered request, a query of the default
/// configuration comes to all that kad allows it within two round trips; if all went at the first answer, these would be
/// answered in one burst.
const AT_A_SIGN: usize = 2;

/// The requests that queries made before anybody had answered them, beyond the first few of each. `Id` names a query, `T`
/// is a request.
///
/// ```text
///   the first few ──► gone
///   further ones ──► held ──► ready (two at each sign of the query, all when its time is up) ──► gone
/// ```
///
/// After the first sign kad makes a request only when a peer has answered or failed, and such a request is not brought
/// here.
#[derive(Debug)]
pub(super) struct Hold<Id, T> {
    /// How many requests of a query go at once.
    first: usize,
    beginnings: FxHashMap<Id, Beginning<T>>,
    /// When which query's time is up. The number tells apart those of the same moment.
    due: BTreeMap<(Instant, u64), Id>,
    last_number: u64,
    /// Empty but for the moment until the swarm has taken them.
    ready: VecDeque<(Id, T)>,
}

#[derive(Debug)]
struct Beginning<T> {
    gone: usize,
    held: Vec<T>,
    due: (Instant, u64),
}

impl<Id: Copy + Eq + Hash, T> Hold<Id, T> {
    pub(super) fn new(first: usize) -> Self {
        Self { first, beginnings: FxHashMap::default(), due: BTreeMap::new(), last_number: 0, ready: VecDeque::new() }
    }

    /// A request of a query without a sign. It comes back if it goes now. `due` is when all of them go, and counts if this
    /// is the first.
    pub(super) fn request(&mut self, query: Id, request: T, due: Instant) -> Option<T> {
        let Self { first, beginnings, due: all_due, last_number, .. } = self;
        let beginning = beginnings.entry(query).or_insert_with(|| {
            *last_number += 1;
            all_due.insert((due, *last_number), query);
            Beginning { gone: 0, held: Vec::new(), due: (due, *last_number) }
        });
        if beginning.gone < *first {
            beginning.gone += 1;
            return Some(request);
        }
        beginning.held.push(request);
        None
    }

    /// A peer has answered the query or failed it: a few of its other requests go.
    pub(super) fn sign(&mut self, query: &Id) {
        self.release(query, AT_A_SIGN);
    }

    /// The query has ended, and what has not gone of it is of no use. Says how many requests these were.
    pub(super) fn end(&mut self, query: &Id) -> usize {
        let all_ready = self.ready.len();
        self.ready.retain(|(other, _)| other != query);
        self.take(query).len() + all_ready - self.ready.len()
    }

    /// Lets go what has waited long enough.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        while let Some((&(due, _), query)) = self.due.first_key_value()
            && due <= now
        {
            let query = *query;
            self.release(&query, usize::MAX);
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.due.first_key_value().map(|((due, _), _)| *due)
    }

    /// The next request whose turn has come.
    pub(super) fn pop(&mut self) -> Option<T> {
        self.ready.pop_front().map(|(_, request)| request)
    }

    /// Lets so many requests of a query go, and forgets the query with its last one.
    fn release(&mut self, query: &Id, most: usize) {
        let Some(Beginning { held, .. }) = self.beginnings.get_mut(query) else { return };
        let few = held.drain(..most.min(held.len()));
        self.ready.extend(few.map(|request| (*query, request)));
        if held.is_empty() {
            self.take(query);
        }
    }

    fn take(&mut self, query: &Id) -> Vec<T> {
        let Some(beginning) = self.beginnings.remove(query) else { return Vec::new() };
        self.due.remove(&beginning.due);
        beginning.held
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A query `n` has made requests `10 * n ..`, of which the first two went.
    fn begun(hold: &mut Hold<u8, u8>, query: u8, due: Instant) {
        let gone = (0..5).filter_map(|n| hold.request(query, 10 * query + n, due));
        assert_eq!(gone.collect::<Vec<_>>(), [10 * query, 10 * query + 1]);
    }

    fn ready(hold: &mut Hold<u8, u8>) -> Vec<u8> {
        std::iter::from_fn(|| hold.pop()).collect()
    }

    #[test]
    fn a_sign_lets_two_others_go_in_their_order() {
        let (mut hold, now) = (Hold::new(2), Instant::now());
        begun(&mut hold, 1, now);
        begun(&mut hold, 2, now);
        assert!(ready(&mut hold).is_empty());
        hold.sign(&2);
        assert_eq!(ready(&mut hold), [22, 23]);
        hold.sign(&1);
        hold.sign(&1);
        assert_eq!(ready(&mut hold), [12, 13, 14]);
        hold.sign(&2);
        hold.sign(&2);
        assert_eq!(ready(&mut hold), [24]);
        assert_eq!(hold.next_deadline(), None);
        assert!(hold.beginnings.is_empty() && hold.ready.is_empty());
    }

    #[test]
    fn time_lets_go_what_signs_have_left() {
        let (mut hold, now) = (Hold::new(2), Instant::now());
        begun(&mut hold, 1, now);
        hold.sign(&1);
        hold.handle_timeout(now);
        assert_eq!(ready(&mut hold), [12, 13, 14]);
        assert_eq!(hold.next_deadline(), None);
    }

    #[test]
    fn time_lets_them_go_query_by_query() {
        let (mut hold, now) = (Hold::new(2), Instant::now());
        let later = now + Duration::from_millis(1);
        begun(&mut hold, 1, later);
        begun(&mut hold, 2, now);
        assert_eq!(hold.next_deadline(), Some(now));
        hold.handle_timeout(now);
        assert_eq!(ready(&mut hold), [22, 23, 24]);
        assert_eq!(hold.next_deadline(), Some(later));
        hold.handle_timeout(later);
        assert_eq!(ready(&mut hold), [12, 13, 14]);
        assert_eq!(hold.next_deadline(), None);
    }

    #[test]
    fn what_was_held_of_a_query_that_has_ended_never_goes() {
        let (mut hold, now) = (Hold::new(2), Instant::now());
        begun(&mut hold, 1, now);
        assert_eq!(hold.end(&1), 3);
        assert_eq!(hold.end(&1), 0);
        hold.sign(&1);
        hold.handle_timeout(now + Duration::from_secs(1));
        assert!(ready(&mut hold).is_empty());
        assert!(hold.beginnings.is_empty() && hold.due.is_empty());
    }

    #[test]
    fn neither_does_what_could_have_gone_when_it_ended() {
        let (mut hold, now) = (Hold::new(2), Instant::now());
        for query in 1..=3 {
            begun(&mut hold, query, now);
            hold.sign(&query);
        }
        hold.sign(&3);
        assert_eq!(hold.pop(), Some(12));
        assert_eq!(hold.end(&1), 2);
        assert_eq!(hold.end(&2), 3);
        assert_eq!(ready(&mut hold), [32, 33, 34]);
        assert!(hold.ready.is_empty());
    }
}
