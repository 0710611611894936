//! Tests without a network: frames, limits, pieces.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use libp2p::PeerId;
use proptest::prelude::*;

use super::super::{
    ServerConfig,
    limits::{Limits, RetryAfter},
    pieces::Pieces,
    wire::{Head, MAX_GROUPS, REQUEST_LEN, Request},
};
use crate::ContentId;

const SECOND: Duration = Duration::from_secs(1);

proptest! {
    #[test]
    fn frames_are_decoded_as_they_were_encoded(blob: Vec<u8>, first: u64, count in 1..=MAX_GROUPS, number in 0..u64::MAX) {
        let request = Request { id: ContentId::of(&blob), first, count };
        prop_assert_eq!(Request::decode(&request.encode()), Some(request));
        for head in [Head::Have(number), Head::NotFound, Head::Busy(Duration::from_millis(number)), Head::Invalid] {
            prop_assert_eq!(Head::decode(&head.encode()), Some(head));
        }
    }

    #[test]
    fn any_bytes_are_a_frame_or_none(request: [u8; 32], rest: [u8; 12], head: [u8; 9]) {
        let bytes: [u8; REQUEST_LEN] = [&request[..], &rest[..]].concat().try_into().unwrap();
        if let Some(request) = Request::decode(&bytes) {
            prop_assert_eq!(request.encode(), bytes);
            prop_assert!(request.count <= MAX_GROUPS && request.groups().start <= request.groups().end);
        }
        prop_assert_eq!(Head::decode(&head).is_some(), head[0] <= 3);
    }

    #[test]
    fn all_pieces_complete_when_providers_leave(count in 1_u32..40, steps in prop::collection::vec((0..4_usize, 0..3_u8), 0..400)) {
        let peers: Vec<PeerId> = (0..4).map(|_| PeerId::random()).collect();
        let now = Instant::now();
        let mut pieces = Pieces::new(count, &BTreeSet::new());
        let mut at: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
        let mut done = BTreeSet::new();
        for (peer, step) in steps {
            let mine = at.entry(peer).or_default();
            match step {
                0 => if let Some(piece) = pieces.take(peers[peer], now).or_else(|| pieces.hedge(peers[peer], now, Duration::ZERO)) {
                    prop_assert!(!done.contains(&piece) && !mine.contains(&piece));
                    mine.push(piece);
                },
                1 => if let Some(piece) = mine.pop() {
                    prop_assert_eq!(pieces.complete(piece), done.insert(piece));
                },
                _ => {
                    mine.clear();
                    pieces.give_all_back(&peers[peer]);
                }
            }
            prop_assert_eq!(pieces.done_count() as usize, done.len());
        }
        for peer in &peers {
            pieces.give_all_back(peer);
        }
        while let Some(piece) = pieces.take(peers[0], now) {
            prop_assert!(pieces.complete(piece) && done.insert(piece));
        }
        prop_assert!(pieces.is_complete());
        prop_assert_eq!(done.len(), count as usize);
    }
}

#[test]
fn the_later_a_piece_is_the_more_providers_fetch_it() {
    let [a, b, c] = [(); 3].map(|()| PeerId::random());
    let started = Instant::now();
    let mut pieces = Pieces::new(2, &BTreeSet::from([0]));
    assert_eq!(pieces.take(a, started), Some(1));
    assert_eq!(pieces.take(b, started), None);
    assert_eq!(pieces.hedge(b, started, SECOND), None);
    assert_eq!(pieces.next_late(started, SECOND), Some(started + SECOND));
    let later = started + SECOND;
    assert_eq!(pieces.hedge(a, later, SECOND), None, "it is at it already");
    assert_eq!(pieces.hedge(b, later, SECOND), Some(1));
    assert_eq!(pieces.hedge(c, later, SECOND), None, "two are enough for now");
    assert_eq!(pieces.next_late(later, SECOND), Some(later + SECOND));
    assert_eq!(pieces.late(later, SECOND), BTreeSet::from([a, b]));
    assert_eq!(pieces.late(started, SECOND), BTreeSet::new());
    assert_eq!(pieces.hedge(c, later + SECOND, SECOND), Some(1));
    for providers in 4..=6 {
        let peer = PeerId::random();
        assert_eq!(pieces.hedge(peer, started + (providers - 1) * SECOND, SECOND), Some(1));
    }
    assert_eq!(pieces.hedge(PeerId::random(), started + 100 * SECOND, SECOND), None);
    assert_eq!(pieces.next_late(started, SECOND), None);
    pieces.give_all_back(&a);
    assert_eq!(pieces.take(c, later), None, "others are still at it");
    assert!(pieces.complete(1) && pieces.is_complete());
    assert!(!pieces.complete(1));
}

#[test]
fn attack_a_new_stream_is_no_new_allowance() {
    let config = ServerConfig { bytes_per_second_per_peer: 1000, ..ServerConfig::default() };
    let (peer, now) = (PeerId::random(), Instant::now());
    let mut limits = Limits::new(config, now);
    for _ in 0..3 {
        limits.admit(peer, now).unwrap();
        limits.reserve(peer, 1000, now).unwrap();
        limits.release(peer);
    }
    limits.admit(peer, now).unwrap();
    assert_eq!(limits.reserve(peer, 1000, now), Err(RetryAfter(3 * SECOND)));
    assert_eq!(limits.reserve(peer, 1000, now + 3 * SECOND), Ok(Duration::ZERO));
}

#[test]
fn unused_bandwidth_is_returned() {
    let config = ServerConfig { bytes_per_second_per_peer: 1000, bytes_per_second: 1000, ..ServerConfig::default() };
    let (peer, now) = (PeerId::random(), Instant::now());
    let mut limits = Limits::new(config, now);
    limits.admit(peer, now).unwrap();
    assert_eq!(limits.reserve(peer, 1000, now), Ok(Duration::ZERO));
    limits.give_back(peer, 600);
    assert_eq!(limits.reserve(peer, 600, now), Ok(Duration::ZERO));
    limits.give_back(peer, 5000);
    assert_eq!(limits.reserve(peer, 2000, now), Ok(SECOND), "no more than a second's worth is saved up");
}

#[test]
fn attack_accounts_of_peers_are_bounded() {
    let config = ServerConfig { streams: usize::MAX, ..ServerConfig::default() };
    let now = Instant::now();
    let mut limits = Limits::new(config, now);
    for _ in 0..4096 {
        let peer = PeerId::random();
        limits.admit(peer, now).unwrap();
        limits.reserve(peer, 1000, now).unwrap();
        limits.release(peer);
    }
    assert_eq!(limits.admit(PeerId::random(), now), Err(RetryAfter(config.retry_after)));
    assert_eq!(limits.admit(PeerId::random(), now + SECOND), Ok(()), "those that have used up nothing are forgotten");
}
