//! The tracker on top of the real kad, without a network. See `kadence_tests::real_kad`.

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
use kadence_tests::real_kad::{Fault, PeerKind, Phases, RealKad, Report, RunConfig, Setup, run_seed};
use libp2p::{
    PeerId,
    kad::{QueryId, QueryInfo, QueryResult, Record, RecordKey},
};

/// Number of seeds. `KADENCE_SEEDS` sets another number, `KADENCE_FIRST_SEED` the first seed.
const SEEDS: u64 = 300;

/// Longer than anything that kad does on its own clock.
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

// ---- random runs

#[test]
fn every_request_ends_once_and_leaves_nothing_in_kad() {
    let report = run_seeds(SEEDS, RunConfig::default());
    println!("{report:#?}");
    if env::var("KADENCE_SEEDS").is_ok() {
        return;
    }
    // The runs have covered everything that they are meant to show.
    for operation in KINDS {
        for kind in [OutcomeKind::Answered, OutcomeKind::Timeout, OutcomeKind::Cancelled, OutcomeKind::ExpiredInQueue] {
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
    assert!(report.lost > 0 && report.foreign_records > 0 && report.forwarded > 0 && report.refused > 0);
    let counts = report.counts;
    assert!(counts.answers > 0 && counts.failures > 0 && counts.lost > 0 && counts.unnoticed > 0);
    assert!(counts.connected > 0 && counts.unreachable > 0);
}

#[test]
fn bootstraps_that_kad_starts_itself_are_forwarded() {
    let report = run_seeds(SEEDS / 5, RunConfig { bootstraps_itself: true, ..RunConfig::default() });
    println!("{report:#?}");
    assert_ne!(report.forwarded, 0);
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let config = RunConfig { bootstraps: false, ..RunConfig::default() };
    let mut digests = BTreeSet::new();
    for seed in 0..20 {
        let begun = Instant::now();
        let runs = [run_seed(seed, config), run_seed(seed, config)];
        // kad bootstraps by itself half a second after it has met a peer, so a slow run may differ.
        if begun.elapsed() < Duration::from_millis(500) {
            assert_eq!(runs[0], runs[1], "seed {seed}");
            digests.insert(runs[0].digest);
        }
    }
    assert!(digests.len() > 1, "different seeds give different runs");
}

#[test]
fn every_injected_driver_fault_is_detected() {
    for fault in Fault::ALL {
        let config = RunConfig { fault: Some(fault), ..RunConfig::default() };
        let found = (0..20).filter(|seed| catch_unwind(|| run_seed(*seed, config)).is_err()).count();
        println!("{fault:?}: {found} of 20");
        assert_ne!(found, 0, "{fault:?} was not detected");
    }
}

fn run_seeds(seeds: u64, config: RunConfig) -> Report {
    let number = |name, default| env::var(name).map_or(default, |text| text.parse().unwrap());
    let first = number("KADENCE_FIRST_SEED", 0);
    let mut report = Report::default();
    for seed in first..first + number("KADENCE_SEEDS", seeds) {
        report.add(&run_seed(seed, config));
    }
    report
}

// ---- every operation ends

#[test]
fn without_peers_every_operation_ends_without_waiting() {
    for kind in KINDS {
        let mut kad = RealKad::new(Setup::new(0));
        let stranger = kad.peers(PeerKind::Unreachable, 1);
        let request = kad.request_valid(operation(kind, &stranger));
        kad.run_to_end();
        let wanted = match kind {
            OperationKind::PutRecordTo => OutcomeKind::QuorumMissed,
            _ => OutcomeKind::NoPeers,
        };
        assert_eq!(outcome_kind(&kad, request), Some(wanted), "{kind}");
        kad.check_end();
    }
}

#[test]
fn with_prompt_peers_every_operation_is_answered() {
    let (mut kad, peers) = node_with_peers(PeerKind::Prompt, 10, Setup::new(0));
    // In this order, later operations find the results of earlier ones.
    for kind in [
        OperationKind::Bootstrap,
        OperationKind::PutRecord,
        OperationKind::PutRecordTo,
        OperationKind::GetRecord,
        OperationKind::StartProviding,
        OperationKind::GetProviders,
        OperationKind::GetClosestPeers,
    ] {
        let request = kad.request_valid(operation(kind, &peers));
        kad.run_to_end();
        assert_eq!(outcome_kind(&kad, request), Some(OutcomeKind::Answered), "{kind}");
    }
    kad.check_end();
}

#[test]
fn requests_that_kad_never_ends_end_at_the_deadline() {
    for peer_kind in [PeerKind::Silent, PeerKind::NeverConnects] {
        for kind in KINDS {
            let (mut kad, peers) = node_with_peers(peer_kind, 5, Setup::new(0));
            let request = kad.request_valid(operation(kind, &peers));
            kad.run_to_end();
            let query = kad.query_of(request).unwrap();
            assert_ends_at_deadline(&mut kad, request, query);
        }
    }
}

#[test]
fn a_request_that_is_lost_with_one_of_two_connections_ends_at_the_deadline() {
    let mut kad = RealKad::new(Setup::new(0));
    let peers = kad.peers(PeerKind::HangsUp, 1);
    kad.add_contact(peers[0]);
    kad.accept_connection(peers[0]);
    kad.accept_connection(peers[0]);
    let request = kad.request_valid(operation(OperationKind::GetRecord, &peers));
    kad.run_to_end();
    assert_eq!(kad.counts().unnoticed, 1, "one connection is closed, the other stays open");
    let query = kad.query_of(request).unwrap();
    assert_ends_at_deadline(&mut kad, request, query);
}

fn assert_ends_at_deadline(kad: &mut RealKad, request: RequestId, query: QueryId) {
    let timeout = kad.tracker.config().default_timeout;
    kad.advance(timeout - Duration::from_nanos(1));
    kad.run_to_end();
    assert!(kad.outcome(request).is_none() && kad.runs(query));
    let bound = bound(kad, query);
    kad.advance(Duration::from_nanos(1));
    let polls = kad.run_until_idle();
    assert_eq!(outcome_kind(kad, request), Some(OutcomeKind::Timeout));
    assert!(polls <= bound && !kad.runs(query), "{polls} polls");
    kad.check_end();
}

// ---- cancelled queries end

#[test]
fn a_put_cancelled_in_its_lookup_is_gone_at_the_next_poll() {
    let (mut kad, peers) = node_with_peers(PeerKind::Silent, 10, Setup::new(0));
    let request = kad.request_valid(operation(OperationKind::PutRecord, &peers));
    kad.run_to_end();
    let query = kad.query_of(request).unwrap();
    assert!(matches!(kad.kad.query(&query).unwrap().info(), QueryInfo::GetClosestPeers { .. }));
    kad.cancel(request);
    assert_eq!(kad.run_until_idle(), 1, "polls");
    assert!(!kad.runs(query) && cancelled(&kad, request));
    kad.check_end();
}

#[test]
fn a_put_cancelled_in_its_store_is_gone_at_the_next_poll() {
    let (mut kad, peers) = node_with_peers(PeerKind::Prompt, 10, Setup::new(0));
    let request = kad.request_valid(operation(OperationKind::PutRecord, &peers));
    kad.run_until_idle();
    let lookup = kad.query_of(request).unwrap();
    while kad.query_of(request) == Some(lookup) {
        assert!(kad.deliver_one(), "peers answer the lookup");
        kad.run_until_idle();
    }
    let store = kad.query_of(request).unwrap();
    assert!(matches!(kad.kad.query(&store).unwrap().info(), QueryInfo::PutRecord { .. }));
    kad.cancel(request);
    assert_eq!(kad.run_until_idle(), 1, "polls");
    assert!(!kad.runs(store) && cancelled(&kad, request));
    kad.check_end();
}

#[test]
fn a_bootstrap_cancelled_with_three_buckets_to_go_is_gone_after_a_poll_for_each_lookup_left() {
    for done in 0..=1 {
        let mut kad = four_buckets(Setup::new(0));
        let request = kad.request_valid(Operation::Bootstrap);
        kad.run_until_idle();
        let query = kad.query_of(request).unwrap();
        while kad.phases(query).done < done {
            assert!(kad.deliver_one(), "peers answer the lookup");
            kad.run_until_idle();
        }
        kad.cancel(request);
        let polls = kad.run_until_idle();
        assert!(!kad.runs(query) && cancelled(&kad, request));
        assert_eq!(kad.phases(query), Phases { done: 4, failed: 0 });
        assert_eq!(polls, 4 - done as usize, "polls: one for each lookup left");
        kad.check_end();
    }
}

#[test]
fn an_operation_cancelled_after_any_number_of_answers_is_gone_in_time() {
    for kind in KINDS {
        for steps in 0.. {
            let mut kad = four_buckets(Setup::new(steps));
            let peers = kad.peers(PeerKind::Prompt, 3);
            peers.iter().for_each(|peer| kad.add_contact(*peer));
            let request = kad.request_valid(operation(kind, &peers));
            kad.run_until_idle();
            for _ in 0..steps {
                kad.deliver_one();
                kad.run_until_idle();
            }
            let Some(query) = kad.query_of(request) else {
                assert!(steps > 3, "{kind} takes a few answers");
                break;
            };
            let bound = bound(&mut kad, query);
            kad.cancel(request);
            let polls = kad.run_until_idle();
            assert!(polls <= bound && !kad.runs(query), "{kind} after {steps} steps: {polls} polls");
            assert!(cancelled(&kad, request));
            kad.check_end();
        }
    }
}

#[test]
fn an_announcement_that_was_cancelled_is_taken_back_and_an_earlier_one_stays() {
    let (mut kad, peers) = node_with_peers(PeerKind::Prompt, 10, Setup::new(0));
    let announce = operation(OperationKind::StartProviding, &peers);
    for earlier in [false, true] {
        let request = kad.request_valid(announce.clone());
        kad.run_until_idle();
        assert!(provides(&mut kad));
        kad.cancel(request);
        kad.run_until_idle();
        assert_eq!(provides(&mut kad), earlier);
        let request = kad.request_valid(announce.clone());
        kad.run_to_end();
        assert_eq!(outcome_kind(&kad, request), Some(OutcomeKind::Answered));
        assert!(provides(&mut kad));
    }
    kad.check_end();
}

// ---- a bootstrap ends at its last event

#[test]
fn a_bootstrap_continues_after_a_lookup_that_times_out() {
    let mut setup = Setup::new(0);
    // Measured by kad's own clock. Lookups that are answered take a few milliseconds.
    setup.kad.set_query_timeout(Duration::from_secs(2));
    let mut kad = four_buckets(setup);
    let neighbours = kad.contacts();
    let request = kad.request_valid(Operation::Bootstrap);
    kad.run_until_idle();
    let query = kad.query_of(request).unwrap();
    let mut seen = vec![kad.phases(query)];
    until(&mut kad, |kad| {
        let phases = kad.phases(query);
        if seen.last() != Some(&phases) {
            seen.push(phases);
        }
        // No peer answers the second lookup.
        let kind = if phases.done == 1 { PeerKind::Silent } else { PeerKind::Prompt };
        neighbours.iter().for_each(|peer| kad.set_kind(*peer, kind));
        kad.deliver_one();
        kad.outcome(request).is_some()
    });
    let pending = [(0, 0), (1, 0), (2, 1), (3, 1), (4, 1)].map(|(done, failed)| Phases { done, failed });
    assert_eq!(seen, pending);
    let Some(Outcome::Bootstrap(Ok(answer))) = kad.outcome(request) else { panic!("{:?}", kad.outcome(request)) };
    assert_eq!((answer.phases, answer.failed), (4, 1));
    kad.check_end();
}

#[test]
fn a_bootstrap_whose_lookups_all_time_out_fails() {
    let mut setup = Setup::new(0);
    setup.kad.set_query_timeout(Duration::ZERO);
    let mut kad = four_buckets(setup);
    let request = kad.request_valid(Operation::Bootstrap);
    kad.run_until_idle();
    // If its first lookup fails, kad does not know which buckets to refresh.
    let Some(Outcome::Bootstrap(Err(BootstrapError::AllPhasesFailed { phases: 1, .. }))) = kad.outcome(request) else {
        panic!("{:?}", kad.outcome(request))
    };
    kad.check_end();
}

#[test]
fn kads_own_bootstrap_does_not_interfere_and_is_forwarded() {
    let mut setup = Setup::new(0);
    setup.kad.set_periodic_bootstrap_interval(Some(Duration::from_millis(1)));
    let mut kad = four_buckets(setup);
    until(&mut kad, |kad| !kad.foreign_queries().is_empty());
    let automatic = kad.foreign_queries()[0];
    let request = kad.request_valid(Operation::Bootstrap);
    kad.run_until_idle();
    let own_queries = kad.query_of(request).unwrap();
    assert!(kad.runs(automatic) && kad.runs(own_queries));
    // kad may start further bootstraps, so wait for the first one by its id.
    until(&mut kad, |kad| {
        kad.deliver_one();
        kad.outcome(request).is_some() && !kad.runs(automatic)
    });
    let Some(Outcome::Bootstrap(Ok(answer))) = kad.outcome(request) else { panic!("{:?}", kad.outcome(request)) };
    assert_eq!((answer.phases, answer.failed), (4, 0));
    let forwarded = kad.forwarded().iter().filter(|(id, _)| *id == automatic);
    assert_eq!(forwarded.filter(|(_, result)| matches!(result, QueryResult::Bootstrap(Ok(_)))).count(), 4);
    assert!(kad.forwarded().iter().all(|(id, _)| *id != own_queries));
    assert_eq!(kad.tracker.stats().unknown_inputs, 0);
    kad.check_end();
}

// ---- kad itself

#[test]
fn republishing_by_kad_is_forwarded() {
    let mut setup = Setup::new(0);
    // Not shorter: kad asserts that the next round is not due immediately.
    let soon = Some(Duration::from_millis(300));
    setup.kad.set_publication_interval(soon).set_replication_interval(soon).set_provider_publication_interval(soon);
    let (mut kad, peers) = node_with_peers(PeerKind::Prompt, 10, setup);
    for kind in [OperationKind::PutRecord, OperationKind::StartProviding] {
        let request = kad.request_valid(operation(kind, &peers));
        kad.run_to_end();
        assert_eq!(outcome_kind(&kad, request), Some(OutcomeKind::Answered));
    }
    let wanted: [fn(&QueryResult) -> bool; 2] =
        [|of| matches!(of, QueryResult::RepublishRecord(_)), |of| matches!(of, QueryResult::RepublishProvider(_))];
    until(&mut kad, |kad| {
        kad.deliver_one();
        wanted.iter().all(|wanted| kad.forwarded().iter().any(|(_, result)| wanted(result)))
    });
    assert!(kad.tracker.is_empty());
    kad.check_end();
}

#[test]
fn one_finish_ends_a_lookup_and_not_a_bootstrap() {
    let mut kad = four_buckets(Setup::new(0));
    kad.run_until_idle();
    let request = kad.request_valid(Operation::Bootstrap);
    kad.run_until_idle();
    let query = kad.query_of(request).unwrap();
    kad.kad.query_mut(&query).unwrap().finish();
    assert!(!kad.runs(query), "`query_mut` does not see it between a finish and the next poll");
    kad.run_until_idle();
    assert!(kad.runs(query), "then it is in its next lookup");
    assert_eq!(kad.phases(query).done, 1);
    kad.run_to_end();
    assert_eq!(outcome_kind(&kad, request), Some(OutcomeKind::Answered));
    kad.check_end();
}

// ---- helpers

/// Returns a node that knows this number of peers.
fn node_with_peers(kind: PeerKind, peers: usize, setup: Setup) -> (RealKad, Vec<PeerId>) {
    let mut kad = RealKad::new(setup);
    let peers = kad.peers(kind, peers);
    peers.iter().for_each(|peer| kad.add_contact(*peer));
    (kad, peers)
}

/// Returns a node that knows a prompt peer in each of the four farthest buckets. Its bootstrap looks up its own id and
/// then refreshes three buckets.
fn four_buckets(setup: Setup) -> RealKad {
    let mut kad = RealKad::new(setup);
    for bucket in 252..=255 {
        let peer = kad.peer_in_bucket(PeerKind::Prompt, bucket);
        kad.add_contact(peer);
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

/// Returns the maximum number of polls without result until an abandoned query is gone: one for each remaining lookup
/// of a bootstrap, and one for any other query.
fn bound(kad: &mut RealKad, query: QueryId) -> usize {
    match kad.kad.query(&query).map(|query| query.info().clone()) {
        Some(QueryInfo::Bootstrap { remaining: Some(remaining), .. }) => 1 + remaining.len(),
        // At the end of its first lookup, kad schedules a refresh of every bucket beyond the nearest peer's.
        Some(QueryInfo::Bootstrap { remaining: None, .. }) => {
            let nearest = kad.kad.kbuckets().find(|bucket| !bucket.is_empty()).unwrap();
            256 - usize::try_from(nearest.range().1.ilog2().unwrap()).unwrap()
        }
        _ => 1,
    }
}

fn outcome_kind(kad: &RealKad, request: RequestId) -> Option<OutcomeKind> {
    kad.outcome(request).map(OutcomeKind::of)
}

fn cancelled(kad: &RealKad, request: RequestId) -> bool {
    outcome_kind(kad, request) == Some(OutcomeKind::Cancelled)
}

fn provides(kad: &mut RealKad) -> bool {
    use libp2p::kad::store::RecordStore;
    kad.kad.store_mut().provided().any(|entry| entry.key == key())
}

/// Runs the loop until the condition holds: for what kad does on its own clock.
fn until(kad: &mut RealKad, mut condition: impl FnMut(&mut RealKad) -> bool) {
    let begun = Instant::now();
    while !condition(kad) {
        assert!(begun.elapsed() < LIMIT, "the condition did not hold within {LIMIT:?}");
        kad.run_until_idle();
    }
}
