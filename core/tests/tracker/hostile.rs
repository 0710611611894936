//! Random schedules of all inputs, legal and hostile: each accepted request has one outcome and nothing after it, no
//! more than the allowed slots are used, and time alone ends everything.
//!
//! The harness checks most of it at each action.

mod inputs;

use std::{cell::RefCell, collections::BTreeMap, time::Duration};

use kadence_core::{
    Operation, OperationKind, Policy, Query, QueryPhase, QueryStartError, Quorum, RequestOptions, RequestPhase, StepId,
    TrackerConfig,
};
use libp2p::kad::store;
use proptest::{prelude::*, test_runner::TestRunner};

use self::inputs::{Answer, Input, KEYS, WANTED, a_schedule, config, results};
use crate::support::*;

/// A tracker under test.
struct Play {
    h: Harness,
    requests: u64,
    steps: Vec<StepId>,
    /// Key of each query.
    keys: BTreeMap<u32, &'static str>,
    next_id: u32,
    refused: u64,
    /// Keys of the writes that have not ended, and of the fresh requests.
    writes: BTreeMap<u64, &'static str>,
    fresh: BTreeMap<u64, &'static str>,
    separated: Separated,
    /// Coverage: a request was backing off; a query had several waiters.
    backing_off: u64,
    shared: u64,
    stopped: u64,
}

/// Latest time at which the running queries of a kind and key were no longer joined.
#[derive(Default)]
struct Separated {
    latest: BTreeMap<(OperationKind, Vec<u8>), Duration>,
}

impl Separated {
    /// A write began or ended.
    fn reads(&mut self, key: &[u8], now: Duration) {
        for kind in [OperationKind::GetRecord, OperationKind::GetProviders] {
            self.latest.insert((kind, key.to_vec()), now);
        }
    }

    /// A fresh request may have started a query.
    fn all(&mut self, key: &[u8], now: Duration) {
        self.reads(key, now);
        self.latest.insert((OperationKind::GetClosestPeers, key.to_vec()), now);
    }
}

impl Play {
    fn new(config: TrackerConfig, shift: Duration) -> Self {
        Self {
            h: Harness::with_epoch(config, shift),
            requests: 0,
            steps: Vec::new(),
            keys: BTreeMap::new(),
            next_id: 0,
            refused: 0,
            writes: BTreeMap::new(),
            fresh: BTreeMap::new(),
            separated: Separated::default(),
            backing_off: 0,
            shared: 0,
            stopped: 0,
        }
    }

    fn apply(&mut self, input: &Input) {
        let h = &mut self.h;
        match *input {
            Input::Ask { kind, key, policy, options } => {
                let key = *key.get(&KEYS);
                let operation = match kind.get(&WANTED) {
                    OperationKind::GetRecord => get_record(key, policy),
                    OperationKind::PutRecord => put(key, n(2)),
                    OperationKind::PutRecordTo => put_to(key, peers([1, 2]), Quorum::Majority),
                    OperationKind::GetProviders => get_providers(key, policy),
                    OperationKind::StartProviding => provide(key),
                    OperationKind::GetClosestPeers => closest(key),
                    OperationKind::Bootstrap => Operation::Bootstrap,
                };
                let writes = matches!(
                    operation.kind(),
                    OperationKind::PutRecord | OperationKind::PutRecordTo | OperationKind::StartProviding
                );
                match h.ask(self.requests, operation, options) {
                    Ok(()) => {
                        if writes {
                            self.separated.reads(key.as_bytes(), h.now);
                            self.writes.insert(self.requests, key);
                        }
                        if options.fresh {
                            self.fresh.insert(self.requests, key);
                        }
                        self.requests += 1;
                    }
                    Err(_) => self.refused += 1,
                }
            }
            Input::Cancel(request) => h.cancel(request.index(self.requests as usize + 2) as u64),
            Input::Answer(which, answer) => {
                if !h.starts.is_empty() {
                    let start = h.starts.remove(which.index(h.starts.len())).expect("the index is one of them");
                    self.steps.push(start.step);
                    if let Query::GetRecord { key } = &start.query
                        && let Some(key) = KEYS.into_iter().find(|name| name.as_bytes() == key.as_ref())
                    {
                        self.keys.insert(self.next_id + 1, key);
                    }
                    self.answer(start.step, answer);
                }
            }
            Input::AnswerAgain(which, answer) => {
                if !self.steps.is_empty() {
                    self.answer(*which.get(&self.steps), answer);
                }
            }
            Input::Event { query, result, progress, last } => {
                let queries = h.tracker.snapshot(h.instant(h.now)).queries;
                let queries: Vec<_> = queries.iter().filter_map(|query| Some((query.id?, query.operation))).collect();
                if !queries.is_empty() {
                    let (id, kind) = *query.get(&queries);
                    let key = self.keys.get(&id).copied().unwrap_or(KEYS[0]);
                    h.ev_with(id, result.get(&results(kind, key)).clone(), progress, last);
                }
            }
            Input::Noise { id, result, last } => {
                let mut all: Vec<_> = OPERATIONS.into_iter().flat_map(|kind| results(kind, KEYS[0])).collect();
                all.extend([republished(), provider_republished()]);
                h.ev(id, result.get(&all).clone(), last);
            }
            Input::Stored { request, ok } => {
                let request = request.index(self.requests as usize + 2) as u64;
                // Half of the answers go to a start that waits for one.
                let request = h.to_store.first().filter(|_| request.is_multiple_of(2)).map_or(request, |(id, _)| id.0);
                h.stored(request, if ok { Ok(()) } else { Err(store::Error::MaxRecords) });
            }
            Input::Forward(millis) => h.tick(h.now + Duration::from_millis(millis)),
            Input::Backward(millis) => {
                let now = h.now;
                h.tick(now.saturating_sub(Duration::from_millis(millis)));
                h.now = now;
            }
            Input::Census(live) => {
                let (trace, due, slots) = (h.trace.len(), h.timeout(), h.tracker.live_queries());
                h.query_count(live);
                assert_eq!((h.trace.len(), h.timeout(), h.tracker.live_queries()), (trace, due, slots));
            }
            Input::Written(name) => {
                let (name, trace) = (*name.get(&KEYS), h.trace.len());
                h.written(key(name));
                assert_eq!(h.trace.len(), trace);
                self.separated.reads(name.as_bytes(), h.now);
            }
            Input::CutShort(id) => {
                let (trace, due) = (h.trace.len(), h.timeout());
                h.cut_short(id);
                assert_eq!((h.trace.len(), h.timeout()), (trace, due));
            }
            Input::Network(network) => {
                let (trace, due) = (h.trace.len(), h.timeout());
                h.network(network);
                assert_eq!((h.trace.len(), h.timeout()), (trace, due));
            }
            Input::Shutdown { drain } => h.shut_down(drain),
        }
        self.check();
    }

    fn answer(&mut self, step: StepId, answer: Answer) {
        let (result, had_provider) = match answer {
            Answer::Fresh { had_provider } => {
                self.next_id += 1;
                (Ok(self.next_id), had_provider)
            }
            Answer::Taken(id) => (Ok(id), false),
            Answer::NoKnownPeers => (Err(QueryStartError::NoKnownPeers), false),
            Answer::StoreError => (Err(store_error()), false),
        };
        self.h.started(step, result, had_provider);
    }

    /// Checks the invariants after every input, besides those that the harness checks at every action.
    fn check(&mut self) {
        let h = &mut self.h;
        for key in h.stopped.drain(..) {
            self.stopped += 1;
            self.separated.reads(key.as_ref(), h.now);
        }
        let h = &self.h;
        self.writes.retain(|request, key| {
            let ended = h.ended(*request);
            if ended {
                self.separated.reads(key.as_bytes(), h.now);
            }
            !ended
        });
        self.fresh.retain(|request, _| !h.ended(*request));
        self.fresh.values().for_each(|key| self.separated.all(key.as_bytes(), h.now));
        let snapshot = h.tracker.snapshot(h.instant(h.now));
        assert_eq!(snapshot.requests.len(), h.tracker.live_requests());
        assert_eq!(snapshot.queries.len(), h.tracker.live_queries());
        assert!(h.tracker.live_requests() == 0 || h.timeout().is_some(), "nothing would end the live requests");
        assert!(h.timeout().is_none_or(|due| due > h.now), "what is due was not done");
        let waiting = |phase| matches!(phase, RequestPhase::Queued | RequestPhase::BetweenSteps);
        if snapshot.requests.iter().any(|request| waiting(request.phase)) {
            assert_eq!(h.tracker.live_queries(), h.tracker.config().max_running, "a slot is free, and somebody waits");
        }
        // Each running request waits for one query, and each query that is not finishing has a request.
        let running: BTreeMap<_, _> = snapshot
            .requests
            .iter()
            .filter(|request| request.phase == RequestPhase::Running)
            .map(|request| (request.id, request))
            .collect();
        // Start of the latest query for the same; the queries are in the order of their creation.
        let mut flights = BTreeMap::<_, Duration>::new();
        let mut waiters = 0;
        for query in &snapshot.queries {
            waiters += query.waiters;
            let Some(request) = query.request else {
                assert_eq!((query.phase, query.waiters), (QueryPhase::Finishing, 0), "nobody wants it");
                continue;
            };
            assert_ne!(query.phase, QueryPhase::Finishing);
            let request = running.get(&request).expect("one who waits for a running query is running");
            let is_read = matches!(
                query.operation,
                OperationKind::GetRecord | OperationKind::GetProviders | OperationKind::GetClosestPeers
            );
            // A query that kad has been silent about is not joined.
            let may_be_silent = query.age >= h.tracker.config().finish_timeout;
            // A put may look for further peers elsewhere, and reads back in a query of its own.
            if request.operation == OperationKind::PutRecord {
                assert!(is_read || query.waiters == 1, "{query:?}");
            } else if is_read && !may_be_silent {
                let started = h.now.saturating_sub(query.age);
                let earlier = flights.insert((query.operation, request.key.clone()), started);
                let is_full = h.tracker.config().max_replay_bytes < 1000;
                let is_separated = |earlier| {
                    let at = self.separated.latest.get(&(query.operation, request.key.clone()));
                    at.is_some_and(|at| *at >= earlier)
                };
                let joins = |earlier| !is_full && !is_separated(earlier);
                assert!(!earlier.is_some_and(joins), "two queries for the same: {snapshot:?}");
            } else if !is_read {
                assert_eq!(query.waiters, 1, "{query:?}");
            }
            self.shared += u64::from(query.waiters > 1);
        }
        assert_eq!(waiters, running.len(), "{snapshot:?}");
        self.backing_off += u64::from(snapshot.requests.iter().any(|r| r.phase == RequestPhase::BackingOff));
        let stats = h.tracker.stats();
        assert_eq!((stats.accepted, stats.refused), (self.requests, self.refused));
    }

    /// Checks that no counter leaks: as many requests are admitted as at the beginning.
    fn check_room(mut self) {
        if self.h.tracker.is_shut_down() {
            return;
        }
        let room = self.h.tracker.config().max_running + self.h.tracker.config().max_queued;
        for request in 0..=room as u64 {
            let request = self.requests + request;
            let admitted = self.h.ask(request, get_record(&own_key(request), Policy::All), RequestOptions::default());
            assert_eq!(admitted.is_ok(), request - self.requests < room as u64, "{admitted:?}");
        }
    }
}

#[test]
fn one_outcome_each_and_time_alone_ends_everything() {
    // Coverage of all schedules: without it, a property that nothing bad happens would prove nothing.
    let reached = RefCell::new(BTreeMap::<String, u64>::new());
    let count = |what: &str, by: u64| *reached.borrow_mut().entry(what.to_owned()).or_default() += by;
    let schedules = (config(), a_schedule(), any::<bool>());
    let result = TestRunner::new(property()).run(&schedules, |(config, schedule, answered)| {
        let mut play = Play::new(config, Duration::ZERO);
        for input in &schedule {
            play.apply(input);
        }
        // From here on only time passes. Starts may stay unanswered too.
        if !answered {
            play.h.starts.clear();
        }
        play.h.let_time_pass();
        play.h.assert_empty();
        for request in 0..play.requests {
            count(&play.h.ending(request), 1);
        }
        let stats = play.h.tracker.stats();
        count("unknown", stats.unknown_inputs);
        count("mismatched", stats.mismatched_events);
        count("foreign", stats.foreign_records);
        count("lost", stats.lost_queries);
        count("refused", stats.refused);
        count("stopped", play.stopped + play.h.stopped.len() as u64);
        count("rejected", stats.rejected_records);
        count("backing off", play.backing_off);
        count("shared", play.shared);
        play.check_room();
        Ok(())
    });
    result.unwrap_or_else(|failure| panic!("{failure}"));
    let reached = reached.into_inner();
    for what in [
        "Ok",
        "NotFound",
        "Timeout",
        "NoKnownPeers",
        "NoResponse",
        "InsufficientPeers",
        "QuorumFailed",
        "Store",
        "AllPhasesFailed",
        "ExpiredInQueue",
        "Cancelled",
        "Shutdown",
        "Refused",
        "Conflict",
        "QuorumNotReached",
        "unknown",
        "mismatched",
        "foreign",
        "lost",
        "refused",
        "stopped",
        "rejected",
        "backing off",
        "shared",
    ] {
        assert!(reached.get(what).is_some_and(|times| *times >= 10), "{what} was hardly reached: {reached:?}");
    }
}

proptest! {
    #![proptest_config(property())]

    /// The same inputs give the same actions with any epoch.
    #[test]
    fn two_runs_give_the_same_actions_with_any_epoch(config in config(), schedule in a_schedule()) {
        let trace = |shift| {
            let mut play = Play::new(config.clone(), shift);
            for input in &schedule {
                play.apply(input);
            }
            play.h.let_time_pass();
            play.h.trace
        };
        prop_assert_eq!(trace(Duration::ZERO), trace(Duration::from_nanos(123_456_789_012_345)));
    }
}
