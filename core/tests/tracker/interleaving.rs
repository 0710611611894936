//! Interleavings: in any order of requests and of kad's events for concurrent queries, each caller gets the result that
//! it would have got alone.
//!
//! Requests for the same key share a query, and a late one joins it: alone, it would get the events of that query.

use std::collections::BTreeMap;

use kadence_core::{Item, Operation, OperationKind, Outcome, Policy, Progress, Query, Quorum, REPLICATION_FACTOR};
use libp2p::kad::QueryResult;
use proptest::{collection::vec, prelude::*, sample::Index};

use crate::support::*;

type Event = (QueryResult, Progress);

/// A request, and kad's events for it.
#[derive(Debug, Clone)]
struct Script {
    operation: Operation,
    streaming: bool,
    /// Events of its query, or of its lookup if it is a put.
    events: Vec<Event>,
    /// End of the second query of a put.
    store: Event,
}

/// Identity of a shared query; `None` for those that are never shared.
type SharedQuery = Option<(OperationKind, Vec<u8>)>;

fn flight(operation: &Operation) -> SharedQuery {
    let key = operation.key().to_vec();
    match operation.kind() {
        kind @ (OperationKind::GetRecord | OperationKind::GetProviders) => Some((kind, key)),
        OperationKind::GetClosestPeers | OperationKind::PutRecord => Some((OperationKind::GetClosestPeers, key)),
        OperationKind::PutRecordTo | OperationKind::StartProviding | OperationKind::Bootstrap => None,
    }
}

/// A running query, and kad's remaining events for it.
struct Running {
    id: u32,
    events: Vec<Event>,
    played: usize,
}

/// Origin of a request's events.
#[derive(Debug, Clone, Copy)]
struct Source {
    /// Request whose script was played.
    script: usize,
    /// Number of events played before it joined.
    missed: usize,
}

struct Play<'a> {
    h: Harness,
    scripts: &'a [Script],
    running: Vec<Running>,
    /// Latest query of each shared query: the request that it was started for and its index in `running`.
    flights: BTreeMap<(OperationKind, Vec<u8>), (usize, usize)>,
    sources: Vec<Source>,
}

impl<'a> Play<'a> {
    fn new(scripts: &'a [Script], max_running: usize) -> Self {
        let h = Harness::new(validating().max_running(max_running));
        Self { h, scripts, running: Vec::new(), flights: BTreeMap::new(), sources: Vec::new() }
    }

    /// Makes the next request.
    fn ask(&mut self) {
        let request = self.sources.len();
        let script = &self.scripts[request];
        if script.streaming {
            self.h.stream(request as u64, script.operation.clone());
        } else {
            self.h.request(request as u64, script.operation.clone());
        }
        let flight = flight(&script.operation);
        let source = if self.h.starts.is_empty() {
            let (script, query) = self.flights[&flight.expect("only flights are joined")];
            Source { script, missed: self.running[query].played }
        } else {
            if let Some(flight) = flight {
                self.flights.insert(flight, (request, self.running.len()));
            }
            Source { script: request, missed: 0 }
        };
        self.sources.push(source);
        self.start();
    }

    fn start(&mut self) {
        while let Some(start) = self.h.starts.front().cloned() {
            let script = &self.scripts[start.request.0 as usize];
            let is_second = script.operation.kind() == OperationKind::PutRecord
                && matches!(start.query, Query::PutRecordTo { record: _, peers: _ });
            let events = if is_second { vec![script.store.clone()] } else { script.events.clone() };
            let id = self.h.start();
            self.running.push(Running { id, events, played: 0 });
        }
    }

    /// Plays kad's next event for a query.
    fn event(&mut self, query: usize) {
        let Running { id, events, played } = &mut self.running[query];
        let (result, progress) = events[*played].clone();
        *played += 1;
        self.h.ev_with(*id, result, progress, *played == events.len());
        self.start();
        while let Some((request, _)) = self.h.to_store.first() {
            let request = request.0;
            self.h.stored(request, Ok(()));
        }
    }

    /// Plays everything in the order that `order` picks.
    fn run(mut self, order: &[Index]) -> (Harness, Vec<Source>) {
        let mut order = order.iter().cycle();
        loop {
            let more = self.sources.len() < self.scripts.len();
            let unended = (0..self.running.len()).filter(|query| {
                let Running { id: _, events, played } = &self.running[*query];
                *played < events.len()
            });
            let mut next: Vec<_> = unended.map(Some).collect();
            next.extend(more.then_some(None));
            if next.is_empty() {
                break;
            }
            match next[order.next().map_or(0, |index| index.index(next.len()))] {
                Some(query) => self.event(query),
                None => self.ask(),
            }
        }
        self.h.assert_empty();
        (self.h, self.sources)
    }
}

/// The outcome without its progress, which is higher for a request that joins late.
fn without_progress(outcome: &Outcome) -> String {
    let mut debug = format!("{outcome:?}");
    while let Some(from) = debug.find("progress: Progress {") {
        let to = debug[from..].find('}').expect("a brace closes it");
        debug.replace_range(from..=from + to, "");
    }
    debug
}

/// Checks that a request's results are those of the sequential run.
fn check(script: &Script, source: Source, got: (&Outcome, &[Item]), alone: (&Outcome, &[Item])) {
    let case = format!("{script:?} from {source:?}");
    if source.missed == 0 {
        assert_eq!(format!("{got:?}"), format!("{alone:?}"), "{case}");
        return;
    }
    let policy = match &script.operation {
        Operation::GetRecord { key: _, policy } => Some(*policy),
        _ => None,
    };
    match (policy, alone.0) {
        // More records may have arrived than would have sufficed alone, and better ones.
        (Some(Policy::Quorum(needed)), Outcome::GetRecord(Ok(_))) => {
            let Outcome::GetRecord(Ok(answer)) = got.0 else { panic!("{case}: {got:?}") };
            assert!(answer.agreeing >= needed.of(REPLICATION_FACTOR), "{case}: {got:?}");
            assert!(got.1.starts_with(alone.1), "{case}");
        }
        (Some(Policy::Best { agree: Some(_) }), Outcome::GetRecord(Ok(_))) => {
            assert!(got.1.starts_with(alone.1), "{case}");
        }
        _ => {
            assert_eq!(without_progress(got.0), without_progress(alone.0), "{case}");
            assert_eq!(got.1, alone.1, "{case}");
        }
    }
}

fn a_policy() -> impl Strategy<Value = Policy> {
    prop_oneof![Just(Policy::First), (1..5_usize).prop_map(Policy::Limit), Just(Policy::All)]
}

fn a_record_policy() -> impl Strategy<Value = Policy> {
    let agree = prop_oneof![(1..4_u32).prop_map(|n| Some(Quorum::N(n))), Just(None)];
    prop_oneof![
        3 => a_policy(),
        1 => (1..4_u32).prop_map(|n| Policy::Quorum(Quorum::N(n))),
        1 => agree.prop_map(|agree| Policy::Best { agree }),
    ]
}

fn a_quorum() -> impl Strategy<Value = Quorum> {
    // Only `All`: with others a put would look for further peers, which no script has.
    prop_oneof![Just(Quorum::All)]
}

/// Two keys for up to six requests, so that some share one.
fn a_key() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just("/v/a"), Just("/v/b")]
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

type Plan = (Operation, Vec<QueryResult>);

fn a_get() -> impl Strategy<Value = Plan> {
    let end = an_end(vec![records_finished(), not_found(peers([7, 8])), get_timeout()]);
    // Few values, so that some agree, and one of them invalid.
    (a_key(), a_record_policy(), vec((1..10_u8, 0..4_u8, any::<bool>()), 0..8), end).prop_map(
        |(key, policy, finds, end)| {
            let found = finds.into_iter().map(|(from, value, local)| {
                let from = if local { None } else { Some(peer(from)) };
                found_at(key, from, &[value])
            });
            (get_record(key, policy), found.chain([end]).collect())
        },
    )
}

fn a_provider_lookup() -> impl Strategy<Value = Plan> {
    let end = an_end(vec![providers_finished(), providers_timeout()]);
    (a_key(), a_policy(), vec(some_peers(), 0..5), end).prop_map(|(key, policy, batches, end)| {
        (get_providers(key, policy), batches.into_iter().map(providers).chain([end]).collect())
    })
}

/// A put's lookup or an ordinary one: the two share.
fn a_lookup() -> impl Strategy<Value = Plan> {
    (a_key(), proptest::option::of(a_quorum()), some_peers(), any::<bool>()).prop_map(
        |(key, quorum, found, timeout)| {
            let operation = quorum.map_or_else(|| closest(key), |quorum| put(key, quorum));
            (operation, vec![if timeout { closest_timeout(found) } else { closest_found(found) }])
        },
    )
}

fn another() -> impl Strategy<Value = Plan> {
    let put_to = (a_key(), a_quorum(), some_peers())
        .prop_map(|(key, quorum, stored)| (put_to(key, peers(1..20), quorum), vec![put_timeout(peers(stored))]));
    let provide = (a_key(), any::<bool>())
        .prop_map(|(key, ok)| (provide(key), vec![if ok { provide_ok() } else { provide_timeout() }]));
    let bootstrap = vec(any::<bool>(), 1..5).prop_map(|phases| {
        let phases = phases.into_iter().map(|ok| if ok { bootstrap_ok(1) } else { bootstrap_timeout(None) });
        (Operation::Bootstrap, phases.collect())
    });
    prop_oneof![put_to, provide, bootstrap]
}

fn a_script() -> impl Strategy<Value = Script> {
    let plan = prop_oneof![3 => a_get(), 2 => a_provider_lookup(), 2 => a_lookup(), 1 => another()];
    let store = prop_oneof![Just(put_ok()), some_peers().prop_map(|stored| put_quorum_failed(peers(stored)))];
    (plan, any::<bool>(), vec(some_counts(), 10), store).prop_map(|((operation, results), streaming, counts, store)| {
        let mut counts = counts.into_iter();
        let mut with_counts = |result| (result, counts.next().unwrap_or_default());
        let store = with_counts(store);
        Script { operation, streaming, events: results.into_iter().map(with_counts).collect(), store }
    })
}

proptest! {
    #![proptest_config(property())]

    #[test]
    fn any_interleaving_gives_each_caller_the_result_of_the_sequential_run(
        scripts in vec(a_script(), 1..=6),
        order in vec(any::<Index>(), 60),
    ) {
        let (together, sources) = Play::new(&scripts, 32).run(&order);
        for (request, (script, source)) in (0..).zip(scripts.iter().zip(sources)) {
            let alone = [Script { events: scripts[source.script].events.clone(), ..script.clone() }];
            let (alone, _) = Play::new(&alone, 1).run(&[]);
            let got = (together.outcome(request), together.items(request));
            check(script, source, got, (alone.outcome(0), alone.items(0)));
        }
    }
}

/// Matching events in order of the requests instead of by id would give each the other's record.
#[test]
fn events_are_matched_by_id_and_not_by_order() {
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
fn two_callers_of_one_key_with_different_policies_each_get_their_own() {
    let mut h = Harness::default();
    h.request(1, get_record("k", Policy::First));
    h.request(2, get_record("k", Policy::Limit(2)));
    h.request(3, get_record("k", Policy::All));
    let id = h.start();
    assert!(h.starts.is_empty(), "one query for all");
    let values = |h: &Harness, request| match h.outcome(request) {
        Outcome::GetRecord(Ok(answer)) => answer.iter().map(|found| found.record.value[0]).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    for from in 1..=3 {
        h.ev(id, found("k", from, &[10 + from]), false);
        assert_eq!((h.ended(1), h.ended(2), h.ended(3)), (true, from >= 2, false));
    }
    assert!(h.finishes.is_empty(), "the third still wants it");
    h.ev(id, records_finished(), true);
    assert_eq!(values(&h, 1), [11]);
    assert_eq!(values(&h, 2), [11, 12]);
    assert_eq!(values(&h, 3), [11, 12, 13]);
    h.assert_empty();
}
