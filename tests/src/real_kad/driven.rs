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
    Conduct, Counts, Fault, Lot, Phases, Setup,
    expected::{Call, Expected},
    facts::Facts,
    network::Network,
    trace::Trace,
    wire::Kad,
};

/// The real kad under the real tracker, in a network that is a script.
///
/// It carries out the tracker's actions as the driver does, and the swarm's part is played by hand; nothing happens
/// but by a call. At every event of kad, at every action of the tracker and whenever kad comes to rest it is checked
/// that everything is as it should be.
pub struct RealKad {
    /// kad. Whoever touches it has to [`settle`](Self::settle) afterwards.
    pub kad: Kad,
    /// The tracker.
    pub tracker: QueryTracker,
    pub(super) network: Network,
    pub(super) lot: Lot,
    pub(super) local: PeerId,
    /// The reading of the clock that all others are counted from.
    epoch: Instant,
    pub(super) now: Duration,
    last_request: u64,
    pub(super) calls: BTreeMap<RequestId, Call>,
    pub(super) outcomes: BTreeMap<RequestId, Outcome>,
    /// Standing orders.
    pub(super) finishing: Vec<QueryId>,
    pub(super) probes: Vec<QueryId>,
    /// Every query that was started for a request.
    pub(super) ours: HashSet<QueryId>,
    pub(super) latest: Option<QueryId>,
    /// Queries that the tracker has given up.
    pub(super) forgotten: HashSet<QueryId>,
    /// Events of queries that are not ours.
    pub(super) handed_on: Vec<(QueryId, QueryResult)>,
    pub(super) facts: Facts,
    pub(super) expected: Expected,
    /// Whether somebody beside the tracker starts queries.
    pub(super) has_strangers: bool,
    /// How often kad was polled to no avail.
    pub(super) rests: usize,
    trace: Trace,
    pub(super) fault: Option<Fault>,
    /// How often there was an occasion to do it wrong.
    pub(super) faults: usize,
}

impl RealKad {
    /// A node that knows nobody.
    pub fn new(setup: Setup) -> Self {
        let Setup { seed, tracker, kad, store, fault } = setup;
        let mut lot = Lot::new(seed);
        let local = lot.peer();
        let mut kad = Kad::with_config(local, MemoryStore::with_config(local, store), kad);
        // As in a node that has an external address.
        kad.set_mode(Some(Mode::Server));
        Self {
            kad,
            tracker: QueryTracker::new(local, tracker),
            network: Network::new(local, Lot::new(lot.draw())),
            lot,
            local,
            epoch: Instant::now(),
            now: Duration::ZERO,
            last_request: 0,
            calls: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            finishing: Vec::new(),
            probes: Vec::new(),
            ours: HashSet::new(),
            latest: None,
            forgotten: HashSet::new(),
            handed_on: Vec::new(),
            facts: Facts::default(),
            expected: Expected::default(),
            has_strangers: false,
            rests: 0,
            trace: Trace::default(),
            fault,
            faults: 0,
        }
    }

    /// Adds so many peers to the network that behave like this; nobody knows them yet.
    pub fn peers(&mut self, conduct: Conduct, count: usize) -> Vec<PeerId> {
        (0..count)
            .map(|_| {
                let peer = self.lot.peer();
                self.network.peers.add(peer, conduct);
                peer
            })
            .collect()
    }

    /// Adds a peer that belongs into this bucket of the routing table.
    pub fn peer_in_bucket(&mut self, conduct: Conduct, bucket: u32) -> PeerId {
        loop {
            let peer = self.lot.peer();
            if crate::bucket(self.local, peer) == Some(bucket) {
                self.network.peers.add(peer, conduct);
                return peer;
            }
        }
    }

    /// Changes how a peer behaves from now on.
    pub fn change(&mut self, peer: PeerId, conduct: Conduct) {
        self.network.peers.change(peer, conduct);
    }

    /// Puts a peer into the routing table.
    pub fn meet(&mut self, peer: PeerId) {
        let address = self.network.peers.address(peer).expect("the peer exists");
        self.kad.add_address(&peer, address);
    }

    /// The peers in the routing table.
    pub fn contacts(&mut self) -> Vec<PeerId> {
        let peers = self
            .kad
            .kbuckets()
            .flat_map(|bucket| bucket.iter().map(|entry| *entry.node.key.preimage()).collect::<Vec<_>>());
        peers.collect()
    }

    /// A peer connects to us.
    pub fn accept(&mut self, peer: PeerId) {
        self.network.accept(&mut self.kad, peer);
    }

    /// Puts a record of ours into the local store, behind the tracker's back.
    pub fn hold(&mut self, mut record: Record) {
        record.publisher = Some(self.local);
        if self.kad.store_mut().put(record.clone()).is_ok() {
            self.expected.store(&record);
        }
    }

    // ---- what callers do

    /// A call. What it causes is done at once.
    ///
    /// # Errors
    ///
    /// If the tracker refuses it.
    pub fn request(&mut self, operation: Operation, options: RequestOptions) -> Result<RequestId, RequestError> {
        self.last_request += 1;
        let id = RequestId(self.last_request);
        self.note(|| format!("call {id}: {}, {options:?}", operation.kind().name()));
        if let Operation::PutRecord { record, quorum: _, options: _ } = &operation
            && self.goes_wrong(Fault::StoresBeforehand)
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
        // What came before the request may have ended others, even if it was refused.
        self.act();
        accepted.map(|()| id).map_err(|CommandError(error)| error)
    }

    /// A call that is not refused.
    pub fn ask(&mut self, operation: Operation) -> RequestId {
        self.request(operation, RequestOptions::default()).expect("the request is valid")
    }

    /// The caller is gone.
    pub fn cancel(&mut self, id: RequestId) {
        self.note(|| format!("cancel {id}"));
        // Whatever is due ends before the cancel comes.
        self.tracker.handle_timeout(self.now());
        self.act();
        if let Some(call) = self.calls.get_mut(&id) {
            call.cancelled = true;
        }
        let _never_fails = self.tracker.handle_command(Command::Cancel { id }, self.now());
        self.act();
    }

    /// Nothing is accepted any more; with `drain`, what was accepted is still answered.
    pub fn shut_down(&mut self, drain: bool) {
        self.note(|| format!("shut down, drain: {drain}"));
        let _never_fails = self.tracker.handle_command(Command::Shutdown { drain }, self.now());
        self.act();
        assert!(drain || self.tracker.is_shut_down(), "all requests end at once");
    }

    /// How a request ended, if it did.
    pub fn outcome(&self, id: RequestId) -> Option<&Outcome> {
        self.outcomes.get(&id)
    }

    /// The query that was started last for a request.
    pub fn query_of(&self, id: RequestId) -> Option<QueryId> {
        self.calls.get(&id).and_then(|call| call.query)
    }

    /// The events of queries that are not ours.
    pub fn handed_on(&self) -> &[(QueryId, QueryResult)] {
        &self.handed_on
    }

    /// The lookups of a bootstrap, as kad reported them.
    pub fn phases(&self, id: QueryId) -> Phases {
        self.facts.bootstrap(id)
    }

    /// What has happened in the network.
    pub fn counts(&self) -> Counts {
        self.network.counts
    }

    // ---- time

    /// The tracker's clock. kad's is the real one.
    pub fn now(&self) -> Instant {
        self.epoch + self.now
    }

    /// Moves the tracker's clock.
    pub fn advance(&mut self, by: Duration) {
        self.now += by;
    }

    /// Moves the tracker's clock to when it wants to be called, if it does.
    pub fn advance_to_timeout(&mut self) -> bool {
        let due = self.tracker.poll_timeout();
        if let Some(due) = due {
            self.note(|| "the clock moves on".to_owned());
            self.now = self.now.max(due.saturating_duration_since(self.epoch));
        }
        due.is_some()
    }

    // ---- what there is to see

    /// What kad runs that is not ours.
    pub fn strangers(&self) -> Vec<QueryId> {
        self.kad.iter_queries().map(|query| query.id()).filter(|id| !self.ours.contains(id)).collect()
    }

    /// Whether kad runs this query.
    pub fn runs(&self, id: QueryId) -> bool {
        self.kad.query(&id).is_some()
    }

    /// How often, and over all, what has happened here was written down: the same digest, the same run.
    pub fn digest(&self) -> (usize, u64) {
        self.trace.digest()
    }

    pub(super) fn note(&mut self, line: impl FnOnce() -> String) {
        self.trace.note(line());
    }
}

impl Drop for RealKad {
    fn drop(&mut self) {
        // What was done wrong on purpose is not worth reading.
        if thread::panicking() && self.fault.is_none() {
            self.trace.print();
        }
    }
}
