//! The tracker with the real kad under it, and no network. See `kadence_tests::real_kad`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeSet,
    env,
    panic::catch_unwind,
    sync::Arc,
    time::{Duration, Instant},
};

use kadence::{
    BootstrapError, OperationKind, OutcomeKind,
    tracker::{Operation, Outcome, Policy, RequestId},
};
use kadence_tests::real_kad::{Chances, Conduct, Fault, Phases, RealKad, Report, Setup, run_seed};
use libp2p::{
    PeerId,
    kad::{QueryId, QueryInfo, QueryResult, Record, RecordKey},
};

/// Seeds of the ordinary run; `KADENCE_SEEDS` asks for another number, and `KADENCE_FIRST_SEED` for other ones.
const SEEDS: u64 = 300;

/// Longer than anything takes that kad does by its own clock.
const LIMIT: Duration = Duration::from_secs(30);

const KINDS: [OperationKind; 7] = [
    OperationKind::GetRecord,
    OperationKind::PutRecord,
    OperationKind::PutRecordTo,
    OperationKind::GetProviders,
    OperationKind::StartProviding,
    OperationKind::GetClosestPeers,
    OperationKind::Bootstrap,
];

// ---- chance

#[test]
fn whatever_peers_do_every_request_ends_once_and_nothing_is_left_in_kad() {
    let report = run_seeds(SEEDS, Chances::default());
    println!("{report:#?}");
    if env::var("KADENCE_SEEDS").is_ok() {
        return;
    }
    // What the runs were to show has happened.
    for operation in KINDS {
        for kind in [
            OutcomeKind::Answered,
            OutcomeKind::Timeout,
            OutcomeKind::Cancelled,
            OutcomeKind::ExpiredInQueue,
            OutcomeKind::Shed,
        ] {
            assert_ne!(report.count(operation, kind), 0, "{operation} {kind:?}");
        }
    }
    for (operation, kind) in [
        (OperationKind::GetRecord, OutcomeKind::NotFound),
        (OperationKind::GetRecord, OutcomeKind::QuorumMissed),
        (OperationKind::GetProviders, OutcomeKind::NotFound),
        (OperationKind::PutRecord, OutcomeKind::QuorumMissed),
        (OperationKind::PutRecord, OutcomeKind::Refused),
        (OperationKind::StartProviding, OutcomeKind::NoPeers),
        (OperationKind::StartProviding, OutcomeKind::Refused),
        (OperationKind::Bootstrap, OutcomeKind::NoPeers),
    ] {
        assert_ne!(report.count(operation, kind), 0, "{operation} {kind:?}");
    }
    assert!(report.lost > 0 && report.foreign_records > 0 && report.handed_on > 0 && report.refused > 0);
    let counts = report.counts;
    assert!(counts.answers > 0 && counts.failures > 0 && counts.lost > 0 && counts.unnoticed > 0);
    assert!(counts.connected > 0 && counts.unreachable > 0);
}

#[test]
fn bootstraps_that_kad_begins_by_itself_are_not_ours() {
    let report = run_seeds(SEEDS / 5, Chances { bootstraps_itself: true, ..Chances::default() });
    println!("{report:#?}");
    assert_ne!(report.handed_on, 0);
}

#[test]
fn the_same_seed_is_the_same_run() {
    let chances = Chances { bootstraps: false, ..Chances::default() };
    let mut digests = BTreeSet::new();
    for seed in 0..20 {
        let begun = Instant::now();
        let runs = [run_seed(seed, chances), run_seed(seed, chances)];
        // Half a second after it has met a peer kad bootstraps by itself, so a slow run may be another one.
        if begun.elapsed() < Duration::from_millis(500) {
            assert_eq!(runs[0], runs[1], "seed {seed}");
            digests.insert(runs[0].digest);
        }
    }
    assert!(digests.len() > 1, "another seed is another run");
}

#[test]
fn whatever_a_driver_does_wrong_is_found_out() {
    for fault in Fault::ALL {
        let chances = Chances { fault: Some(fault), ..Chances::default() };
        let found = (0..20).filter(|seed| catch_unwind(|| run_seed(*seed, chances)).is_err()).count();
        println!("{fault:?}: {found} of 20");
        assert_ne!(found, 0, "{fault:?} makes no difference");
    }
}

fn run_seeds(seeds: u64, chances: Chances) -> Report {
    let number = |name, default| env::var(name).map_or(default, |text| text.parse().unwrap());
    let first = number("KADENCE_FIRST_SEED", 0);
    let mut report = Report::default();
    for seed in first..first + number("KADENCE_SEEDS", seeds) {
        report.add(&run_seed(seed, chances));
    }
    report
}

// ---- T3: every operation ends

#[test]
fn without_a_peer_every_operation_ends_and_needs_no_clock() {
    for kind in KINDS {
        let mut kad = RealKad::new(Setup::new(0));
        let stranger = kad.peers(Conduct::Unreachable, 1);
        let request = kad.ask(operation(kind, &stranger));
        kad.play();
        let wanted = match kind {
            OperationKind::PutRecordTo => OutcomeKind::QuorumMissed,
            _ => OutcomeKind::NoPeers,
        };
        assert_eq!(ending(&kad, request), Some(wanted), "{kind}");
        kad.check_end();
    }
}

#[test]
fn with_prompt_peers_every_operation_is_answered() {
    let (mut kad, peers) = acquainted(Conduct::Prompt, 10, Setup::new(0));
    // In this order one finds what another has left.
    for kind in [
        OperationKind::Bootstrap,
        OperationKind::PutRecord,
        OperationKind::PutRecordTo,
        OperationKind::GetRecord,
        OperationKind::StartProviding,
        OperationKind::GetProviders,
        OperationKind::GetClosestPeers,
    ] {
        let request = kad.ask(operation(kind, &peers));
        kad.play();
        assert_eq!(ending(&kad, request), Some(OutcomeKind::Answered), "{kind}");
    }
    kad.check_end();
}

#[test]
fn what_kad_never_ends_ends_at_the_deadline() {
    for conduct in [Conduct::Silent, Conduct::NeverConnects] {
        for kind in KINDS {
            let (mut kad, peers) = acquainted(conduct, 5, Setup::new(0));
            let request = kad.ask(operation(kind, &peers));
            kad.play();
            let query = kad.query_of(request).unwrap();
            waits_until_its_deadline(&mut kad, request, query);
        }
    }
}

#[test]
fn a_request_that_is_lost_with_one_of_two_connections_ends_at_the_deadline() {
    let mut kad = RealKad::new(Setup::new(0));
    let peers = kad.peers(Conduct::HangsUp, 1);
    kad.meet(peers[0]);
    kad.accept(peers[0]);
    kad.accept(peers[0]);
    let request = kad.ask(operation(OperationKind::GetRecord, &peers));
    kad.play();
    assert_eq!(kad.counts().unnoticed, 1, "one connection is closed, the other stays");
    let query = kad.query_of(request).unwrap();
    waits_until_its_deadline(&mut kad, request, query);
}

fn waits_until_its_deadline(kad: &mut RealKad, request: RequestId, query: QueryId) {
    let timeout = kad.tracker.config().default_timeout;
    kad.advance(timeout - Duration::from_nanos(1));
    kad.play();
    assert!(kad.outcome(request).is_none() && kad.runs(query));
    let bound = bound(kad, query);
    kad.advance(Duration::from_nanos(1));
    let polls = kad.settle();
    assert_eq!(ending(kad, request), Some(OutcomeKind::Timeout));
    assert!(polls <= bound && !kad.runs(query), "{polls} polls");
    kad.check_end();
}

// ---- T4: cancelled is gone

#[test]
fn t4_a_put_cancelled_in_its_lookup_is_gone_at_the_next_poll() {
    let (mut kad, peers) = acquainted(Conduct::Silent, 10, Setup::new(0));
    let request = kad.ask(operation(OperationKind::PutRecord, &peers));
    kad.play();
    let query = kad.query_of(request).unwrap();
    assert!(matches!(kad.kad.query(&query).unwrap().info(), QueryInfo::GetClosestPeers { .. }));
    kad.cancel(request);
    assert_eq!(kad.settle(), 1, "polls");
    assert!(!kad.runs(query) && cancelled(&kad, request));
    kad.check_end();
}

#[test]
fn t4_a_put_cancelled_in_its_store_is_gone_at_the_next_poll() {
    let (mut kad, peers) = acquainted(Conduct::Prompt, 10, Setup::new(0));
    let request = kad.ask(operation(OperationKind::PutRecord, &peers));
    kad.settle();
    let lookup = kad.query_of(request).unwrap();
    while kad.query_of(request) == Some(lookup) {
        assert!(kad.step(), "peers answer the lookup");
        kad.settle();
    }
    let store = kad.query_of(request).unwrap();
    assert!(matches!(kad.kad.query(&store).unwrap().info(), QueryInfo::PutRecord { .. }));
    kad.cancel(request);
    assert_eq!(kad.settle(), 1, "polls");
    assert!(!kad.runs(store) && cancelled(&kad, request));
    kad.check_end();
}

#[test]
fn t4_a_bootstrap_cancelled_with_three_buckets_to_go_is_gone_after_a_poll_for_each_lookup_left() {
    for done in 0..=1 {
        let mut kad = four_buckets(Setup::new(0));
        let request = kad.ask(Operation::Bootstrap);
        kad.settle();
        let query = kad.query_of(request).unwrap();
        while kad.phases(query).done < done {
            assert!(kad.step(), "peers answer the lookup");
            kad.settle();
        }
        kad.cancel(request);
        let polls = kad.settle();
        assert!(!kad.runs(query) && cancelled(&kad, request));
        assert_eq!(kad.phases(query), Phases { done: 4, failed: 0 });
        assert_eq!(polls, 4 - done as usize, "polls: one for each lookup left");
        kad.check_end();
    }
}

#[test]
fn t4_cancelled_after_any_number_of_answers_every_operation_is_gone_in_time() {
    for kind in KINDS {
        for steps in 0.. {
            let mut kad = four_buckets(Setup::new(steps));
            let peers = kad.peers(Conduct::Prompt, 3);
            peers.iter().for_each(|peer| kad.meet(*peer));
            let request = kad.ask(operation(kind, &peers));
            kad.settle();
            for _ in 0..steps {
                kad.step();
                kad.settle();
            }
            let Some(query) = kad.query_of(request) else {
                assert!(steps > 3, "{kind} takes a few answers");
                break;
            };
            let bound = bound(&mut kad, query);
            kad.cancel(request);
            let polls = kad.settle();
            assert!(polls <= bound && !kad.runs(query), "{kind} after {steps} steps: {polls} polls");
            assert!(cancelled(&kad, request));
            kad.check_end();
        }
    }
}

#[test]
fn an_announcement_that_was_cancelled_is_taken_back_and_an_earlier_one_stays() {
    let (mut kad, peers) = acquainted(Conduct::Prompt, 10, Setup::new(0));
    let announce = operation(OperationKind::StartProviding, &peers);
    for earlier in [false, true] {
        let request = kad.ask(announce.clone());
        kad.settle();
        assert!(provides(&mut kad));
        kad.cancel(request);
        kad.settle();
        assert_eq!(provides(&mut kad), earlier);
        let request = kad.ask(announce.clone());
        kad.play();
        assert_eq!(ending(&kad, request), Some(OutcomeKind::Answered));
        assert!(provides(&mut kad));
    }
    kad.check_end();
}

// ---- T5: a bootstrap ends at its last event

#[test]
fn t5_a_lookup_that_times_out_is_counted_and_is_not_the_end() {
    let mut setup = Setup::new(0);
    // kad's own clock. Lookups that are answered take a few milliseconds.
    setup.kad.set_query_timeout(Duration::from_secs(2));
    let mut kad = four_buckets(setup);
    let neighbours = kad.contacts();
    let request = kad.ask(Operation::Bootstrap);
    kad.settle();
    let query = kad.query_of(request).unwrap();
    let mut seen = vec![kad.phases(query)];
    until(&mut kad, |kad| {
        let phases = kad.phases(query);
        if seen.last() != Some(&phases) {
            seen.push(phases);
        }
        // Nobody answers the second lookup.
        let conduct = if phases.done == 1 { Conduct::Silent } else { Conduct::Prompt };
        neighbours.iter().for_each(|peer| kad.change(*peer, conduct));
        kad.step();
        kad.outcome(request).is_some()
    });
    let pending = [(0, 0), (1, 0), (2, 1), (3, 1), (4, 1)].map(|(done, failed)| Phases { done, failed });
    assert_eq!(seen, pending);
    let Some(Outcome::Bootstrap(Ok(answer))) = kad.outcome(request) else { panic!("{:?}", kad.outcome(request)) };
    assert_eq!((answer.phases, answer.failed), (4, 1));
    kad.check_end();
}

#[test]
fn t5_when_every_lookup_times_out_it_is_an_error() {
    let mut setup = Setup::new(0);
    setup.kad.set_query_timeout(Duration::ZERO);
    let mut kad = four_buckets(setup);
    let request = kad.ask(Operation::Bootstrap);
    kad.settle();
    // Without the nearest neighbour kad does not know which buckets to refresh.
    let Some(Outcome::Bootstrap(Err(BootstrapError::AllPhasesFailed { phases: 1, .. }))) = kad.outcome(request) else {
        panic!("{:?}", kad.outcome(request))
    };
    kad.check_end();
}

#[test]
fn t5_kads_own_bootstrap_in_between_changes_nothing_and_is_handed_on() {
    let mut setup = Setup::new(0);
    setup.kad.set_periodic_bootstrap_interval(Some(Duration::from_millis(1)));
    let mut kad = four_buckets(setup);
    until(&mut kad, |kad| !kad.strangers().is_empty());
    let automatic = kad.strangers()[0];
    let request = kad.ask(Operation::Bootstrap);
    kad.settle();
    let ours = kad.query_of(request).unwrap();
    assert!(kad.runs(automatic) && kad.runs(ours));
    // Further ones may begin by kad's clock, so what is waited for is said.
    until(&mut kad, |kad| {
        kad.step();
        kad.outcome(request).is_some() && !kad.runs(automatic)
    });
    let Some(Outcome::Bootstrap(Ok(answer))) = kad.outcome(request) else { panic!("{:?}", kad.outcome(request)) };
    assert_eq!((answer.phases, answer.failed), (4, 0));
    let handed_on = kad.handed_on().iter().filter(|(id, _)| *id == automatic);
    assert_eq!(handed_on.filter(|(_, result)| matches!(result, QueryResult::Bootstrap(Ok(_)))).count(), 4);
    assert!(kad.handed_on().iter().all(|(id, _)| *id != ours));
    assert_eq!(kad.tracker.stats().unknown_inputs, 0);
    kad.check_end();
}

// ---- kad itself

#[test]
fn what_kad_publishes_again_is_not_ours() {
    let mut setup = Setup::new(0);
    // Not shorter: kad asserts that the next round is not due the moment it is set.
    let soon = Some(Duration::from_millis(300));
    setup.kad.set_publication_interval(soon).set_replication_interval(soon).set_provider_publication_interval(soon);
    let (mut kad, peers) = acquainted(Conduct::Prompt, 10, setup);
    for kind in [OperationKind::PutRecord, OperationKind::StartProviding] {
        let request = kad.ask(operation(kind, &peers));
        kad.play();
        assert_eq!(ending(&kad, request), Some(OutcomeKind::Answered));
    }
    let wanted: [fn(&QueryResult) -> bool; 2] =
        [|of| matches!(of, QueryResult::RepublishRecord(_)), |of| matches!(of, QueryResult::RepublishProvider(_))];
    until(&mut kad, |kad| {
        kad.step();
        wanted.iter().all(|wanted| kad.handed_on().iter().any(|(_, result)| wanted(result)))
    });
    assert!(kad.tracker.is_empty());
    kad.check_end();
}

#[test]
fn one_finish_ends_a_lookup_and_not_a_bootstrap() {
    let mut kad = four_buckets(Setup::new(0));
    kad.settle();
    let request = kad.ask(Operation::Bootstrap);
    kad.settle();
    let query = kad.query_of(request).unwrap();
    kad.kad.query_mut(&query).unwrap().finish();
    assert!(!kad.runs(query), "`query_mut` does not see it between a finish and the next poll");
    kad.settle();
    assert!(kad.runs(query), "and then it is in its next lookup");
    assert_eq!(kad.phases(query).done, 1);
    kad.play();
    assert_eq!(ending(&kad, request), Some(OutcomeKind::Answered));
    kad.check_end();
}

// ---- what the tests are made of

/// A node that knows so many peers, which know each other.
fn acquainted(conduct: Conduct, peers: usize, setup: Setup) -> (RealKad, Vec<PeerId>) {
    let mut kad = RealKad::new(setup);
    let peers = kad.peers(conduct, peers);
    peers.iter().for_each(|peer| kad.meet(*peer));
    (kad, peers)
}

/// A node that knows a prompt peer in each of the four farthest buckets: its bootstrap looks up its own id, and then
/// refreshes three buckets.
fn four_buckets(setup: Setup) -> RealKad {
    let mut kad = RealKad::new(setup);
    for bucket in 252..=255 {
        let peer = kad.peer_in_bucket(Conduct::Prompt, bucket);
        kad.meet(peer);
    }
    kad
}

fn operation(kind: OperationKind, peers: &[PeerId]) -> Operation {
    let key = key();
    let record = Arc::new(Record::new(key.clone(), b"value".to_vec()));
    let quorum = kadence::Quorum::N(1);
    match kind {
        OperationKind::GetRecord => Operation::GetRecord { key, policy: Policy::All },
        OperationKind::PutRecord => Operation::PutRecord { record, quorum, options: kadence::PutOptions::default() },
        OperationKind::PutRecordTo => Operation::PutRecordTo { record, peers: peers.to_vec(), quorum },
        OperationKind::GetProviders => Operation::GetProviders { key, policy: Policy::All },
        OperationKind::StartProviding => Operation::StartProviding { key },
        OperationKind::GetClosestPeers => Operation::GetClosestPeers { target: key, thorough: false },
        OperationKind::Bootstrap => Operation::Bootstrap,
    }
}

fn key() -> RecordKey {
    RecordKey::new(b"key")
}

/// How many polls to no avail it takes at most until a query that nobody wants is gone: one for each of its lookups
/// that have not ended, and one for everything that is no bootstrap.
fn bound(kad: &mut RealKad, query: QueryId) -> usize {
    match kad.kad.query(&query).map(|query| query.info().clone()) {
        Some(QueryInfo::Bootstrap { remaining: Some(remaining), .. }) => 1 + remaining.len(),
        // At the end of its first lookup kad finds that every bucket beyond the nearest peer's is to be refreshed.
        Some(QueryInfo::Bootstrap { remaining: None, .. }) => {
            let nearest = kad.kad.kbuckets().find(|bucket| !bucket.is_empty()).unwrap();
            256 - usize::try_from(nearest.range().1.ilog2().unwrap()).unwrap()
        }
        _ => 1,
    }
}

fn ending(kad: &RealKad, request: RequestId) -> Option<OutcomeKind> {
    kad.outcome(request).map(OutcomeKind::of)
}

fn cancelled(kad: &RealKad, request: RequestId) -> bool {
    ending(kad, request) == Some(OutcomeKind::Cancelled)
}

fn provides(kad: &mut RealKad) -> bool {
    use libp2p::kad::store::RecordStore;
    kad.kad.store_mut().provided().any(|entry| entry.key == key())
}

/// Turns the loop until it is so: for what kad does by its own clock.
fn until(kad: &mut RealKad, mut it_is_so: impl FnMut(&mut RealKad) -> bool) {
    let begun = Instant::now();
    while !it_is_so(kad) {
        assert!(begun.elapsed() < LIMIT, "it does not come to pass");
        kad.settle();
    }
}
