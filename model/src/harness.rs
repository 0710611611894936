//! Harness that runs the tracker and its model side by side.

use std::{
    collections::BTreeMap,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use kadence_core::{
    Action, Certainty, ClosestPeersAnswer, Command, GetProvidersError, GetRecordError, Item, LogValues, Operation,
    OperationKind, Outcome, OutcomeKind, Progress, PutAnswer, Query, QueryEvent, QueryStartError, QueryTracker,
    RecordAnswer, Request, RequestId, Started, StepId, replay,
};
use libp2p::kad::{PeerRecord, Record, RecordKey, store};

use crate::{
    fixtures::{key, local, peer, peers, validators, value},
    input::{AnyEvent, ClockStep, Input, RequestInput, StartAnswer, arbitrary_config},
    kad::{KadQuery, any_result},
    promises::Promises,
    reference::{Counters, Expected, Model},
};

/// Number of ids that hostile inputs choose from. Small enough that schedules of some hundred inputs reuse ids.
const IDS: u8 = 40;

const OPERATIONS: [OperationKind; 7] = [
    OperationKind::GetRecord,
    OperationKind::PutRecord,
    OperationKind::PutRecordTo,
    OperationKind::GetProviders,
    OperationKind::StartProviding,
    OperationKind::GetClosestPeers,
    OperationKind::Bootstrap,
];

/// Runs a schedule on the tracker and on its model. Panics where they differ.
pub struct Harness {
    epoch: Instant,
    now: Instant,
    /// Time of the latest input.
    last_time: Instant,
    tracker: QueryTracker<u32>,
    model: Model,
    /// All steps so far: number in the model, id in the tracker, and query.
    steps: Vec<(u64, StepId, Query)>,
    /// Starts that kad has not answered.
    awaiting_start: Vec<u64>,
    /// Probes that kad has not answered.
    awaiting_probe: Vec<u32>,
    /// Puts that wait for peers of the routing table.
    awaiting_local_peers: Vec<RequestId>,
    /// Puts that the local store has not answered.
    awaiting_store: Vec<RequestId>,
    kad: Vec<KadQuery>,
    /// Keys that the local node provides.
    provided: Vec<RecordKey>,
    /// Accepted requests without an outcome, with their deadlines.
    pending_requests: Vec<(RequestId, Option<Instant>)>,
    /// What callers may rely on, whatever the model predicts.
    promises: Promises,
    /// All thorough lookups so far, with their targets.
    thorough_lookups: Vec<(RequestId, RecordKey)>,
    last_request: u64,
    next_id: u32,
    /// All ids that queries were given.
    query_ids: Vec<u32>,
    inputs: usize,
    trace: Trace,
    /// Recorded log, if recording is enabled.
    log: Option<Vec<String>>,
    coverage: BTreeMap<String, u64>,
}

impl Harness {
    /// Creates an empty tracker with the configuration that a word encodes. `shift` moves the epoch of its clock.
    pub fn new(config: u64, shift: Duration) -> Self {
        let epoch = Instant::now() + shift;
        let config = arbitrary_config(config);
        Self {
            epoch,
            now: epoch,
            last_time: epoch,
            tracker: QueryTracker::new(local(), config.clone()),
            model: Model::new(local(), config.clone()),
            steps: Vec::new(),
            awaiting_start: Vec::new(),
            awaiting_probe: Vec::new(),
            awaiting_local_peers: Vec::new(),
            awaiting_store: Vec::new(),
            kad: Vec::new(),
            provided: Vec::new(),
            pending_requests: Vec::new(),
            promises: Promises::new(validators(), config.expected_network_size),
            thorough_lookups: Vec::new(),
            last_request: 0,
            next_id: 0,
            query_ids: Vec::new(),
            inputs: 0,
            trace: Trace::default(),
            log: None,
            coverage: BTreeMap::new(),
        }
    }

    /// Creates a harness whose tracker records its inputs and actions. [`finish`](Self::finish) replays the log. With
    /// [`LogValues::Hashed`] the replay can fail, because hashes hide from validators whether a value is valid.
    pub fn recording(config: u64, shift: Duration, values: LogValues) -> Self {
        let mut harness = Self::new(config, shift);
        let recording = harness.tracker.record(values, harness.epoch);
        assert!(recording.is_ok(), "recording can be enabled on an empty tracker");
        harness.log = Some(Vec::new());
        harness
    }

    /// Applies an input to the tracker and to the model.
    ///
    /// # Panics
    ///
    /// Panics if the tracker deviates from the model, or breaks an invariant that needs no model.
    pub fn apply(&mut self, input: &Input) {
        self.inputs += 1;
        match input {
            Input::Request(request) => self.request(request),
            Input::Cancel(ago) => {
                let id = self.recent_request(*ago);
                self.command(Command::Cancel { id });
            }
            Input::Shutdown { drain } => {
                self.command(Command::Shutdown { drain: *drain });
            }
            Input::Start(which, answer) => {
                if let Some(at) = choose(*which, &self.awaiting_start) {
                    let step = self.awaiting_start.remove(at);
                    self.start(step, *answer);
                }
            }
            Input::StartAgain(which, answer) => {
                if let Some(at) = choose(*which, &self.steps) {
                    let step = self.steps.iter().rev().nth(at).map_or(0, |(number, ..)| *number);
                    self.awaiting_start.retain(|pending| *pending != step);
                    self.start(step, *answer);
                }
            }
            Input::KadEvent(which, choices) => {
                let now = self.now;
                let kad = choose(*which, &self.kad).and_then(|at| self.kad.get_mut(at));
                let event = kad.and_then(|kad| kad.next(*choices, now));
                self.kad.retain(|kad| !kad.is_over());
                if let Some(event) = event
                    && self.tracker.owns(&event.id)
                {
                    self.event(&event);
                }
            }
            Input::AnyEvent(event) => self.any_event(event),
            Input::Stored(which, ok) => {
                if let Some(at) = choose(*which, &self.awaiting_store) {
                    let request = self.awaiting_store.remove(at);
                    self.stored(request, *ok);
                }
            }
            Input::StoredAgain(ago, ok) => {
                let id = self.recent_request(*ago);
                self.stored(id, *ok);
            }
            Input::Probe(which, more) => {
                if let Some(at) = choose(*which, &self.awaiting_probe) {
                    let id = self.awaiting_probe.remove(at);
                    let progress = self.kad.iter_mut().find(|kad| kad.id == id).and_then(|kad| kad.probe(*more));
                    self.probe(id, progress);
                }
            }
            Input::LocalPeers(which, named) => {
                if let Some(at) = choose(*which, &self.awaiting_local_peers) {
                    let request = self.awaiting_local_peers.remove(at);
                    self.local_peers(request, *named);
                }
            }
            Input::LocalPeersAgain(ago, named) => {
                let id = self.recent_request(*ago);
                self.local_peers(id, *named);
            }
            Input::ProbeAgain(id, progress) => self.probe(u32::from(*id % IDS), *progress),
            Input::QueryCount(own) => {
                let live = self.kad.len() + usize::from(*own);
                let now = self.input_time();
                self.tracker.handle_query_count(live, now);
                self.model.query_count(live, now);
            }
            Input::Written(which) => {
                self.command(Command::Written { key: key(*which) });
                self.promises.written(&key(*which));
            }
            Input::CutShort(which) => {
                if let Some(id) = choose(*which, &self.kad).and_then(|at| self.kad.get(at)).map(|kad| kad.id) {
                    self.cut_short(id);
                }
            }
            Input::CutShortAgain(id) => self.cut_short(u32::from(*id % IDS)),
            Input::Network(network) => {
                let now = self.input_time();
                self.promises.network(*network);
                self.tracker.handle_network(*network, now);
                self.model.network(*network, now);
            }
            Input::Clock(step) => self.step_clock(*step),
            Input::ClockBackwards(span) => {
                let earlier = self.now.checked_sub(*span).unwrap_or(self.now);
                self.last_time = self.last_time.max(earlier);
                self.tracker.handle_timeout(earlier);
                self.model.timeout(earlier);
            }
        }
        self.compare(input);
    }

    /// Returns the log so far. Empty without recording.
    pub fn log(&self) -> &[String] {
        self.log.as_deref().unwrap_or_default()
    }

    /// Lets time pass until the tracker is empty. Returns a digest of everything that the tracker did, and the
    /// coverage.
    ///
    /// # Panics
    ///
    /// Panics like [`apply`](Self::apply), and if time alone does not end all requests and queries.
    pub fn finish(mut self) -> (u64, BTreeMap<String, u64>) {
        // Each request has a deadline, each retry precedes one, and each finished query is given up after a while. A
        // query without a slot has no deadline of its own, but gets the slot of another query.
        for _ in 0..10_000 {
            if self.tracker.poll_timeout().is_none() {
                break;
            }
            self.apply(&Input::Clock(ClockStep::ToTimeout));
        }
        assert!(self.tracker.is_empty(), "time alone does not end everything: {:?}", self.tracker);
        assert_eq!(self.pending_requests.len(), 0, "requests without an outcome: {:?}", self.pending_requests);
        if let Some(log) = &self.log {
            let replayed = replay(log.iter().map(String::as_str), self.epoch, self.tracker.config().validators.clone());
            assert_eq!(replayed, Ok(log.len()), "the log does not replay");
        }
        for operation in OPERATIONS {
            for kind in OutcomeKind::ALL {
                let durations = self.tracker.metrics().durations(operation, kind);
                let counted = (durations.count(), durations.sum());
                assert_eq!(counted, self.model.metrics(operation, kind), "durations: {operation}, {kind:?}");
            }
        }
        let Counters {
            unknown_inputs,
            mismatched_events,
            foreign_records,
            rejected_records,
            lost_queries,
            read_repairs,
            ..
        } = self.model.counters();
        for (what, times) in [
            ("unknown", unknown_inputs),
            ("mismatched", mismatched_events),
            ("foreign", foreign_records),
            ("rejected", rejected_records),
            ("lost", lost_queries),
            ("read_repair", read_repairs),
        ] {
            self.cover(what, times);
        }
        (self.trace.0, self.coverage)
    }

    // ---- inputs

    fn request(&mut self, request: &RequestInput) {
        let id = match request.again {
            Some(ago) => self.recent_request(ago),
            None => {
                self.last_request += 1;
                RequestId(self.last_request)
            }
        };
        let key = key(request.key);
        let record = || {
            let expires = request.expires.map(|after| self.now + after);
            Arc::new(Record { key: key.clone(), value: value(request.value), publisher: None, expires })
        };
        let operation = match request.kind {
            OperationKind::GetRecord => Operation::GetRecord { key, policy: request.policy },
            OperationKind::PutRecord => {
                Operation::PutRecord { record: record(), quorum: request.quorum, options: request.put }
            }
            OperationKind::PutRecordTo => {
                let mut peers = peers(request.peers);
                if request.peers & 0x80 != 0 {
                    peers = [peers.clone(), vec![local()], peers].concat();
                }
                Operation::PutRecordTo { record: record(), peers, quorum: request.quorum }
            }
            OperationKind::GetProviders => Operation::GetProviders { key, policy: request.policy },
            OperationKind::StartProviding => Operation::StartProviding { key },
            OperationKind::GetClosestPeers => Operation::GetClosestPeers { target: key, thorough: request.thorough },
            OperationKind::Bootstrap => Operation::Bootstrap,
        };
        let timeout = request.options.timeout.unwrap_or(self.tracker.config().default_timeout);
        self.cover(request.kind.name(), 1);
        if let Operation::GetClosestPeers { target, thorough: true } = &operation {
            self.thorough_lookups.push((id, target.clone()));
        }
        let asked = operation.clone();
        if self.command(Command::Request(Request { id, operation, options: request.options })) {
            self.promises.accepted(id, asked, request.options.retry.is_some());
            self.pending_requests.push((id, self.now.checked_add(timeout)));
        }
    }

    /// Sends a command to both. Returns whether it was accepted.
    fn command(&mut self, command: Command) -> bool {
        let now = self.input_time();
        let real = self.tracker.handle_command(command.clone(), now).map_err(|refused| refused.0);
        let expected = self.model.command(command, now);
        if real.is_ok() && expected.is_ok() {
            return true;
        }
        let (real, expected) = (format!("{real:?}"), format!("{expected:?}"));
        assert_eq!(real, expected, "input {}: tracker (left) and model (right) disagree about a command", self.inputs);
        self.trace.add(&real);
        self.cover(&format!("refused: {}", name_of(&real)), 1);
        false
    }

    fn start(&mut self, step: u64, answer: StartAnswer) {
        let Some((_, name, query)) = self.steps.iter().find(|(number, ..)| *number == step).cloned() else { return };
        let mut had_provider = false;
        if let Query::StartProviding { key } = &query {
            had_provider = self.provided.contains(key);
        }
        let result = match (answer, &query) {
            (StartAnswer::Kad { refuse: true }, Query::Bootstrap)
            | (StartAnswer::Refused { no_known_peers: true }, _) => Err(QueryStartError::NoKnownPeers),
            (StartAnswer::Kad { refuse: true }, Query::StartProviding { .. })
            | (StartAnswer::Refused { no_known_peers: false }, _) => {
                Err(QueryStartError::Store(store::Error::MaxProvidedKeys))
            }
            (StartAnswer::Kad { .. }, _) => {
                let id = self.next_id;
                self.next_id += 1;
                let stored = self.stored_under(&query);
                self.kad.push(KadQuery::new(id, query.clone(), stored));
                if let Query::StartProviding { key } = query
                    && !had_provider
                {
                    self.provided.push(key);
                }
                Ok(Started { id, had_provider })
            }
            (StartAnswer::Id(id), _) => Ok(Started { id: u32::from(id % IDS), had_provider: id % 2 == 0 }),
        };
        if let Ok(started) = &result
            && !self.query_ids.contains(&started.id)
        {
            self.query_ids.push(started.id);
        }
        self.promises.started(step, result.as_ref().ok().map(|started| started.id));
        let now = self.input_time();
        self.tracker.handle_started(name, result.clone(), now);
        self.model.started(step, result, now);
    }

    /// Returns the value that was last put under the key of a read.
    fn stored_under(&self, query: &Query) -> Option<Vec<u8>> {
        let Query::GetRecord { key } = query else { return None };
        self.steps.iter().rev().find_map(|(_, _, step)| match step {
            Query::PutRecordTo { record, peers: _ } if record.key == *key => Some(record.value.clone()),
            _ => None,
        })
    }

    fn event(&mut self, event: &QueryEvent<u32>) {
        let now = self.input_time();
        self.promises.event(event, now);
        self.tracker.handle_event(event.clone(), now);
        self.model.event(event.clone(), now);
    }

    fn any_event(&mut self, event: &AnyEvent) {
        let live = self.tracker.snapshot(self.now).queries;
        let live: Vec<_> = live.iter().filter_map(|query| Some((query.id?, query.operation))).collect();
        let (id, kind) = match event.id {
            Ok(id) => {
                (u32::from(id % IDS), live.iter().find(|(of, _)| *of == u32::from(id % IDS)).map(|(_, kind)| *kind))
            }
            Err(which) => match choose(which, &live).and_then(|at| live.get(at)) {
                Some((id, kind)) => (*id, Some(*kind)),
                None => return,
            },
        };
        let kind = event.kind.unwrap_or(match kind {
            Some(OperationKind::GetRecord) | None => 0,
            Some(OperationKind::PutRecord | OperationKind::PutRecordTo) => 1,
            Some(OperationKind::GetProviders) => 2,
            Some(OperationKind::StartProviding) => 3,
            Some(OperationKind::GetClosestPeers) => 4,
            Some(OperationKind::Bootstrap) => 5,
        });
        let result = any_result(kind, event.choices, self.now);
        self.event(&QueryEvent { id, result, progress: event.progress, last: event.last });
    }

    fn probe(&mut self, id: u32, progress: Option<Progress>) {
        let now = self.input_time();
        self.tracker.handle_probe(id, progress, now);
        self.model.probe(id, progress, now);
    }

    fn cut_short(&mut self, id: u32) {
        self.promises.cut_short(id);
        let now = self.input_time();
        self.tracker.handle_cut_short(id, now);
        self.model.cut_short(id, now);
    }

    fn local_peers(&mut self, request: RequestId, named: u8) {
        // Eight peers that lookups may find as well, and others that they do not find.
        let others: Vec<_> = (9..=11).map(peer).take(if named.is_multiple_of(4) { 3 } else { 0 }).collect();
        let mut named = [peers(named & !3), others, vec![local()]].concat();
        let by = usize::from(request.0 as u8) % named.len();
        named.rotate_left(by);
        let now = self.input_time();
        self.tracker.handle_local_peers(request, named.clone(), now);
        self.model.local_peers(request, &named, now);
    }

    fn stored(&mut self, request: RequestId, ok: bool) {
        let result = || if ok { Ok(()) } else { Err(store::Error::MaxRecords) };
        let now = self.input_time();
        self.tracker.handle_stored(request, result(), now);
        self.model.stored(request, result(), now);
    }

    fn step_clock(&mut self, step: ClockStep) {
        let due = self.tracker.poll_timeout().map_or(self.now, |due| due.max(self.now));
        self.now = match step {
            ClockStep::Advance(span) | ClockStep::AdvanceSilently(span) => self.now + span,
            ClockStep::ToTimeout => due,
            ClockStep::JustBeforeTimeout => due.checked_sub(Duration::from_nanos(1)).unwrap_or(due).max(self.now),
        };
        if let ClockStep::AdvanceSilently(_) = step {
            return;
        }
        let now = self.input_time();
        self.tracker.handle_timeout(now);
        self.model.timeout(now);
    }

    fn input_time(&mut self) -> Instant {
        self.last_time = self.now;
        self.now
    }

    /// Returns the id of the request that was made `requests` before the latest one.
    fn recent_request(&self, requests: u8) -> RequestId {
        RequestId(self.last_request.saturating_sub(requests.into()))
    }

    // ---- comparison

    fn compare(&mut self, input: &Input) {
        let mut actions = Vec::new();
        while let Some(action) = self.tracker.poll_action() {
            actions.push(action);
        }
        if let Some(log) = &mut self.log {
            log.extend(std::iter::from_fn(|| self.tracker.poll_log()));
        }
        let expected = self.model.take_actions();
        let same = actions.len() == expected.len()
            && actions.iter().zip(&expected).all(|(action, expected)| self.is(action, expected));
        assert!(
            same,
            "input {} is {input:?}\nactions of the tracker: {actions:#?}\nexpected by the model: {expected:#?}",
            self.inputs
        );
        for (action, expected) in actions.into_iter().zip(expected) {
            self.trace.add_action(&action, self.epoch);
            self.carry_out(action, &expected);
        }
        self.promises.handled();
        self.compare_views(input);
        self.trace.add(&self.tracker.poll_timeout().map(|at| at.saturating_duration_since(self.epoch)));
        let late = self
            .pending_requests
            .iter()
            .find(|(_, deadline)| deadline.is_some_and(|deadline| deadline <= self.last_time));
        assert_eq!(late, None, "input {}: a deadline passed without an outcome", self.inputs);
    }

    fn is(&self, action: &Action<u32>, expected: &Expected) -> bool {
        match (action, expected) {
            (Action::Start { step, request, query }, Expected::Start { step: number, request: by, query: what }) => {
                let fresh = self.steps.iter().all(|(old, name, _)| old != number && name != step);
                request == by && query == what && fresh
            }
            (action, Expected::Action(expected)) => same(action, expected),
            (_, Expected::Start { .. }) => false,
        }
    }

    /// Does what the driver would do with an action.
    fn carry_out(&mut self, action: Action<u32>, expected: &Expected) {
        match action {
            Action::Start { step, request, query } => {
                self.assert_alive(request);
                if let Query::GetClosestPeers { target } = &query
                    && let Some((_, key)) = self.thorough_lookups.iter().find(|(id, _)| *id == request)
                    && target != key
                {
                    self.cover("second lookup", 1);
                }
                if let Expected::Start { step: number, .. } = expected {
                    self.promises.starts(*number, &query, self.last_time);
                    self.awaiting_start.push(*number);
                    self.steps.push((*number, step, query));
                }
            }
            Action::Forget(_) => {}
            Action::Finish(id) => self.promises.cut_short(id),
            Action::FinishPhase(id) => {
                self.promises.cut_short(id);
                self.cover("finished_early", 1);
            }
            Action::Probe(id) => {
                self.cover("probe", 1);
                self.awaiting_probe.push(id);
            }
            Action::LocalPeers { request, target: _ } => {
                self.cover("local peers", 1);
                self.assert_alive(request);
                self.awaiting_local_peers.push(request);
            }
            Action::StoreLocal { request, record: _ } => {
                self.assert_alive(request);
                self.awaiting_store.push(request);
            }
            Action::StopProviding { key } => {
                self.cover("stop_providing", 1);
                self.promises.written(&key);
                self.provided.retain(|provided| *provided != key);
            }
            Action::Item { request, item } => {
                self.cover("item", 1);
                self.assert_alive(request);
                self.promises.item(request, &item);
            }
            Action::Outcome { request, outcome } => {
                self.assert_alive(request);
                self.promises.ended(request, &outcome);
                // The first match: within one input, an id may be reused after its outcome.
                if let Some(at) = self.pending_requests.iter().position(|(id, _)| *id == request) {
                    self.pending_requests.remove(at);
                }
                let result = outcome.error().map_or_else(|| "Ok".to_owned(), |error| format!("{error:?}"));
                self.cover(&format!("{}: {}", outcome.kind(), name_of(&result)), 1);
                if let Outcome::PutRecord(Ok(PutAnswer { verified: 1.., .. })) = outcome {
                    self.cover("put_record: verified", 1);
                }
                if let Some(certainty) = certainty_of(&outcome) {
                    self.cover(&format!("{}: {certainty}", outcome.kind()), 1);
                }
            }
        }
    }

    fn assert_alive(&self, request: RequestId) {
        if request.is_reserved() {
            return;
        }
        let alive = self.pending_requests.iter().any(|(id, _)| *id == request);
        assert!(alive, "input {}: an action for {request}, which was not accepted or has ended", self.inputs);
    }

    fn compare_views(&self, input: &Input) {
        let (tracker, model, last_time) = (&self.tracker, &self.model, self.last_time);
        let at = || format!("input {} is {input:?}", self.inputs);
        assert_eq!(tracker.poll_timeout(), model.poll_timeout(), "the timeout differs: {}", at());
        assert_eq!(tracker.live_requests(), model.live_requests(), "live requests: {}", at());
        assert_eq!(tracker.live_queries(), model.live_queries(), "live queries: {}", at());
        assert_eq!(tracker.is_empty(), model.is_empty(), "is_empty: {}", at());
        assert_eq!(tracker.is_shut_down(), model.is_shut_down(), "is_shut_down: {}", at());
        assert_eq!(Counters::from(tracker.stats()), model.counters(), "counters: {}", at());
        assert_eq!(tracker.snapshot(last_time), model.snapshot(last_time), "snapshots: {}", at());
        for id in self.query_ids.iter().copied().chain([u32::MAX]) {
            assert_eq!(tracker.owns(&id), model.owns(id), "ownership of query {id}: {}", at());
        }
        // Invariants that need no model.
        assert_eq!(tracker.live_requests(), self.pending_requests.len(), "live requests: {}", at());
        assert!(tracker.live_queries() <= tracker.config().max_running, "too many queries: {}", at());
        let most = tracker.config().max_queued.saturating_add(tracker.config().max_running).saturating_mul(3);
        assert!(tracker.live_requests() <= most, "too many requests: {}", at());
        assert!(tracker.poll_timeout().is_none_or(|due| due > last_time), "something due was not processed: {}", at());
        assert!(
            tracker.is_empty() || tracker.poll_timeout().is_some(),
            "live requests or queries without a timeout: {}",
            at()
        );
    }

    fn cover(&mut self, what: &str, times: u64) {
        match self.coverage.get_mut(what) {
            Some(coverage) => *coverage += times,
            None => {
                self.coverage.insert(what.to_owned(), times);
            }
        }
    }
}

/// Returns the index of an element, `which` modulo their number.
fn choose<T>(which: u8, from: &[T]) -> Option<usize> {
    usize::from(which).checked_rem(from.len())
}

/// Returns the first word of a value's `Debug` text, without the enums that wrap it.
fn name_of(debug: &str) -> String {
    let inner = ["Err(", "Request(", "Invalid("].iter().fold(debug, |debug, wrap| debug.trim_start_matches(wrap));
    inner.chars().take_while(char::is_ascii_alphanumeric).collect()
}

/// Returns the certainty of an outcome that has one.
fn certainty_of(outcome: &Outcome) -> Option<Certainty> {
    match outcome {
        Outcome::GetRecord(Err(GetRecordError::NotFound { certainty, .. }))
        | Outcome::GetProviders(Err(GetProvidersError::NotFound { certainty, .. }))
        | Outcome::GetClosestPeers(Ok(ClosestPeersAnswer { certainty, .. })) => Some(*certainty),
        _ => None,
    }
}

/// Compares actions. Outcomes do not implement `PartialEq`, but their `Debug` text is complete.
fn same(left: &Action<u32>, right: &Action<u32>) -> bool {
    match (left, right) {
        (Action::Finish(left), Action::Finish(right))
        | (Action::FinishPhase(left), Action::FinishPhase(right))
        | (Action::Probe(left), Action::Probe(right))
        | (Action::Forget(left), Action::Forget(right)) => left == right,
        (Action::Item { request: by, item: left }, Action::Item { request, item: right }) => {
            by == request && left == right
        }
        (Action::StopProviding { key: left }, Action::StopProviding { key: right }) => left == right,
        (Action::LocalPeers { request: by, target: left }, Action::LocalPeers { request, target: right }) => {
            by == request && left == right
        }
        (Action::StoreLocal { request: by, record: left }, Action::StoreLocal { request, record: right }) => {
            by == request && left == right
        }
        (Action::Outcome { request: by, outcome: left }, Action::Outcome { request, outcome: right }) => {
            by == request
                && match (left, right) {
                    (Outcome::GetRecord(Ok(left)), Outcome::GetRecord(Ok(right))) => left == right,
                    (Outcome::GetProviders(Ok(left)), Outcome::GetProviders(Ok(right))) => left == right,
                    (left, right) => format!("{left:?}") == format!("{right:?}"),
                }
        }
        _ => false,
    }
}

fn records_of(result: &mut Result<RecordAnswer, GetRecordError>) -> Vec<&mut Arc<PeerRecord>> {
    match result {
        Ok(answer) => std::iter::once(&mut answer.record).chain(Arc::make_mut(&mut answer.others)).collect(),
        Err(GetRecordError::Conflict { candidates, needed: _ }) => {
            Arc::make_mut(candidates).iter_mut().map(|candidate| &mut candidate.record).collect()
        }
        Err(GetRecordError::QuorumNotReached { candidate, needed: _ }) => vec![&mut candidate.record],
        Err(GetRecordError::Timeout { found, progress: _ }) => Arc::make_mut(found).iter_mut().collect(),
        Err(
            GetRecordError::NotFound { .. }
            | GetRecordError::NoResponse { .. }
            | GetRecordError::NoKnownPeers
            | GetRecordError::Request(_),
        ) => Vec::new(),
        Err(error) => unreachable!("unknown to the model: {error}"),
    }
}

/// Digest of everything that a tracker did. Times count from the epoch.
#[derive(Debug)]
struct Trace(u64);

impl Default for Trace {
    /// Offset basis of FNV-1a.
    fn default() -> Self {
        Self(0xCBF2_9CE4_8422_2325)
    }
}

impl Trace {
    fn add(&mut self, what: &dyn fmt::Debug) {
        // Never fails.
        let _ = fmt::write(self, format_args!("{what:?};"));
    }

    fn add_action(&mut self, action: &Action<u32>, epoch: Instant) {
        match action {
            Action::Start { step, request, query: Query::PutRecordTo { record, peers } } => {
                self.add(&(step, request, peers));
                self.add_record(record, epoch);
            }
            Action::StoreLocal { request, record } => {
                self.add(request);
                self.add_record(record, epoch);
            }
            Action::Item { request, item: Item::Record(found) } => {
                self.add(&(request, found.peer));
                self.add_record(&found.record, epoch);
            }
            Action::Outcome { request, outcome: Outcome::GetRecord(result) } => {
                self.add(request);
                let mut result = result.clone();
                for found in records_of(&mut result) {
                    let PeerRecord { peer: _, record } = Arc::make_mut(found);
                    self.add(&record.expires.take().map(|at| at.saturating_duration_since(epoch)));
                }
                self.add(&result);
            }
            other => self.add(other),
        }
    }

    fn add_record(&mut self, record: &Record, epoch: Instant) {
        self.add(&record.expires.map(|at| at.saturating_duration_since(epoch)));
        self.add(&Record { expires: None, ..record.clone() });
    }
}

impl fmt::Write for Trace {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
        }
        Ok(())
    }
}
