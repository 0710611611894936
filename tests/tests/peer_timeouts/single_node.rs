use std::{collections::BTreeSet, num::NonZeroUsize};

use libp2p::{
    PeerId,
    kad::{Event, GetRecordOk, NodeStatus, PutRecordError, QueryResult, Quorum, Record, RecordKey},
    swarm::{DialError, dial_opts::PeerCondition},
};

use crate::hand::{Hand, ms};

fn set(peers: impl IntoIterator<Item = PeerId>) -> BTreeSet<PeerId> {
    peers.into_iter().collect()
}

#[test]
fn a_lookup_goes_on_without_a_silent_peer_and_leaves_it_where_it_was() {
    let (mut hand, [silent, other]) = Hand::fast();
    let entry = hand.entry(silent);
    assert!(matches!(&entry, Some((NodeStatus::Connected, addresses)) if !addresses.is_empty()), "{entry:?}");
    let query = hand.kad.kad_mut().get_closest_peers(PeerId::random());
    hand.settle();
    assert_eq!(set(hand.asked(query)), set([silent, other]));
    hand.pass(ms(5));
    hand.answer(other, query);
    assert!(hand.end_of(query).is_none());
    assert_eq!(hand.stats().waiting, 1);

    hand.pass(ms(90));
    assert!(hand.end_of(query).is_none(), "95 ms are within the patience");
    let before = hand.wakes.count();
    hand.pass(ms(5));
    assert!(hand.wakes.count() > before, "a timer wakes, and nothing else would");
    let (result, counts) = hand.end_of(query).expect("kad is polled again after a report");
    let QueryResult::GetClosestPeers(Ok(found)) = result else { panic!("{result:?}") };
    assert_eq!(found.peers.iter().map(|peer| peer.peer_id).collect::<Vec<_>>(), [other]);
    assert_eq!(counts, [2, 1, 1]);
    assert_eq!(hand.entry(silent), entry);
    assert_eq!((hand.stats().given_up, hand.stats().waiting), (1, 0));

    // It answers after all, which hurts nobody, and says how slow it is.
    let patience = hand.stats().patience;
    hand.pass(ms(400));
    hand.answer(silent, query);
    assert_eq!((hand.stats().late, hand.stats().remembered), (1, 0));
    assert!(hand.stats().patience > patience);
    assert_eq!(hand.entry(silent), entry);

    // The next query asks it again.
    let query = hand.kad.kad_mut().get_closest_peers(PeerId::random());
    hand.settle();
    assert_eq!(set(hand.asked(query)), set([silent, other]));
    hand.answer(silent, query);
    hand.answer(other, query);
    assert_eq!(hand.end_of(query).unwrap().1, [2, 2, 0]);
}

#[test]
fn a_record_that_comes_late_is_still_delivered_while_its_query_runs() {
    let (mut hand, [late, other]) = Hand::fast();
    let key = RecordKey::new(b"file");
    let query = hand.kad.kad_mut().get_record(key.clone());
    hand.settle();
    hand.pass(ms(5));
    // Somebody who has to be dialled first, for which the query waits.
    let further = PeerId::random();
    hand.answer_naming(other, query, further);
    assert_eq!(hand.dials, [further]);
    hand.pass(ms(95));
    assert_eq!(hand.stats().given_up, 1);
    assert!(hand.end_of(query).is_none());
    hand.answer_with(late, query, Record::new(key, b"late".to_vec()));
    let found = hand.events.iter().any(|event| match event {
        Event::OutboundQueryProgressed {
            id,
            result: QueryResult::GetRecord(Ok(GetRecordOk::FoundRecord(record))),
            ..
        } => *id == query && record.peer == Some(late),
        _ => false,
    });
    assert!(found, "{:?}", hand.events);
}

#[test]
fn a_put_goes_on_without_a_silent_peer_and_names_the_others() {
    let (mut hand, [silent, other]) = Hand::fast();
    let record = Record::new(b"file".to_vec(), b"value".to_vec());
    let query = hand.kad.kad_mut().put_record_to(record.clone(), [silent, other].into_iter(), Quorum::All);
    hand.settle();
    assert_eq!(set(hand.asked(query)), set([silent, other]));
    hand.pass(ms(5));
    hand.acknowledge(other, query, &record);
    hand.pass(ms(95));
    let (result, counts) = hand.end_of(query).unwrap();
    let QueryResult::PutRecord(Err(PutRecordError::QuorumFailed { success, quorum, .. })) = result else {
        panic!("{result:?}")
    };
    assert_eq!((success.as_slice(), *quorum), ([other].as_slice(), NonZeroUsize::new(2).unwrap()));
    assert_eq!(counts, [2, 1, 1]);
    hand.acknowledge(silent, query, &record);
    assert_eq!((hand.stats().late, hand.stats().waiting), (1, 0));
}

#[test]
fn announcements_are_not_waited_for() {
    let (mut hand, [peer]) = Hand::fast();
    let stats = hand.stats();
    let query = hand.kad.kad_mut().start_providing(RecordKey::new(b"file")).unwrap();
    hand.settle();
    hand.answer(peer, query);
    assert_eq!(hand.announcements, [peer]);
    assert!(hand.end_of(query).is_some());
    // The lookup alone.
    assert_eq!((hand.stats().timed, hand.stats().waiting), (stats.timed + 1, 0));
    hand.pass(ms(60_000));
    assert_eq!(hand.stats().given_up, 0);
}

#[test]
fn a_dial_that_never_ends_holds_a_query_up_for_its_own_patience() {
    let (mut hand, [other]) = Hand::fast();
    let dead = hand.known();
    let query = hand.kad.kad_mut().get_closest_peers(PeerId::random());
    hand.settle();
    assert_eq!((hand.dials.as_slice(), hand.asked(query)), ([dead].as_slice(), vec![other]));
    hand.pass(ms(5));
    hand.answer(other, query);
    hand.pass(ms(1990));
    assert!(hand.end_of(query).is_none());
    hand.pass(ms(5));
    assert_eq!(hand.end_of(query).unwrap().1, [2, 1, 1]);
    assert_eq!((hand.stats().dials_given_up, hand.stats().remembered), (1, 1));
    assert!(hand.kad.kad_mut().kbucket(dead).unwrap().iter().any(|entry| *entry.node.key.preimage() == dead));
    // At last it ends.
    hand.dial_fails(dead, &DialError::NoAddresses);
    assert_eq!(hand.stats().remembered, 0);
}

#[test]
fn a_request_that_waited_for_a_dial_is_timed_from_the_connection_on() {
    let (mut hand, [other]) = Hand::fast();
    let far = hand.known();
    let query = hand.kad.kad_mut().get_closest_peers(PeerId::random());
    hand.settle();
    hand.pass(ms(5));
    hand.answer(other, query);
    hand.pass(ms(300));
    // A second dial of it that the swarm refuses is no failure.
    hand.dial_fails(far, &DialError::DialPeerConditionFalse(PeerCondition::DisconnectedAndNotDialing));
    hand.connect(far);
    hand.pass(ms(95));
    assert!(hand.end_of(query).is_none());
    hand.pass(ms(5));
    assert_eq!(hand.end_of(query).unwrap().1, [2, 1, 1]);
    assert_eq!(hand.stats().given_up, 1);

    // And one that answers is answered.
    let (mut hand, []) = Hand::fast();
    let far = hand.known();
    let query = hand.kad.kad_mut().get_closest_peers(PeerId::random());
    hand.settle();
    hand.pass(ms(300));
    hand.connect(far);
    hand.pass(ms(95));
    hand.answer(far, query);
    assert_eq!(hand.end_of(query).unwrap().1, [1, 1, 0]);
    assert_eq!((hand.stats().given_up, hand.stats().waiting, hand.stats().remembered), (0, 0, 0));
}

/// Of a request that is lost with its connection, kad never hears if the peer has another one.
#[test]
fn a_request_that_is_lost_with_one_of_two_connections_is_given_up() {
    let (mut hand, [other]) = Hand::fast();
    let peer = hand.known();
    let (first, second) = (hand.connect(peer), hand.connect(peer));
    let query = hand.kad.kad_mut().get_closest_peers(PeerId::random());
    hand.settle();
    hand.pass(ms(5));
    hand.answer(other, query);
    hand.disconnect(first);
    assert!(hand.end_of(query).is_none());
    hand.pass(ms(95));
    assert_eq!(hand.end_of(query).unwrap().1, [2, 1, 1]);
    hand.disconnect(second);
    assert_eq!((hand.stats().waiting, hand.stats().remembered), (0, 0), "nothing is left of the peer");
}

#[test]
fn a_silent_peer_is_given_up_in_all_queries_at_once() {
    let (mut hand, [_, other]) = Hand::fast();
    let first = hand.kad.kad_mut().get_closest_peers(PeerId::random());
    hand.settle();
    hand.pass(ms(5));
    hand.answer(other, first);
    hand.pass(ms(45));
    let second = hand.kad.kad_mut().get_closest_peers(PeerId::random());
    hand.settle();
    hand.answer(other, second);
    hand.pass(ms(50));
    assert!(hand.end_of(first).is_some() && hand.end_of(second).is_some());
    assert_eq!(hand.stats().given_up, 2);
}

#[test]
fn a_query_that_is_finished_early_waits_for_nobody() {
    let (mut hand, [_]) = Hand::fast();
    let query = hand.kad.kad_mut().get_closest_peers(PeerId::random());
    hand.settle();
    assert_eq!(hand.stats().waiting, 1);
    hand.kad.kad_mut().query_mut(&query).unwrap().finish();
    hand.settle();
    assert!(hand.end_of(query).is_some());
    assert_eq!(hand.stats().waiting, 0);
}

#[test]
fn a_lookup_asks_three_peers_and_two_further_ones_at_each_answer() {
    let (mut hand, peers) = Hand::fast_asking::<10>(8);
    let query = hand.kad.kad_mut().get_closest_peers(PeerId::random());
    hand.settle();
    assert_eq!(hand.asked(query).len(), 3);
    hand.pass(ms(5));
    let answered = hand.asked(query)[1];
    hand.answer(answered, query);
    // And the one that kad asks instead of the one that has answered.
    assert_eq!(hand.asked(query).len(), 6);
    for n in 0..10 {
        let next = hand.asked(query)[n];
        if next != answered {
            hand.answer(next, query);
        }
    }
    assert_eq!(set(hand.asked(query)), set(peers));
    assert_eq!((hand.end_of(query).unwrap().1, hand.stats().spared), ([10, 10, 0], 0));
}

#[test]
fn a_lookup_whose_first_peers_are_silent_asks_the_others_soon() {
    let (mut hand, _) = Hand::fast_asking::<10>(8);
    let query = hand.kad.kad_mut().get_closest_peers(PeerId::random());
    hand.settle();
    let first = hand.asked(query);
    hand.pass(ms(10));
    assert_eq!(hand.asked(query), first);
    // Not all answers that were measured were as quick as the last ones.
    hand.pass(ms(70));
    assert_eq!(hand.asked(query).len(), 8);
    // The first are given up in their time, and the others are timed from when they went.
    hand.answer(hand.asked(query)[3], query);
    hand.pass(ms(20));
    assert_eq!(hand.stats().given_up, 3);
    assert_eq!(hand.asked(query).len(), 10);
}

#[test]
fn what_a_read_that_has_its_value_had_not_asked_yet_is_never_asked() {
    let (mut hand, _) = Hand::fast_asking::<10>(8);
    let query = hand.kad.kad_mut().get_record(RecordKey::new(b"key"));
    hand.settle();
    hand.kad.kad_mut().query_mut(&query).unwrap().finish();
    hand.settle();
    assert!(hand.end_of(query).is_some());
    hand.pass(ms(1000));
    assert_eq!((hand.asked(query).len(), hand.stats().spared, hand.stats().waiting), (3, 5, 0));
    assert_eq!(hand.clock.advance(ms(3_600_000)), 0, "nobody is woken for it");
}

#[test]
fn the_answer_that_ends_a_read_lets_no_further_request_go() {
    let (mut hand, _) = Hand::fast_asking::<10>(8);
    let key = RecordKey::new(b"key");
    let query = hand.kad.kad_mut().get_record(key.clone());
    hand.settle();
    hand.enough_at_a_record = Some(query);
    hand.answer_with(hand.asked(query)[1], query, Record::new(key, b"value".to_vec()));
    assert!(hand.end_of(query).is_some());
    assert_eq!((hand.asked(query).len(), hand.stats().spared, hand.stats().waiting), (3, 5, 0));
}

#[test]
fn the_next_lookup_of_a_bootstrap_asks_three_peers_at_once_again() {
    let (mut hand, _) = Hand::fast_asking::<16>(8);
    let query = hand.kad.kad_mut().bootstrap().unwrap();
    hand.settle();
    assert_eq!(hand.asked(query).len(), 3);
    hand.kad.kad_mut().query_mut(&query).unwrap().finish();
    hand.settle();
    assert!(hand.end_of(query).is_none());
    assert_eq!((hand.asked(query).len(), hand.stats().spared), (6, 5));
}

#[test]
fn a_peer_that_has_gone_before_its_turn_is_not_asked() {
    let (mut hand, peers) = Hand::fast_asking::<5>(5);
    let query = hand.kad.kad_mut().get_closest_peers(PeerId::random());
    hand.settle();
    let first = hand.asked(query);
    let held = peers.into_iter().find(|peer| !first.contains(peer)).unwrap();
    let (_, connection) = hand.connected().into_iter().find(|(peer, _)| *peer == held).unwrap();
    hand.disconnect(connection);
    hand.settle();
    hand.answer(first[0], query);
    assert_eq!(hand.asked(query).len(), 4);
    assert!(!hand.asked(query).contains(&held));
    hand.asked(query).into_iter().skip(1).for_each(|peer| hand.answer(peer, query));
    assert_eq!(hand.end_of(query).unwrap().1, [5, 4, 1]);
}

#[test]
fn an_idle_wrapper_has_no_timer() {
    let (mut hand, [peer]) = Hand::fast();
    hand.settle();
    assert_eq!(hand.clock.advance(ms(3_600_000)), 0);
    let query = hand.kad.kad_mut().get_closest_peers(PeerId::random());
    hand.settle();
    hand.answer(peer, query);
    assert!(hand.end_of(query).is_some());
    assert_eq!(hand.clock.advance(ms(3_600_000)), 0, "nobody is woken for what was answered");
}

/// The peers that are asked first say nothing, and nobody else has ever answered: there is no sign that the network is
/// alive, and nobody else is asked before the longest patience is over.
#[test]
fn at_first_silence_is_waited_out() {
    let mut hand = Hand::new();
    let peers: [_; 5] = std::array::from_fn(|_| hand.peer());
    hand.forget();
    let query = hand.kad.kad_mut().get_closest_peers(PeerId::random());
    hand.settle();
    let first = hand.asked(query);
    assert_eq!(first.len(), 3);
    hand.pass(ms(1995));
    assert_eq!(hand.asked(query), first);
    hand.pass(ms(5));
    assert_eq!(set(hand.asked(query)), set(peers), "the others are asked");
    let rest: Vec<_> = hand.asked(query).split_off(3);
    rest.into_iter().for_each(|peer| hand.answer(peer, query));
    assert_eq!(hand.end_of(query).unwrap().1, [5, 2, 3]);
}
