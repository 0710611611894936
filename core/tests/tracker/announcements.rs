//! Provider announcements: kad writes the local entry before any peer is reached, so a failure removes the entry that
//! it added, and no other. A node that was alone keeps it.

use kadence_core::QueryStartError;

use crate::support::*;

/// Two running announcements of `k`: the second one finds the entry of the first.
fn two() -> (Harness, u32, u32) {
    let mut h = Harness::default();
    h.request(1, provide("k"));
    let first = h.start();
    h.request(2, provide("k"));
    let second = h.start_with(true);
    (h, first, second)
}

#[test]
fn the_entry_of_a_successful_announcement_stays() {
    let mut h = Harness::default();
    h.request(1, provide("k"));
    let id = h.start();
    h.ev(id, provide_ok(), true);
    assert_eq!(h.ending(1), "Ok");
    assert!(h.stopped.is_empty());
    h.assert_empty();
}

/// Makes the announcement whose query this is fail.
type Failure = fn(&mut Harness, u32);

/// Every way to fail after kad has written the entry: (how it fails, the error).
const FAILURES: [(Failure, &str); 4] = [
    (|h, id| h.ev(id, provide_timeout(), true), "Timeout"),
    (|h, _| h.tick(secs(30)), "Timeout"),
    (|h, _| h.cancel(1), "Cancelled"),
    (|h, _| h.shut_down(false), "Shutdown"),
];

#[test]
fn the_entry_of_a_failed_announcement_is_removed() {
    for (fail, ending) in FAILURES {
        let mut h = Harness::default();
        h.request(1, provide("k"));
        let id = h.start();
        fail(&mut h, id);
        assert_eq!(h.ending(1), ending);
        assert_eq!(h.stopped, [key("k")], "{ending}");
        h.let_time_pass();
        assert_eq!(h.stopped.len(), 1, "{ending}: once");
        h.assert_empty();
    }
}

#[test]
fn the_entry_of_an_announcement_that_reached_nobody_stays() {
    for (progress, ending) in [(all_failed(), "NoResponse"), (nobody(), "NoKnownPeers")] {
        let mut h = Harness::default();
        h.request(1, provide("k"));
        let id = h.start();
        h.ev_with(id, provide_ok(), progress, true);
        assert_eq!(h.ending(1), ending);
        h.let_time_pass();
        assert!(h.stopped.is_empty(), "{ending}");
        h.assert_empty();
    }
}

#[test]
fn an_entry_that_existed_before_is_not_removed() {
    for (fail, ending) in FAILURES {
        let mut h = Harness::default();
        h.request(1, provide("k"));
        let id = h.start_with(true);
        fail(&mut h, id);
        assert_eq!(h.ending(1), ending);
        h.let_time_pass();
        assert!(h.stopped.is_empty(), "{ending}");
    }
}

/// The state of an announcement is forgotten when it ends.
#[test]
fn the_next_announcement_of_the_key_is_independent() {
    let mut h = Harness::default();
    for (request, had_provider, stopped) in [(1, true, 0), (2, false, 1), (3, true, 1), (4, false, 2)] {
        h.request(request, provide("k"));
        let id = h.start_with(had_provider);
        h.ev(id, provide_timeout(), true);
        assert_eq!(h.stopped.len(), stopped, "#{request}");
    }
}

#[test]
fn nothing_is_removed_if_nothing_was_added() {
    let mut h = Harness::one_slot();
    h.request(1, provide("refused"));
    h.refuse(store_error());
    h.get(2, "busy");
    h.request(3, provide("queued"));
    h.cancel(3);
    h.cancel(2);
    h.start();
    h.request_within(4, provide("expired"), secs(1));
    h.tick(secs(1));
    assert_eq!(h.ending(4), "ExpiredInQueue");
    h.let_time_pass();
    assert!(h.stopped.is_empty(), "{:?}", h.stopped);
}

#[test]
fn the_entry_stays_while_another_announcement_of_the_key_is_alive() {
    // The other one fails too: the entry is removed with the last.
    let (mut h, _, second) = two();
    h.cancel(1);
    assert!(h.stopped.is_empty());
    h.ev(second, provide_timeout(), true);
    assert_eq!(h.stopped, [key("k")]);

    // In the other order too.
    let (mut h, first, _) = two();
    h.cancel(2);
    assert!(h.stopped.is_empty());
    h.ev(first, provide_timeout(), true);
    assert_eq!(h.stopped, [key("k")]);

    // The other one succeeds: the entry stays.
    let (mut h, _, second) = two();
    h.cancel(1);
    h.ev(second, provide_ok(), true);
    assert!(h.stopped.is_empty());
}

#[test]
fn the_entry_stays_after_another_announcement_of_the_key_succeeded() {
    let (mut h, first, second) = two();
    h.ev(first, provide_ok(), true);
    h.ev(second, provide_timeout(), true);
    assert!(h.stopped.is_empty());
    h.assert_empty();

    let (mut h, first, second) = two();
    h.ev(second, provide_ok(), true);
    h.ev(first, provide_timeout(), true);
    assert!(h.stopped.is_empty());
    h.assert_empty();
}

#[test]
fn announcements_of_different_keys_are_independent() {
    let mut h = Harness::default();
    h.request(1, provide("a"));
    h.request(2, provide("b"));
    h.start_all();
    h.cancel(1);
    assert_eq!(h.stopped, [key("a")]);
    let b = h.id_of(2);
    h.ev(b, provide_ok(), true);
    assert_eq!(h.stopped, [key("a")]);
}

/// kad writes the entry at the start, even if the request has been cancelled.
#[test]
fn an_announcement_cancelled_while_starting_removes_its_entry_once_it_exists() {
    for (had_provider, stopped) in [(false, 1), (true, 0)] {
        let mut h = Harness::default();
        h.request(1, provide("k"));
        h.cancel(1);
        assert!(h.stopped.is_empty());
        h.start_with(had_provider);
        assert_eq!(h.stopped.len(), stopped);
        h.let_time_pass();
        assert_eq!(h.stopped.len(), stopped);
        h.assert_empty();
    }
    let mut h = Harness::default();
    h.request(1, provide("k"));
    h.cancel(1);
    h.refuse(store_error());
    assert!(h.stopped.is_empty());
    h.assert_empty();
}

#[test]
fn an_announcement_cancelled_while_starting_leaves_the_entry_to_another() {
    let mut h = Harness::default();
    h.request(1, provide("k"));
    let first = h.start();
    h.request(2, provide("k"));
    h.cancel(2);
    h.start_with(true);
    assert!(h.stopped.is_empty());
    h.ev(first, provide_ok(), true);
    assert!(h.stopped.is_empty());
}

/// Actions are carried out in order. A `Start` that has been polled but not answered may precede the `StopProviding` of
/// another announcement and find that one's entry, which must then stay.
#[test]
fn an_announcement_that_is_being_started_keeps_the_entry() {
    let mut h = Harness::slots(3);
    // Two slots come back at 30 s; at the same time the deadline of #1 is near.
    h.request_within(1, provide("k"), secs(31));
    h.get(2, "lost");
    h.get(3, "lost");
    h.start_all();
    h.cancel(2);
    h.cancel(3);
    h.request_within(4, closest("other"), secs(60));
    h.request_within(5, provide("k"), secs(60));
    h.tick(secs(30));
    assert_eq!(h.starts.iter().map(|start| start.request.0).collect::<Vec<_>>(), [4, 5]);
    // Answering the first of the two starts takes until the deadline of #1.
    h.now = secs(31);
    h.start();
    assert_eq!(h.ending(1), "Timeout");
    // The second start is carried out before the actions of #1's end: the entry of #1 still exists.
    let id = h.start_with(true);
    h.ev(id, provide_ok(), true);
    assert_eq!(h.ending(5), "Ok");
    assert!(h.stopped.is_empty(), "the entry of an announcement that was heard was taken back");
}

/// The same, but kad does not start the second one: no announcement needs the entry any more.
#[test]
fn an_announcement_that_does_not_start_does_not_keep_the_entry() {
    let mut h = Harness::default();
    h.request(1, provide("k"));
    h.start();
    h.request(2, provide("k"));
    h.cancel(1);
    h.refuse(QueryStartError::NoKnownPeers);
    assert_eq!(h.stopped, [key("k")]);
    h.let_time_pass();
    assert_eq!(h.stopped.len(), 1);
    h.assert_empty();
}
