//! What is tried again, how the waits are drawn, and what an announcement does between its attempts.

use std::{sync::Arc, time::Duration};

use kadence_core::{
    BootstrapAnswer, BootstrapError, Candidate, Certainty, ClosestPeersAnswer, GetClosestPeersError, GetProvidersError,
    GetRecordError, InvalidRequestError, OperationKind, Outcome, Policy, ProvideAnswer, ProvidersAnswer, PutAnswer,
    PutRecordError, RecordAnswer, RequestError, RequestId, RequestOptions, Retry, StartProvidingError, TrackerConfig,
};
use libp2p::kad::{PeerInfo, PeerRecord, store};
use proptest::prelude::*;

use crate::support::*;

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

// ---- what is tried again

fn a_record() -> Arc<PeerRecord> {
    Arc::new(PeerRecord { peer: Some(peer(1)), record: record("k", b"value") })
}

fn candidate() -> Candidate {
    Candidate { record: a_record(), votes: 1 }
}

/// Fails to compile where an operation has a new error, so that the table gets it as well.
fn is_in_the_table(outcome: &Outcome) {
    match outcome {
        Outcome::GetRecord(Err(error)) => match error {
            GetRecordError::NotFound { .. } | GetRecordError::NoResponse { .. } | GetRecordError::Conflict { .. } => {}
            GetRecordError::QuorumNotReached { .. } | GetRecordError::Timeout { .. } => {}
            GetRecordError::NoKnownPeers | GetRecordError::Request(_) => {}
        },
        Outcome::PutRecord(Err(error)) | Outcome::PutRecordTo(Err(error)) => match error {
            PutRecordError::QuorumFailed { .. } | PutRecordError::NoResponse { .. } => {}
            PutRecordError::NotVerified { .. } => {}
            PutRecordError::InsufficientPeers { .. }
            | PutRecordError::Timeout { .. }
            | PutRecordError::Store { .. } => {}
            PutRecordError::NoKnownPeers | PutRecordError::Request(_) => {}
        },
        Outcome::GetProviders(Err(error)) => match error {
            GetProvidersError::NotFound { .. } | GetProvidersError::NoResponse { .. } => {}
            GetProvidersError::Timeout { .. } | GetProvidersError::NoKnownPeers | GetProvidersError::Request(_) => {}
        },
        Outcome::StartProviding(Err(error)) => match error {
            StartProvidingError::NoResponse { .. } | StartProvidingError::Timeout { .. } => {}
            StartProvidingError::Store(_) | StartProvidingError::NoKnownPeers | StartProvidingError::Request(_) => {}
        },
        Outcome::GetClosestPeers(Err(error)) => match error {
            GetClosestPeersError::NoResponse { .. } | GetClosestPeersError::Timeout { .. } => {}
            GetClosestPeersError::NoKnownPeers | GetClosestPeersError::Request(_) => {}
        },
        Outcome::Bootstrap(Err(error)) => match error {
            BootstrapError::AllPhasesFailed { .. } | BootstrapError::NoResponse { .. } => {}
            BootstrapError::Timeout { .. } | BootstrapError::NoKnownPeers | BootstrapError::Request(_) => {}
        },
        _ => assert!(outcome.is_ok(), "{outcome:?}"),
    }
}

/// Every way for a request to end, and whether another attempt may end otherwise.
fn table() -> Vec<(Outcome, bool)> {
    let progress = some_progress();
    let needed = nonzero(2);
    let some_peers = || vec![PeerInfo { peer_id: peer(1), addrs: Vec::new() }];
    let closest_peers = Vec::new;

    let mut table: Vec<(Outcome, bool)> = Vec::new();
    for (error, again) in [
        (
            GetRecordError::NotFound {
                closest_peers: closest_peers(),
                certainty: Certainty::Inconclusive,
                rejected: 0,
                progress,
                cached: None,
            },
            true,
        ),
        (
            GetRecordError::NotFound {
                closest_peers: closest_peers(),
                certainty: Certainty::Inconclusive,
                rejected: 1,
                progress,
                cached: None,
            },
            false,
        ),
        (
            GetRecordError::NotFound {
                closest_peers: closest_peers(),
                certainty: Certainty::Conclusive,
                rejected: 0,
                progress,
                cached: None,
            },
            false,
        ),
        (GetRecordError::NoResponse { progress }, true),
        (GetRecordError::NoKnownPeers, true),
        (GetRecordError::QuorumNotReached { candidate: candidate(), needed: 2 }, true),
        (GetRecordError::Conflict { candidates: vec![candidate(), candidate()], needed: 2 }, false),
        (GetRecordError::Timeout { found: Vec::new(), progress }, true),
        (GetRecordError::Timeout { found: vec![a_record()], progress }, false),
    ] {
        table.push((Outcome::GetRecord(Err(error)), again));
    }
    for (error, again) in [
        (PutRecordError::QuorumFailed { acknowledged: peers([1]), needed, asked: 2 }, true),
        (PutRecordError::NotVerified { acknowledged: peers([1]), verified: 1, needed: 2 }, true),
        (PutRecordError::NoResponse { progress }, true),
        (PutRecordError::InsufficientPeers { found: 1, needed }, true),
        (PutRecordError::NoKnownPeers, true),
        (PutRecordError::Timeout { sent_to: Vec::new(), progress }, false),
        (PutRecordError::Store { error: store::Error::MaxRecords, acknowledged: peers([1]) }, false),
    ] {
        table.push((Outcome::PutRecord(Err(error.clone())), again));
        table.push((Outcome::PutRecordTo(Err(error)), again));
    }
    for (error, again) in [
        (
            GetProvidersError::NotFound {
                closest_peers: closest_peers(),
                certainty: Certainty::Inconclusive,
                progress,
                cached: None,
            },
            true,
        ),
        (
            GetProvidersError::NotFound {
                closest_peers: closest_peers(),
                certainty: Certainty::Conclusive,
                progress,
                cached: None,
            },
            false,
        ),
        (GetProvidersError::NoResponse { progress }, true),
        (GetProvidersError::NoKnownPeers, true),
        (GetProvidersError::Timeout { found: Vec::new(), progress }, true),
        (GetProvidersError::Timeout { found: peers([1]), progress }, false),
    ] {
        table.push((Outcome::GetProviders(Err(error)), again));
    }
    for (error, again) in [
        (StartProvidingError::NoResponse { progress }, true),
        (StartProvidingError::Timeout { progress }, true),
        (StartProvidingError::NoKnownPeers, true),
        (StartProvidingError::Store(store::Error::MaxProvidedKeys), false),
    ] {
        table.push((Outcome::StartProviding(Err(error)), again));
    }
    for (error, again) in [
        (GetClosestPeersError::NoResponse { progress }, true),
        (GetClosestPeersError::NoKnownPeers, true),
        (GetClosestPeersError::Timeout { peers: Vec::new(), progress }, true),
        (GetClosestPeersError::Timeout { peers: some_peers(), progress }, false),
    ] {
        table.push((Outcome::GetClosestPeers(Err(error)), again));
    }
    for (error, again) in [
        (BootstrapError::AllPhasesFailed { phases: 2, progress }, true),
        (BootstrapError::NoResponse { progress }, true),
        (BootstrapError::NoKnownPeers, true),
        (BootstrapError::Timeout { phases: 1, failed: 1, progress }, false),
    ] {
        table.push((Outcome::Bootstrap(Err(error)), again));
    }

    // What the caller, the deadline or the request itself is to blame for.
    let common = || {
        [
            RequestError::Invalid(InvalidRequestError::ZeroLimit),
            RequestError::Overloaded,
            RequestError::ExpiredInQueue,
            RequestError::Cancelled,
            RequestError::Shutdown,
            RequestError::Refused(store_error()),
        ]
    };
    table.extend(OPERATIONS.into_iter().flat_map(|kind| common().map(|error| (Outcome::failed(kind, error), false))));

    // An answer is an answer.
    let put = PutAnswer { acknowledged: peers([1]), unacknowledged: peers([2]), verified: 0, progress };
    let get = RecordAnswer {
        record: a_record(),
        others: Vec::new(),
        agreeing: 1,
        dissenting: 0,
        repairing: 0,
        progress,
        cached: None,
    };
    let answers = [
        Outcome::GetRecord(Ok(get)),
        Outcome::PutRecord(Ok(put.clone())),
        Outcome::PutRecordTo(Ok(put)),
        Outcome::GetProviders(Ok(ProvidersAnswer { providers: peers([1]), progress, cached: None })),
        Outcome::StartProviding(Ok(ProvideAnswer { sent_to: 1, progress })),
        Outcome::GetClosestPeers(Ok(ClosestPeersAnswer { peers: some_peers(), progress })),
        Outcome::Bootstrap(Ok(BootstrapAnswer { phases: 2, failed: 1, progress })),
    ];
    table.extend(answers.map(|answer| (answer, false)));
    table
}

#[test]
fn only_what_another_attempt_may_change_is_retryable() {
    for (outcome, again) in table() {
        is_in_the_table(&outcome);
        assert_eq!(outcome.is_retryable(), again, "{outcome:?}");
    }
}

/// What kad says last, and whether the request is tried again: the same rule, in a tracker.
#[test]
fn what_is_retryable_is_tried_again_and_nothing_else_is() {
    use OperationKind as Op;
    let cases = [
        (Op::GetRecord, not_found(Vec::new()), some_progress(), true),
        (Op::GetRecord, get_timeout(), some_progress(), true),
        (Op::GetRecord, found("k", 1, b"value"), some_progress(), false),
        (Op::GetProviders, providers_finished(), some_progress(), true),
        (Op::GetProviders, providers([1]), some_progress(), false),
        (Op::GetClosestPeers, closest_found([]), all_failed(), true),
        (Op::GetClosestPeers, closest_timeout([]), some_progress(), true),
        (Op::GetClosestPeers, closest_timeout([1]), some_progress(), false),
        (Op::PutRecord, closest_found([]), all_failed(), true),
        (Op::PutRecordTo, put_quorum_failed(Vec::new()), all_failed(), true),
        (Op::PutRecordTo, put_timeout(Vec::new()), all_failed(), true),
        (Op::StartProviding, provide_timeout(), some_progress(), true),
        (Op::StartProviding, provide_ok(), all_failed(), true),
        (Op::Bootstrap, bootstrap_timeout(None), some_progress(), true),
        (Op::Bootstrap, bootstrap_ok(0), some_progress(), false),
    ];
    for (kind, last, progress, again) in cases {
        let mut h = Harness::default();
        h.request_with(
            1,
            ordinary(kind),
            RequestOptions { retry: Some(Retry::default()), ..RequestOptions::default() },
        );
        let id = h.start();
        h.ev_with(id, last.clone(), progress, true);
        assert_eq!(h.ended(1), !again, "{kind} at {last:?}");
        h.let_time_pass();
        h.assert_empty();
    }
    // What the local store refuses, it refuses again.
    let mut h = Harness::default();
    let options = RequestOptions { retry: Some(Retry::default()), ..RequestOptions::default() };
    h.request_with(1, provide("k"), options);
    h.refuse(store_error());
    assert_eq!(h.ending(1), "Store");
}

// ---- how the waits are drawn

const MANY: u32 = 6;

fn with_jitter(jitter_percent: u8) -> Retry {
    Retry { attempts: MANY + 1, base: millis(100), cap: secs(60), jitter_percent }
}

/// The waits of request `id` after each of its attempts.
fn waits(seed: u64, id: u64, retry: Retry) -> Vec<Duration> {
    let mut h = Harness::new(TrackerConfig { seed, ..TrackerConfig::default() });
    let options = RequestOptions { retry: Some(retry), timeout: Some(secs(1000)), ..RequestOptions::default() };
    h.request_with(id, get_record("k", Policy::All), options);
    let mut waits = Vec::new();
    for _ in 1..retry.attempts {
        let query = h.start();
        h.ev(query, not_found(Vec::new()), true);
        let due = h.timeout().expect("a retry is due");
        waits.push(due - h.now);
        h.tick(due);
    }
    waits
}

#[test]
fn the_same_seed_draws_the_same_waits_and_another_one_others() {
    let retry = with_jitter(50);
    assert_eq!(waits(7, 1, retry), waits(7, 1, retry));
    assert_ne!(waits(7, 1, retry), waits(8, 1, retry));
    assert_ne!(waits(7, 1, retry), waits(7, 2, retry), "those that failed together do not come back together");
    let relative: Vec<_> = (0..).zip(waits(7, 1, retry)).map(|(n, wait)| wait / (1 << n)).collect();
    assert!(relative.windows(2).any(|pair| pair[0].abs_diff(pair[1]) > millis(1)), "each attempt: {relative:?}");
}

/// Requests that failed together are spread over the whole of what is drawn by lot.
#[test]
fn the_waits_are_spread_evenly() {
    let mut quarters = [0; 4];
    for id in 0..400 {
        let wait = waits(3, id, Retry { attempts: 2, ..with_jitter(80) })[0];
        let quarter = (wait - millis(20)).as_micros() * 4 / 80_000;
        quarters[quarter.min(3) as usize] += 1;
    }
    assert!(quarters.iter().all(|quarter| (70..130).contains(quarter)), "{quarters:?}");
}

proptest! {
    #![proptest_config(property())]

    #[test]
    fn a_wait_is_never_longer_than_its_full_length_nor_shorter_by_more_than_its_jitter(
        seed in any::<u64>(),
        id in 0..RequestId::FIRST_RESERVED.0,
        jitter in any::<u8>(),
        cap in 1..10_000_u64,
    ) {
        let retry = Retry { cap: millis(cap), ..with_jitter(jitter) };
        for (attempt, wait) in (0..).zip(waits(seed, id, retry)) {
            let full = millis(100 * (1 << attempt)).min(millis(cap));
            let least = full - full * u32::from(jitter.min(100)) / 100;
            prop_assert!((least..=full).contains(&wait), "{wait:?} of {full:?} with {jitter} % by lot");
            prop_assert!(jitter > 0 || wait == full);
        }
    }
}

// ---- an announcement between its attempts

fn announce(h: &mut Harness, request: u64, attempts: u32) {
    let retry = Some(Retry { attempts, base: secs(1), cap: secs(1), jitter_percent: 0 });
    h.request_with(
        request,
        provide("k"),
        RequestOptions { retry, timeout: Some(secs(100)), ..RequestOptions::default() },
    );
}

/// While nobody was told, the local store does not say that we provide it.
#[test]
fn an_announcement_takes_its_entry_back_between_its_attempts() {
    let mut h = Harness::default();
    announce(&mut h, 1, 3);
    for attempt in 1..=3 {
        let id = h.start_with(false);
        assert_eq!(h.stopped.len(), attempt - 1);
        h.ev(id, provide_timeout(), true);
        assert_eq!(h.stopped.len(), attempt, "once for each attempt");
        h.tick(h.now + secs(1));
    }
    assert_eq!(h.ending(1), "Timeout");
    assert_eq!(h.stopped, [key("k"), key("k"), key("k")]);
    h.assert_empty();

    // One that is heard stays.
    let mut h = Harness::default();
    announce(&mut h, 1, 3);
    let first = h.start_with(false);
    h.ev(first, provide_timeout(), true);
    h.tick(secs(1));
    let second = h.start_with(false);
    h.ev(second, provide_ok(), true);
    assert_eq!((h.ending(1).as_str(), h.stopped.len()), ("Ok", 1));
    h.assert_empty();
}

#[test]
fn an_entry_that_was_there_before_stays_between_the_attempts() {
    let mut h = Harness::default();
    announce(&mut h, 1, 3);
    for _ in 0..3 {
        let id = h.start_with(true);
        h.ev(id, provide_timeout(), true);
        h.tick(h.now + secs(1));
    }
    assert_eq!(h.ending(1), "Timeout");
    assert!(h.stopped.is_empty());
    h.assert_empty();
}

#[test]
fn a_refused_attempt_has_no_entry_to_take_back() {
    let mut h = Harness::default();
    announce(&mut h, 1, 2);
    h.refuse(kadence_core::QueryStartError::NoKnownPeers);
    h.tick(secs(1));
    let id = h.start_with(false);
    h.ev(id, provide_ok(), true);
    assert_eq!(h.ending(1), "Ok");
    assert!(h.stopped.is_empty());
    h.assert_empty();
}

/// Cancelled, or at the end of its time, while there is nothing to take back.
#[test]
fn an_announcement_that_ends_while_it_backs_off_takes_nothing_back_twice() {
    for end in [|h: &mut Harness| h.cancel(1), |h: &mut Harness| h.shut_down(false)] {
        let mut h = Harness::default();
        announce(&mut h, 1, 3);
        let id = h.start_with(false);
        h.ev(id, provide_timeout(), true);
        end(&mut h);
        assert!(h.ended(1));
        assert_eq!(h.stopped.len(), 1);
        h.let_time_pass();
        assert_eq!(h.stopped.len(), 1);
        h.assert_empty();
    }
}

/// Another one of the same key that is alive, or was heard, keeps the entry.
#[test]
fn an_announcement_that_backs_off_leaves_the_entry_to_another_one() {
    for other_is_heard in [true, false] {
        let mut h = Harness::default();
        announce(&mut h, 1, 3);
        let first = h.start_with(false);
        h.request(2, provide("k"));
        let second = h.start_with(true);
        h.ev(first, provide_timeout(), true);
        assert!(h.stopped.is_empty(), "the second one is under way");
        h.ev(second, if other_is_heard { provide_ok() } else { provide_timeout() }, true);
        assert_eq!(h.stopped.len(), usize::from(!other_is_heard));
        // The next attempt of the first finds what the second has left.
        h.tick(secs(1));
        let third = h.start_with(other_is_heard);
        h.ev(third, provide_timeout(), true);
        assert_eq!(h.stopped.len(), if other_is_heard { 0 } else { 2 });
    }
}

/// One that backs off has no part in the entry, so its end takes nothing away from one that runs.
#[test]
fn an_announcement_that_ends_while_it_backs_off_leaves_the_entry_to_another_one() {
    let mut h = Harness::default();
    announce(&mut h, 1, 3);
    let first = h.start_with(false);
    h.request(2, provide("k"));
    let second = h.start_with(true);
    h.ev(first, provide_timeout(), true);
    h.cancel(1);
    assert!(h.stopped.is_empty(), "the second one is under way");
    h.ev(second, provide_ok(), true);
    assert!(h.stopped.is_empty());
    h.assert_empty();
}
