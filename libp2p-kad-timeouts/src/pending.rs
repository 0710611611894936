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
    PAUSE,
    config::{AdaptiveTimeout, PeerTimeoutConfig, PeerTimeoutStats},
    late_records::LateResponse,
    liveness::Liveness,
    progress::{Moment, ResponseProgress},
    rtt_estimator::RttEstimator,
    timer::later,
};

/// Maximum number of abandoned requests that are kept for their late responses. A silent peer leaves one for each query
/// that asked it within the timeout of kad's streams, 10 to 30 s: enough for thirty a second, and some hundred kilobytes.
const MAX_ABANDONED: usize = 1024;

/// Maximum number of queries without a peer that are kept for a caller, which takes them after every poll.
const MAX_INCOMPLETE: usize = 1024;

/// Lateness above which a deadline is extended once: the loop was held up, and may not have seen responses that have
/// come. A quarter of the minimum timeout by default, and more than the error of timers.
const HELD_UP: Duration = Duration::from_millis(25);

/// Time for which bytes of a response keep its peer from being given up: that of 60 kB at 32 kbit/s. A peer that sends byte
/// by byte delays a query no longer.
pub(super) const LONGEST_RESPONSE: Duration = Duration::from_secs(15);

/// Time for which a response may wait behind those of others: that of 80 kB at 128 kbit/s.
const BEHIND_OTHERS: Duration = Duration::from_secs(5);

/// Time for which a query without any response waits while the link is busy with other responses: that of 480 kB at 128
/// kbit/s.
const BUSY: Duration = Duration::from_secs(30);

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
    uploads: Timing,
    dials: Timing,
    progress: ResponseProgress,
    /// Large values are being sent, which small requests wait behind.
    is_uplink_busy: bool,
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
#[derive(Debug, Clone, Copy)]
struct Pending<Id> {
    peer: PeerId,
    kind: Kind<Id>,
    since: Instant,
    /// `None`: it is abandoned.
    deadline: Option<Instant>,
    /// The deadline was extended because the loop was held up.
    extended: bool,
    sent: Moment,
    /// Moment at which bytes of responses were looked for last.
    seen: Moment,
    /// Bytes of the response had arrived at a deadline.
    has_moved: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind<Id> {
    /// A request of a query.
    Request(Id),
    /// A request of a query with a large value.
    Upload(Id),
    /// A dial, with the number of requests that wait for the connection.
    Dial { requests: u64 },
    /// Requests that were sent when a dial had succeeded, of queries that are not known.
    Requests { requests: u64 },
}

impl<Id: Copy + Eq + Hash> PendingRequests<Id> {
    pub(super) fn new(config: &PeerTimeoutConfig, progress: ResponseProgress) -> Self {
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
            uploads: Timing::new(config.uploads, config.deviations),
            dials: Timing::new(config.dials, config.deviations),
            progress,
            is_uplink_busy: false,
            incomplete: VecDeque::new(),
            stats: PeerTimeoutStats::default(),
        }
    }

    pub(super) fn set_progress(&mut self, progress: ResponseProgress) {
        self.progress = progress;
    }

    pub(super) fn set_uplink_busy(&mut self, is_busy: bool) {
        self.is_uplink_busy = is_busy;
    }

    // ---- actions of kad

    /// Notes that a request was sent which has a response.
    pub(super) fn sent(&mut self, peer: PeerId, query: Id, now: Instant) {
        self.begin_of_query(peer, Kind::Request(query), query, now);
    }

    /// Notes that a request with a large value was sent.
    pub(super) fn uploaded(&mut self, peer: PeerId, query: Id, now: Instant) {
        self.begin_of_query(peer, Kind::Upload(query), query, now);
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
        for timing in [&mut self.requests, &mut self.uploads, &mut self.dials] {
            timing.liveness.on_response(now);
        }
        if let Some(pending) = self.take_one(peer, query) {
            // The time of a response that took long to arrive says nothing about others.
            if !pending.has_moved {
                self.timing_mut(pending.kind).rtt.sample(now.saturating_duration_since(pending.since));
            }
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
            if let Kind::Request(query) | Kind::Upload(query) = kind
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
            let max_timeout = later(since, self.timing(kind).rtt.max_timeout());
            if let Some(more) = self.sign_of_life(serial, now, &answers_of) {
                self.set_deadline(serial, Some(later(now, more)));
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
            self.timing_mut(kind).liveness.on_given_up(since);
            self.give_up(peer);
            return Some(peer);
        }
        None
    }

    /// Returns the time at which a response to a request that is sent now is later than most.
    pub(super) fn window_deadline(&self, now: Instant) -> Instant {
        later(now, self.requests.rtt.usual().clamp(MIN_WINDOW, MAX_WINDOW))
    }

    /// Returns whether bytes of a response to a query have arrived since `seen`, and sets `seen` to now.
    pub(super) fn has_moved(&self, query: &Id, seen: &mut Moment) -> bool {
        let requests = self.by_query.get(query).into_iter().flatten();
        let mut requests = requests.filter_map(|(peer, serial)| Some((peer, self.entries.get(serial)?)));
        let before = std::mem::replace(seen, self.progress.now());
        requests.any(|(peer, pending)| self.progress.has_moved(peer, pending.sent, before))
    }

    /// Returns whether further requests of a query, whose first ones are late since `late_since`, wait because bytes of a response
    /// to it arrive, or those of another one for which it may have to wait. Sets `seen` to now.
    pub(super) fn holds_back(&self, query: &Id, seen: &mut Moment, late_since: Instant, now: Instant) -> bool {
        let before = *seen;
        let has_moved = self.has_moved(query, seen);
        now < later(late_since, LONGEST_RESPONSE) && has_moved
            || now < later(late_since, BEHIND_OTHERS) && self.progress.is_link_busy(before)
    }

    /// Returns the requests that may be of a query, and of whose responses bytes have arrived.
    pub(super) fn arriving(&self, query: &Id) -> Vec<LateResponse> {
        let of_query = self.by_query.get(query).into_iter().flatten().copied();
        // Those that waited for a dial may be of any query.
        let of_dials = self.by_peer.iter().map(|(peer, serial)| (*peer, *serial));
        let requests = of_query.chain(of_dials);
        let requests = requests.filter_map(|(peer, serial)| Some((peer, self.entries.get(&serial)?.sent)));
        let arriving = requests.filter(|(peer, sent)| self.progress.has_moved(peer, *sent, *sent));
        arriving.map(|(peer, sent)| LateResponse { peer, sent, seen: self.progress.now() }).collect()
    }

    pub(super) fn progress(&self) -> &ResponseProgress {
        &self.progress
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

    /// Returns for how long to wait on, if bytes have arrived since the last look. What is timed is silence, not size.
    fn sign_of_life(
        &mut self,
        serial: Serial,
        now: Instant,
        answers_of: impl Fn(&Id) -> Option<u32>,
    ) -> Option<Duration> {
        let Self { entries, progress, requests, uploads, .. } = self;
        let pending = entries.get_mut(&serial)?;
        let seen = std::mem::replace(&mut pending.seen, progress.now());
        match pending.kind {
            Kind::Dial { .. } => None,
            // Of any request, because the peer would be given up in all of them.
            _ if now < later(pending.since, LONGEST_RESPONSE)
                && progress.has_moved(&pending.peer, Moment::default(), seen) =>
            {
                pending.has_moved = true;
                Some(requests.rtt.max_timeout())
            }
            // The request may have waited behind values.
            Kind::Request(_) | Kind::Requests { .. }
                if self.is_uplink_busy && now < later(pending.since, uploads.rtt.timeout()) =>
            {
                Some(later(pending.since, uploads.rtt.timeout()).saturating_duration_since(now))
            }
            // The response may wait behind another one for the same link, though not for long if the query has responses: one slow
            // peer must not delay what others are asked.
            _ if now < later(pending.since, BEHIND_OTHERS) && progress.is_link_busy(seen) => {
                Some(later(pending.since, BEHIND_OTHERS).saturating_duration_since(now).min(PAUSE))
            }
            Kind::Request(query) | Kind::Upload(query)
                if answers_of(&query) == Some(0) && now < later(pending.since, BUSY) && progress.had_piece(seen) =>
            {
                Some(requests.rtt.max_timeout())
            }
            _ => None,
        }
    }

    fn give_up(&mut self, peer: PeerId) {
        for serial in self.of_peer(peer) {
            let Some(Pending { kind, deadline: Some(_), .. }) = self.entries.get(&serial) else { continue };
            match kind {
                Kind::Request(_) | Kind::Upload(_) => self.stats.given_up += 1,
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
            Kind::Upload(_) => &self.uploads,
            Kind::Dial { .. } => &self.dials,
        }
    }

    fn timing_mut(&mut self, kind: Kind<Id>) -> &mut Timing {
        match kind {
            Kind::Request(_) | Kind::Requests { .. } => &mut self.requests,
            Kind::Upload(_) => &mut self.uploads,
            Kind::Dial { .. } => &mut self.dials,
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
            Kind::Request(query) | Kind::Upload(query) => answers_of(query),
            Kind::Dial { .. } | Kind::Requests { .. } => Some(least),
        });
        answers.min().unwrap_or(least)
    }

    fn has_timed_request(&self, peer: PeerId) -> bool {
        self.of(peer).any(|(_, pending)| {
            matches!(pending.kind, Kind::Request(_) | Kind::Upload(_)) && pending.deadline.is_some()
        })
    }

    /// Removes one request of the peer: that of the query or, if there is none, one that was sent when a dial had
    /// succeeded.
    fn take_one(&mut self, peer: PeerId, query: Id) -> Option<Pending<Id>> {
        if let Some(serial) = self.of_query(peer, query) {
            return self.remove(serial);
        }
        let serial = self.by_peer.get(&peer).copied()?;
        let pending = self.entries.get_mut(&serial)?;
        let Kind::Requests { requests } = &mut pending.kind else { return None };
        *requests = requests.saturating_sub(1);
        let left = *requests;
        let taken = Pending { kind: Kind::Requests { requests: 1 }, ..*pending };
        if left == 0 {
            self.remove(serial);
        }
        Some(taken)
    }

    fn begin(&mut self, peer: PeerId, kind: Kind<Id>, now: Instant) -> Serial {
        let deadline = Some(later(now, self.timing(kind).rtt.timeout()));
        let moment = self.progress.now();
        self.insert(Pending {
            peer,
            kind,
            since: now,
            deadline,
            extended: false,
            sent: moment,
            seen: moment,
            has_moved: false,
        })
    }

    fn begin_of_query(&mut self, peer: PeerId, kind: Kind<Id>, query: Id, now: Instant) {
        self.stats.timed += 1;
        // A query asks a peer once in each phase, and its next phase asks only peers that have responded.
        if let Some(serial) = self.of_query(peer, query) {
            self.remove(serial);
        }
        self.begin(peer, kind, now);
    }

    fn insert(&mut self, pending: Pending<Id>) -> Serial {
        self.last_serial += 1;
        let serial = self.last_serial;
        let Pending { peer, kind, deadline, .. } = pending;
        self.entries.insert(serial, pending);
        match kind {
            Kind::Request(query) | Kind::Upload(query) => {
                self.by_query.entry(query).or_default().push((peer, serial));
            }
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
            Kind::Request(query) | Kind::Upload(query) => {
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
