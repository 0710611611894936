use std::{
    collections::{BTreeMap, HashSet},
    thread,
    time::{Duration, Instant},
};

use kadence::{
    RequestError,
    tracker::{Command, CommandError, Operation, Outcome, QueryTracker, Request, RequestId, RequestOptions},
};
use libp2p::{
    PeerId,
    kad::{
        Mode, QueryId, QueryResult, Record,
        store::{MemoryStore, RecordStore},
    },
};

use super::{
    Counts, Fault, PeerKind, Phases, Rng, Setup,
    expected::{Call, Expected},
    kad_events::KadEvents,
    network::Network,
    trace::Trace,
    wire::Kad,
};

/// The tracker on top of the real kad, in a simulated network.
///
/// Carries out the tracker's actions as the driver does, and takes the part of the swarm. Nothing happens except in
/// calls. Invariants are checked at every event of kad, at every action of the tracker, and whenever kad is idle.
pub struct RealKad {
    /// kad. Call [`run_until_idle`](Self::run_until_idle) after each change.
    pub kad: Kad,
    /// The tracker under test.
    pub tracker: QueryTracker,
    pub(super) network: Network,
    pub(super) rng: Rng,
    pub(super) local: PeerId,
    /// Start of the tracker's clock.
    epoch: Instant,
    pub(super) now: Duration,
    last_request: u64,
    pub(super) calls: BTreeMap<RequestId, Call>,
    pub(super) outcomes: BTreeMap<RequestId, Outcome>,
    /// Queries whose `finish` is repeated until they end.
    pub(super) finishing: Vec<QueryId>,
    pub(super) probes: Vec<QueryId>,
    /// All queries that were started for requests.
    pub(super) own_queries: HashSet<QueryId>,
    pub(super) last_started_query: Option<QueryId>,
    /// Queries that the tracker has given up.
    pub(super) forgotten: HashSet<QueryId>,
    /// Events of queries that are not the tracker's.
    pub(super) forwarded: Vec<(QueryId, QueryResult)>,
    pub(super) kad_events: KadEvents,
    pub(super) expected: Expected,
    /// Others besides the tracker start queries.
    pub(super) others_start_queries: bool,
    /// Number of polls of kad without result.
    pub(super) idle_polls: usize,
    trace: Trace,
    pub(super) fault: Option<Fault>,
    /// Number of times that the fault could have been injected.
    pub(super) faults: usize,
}

impl RealKad {
    /// Creates a node that knows no peers.
    pub fn new(setup: Setup) -> Self {
        let Setup { seed, tracker, kad, store, fault } = setup;
        let mut rng = Rng::new(seed);
        let local = rng.peer();
        let mut kad = Kad::with_config(local, MemoryStore::with_config(local, store), kad);
        // Server mode, as in a node with an external address.
        kad.set_mode(Some(Mode::Server));
        Self {
            kad,
            tracker: QueryTracker::new(local, tracker),
            network: Network::new(local, Rng::new(rng.next_u64())),
            rng,
            local,
            epoch: Instant::now(),
            now: Duration::ZERO,
            last_request: 0,
            calls: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            finishing: Vec::new(),
            probes: Vec::new(),
            own_queries: HashSet::new(),
            last_started_query: None,
            forgotten: HashSet::new(),
            forwarded: Vec::new(),
            kad_events: KadEvents::default(),
            expected: Expected::default(),
            others_start_queries: false,
            idle_polls: 0,
            trace: Trace::default(),
            fault,
            faults: 0,
        }
    }

    /// Adds peers of this kind to the network, which no other peer knows yet.
    pub fn peers(&mut self, kind: PeerKind, count: usize) -> Vec<PeerId> {
        (0..count)
            .map(|_| {
                let peer = self.rng.peer();
                self.network.peers.add(peer, kind);
                peer
            })
            .collect()
    }

    /// Adds a peer of this kind that belongs to this bucket of the routing table.
    pub fn peer_in_bucket(&mut self, kind: PeerKind, bucket: u32) -> PeerId {
        loop {
            let peer = self.rng.peer();
            if crate::bucket(self.local, peer) == Some(bucket) {
                self.network.peers.add(peer, kind);
                return peer;
            }
        }
    }

    /// Changes the kind of a peer.
    pub fn set_kind(&mut self, peer: PeerId, kind: PeerKind) {
        self.network.peers.set_kind(peer, kind);
    }

    /// Adds a peer to the routing table.
    pub fn add_contact(&mut self, peer: PeerId) {
        let address = self.network.peers.address(peer).expect("the peer exists");
        self.kad.add_address(&peer, address);
    }

    /// Returns the peers in the routing table.
    pub fn contacts(&mut self) -> Vec<PeerId> {
        let peers = self
            .kad
            .kbuckets()
            .flat_map(|bucket| bucket.iter().map(|entry| *entry.node.key.preimage()).collect::<Vec<_>>());
        peers.collect()
    }

    /// Accepts a connection from a peer.
    pub fn accept_connection(&mut self, peer: PeerId) {
        self.network.accept_connection(&mut self.kad, peer);
    }

    /// Puts a record of the local node into the local store, bypassing the tracker.
    pub fn store_locally(&mut self, mut record: Record) {
        record.publisher = Some(self.local);
        if self.kad.store_mut().put(record.clone()).is_ok() {
            self.expected.store(&record);
        }
    }

    // ---- calls

    /// Makes a call, and handles the resulting actions.
    ///
    /// # Errors
    ///
    /// Returns the tracker's error if it does not accept the call.
    pub fn request(&mut self, operation: Operation, options: RequestOptions) -> Result<RequestId, RequestError> {
        self.last_request += 1;
        let id = RequestId(self.last_request);
        self.note(|| format!("call {id}: {}, {options:?}", operation.kind().name()));
        if let Operation::PutRecord { record, quorum: _, options: _ } = &operation
            && self.injects(Fault::StoresBeforehand)
        {
            let _full = self.kad.store_mut().put((**record).clone());
        }
        let request = Request { id, operation: operation.clone(), options };
        let accepted = self.tracker.handle_command(Command::Request(request), self.now());
        if accepted.is_ok() {
            let timeout = options.timeout.unwrap_or(self.tracker.config().default_timeout);
            let call = Call {
                operation,
                streaming: options.streaming,
                deadline: self.now + timeout,
                items: 0,
                cancelled: false,
                query: None,
            };
            self.calls.insert(id, call);
        }
        // Requests that were due before may have ended, even if this one was not accepted.
        self.handle_actions();
        accepted.map(|()| id).map_err(|CommandError(error)| error)
    }

    /// Makes a call that the tracker has to accept.
    pub fn request_valid(&mut self, operation: Operation) -> RequestId {
        self.request(operation, RequestOptions::default()).expect("the request is valid")
    }

    /// Cancels a call.
    pub fn cancel(&mut self, id: RequestId) {
        self.note(|| format!("cancel {id}"));
        // Everything that is due ends before the cancel.
        self.tracker.handle_timeout(self.now());
        self.handle_actions();
        if let Some(call) = self.calls.get_mut(&id) {
            call.cancelled = true;
        }
        let _never_fails = self.tracker.handle_command(Command::Cancel { id }, self.now());
        self.handle_actions();
    }

    /// Shuts the tracker down. With `drain`, accepted requests are still answered.
    pub fn shut_down(&mut self, drain: bool) {
        self.note(|| format!("shut down, drain: {drain}"));
        let _never_fails = self.tracker.handle_command(Command::Shutdown { drain }, self.now());
        self.handle_actions();
        assert!(drain || self.tracker.is_shut_down(), "without a drain, all requests end immediately");
    }

    /// Returns the outcome of a request, if it has ended.
    pub fn outcome(&self, id: RequestId) -> Option<&Outcome> {
        self.outcomes.get(&id)
    }

    /// Returns the query that was started last for a request.
    pub fn query_of(&self, id: RequestId) -> Option<QueryId> {
        self.calls.get(&id).and_then(|call| call.query)
    }

    /// Returns the events of queries that are not the tracker's.
    pub fn forwarded(&self) -> &[(QueryId, QueryResult)] {
        &self.forwarded
    }

    /// Returns the phases of a bootstrap, as kad reported them.
    pub fn phases(&self, id: QueryId) -> Phases {
        self.kad_events.bootstrap(id)
    }

    /// Returns statistics of the network.
    pub fn counts(&self) -> Counts {
        self.network.counts
    }

    // ---- time

    /// Returns the time of the tracker's clock. kad uses the system clock.
    pub fn now(&self) -> Instant {
        self.epoch + self.now
    }

    /// Advances the tracker's clock.
    pub fn advance(&mut self, by: Duration) {
        self.now += by;
    }

    /// Advances the tracker's clock to the tracker's timeout. Returns whether there is one.
    pub fn advance_to_timeout(&mut self) -> bool {
        let due = self.tracker.poll_timeout();
        if let Some(due) = due {
            self.note(|| "the clock moves on".to_owned());
            self.now = self.now.max(due.saturating_duration_since(self.epoch));
        }
        due.is_some()
    }

    // ---- inspection

    /// Returns the queries of kad that are not the tracker's.
    pub fn foreign_queries(&self) -> Vec<QueryId> {
        self.kad.iter_queries().map(|query| query.id()).filter(|id| !self.own_queries.contains(id)).collect()
    }

    /// Returns whether kad runs this query.
    pub fn runs(&self, id: QueryId) -> bool {
        self.kad.query(&id).is_some()
    }

    /// Returns the number of trace lines and a digest of them. Equal digests mean equal runs.
    pub fn digest(&self) -> (usize, u64) {
        self.trace.digest()
    }

    pub(super) fn note(&mut self, line: impl FnOnce() -> String) {
        self.trace.note(line());
    }
}

impl Drop for RealKad {
    fn drop(&mut self) {
        // The trace of a run with an injected fault is of no use.
        if thread::panicking() && self.fault.is_none() {
            self.trace.print();
        }
    }
}
