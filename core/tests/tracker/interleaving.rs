//! T1: no cross-talk. Whatever the order in which kad's events of concurrent queries arrive, each caller gets what it
//! would have got alone.

use kadence_core::{Item, Operation, Outcome, Policy, Progress};
use libp2p::kad::{QueryResult, Quorum};
use proptest::{collection::vec, prelude::*, sample::Index};

use crate::support::*;

/// A request and all that kad says for it, one list of events for each of its queries.
#[derive(Debug, Clone)]
struct Script {
    operation: Operation,
    streaming: bool,
    queries: Vec<Vec<(QueryResult, Progress)>>,
}

/// Where the play of one script has got to.
struct Cursor {
    script: Script,
    query: usize,
    event: usize,
}

impl Cursor {
    /// Plays the next event. Whether there is one more.
    fn step(&mut self, h: &mut Harness, request: u64) -> bool {
        let Some(events) = self.script.queries.get(self.query) else { return false };
        let (result, progress) = events[self.event].clone();
        self.event += 1;
        let last = self.event == events.len();
        let id = h.id_of(request);
        h.ev_with(id, result, progress, last);
        if last {
            (self.query, self.event) = (self.query + 1, 0);
        }
        // The further step of a put, and its record.
        h.start_all();
        if h.to_store.iter().any(|(id, _)| id.0 == request) {
            h.stored(request, Ok(()));
        }
        self.query < self.script.queries.len()
    }
}

type Result = (String, Vec<Item>);

fn results(h: &Harness, requests: usize) -> Vec<Result> {
    (0..requests as u64).map(|request| (format!("{:?}", h.outcome(request)), h.items(request).to_vec())).collect()
}

fn ask(h: &mut Harness, request: u64, script: &Script) {
    if script.streaming {
        h.stream(request, script.operation.clone());
    } else {
        h.request(request, script.operation.clone());
    }
}

/// One after the other, each alone in the tracker.
fn sequential(scripts: &[Script]) -> Vec<Result> {
    let mut h = Harness::one_slot();
    for (request, script) in (0..).zip(scripts) {
        ask(&mut h, request, script);
        h.start_all();
        let mut cursor = Cursor { script: script.clone(), query: 0, event: 0 };
        while cursor.step(&mut h, request) {}
        assert!(h.tracker.is_empty(), "a script ends its query");
    }
    results(&h, scripts.len())
}

/// All at once, the next event each time from the script that `order` picks.
fn interleaved(scripts: &[Script], order: &[Index]) -> Vec<Result> {
    let mut h = Harness::default();
    for (request, script) in (0..).zip(scripts) {
        ask(&mut h, request, script);
    }
    h.start_all();
    let scripts_len = scripts.len();
    let mut left: Vec<_> = (0..)
        .zip(scripts)
        .map(|(request, script)| (request, Cursor { script: script.clone(), query: 0, event: 0 }))
        .collect();
    let mut order = order.iter().cycle();
    while !left.is_empty() {
        let at = order.next().map_or(0, |index| index.index(left.len()));
        let (request, cursor) = &mut left[at];
        if !cursor.step(&mut h, *request) {
            left.swap_remove(at);
        }
    }
    h.assert_empty();
    results(&h, scripts_len)
}

fn a_policy() -> impl Strategy<Value = Policy> {
    prop_oneof![Just(Policy::First), (1..5_usize).prop_map(Policy::Limit), Just(Policy::All)]
}

fn a_quorum() -> impl Strategy<Value = Quorum> {
    prop_oneof![Just(Quorum::One), Just(Quorum::Majority), Just(Quorum::All), (1..6_usize).prop_map(n)]
}

/// Two keys for up to six requests, so that some share one.
fn a_key() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just("a"), Just("b")]
}

fn some_peers() -> impl Strategy<Value = Vec<u8>> {
    vec(1..40_u8, 0..6)
}

fn some_counts() -> impl Strategy<Value = Progress> {
    (0..20_u32, 0..10_u32, 0..10_u32).prop_map(|(requests, successes, failures)| Progress {
        requests,
        successes,
        failures,
    })
}

fn an_end(ends: Vec<QueryResult>) -> impl Strategy<Value = QueryResult> {
    any::<Index>().prop_map(move |index| index.get(&ends).clone())
}

fn a_get() -> impl Strategy<Value = (Operation, Vec<Vec<QueryResult>>)> {
    let end = an_end(vec![records_finished(), not_found(peers([7, 8])), get_timeout()]);
    (a_key(), a_policy(), vec((1..10_u8, any::<u8>(), any::<bool>()), 0..6), end).prop_map(
        |(key, policy, finds, end)| {
            let found = finds.into_iter().map(|(from, value, local)| {
                let from = if local { None } else { Some(peer(from)) };
                found_at(key, from, &[value])
            });
            (get_record(key, policy), vec![found.chain([end]).collect()])
        },
    )
}

fn a_provider_lookup() -> impl Strategy<Value = (Operation, Vec<Vec<QueryResult>>)> {
    let end = an_end(vec![providers_finished(), providers_timeout()]);
    (a_key(), a_policy(), vec(some_peers(), 0..5), end).prop_map(|(key, policy, batches, end)| {
        (get_providers(key, policy), vec![batches.into_iter().map(providers).chain([end]).collect()])
    })
}

fn a_put() -> impl Strategy<Value = (Operation, Vec<Vec<QueryResult>>)> {
    (a_key(), a_quorum(), some_peers(), some_peers(), any::<bool>()).prop_map(|(key, quorum, close, stored, all)| {
        let end = if all { put_ok() } else { put_quorum_failed(peers(stored)) };
        let mut distinct = close.clone();
        distinct.sort_unstable();
        distinct.dedup();
        let enough = match quorum {
            Quorum::N(n) => n.get() <= distinct.len(),
            _ => !distinct.is_empty(),
        };
        let mut queries = vec![vec![closest_found(close)]];
        if enough {
            queries.push(vec![end]);
        }
        (put(key, quorum), queries)
    })
}

fn another() -> impl Strategy<Value = (Operation, Vec<Vec<QueryResult>>)> {
    let closest = (a_key(), some_peers(), any::<bool>()).prop_map(|(key, found, timeout)| {
        (closest(key), vec![vec![if timeout { closest_timeout(found) } else { closest_found(found) }]])
    });
    let put_to = (a_key(), a_quorum(), some_peers())
        .prop_map(|(key, quorum, stored)| (put_to(key, peers(1..20), quorum), vec![vec![put_timeout(peers(stored))]]));
    let provide = (a_key(), any::<bool>())
        .prop_map(|(key, ok)| (provide(key), vec![vec![if ok { provide_ok() } else { provide_timeout() }]]));
    let bootstrap = vec(any::<bool>(), 1..5).prop_map(|phases| {
        let phases = phases.into_iter().map(|ok| if ok { bootstrap_ok(1) } else { bootstrap_timeout(None) });
        (Operation::Bootstrap, vec![phases.collect()])
    });
    prop_oneof![closest, put_to, provide, bootstrap]
}

fn a_script() -> impl Strategy<Value = Script> {
    let plan = prop_oneof![2 => a_get(), 2 => a_provider_lookup(), 2 => a_put(), 2 => another()];
    (plan, any::<bool>(), vec(some_counts(), 8)).prop_map(|((operation, queries), streaming, counts)| {
        let mut counts = counts.into_iter().cycle();
        let mut with_counts = |result| (result, counts.next().unwrap_or_default());
        let queries = queries.into_iter().map(|events| events.into_iter().map(&mut with_counts).collect()).collect();
        Script { operation, streaming, queries }
    })
}

proptest! {
    #![proptest_config(property())]

    #[test]
    fn t1_any_interleaving_gives_each_caller_the_result_of_the_sequential_run(
        scripts in vec(a_script(), 1..=6),
        order in vec(any::<Index>(), 60),
    ) {
        prop_assert_eq!(interleaved(&scripts, &order), sequential(&scripts));
    }
}

/// A first in, first out list instead of the id gives each the other's record.
#[test]
fn t1_an_answer_belongs_to_the_id_and_not_to_the_oldest_question() {
    let mut h = Harness::default();
    h.request(1, get_record("missing", Policy::First));
    h.request(2, get_record("there", Policy::First));
    h.start_all();
    let (missing, there) = (h.id_of(1), h.id_of(2));
    h.ev(there, found("there", 1, b"value"), false);
    h.ev(missing, not_found(Vec::new()), true);
    assert_eq!(h.ending(1), "NotFound");
    let Outcome::GetRecord(Ok(answer)) = h.outcome(2) else { panic!("{:?}", h.outcome(2)) };
    assert_eq!(answer.value(), b"value");
}

#[test]
fn t1_two_callers_of_one_key_with_different_policies_each_get_their_own() {
    let mut h = Harness::default();
    h.request(1, get_record("k", Policy::First));
    h.request(2, get_record("k", Policy::Limit(2)));
    h.request(3, get_record("k", Policy::All));
    h.start_all();
    let values = |h: &Harness, request| match h.outcome(request) {
        Outcome::GetRecord(Ok(answer)) => answer.iter().map(|found| found.record.value[0]).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    for from in 1..=3 {
        // Each caller's query finds records in an order of its own.
        for request in 1..=3 {
            let id = h.id_of(request);
            h.ev(id, found("k", from, &[10 * request as u8 + from]), false);
        }
        assert_eq!((h.ended(1), h.ended(2), h.ended(3)), (true, from >= 2, false));
    }
    let third = h.id_of(3);
    h.ev(third, records_finished(), true);
    assert_eq!(values(&h, 1), [11]);
    assert_eq!(values(&h, 2), [21, 22]);
    assert_eq!(values(&h, 3), [31, 32, 33]);
    assert_eq!(h.finishes, [h.id_of(1), h.id_of(2)]);
}
