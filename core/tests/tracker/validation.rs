//! Validation: invalid requests are rejected at the call and change nothing, because they would fail silently later.

use std::sync::Arc;

use kadence_core::{
    InvalidRequestError, Operation, OperationKind, Policy, PutOptions, Quorum, RequestError, RequestOptions,
    TrackerConfig,
};
use libp2p::kad::{Record, RecordKey};

use crate::support::*;

fn long_key(len: usize) -> RecordKey {
    RecordKey::from(vec![b'k'; len])
}

/// The two operations that carry a record, with this one.
fn puts(record: &Record) -> [Operation; 2] {
    let record = Arc::new(record.clone());
    [
        Operation::PutRecord { record: Arc::clone(&record), quorum: Quorum::One, options: PutOptions::default() },
        Operation::PutRecordTo { record, peers: peers([1]), quorum: Quorum::One },
    ]
}

fn sized(key_len: usize, value_len: usize) -> Record {
    Record::new(long_key(key_len), vec![0; value_len])
}

#[track_caller]
fn assert_refused(operation: Operation, why: &InvalidRequestError) {
    let mut h = Harness::default();
    let debug = format!("{operation:?}");
    let error = h.ask(1, operation, RequestOptions::default()).unwrap_err();
    let RequestError::Invalid(invalid) = &error.0 else { panic!("{error:?}") };
    assert_eq!(invalid, why, "{debug}");
    assert!(h.trace.is_empty(), "{debug}");
    assert_eq!((h.tracker.stats().refused, h.tracker.stats().accepted), (1, 0));
    h.assert_empty();
}

#[track_caller]
fn assert_accepted(operation: Operation) {
    let mut h = Harness::default();
    h.request(1, operation);
    assert_eq!((h.starts.len(), h.tracker.stats().accepted, h.tracker.stats().refused), (1, 1, 0));
}

#[test]
fn a_key_may_be_as_long_as_the_limit_and_no_longer() {
    let with_key = |kind, len| match kind {
        OperationKind::GetRecord => Operation::GetRecord { key: long_key(len), policy: Policy::All },
        OperationKind::PutRecord => puts(&sized(len, 1))[0].clone(),
        OperationKind::PutRecordTo => puts(&sized(len, 1))[1].clone(),
        OperationKind::GetProviders => Operation::GetProviders { key: long_key(len), policy: Policy::All },
        OperationKind::StartProviding => Operation::StartProviding { key: long_key(len) },
        OperationKind::GetClosestPeers => Operation::GetClosestPeers { target: long_key(len), thorough: false },
        OperationKind::Bootstrap => Operation::Bootstrap,
    };
    for kind in OPERATIONS {
        assert_accepted(with_key(kind, 1024));
        if kind != OperationKind::Bootstrap {
            assert_refused(with_key(kind, 1025), &InvalidRequestError::KeyTooLong { len: 1025, max: 1024 });
        }
    }
}

/// A PUT_VALUE carries the key twice, and 4 KiB are reserved for what a response carries besides the record.
#[test]
fn a_value_may_be_as_long_as_the_packet_takes_and_no_longer() {
    for (key_len, max) in [(0, 12 * 1024), (1, 12 * 1024 - 2), (1024, 10 * 1024)] {
        for put in puts(&sized(key_len, max)) {
            assert_accepted(put);
        }
        for put in puts(&sized(key_len, max + 1)) {
            assert_refused(put, &InvalidRequestError::ValueTooLong { len: max + 1, max });
        }
    }
}

#[test]
fn the_limit_of_the_local_store_holds_in_a_network_of_larger_packets() {
    let config = TrackerConfig::default().max_packet_len(1024 * 1024);
    // kad's store rejects 65 KiB exactly.
    let max = 65 * 1024 - 1;
    let mut h = Harness::new(config);
    h.request(1, puts(&sized(10, max))[0].clone());
    let error = h.ask(2, puts(&sized(10, max + 1))[0].clone(), RequestOptions::default()).unwrap_err();
    let RequestError::Invalid(InvalidRequestError::ValueTooLong { max: limit, .. }) = error.0 else {
        panic!("{error:?}")
    };
    assert_eq!(limit, max);
}

/// Nothing fits into a packet smaller than the reserve: no overflow, and an empty value is still accepted.
#[test]
fn a_packet_limit_that_leaves_no_room_rejects_every_value() {
    let mut h = Harness::new(TrackerConfig::default().max_packet_len(100));
    assert!(h.ask(1, puts(&sized(1, 1))[0].clone(), RequestOptions::default()).is_err());
    h.request(2, puts(&sized(1, 0))[0].clone());
}

#[test]
fn an_expired_record_is_invalid() {
    let mut h = Harness::default();
    h.tick(secs(100));
    let expires_at = |h: &Harness, at| {
        let mut record = record("k", b"value");
        record.expires = Some(h.instant(secs(at)));
        puts(&record)
    };
    for at in [0, 99, 100] {
        for put in expires_at(&h, at) {
            let error = h.ask(1, put, RequestOptions::default()).unwrap_err();
            assert!(matches!(error.0, RequestError::Invalid(InvalidRequestError::RecordExpired)), "{at} s: {error:?}");
        }
    }
    for (id, put) in (1..).zip(expires_at(&h, 101)) {
        h.request(id, put);
    }
}

/// By the tracker's time: a clock that goes backwards does not make a record valid again.
#[test]
fn an_expired_record_stays_expired_when_the_clock_goes_backwards() {
    let mut h = Harness::default();
    h.tick(secs(100));
    h.now = secs(10);
    let mut record = record("k", b"value");
    record.expires = Some(h.instant(secs(50)));
    for put in puts(&record) {
        assert!(h.ask(1, put, RequestOptions::default()).is_err());
    }
}

#[test]
fn a_limit_of_zero_is_invalid() {
    assert_refused(get_record("k", Policy::Limit(0)), &InvalidRequestError::ZeroLimit);
    assert_refused(get_providers("k", Policy::Limit(0)), &InvalidRequestError::ZeroLimit);
    assert_accepted(get_record("k", Policy::Limit(1)));
    assert_accepted(get_providers("k", Policy::Limit(usize::MAX)));
}

#[test]
fn a_put_with_a_quorum_of_zero_is_invalid() {
    assert_refused(put("k", Quorum::N(0)), &InvalidRequestError::ZeroLimit);
    assert_refused(put_to("k", peers([1]), Quorum::N(0)), &InvalidRequestError::ZeroLimit);
}

#[test]
fn a_put_to_the_local_peer_only_is_invalid() {
    for quorum in [Quorum::One, Quorum::Majority, Quorum::All, n(3)] {
        assert_refused(put_to("k", Vec::new(), quorum), &InvalidRequestError::NoPeers);
        assert_refused(put_to("k", vec![local(), local()], quorum), &InvalidRequestError::NoPeers);
    }
}

/// Counted after duplicates and the local peer have been removed.
#[test]
fn a_quorum_above_the_number_of_named_peers_is_invalid() {
    let named = || vec![peer(1), local(), peer(2), peer(1), local(), peer(2)];
    for needed in [3, 4, 6, u32::MAX] {
        let why = InvalidRequestError::QuorumExceedsPeers { needed: needed as usize, peers: 2 };
        assert_refused(put_to("k", named(), Quorum::N(needed)), &why);
    }
    let of_one = InvalidRequestError::QuorumExceedsPeers { needed: 3, peers: 1 };
    assert_refused(put_to("k", peers([1]), n(3)), &of_one);
    for quorum in [Quorum::One, Quorum::Majority, Quorum::All, n(1), n(2)] {
        assert_accepted(put_to("k", named(), quorum));
    }
    // A put that looks for its peers may find more.
    assert_accepted(put("k", n(1000)));
}

#[test]
fn a_duplicate_id_is_invalid_and_leaves_the_first_request_running() {
    let mut h = Harness::one_slot();
    h.get(1, "running");
    h.get(2, "queued");
    for id in [1, 2] {
        let error = h.ask(id, closest("k"), RequestOptions::default()).unwrap_err();
        assert!(matches!(error.0, RequestError::Invalid(InvalidRequestError::DuplicateId)), "{error:?}");
    }
    for request in [1, 2] {
        h.start_all();
        let id = h.id_of(request);
        h.ev(id, not_found(Vec::new()), true);
        assert_eq!(h.outcome(request).kind(), OperationKind::GetRecord);
    }
    h.assert_empty();
}

/// An invalid request stays invalid; a full queue does not stay full.
#[test]
fn an_invalid_request_is_reported_even_if_the_queue_is_full() {
    let mut h = Harness::new(TrackerConfig::default().max_running(1).max_queued(0));
    h.get(1, "k");
    let error = h.ask(2, get_record("k", Policy::Limit(0)), RequestOptions::default()).unwrap_err();
    assert!(matches!(error.0, RequestError::Invalid(InvalidRequestError::ZeroLimit)), "{error:?}");
    let error = h.ask(2, get_record("other", Policy::All), RequestOptions::default()).unwrap_err();
    assert!(matches!(error.0, RequestError::Overloaded), "{error:?}");
}
