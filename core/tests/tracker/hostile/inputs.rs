//! Inputs of hostile schedules.

use std::time::Duration;

use kadence_core::{
    Network, OperationKind, Policy, Priority, Progress, Quorum, Reachability, RequestOptions, Retry, TrackerConfig,
};
use libp2p::kad::QueryResult;
use proptest::{collection::vec, prelude::*, sample::Index};

use crate::support::*;

#[derive(Debug, Clone)]
pub(super) enum Input {
    Ask {
        kind: Index,
        key: Index,
        policy: Policy,
        options: RequestOptions,
    },
    Cancel(Index),
    /// Answer to a start that waits for one.
    Answer(Index, Answer),
    /// Answer to any start so far.
    AnswerAgain(Index, Answer),
    /// Event that fits a live query, as kad would send it.
    Event {
        query: Index,
        result: Index,
        progress: Progress,
        last: bool,
    },
    /// Any result for any id.
    Noise {
        id: u32,
        result: Index,
        last: bool,
    },
    Stored {
        request: Index,
        ok: bool,
    },
    Forward(u64),
    Census(usize),
    /// The application has changed the local store.
    Written(Index),
    /// A query, known or not, does not do all that it could.
    CutShort(u32),
    Network(Network),
    /// The clock moves forwards and back again.
    Backward(u64),
    Shutdown {
        drain: bool,
    },
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Answer {
    Fresh {
        had_provider: bool,
    },
    /// Id that may be in use, or have been used.
    Taken(u32),
    NoKnownPeers,
    StoreError,
}

/// Few, so that requests share queries; the last one has a validator.
pub(super) const KEYS: [&str; 3] = ["a", "b", "/v/c"];

/// Operations; most are gets, because they have the most variants.
pub(super) const WANTED: [OperationKind; 10] = [
    OperationKind::GetRecord,
    OperationKind::GetRecord,
    OperationKind::GetRecord,
    OperationKind::GetRecord,
    OperationKind::PutRecord,
    OperationKind::PutRecordTo,
    OperationKind::GetProviders,
    OperationKind::StartProviding,
    OperationKind::GetClosestPeers,
    OperationKind::Bootstrap,
];

/// Few enough that schedules of some hundred inputs hit the ids of others.
const IDS: u32 = 40;

fn an_answer() -> impl Strategy<Value = Answer> {
    prop_oneof![
        8 => any::<bool>().prop_map(|had_provider| Answer::Fresh { had_provider }),
        1 => (0..IDS).prop_map(Answer::Taken),
        1 => Just(Answer::NoKnownPeers),
        1 => Just(Answer::StoreError),
    ]
}

fn a_policy() -> impl Strategy<Value = Policy> {
    let agree = prop_oneof![(0..4_u32).prop_map(|n| Some(Quorum::N(n))), Just(None)];
    prop_oneof![
        Just(Policy::First),
        (0..4_usize).prop_map(Policy::Limit),
        Just(Policy::All),
        (0..4_u32).prop_map(|n| Policy::Quorum(Quorum::N(n))),
        agree.prop_map(|agree| Policy::Best { agree }),
    ]
}

fn some_retry() -> impl Strategy<Value = Retry> {
    (0..5_u32, 0..3_000_u64, 0..5_000_u64, any::<u8>()).prop_map(|(attempts, base, cap, jitter_percent)| {
        Retry::default()
            .attempts(attempts)
            .base(Duration::from_millis(base))
            .cap(Duration::from_millis(cap))
            .jitter_percent(jitter_percent)
    })
}

fn some_options() -> impl Strategy<Value = RequestOptions> {
    let priority = proptest::sample::select(Priority::ALL.to_vec());
    let timeout = proptest::option::of((0..20_000_u64).prop_map(Duration::from_millis));
    (priority, proptest::option::of(some_retry()), timeout, any::<bool>(), proptest::bool::weighted(0.05)).prop_map(
        |(priority, retry, timeout, streaming, fresh)| {
            RequestOptions::default().priority(priority).retry(retry).timeout(timeout).streaming(streaming).fresh(fresh)
        },
    )
}

fn some_counts() -> impl Strategy<Value = Progress> {
    (0..3_u32, 0..3_u32, 0..3_u32).prop_map(|(requests, successes, failures)| Progress {
        requests,
        successes,
        failures,
    })
}

fn a_network() -> impl Strategy<Value = Network> {
    let reachability =
        prop_oneof![Just(Reachability::Unknown), Just(Reachability::Connected), Just(Reachability::Isolated)];
    (proptest::option::of(0..30_usize), reachability)
        .prop_map(|(size, reachability)| Network::default().size(size).reachability(reachability))
}

fn an_input() -> impl Strategy<Value = Input> {
    let ask = (any::<Index>(), any::<Index>(), a_policy(), some_options())
        .prop_map(|(kind, key, policy, options)| Input::Ask { kind, key, policy, options });
    let event = (any::<Index>(), any::<Index>(), some_counts(), proptest::bool::weighted(0.3))
        .prop_map(|(query, result, progress, last)| Input::Event { query, result, progress, last });
    let noise =
        (0..IDS, any::<Index>(), any::<bool>()).prop_map(|(id, result, last)| Input::Noise { id, result, last });
    prop_oneof![
        60 => ask,
        20 => any::<Index>().prop_map(Input::Cancel),
        80 => (any::<Index>(), an_answer()).prop_map(|(which, answer)| Input::Answer(which, answer)),
        5 => (any::<Index>(), an_answer()).prop_map(|(which, answer)| Input::AnswerAgain(which, answer)),
        100 => event,
        20 => noise,
        20 => (any::<Index>(), any::<bool>()).prop_map(|(request, ok)| Input::Stored { request, ok }),
        30 => (0..3_000_u64).prop_map(Input::Forward),
        3 => (0..100_000_u64).prop_map(Input::Forward),
        5 => (0..100_000_u64).prop_map(Input::Backward),
        5 => (0..200_usize).prop_map(Input::Census),
        5 => any::<Index>().prop_map(Input::Written),
        5 => (0..IDS).prop_map(Input::CutShort),
        5 => a_network().prop_map(Input::Network),
        1 => any::<bool>().prop_map(|drain| Input::Shutdown { drain }),
    ]
}

pub(super) fn a_schedule() -> impl Strategy<Value = Vec<Input>> {
    vec(an_input(), 100..500)
}

/// Every result that kad could send for a query of this kind and `key`, and some that are inconsistent.
pub(super) fn results(kind: OperationKind, key: &str) -> Vec<QueryResult> {
    match kind {
        OperationKind::GetRecord => vec![
            found("a", 1, b"value"),
            found("b", 2, b"other"),
            found_at(key, None, b"value"),
            found(key, 1, b"value"),
            found(key, 2, b"other"),
            found(key, 3, b"other"),
            found(key, 4, &[0]),
            records_finished(),
            not_found(peers([7])),
            get_timeout(),
        ],
        OperationKind::GetProviders => {
            vec![providers([]), providers([1, 2, 3]), providers([3, 4]), providers_finished(), providers_timeout()]
        }
        OperationKind::GetClosestPeers => {
            vec![closest_found([1, 2, 3]), closest_found([255]), closest_found([]), closest_timeout([4, 4])]
        }
        OperationKind::PutRecord | OperationKind::PutRecordTo => {
            vec![put_ok(), put_quorum_failed(peers([1, 1, 9])), put_timeout(Vec::new())]
        }
        OperationKind::StartProviding => vec![provide_ok(), provide_timeout()],
        OperationKind::Bootstrap => vec![bootstrap_ok(0), bootstrap_ok(3), bootstrap_timeout(None)],
    }
}

pub(super) fn config() -> impl Strategy<Value = TrackerConfig> {
    let limits = (1..5_usize, 0..6_usize, 1..5_usize, prop_oneof![Just(0), Just(5), Just(1024)]);
    (limits, 0..10_u64, any::<u64>(), [0..4_u32, 0..4_u32, 0..4_u32]).prop_map(
        |((max_running, max_queued, max_items, max_replay_bytes), finish_timeout, seed, shares)| {
            validating()
                .max_running(max_running)
                .max_queued(max_queued)
                .max_items(max_items)
                .max_replay_bytes(max_replay_bytes)
                .finish_timeout(secs(finish_timeout))
                .default_timeout(secs(15))
                .shares(shares)
                .seed(seed)
        },
    )
}
