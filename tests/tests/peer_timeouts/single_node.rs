use std::{collections::BTreeSet, num::NonZeroUsize};

use libp2p::{
    PeerId,
    kad::{Event, GetRecordOk, NodeStatus, PutRecordError, QueryResult, Quorum, Record, RecordKey},
    swarm::{DialError, dial_opts::PeerCondition},
};

use crate::manual_swarm::{ManualSwarm, ms};

fn set(peers: impl IntoIterator<Item = PeerId>) -> BTreeSet<PeerId> {
    peers.into_iter().collect()
}

#[test]
fn a_lookup_continues_without_a_silent_peer_and_keeps_it_in_the_routing_table() {
    let (mut swarm, [silent, other]) = ManualSwarm::fast();
    let entry = swarm.entry(silent);
    assert!(matches!(&entry, Some((NodeStatus::Connected, addresses)) if !addresses.is_empty()), "{entry:?}");
    let query = swarm.kad.kad_mut().get_closest_peers(PeerId::random());
    swarm.poll_until_idle();
    assert_eq!(set(swarm.asked(query)), set([silent, other]));
    swarm.advance(ms(5));
    swarm.answer(other, query);
    assert!(swarm.end_of(query).is_none());
    assert_eq!(swarm.stats().pending, 1);

    swarm.advance(ms(90));
    assert!(swarm.end_of(query).is_none(), "95 ms are within the timeout");
    let before = swarm.wakes.count();
    swarm.advance(ms(5));
    assert!(swarm.wakes.count() > before, "only a timer can wake the task");
    let (result, counts) = swarm.end_of(query).expect("kad is polled again after a timeout was reported");
    let QueryResult::GetClosestPeers(Ok(found)) = result else { panic!("{result:?}") };
    assert_eq!(found.peers.iter().map(|peer| peer.peer_id).collect::<Vec<_>>(), [other]);
    assert_eq!(counts, [2, 1, 1]);
    assert_eq!(swarm.entry(silent), entry);
    assert_eq!((swarm.stats().given_up, swarm.stats().pending), (1, 0));

    // A late answer does no harm, and shows how slow the peer is.
    let timeout = swarm.stats().timeout;
    swarm.advance(ms(400));
    swarm.answer(silent, query);
    assert_eq!((swarm.stats().late, swarm.stats().abandoned), (1, 0));
    assert!(swarm.stats().timeout > timeout);
    assert_eq!(swarm.entry(silent), entry);

    // The next query asks the peer again.
    let query = swarm.kad.kad_mut().get_closest_peers(PeerId::random());
    swarm.poll_until_idle();
    assert_eq!(set(swarm.asked(query)), set([silent, other]));
    swarm.answer(silent, query);
    swarm.answer(other, query);
    assert_eq!(swarm.end_of(query).unwrap().1, [2, 2, 0]);
}

#[test]
fn a_record_that_comes_late_is_still_delivered_while_its_query_runs() {
    let (mut swarm, [late, other]) = ManualSwarm::fast();
    let key = RecordKey::new(b"file");
    let query = swarm.kad.kad_mut().get_record(key.clone());
    swarm.poll_until_idle();
    swarm.advance(ms(5));
    // A peer that has to be dialled first, which keeps the query running.
    let further = PeerId::random();
    swarm.answer_naming(other, query, further);
    assert_eq!(swarm.dials, [further]);
    swarm.advance(ms(95));
    assert_eq!(swarm.stats().given_up, 1);
    assert!(swarm.end_of(query).is_none());
    swarm.answer_with(late, query, Record::new(key, b"late".to_vec()));
    let found = swarm.events.iter().any(|event| match event {
        Event::OutboundQueryProgressed {
            id,
            result: QueryResult::GetRecord(Ok(GetRecordOk::FoundRecord(record))),
            ..
        } => *id == query && record.peer == Some(late),
        _ => false,
    });
    assert!(found, "{:?}", swarm.events);
}

#[test]
fn a_put_continues_without_a_silent_peer_and_names_the_others() {
    let (mut swarm, [silent, other]) = ManualSwarm::fast();
    let record = Record::new(b"file".to_vec(), b"value".to_vec());
    let query = swarm.kad.kad_mut().put_record_to(record.clone(), [silent, other].into_iter(), Quorum::All);
    swarm.poll_until_idle();
    assert_eq!(set(swarm.asked(query)), set([silent, other]));
    swarm.advance(ms(5));
    swarm.acknowledge(other, query, &record);
    swarm.advance(ms(95));
    let (result, counts) = swarm.end_of(query).unwrap();
    let QueryResult::PutRecord(Err(PutRecordError::QuorumFailed { success, quorum, .. })) = result else {
        panic!("{result:?}")
    };
    assert_eq!((success.as_slice(), *quorum), ([other].as_slice(), NonZeroUsize::new(2).unwrap()));
    assert_eq!(counts, [2, 1, 1]);
    swarm.acknowledge(silent, query, &record);
    assert_eq!((swarm.stats().late, swarm.stats().pending), (1, 0));
}

#[test]
fn announcements_are_not_timed() {
    let (mut swarm, [peer]) = ManualSwarm::fast();
    let stats = swarm.stats();
    let query = swarm.kad.kad_mut().start_providing(RecordKey::new(b"file")).unwrap();
    swarm.poll_until_idle();
    swarm.answer(peer, query);
    assert_eq!(swarm.announcements, [peer]);
    assert!(swarm.end_of(query).is_some());
    // Only the lookup is timed.
    assert_eq!((swarm.stats().timed, swarm.stats().pending), (stats.timed + 1, 0));
    swarm.advance(ms(60_000));
    assert_eq!(swarm.stats().given_up, 0);
}

#[test]
fn a_dial_that_never_ends_delays_a_query_by_the_dial_timeout() {
    let (mut swarm, [other]) = ManualSwarm::fast();
    let dead = swarm.add_known_peer();
    let query = swarm.kad.kad_mut().get_closest_peers(PeerId::random());
    swarm.poll_until_idle();
    assert_eq!((swarm.dials.as_slice(), swarm.asked(query)), ([dead].as_slice(), vec![other]));
    swarm.advance(ms(5));
    swarm.answer(other, query);
    swarm.advance(ms(1990));
    assert!(swarm.end_of(query).is_none());
    swarm.advance(ms(5));
    assert_eq!(swarm.end_of(query).unwrap().1, [2, 1, 1]);
    assert_eq!((swarm.stats().dials_given_up, swarm.stats().abandoned), (1, 1));
    assert!(swarm.kad.kad_mut().kbucket(dead).unwrap().iter().any(|entry| *entry.node.key.preimage() == dead));
    // The dial ends at last.
    swarm.dial_fails(dead, &DialError::NoAddresses);
    assert_eq!(swarm.stats().abandoned, 0);
}

#[test]
fn a_request_that_waited_for_a_dial_is_timed_from_the_connection() {
    let (mut swarm, [other]) = ManualSwarm::fast();
    let far = swarm.add_known_peer();
    let query = swarm.kad.kad_mut().get_closest_peers(PeerId::random());
    swarm.poll_until_idle();
    swarm.advance(ms(5));
    swarm.answer(other, query);
    swarm.advance(ms(300));
    // A second dial that the swarm denies is not a failure.
    swarm.dial_fails(far, &DialError::DialPeerConditionFalse(PeerCondition::DisconnectedAndNotDialing));
    swarm.connect(far);
    swarm.advance(ms(95));
    assert!(swarm.end_of(query).is_none());
    swarm.advance(ms(5));
    assert_eq!(swarm.end_of(query).unwrap().1, [2, 1, 1]);
    assert_eq!(swarm.stats().given_up, 1);

    // A peer that answers in time is not given up.
    let (mut swarm, []) = ManualSwarm::fast();
    let far = swarm.add_known_peer();
    let query = swarm.kad.kad_mut().get_closest_peers(PeerId::random());
    swarm.poll_until_idle();
    swarm.advance(ms(300));
    swarm.connect(far);
    swarm.advance(ms(95));
    swarm.answer(far, query);
    assert_eq!(swarm.end_of(query).unwrap().1, [1, 1, 0]);
    assert_eq!((swarm.stats().given_up, swarm.stats().pending, swarm.stats().abandoned), (0, 0, 0));
}

/// kad is not told that a request was lost with its connection if the peer has another connection.
#[test]
fn a_request_lost_with_one_of_two_connections_is_given_up() {
    let (mut swarm, [other]) = ManualSwarm::fast();
    let peer = swarm.add_known_peer();
    let (first, second) = (swarm.connect(peer), swarm.connect(peer));
    let query = swarm.kad.kad_mut().get_closest_peers(PeerId::random());
    swarm.poll_until_idle();
    swarm.advance(ms(5));
    swarm.answer(other, query);
    swarm.disconnect(first);
    assert!(swarm.end_of(query).is_none());
    swarm.advance(ms(95));
    assert_eq!(swarm.end_of(query).unwrap().1, [2, 1, 1]);
    swarm.disconnect(second);
    assert_eq!((swarm.stats().pending, swarm.stats().abandoned), (0, 0), "no state of the peer is left");
}

#[test]
fn a_silent_peer_is_given_up_in_all_queries_at_once() {
    let (mut swarm, [_, other]) = ManualSwarm::fast();
    let first = swarm.kad.kad_mut().get_closest_peers(PeerId::random());
    swarm.poll_until_idle();
    swarm.advance(ms(5));
    swarm.answer(other, first);
    swarm.advance(ms(45));
    let second = swarm.kad.kad_mut().get_closest_peers(PeerId::random());
    swarm.poll_until_idle();
    swarm.answer(other, second);
    swarm.advance(ms(50));
    assert!(swarm.end_of(first).is_some() && swarm.end_of(second).is_some());
    assert_eq!(swarm.stats().given_up, 2);
}

#[test]
fn a_query_that_is_finished_early_has_no_pending_requests() {
    let (mut swarm, [_]) = ManualSwarm::fast();
    let query = swarm.kad.kad_mut().get_closest_peers(PeerId::random());
    swarm.poll_until_idle();
    assert_eq!(swarm.stats().pending, 1);
    swarm.kad.kad_mut().query_mut(&query).unwrap().finish();
    swarm.poll_until_idle();
    assert!(swarm.end_of(query).is_some());
    assert_eq!(swarm.stats().pending, 0);
}

#[test]
fn a_lookup_asks_three_peers_and_two_further_ones_at_each_answer() {
    let (mut swarm, peers) = ManualSwarm::fast_asking::<10>(8);
    let query = swarm.kad.kad_mut().get_closest_peers(PeerId::random());
    swarm.poll_until_idle();
    assert_eq!(swarm.asked(query).len(), 3);
    swarm.advance(ms(5));
    let answered = swarm.asked(query)[1];
    swarm.answer(answered, query);
    // Two further requests, and one in place of the answered one.
    assert_eq!(swarm.asked(query).len(), 6);
    for n in 0..10 {
        let next = swarm.asked(query)[n];
        if next != answered {
            swarm.answer(next, query);
        }
    }
    assert_eq!(set(swarm.asked(query)), set(peers));
    assert_eq!((swarm.end_of(query).unwrap().1, swarm.stats().never_sent), ([10, 10, 0], 0));
}

#[test]
fn a_lookup_whose_first_peers_are_silent_asks_others_before_the_timeout() {
    let (mut swarm, _) = ManualSwarm::fast_asking::<10>(8);
    let query = swarm.kad.kad_mut().get_closest_peers(PeerId::random());
    swarm.poll_until_idle();
    let first = swarm.asked(query);
    swarm.advance(ms(10));
    assert_eq!(swarm.asked(query), first);
    // The delay is more than the latest answers took, because not all measured answers were that quick.
    swarm.advance(ms(70));
    assert_eq!(swarm.asked(query).len(), 8);
    // The first peers are given up at their timeout. The others are timed from the moment their requests were sent.
    swarm.answer(swarm.asked(query)[3], query);
    swarm.advance(ms(20));
    assert_eq!(swarm.stats().given_up, 3);
    assert_eq!(swarm.asked(query).len(), 10);
}

#[test]
fn a_finished_read_sends_no_held_requests() {
    let (mut swarm, _) = ManualSwarm::fast_asking::<10>(8);
    let query = swarm.kad.kad_mut().get_record(RecordKey::new(b"key"));
    swarm.poll_until_idle();
    swarm.kad.kad_mut().query_mut(&query).unwrap().finish();
    swarm.poll_until_idle();
    assert!(swarm.end_of(query).is_some());
    swarm.advance(ms(1000));
    assert_eq!((swarm.asked(query).len(), swarm.stats().never_sent, swarm.stats().pending), (3, 5, 0));
    assert_eq!(swarm.clock.advance(ms(3_600_000)), 0, "no timer is set for it");
}

#[test]
fn the_answer_that_ends_a_read_releases_no_held_request() {
    let (mut swarm, _) = ManualSwarm::fast_asking::<10>(8);
    let key = RecordKey::new(b"key");
    let query = swarm.kad.kad_mut().get_record(key.clone());
    swarm.poll_until_idle();
    swarm.finish_at_first_record = Some(query);
    swarm.answer_with(swarm.asked(query)[1], query, Record::new(key, b"value".to_vec()));
    assert!(swarm.end_of(query).is_some());
    assert_eq!((swarm.asked(query).len(), swarm.stats().never_sent, swarm.stats().pending), (3, 5, 0));
}

#[test]
fn each_lookup_of_a_bootstrap_starts_with_three_requests() {
    let (mut swarm, _) = ManualSwarm::fast_asking::<16>(8);
    let query = swarm.kad.kad_mut().bootstrap().unwrap();
    swarm.poll_until_idle();
    assert_eq!(swarm.asked(query).len(), 3);
    swarm.kad.kad_mut().query_mut(&query).unwrap().finish();
    swarm.poll_until_idle();
    assert!(swarm.end_of(query).is_none());
    assert_eq!((swarm.asked(query).len(), swarm.stats().never_sent), (6, 5));
}

#[test]
fn a_held_request_to_a_disconnected_peer_is_not_sent() {
    let (mut swarm, peers) = ManualSwarm::fast_asking::<5>(5);
    let query = swarm.kad.kad_mut().get_closest_peers(PeerId::random());
    swarm.poll_until_idle();
    let first = swarm.asked(query);
    let held = peers.into_iter().find(|peer| !first.contains(peer)).unwrap();
    let (_, connection) = swarm.connected().into_iter().find(|(peer, _)| *peer == held).unwrap();
    swarm.disconnect(connection);
    swarm.poll_until_idle();
    swarm.answer(first[0], query);
    assert_eq!(swarm.asked(query).len(), 4);
    assert!(!swarm.asked(query).contains(&held));
    swarm.asked(query).into_iter().skip(1).for_each(|peer| swarm.answer(peer, query));
    assert_eq!(swarm.end_of(query).unwrap().1, [5, 4, 1]);
}

#[test]
fn an_idle_wrapper_has_no_timer() {
    let (mut swarm, [peer]) = ManualSwarm::fast();
    swarm.poll_until_idle();
    assert_eq!(swarm.clock.advance(ms(3_600_000)), 0);
    let query = swarm.kad.kad_mut().get_closest_peers(PeerId::random());
    swarm.poll_until_idle();
    swarm.answer(peer, query);
    assert!(swarm.end_of(query).is_some());
    assert_eq!(swarm.clock.advance(ms(3_600_000)), 0, "no timer is set for answered requests");
}

/// The peers that are asked first stay silent, and no peer has ever answered. Nothing shows that the network is alive,
/// so no other peer is asked before the maximum timeout.
#[test]
fn the_first_query_waits_for_the_maximum_timeout() {
    let mut swarm = ManualSwarm::new();
    let peers: [_; 5] = std::array::from_fn(|_| swarm.add_connected_peer());
    swarm.clear_log();
    let query = swarm.kad.kad_mut().get_closest_peers(PeerId::random());
    swarm.poll_until_idle();
    let first = swarm.asked(query);
    assert_eq!(first.len(), 3);
    swarm.advance(ms(1995));
    assert_eq!(swarm.asked(query), first);
    swarm.advance(ms(5));
    assert_eq!(set(swarm.asked(query)), set(peers), "the others are asked");
    let rest: Vec<_> = swarm.asked(query).split_off(3);
    rest.into_iter().for_each(|peer| swarm.answer(peer, query));
    assert_eq!(swarm.end_of(query).unwrap().1, [5, 2, 3]);
}
