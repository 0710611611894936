use proptest::prelude::*;

use super::*;

const START: u64 = 1_800_000_000;
const SECOND: Duration = Duration::from_secs(1);
const MEGABYTE: u64 = 1024 * 1024;

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn peer(number: u8) -> PeerId {
    libp2p_identity::Keypair::ed25519_from_bytes([number; 32]).unwrap().public().to_peer_id()
}

fn with_capacity(capacity: usize) -> Reputation {
    Reputation::load(database::open_in_memory(FORMAT).unwrap(), capacity).unwrap()
}

fn reputation() -> Reputation {
    with_capacity(MAX_PEERS)
}

#[test]
fn reliable_and_fast_peers_are_asked_first() {
    let reputation = reputation();
    let [reliable, fast, unknown, failing] = [1, 2, 3, 4].map(peer);
    for _ in 0..5 {
        reputation.success(reliable, MEGABYTE, SECOND, at(START));
        reputation.success(fast, 15 * MEGABYTE, SECOND, at(START));
        reputation.failure(failing, at(START));
    }
    let order = reputation.order(&[failing, unknown, reliable, fast], at(START));
    assert_eq!(order, [fast, reliable, unknown, failing]);
    let known = reputation.get(&fast).unwrap();
    assert_eq!(known.bytes, 75 * MEGABYTE);
    assert!((known.speed - 15.0 * 1_048_576.0).abs() < 1.0);
    assert_eq!(reputation.get(&unknown), None);
}

#[test]
fn peers_with_equal_scores_keep_their_order() {
    let peers = [3, 1, 2].map(peer);
    assert_eq!(reputation().order(&peers, at(START)), peers);
}

#[test]
fn small_transfers_do_not_count_for_speed() {
    let reputation = reputation();
    reputation.success(peer(1), 100, SECOND, at(START));
    reputation.success(peer(1), MEGABYTE, Duration::ZERO, at(START));
    assert_eq!(reputation.get(&peer(1)).unwrap().speed, 0.0);
    reputation.success(peer(1), MEGABYTE, SECOND, at(START));
    reputation.success(peer(1), 2 * MEGABYTE, SECOND, at(START));
    let speed = reputation.get(&peer(1)).unwrap().speed;
    assert!((speed - 1.3 * 1_048_576.0).abs() < 1.0, "{speed}");
}

#[test]
fn counts_are_halved_after_six_hours() {
    let reputation = reputation();
    for _ in 0..8 {
        reputation.failure(peer(1), at(START));
    }
    let after = |hours: u64| reputation.get(&peer(1)).unwrap().decayed(at(START + hours * 3600)).failures;
    assert!((after(6) - 4.0).abs() < 1e-9 && (after(18) - 1.0).abs() < 1e-9);
    let score = |hours: u64| reputation.get(&peer(1)).unwrap().score(at(START + hours * 3600));
    assert!(score(0) < score(6) && score(6) < score(48));
    assert!((score(24 * 30) - PeerReputation::default().score(at(START))).abs() < 1e-6);
}

#[test]
fn attack_corrupt_provider_is_banned_for_a_time_that_doubles() {
    let reputation = reputation();
    let (bad, good) = (peer(1), peer(2));
    // Regardless of earlier successes.
    for _ in 0..100 {
        reputation.success(bad, 10 * MEGABYTE, SECOND, at(START));
    }
    assert_eq!(reputation.bad_data(bad, at(START)), at(START + 600));
    assert_eq!(reputation.order(&[bad, good], at(START + 599)), [good]);
    assert_eq!(reputation.banned_until(&bad, at(START + 599)), Some(at(START + 600)));
    assert_eq!(reputation.banned_until(&bad, at(START + 600)), None);
    // Then it is asked last for some time.
    assert_eq!(reputation.order(&[bad, good], at(START + 600)), [good, bad]);
    let mut now = START + 600;
    for time in 1..20 {
        let until = reputation.bad_data(bad, at(now));
        let ban = (600_u64 << time).min(MAX_BAN.as_secs());
        assert_eq!(until, at(now + ban));
        now += ban;
    }
}

#[test]
fn bad_data_is_forgiven_month_by_month() {
    let reputation = reputation();
    let month = BAD_FORGIVEN.as_secs();
    for _ in 0..3 {
        reputation.bad_data(peer(1), at(START));
    }
    let bad = |now| reputation.get(&peer(1)).unwrap().decayed(at(now)).bad;
    assert_eq!(
        [bad(START + month - 1), bad(START + month), bad(START + 5 * month / 2), bad(START + 9 * month)],
        [3, 2, 1, 0]
    );
    // No month is counted twice.
    reputation.failure(peer(1), at(START + 3 * month / 2));
    assert_eq!([bad(START + 2 * month - 1), bad(START + 2 * month)], [2, 1]);
}

#[test]
fn a_clock_that_is_set_back_does_not_ban_for_ever() {
    let reputation = reputation();
    reputation.bad_data(peer(1), at(START + 400 * 24 * 3600));
    assert_eq!(reputation.banned_until(&peer(1), at(START)), None);
}

#[test]
fn the_least_recently_used_peer_makes_room_unless_it_served_bad_data() {
    let reputation = with_capacity(3);
    reputation.bad_data(peer(1), at(START));
    for number in 2..=6 {
        reputation.failure(peer(number), at(START + u64::from(number)));
    }
    let known = |number| reputation.get(&peer(number)).is_some();
    assert_eq!((1..=6).map(known).collect::<Vec<_>>(), [true, false, false, false, true, true]);
    // Used again.
    reputation.failure(peer(5), at(START + 50));
    reputation.failure(peer(7), at(START + 51));
    assert_eq!((1..=7).map(known).collect::<Vec<_>>(), [true, false, false, false, true, false, true]);
    // Those with bad data are replaced last.
    for number in [5, 7, 8, 9] {
        reputation.bad_data(peer(number), at(START + 60));
    }
    assert_eq!((reputation.len(), known(1), known(9)), (3, false, true));
}

#[test]
fn saved_peers_are_there_after_a_restart_and_removed_ones_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("peers.db");
    let first = Reputation::open(&path).unwrap();
    assert!(first.is_empty());
    first.success(peer(1), MEGABYTE, SECOND, at(START));
    first.bad_data(peer(2), at(START));
    first.save().unwrap();
    first.failure(peer(3), at(START));
    let known = [1, 2].map(|number| first.get(&peer(number)));
    drop(first);
    let second = Reputation::open(&path).unwrap();
    assert_eq!([1, 2].map(|number| second.get(&peer(number))), known);
    assert_eq!(second.get(&peer(3)), None);
    second.save().unwrap();
    drop(second);
    // The file has more peers than the capacity.
    let small = Reputation::load(database::open(&path, FORMAT).unwrap(), 1).unwrap();
    assert_eq!((small.len(), small.get(&peer(2)).is_some()), (1, true));
    small.save().unwrap();
    drop(small);
    assert_eq!(Reputation::open(&path).unwrap().len(), 1);
}

#[test]
fn changes_that_could_not_be_saved_are_saved_the_next_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("peers.db");
    let reputation = Reputation::open(&path).unwrap();
    let refuse =
        |refuse: bool| reputation.connection.lock().unwrap().pragma_update(None, "query_only", refuse).unwrap();
    reputation.failure(peer(1), at(START));
    refuse(true);
    assert!(reputation.save().is_err());
    refuse(false);
    reputation.save().unwrap();
    assert!(format!("{reputation:?}").contains('1'));
    drop(reputation);
    assert!(Reputation::open(&path).unwrap().get(&peer(1)).is_some());
}

#[test]
fn a_damaged_file_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("peers.db");
    for damage in ["peer = x'00'", "failures = -1", "speed = 9e999", "bytes = -1", "bad = -1"] {
        let reputation = Reputation::open(&path).unwrap();
        reputation.failure(peer(1), at(START));
        reputation.save().unwrap();
        drop(reputation);
        let connection = database::open(&path, FORMAT).unwrap();
        connection.execute_batch(&format!("UPDATE peers SET {damage}")).unwrap();
        let error = Reputation::open(&path).unwrap_err();
        assert!(matches!(error, DatabaseOpenError::Damaged { .. }), "{damage}: {error:?}");
        connection.execute_batch("DELETE FROM peers").unwrap();
    }
    std::fs::write(&path, [9; 2000]).unwrap();
    assert!(matches!(Reputation::open(&path), Err(DatabaseOpenError::Foreign { .. })));
}

/// Generates events of peers: a peer, a kind of event, and the seconds since the previous one.
fn events() -> impl Strategy<Value = Vec<(u8, u8, u64)>> {
    prop::collection::vec((1_u8..8, 0_u8..3, 0_u64..100_000), 0..60)
}

fn run(reputation: &Reputation, events: &[(u8, u8, u64)]) -> u64 {
    let mut now = START;
    for (number, event, seconds) in events {
        now += seconds;
        match event {
            0 => reputation.success(peer(*number), MEGABYTE, SECOND, at(now)),
            1 => reputation.failure(peer(*number), at(now)),
            _ => drop(reputation.bad_data(peer(*number), at(now))),
        }
    }
    now
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn scores_stay_between_0_and_1_and_the_bounds_hold(events in events(), later in 0_u64..1_000_000_000) {
        let reputation = with_capacity(4);
        let now = run(&reputation, &events);
        prop_assert!(reputation.len() <= 4);
        for number in 1..8 {
            let Some(known) = reputation.get(&peer(number)) else { continue };
            for now in [0, now, now + later] {
                prop_assert!((0.0..=1.0).contains(&known.score(at(now))));
            }
            if let Some(until) = reputation.banned_until(&peer(number), at(now)) {
                prop_assert!(until > at(now) && until <= at(now) + MAX_BAN);
            }
        }
    }

    #[test]
    fn an_order_has_every_peer_once_that_is_not_banned_and_does_not_depend_on_how_it_was_asked(events in events()) {
        let reputation = reputation();
        let now = at(run(&reputation, &events));
        let peers: Vec<_> = (1..8).map(peer).collect();
        let mut expected: Vec<_> =
            peers.iter().copied().filter(|peer| reputation.banned_until(peer, now).is_none()).collect();
        let mut order = reputation.order(&peers, now);
        let score = |peer: &PeerId| reputation.get(peer).unwrap_or_default().score(now);
        prop_assert!(order.windows(2).all(|pair| score(&pair[0]) >= score(&pair[1])));
        order.sort();
        expected.sort();
        prop_assert_eq!(order, expected);
    }

    #[test]
    fn a_success_never_worsens_and_a_failure_never_betters_a_score(events in events(), number in 1_u8..8) {
        let reputation = reputation();
        let now = at(run(&reputation, &events));
        let score = || reputation.get(&peer(number)).unwrap_or_default().score(now);
        let before = score();
        reputation.success(peer(number), 10, SECOND, now);
        let better = score();
        prop_assert!(better >= before);
        reputation.failure(peer(number), now);
        prop_assert!(score() <= better);
    }

    #[test]
    fn what_is_loaded_is_what_was_saved(events in events()) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("peers.db");
        let first = Reputation::open(&path).unwrap();
        run(&first, &events);
        first.save().unwrap();
        let second = Reputation::open(&path).unwrap();
        prop_assert_eq!(first.len(), second.len());
        for number in 1..8 {
            prop_assert_eq!(first.get(&peer(number)), second.get(&peer(number)));
        }
    }
}
