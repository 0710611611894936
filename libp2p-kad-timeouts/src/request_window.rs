//! Requests of queries that nobody has responded to yet, beyond the first few. No clock and no kad: time and events are
//! arguments.

use std::{
    collections::{BTreeMap, VecDeque},
    hash::Hash,
};

use rustc_hash::FxHashMap;
use web_time::Instant;

use super::progress::Moment;

/// Number of held requests that a response sends. kad adds one request in place of the answered one, so that a query
/// with the default configuration reaches kad's parallelism within two round trips. To send all at the first response
/// would cause a burst of responses.
const SENT_PER_RESPONSE: usize = 2;

/// Limits how many requests a query sends before its first response. `Id` names a query, `T` is a request.
///
/// ```text
///   first requests ────► sent
///   further requests ──► held ──► ready (two at each response, all at the deadline) ──► sent
/// ```
///
/// After the first response kad makes a request only in place of one that was answered or failed. Those are not passed
/// to the window.
#[derive(Debug)]
pub(super) struct RequestWindow<Id, T> {
    /// Number of requests of a query that are sent at once.
    first: usize,
    queries: FxHashMap<Id, QueryWindow<T>>,
    /// Deadlines of the queries. The number distinguishes equal deadlines.
    due: BTreeMap<(Instant, u64), Id>,
    last_number: u64,
    /// Requests to send. Empty once the swarm has taken them.
    ready: VecDeque<(Id, T)>,
}

/// Requests of one query.
#[derive(Debug)]
struct QueryWindow<T> {
    sent: usize,
    held: Vec<T>,
    due: (Instant, u64),
    first_due: Instant,
    /// Moment at which bytes of responses were looked for last.
    seen: Moment,
}

impl<Id: Copy + Eq + Hash, T> RequestWindow<Id, T> {
    pub(super) fn new(first: usize) -> Self {
        Self { first, queries: FxHashMap::default(), due: BTreeMap::new(), last_number: 0, ready: VecDeque::new() }
    }

    /// Takes a request of a query without a response, and returns it if it is to be sent now. The first request of a
    /// query sets its deadline, `due`, at which all held requests are sent.
    pub(super) fn request(&mut self, query: Id, request: T, due: Instant, seen: Moment) -> Option<T> {
        let Self { first, queries, due: all_due, last_number, .. } = self;
        let window = queries.entry(query).or_insert_with(|| {
            *last_number += 1;
            all_due.insert((due, *last_number), query);
            QueryWindow { sent: 0, held: Vec::new(), due: (due, *last_number), first_due: due, seen }
        });
        if window.sent < *first {
            window.sent += 1;
            return Some(request);
        }
        window.held.push(request);
        None
    }

    /// Sends a few held requests of a query, after a response or a failed request.
    pub(super) fn on_response(&mut self, query: &Id) {
        self.release(query, SENT_PER_RESPONSE);
    }

    /// Drops the requests of a query that has ended, and returns their number.
    pub(super) fn end(&mut self, query: &Id) -> usize {
        let all_ready = self.ready.len();
        self.ready.retain(|(other, _)| other != query);
        self.take(query).len() + all_ready - self.ready.len()
    }

    /// Sends all held requests of the queries whose deadline has passed. Those of a query for which `waits` is true stay until
    /// `later`: bytes of responses arrive, and further ones would share the link with them. It gets the query, when it was
    /// called last, and the first deadline.
    pub(super) fn handle_timeout(
        &mut self,
        now: Instant,
        later: Instant,
        mut waits: impl FnMut(&Id, &mut Moment, Instant) -> bool,
    ) {
        while let Some((&(due, number), query)) = self.due.first_key_value()
            && due <= now
        {
            let query = *query;
            if later > now
                && let Some(window) = self.queries.get_mut(&query)
                && waits(&query, &mut window.seen, window.first_due)
            {
                self.due.remove(&(due, number));
                window.due = (later, number);
                self.due.insert(window.due, query);
            } else {
                self.release(&query, usize::MAX);
            }
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.due.first_key_value().map(|((due, _), _)| *due)
    }

    /// Returns the next request to send.
    pub(super) fn pop(&mut self) -> Option<T> {
        self.ready.pop_front().map(|(_, request)| request)
    }

    /// Sends at most `count` held requests of a query, and removes the query with its last one.
    fn release(&mut self, query: &Id, count: usize) {
        let Some(QueryWindow { held, .. }) = self.queries.get_mut(query) else { return };
        let released = held.drain(..count.min(held.len()));
        self.ready.extend(released.map(|request| (*query, request)));
        if held.is_empty() {
            self.take(query);
        }
    }

    fn take(&mut self, query: &Id) -> Vec<T> {
        let Some(window) = self.queries.remove(query) else { return Vec::new() };
        self.due.remove(&window.due);
        window.held
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Makes requests `10 * query ..` of a query, of which the first two are sent.
    fn begin(window: &mut RequestWindow<u8, u8>, query: u8, due: Instant) {
        let sent = (0..5).filter_map(|n| window.request(query, 10 * query + n, due, Moment::default()));
        assert_eq!(sent.collect::<Vec<_>>(), [10 * query, 10 * query + 1]);
    }

    fn ready(window: &mut RequestWindow<u8, u8>) -> Vec<u8> {
        std::iter::from_fn(|| window.pop()).collect()
    }

    #[test]
    fn a_response_sends_two_held_requests_in_order() {
        let (mut window, now) = (RequestWindow::new(2), Instant::now());
        begin(&mut window, 1, now);
        begin(&mut window, 2, now);
        assert!(ready(&mut window).is_empty());
        window.on_response(&2);
        assert_eq!(ready(&mut window), [22, 23]);
        window.on_response(&1);
        window.on_response(&1);
        assert_eq!(ready(&mut window), [12, 13, 14]);
        window.on_response(&2);
        window.on_response(&2);
        assert_eq!(ready(&mut window), [24]);
        assert_eq!(window.next_deadline(), None);
        assert!(window.queries.is_empty() && window.ready.is_empty());
    }

    #[test]
    fn the_deadline_sends_what_responses_have_left() {
        let (mut window, now) = (RequestWindow::new(2), Instant::now());
        begin(&mut window, 1, now);
        window.on_response(&1);
        window.handle_timeout(now, now, |_, _, _| false);
        assert_eq!(ready(&mut window), [12, 13, 14]);
        assert_eq!(window.next_deadline(), None);
    }

    #[test]
    fn held_requests_stay_while_bytes_of_a_first_response_arrive() {
        let (mut window, now) = (RequestWindow::new(2), Instant::now());
        begin(&mut window, 1, now);
        let later = now + Duration::from_secs(1);
        window.handle_timeout(now, later, |query, _, first_due| *query == 1 && first_due == now);
        assert!(ready(&mut window).is_empty());
        assert_eq!(window.next_deadline(), Some(later));
        window.handle_timeout(later, later + Duration::from_secs(1), |_, _, _| false);
        assert_eq!(ready(&mut window), [12, 13, 14]);
        assert_eq!(window.next_deadline(), None);
    }

    #[test]
    fn each_query_has_its_own_deadline() {
        let (mut window, now) = (RequestWindow::new(2), Instant::now());
        let later = now + Duration::from_millis(1);
        begin(&mut window, 1, later);
        begin(&mut window, 2, now);
        assert_eq!(window.next_deadline(), Some(now));
        window.handle_timeout(now, now, |_, _, _| false);
        assert_eq!(ready(&mut window), [22, 23, 24]);
        assert_eq!(window.next_deadline(), Some(later));
        window.handle_timeout(later, later, |_, _, _| false);
        assert_eq!(ready(&mut window), [12, 13, 14]);
        assert_eq!(window.next_deadline(), None);
    }

    #[test]
    fn held_requests_of_an_ended_query_are_never_sent() {
        let (mut window, now) = (RequestWindow::new(2), Instant::now());
        begin(&mut window, 1, now);
        assert_eq!(window.end(&1), 3);
        assert_eq!(window.end(&1), 0);
        window.on_response(&1);
        let end = now + Duration::from_secs(1);
        window.handle_timeout(end, end, |_, _, _| false);
        assert!(ready(&mut window).is_empty());
        assert!(window.queries.is_empty() && window.due.is_empty());
    }

    #[test]
    fn ready_requests_of_an_ended_query_are_never_sent() {
        let (mut window, now) = (RequestWindow::new(2), Instant::now());
        for query in 1..=3 {
            begin(&mut window, query, now);
            window.on_response(&query);
        }
        window.on_response(&3);
        assert_eq!(window.pop(), Some(12));
        assert_eq!(window.end(&1), 2);
        assert_eq!(window.end(&2), 3);
        assert_eq!(ready(&mut window), [32, 33, 34]);
        assert!(window.ready.is_empty());
    }
}
