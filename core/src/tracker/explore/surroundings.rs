//! Everything around a tracker: callers, kad, and time.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use libp2p::{
    PeerId,
    kad::{self, PeerRecord, QueryResult, Record, RecordKey},
    multihash::Multihash,
};
use web_time::Instant;

use crate::{
    Action, Certainty, Command, GetProvidersError, GetRecordError, Network, Operation, Outcome, Policy, Progress,
    PutOptions, Query, QueryEvent, QueryStartError, QueryTracker, Quorum, Reachability, Request, RequestId,
    RequestOptions, Retry, Stall, Started, StepId, TrackerConfig,
};

/// Requests of callers, and the configuration of the tracker.
#[derive(Debug, Clone)]
pub(super) struct Scope {
    pub(super) name: &'static str,
    config: TrackerConfig,
    requests: Vec<(Operation, RequestOptions)>,
    /// Inputs that have been before the exploration begins: each list is one beginning.
    pub(super) beginnings: Vec<Vec<Input>>,
}

/// Everything that can happen next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Input {
    Request(usize),
    Cancel(usize),
    Shutdown {
        drain: bool,
    },
    Written {
        key: u8,
    },
    /// Answers a pending start.
    Started(usize),
    NotStarted(usize),
    /// A peer returns its record, its old one or the new one.
    Find {
        id: u8,
        peer: u8,
        new: bool,
    },
    Foreign {
        id: u8,
    },
    /// The last event, after this number of four peers have answered.
    Last {
        id: u8,
        answers: u32,
        timed_out: bool,
    },
    /// An event of a query that has ended.
    Late {
        id: u8,
    },
    Stored {
        ok: bool,
    },
    LocalPeers,
    Probe {
        moved: bool,
    },
    CutShort {
        id: u8,
    },
    Isolated,
    Tick,
}

/// A tracker and what its driver knows.
#[derive(Debug, Clone)]
pub(super) struct World {
    tracker: QueryTracker<u8>,
    now: Duration,
    asked: Vec<bool>,
    /// Accepted requests without an outcome, with the number of writes of their key that had ended before.
    live: BTreeMap<RequestId, (usize, u8)>,
    starts: Vec<(StepId, Query, u8)>,
    kad: BTreeMap<u8, KadQuery>,
    ended: Vec<u8>,
    storing: Vec<RequestId>,
    choosing: Vec<RequestId>,
    probes: Vec<u8>,
    next_id: u8,
    /// Number of writes that have ended, by key.
    writes: [u8; 2],
    isolated: bool,
    shut_down: bool,
    /// Number of rare inputs still to come: cancels, a shutdown, a write of the application, hostile answers.
    pub(super) rare_left: u8,
    /// Property that does not hold, if any.
    pub(super) broken: String,
}

#[derive(Debug, Clone, Hash)]
struct KadQuery {
    query: KindAndKey,
    finds: u8,
    foreign: bool,
    /// Number of writes of its key that had ended when it was started.
    began_after: u8,
    cut_short: bool,
    progress: [u32; 2],
}

/// Purpose of a kad query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum KindAndKey {
    Get(u8),
    Providers(u8),
    Lookup,
    Store(u8),
    Announce(u8),
    Bootstrap,
}

impl Hash for World {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self { tracker, now: _, asked, live, starts, kad, ended, storing, choosing, probes, .. } = self;
        tracker.hash(state);
        (asked, live, kad, ended, storing, choosing, probes).hash(state);
        starts.iter().for_each(|(step, _, began)| (step, began).hash(state));
        (self.next_id, self.writes, self.isolated, self.shut_down, self.rare_left, &self.broken).hash(state);
    }
}

impl PartialEq for World {
    fn eq(&self, other: &Self) -> bool {
        let digest = |world: &Self| {
            let mut hasher = DefaultHasher::new();
            world.hash(&mut hasher);
            hasher.finish()
        };
        digest(self) == digest(other)
    }
}

fn epoch() -> Instant {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    *EPOCH.get_or_init(Instant::now)
}

fn key(n: u8) -> RecordKey {
    RecordKey::new(&[n])
}

fn peer(n: u8) -> PeerId {
    Multihash::wrap(0, &[n]).ok().and_then(|hash| PeerId::from_multihash(hash).ok()).expect("a valid peer id")
}

fn record(n: u8, new: bool) -> Record {
    Record::new(key(n), vec![u8::from(new)])
}

impl Scope {
    /// A get and a put of one key, with one slot: small enough to explore to the end.
    pub(super) fn small() -> Self {
        let config = TrackerConfig::default()
            .max_running(1)
            .max_queued(2)
            .stall(None)
            .finish_timeout(Duration::from_secs(2))
            .default_timeout(Duration::from_secs(5));
        let put =
            Operation::PutRecordTo { record: Arc::new(record(0, true)), peers: vec![peer(1)], quorum: Quorum::One };
        let requests = vec![
            (Operation::GetRecord { key: key(0), policy: Policy::First }, RequestOptions::default()),
            (put, RequestOptions::default()),
        ];
        Self { name: "one key, one slot, a get and a put", config, requests, beginnings: vec![Vec::new()] }
    }

    /// Four kinds of requests over two keys, with two slots.
    pub(super) fn large() -> Self {
        let config = TrackerConfig::default()
            .max_running(2)
            .max_queued(2)
            .stall(Stall::default().parallelism(1))
            .finish_timeout(Duration::from_secs(2))
            .default_timeout(Duration::from_secs(5));
        let retry = Retry::default().attempts(2).jitter_percent(0);
        let put = Operation::PutRecord {
            record: Arc::new(record(0, true)),
            quorum: Quorum::One,
            options: PutOptions::default().verify(1),
        };
        let requests = vec![
            (Operation::GetRecord { key: key(0), policy: Policy::First }, RequestOptions::default().streaming(true)),
            (put, RequestOptions::default()),
            (
                Operation::GetRecord { key: key(0), policy: Policy::Quorum(Quorum::N(2)) },
                RequestOptions::default().retry(retry),
            ),
            (Operation::StartProviding { key: key(1) }, RequestOptions::default()),
            (Operation::GetProviders { key: key(1), policy: Policy::All }, RequestOptions::default().fresh(true)),
        ];
        Self { name: "two keys, two slots, five requests", config, requests, beginnings: Self::beginnings() }
    }

    /// Nothing yet; a put that reads back, that stores locally, also with a read of its key under way, that looks for
    /// further peers; a retry that backs off; two running queries, and two that are finishing.
    fn beginnings() -> Vec<Vec<Input>> {
        let last = |id| Input::Last { id, answers: 3, timed_out: false };
        let started = || Input::Started(0);
        let sent = vec![Input::Request(1), started(), last(0), started()];
        let read_back = [sent.clone(), vec![last(1), started()]].concat();
        let storing = [read_back.clone(), vec![Input::Find { id: 2, peer: 1, new: true }]].concat();
        let reading = [storing.clone(), vec![Input::Request(0), started()]].concat();
        let choosing = [sent, vec![Input::Last { id: 1, answers: 0, timed_out: true }]].concat();
        let backing_off = vec![Input::Request(2), started(), Input::Last { id: 0, answers: 1, timed_out: false }];
        let running = vec![Input::Request(0), Input::Request(3), started(), started()];
        let finishing = [running.clone(), vec![Input::Cancel(0), Input::Cancel(3)]].concat();
        vec![Vec::new(), read_back, storing, reading, choosing, backing_off, running, finishing]
    }

    fn key_of(&self, request: usize) -> u8 {
        self.requests.get(request).map_or(0, |(operation, _)| operation.key().first().copied().unwrap_or(0))
    }
}

impl World {
    pub(super) fn new(scope: &Scope) -> Self {
        let mut tracker = QueryTracker::new(peer(0), scope.config.clone());
        tracker.handle_network(Network::default().size(6), epoch());
        Self {
            tracker,
            now: Duration::ZERO,
            asked: vec![false; scope.requests.len()],
            live: BTreeMap::new(),
            starts: Vec::new(),
            kad: BTreeMap::new(),
            ended: Vec::new(),
            storing: Vec::new(),
            choosing: Vec::new(),
            probes: Vec::new(),
            next_id: 0,
            writes: [0; 2],
            isolated: false,
            shut_down: false,
            rare_left: 2,
            broken: String::new(),
        }
    }

    /// Lists everything that can happen next.
    pub(super) fn inputs(&self, scope: &Scope, inputs: &mut Vec<Input>) {
        if !self.broken.is_empty() {
            return;
        }
        inputs.extend((0..scope.requests.len()).filter(|at| self.asked.get(*at) == Some(&false)).map(Input::Request));
        inputs.extend((0..self.starts.len()).map(Input::Started));
        for (id, query) in &self.kad {
            let id = *id;
            let finds = matches!(query.query, KindAndKey::Get(_) | KindAndKey::Providers(_));
            if finds && query.finds < 2 {
                let peers = if query.finds == 0 { 1..2 } else { 1..3 };
                inputs.extend(peers.map(|peer| Input::Find { id, peer, new: peer == 1 }));
            }
            inputs.extend([1, 3].map(|answers| Input::Last { id, answers, timed_out: false }));
        }
        if !self.storing.is_empty() {
            inputs.push(Input::Stored { ok: true });
        }
        if !self.choosing.is_empty() {
            inputs.push(Input::LocalPeers);
        }
        if !self.probes.is_empty() {
            inputs.extend([true, false].map(|moved| Input::Probe { moved }));
        }
        if self.tracker.poll_timeout().is_some() {
            inputs.push(Input::Tick);
        }
        let cancels = self.live.keys().map(|id| Input::Cancel(usize::try_from(id.0).unwrap_or(0)));
        if self.rare_left == 0 {
            return;
        }
        inputs.extend(cancels);
        inputs.extend((0..self.starts.len()).map(Input::NotStarted));
        inputs.extend(self.ended.iter().map(|id| Input::Late { id: *id }));
        inputs.extend(self.kad.iter().filter(|(_, query)| !query.cut_short).map(|(id, _)| Input::CutShort { id: *id }));
        inputs.extend(self.kad.iter().filter(|(_, query)| !query.foreign).map(|(id, _)| Input::Foreign { id: *id }));
        inputs.extend(self.kad.keys().map(|id| Input::Last { id: *id, answers: 0, timed_out: true }));
        if !self.storing.is_empty() {
            inputs.push(Input::Stored { ok: false });
        }
        if !self.isolated {
            inputs.push(Input::Isolated);
        }
        if !self.shut_down {
            inputs.extend([true, false].map(|drain| Input::Shutdown { drain }));
        }
        inputs.push(Input::Written { key: 0 });
    }

    pub(super) fn apply(&mut self, scope: &Scope, input: Input) {
        note(input, &self.tracker, self.now());
        let rare = matches!(
            input,
            Input::Cancel(_)
                | Input::Shutdown { .. }
                | Input::Written { .. }
                | Input::NotStarted(_)
                | Input::Foreign { .. }
                | Input::Late { .. }
                | Input::Stored { ok: false }
                | Input::CutShort { .. }
                | Input::Isolated
                | Input::Last { timed_out: true, .. }
        );
        self.rare_left = self.rare_left.saturating_sub(u8::from(rare));
        let now = self.now();
        // The query whose event this is.
        let mut event_of = None;
        match input {
            Input::Request(at) => {
                let Some((operation, options)) = scope.requests.get(at).cloned() else { return };
                if let Some(asked) = self.asked.get_mut(at) {
                    *asked = true;
                }
                let id = RequestId(at as u64);
                let request = Request { id, operation, options };
                self.live.insert(id, (at, self.writes_of(scope.key_of(at))));
                if self.tracker.handle_command(Command::Request(request), now).is_err() {
                    self.live.remove(&id);
                }
            }
            Input::Cancel(at) => {
                let _never_fails = self.tracker.handle_command(Command::Cancel { id: RequestId(at as u64) }, now);
            }
            Input::Shutdown { drain } => {
                self.shut_down = true;
                let _never_fails = self.tracker.handle_command(Command::Shutdown { drain }, now);
            }
            Input::Written { key: n } => {
                let _never_fails = self.tracker.handle_command(Command::Written { key: key(n) }, now);
                self.wrote(n);
            }
            Input::Started(at) => {
                let (step, query, began_after) = self.starts.remove(at);
                let id = self.next_id;
                self.next_id += 1;
                let query = KadQuery {
                    query: kind_and_key(&query),
                    finds: 0,
                    foreign: false,
                    began_after,
                    cut_short: false,
                    progress: [0; 2],
                };
                self.kad.insert(id, query);
                self.tracker.handle_started(step, Ok(Started { id, had_provider: false }), now);
                // The answer came after the query was given up: it runs in kad without the tracker.
                if !self.tracker.owns(&id) {
                    self.kad.remove(&id);
                }
            }
            Input::NotStarted(at) => {
                let (step, ..) = self.starts.remove(at);
                self.tracker.handle_started(step, Err(QueryStartError::NoKnownPeers), now);
            }
            Input::Find { id, peer: n, new } => {
                let Some(query) = self.kad.get_mut(&id) else { return };
                query.finds += 1;
                query.progress = query.progress.map(|count| count + 1);
                let result = query.query.found(n, new);
                let progress = query.progress();
                event_of = Some(id);
                self.tracker.handle_event(QueryEvent { id, result, progress, last: false }, now);
            }
            Input::Foreign { id } => {
                let Some(query) = self.kad.get_mut(&id) else { return };
                query.foreign = true;
                let other = Record::new(key(9), vec![0]);
                let found = kad::GetRecordOk::FoundRecord(PeerRecord { peer: Some(peer(3)), record: other });
                let (result, progress) = (QueryResult::GetRecord(Ok(found)), query.progress());
                event_of = Some(id);
                self.tracker.handle_event(QueryEvent { id, result, progress, last: false }, now);
            }
            Input::Last { id, answers, timed_out } => {
                let Some(query) = self.kad.get_mut(&id) else { return };
                query.progress = [4, answers];
                let failures = 4 - answers;
                let progress = Progress { failures, ..query.progress() };
                let result = query.query.last(query.finds > 0, timed_out);
                event_of = Some(id);
                self.tracker.handle_event(QueryEvent { id, result, progress, last: true }, now);
            }
            Input::Late { id } => {
                let result = KindAndKey::Get(0).found(1, false);
                let progress = Progress { requests: 9, successes: 9, failures: 0 };
                self.tracker.handle_event(QueryEvent { id, result, progress, last: true }, now);
            }
            Input::Stored { ok } => {
                let result = if ok { Ok(()) } else { Err(kad::store::Error::MaxRecords) };
                let request = self.storing.remove(0);
                self.tracker.handle_stored(request, result, now);
            }
            Input::LocalPeers => {
                let request = self.choosing.remove(0);
                self.tracker.handle_local_peers(request, vec![peer(1), peer(2), peer(0)], now);
            }
            Input::Probe { moved } => {
                let id = self.probes.remove(0);
                let progress = self.kad.get_mut(&id).map(|query| {
                    if moved {
                        query.progress = query.progress.map(|count| (count + 1).min(4));
                    }
                    query.progress()
                });
                self.tracker.handle_probe(id, progress, now);
            }
            Input::CutShort { id } => {
                if let Some(query) = self.kad.get_mut(&id) {
                    query.cut_short = true;
                }
                self.tracker.handle_cut_short(id, now);
            }
            Input::Isolated => {
                self.isolated = true;
                let network = Network::default().size(6).reachability(Reachability::Isolated);
                self.tracker.handle_network(network, now);
            }
            Input::Tick => {
                if let Some(due) = self.tracker.poll_timeout() {
                    self.now = self.now.max(due.saturating_duration_since(epoch()));
                    self.tracker.handle_timeout(self.now());
                }
            }
        }
        self.carry_out(scope, event_of);
        if let (Some(id), Input::Last { .. }) = (event_of, input) {
            self.kad.remove(&id);
            self.probes.retain(|probe| *probe != id);
            self.ended = vec![id];
        }
    }

    /// Does what a driver does, and checks each action.
    fn carry_out(&mut self, scope: &Scope, event_of: Option<u8>) {
        while let Some(action) = self.tracker.poll_action() {
            match action {
                Action::Start { step, request, query } => {
                    self.expect_live(request, "a start");
                    let began_after = kind_and_key(&query).key().map_or(0, |key| self.writes_of(key));
                    self.starts.push((step, query, began_after));
                }
                Action::Finish(id) => self.expect_running(id, "a finish"),
                Action::FinishPhase(id) => {
                    self.expect_running(id, "an early finish");
                    if let Some(query) = self.kad.get_mut(&id) {
                        query.cut_short = true;
                    }
                }
                Action::Probe(id) => {
                    self.expect_running(id, "a probe");
                    self.probes.push(id);
                }
                Action::Forget(id) => {
                    self.expect_running(id, "a forget");
                    self.kad.remove(&id);
                    self.probes.retain(|probe| *probe != id);
                    self.ended = vec![id];
                }
                Action::LocalPeers { request, target: _ } => {
                    self.expect_live(request, "local peers");
                    self.choosing.push(request);
                }
                Action::StoreLocal { request, record: _ } => {
                    self.expect_live(request, "a store");
                    self.storing.push(request);
                }
                Action::StopProviding { key } => self.wrote(key.as_ref().first().copied().unwrap_or(0)),
                Action::Item { request, item: _ } => self.expect_live(request, "an item"),
                Action::Outcome { request, outcome } => self.check_outcome(scope, request, &outcome, event_of),
            }
        }
        let queries = self.tracker.live_queries();
        if queries != self.kad.len() + self.starts.len() && event_of.is_none() {
            // A query whose start was never answered is given up without a word.
            let answered = self.kad.len();
            if queries < answered {
                self.broken = format!("{queries} slots are in use, and kad runs {answered} queries");
            }
        }
    }

    fn check_outcome(&mut self, scope: &Scope, request: RequestId, outcome: &Outcome, event_of: Option<u8>) {
        let Some((at, accepted_after)) = self.live.remove(&request) else {
            self.broken = format!("an outcome of {request}, which is not live: {outcome:?}");
            return;
        };
        self.storing.retain(|storing| *storing != request);
        self.choosing.retain(|choosing| *choosing != request);
        let (found, certainty) = match outcome {
            Outcome::GetRecord(Ok(_)) | Outcome::GetProviders(Ok(_)) => (true, None),
            Outcome::GetRecord(Err(GetRecordError::NotFound { certainty, .. }))
            | Outcome::GetProviders(Err(GetProvidersError::NotFound { certainty, .. })) => (false, Some(*certainty)),
            _ => (false, None),
        };
        let fresh = |query: &KadQuery| query.began_after >= accepted_after;
        let key = scope.key_of(at);
        let of_key = |query: &&KadQuery| query.query.key() == Some(key) && query.finds > 0;
        match event_of.and_then(|id| self.kad.get(&id)) {
            Some(query) if found && !fresh(query) => {
                self.broken = format!("{request} was answered by a query from before a write: {outcome:?}");
            }
            Some(query) if certainty == Some(Certainty::Conclusive) => {
                let [requests, successes] = query.progress;
                if query.cut_short || self.isolated || successes < 3 || successes * 5 < requests * 4 {
                    self.broken = format!("{request} is conclusive by {query:?}");
                }
            }
            None if found && !self.kad.values().filter(of_key).any(fresh) => {
                self.broken = format!("{request} was answered at once from before a write: {outcome:?}");
            }
            Some(_) | None => {}
        }
        if scope.requests.get(at).is_some_and(|(operation, _)| is_write(operation)) {
            self.wrote(key);
        }
    }

    fn expect_live(&mut self, request: RequestId, what: &str) {
        if !request.is_reserved() && !self.live.contains_key(&request) {
            self.broken = format!("{what} for {request}, which is not live");
        }
    }

    fn expect_running(&mut self, id: u8, what: &str) {
        if !self.kad.contains_key(&id) {
            self.broken = format!("{what} of query {id}, which is gone");
        }
    }

    fn wrote(&mut self, key: u8) {
        if let Some(writes) = self.writes.get_mut(usize::from(key)) {
            *writes += 1;
        }
    }

    fn writes_of(&self, key: u8) -> u8 {
        self.writes.get(usize::from(key)).copied().unwrap_or(0)
    }

    fn now(&self) -> Instant {
        epoch() + self.now
    }

    pub(super) fn slots_hold(&self, scope: &Scope) -> bool {
        self.tracker.live_queries() <= scope.config.max_running
    }

    /// Returns whether time alone ends every request and empties the tracker.
    pub(super) fn drains(&self) -> bool {
        let mut tracker = self.tracker.clone();
        let mut outcomes = 0;
        for _ in 0..200 {
            while let Some(action) = tracker.poll_action() {
                outcomes += usize::from(matches!(action, Action::Outcome { .. }));
            }
            let Some(due) = tracker.poll_timeout() else { break };
            tracker.handle_timeout(due);
        }
        tracker.is_empty() && outcomes == self.live.len()
    }
}

fn is_write(operation: &Operation) -> bool {
    matches!(operation, Operation::PutRecord { .. } | Operation::PutRecordTo { .. } | Operation::StartProviding { .. })
}

fn kind_and_key(query: &Query) -> KindAndKey {
    let first = |key: &RecordKey| key.as_ref().first().copied().unwrap_or(0);
    match query {
        Query::GetRecord { key } => KindAndKey::Get(first(key)),
        Query::GetProviders { key } => KindAndKey::Providers(first(key)),
        Query::GetClosestPeers { target: _ } => KindAndKey::Lookup,
        Query::PutRecordTo { record, peers: _ } => KindAndKey::Store(first(&record.key)),
        Query::StartProviding { key } => KindAndKey::Announce(first(key)),
        Query::Bootstrap => KindAndKey::Bootstrap,
    }
}

impl KadQuery {
    fn progress(&self) -> Progress {
        let [requests, successes] = self.progress;
        Progress { requests, successes, failures: 0 }
    }
}

impl KindAndKey {
    fn key(self) -> Option<u8> {
        match self {
            Self::Get(key) | Self::Providers(key) => Some(key),
            Self::Lookup | Self::Store(_) | Self::Announce(_) | Self::Bootstrap => None,
        }
    }

    fn found(self, n: u8, new: bool) -> QueryResult {
        match self {
            Self::Providers(of) => {
                let providers = [peer(n)].into_iter().collect();
                QueryResult::GetProviders(Ok(kad::GetProvidersOk::FoundProviders { key: key(of), providers }))
            }
            Self::Get(of) => {
                let found = PeerRecord { peer: Some(peer(n)), record: record(of, new) };
                QueryResult::GetRecord(Ok(kad::GetRecordOk::FoundRecord(found)))
            }
            Self::Lookup | Self::Store(_) | Self::Announce(_) | Self::Bootstrap => self.last(false, false),
        }
    }

    fn last(self, found: bool, timed_out: bool) -> QueryResult {
        let peers = || [1, 2].map(|n| kad::PeerInfo { peer_id: peer(n), addrs: Vec::new() }).to_vec();
        match self {
            Self::Get(of) if timed_out => QueryResult::GetRecord(Err(kad::GetRecordError::Timeout { key: key(of) })),
            Self::Get(_) if found => {
                let cache_candidates = BTreeMap::new();
                QueryResult::GetRecord(Ok(kad::GetRecordOk::FinishedWithNoAdditionalRecord { cache_candidates }))
            }
            Self::Get(of) => {
                let closest_peers = vec![peer(1)];
                QueryResult::GetRecord(Err(kad::GetRecordError::NotFound { key: key(of), closest_peers }))
            }
            Self::Providers(of) if timed_out => {
                let closest_peers = Vec::new();
                QueryResult::GetProviders(Err(kad::GetProvidersError::Timeout { key: key(of), closest_peers }))
            }
            Self::Providers(_) => {
                let closest_peers = vec![peer(1)];
                QueryResult::GetProviders(Ok(kad::GetProvidersOk::FinishedWithNoAdditionalRecord { closest_peers }))
            }
            Self::Lookup if timed_out => {
                let (key, peers) = (Vec::new(), Vec::new());
                QueryResult::GetClosestPeers(Err(kad::GetClosestPeersError::Timeout { key, peers }))
            }
            Self::Lookup => {
                QueryResult::GetClosestPeers(Ok(kad::GetClosestPeersOk { key: Vec::new(), peers: peers() }))
            }
            Self::Store(of) if timed_out => {
                let (success, quorum) = (Vec::new(), std::num::NonZeroUsize::MIN);
                QueryResult::PutRecord(Err(kad::PutRecordError::QuorumFailed { key: key(of), success, quorum }))
            }
            Self::Store(of) => QueryResult::PutRecord(Ok(kad::PutRecordOk { key: key(of) })),
            Self::Announce(of) if timed_out => {
                QueryResult::StartProviding(Err(kad::AddProviderError::Timeout { key: key(of) }))
            }
            Self::Announce(of) => QueryResult::StartProviding(Ok(kad::AddProviderOk { key: key(of) })),
            Self::Bootstrap => QueryResult::Bootstrap(Ok(kad::BootstrapOk { peer: peer(0), num_remaining: 0 })),
        }
    }
}

/// Number of times that each input met each phase of a request and of a query.
static MET: Mutex<BTreeMap<String, u64>> = Mutex::new(BTreeMap::new());

const INPUTS: [&str; 16] = [
    "request",
    "cancel",
    "shutdown",
    "written",
    "started",
    "not started",
    "find",
    "foreign record",
    "last event",
    "late event",
    "stored",
    "local peers",
    "probe",
    "cut short",
    "network",
    "tick",
];

/// The scope has one put, which cannot be in two phases at once.
const IMPOSSIBLE: [&str; 2] = ["stored | request BetweenSteps", "local peers | request Storing"];

/// Returns every input with every phase of a request and of a query.
pub(super) fn possible() -> Vec<String> {
    let phases = ["request Queued", "request Running", "request BetweenSteps", "request BackingOff", "request Storing"];
    let queries = ["query Starting", "query Running", "query Finishing"];
    let all =
        INPUTS.iter().flat_map(|input| phases.iter().chain(&queries).map(move |phase| format!("{input} | {phase}")));
    all.filter(|what| !IMPOSSIBLE.contains(&what.as_str())).collect()
}

fn note(input: Input, tracker: &QueryTracker<u8>, now: Instant) {
    let name = match input {
        Input::Request(_) => "request",
        Input::Cancel(_) => "cancel",
        Input::Shutdown { .. } => "shutdown",
        Input::Written { .. } => "written",
        Input::Started(_) => "started",
        Input::NotStarted(_) => "not started",
        Input::Find { .. } => "find",
        Input::Foreign { .. } => "foreign record",
        Input::Last { .. } => "last event",
        Input::Late { .. } => "late event",
        Input::Stored { .. } => "stored",
        Input::LocalPeers => "local peers",
        Input::Probe { .. } => "probe",
        Input::CutShort { .. } => "cut short",
        Input::Isolated => "network",
        Input::Tick => "tick",
    };
    let snapshot = tracker.snapshot(now);
    let mut met = MET.lock().unwrap_or_else(PoisonError::into_inner);
    for request in &snapshot.requests {
        *met.entry(format!("{name} | request {:?}", request.phase)).or_default() += 1;
    }
    for query in &snapshot.queries {
        *met.entry(format!("{name} | query {:?}", query.phase)).or_default() += 1;
    }
}

pub(super) fn met() -> BTreeMap<String, u64> {
    MET.lock().unwrap_or_else(PoisonError::into_inner).clone()
}
