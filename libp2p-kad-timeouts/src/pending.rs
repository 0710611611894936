//! Requests and dials that queries wait for, and their deadlines. No clock and no kad: time and events are arguments.
//!
//! ```text
//!   request ──► timed ── response, failure, last connection closed ───────────────────────► removed
//!                │                                                                             ▲
//!                └── given up, query ended ──► abandoned ── late response, failure, closed ────┘
//! ```
//!
//! A dial takes the same course until there is a connection. Then the requests that waited for it are sent, and their
//! responses are timed. kad does not say of which queries they are, so these requests are counted by peer.
//!
//! At its deadline a peer is given up if each query that waits for it has had a response from some peer, and either a
//! peer has responded since the request was sent, or fewer peers were given up since the last response than have
//! responded to the query. Otherwise nothing distinguishes silent peers from a network that is slow or gone for a
//! moment, and to give up would turn "slow" into "not found": the request stays until some peer responds, or until the
//! maximum timeout.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet, VecDeque, hash_map::Entry},
    hash::Hash,
    time::Duration,
};

use web_time::Instant;

use libp2p::PeerId;
use rustc_hash::FxHashMap;

use super::{
    config::{AdaptiveTimeout, PeerTimeoutConfig, PeerTimeoutStats},
    liveness::Liveness,
    rtt_estimator::RttEstimator,
    timer::later,
};

/// Maximum number of abandoned requests that are kept for their late responses. A silent peer leaves one for each query
/// that asked it within 10 s, the timeout of kad's streams: enough for a hundred a second, and some hundred kilobytes.
const MAX_ABANDONED: usize = 1024;

/// Maximum number of queries without a peer that are kept for a caller, which takes them after every poll.
const MAX_INCOMPLETE: usize = 1024;

/// Lateness above which a deadline is extended once: the loop was held up, and may not have seen responses that have
/// come. A quarter of the minimum timeout by default, and more than the error of timers.
const HELD_UP: Duration = Duration::from_millis(25);

/// Minimum time for which further requests of a query wait for responses to its first. A busy loop takes as long to
/// notice a response.
const MIN_WINDOW: Duration = Duration::from_millis(10);

/// Maximum of the same time: the timeout of a request in a fast network. Three silent first peers delay a query by no
/// more.
const MAX_WINDOW: Duration = Duration::from_millis(100);

type Serial = u64;

#[derive(Debug)]
pub(super) struct PendingRequests<Id> {
    entries: FxHashMap<Serial, Pending<Id>>,
    last_serial: Serial,
    /// A query waits for few peers at a time. Events of a whole peer are rare enough to search all entries.
    by_query: FxHashMap<Id, Vec<(PeerId, Serial)>>,
    /// Entries whose queries are not known: at most one for each peer.
    by_peer: BTreeMap<PeerId, Serial>,
    deadlines: BTreeSet<(Instant, Serial)>,
    /// Timed entries whose deadline has passed without evidence that the network is alive. They are due as soon as
    /// there is some.
    unproven: BTreeSet<Serial>,
    /// Oldest first.
    abandoned: BTreeSet<Serial>,
    connected: HashSet<PeerId>,
    requests: Timing,
    dials: Timing,
    /// Queries for which a peer was given up, oldest first, until they are taken.
    incomplete: VecDeque<Id>,
    stats: PeerTimeoutStats,
}

/// Measurements of requests or of dials.
#[derive(Debug)]
struct Timing {
    rtt: RttEstimator,
    liveness: Liveness,
}

impl Timing {
    fn new(bounds: AdaptiveTimeout, deviations: u32) -> Self {
        Self { rtt: RttEstimator::new(bounds, deviations), liveness: Liveness::default() }
    }
}

/// A request or dial.
#[derive(Debug)]
struct Pending<Id> {
    peer: PeerId,
    kind: Kind<Id>,
    since: Instant,
    /// `None`: it is abandoned.
    deadline: Option<Instant>,
    /// The deadline was extended because the loop was held up.
    extended: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind<Id> {
    /// A request of a query.
    Request(Id),
    /// A dial, with the number of requests that wait for the connection.
    Dial { requests: u64 },
    /// Requests that were sent when a dial had succeeded, of queries that are not known.
    Requests { requests: u64 },
}

impl<Id: Copy + Eq + Hash> PendingRequests<Id> {
    pub(super) fn new(config: &PeerTimeoutConfig) -> Self {
        Self {
            entries: FxHashMap::default(),
            last_serial: 0,
            by_query: FxHashMap::default(),
            by_peer: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            unproven: BTreeSet::new(),
            abandoned: BTreeSet::new(),
            connected: HashSet::new(),
            requests: Timing::new(config.requests, config.deviations),
            dials: Timing::new(config.dials, config.deviations),
            incomplete: VecDeque::new(),
            stats: PeerTimeoutStats::default(),
        }
    }

    // ---- actions of kad

    /// Notes that a request was sent which has a response.
    pub(super) fn sent(&mut self, peer: PeerId, query: Id, now: Instant) {
        self.stats.timed += 1;
        // A query asks a peer once in each phase, and its next phase asks only peers that have responded.
        if let Some(serial) = self.of_query(peer, query) {
            self.remove(serial);
        }
        self.begin(peer, Kind::Request(query), now);
    }

    /// Notes that a request waits for a connection.
    pub(super) fn dialled(&mut self, peer: PeerId, now: Instant) {
        let mut earlier = 0;
        if let Some(serial) = self.by_peer.get(&peer).copied()
            && let Some(Pending { kind: Kind::Dial { requests } | Kind::Requests { requests }, deadline, .. }) =
                self.entries.get_mut(&serial)
        {
            if deadline.is_some() {
                // Other requests wait for the same dial, or for responses over the connection it has led to.
                *requests = requests.saturating_add(1);
                return;
            }
            // The dial was given up and still runs: the new request gets the whole timeout.
            earlier = *requests;
            self.remove(serial);
        }
        let requests = earlier.saturating_add(1);
        if self.connected.contains(&peer) {
            // The connection came before the dial, and the request is on it already.
            self.stats.timed += 1;
            self.begin(peer, Kind::Requests { requests }, now);
        } else {
            self.stats.dials += 1;
            self.begin(peer, Kind::Dial { requests }, now);
        }
    }

    /// Abandons the requests of a query that has ended.
    pub(super) fn query_ended(&mut self, query: Id) {
        let serials: Vec<_> = self.by_query.get(&query).into_iter().flatten().map(|(_, serial)| *serial).collect();
        for serial in serials {
            self.set_deadline(serial, None);
        }
    }

    /// Abandons everything: no query waits for a peer.
    pub(super) fn abandon_all(&mut self) {
        while let Some((_, serial)) = self.deadlines.first().copied() {
            self.set_deadline(serial, None);
        }
    }

    // ---- events of peers

    /// Notes a response to a request of a query.
    pub(super) fn answered(&mut self, peer: PeerId, query: Id, now: Instant) {
        self.requests.liveness.on_response(now);
        self.dials.liveness.on_response(now);
        if let Some(pending) = self.take_one(peer, query) {
            self.requests.rtt.sample(now.saturating_duration_since(pending.since));
            match pending.deadline {
                Some(_) => self.stats.answered += 1,
                None => self.stats.late += 1,
            }
        }
        self.reschedule_unproven(|_| true, now);
    }

    /// Notes that the stream of a request has failed, or that kad has given the request up.
    pub(super) fn failed(&mut self, peer: PeerId, query: Id) {
        if self.take_one(peer, query).is_some() {
            self.stats.failed += 1;
        }
    }

    /// Notes a new connection, on which the requests that waited for it are sent.
    pub(super) fn connected(&mut self, peer: PeerId, now: Instant) {
        self.connected.insert(peer);
        let Some(serial) = self.by_peer.get(&peer).copied() else { return };
        let Some(Pending { kind: Kind::Dial { requests }, since, deadline, .. }) = self.entries.get(&serial) else {
            return;
        };
        let (requests, since, was_timed) = (*requests, *since, deadline.is_some());
        // It says nothing about the time of responses.
        self.dials.liveness.on_response(now);
        self.dials.rtt.sample(now.saturating_duration_since(since));
        self.remove(serial);
        let serial = self.begin(peer, Kind::Requests { requests }, now);
        if was_timed {
            self.stats.timed += requests;
        } else {
            self.set_deadline(serial, None);
        }
        self.reschedule_unproven(|kind| matches!(kind, Kind::Dial { .. }), now);
    }

    /// Notes that a dial has failed, which kad has reported to all queries that waited for the peer.
    pub(super) fn dial_failed(&mut self, peer: PeerId) {
        if let Some(serial) = self.by_peer.get(&peer).copied()
            && let Some(Pending { kind: Kind::Dial { .. }, .. }) = self.entries.get(&serial)
        {
            self.remove(serial);
        }
        for serial in self.of_peer(peer) {
            self.set_deadline(serial, None);
        }
    }

    /// Notes that the last connection to a peer has closed, which kad has reported to all queries that waited for it.
    pub(super) fn disconnected(&mut self, peer: PeerId) {
        self.connected.remove(&peer);
        for serial in self.of_peer(peer) {
            self.remove(serial);
        }
    }

    // ---- time

    /// Returns the next time at which to ask for a peer that is [`overdue`](Self::overdue).
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(due, _)| *due)
    }

    /// Returns the next peer to give up in all queries that wait for it, and abandons its requests.
    ///
    /// `answers_of` returns how many peers have responded to a query; `None` if kad has ended it, which kad does not
    /// report for its own queries. `least` is the minimum number over all queries that wait for a peer.
    pub(super) fn overdue(
        &mut self,
        now: Instant,
        least: u32,
        answers_of: impl Fn(&Id) -> Option<u32>,
    ) -> Option<PeerId> {
        while let Some((due, serial)) = self.deadlines.first().copied() {
            if due > now {
                return None;
            }
            let Some(Pending { peer, kind, since, extended, .. }) = self.entries.get(&serial) else {
                self.deadlines.remove(&(due, serial));
                continue;
            };
            let (peer, kind, since, extended) = (*peer, *kind, *since, *extended);
            if let Kind::Request(query) = kind
                && answers_of(&query).is_none()
            {
                self.query_ended(query);
                continue;
            }
            // The timeout may have grown since the deadline was set.
            let by_now = later(since, self.timing(kind).rtt.timeout());
            if by_now > now {
                self.set_deadline(serial, Some(by_now));
                continue;
            }
            let late_by = now.saturating_duration_since(due);
            if late_by > HELD_UP && !extended {
                let more = late_by.min(self.timing(kind).rtt.timeout());
                self.set_deadline(serial, Some(later(now, more)));
                if let Some(pending) = self.entries.get_mut(&serial) {
                    pending.extended = true;
                }
                continue;
            }
            let max_timeout = later(since, self.timing(kind).rtt.max_timeout());
            if now < max_timeout {
                let answers = self.fewest_answers(peer, least, &answers_of);
                if answers == 0 && !matches!(kind, Kind::Dial { .. }) {
                    // A query without a response keeps its peers; look again after another timeout.
                    self.set_deadline(serial, Some(max_timeout.min(later(now, self.requests.rtt.timeout()))));
                    continue;
                }
                if !self.timing(kind).liveness.is_proven(since, answers) {
                    self.set_deadline(serial, Some(max_timeout));
                    self.unproven.insert(serial);
                    continue;
                }
            }
            // These requests include announcements, which have no response. While requests of known queries are
            // pending, those decide. Without any, no query waits for the peer.
            if let Kind::Requests { .. } = kind
                && self.has_timed_request(peer)
            {
                self.set_deadline(serial, Some(later(now, self.requests.rtt.timeout())));
                continue;
            }
            match kind {
                Kind::Request(_) | Kind::Requests { .. } => self.requests.liveness.on_given_up(since),
                Kind::Dial { .. } => self.dials.liveness.on_given_up(since),
            }
            self.give_up(peer);
            return Some(peer);
        }
        None
    }

    /// Returns the time at which a response to a request that is sent now is later than most.
    pub(super) fn window_deadline(&self, now: Instant) -> Instant {
        later(now, self.requests.rtt.usual().clamp(MIN_WINDOW, MAX_WINDOW))
    }

    /// Returns whether there is a connection to a peer.
    pub(super) fn is_connected(&self, peer: &PeerId) -> bool {
        self.connected.contains(peer)
    }

    /// Counts requests that were held back and never sent.
    pub(super) fn never_sent(&mut self, requests: usize) {
        self.stats.never_sent += requests as u64;
    }

    /// Notes that a query goes on without a peer that was given up.
    pub(super) fn goes_on_without(&mut self, query: Id) {
        if self.incomplete.len() == MAX_INCOMPLETE {
            self.incomplete.pop_front();
        }
        self.incomplete.push_back(query);
    }

    /// Returns the queries for which a peer was given up since the last call.
    pub(super) fn take_incomplete(&mut self) -> VecDeque<Id> {
        std::mem::take(&mut self.incomplete)
    }

    pub(super) fn stats(&self) -> PeerTimeoutStats {
        PeerTimeoutStats {
            timeout: self.requests.rtt.timeout(),
            dial_timeout: self.dials.rtt.timeout(),
            pending: self.deadlines.len(),
            abandoned: self.abandoned.len(),
            ..self.stats
        }
    }

    // ---- inside

    fn give_up(&mut self, peer: PeerId) {
        for serial in self.of_peer(peer) {
            let Some(Pending { kind, deadline: Some(_), .. }) = self.entries.get(&serial) else { continue };
            match kind {
                Kind::Request(_) => self.stats.given_up += 1,
                Kind::Requests { requests } => self.stats.given_up += requests,
                Kind::Dial { .. } => self.stats.dials_given_up += 1,
            }
            self.set_deadline(serial, None);
        }
    }

    /// Reconsiders unproven entries after a response: they are due by the current timeout. Each entry gets here at most
    /// once.
    fn reschedule_unproven(&mut self, is_proven: impl Fn(Kind<Id>) -> bool, now: Instant) {
        let unproven: Vec<_> = self.unproven.iter().copied().collect();
        for serial in unproven {
            if let Some(Pending { kind, since, .. }) = self.entries.get(&serial)
                && is_proven(*kind)
            {
                let due = later(*since, self.timing(*kind).rtt.timeout());
                self.set_deadline(serial, Some(due.max(now)));
            }
        }
    }

    fn timing(&self, kind: Kind<Id>) -> &Timing {
        match kind {
            Kind::Request(_) | Kind::Requests { .. } => &self.requests,
            Kind::Dial { .. } => &self.dials,
        }
    }

    fn of_query(&self, peer: PeerId, query: Id) -> Option<Serial> {
        let of_query = self.by_query.get(&query)?;
        of_query.iter().find(|(other, _)| *other == peer).map(|(_, serial)| *serial)
    }

    fn of(&self, peer: PeerId) -> impl Iterator<Item = (Serial, &Pending<Id>)> {
        self.entries.iter().filter(move |(_, pending)| pending.peer == peer).map(|(serial, pending)| (*serial, pending))
    }

    fn of_peer(&self, peer: PeerId) -> Vec<Serial> {
        self.of(peer).map(|(serial, _)| serial).collect()
    }

    /// Returns the minimum number of responses over the queries that wait for this peer.
    fn fewest_answers(&self, peer: PeerId, least: u32, answers_of: impl Fn(&Id) -> Option<u32>) -> u32 {
        let timed = self.of(peer).map(|(_, pending)| pending).filter(|pending| pending.deadline.is_some());
        let answers = timed.filter_map(|pending| match &pending.kind {
            Kind::Request(query) => answers_of(query),
            Kind::Dial { .. } | Kind::Requests { .. } => Some(least),
        });
        answers.min().unwrap_or(least)
    }

    fn has_timed_request(&self, peer: PeerId) -> bool {
        self.of(peer).any(|(_, pending)| matches!(pending.kind, Kind::Request(_)) && pending.deadline.is_some())
    }

    /// Removes one request of the peer: that of the query or, if there is none, one that was sent when a dial had
    /// succeeded.
    fn take_one(&mut self, peer: PeerId, query: Id) -> Option<Pending<Id>> {
        if let Some(serial) = self.of_query(peer, query) {
            return self.remove(serial);
        }
        let serial = self.by_peer.get(&peer).copied()?;
        let Pending { kind: Kind::Requests { requests }, since, deadline, .. } = self.entries.get_mut(&serial)? else {
            return None;
        };
        *requests = requests.saturating_sub(1);
        let taken =
            Pending { peer, kind: Kind::Requests { requests: 1 }, since: *since, deadline: *deadline, extended: false };
        if *requests == 0 {
            self.remove(serial);
        }
        Some(taken)
    }

    fn begin(&mut self, peer: PeerId, kind: Kind<Id>, now: Instant) -> Serial {
        let deadline = Some(later(now, self.timing(kind).rtt.timeout()));
        self.insert(Pending { peer, kind, since: now, deadline, extended: false })
    }

    fn insert(&mut self, pending: Pending<Id>) -> Serial {
        self.last_serial += 1;
        let serial = self.last_serial;
        let Pending { peer, kind, since: _, deadline, extended: _ } = pending;
        self.entries.insert(serial, pending);
        match kind {
            Kind::Request(query) => self.by_query.entry(query).or_default().push((peer, serial)),
            Kind::Dial { .. } | Kind::Requests { .. } => {
                self.by_peer.insert(peer, serial);
            }
        }
        if let Some(deadline) = deadline {
            self.deadlines.insert((deadline, serial));
        }
        serial
    }

    fn set_deadline(&mut self, serial: Serial, deadline: Option<Instant>) {
        let Some(pending) = self.entries.get_mut(&serial) else { return };
        if let Some(due) = pending.deadline {
            self.deadlines.remove(&(due, serial));
        }
        self.unproven.remove(&serial);
        pending.deadline = deadline;
        match deadline {
            Some(due) => {
                self.deadlines.insert((due, serial));
            }
            None => {
                self.abandoned.insert(serial);
                if self.abandoned.len() > MAX_ABANDONED
                    && let Some(oldest) = self.abandoned.first().copied()
                {
                    self.remove(oldest);
                }
            }
        }
    }

    fn remove(&mut self, serial: Serial) -> Option<Pending<Id>> {
        let pending = self.entries.remove(&serial)?;
        if let Some(due) = pending.deadline {
            self.deadlines.remove(&(due, serial));
        }
        self.unproven.remove(&serial);
        self.abandoned.remove(&serial);
        match pending.kind {
            Kind::Request(query) => {
                if let Entry::Occupied(mut of_query) = self.by_query.entry(query) {
                    of_query.get_mut().retain(|(_, other)| *other != serial);
                    if of_query.get().is_empty() {
                        of_query.remove();
                    }
                }
            }
            Kind::Dial { .. } | Kind::Requests { .. } => {
                self.by_peer.remove(&pending.peer);
            }
        }
        Some(pending)
    }
}

#[cfg(test)]
mod tests;
