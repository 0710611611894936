//! Ends of queries: each operation with each terminal event has one outcome of the right variant.

use kadence_core::{InvalidRequestError, OperationKind, QueryStartError, Quorum, RequestError, RequestOptions};
use libp2p::kad::QueryResult;

use crate::support::*;

/// Eight ways for a query to end, or not to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Input {
    Success,
    FinishedWithoutResult,
    NotFound,
    Timeout,
    QuorumFailed,
    StoreErrorAtStart,
    NoKnownPeersAtStart,
    NoPeersAtAll,
}

const INPUTS: [Input; 8] = [
    Input::Success,
    Input::FinishedWithoutResult,
    Input::NotFound,
    Input::Timeout,
    Input::QuorumFailed,
    Input::StoreErrorAtStart,
    Input::NoKnownPeersAtStart,
    Input::NoPeersAtAll,
];

/// Expected outcome of a request of this kind; `None` if the input cannot belong to it.
fn expected(kind: OperationKind, input: Input) -> Option<&'static str> {
    use OperationKind as Op;
    match (kind, input) {
        (_, Input::Success) => Some("Ok"),
        (_, Input::NoKnownPeersAtStart) => Some("NoKnownPeers"),
        (Op::StartProviding, Input::StoreErrorAtStart) => Some("Store"),
        (_, Input::StoreErrorAtStart) => Some("Refused"),

        (Op::PutRecordTo, Input::FinishedWithoutResult) => None,
        // All requests failed, which says nothing about records.
        (_, Input::FinishedWithoutResult) => Some("NoResponse"),

        (Op::GetRecord, Input::NotFound) => Some("NotFound"),
        (_, Input::NotFound) => None,

        (Op::GetRecord | Op::GetProviders | Op::StartProviding | Op::GetClosestPeers, Input::Timeout) => {
            Some("Timeout")
        }
        // A store that kad timed out counts the peers that acknowledged: none.
        (Op::PutRecord | Op::PutRecordTo, Input::Timeout) => Some("QuorumFailed"),
        (Op::Bootstrap, Input::Timeout) => Some("AllPhasesFailed"),

        (Op::PutRecord | Op::PutRecordTo, Input::QuorumFailed) => Some("QuorumFailed"),
        (_, Input::QuorumFailed) => None,

        // The caller named the peers, so the routing table is not to blame.
        (Op::PutRecordTo, Input::NoPeersAtAll) => Some("QuorumFailed"),
        (_, Input::NoPeersAtAll) => Some("NoKnownPeers"),
    }
}

/// kad's result for the input: the last event of a query of this kind. The second step of a put is a store.
fn last_event(kind: OperationKind, input: Input) -> QueryResult {
    use OperationKind as Op;
    match (kind, input) {
        (_, Input::NotFound) => not_found(peers([7])),
        (Op::PutRecordTo, Input::NoPeersAtAll) | (_, Input::QuorumFailed) => put_quorum_failed(Vec::new()),
        (Op::GetRecord, Input::Timeout) => get_timeout(),
        (Op::GetRecord, Input::NoPeersAtAll) => not_found(Vec::new()),
        (Op::GetRecord, _) | (Op::PutRecordTo, Input::FinishedWithoutResult) => records_finished(),
        (Op::PutRecordTo, Input::Timeout) => put_timeout(Vec::new()),
        (Op::PutRecordTo, _) => put_ok(),
        (Op::GetProviders, Input::Timeout) => providers_timeout(),
        (Op::GetProviders, _) => providers_finished(),
        (Op::StartProviding, Input::Timeout) => provide_timeout(),
        (Op::StartProviding, _) => provide_ok(),
        (Op::GetClosestPeers, Input::Timeout) => closest_timeout([]),
        (Op::GetClosestPeers, Input::Success) => closest_found([1]),
        (Op::GetClosestPeers | Op::PutRecord, _) => closest_found([]),
        (Op::Bootstrap, Input::Timeout) => bootstrap_timeout(None),
        (Op::Bootstrap, _) => bootstrap_ok(0),
    }
}

/// Plays one cell of the table, including the last event.
fn play(kind: OperationKind, input: Input) -> Harness {
    let mut h = Harness::one_slot();
    h.request(1, ordinary(kind));
    match input {
        Input::StoreErrorAtStart => {
            h.refuse(store_error());
            return h;
        }
        Input::NoKnownPeersAtStart => {
            h.refuse(QueryStartError::NoKnownPeers);
            return h;
        }
        // Without peers, kad does not start a bootstrap; all other queries start.
        Input::NoPeersAtAll if kind == OperationKind::Bootstrap => {
            h.refuse(QueryStartError::NoKnownPeers);
            return h;
        }
        _ => {}
    }
    let mut id = h.start();
    let mut last = kind;
    match (kind, input) {
        (OperationKind::GetRecord, Input::Success) => h.ev(id, found("k", 1, b"value"), false),
        (OperationKind::GetProviders, Input::Success) => h.ev(id, providers([1]), false),
        (OperationKind::PutRecord, Input::Success | Input::Timeout | Input::QuorumFailed) => {
            h.ev(id, closest_found([1]), true);
            id = h.start();
            last = OperationKind::PutRecordTo;
        }
        _ => {}
    }
    let progress = match input {
        Input::FinishedWithoutResult => all_failed(),
        Input::NoPeersAtAll => nobody(),
        _ => some_progress(),
    };
    h.ev_with(id, last_event(last, input), progress, true);
    if kind == OperationKind::PutRecord && !h.starts.is_empty() {
        // No peer has acknowledged the record: others are looked for, and not found.
        let further = h.start();
        h.ev_with(further, closest_found([]), nobody(), true);
    }
    if kind == OperationKind::PutRecord && input == Input::Success {
        assert!(!h.ended(1), "a put is over when its own node has the record too");
        h.stored(1, Ok(()));
    }
    h
}

#[test]
fn every_terminal_event_ends_its_request_once_with_the_right_variant() {
    for kind in OPERATIONS {
        for input in INPUTS {
            let Some(ending) = expected(kind, input) else { continue };
            let h = play(kind, input);
            assert!(h.ended(1), "{kind} hangs at {input:?}");
            assert_eq!(h.ending(1), ending, "{kind} at {input:?}");
            assert_eq!(h.outcome(1).kind(), kind);
            assert_eq!(h.outcome(1).is_ok(), ending == "Ok");
            assert!(h.finishes.is_empty(), "{kind} at {input:?}: kad had ended the query by itself");
            assert_eq!(h.tracker.stats().mismatched_events, 0, "{kind} at {input:?}");
            h.assert_empty();
        }
    }
}

/// An event that cannot belong to the query changes nothing, last or not; the deadline ends the request once.
#[test]
fn an_event_of_another_operation_is_ignored_and_the_deadline_ends_the_request() {
    let mut cells = 0;
    for kind in OPERATIONS {
        for input in INPUTS {
            if expected(kind, input).is_some() {
                continue;
            }
            cells += 1;
            let mut h = play(kind, input);
            assert!(!h.ended(1), "{kind} was ended by {input:?}");
            assert_eq!(h.tracker.stats().mismatched_events, 1, "{kind} at {input:?}");
            assert_eq!(h.tracker.live_queries(), 1, "{kind} at {input:?}");
            h.tick(secs(30));
            assert_eq!(h.ending(1), "Timeout", "{kind} at {input:?}");
            assert_eq!(h.finishes, [h.id_of(1)]);
            h.tick(secs(60));
            h.assert_empty();
        }
    }
    // NotFound: all but the get. QuorumFailed: all but the puts. An empty end of a read: put_record_to.
    assert_eq!(cells, 6 + 5 + 1);
}

/// The same for results of work that kad does on its own.
#[test]
fn results_of_kads_own_jobs_are_ignored() {
    for kind in OPERATIONS {
        for result in [republished(), provider_republished()] {
            let mut h = Harness::default();
            h.request(1, ordinary(kind));
            let id = h.start();
            h.ev(id, result, true);
            assert!(!h.ended(1), "{kind}");
            assert_eq!(h.tracker.stats().mismatched_events, 1);
        }
    }
}

/// Without any peer a put to named peers is invalid.
#[test]
fn a_put_to_no_peer_is_invalid() {
    for nobody in [Vec::new(), vec![local()]] {
        let mut h = Harness::default();
        let error = h.ask(1, put_to("k", nobody, Quorum::One), RequestOptions::default()).unwrap_err();
        assert!(matches!(error.0, RequestError::Invalid(InvalidRequestError::NoPeers)), "{error:?}");
        h.assert_empty();
    }
}

/// Only `last` is terminal: a result that looks like an end is progress without it.
#[test]
fn only_last_ends_a_query() {
    for kind in OPERATIONS {
        for input in [Input::Success, Input::Timeout] {
            let mut h = Harness::one_slot();
            h.request(1, ordinary(kind));
            let id = h.start();
            h.ev(id, last_event(kind, input), false);
            assert!(!h.ended(1), "{kind} was ended by {input:?} without last");
            assert_eq!((h.tracker.live_queries(), h.starts.len()), (1, 0), "{kind} at {input:?}");
            assert!(h.finishes.is_empty());
        }
    }
}
