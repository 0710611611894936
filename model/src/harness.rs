//! The tracker and its model, side by side.

use std::{
    collections::BTreeMap,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use kadence_core::{
    Action, Command, GetProvidersError, GetRecordError, Item, LogValues, Operation, OperationKind, Outcome,
    OutcomeKind, Progress, ProvidersAnswer, PutAnswer, Query, QueryEvent, QueryStartError, QueryTracker, RecordAnswer,
    Request, RequestId, Started, StepId, replay,
};
use libp2p::kad::{PeerRecord, Record, RecordKey, store};

use crate::{
    input::{Answer, Ask, Event, Input, Wait, a_config},
    kad::{Kad, any_result},
    reference::{Expected, Model, View},
    world::{key, local, peer, peers, value},
};

/// Ids that hostile inputs choose from. Schedules of some hundred inputs hit the ids of others.
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

/// Runs a schedule on the tracker and on its model, and panics where they differ.
pub struct Harness {
    epoch: Instant,
    now: Instant,
    /// The time that the tracker was told last.
    told: Instant,
    tracker: QueryTracker<u32>,
    model: Model,
    /// Every step that there was: the model's number, the tracker's name, and what it is.
    steps: Vec<(u64, StepId, Query)>,
    /// Steps that kad has not answered yet.
    starts: Vec<u64>,
    /// Queries whose progress was asked for and not told.
    probes: Vec<u32>,
    /// Puts that wait to be told whom else they may ask.
    choosing: Vec<RequestId>,
    /// Puts that the local store has not answered yet.
    stores: Vec<RequestId>,
    kad: Vec<Kad>,
    /// Keys that the local store names us a provider of.
    provided: Vec<RecordKey>,
    /// Every accepted request with its deadline, until its outcome.
    promised: Vec<(RequestId, Option<Instant>)>,
    /// Every thorough lookup that there was, with its target.
    thorough: Vec<(RequestId, RecordKey)>,
    last_request: u64,
    next_id: u32,
    /// The ids that were ever given to queries.
    ids: Vec<u32>,
    inputs: usize,
    trace: Trace,
    /// What the tracker recorded, if it was told to.
    log: Option<Vec<String>>,
    reached: BTreeMap<String, u64>,
}

impl Harness {
    /// A tracker that knows nothing yet, with the configuration of a word. `shift` moves the epoch of its clock.
    pub fn new(config: u64, shift: Duration) -> Self {
        let epoch = Instant::now() + shift;
        Self {
            epoch,
            now: epoch,
            told: epoch,
            tracker: QueryTracker::new(local(), a_config(config)),
            model: Model::new(local(), a_config(config)),
            steps: Vec::new(),
            starts: Vec::new(),
            probes: Vec::new(),
            choosing: Vec::new(),
            stores: Vec::new(),
            kad: Vec::new(),
            provided: Vec::new(),
            promised: Vec::new(),
            thorough: Vec::new(),
            last_request: 0,
            next_id: 0,
            ids: Vec::new(),
            inputs: 0,
            trace: Trace::default(),
            log: None,
            reached: BTreeMap::new(),
        }
    }

    /// The same with a tracker that records itself. At the end its log is replayed, which with [`LogValues::Hashed`] can
    /// fail: what validators think of a value is not in its hash.
    pub fn recording(config: u64, shift: Duration, values: LogValues) -> Self {
        let mut harness = Self::new(config, shift);
        let recording = harness.tracker.record(values, harness.epoch);
        assert!(recording.is_ok(), "an empty tracker can be recorded");
        harness.log = Some(Vec::new());
        harness
    }

    /// Carries an input out on both.
    ///
    /// # Panics
    ///
    /// If the tracker does anything else than the model says, or breaks a promise that needs no model.
    pub fn apply(&mut self, input: &Input) {
        self.inputs += 1;
        match input {
            Input::Ask(ask) => self.ask(ask),
            Input::Cancel(ago) => {
                let id = self.ago(*ago);
                self.command(Command::Cancel { id });
            }
            Input::Shutdown { drain } => {
                self.command(Command::Shutdown { drain: *drain });
            }
            Input::Start(which, answer) => {
                if let Some(at) = choose(*which, &self.starts) {
                    let step = self.starts.remove(at);
                    self.start(step, *answer);
                }
            }
            Input::StartAgain(which, answer) => {
                if let Some(at) = choose(*which, &self.steps) {
                    let step = self.steps.iter().rev().nth(at).map_or(0, |(number, ..)| *number);
                    self.starts.retain(|pending| *pending != step);
                    self.start(step, *answer);
                }
            }
            Input::Kad(which, say) => {
                let now = self.now;
                let kad = choose(*which, &self.kad).and_then(|at| self.kad.get_mut(at));
                let event = kad.and_then(|kad| kad.next(*say, now));
                self.kad.retain(|kad| !kad.is_over());
                if let Some(event) = event
                    && self.tracker.owns(&event.id)
                {
                    self.event(&event);
                }
            }
            Input::Event(event) => self.any_event(event),
            Input::Stored(which, ok) => {
                if let Some(at) = choose(*which, &self.stores) {
                    let request = self.stores.remove(at);
                    self.stored(request, *ok);
                }
            }
            Input::StoredAgain(ago, ok) => {
                let id = self.ago(*ago);
                self.stored(id, *ok);
            }
            Input::Probe(which, more) => {
                if let Some(at) = choose(*which, &self.probes) {
                    let id = self.probes.remove(at);
                    let progress = self.kad.iter_mut().find(|kad| kad.id == id).and_then(|kad| kad.probe(*more));
                    self.probe(id, progress);
                }
            }
            Input::LocalPeers(which, named) => {
                if let Some(at) = choose(*which, &self.choosing) {
                    let request = self.choosing.remove(at);
                    self.local_peers(request, *named);
                }
            }
            Input::LocalPeersAgain(ago, named) => {
                let id = self.ago(*ago);
                self.local_peers(id, *named);
            }
            Input::ProbeAgain(id, progress) => self.probe(u32::from(*id % IDS), *progress),
            Input::Census(own) => {
                let live = self.kad.len() + usize::from(*own);
                let now = self.tell();
                self.tracker.handle_query_count(live, now);
                self.model.census(live, now);
            }
            Input::Forget(which) => {
                self.command(Command::Forget { key: key(*which) });
            }
            Input::Wait(wait) => self.wait(*wait),
            Input::Backwards(span) => {
                let earlier = self.now.checked_sub(*span).unwrap_or(self.now);
                self.told = self.told.max(earlier);
                self.tracker.handle_timeout(earlier);
                self.model.timeout(earlier);
            }
        }
        self.compare(input);
    }

    /// What the tracker recorded so far, if it was told to.
    pub fn log(&self) -> &[String] {
        self.log.as_deref().unwrap_or_default()
    }

    /// Lets nothing but time pass. When it returns, the tracker is empty.
    ///
    /// # Panics
    ///
    /// As [`apply`](Self::apply), and if anything is left.
    pub fn finish(mut self) -> (u64, BTreeMap<String, u64>) {
        // Each live request has a deadline, each retry comes before one, and each query that it leaves behind is lost
        // at some time; a query takes another's slot before it has a time.
        for _ in 0..10_000 {
            if self.tracker.poll_timeout().is_none() {
                break;
            }
            self.apply(&Input::Wait(Wait::Due));
        }
        assert!(self.tracker.is_empty(), "time alone does not end everything: {:?}", self.tracker);
        assert_eq!(self.promised.len(), 0, "requests without an outcome: {:?}", self.promised);
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
        let View {
            unknown_inputs,
            mismatched_events,
            foreign_records,
            rejected_records,
            lost_queries,
            read_repairs,
            cache_hits,
            cache_misses,
            ..
        } = self.model.view();
        for (what, times) in [
            ("unknown", unknown_inputs),
            ("mismatched", mismatched_events),
            ("foreign", foreign_records),
            ("rejected", rejected_records),
            ("lost", lost_queries),
            ("read_repair", read_repairs),
            ("cache hit", cache_hits),
            ("cache miss", cache_misses),
        ] {
            self.reach(what, times);
        }
        (self.trace.0, self.reached)
    }

    // ---- inputs

    fn ask(&mut self, ask: &Ask) {
        let id = match ask.again {
            Some(ago) => self.ago(ago),
            None => {
                self.last_request += 1;
                RequestId(self.last_request)
            }
        };
        let key = key(ask.key);
        let record = || {
            let expires = ask.expires.map(|after| self.now + after);
            Arc::new(Record { key: key.clone(), value: value(ask.value), publisher: None, expires })
        };
        let operation = match ask.kind {
            OperationKind::GetRecord => Operation::GetRecord { key, policy: ask.policy },
            OperationKind::PutRecord => Operation::PutRecord { record: record(), quorum: ask.quorum, options: ask.put },
            OperationKind::PutRecordTo => {
                let mut peers = peers(ask.peers);
                if ask.peers & 0x80 != 0 {
                    peers = [peers.clone(), vec![local()], peers].concat();
                }
                Operation::PutRecordTo { record: record(), peers, quorum: ask.quorum }
            }
            OperationKind::GetProviders => Operation::GetProviders { key, policy: ask.policy },
            OperationKind::StartProviding => Operation::StartProviding { key },
            OperationKind::GetClosestPeers => Operation::GetClosestPeers { target: key, thorough: ask.thorough },
            OperationKind::Bootstrap => Operation::Bootstrap,
        };
        let timeout = ask.options.timeout.unwrap_or(self.tracker.config().default_timeout);
        self.reach(ask.kind.name(), 1);
        if let Operation::GetClosestPeers { target, thorough: true } = &operation {
            self.thorough.push((id, target.clone()));
        }
        if self.command(Command::Request(Request { id, operation, options: ask.options })) {
            self.promised.push((id, self.now.checked_add(timeout)));
        }
    }

    /// Whether it was accepted.
    fn command(&mut self, command: Command) -> bool {
        let now = self.tell();
        let real = self.tracker.handle_command(command.clone(), now).map_err(|refused| refused.0);
        let expected = self.model.command(command, now);
        if real.is_ok() && expected.is_ok() {
            return true;
        }
        let (real, expected) = (format!("{real:?}"), format!("{expected:?}"));
        assert_eq!(real, expected, "input {}: the tracker judges otherwise than the model", self.inputs);
        self.trace.add(&real);
        self.reach(&format!("refused: {}", name_of(&real)), 1);
        false
    }

    fn start(&mut self, step: u64, answer: Answer) {
        let Some((_, name, query)) = self.steps.iter().find(|(number, ..)| *number == step).cloned() else { return };
        let mut had_provider = false;
        if let Query::StartProviding { key } = &query {
            had_provider = self.provided.contains(key);
        }
        let result = match (answer, &query) {
            (Answer::Kad { refuse: true }, Query::Bootstrap) | (Answer::Refused { no_known_peers: true }, _) => {
                Err(QueryStartError::NoKnownPeers)
            }
            (Answer::Kad { refuse: true }, Query::StartProviding { .. })
            | (Answer::Refused { no_known_peers: false }, _) => {
                Err(QueryStartError::Store(store::Error::MaxProvidedKeys))
            }
            (Answer::Kad { .. }, _) => {
                let id = self.next_id;
                self.next_id += 1;
                let stored = self.stored_under(&query);
                self.kad.push(Kad::new(id, query.clone(), stored));
                if let Query::StartProviding { key } = query
                    && !had_provider
                {
                    self.provided.push(key);
                }
                Ok(Started { id, had_provider })
            }
            (Answer::Id(id), _) => Ok(Started { id: u32::from(id % IDS), had_provider: id % 2 == 0 }),
        };
        if let Ok(started) = &result
            && !self.ids.contains(&started.id)
        {
            self.ids.push(started.id);
        }
        let now = self.tell();
        self.tracker.handle_started(name, result.clone(), now);
        self.model.started(step, result, now);
    }

    /// What was put last under the key of a read.
    fn stored_under(&self, query: &Query) -> Option<Vec<u8>> {
        let Query::GetRecord { key } = query else { return None };
        self.steps.iter().rev().find_map(|(_, _, step)| match step {
            Query::PutRecordTo { record, peers: _ } if record.key == *key => Some(record.value.clone()),
            _ => None,
        })
    }

    fn event(&mut self, event: &QueryEvent<u32>) {
        let now = self.tell();
        self.tracker.handle_event(event.clone(), now);
        self.model.event(event.clone(), now);
    }

    fn any_event(&mut self, event: &Event) {
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
        let result = any_result(kind, event.say, self.now);
        self.event(&QueryEvent { id, result, progress: event.progress, last: event.last });
    }

    fn probe(&mut self, id: u32, progress: Option<Progress>) {
        let now = self.tell();
        self.tracker.handle_probe(id, progress, now);
        self.model.probe(id, progress, now);
    }

    fn local_peers(&mut self, request: RequestId, named: u8) {
        // Eight that lookups may find as well, and others that they do not.
        let others: Vec<_> = (9..=11).map(peer).take(if named.is_multiple_of(4) { 3 } else { 0 }).collect();
        let mut named = [peers(named & !3), others, vec![local()]].concat();
        let by = usize::from(request.0 as u8) % named.len();
        named.rotate_left(by);
        let now = self.tell();
        self.tracker.handle_local_peers(request, named.clone(), now);
        self.model.local_peers(request, &named, now);
    }

    fn stored(&mut self, request: RequestId, ok: bool) {
        let result = || if ok { Ok(()) } else { Err(store::Error::MaxRecords) };
        let now = self.tell();
        self.tracker.handle_stored(request, result(), now);
        self.model.stored(request, result(), now);
    }

    fn wait(&mut self, wait: Wait) {
        let due = self.tracker.poll_timeout().map_or(self.now, |due| due.max(self.now));
        self.now = match wait {
            Wait::Tick(span) | Wait::Silently(span) => self.now + span,
            Wait::Due => due,
            Wait::AlmostDue => due.checked_sub(Duration::from_nanos(1)).unwrap_or(due).max(self.now),
        };
        if let Wait::Silently(_) = wait {
            return;
        }
        let now = self.tell();
        self.tracker.handle_timeout(now);
        self.model.timeout(now);
    }

    fn tell(&mut self) -> Instant {
        self.told = self.now;
        self.now
    }

    /// The request that was made so many requests before the last.
    fn ago(&self, requests: u8) -> RequestId {
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
            "input {} is {input:?}\nthe tracker does {actions:#?}\nthe model says {expected:#?}",
            self.inputs
        );
        for (action, expected) in actions.into_iter().zip(expected) {
            self.trace.add_action(&action, self.epoch);
            self.carry_out(action, &expected);
        }
        self.compare_views(input);
        self.trace.add(&self.tracker.poll_timeout().map(|at| at.saturating_duration_since(self.epoch)));
        let late = self.promised.iter().find(|(_, deadline)| deadline.is_some_and(|deadline| deadline <= self.told));
        assert_eq!(late, None, "input {}: a deadline has passed without an outcome", self.inputs);
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

    /// What the driver would do.
    fn carry_out(&mut self, action: Action<u32>, expected: &Expected) {
        match action {
            Action::Start { step, request, query } => {
                self.assert_alive(request);
                if let Query::GetClosestPeers { target } = &query
                    && let Some((_, key)) = self.thorough.iter().find(|(id, _)| *id == request)
                    && target != key
                {
                    self.reach("lookup beside the first", 1);
                }
                if let Expected::Start { step: number, .. } = expected {
                    self.starts.push(*number);
                    self.steps.push((*number, step, query));
                }
            }
            Action::Finish(_) | Action::Forget(_) => {}
            Action::FinishPhase(_) => self.reach("finished_early", 1),
            Action::Probe(id) => {
                self.reach("probe", 1);
                self.probes.push(id);
            }
            Action::LocalPeers { request, target: _ } => {
                self.reach("local peers", 1);
                self.assert_alive(request);
                self.choosing.push(request);
            }
            Action::StoreLocal { request, record: _ } => {
                self.assert_alive(request);
                self.stores.push(request);
            }
            Action::StopProviding { key } => {
                self.reach("stop_providing", 1);
                self.provided.retain(|provided| *provided != key);
            }
            Action::Item { request, item: _ } => {
                self.reach("item", 1);
                self.assert_alive(request);
            }
            Action::Outcome { request, outcome } => {
                self.assert_alive(request);
                // The first: within one input, an id may be used again after the outcome.
                if let Some(at) = self.promised.iter().position(|(id, _)| *id == request) {
                    self.promised.remove(at);
                }
                let result = outcome.error().map_or_else(|| "Ok".to_owned(), |error| format!("{error:?}"));
                self.reach(&format!("{}: {}", outcome.kind(), name_of(&result)), 1);
                if let Outcome::PutRecord(Ok(PutAnswer { verified: 1.., .. })) = outcome {
                    self.reach("put_record: verified", 1);
                }
                if is_cached(&outcome) {
                    self.reach(&format!("{}: {} from the cache", outcome.kind(), name_of(&result)), 1);
                }
            }
        }
    }

    fn assert_alive(&self, request: RequestId) {
        if request.is_reserved() {
            return;
        }
        let alive = self.promised.iter().any(|(id, _)| *id == request);
        assert!(alive, "input {}: an action for {request}, which was not accepted or has ended", self.inputs);
    }

    fn compare_views(&self, input: &Input) {
        let (tracker, model, told) = (&self.tracker, &self.model, self.told);
        let at = || format!("input {} is {input:?}", self.inputs);
        assert_eq!(tracker.poll_timeout(), model.poll_timeout(), "the timeout differs: {}", at());
        assert_eq!(tracker.live_requests(), model.live_requests(), "live requests: {}", at());
        assert_eq!(tracker.live_queries(), model.live_queries(), "live queries: {}", at());
        assert_eq!(tracker.is_empty(), model.is_empty(), "emptiness: {}", at());
        assert_eq!(tracker.is_shut_down(), model.is_shut_down(), "shutdown: {}", at());
        assert_eq!(View::from(tracker.stats()), model.view(), "counters: {}", at());
        assert_eq!(tracker.snapshot(told), model.snapshot(told), "snapshots: {}", at());
        for id in self.ids.iter().copied().chain([u32::MAX]) {
            assert_eq!(tracker.owns(&id), model.owns(id), "whether {id} is ours: {}", at());
        }
        // What needs no model.
        assert_eq!(tracker.live_requests(), self.promised.len(), "live requests: {}", at());
        assert!(tracker.live_queries() <= tracker.config().max_running, "too many queries: {}", at());
        let most = tracker.config().max_queued.saturating_add(tracker.config().max_running).saturating_mul(3);
        assert!(tracker.live_requests() <= most, "too many requests: {}", at());
        assert!(tracker.poll_timeout().is_none_or(|due| due > told), "what is due was not done: {}", at());
        assert!(tracker.is_empty() || tracker.poll_timeout().is_some(), "nothing ends what is alive: {}", at());
    }

    fn reach(&mut self, what: &str, times: u64) {
        match self.reached.get_mut(what) {
            Some(reached) => *reached += times,
            None => {
                self.reached.insert(what.to_owned(), times);
            }
        }
    }
}

/// Which of these a number chooses.
fn choose<T>(which: u8, from: &[T]) -> Option<usize> {
    usize::from(which).checked_rem(from.len())
}

/// The first word of a value's `Debug`, without what wraps it.
fn name_of(debug: &str) -> String {
    let inner = ["Err(", "Request(", "Invalid("].iter().fold(debug, |debug, wrap| debug.trim_start_matches(wrap));
    inner.chars().take_while(char::is_ascii_alphanumeric).collect()
}

fn is_cached(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::GetRecord(Ok(RecordAnswer { cached, .. }) | Err(GetRecordError::NotFound { cached, .. }))
        | Outcome::GetProviders(Ok(ProvidersAnswer { cached, .. }) | Err(GetProvidersError::NotFound { cached, .. })) => {
            cached.is_some()
        }
        _ => false,
    }
}

/// Outcomes cannot be compared, but their `Debug` leaves nothing out.
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
        Ok(answer) => std::iter::once(&mut answer.record).chain(&mut answer.others).collect(),
        Err(GetRecordError::Conflict { candidates, needed: _ }) => {
            candidates.iter_mut().map(|candidate| &mut candidate.record).collect()
        }
        Err(GetRecordError::QuorumNotReached { candidate, needed: _ }) => vec![&mut candidate.record],
        Err(GetRecordError::Timeout { found, progress: _ }) => found.iter_mut().collect(),
        Err(
            GetRecordError::NotFound { .. }
            | GetRecordError::NoResponse { .. }
            | GetRecordError::NoKnownPeers
            | GetRecordError::Request(_),
        ) => Vec::new(),
        Err(error) => unreachable!("unknown to the model: {error}"),
    }
}

/// A digest of everything that a tracker did, with times counted from the epoch.
#[derive(Debug)]
struct Trace(u64);

impl Default for Trace {
    /// The start of FNV-1a, as of all that follows.
    fn default() -> Self {
        Self(0xCBF2_9CE4_8422_2325)
    }
}

impl Trace {
    fn add(&mut self, what: &dyn fmt::Debug) {
        // Writing into it never fails.
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
