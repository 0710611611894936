//! Thorough lookups of the closest peers: a second query for the farthest peer that the first one found.

use kadence_core::{
    ClosestPeersAnswer, GetClosestPeersError, Outcome, Priority, Progress, Query, Quorum, RequestOptions, RequestPhase,
    Retry,
};
use libp2p::{
    Multiaddr, PeerId,
    kad::{GetClosestPeersOk, KBucketKey, PeerInfo, QueryResult},
};

use crate::support::*;

/// Returns the peers in the order of kad: the closest to the key `k` first.
fn sorted(numbers: impl IntoIterator<Item = u8>) -> Vec<u8> {
    let target = KBucketKey::new(key("k"));
    let mut numbers: Vec<u8> = numbers.into_iter().collect();
    numbers.sort_by_cached_key(|n| KBucketKey::from(peer(*n)).distance(&target));
    numbers
}

/// A thorough lookup of `k` whose first query has found these peers, the last one the farthest, and the id of its
/// second query.
fn beside(close: &[u8]) -> (Harness, u32) {
    let mut h = Harness::default();
    h.request(1, closest_thorough("k"));
    let lookup = h.start();
    h.ev(lookup, closest_found(close.iter().copied()), true);
    assert_eq!(h.starts[0].query, target_of(*close.last().unwrap()));
    let further = h.start();
    (h, further)
}

fn target_of(n: u8) -> Query {
    Query::GetClosestPeers { target: peer(n).to_bytes().into() }
}

fn answer(h: &Harness, id: u64) -> &ClosestPeersAnswer {
    match h.outcome(id) {
        Outcome::GetClosestPeers(Ok(answer)) => answer,
        other => panic!("{other:?}"),
    }
}

fn found_by(h: &Harness, id: u64) -> Vec<PeerId> {
    answer(h, id).peers.iter().map(|info| info.peer_id).collect()
}

fn timeout(h: &Harness) -> (Vec<PeerId>, Progress) {
    match h.outcome(1) {
        Outcome::GetClosestPeers(Err(GetClosestPeersError::Timeout { peers, progress })) => {
            (peers.iter().map(|info| info.peer_id).collect(), *progress)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_thorough_lookup_answers_with_the_closest_of_both_lookups() {
    let all = sorted(0..8);
    // The first query finds every other one, the second finds the others and one of the first again, in no order.
    let first: Vec<_> = all.iter().copied().step_by(2).collect();
    let (mut h, further) = beside(&first);
    assert!(!h.ended(1));
    h.ev(further, closest_found([all[7], all[2], all[1], all[5], all[3]]), true);
    assert_eq!(found_by(&h, 1), peers(all));
    assert_eq!(answer(&h, 1).progress, some_progress().merge(some_progress()));
    assert_eq!((h.finishes.len(), h.tracker.stats().mismatched_events), (0, 0));
    h.assert_empty();
}

#[test]
fn an_ordinary_lookup_is_a_single_query() {
    let mut h = Harness::default();
    h.request(1, closest("k"));
    let lookup = h.start();
    h.ev(lookup, closest_found([3, 2, 1]), true);
    assert_eq!(found_by(&h, 1), peers([3, 2, 1]));
    h.assert_empty();
}

#[test]
fn an_answer_has_at_most_twenty_peers() {
    let all = sorted(0..30);
    // The second query finds ten that are closer than all of the first.
    let (mut h, further) = beside(&all[10..]);
    h.ev(further, closest_found(all[..10].iter().copied()), true);
    assert_eq!(found_by(&h, 1), peers(all[..20].iter().copied()));
}

/// Other peers may name the local one; a lookup that finds only it has found none.
#[test]
fn the_local_peer_is_never_part_of_an_answer() {
    let own = 255;
    let mut h = Harness::default();
    h.request(1, closest_thorough("k"));
    let lookup = h.start();
    h.ev(lookup, closest_found([1, own]), true);
    assert_eq!(h.starts[0].query, target_of(1), "nobody looks for himself");
    let further = h.start();
    h.ev(further, closest_found([own, 1]), true);
    assert_eq!(found_by(&h, 1), peers([1]));

    for operation in [closest("k"), closest_thorough("k")] {
        let mut h = Harness::default();
        h.request(1, operation);
        let lookup = h.start();
        h.ev(lookup, closest_found([own]), true);
        assert_eq!(h.ending(1), "NoResponse");
        h.assert_empty();
    }
}

/// A peer that both queries find keeps the addresses of the first.
#[test]
fn each_peer_is_named_once_with_its_addresses() {
    let address = |port: u16| Multiaddr::from(libp2p::multiaddr::Protocol::Memory(port.into()));
    let at = |n: u8, port: u16| PeerInfo { peer_id: peer(n), addrs: vec![address(port)] };
    let result = |peers| QueryResult::GetClosestPeers(Ok(GetClosestPeersOk { key: Vec::new(), peers }));
    let [near, far] = sorted([1, 2])[..] else { panic!() };
    let mut h = Harness::default();
    h.request(1, closest_thorough("k"));
    let lookup = h.start();
    h.ev(lookup, result(vec![at(near, 1)]), true);
    let further = h.start();
    h.ev(further, result(vec![at(far, 2), at(near, 3), at(far, 4)]), true);
    assert_eq!(*answer(&h, 1).peers, [at(near, 1), at(far, 2)]);
}

#[test]
fn a_first_lookup_that_finds_no_peer_has_no_second() {
    for (result, progress, ending) in [
        (closest_found([]), all_failed(), "NoResponse"),
        (closest_found([]), nobody(), "NoKnownPeers"),
        (closest_timeout([]), all_failed(), "Timeout"),
    ] {
        let mut h = Harness::default();
        h.request(1, closest_thorough("k"));
        let lookup = h.start();
        h.ev_with(lookup, result, progress, true);
        assert_eq!(h.ending(1), ending);
        assert!(h.starts.is_empty());
        h.assert_empty();
    }
}

/// After kad's timeout of a minute there is no time for another query.
#[test]
fn a_first_lookup_that_kad_timed_out_has_no_second() {
    let mut h = Harness::default();
    h.request(1, closest_thorough("k"));
    let lookup = h.start();
    h.ev(lookup, closest_timeout([1, 2]), true);
    assert_eq!(timeout(&h), (peers([1, 2]), some_progress()));
    h.assert_empty();
}

#[test]
fn the_first_lookup_is_an_answer_even_if_the_second_fails() {
    let [near, far, farther] = sorted([1, 2, 3])[..] else { panic!() };
    for (result, progress, all) in [
        (closest_found([]), nobody(), vec![near, farther]),
        (closest_found([]), all_failed(), vec![near, farther]),
        (closest_timeout([]), all_failed(), vec![near, farther]),
        (closest_timeout([far]), some_progress(), vec![near, far, farther]),
    ] {
        let (mut h, further) = beside(&[near, farther]);
        h.ev_with(further, result, progress, true);
        assert_eq!(found_by(&h, 1), peers(all));
        assert_eq!(answer(&h, 1).progress, some_progress().merge(progress));
        h.assert_empty();
    }
}

#[test]
fn a_second_lookup_that_does_not_start_leaves_the_answer_of_the_first() {
    let mut h = Harness::default();
    let retry = Some(Retry::default());
    h.request_with(1, closest_thorough("k"), RequestOptions::default().retry(retry));
    let lookup = h.start();
    h.ev(lookup, closest_found([1]), true);
    h.refuse(store_error());
    assert_eq!((found_by(&h, 1), answer(&h, 1).progress), (peers([1]), some_progress()));
    h.assert_empty();
}

#[test]
fn a_deadline_in_each_step_names_the_peers_found() {
    let asked = |within: u64| {
        let mut h = Harness::one_slot();
        h.request_within(1, closest_thorough("k"), secs(within));
        let lookup = h.start();
        (h, lookup)
    };
    // During the first query.
    let (mut h, _) = asked(5);
    h.tick(secs(5));
    assert_eq!(timeout(&h), (Vec::new(), nobody()));

    // During the second.
    let (mut h, lookup) = asked(5);
    h.ev(lookup, closest_found([1, 2]), true);
    let further = h.start();
    h.tick(secs(5));
    assert_eq!(timeout(&h), (peers([1, 2]), some_progress()));
    assert_eq!(h.finishes, [further]);
    h.ev(further, closest_found([3]), true);
    h.assert_empty();

    // While the second waits for a slot that another request has taken.
    let mut h = Harness::one_slot();
    h.request_of(2, put("other", Quorum::One), Priority::Interactive);
    h.request_within(1, closest_thorough("k"), secs(5));
    h.request(3, closest("k"));
    let other = h.start();
    h.ev(other, closest_found([9]), true);
    let store = h.start();
    h.ev(store, put_ok(), true);
    let lookup = h.start();
    h.request_of(4, put("k", Quorum::One), Priority::Interactive);
    h.ev(lookup, closest_found([1, 2]), true);
    assert_eq!(h.starts[0].request.0, 4, "a further step of a higher class");
    let snapshot = h.tracker.snapshot(h.instant(secs(1)));
    assert_eq!((snapshot.requests[0].id.0, snapshot.requests[0].phase), (1, RequestPhase::BetweenSteps));
    h.tick(secs(5));
    assert_eq!(timeout(&h), (peers([1, 2]), some_progress()));
    assert_eq!(found_by(&h, 3), peers([1, 2]));
}

#[test]
fn it_can_be_cancelled_in_each_step() {
    let mut h = Harness::default();
    h.request(1, closest_thorough("k"));
    let lookup = h.start();
    h.cancel(1);
    assert_eq!((h.ending(1).as_str(), &h.finishes[..]), ("Cancelled", &[lookup][..]));
    h.ev(lookup, closest_found([1]), true);
    assert!(h.starts.is_empty());
    h.assert_empty();

    let (mut h, further) = beside(&[1, 2]);
    h.cancel(1);
    assert_eq!((h.ending(1).as_str(), &h.finishes[..]), ("Cancelled", &[further][..]));
    h.ev(further, closest_found([3]), true);
    h.assert_empty();
}

#[test]
fn the_second_lookup_goes_ahead_of_new_requests() {
    let mut h = Harness::one_slot();
    h.request_of(1, closest_thorough("k"), Priority::Background);
    let lookup = h.start();
    h.request_of(2, get_record("a", kadence_core::Policy::All), Priority::Interactive);
    h.ev(lookup, closest_found([1]), true);
    assert_eq!((h.starts[0].request.0, h.starts.len()), (1, 1));
    let further = h.start();
    h.ev(further, closest_found([1]), true);
    assert_eq!(h.starts[0].request.0, 2);
}

#[test]
fn a_retry_begins_with_the_first_lookup() {
    let mut h = Harness::default();
    let retry = Some(Retry::default().jitter_percent(0));
    h.request_with(1, closest_thorough("k"), RequestOptions::default().retry(retry));
    let lookup = h.start();
    h.ev_with(lookup, closest_found([]), all_failed(), true);
    h.tick(secs(1));
    assert_eq!(h.starts[0].query, Query::GetClosestPeers { target: key("k") });
    let lookup = h.start();
    h.ev(lookup, closest_found([1]), true);
    assert_eq!(h.starts[0].query, target_of(1));
    // Its deadline covers all attempts.
    h.start();
    h.tick(secs(30));
    assert_eq!(timeout(&h), (peers([1]), some_progress().merge(all_failed())));
}

#[test]
fn the_first_lookup_is_shared_and_ordinary_requests_do_not_wait_for_the_second() {
    let mut h = Harness::default();
    h.request(1, closest_thorough("k"));
    h.request(2, closest("k"));
    h.request(3, closest_thorough("k"));
    assert_eq!(h.starts.len(), 1);
    let lookup = h.start();
    h.ev(lookup, closest_found([1, 2]), true);
    assert_eq!(found_by(&h, 2), peers([1, 2]));
    assert!(!h.ended(1) && !h.ended(3));
    assert_eq!(h.starts.len(), 1, "the second lookup is shared as well");
    // A request from now on starts a query of its own.
    h.request(4, closest("k"));
    assert_eq!(h.starts[1].query, Query::GetClosestPeers { target: key("k") });
    let further = h.start();
    h.ev(further, closest_found([3]), true);
    assert_eq!(found_by(&h, 1), peers(sorted([1, 2, 3])));
    assert_eq!(found_by(&h, 3), found_by(&h, 1));
    let lookup = h.start();
    h.ev(lookup, closest_found([1]), true);
    h.assert_empty();
}

/// It may join a query that an ordinary request for that peer has started.
#[test]
fn the_second_lookup_may_join_a_running_query() {
    let mut h = Harness::default();
    h.request(2, kadence_core::Operation::GetClosestPeers { target: peer(2).to_bytes().into(), thorough: false });
    let running = h.start();
    h.request(1, closest_thorough("k"));
    let lookup = h.start();
    h.ev(lookup, closest_found([1, 2]), true);
    assert!(h.starts.is_empty());
    h.ev(running, closest_found([2, 3]), true);
    assert_eq!(found_by(&h, 1), peers(sorted([1, 2, 3])));
    assert_eq!(found_by(&h, 2), peers([2, 3]));
    h.assert_empty();
}

#[test]
fn time_alone_ends_both_steps() {
    let (mut h, _) = beside(&[1]);
    h.let_time_pass();
    assert_eq!(timeout(&h).0, peers([1]));
    h.assert_empty();
}
