//! Puts of large values, of which only some are under way at a time. No clock and no kad: time and events are arguments.
//!
//! kad sends a record to all twenty peers at once. Twenty copies of 60 kB take ten seconds on an uplink of a megabit, share
//! it, and are all late. So the bytes under way are limited, by what the uplink has shown to take: as in TCP's slow
//! start, the limit doubles as long as responses come soon, and is halved when they come late.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
    time::Duration,
};

use libp2p::PeerId;
use rustc_hash::FxBuildHasher;
use web_time::Instant;

use super::timer::later;

/// Length above which a value counts as large. Twenty of this length take less than a second on an uplink of a megabit.
pub(super) const LARGE: usize = 4 * 1024;

/// Bytes that may be under way at first: they take two seconds on an uplink of a megabit.
const INITIAL: usize = 256 * 1024;

/// Least number of bytes that may be under way: one value of kad's maximum size.
const LEAST: usize = 64 * 1024;

/// Most bytes that may be under way: twenty of the largest values for three calls at once.
const MOST: usize = 4 * 1024 * 1024;

/// Time of a response that raises the limit.
const SOON: Duration = Duration::from_secs(1);

/// Time of a response that lowers it: a fifth of the time after which kad closes a stream by default.
const LATE: Duration = Duration::from_secs(2);

/// Time after which a value without a response makes room for others, and lowers the limit.
const FORGOTTEN: Duration = Duration::from_secs(10);

/// Least number of held requests at which those of ended queries are looked for: kad ends some of its own without an event.
const MANY: usize = 64;

/// Bytes under way that delay other requests: on an uplink of a megabit, by an eighth of a second.
const BUSY: usize = 16 * 1024;

/// Limits the bytes of large values that are under way. `Id` names a query, `T` is a request.
#[derive(Debug)]
pub(super) struct Uploads<Id, T> {
    limit: usize,
    under_way: usize,
    /// Length of each value that is under way, and when it was sent.
    sent: HashMap<(Id, PeerId), (usize, Instant), FxBuildHasher>,
    held: VecDeque<Upload<Id, T>>,
    /// Time at which the limit was lowered last. What was sent before says nothing about the new one.
    lowered: Option<Instant>,
    /// Number of held requests at which those of ended queries are looked for.
    many: usize,
}

/// Request with a large value.
#[derive(Debug)]
pub(super) struct Upload<Id, T> {
    pub(super) query: Id,
    pub(super) peer: PeerId,
    /// Length of the value.
    pub(super) len: usize,
    pub(super) request: T,
    /// It is sent although its query has ended.
    pub(super) is_wanted: bool,
}

impl<Id, T> Default for Uploads<Id, T> {
    fn default() -> Self {
        Self {
            limit: INITIAL,
            under_way: 0,
            sent: HashMap::default(),
            held: VecDeque::new(),
            lowered: None,
            many: MANY,
        }
    }
}

impl<Id: Copy + Eq + Hash, T> Uploads<Id, T> {
    /// Adds a request. [`pop`](Self::pop) returns it when it may be sent, and drops it if its query is not alive any more.
    pub(super) fn push(&mut self, upload: Upload<Id, T>, is_alive: impl Fn(&Id) -> bool) {
        self.held.push_back(upload);
        if self.held.len() >= self.many {
            self.held.retain(|upload| upload.is_wanted || is_alive(&upload.query));
            self.many = (2 * self.held.len()).max(MANY);
        }
    }

    /// Returns the next request that may be sent now.
    pub(super) fn pop(
        &mut self,
        now: Instant,
        is_connected: impl Fn(&PeerId) -> bool,
        is_alive: impl Fn(&Id) -> bool,
    ) -> Option<Upload<Id, T>> {
        self.forget_old(now);
        loop {
            let next = self.held.front()?;
            // One at least, whatever its length.
            if self.under_way > 0 && self.under_way.saturating_add(next.len) > self.limit {
                return None;
            }
            let upload = self.held.pop_front()?;
            if is_connected(&upload.peer) && (upload.is_wanted || is_alive(&upload.query)) {
                self.end(upload.query, upload.peer);
                self.under_way += upload.len;
                self.sent.insert((upload.query, upload.peer), (upload.len, now));
                return Some(upload);
            }
        }
    }

    /// Notes a response.
    pub(super) fn answered(&mut self, query: Id, peer: PeerId, now: Instant) {
        let Some((len, since)) = self.end(query, peer) else { return };
        let took = now.saturating_duration_since(since);
        if took <= SOON {
            self.limit = self.limit.saturating_add(len).min(MOST);
        } else if took >= LATE {
            self.lower(since, now);
        }
    }

    /// Halves the limit because of a value that was sent at `since`.
    fn lower(&mut self, since: Instant, now: Instant) {
        if self.lowered.is_none_or(|lowered| lowered < since) {
            self.limit = (self.limit / 2).max(LEAST);
            self.lowered = Some(now);
        }
    }

    /// Notes that a request has failed, or is not waited for any more. Returns the length of its value and when it was sent.
    pub(super) fn end(&mut self, query: Id, peer: PeerId) -> Option<(usize, Instant)> {
        let ended = self.sent.remove(&(query, peer))?;
        self.under_way -= ended.0;
        Some(ended)
    }

    /// Forgets what was sent to a peer that is given up or not connected any more, and drops what was to be sent to it. Returns
    /// the number of those.
    pub(super) fn forget(&mut self, peer: PeerId) -> usize {
        self.sent.retain(|(_, to), (len, _)| {
            if *to == peer {
                self.under_way -= *len;
            }
            *to != peer
        });
        let before = self.held.len();
        self.held.retain(|upload| upload.peer != peer);
        before - self.held.len()
    }

    /// Returns whether other requests may wait behind values.
    pub(super) fn is_uplink_busy(&mut self, now: Instant) -> bool {
        self.forget_old(now);
        self.under_way > BUSY
    }

    /// Returns the time at which a held request may be sent although no response has come.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let oldest = self.sent.values().map(|(_, since)| *since).min()?;
        self.are_held().then(|| later(oldest, FORGOTTEN))
    }

    fn forget_old(&mut self, now: Instant) {
        let mut oldest: Option<Instant> = None;
        self.sent.retain(|_, (len, since)| {
            let is_old = now.saturating_duration_since(*since) >= FORGOTTEN;
            if is_old {
                self.under_way -= *len;
                oldest = Some(oldest.map_or(*since, |oldest| oldest.min(*since)));
            }
            !is_old
        });
        if let Some(since) = oldest {
            self.lower(since, now);
        }
    }

    /// Keeps the requests of a query that has ended because enough peers have the record: kad has sent all by then.
    pub(super) fn query_succeeded(&mut self, query: &Id) {
        let of_query = self.held.iter_mut().filter(|upload| upload.query == *query);
        of_query.for_each(|upload| upload.is_wanted = true);
    }

    /// Drops the requests of a query that has ended which were not sent, and returns their number. Those that were sent are
    /// still under way.
    pub(super) fn query_ended(&mut self, query: &Id) -> usize {
        let before = self.held.len();
        self.held.retain(|upload| upload.query != *query);
        before - self.held.len()
    }

    /// Returns whether requests wait until they may be sent.
    pub(super) fn are_held(&self) -> bool {
        !self.held.is_empty()
    }

    /// Returns whether a query has values that are under way, or wait until they may be sent.
    pub(super) fn has(&mut self, query: &Id, now: Instant) -> bool {
        self.forget_old(now);
        self.held.iter().any(|upload| upload.query == *query) || self.sent.keys().any(|(other, _)| other == query)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: usize = 60_000;

    /// Uploads with a manual clock.
    struct Test {
        uploads: Uploads<u8, u32>,
        now: Instant,
    }

    impl Test {
        fn new() -> Self {
            Self { uploads: Uploads::default(), now: Instant::now() }
        }

        fn push(&mut self, query: u8, count: u32) -> Vec<PeerId> {
            let peers: Vec<_> = (0..count).map(|_| PeerId::random()).collect();
            for (peer, request) in peers.iter().zip(0..) {
                self.uploads.push(Upload { query, peer: *peer, len: LEN, request, is_wanted: false }, |_| true);
            }
            peers
        }

        fn sent(&mut self) -> Vec<(u8, PeerId)> {
            let Self { uploads, now } = self;
            std::iter::from_fn(|| uploads.pop(*now, |_| true, |_| true))
                .map(|upload| (upload.query, upload.peer))
                .collect()
        }

        fn answered(&mut self, sent: &[(u8, PeerId)], after: Duration) {
            self.now += after;
            for (query, peer) in sent {
                self.uploads.answered(*query, *peer, self.now);
            }
        }

        /// Returns how many values are sent at once at last, when each response takes this long.
        fn settled(&mut self, after: Duration) -> usize {
            (0..10).fold(0, |_, _| {
                self.push(1, 100);
                let sent = self.sent();
                self.answered(&sent, after);
                self.uploads.query_ended(&1);
                sent.len()
            })
        }
    }

    #[test]
    fn four_large_values_are_under_way_at_first_and_twice_as_many_after_soon_responses() {
        let mut test = Test::new();
        let peers = test.push(1, 20);
        let first = test.sent();
        assert_eq!(first, peers.iter().take(4).map(|peer| (1, *peer)).collect::<Vec<_>>(), "in order");
        assert!(test.sent().is_empty());
        test.answered(&first, Duration::from_millis(100));
        assert_eq!(test.sent().len(), 8);
    }

    #[test]
    fn late_responses_leave_one_value_at_a_time_and_soon_ones_bring_all_back() {
        let mut test = Test::new();
        assert_eq!(test.settled(Duration::from_secs(3)), 1);
        assert_eq!(test.settled(Duration::from_millis(10)), 69, "four megabytes");
    }

    #[test]
    fn responses_in_between_change_nothing() {
        assert_eq!(Test::new().settled(Duration::from_millis(1_500)), 4);
    }

    #[test]
    fn late_responses_to_what_was_sent_at_the_same_time_lower_the_limit_once() {
        let mut test = Test::new();
        test.push(1, 20);
        let first = test.sent();
        test.answered(&first, Duration::from_secs(3));
        assert_eq!(test.sent().len(), 2, "half of four");
    }

    #[test]
    fn a_value_above_the_limit_is_sent_alone() {
        let mut test = Test::new();
        for len in [MOST, 1, MOST] {
            let peer = PeerId::random();
            test.uploads.push(Upload { query: 1, peer, len, request: 0, is_wanted: false }, |_| true);
        }
        let first = test.sent();
        assert_eq!(first.len(), 1);
        assert_eq!(test.uploads.end(1, first[0].1).map(|(len, _)| len), Some(MOST));
        assert_eq!(test.sent().len(), 1);
    }

    #[test]
    fn failures_and_peers_that_are_gone_make_room_and_ended_queries_send_no_more() {
        let mut test = Test::new();
        let peers = test.push(1, 6);
        assert_eq!(test.sent().len(), 4);
        test.uploads.end(1, peers[0]);
        assert_eq!(test.uploads.forget(peers[1]), 0);
        assert_eq!(test.sent().len(), 2);
        test.push(2, 3);
        assert!(test.uploads.has(&2, test.now));
        assert_eq!(test.uploads.query_ended(&2), 3);
        assert!(!test.uploads.has(&2, test.now) && test.uploads.has(&1, test.now), "what was sent is still under way");
        for peer in peers {
            test.uploads.end(1, peer);
        }
        assert!(!test.uploads.has(&1, test.now) && test.uploads.under_way == 0);
    }

    #[test]
    fn values_without_a_response_are_forgotten_after_ten_seconds() {
        let mut test = Test::new();
        test.push(1, 6);
        assert_eq!(test.sent().len(), 4);
        assert_eq!(test.uploads.next_deadline(), Some(test.now + Duration::from_secs(10)));
        test.now += Duration::from_secs(9);
        assert!(test.uploads.is_uplink_busy(test.now) && test.sent().is_empty());
        test.now += Duration::from_secs(1);
        assert!(!test.uploads.is_uplink_busy(test.now));
        assert_eq!(test.uploads.limit, INITIAL / 2, "nobody has answered");
        assert_eq!(test.sent().len(), 2);
        assert_eq!(test.uploads.next_deadline(), None, "nothing is held");
    }

    #[test]
    fn what_is_held_for_a_peer_that_is_given_up_is_dropped() {
        let mut test = Test::new();
        let peers = test.push(1, 6);
        assert_eq!(test.sent().len(), 4);
        assert_eq!(test.uploads.forget(peers[5]), 1);
        test.uploads.forget(peers[0]);
        assert_eq!(test.sent(), [(1, peers[4])]);
    }

    #[test]
    fn requests_of_queries_that_have_ended_are_dropped_unless_the_put_has_succeeded() {
        let mut test = Test::new();
        test.push(1, 2);
        test.push(2, 1);
        test.uploads.query_succeeded(&1);
        let sent = std::iter::from_fn(|| test.uploads.pop(test.now, |_| true, |_| false));
        assert_eq!(sent.map(|upload| upload.query).collect::<Vec<_>>(), [1, 1]);
    }

    #[test]
    fn many_requests_of_ended_queries_are_not_kept() {
        let mut test = Test::new();
        for query in 0..200 {
            let upload = Upload { query, peer: PeerId::random(), len: LEN, request: 0, is_wanted: false };
            test.uploads.push(upload, |alive| *alive == query);
        }
        assert!(test.uploads.held.len() < 2 * MANY);
    }

    #[test]
    fn a_request_to_a_peer_that_is_not_connected_is_dropped() {
        let mut test = Test::new();
        let peers = test.push(1, 2);
        let sent = test.uploads.pop(test.now, |peer| *peer == peers[1], |_| true);
        assert_eq!(sent.map(|upload| upload.request), Some(1));
        assert!(test.sent().is_empty());
    }
}
