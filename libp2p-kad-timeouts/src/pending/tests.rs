use std::time::{Duration, Instant};

use libp2p::PeerId;

use super::{
    super::{
        PeerTimeoutConfig, ResponseProgress,
        liveness::MAX_IN_A_ROW,
        progress::{Moment, Receiving},
    },
    MAX_ABANDONED, PendingRequests,
};

/// Pending requests with a manual clock that counts milliseconds.
struct Test {
    pending: PendingRequests<u32>,
    epoch: Instant,
    now: Instant,
    /// Number of peers that have responded to each query.
    answered_by: u32,
}

impl Test {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            pending: PendingRequests::new(&PeerTimeoutConfig::default(), ResponseProgress::default()),
            epoch: now,
            now,
            answered_by: 20,
        }
    }

    /// Returns the state in a network that has responded within 5 ms for a while.
    fn fast() -> Self {
        let mut test = Self::new();
        for query in 1000..1030 {
            let peer = PeerId::random();
            test.sent(peer, query);
            test.pass(5);
            test.answered(peer, query);
        }
        test.epoch = test.now;
        test
    }

    /// Returns the state in such a network in which a query has asked two peers, and one has responded.
    fn waiting_for(late: PeerId, other: PeerId) -> Self {
        let mut test = Self::fast();
        test.sent(late, 1);
        test.sent(other, 1);
        test.pass(5);
        test.answered(other, 1);
        test
    }

    fn sent(&mut self, peer: PeerId, query: u32) {
        self.pending.sent(peer, query, self.now);
    }

    fn answered(&mut self, peer: PeerId, query: u32) {
        self.pending.answered(peer, query, self.now);
    }

    fn pass(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
    }

    fn overdue(&mut self) -> Vec<PeerId> {
        std::iter::from_fn(|| self.pending.overdue(self.now, self.answered_by, |_| Some(self.answered_by))).collect()
    }

    /// Lets time pass from deadline to deadline, as a timer does, and returns the peers that were given up, with the
    /// time.
    fn run_to(&mut self, ms: u64) -> Vec<(PeerId, u128)> {
        let end = self.epoch + Duration::from_millis(ms);
        let mut given_up = Vec::new();
        while let Some(due) = self.pending.next_deadline().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            let at = (self.now - self.epoch + Duration::from_micros(999)).as_millis();
            given_up.extend(self.overdue().into_iter().map(|peer| (peer, at)));
        }
        self.now = self.now.max(end);
        given_up
    }

    /// Begins the response of a peer.
    fn responding(&self, peer: PeerId) -> Receiving {
        Receiving::begin(peer, self.pending.progress().clone())
    }

    fn is_empty(&self) -> bool {
        let PendingRequests { entries, by_query, by_peer, deadlines, unproven, abandoned, .. } = &self.pending;
        let empty = entries.is_empty();
        assert!(!empty || (by_query.is_empty() && by_peer.is_empty() && deadlines.is_empty()));
        assert!(!empty || (unproven.is_empty() && abandoned.is_empty()));
        empty
    }
}

fn peers<const N: usize>() -> [PeerId; N] {
    std::array::from_fn(|_| PeerId::random())
}

#[test]
fn a_peer_that_is_silent_among_others_that_respond_is_given_up_after_the_timeout() {
    let [silent, other] = peers();
    let mut test = Test::waiting_for(silent, other);
    assert_eq!(test.run_to(99), []);
    assert_eq!(test.run_to(1000), [(silent, 100)]);
    assert_eq!(test.pending.next_deadline(), None, "nothing is pending");
    let stats = test.pending.stats();
    assert_eq!((stats.timed, stats.answered, stats.given_up, stats.pending), (32, 31, 1, 0));
}

#[test]
fn a_silent_peer_is_given_up_in_all_its_queries_at_once() {
    let [silent, other] = peers();
    let mut test = Test::fast();
    test.sent(silent, 1);
    test.pass(60);
    test.sent(silent, 2);
    test.sent(other, 2);
    test.pass(5);
    test.answered(other, 2);
    assert_eq!(test.run_to(1000), [(silent, 100)], "once");
    assert_eq!(test.pending.stats().given_up, 2);
}

#[test]
fn before_the_first_response_the_maximum_timeout_applies() {
    let all: [_; 10] = peers();
    let mut test = Test::new();
    all.iter().for_each(|peer| test.sent(*peer, 1));
    assert_eq!(test.run_to(1999), []);
    let given_up = test.run_to(2000);
    assert_eq!(given_up.len(), 10, "{given_up:?}");
}

#[test]
fn a_network_that_was_slow_from_the_beginning_is_waited_for() {
    let all: [_; 10] = peers();
    let mut test = Test::new();
    for query in 0..5 {
        test.epoch = test.now;
        all.iter().for_each(|peer| test.sent(*peer, query));
        // The responses do not all come at the same time.
        for (place, peer) in all.iter().enumerate() {
            assert_eq!(test.run_to(1500 + 10 * place as u64), [], "query {query}");
            test.answered(*peer, query);
        }
    }
    assert_eq!(test.pending.stats().given_up, 0);
    assert!(test.is_empty());
}

#[test]
fn a_network_that_becomes_slow_loses_few_peers_once_and_none_later() {
    let all: [_; 20] = peers();
    let mut test = Test::fast();
    let mut lost = Vec::new();
    for query in 0..5 {
        test.epoch = test.now;
        all.iter().for_each(|peer| test.sent(*peer, query));
        let given_up = test.run_to(1500);
        all.iter().for_each(|peer| test.answered(*peer, query));
        lost.push(given_up.len());
    }
    assert_eq!(lost, [MAX_IN_A_ROW as usize, 0, 0, 0, 0]);
    let stats = test.pending.stats();
    assert_eq!((stats.given_up, stats.late), (MAX_IN_A_ROW.into(), MAX_IN_A_ROW.into()));
    assert!(test.is_empty());
}

#[test]
fn a_small_network_that_is_gone_for_a_moment_is_not_given_up() {
    let all: [_; 4] = peers();
    for answered_by in 0..4 {
        let mut test = Test::fast();
        test.answered_by = answered_by;
        all.iter().for_each(|peer| test.sent(*peer, 1));
        assert_eq!(test.run_to(400).len(), answered_by as usize, "no more than have answered");
        all.iter().for_each(|peer| test.answered(*peer, 1));
        assert!(test.is_empty());
    }
}

#[test]
fn a_query_without_a_response_gives_no_peer_up_while_other_queries_get_responses() {
    let all: [_; 4] = peers();
    let mut test = Test::fast();
    test.answered_by = 0;
    all.iter().for_each(|peer| test.sent(*peer, 1));
    for query in 2..10 {
        let other = PeerId::random();
        test.sent(other, query);
        test.pass(20);
        test.answered(other, query);
    }
    assert_eq!(test.run_to(1000), []);
    // The first response of the query.
    test.answered(all[0], 1);
    test.answered_by = 1;
    assert_eq!(test.run_to(1999).len(), 3);
}

#[test]
fn a_timeout_that_grows_applies_to_pending_requests() {
    let [first, second] = peers();
    let mut test = Test::new();
    test.sent(first, 1);
    assert_eq!(test.run_to(490), []);
    test.sent(second, 1);
    assert_eq!(test.run_to(800), []);
    test.answered(first, 1);
    assert_eq!(test.run_to(1290), []);
    test.answered(second, 1);
    assert!(test.is_empty());
}

#[test]
fn given_up_requests_do_not_change_the_timeout() {
    let all: [_; 20] = peers();
    let mut test = Test::fast();
    let before = test.pending.stats().timeout;
    all.iter().for_each(|peer| test.sent(*peer, 1));
    assert_eq!(test.run_to(5000).len(), 20);
    assert_eq!(test.pending.stats().timeout, before);
}

#[test]
fn the_last_silent_peers_of_a_query_are_given_up_without_further_responses() {
    let [first, second, third] = peers();
    let mut test = Test::fast();
    // No other peer is asked any more; each is asked when the one before it was given up.
    test.sent(first, 1);
    assert_eq!(test.run_to(100), [(first, 100)]);
    test.sent(second, 1);
    assert_eq!(test.run_to(200), [(second, 200)]);
    test.sent(third, 1);
    assert_eq!(test.run_to(300), [(third, 300)]);
}

#[test]
fn a_query_that_has_ended_gives_no_peer_up() {
    let [one, other] = peers();
    let mut test = Test::fast();
    test.sent(one, 1);
    test.sent(other, 2);
    test.pending.query_ended(1);
    assert_eq!(test.run_to(1000), [(other, 100)]);
    // kad does not report the end of a replication, so that it has to be asked.
    test.sent(one, 3);
    test.pass(100);
    assert_eq!(test.pending.overdue(test.now, 20, |query| (*query != 3).then_some(20)), None);
    assert_eq!(test.pending.next_deadline(), None);
    test.answered(one, 1);
    test.answered(one, 3);
    test.answered(other, 2);
    assert!(test.is_empty());
}

#[test]
fn failures_and_closed_connections_remove_requests() {
    let [one, other] = peers();
    let mut test = Test::fast();
    test.pending.connected(one, test.now);
    test.sent(one, 1);
    test.sent(one, 2);
    test.sent(other, 1);
    test.pending.failed(one, 1);
    test.pending.failed(one, 1);
    test.pending.disconnected(one);
    test.pending.failed(other, 1);
    assert!(test.is_empty());
    assert_eq!(test.pending.stats().failed, 2);
    assert_eq!(test.run_to(5000), []);
}

#[test]
fn a_dial_and_the_requests_after_it_have_timeouts_of_their_own() {
    let [dead, slow, other] = peers();
    let mut test = Test::fast();
    test.pending.dialled(dead, test.now);
    test.pending.dialled(slow, test.now);
    test.pending.dialled(slow, test.now);
    assert_eq!(test.run_to(500), []);
    test.pending.connected(slow, test.now);
    test.sent(other, 1);
    test.pass(5);
    test.answered(other, 1);
    // One of two requests is answered.
    test.answered(slow, 1);
    assert_eq!(test.run_to(599), []);
    assert_eq!(test.run_to(5000), [(slow, 600), (dead, 2000)]);
    let stats = test.pending.stats();
    assert_eq!((stats.dials, stats.dials_given_up, stats.given_up), (2, 1, 1));
    // The dial ends.
    test.pending.dial_failed(dead);
    test.pending.disconnected(slow);
    assert!(test.is_empty());
}

#[test]
fn a_later_request_waits_for_a_dial_that_was_given_up_before() {
    let [peer] = peers();
    let mut test = Test::fast();
    test.pending.dialled(peer, test.now);
    assert_eq!(test.run_to(2000), [(peer, 2000)]);
    test.pending.dialled(peer, test.now);
    assert_eq!(test.run_to(3999), []);
    test.pending.connected(peer, test.now);
    test.answered(peer, 1);
    test.answered(peer, 2);
    assert!(test.is_empty());
}

#[test]
fn slow_dials_raise_the_timeout_of_dials() {
    let mut test = Test::fast();
    for peer in peers::<20>() {
        test.pending.dialled(peer, test.now);
        test.pass(1900);
        test.pending.connected(peer, test.now);
        test.answered(peer, 1);
    }
    assert!(test.pending.stats().dial_timeout > Duration::from_millis(1900));
    let mut test = Test::fast();
    for peer in peers::<40>() {
        test.pending.dialled(peer, test.now);
        test.pass(20);
        test.pending.connected(peer, test.now);
        test.answered(peer, 1);
    }
    assert_eq!(test.pending.stats().dial_timeout, Duration::from_millis(500));
}

/// A request over a new connection may be an announcement, which has no response.
#[test]
fn a_request_of_an_unknown_query_does_not_give_up_a_peer_with_another_request() {
    let [peer] = peers();
    let mut test = Test::fast();
    test.pending.dialled(peer, test.now);
    test.pending.connected(peer, test.now);
    test.pass(60);
    test.sent(peer, 1);
    assert_eq!(test.run_to(155), [], "the request is 95 ms old");
    test.answered(peer, 1);
    assert_eq!(test.run_to(1000), [(peer, 200)], "and this fails no query");
}

#[test]
fn a_loop_that_was_held_up_extends_the_deadline_once() {
    let [silent, other] = peers();
    let mut test = Test::fast();
    test.sent(silent, 1);
    test.sent(other, 1);
    test.pass(400);
    assert_eq!(test.overdue(), [], "the answers may be there");
    test.answered(other, 1);
    test.epoch = test.now;
    assert_eq!(test.run_to(5000).len(), 1);
}

#[test]
fn the_number_of_abandoned_requests_is_bounded() {
    let mut test = Test::fast();
    for query in 0..(MAX_ABANDONED as u32 + 100) {
        test.sent(PeerId::random(), query);
    }
    test.pending.abandon_all();
    let stats = test.pending.stats();
    assert_eq!((stats.pending, stats.abandoned), (0, MAX_ABANDONED));
    assert_eq!(test.pending.entries.len(), MAX_ABANDONED);
}

/// Nothing is left when all connections are closed.
#[test]
fn all_indexes_agree_after_any_sequence_of_events() {
    let all: [_; 6] = peers();
    let mut chance: u64 = 0x9E37_79B9_7F4A_7C15;
    let mut draw = |below: usize| {
        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (chance >> 33) as usize % below
    };
    for _ in 0..300 {
        let mut test = Test::new();
        for _ in 0..200 {
            let (peer, query) = (all[draw(all.len())], draw(5) as u32);
            match draw(12) {
                0..3 => test.sent(peer, query),
                3 | 4 => test.answered(peer, query),
                5 => test.pending.failed(peer, query),
                6 => test.pending.dialled(peer, test.now),
                7 => test.pending.connected(peer, test.now),
                8 => test.pending.dial_failed(peer),
                9 => test.pending.disconnected(peer),
                10 => test.pending.query_ended(query),
                _ => {
                    test.pass(draw(700) as u64);
                    test.overdue();
                    assert!(test.pending.next_deadline().is_none_or(|due| due > test.now));
                }
            }
            let pending = &test.pending;
            let timed = pending.entries.values().filter(|entry| entry.deadline.is_some()).count();
            assert_eq!(timed, pending.deadlines.len());
            assert_eq!(pending.entries.len() - timed, pending.abandoned.len());
            assert!(pending.unproven.iter().all(|serial| pending.entries[serial].deadline.is_some()));
            let named = pending.by_query.values().map(|of_query| of_query.len()).sum::<usize>();
            assert_eq!(pending.entries.len(), named + pending.by_peer.len());
        }
        all.iter().for_each(|peer| test.pending.disconnected(*peer));
        assert!(test.is_empty());
    }
}

#[test]
fn a_peer_is_not_given_up_while_bytes_of_its_response_arrive() {
    let [slow, other] = peers();
    let mut test = Test::fast();
    let timeout = test.pending.stats().timeout;
    test.sent(slow, 1);
    test.sent(other, 1);
    test.pass(5);
    test.answered(other, 1);
    let response = test.responding(slow);
    for second in 1..=14 {
        response.moved();
        assert_eq!(test.run_to(second * 1000), []);
    }
    test.answered(slow, 1);
    assert_eq!(test.pending.stats().timeout, timeout, "a long transfer says nothing about round trips");
    assert!(test.is_empty());
}

#[test]
fn a_peer_whose_response_stops_is_given_up_after_the_maximum_timeout() {
    let [slow, other] = peers();
    let mut test = Test::waiting_for(slow, other);
    let response = test.responding(slow);
    response.moved();
    assert_eq!(test.run_to(5000), [(slow, 2100)], "one look after 100 ms, and the next after two seconds");
}

#[test]
fn bytes_to_one_request_keep_the_peer_in_all_its_queries() {
    let [slow, other] = peers();
    let mut test = Test::fast();
    test.sent(slow, 1);
    let response = test.responding(slow);
    test.pass(5);
    test.sent(slow, 2);
    test.sent(other, 2);
    test.pass(5);
    test.answered(other, 2);
    response.moved();
    assert_eq!(test.run_to(1000), []);
}

#[test]
fn a_response_may_wait_behind_others_for_five_seconds() {
    let [late, slow, other] = peers();
    let mut test = Test::fast();
    for peer in [late, slow, other] {
        test.sent(peer, 1);
    }
    test.pass(5);
    test.answered(other, 1);
    let response = test.responding(slow);
    response.moved();
    let mut given_up = Vec::new();
    for piece in 1..=20 {
        response.moved();
        given_up.extend(test.run_to(piece * 300));
    }
    assert_eq!(given_up, [(late, 5000)]);
}

#[test]
fn a_query_without_any_response_waits_while_other_responses_arrive() {
    let [late, slow] = peers();
    let mut test = Test::fast();
    test.answered_by = 0;
    test.sent(late, 1);
    let response = test.responding(slow);
    response.moved();
    let mut given_up = Vec::new();
    for tenth in 1..=350 {
        response.moved();
        given_up.extend(test.run_to(tenth * 100));
    }
    assert!(matches!(given_up.as_slice(), [(peer, 30_000..=32_000)] if *peer == late), "{given_up:?}");
}

#[test]
fn values_that_are_sent_have_a_timeout_of_their_own() {
    let [silent, other] = peers();
    let mut test = Test::fast();
    test.pending.uploaded(silent, 1, test.now);
    test.pending.uploaded(other, 1, test.now);
    let small = test.pending.stats().timeout;
    test.pass(3000);
    test.answered(other, 1);
    assert_eq!(test.pending.stats().timeout, small, "a value that is sent says nothing about small requests");
    let given_up = test.run_to(20_000);
    assert!(matches!(given_up.as_slice(), [(peer, 4000..=10_000)] if *peer == silent), "{given_up:?}");
}

#[test]
fn arriving_responses_are_those_of_the_query_and_of_dials() {
    let [slow, dialled, silent] = peers();
    let mut test = Test::fast();
    test.sent(slow, 1);
    test.sent(silent, 1);
    test.pending.dialled(dialled, test.now);
    test.pending.connected(dialled, test.now);
    let responses = [slow, dialled, silent].map(|peer| test.responding(peer));
    assert!(test.pending.arriving(&1).is_empty());
    responses[0].moved();
    responses[1].moved();
    test.pending.query_ended(1);
    let arriving: Vec<_> = test.pending.arriving(&1).into_iter().map(|late| late.peer).collect();
    assert_eq!(arriving, [slow, dialled]);
    let mut seen = Moment::default();
    assert!(test.pending.has_moved(&1, &mut seen) && !test.pending.has_moved(&1, &mut seen));
}

#[test]
fn small_requests_have_the_time_of_the_values_that_are_sent_before_them() {
    let [silent, other] = peers();
    let mut test = Test::fast();
    test.pending.set_uplink_busy(true);
    test.sent(silent, 1);
    test.sent(other, 1);
    test.pass(5);
    test.answered(other, 1);
    assert_eq!(test.run_to(20_000), [(silent, 4000)]);
}

#[test]
fn a_peer_that_sends_byte_by_byte_is_given_up_in_the_end() {
    let [slow, other] = peers();
    let mut test = Test::waiting_for(slow, other);
    let response = test.responding(slow);
    let mut given_up = Vec::new();
    for second in 1..=30 {
        response.moved();
        given_up.extend(test.run_to(second * 1000));
    }
    assert!(matches!(given_up.as_slice(), [(peer, 15_000..=17_000)] if *peer == slow), "{given_up:?}");
}

#[test]
fn further_requests_wait_long_for_own_responses_and_shortly_for_others() {
    let [asked, other] = peers();
    let mut test = Test::fast();
    test.sent(asked, 1);
    test.sent(other, 2);
    let begin = test.now;
    let waits = |test: &Test, query, second| {
        let mut seen = Moment::default();
        test.pending.holds_back(&query, &mut seen, begin, begin + Duration::from_secs(second))
    };
    assert!(!waits(&test, 1, 0));
    let response = test.responding(other);
    response.moved();
    assert!(waits(&test, 1, 4) && !waits(&test, 1, 5), "behind another response");
    assert!(waits(&test, 2, 14) && !waits(&test, 2, 15), "its own response");
}
