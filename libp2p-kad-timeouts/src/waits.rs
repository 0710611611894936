//! Who is waited for, since when and until when. No clock, no kad: time and events come as arguments.
//!
//! ```text
//!   request ──► timed ── answer, failure, the last connection closes ──────────────────────► gone
//!                │                                                                            ▲
//!                └── given up, the query has ended ──► remembered ── a late answer, the same ─┘
//! ```
//!
//! A dial is the same until there is a connection: then the requests that waited for it are sent, and are waited for.
//! kad does not say of which queries they are, so these are counted by peer.
//!
//! When the time of a wait is up, the peer is given up if each query that waits for it has had an answer from somebody,
//! and either there was a sign of life from anybody since that wait began, or fewer peers were given up since the last
//! sign than have answered the query. Otherwise nothing tells silent peers from a network that is slow or gone for a
//! moment, and to give up would turn "slow" into "there is nothing": the wait lasts until somebody answers, or until
//! the longest patience.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet, hash_map::Entry},
    hash::Hash,
    time::{Duration, Instant},
};

use libp2p::PeerId;
use rustc_hash::FxHashMap;

use super::{PeerTimeoutConfig, PeerTimeoutStats, pace::Pace};
use crate::timer::later;

/// How many waits that are over are remembered for their late answers. A silent peer leaves one for each query that
/// asked it within 10 s, the time of kad's streams: enough for a hundred a second, and some hundred kilobytes.
const MAX_REMEMBERED: usize = 1024;

/// How late a deadline may be noticed. If it is later, the loop was held up, and answers may have come meanwhile that
/// it has not seen. A quarter of the shortest patience by default, and more than timers are off.
const HELD_UP: Duration = Duration::from_millis(25);

/// How long further requests of a query wait for the answers to its first. Less would be spent by a loop that is busy.
const SHORTEST_HOLD: Duration = Duration::from_millis(10);

/// Whoever asks silent peers first waits no longer for it than for one peer that is given up in a fast network.
const LONGEST_HOLD: Duration = Duration::from_millis(100);

type Serial = u64;

#[derive(Debug)]
pub(super) struct Waits<Id> {
    waits: FxHashMap<Serial, Wait<Id>>,
    last_serial: Serial,
    /// A query waits for few peers at a time. What happens to a peer, and not to a request, is rare enough to look through
    /// all waits.
    by_query: FxHashMap<Id, Vec<(PeerId, Serial)>>,
    /// The waits that are of no query we know: at most one for each peer.
    unnamed: BTreeMap<PeerId, Serial>,
    deadlines: BTreeSet<(Instant, Serial)>,
    /// Timed waits whose time was up without a sign of life from anybody. They are due as soon as there is one.
    unproven: BTreeSet<Serial>,
    /// Oldest first.
    remembered: BTreeSet<Serial>,
    connected: HashSet<PeerId>,
    answers: Pace,
    dials: Pace,
    stats: PeerTimeoutStats,
}

#[derive(Debug)]
struct Wait<Id> {
    peer: PeerId,
    what: What<Id>,
    since: Instant,
    /// `None`: nobody waits any more, it is remembered.
    deadline: Option<Instant>,
    /// Whether it was prolonged because the loop was held up.
    prolonged: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What<Id> {
    /// For the answer to a query.
    Answer(Id),
    /// For a connection, and with it so many requests.
    Connection { requests: u64 },
    /// For the answers to so many requests that were sent when the connection was there.
    Answers { requests: u64 },
}

impl<Id: Copy + Eq + Hash> Waits<Id> {
    pub(super) fn new(config: &PeerTimeoutConfig) -> Self {
        Self {
            waits: FxHashMap::default(),
            last_serial: 0,
            by_query: FxHashMap::default(),
            unnamed: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            unproven: BTreeSet::new(),
            remembered: BTreeSet::new(),
            connected: HashSet::new(),
            answers: Pace::new(config.requests, config.deviations),
            dials: Pace::new(config.dials, config.deviations),
            stats: PeerTimeoutStats::default(),
        }
    }

    // ---- what kad does

    /// A request was sent that will be answered.
    pub(super) fn sent(&mut self, peer: PeerId, query: Id, now: Instant) {
        self.stats.timed += 1;
        // A query asks a peer once in each phase, and goes on only with peers that have answered.
        if let Some(serial) = self.named(peer, query) {
            self.remove(serial);
        }
        self.begin(peer, What::Answer(query), now);
    }

    /// A request waits for a connection.
    pub(super) fn dialled(&mut self, peer: PeerId, now: Instant) {
        let mut earlier = 0;
        if let Some(serial) = self.unnamed.get(&peer).copied()
            && let Some(Wait { what: What::Connection { requests } | What::Answers { requests }, deadline, .. }) =
                self.waits.get_mut(&serial)
        {
            if deadline.is_some() {
                // Others wait for the same dial, or for answers over the connection that it led to.
                *requests = requests.saturating_add(1);
                return;
            }
            // It was given up and goes on: whoever waits for it now waits anew.
            earlier = *requests;
            self.remove(serial);
        }
        let requests = earlier.saturating_add(1);
        if self.connected.contains(&peer) {
            // The connection came before the dial, and the request is on it already.
            self.stats.timed += 1;
            self.begin(peer, What::Answers { requests }, now);
        } else {
            self.stats.dials += 1;
            self.begin(peer, What::Connection { requests }, now);
        }
    }

    /// A query has ended, and waits for nobody.
    pub(super) fn query_ended(&mut self, query: Id) {
        let serials: Vec<_> = self.by_query.get(&query).into_iter().flatten().map(|(_, serial)| *serial).collect();
        for serial in serials {
            self.set_deadline(serial, None);
        }
    }

    /// No query waits for anybody.
    pub(super) fn nobody_waits(&mut self) {
        while let Some((_, serial)) = self.deadlines.first().copied() {
            self.set_deadline(serial, None);
        }
    }

    // ---- what happens to it

    /// A peer has answered a request of a query.
    pub(super) fn answered(&mut self, peer: PeerId, query: Id, now: Instant) {
        self.answers.sign(now);
        self.dials.sign(now);
        if let Some(wait) = self.take_one(peer, query) {
            self.answers.sample(now.saturating_duration_since(wait.since));
            match wait.deadline {
                Some(_) => self.stats.answered += 1,
                None => self.stats.late += 1,
            }
        }
        self.prove(|_| true, now);
    }

    /// The stream of a request broke, or kad has given it up.
    pub(super) fn failed(&mut self, peer: PeerId, query: Id) {
        if self.take_one(peer, query).is_some() {
            self.stats.failed += 1;
        }
    }

    /// A connection is there, and the requests that waited for it are on it.
    pub(super) fn connected(&mut self, peer: PeerId, now: Instant) {
        self.connected.insert(peer);
        let Some(serial) = self.unnamed.get(&peer).copied() else { return };
        let Some(Wait { what: What::Connection { requests }, since, deadline, .. }) = self.waits.get(&serial) else {
            return;
        };
        let (requests, since, was_timed) = (*requests, *since, deadline.is_some());
        // It says nothing about how long answers take.
        self.dials.sign(now);
        self.dials.sample(now.saturating_duration_since(since));
        self.remove(serial);
        let serial = self.begin(peer, What::Answers { requests }, now);
        if was_timed {
            self.stats.timed += requests;
        } else {
            self.set_deadline(serial, None);
        }
        self.prove(|what| matches!(what, What::Connection { .. }), now);
    }

    /// A dial has failed, and kad has made that known to all queries that waited for the peer.
    pub(super) fn dial_failed(&mut self, peer: PeerId) {
        if let Some(serial) = self.unnamed.get(&peer).copied()
            && let Some(Wait { what: What::Connection { .. }, .. }) = self.waits.get(&serial)
        {
            self.remove(serial);
        }
        for serial in self.of_peer(peer) {
            self.set_deadline(serial, None);
        }
    }

    /// The last connection to a peer has closed, and kad has made that known to all queries that waited for it.
    pub(super) fn disconnected(&mut self, peer: PeerId) {
        self.connected.remove(&peer);
        for serial in self.of_peer(peer) {
            self.remove(serial);
        }
    }

    // ---- time

    /// When to ask for who is [`overdue`](Self::overdue).
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(due, _)| *due)
    }

    /// The next peer to give up, in all queries that wait for it. Nobody waits for it afterwards. kad is asked how many
    /// peers have answered a query (`None`: kad has ended it, which of its own queries it does without a word), and
    /// what is the least of them over all queries that wait for anybody.
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
            let Some(Wait { peer, what, since, prolonged, .. }) = self.waits.get(&serial) else {
                self.deadlines.remove(&(due, serial));
                continue;
            };
            let (peer, what, since, prolonged) = (*peer, *what, *since, *prolonged);
            if let What::Answer(query) = what
                && answers_of(&query).is_none()
            {
                self.query_ended(query);
                continue;
            }
            // The patience may have grown since.
            let by_now = later(since, self.pace(what).patience());
            if by_now > now {
                self.set_deadline(serial, Some(by_now));
                continue;
            }
            let late_by = now.saturating_duration_since(due);
            if late_by > HELD_UP && !prolonged {
                let more = late_by.min(self.pace(what).patience());
                self.set_deadline(serial, Some(later(now, more)));
                if let Some(wait) = self.waits.get_mut(&serial) {
                    wait.prolonged = true;
                }
                continue;
            }
            let longest = later(since, self.pace(what).longest());
            if now < longest {
                let answers = self.fewest_answers(peer, least, &answers_of);
                if answers == 0 && !matches!(what, What::Connection { .. }) {
                    // Not everybody that a query has asked is given up; look again in a while.
                    self.set_deadline(serial, Some(longest.min(later(now, self.answers.patience()))));
                    continue;
                }
                if !self.pace(what).is_proven(since, answers) {
                    self.set_deadline(serial, Some(longest));
                    self.unproven.insert(serial);
                    continue;
                }
            }
            // Announcements are among these, which nobody answers. As long as the peer owes other answers, those
            // decide; if it owes none, no query waits for it.
            if let What::Answers { .. } = what
                && self.owes_a_named_answer(peer)
            {
                self.set_deadline(serial, Some(later(now, self.answers.patience())));
                continue;
            }
            match what {
                What::Answer(_) | What::Answers { .. } => self.answers.give_up(since),
                What::Connection { .. } => self.dials.give_up(since),
            }
            self.give_up(peer);
            return Some(peer);
        }
        None
    }

    /// When an answer to a request that goes now is later than most.
    pub(super) fn late(&self, now: Instant) -> Instant {
        later(now, self.answers.usual().clamp(SHORTEST_HOLD, LONGEST_HOLD))
    }

    /// Whether there is a connection with a peer.
    pub(super) fn is_connected(&self, peer: &PeerId) -> bool {
        self.connected.contains(peer)
    }

    /// So many requests were never sent.
    pub(super) fn spared(&mut self, requests: usize) {
        self.stats.spared += requests as u64;
    }

    pub(super) fn stats(&self) -> PeerTimeoutStats {
        PeerTimeoutStats {
            patience: self.answers.patience(),
            dial_patience: self.dials.patience(),
            waiting: self.deadlines.len(),
            remembered: self.remembered.len(),
            ..self.stats
        }
    }

    // ---- inside

    fn give_up(&mut self, peer: PeerId) {
        for serial in self.of_peer(peer) {
            let Some(Wait { what, deadline: Some(_), .. }) = self.waits.get(&serial) else { continue };
            match what {
                What::Answer(_) => self.stats.given_up += 1,
                What::Answers { requests } => self.stats.given_up += requests,
                What::Connection { .. } => self.stats.dials_given_up += 1,
            }
            self.set_deadline(serial, None);
        }
    }

    /// There was a sign of life: what was waited for beyond its time for want of one is due by what is now known. Each
    /// wait comes here once at most.
    fn prove(&mut self, is_proven: impl Fn(What<Id>) -> bool, now: Instant) {
        let unproven: Vec<_> = self.unproven.iter().copied().collect();
        for serial in unproven {
            if let Some(Wait { what, since, .. }) = self.waits.get(&serial)
                && is_proven(*what)
            {
                let due = later(*since, self.pace(*what).patience());
                self.set_deadline(serial, Some(due.max(now)));
            }
        }
    }

    fn pace(&self, what: What<Id>) -> &Pace {
        match what {
            What::Answer(_) | What::Answers { .. } => &self.answers,
            What::Connection { .. } => &self.dials,
        }
    }

    fn named(&self, peer: PeerId, query: Id) -> Option<Serial> {
        let of_query = self.by_query.get(&query)?;
        of_query.iter().find(|(other, _)| *other == peer).map(|(_, serial)| *serial)
    }

    fn of(&self, peer: PeerId) -> impl Iterator<Item = (Serial, &Wait<Id>)> {
        self.waits.iter().filter(move |(_, wait)| wait.peer == peer).map(|(serial, wait)| (*serial, wait))
    }

    fn of_peer(&self, peer: PeerId) -> Vec<Serial> {
        self.of(peer).map(|(serial, _)| serial).collect()
    }

    /// How many peers have answered the query that waits for this peer and was answered by the fewest.
    fn fewest_answers(&self, peer: PeerId, least: u32, answers_of: impl Fn(&Id) -> Option<u32>) -> u32 {
        let timed = self.of(peer).map(|(_, wait)| wait).filter(|wait| wait.deadline.is_some());
        let answers = timed.filter_map(|wait| match &wait.what {
            What::Answer(query) => answers_of(query),
            What::Connection { .. } | What::Answers { .. } => Some(least),
        });
        answers.min().unwrap_or(least)
    }

    fn owes_a_named_answer(&self, peer: PeerId) -> bool {
        self.of(peer).any(|(_, wait)| matches!(wait.what, What::Answer(_)) && wait.deadline.is_some())
    }

    /// One request of the peer has come to its end: that of the query or, if none is known, one that was sent when the
    /// connection was there.
    fn take_one(&mut self, peer: PeerId, query: Id) -> Option<Wait<Id>> {
        if let Some(serial) = self.named(peer, query) {
            return self.remove(serial);
        }
        let serial = self.unnamed.get(&peer).copied()?;
        let Wait { what: What::Answers { requests }, since, deadline, .. } = self.waits.get_mut(&serial)? else {
            return None;
        };
        *requests = requests.saturating_sub(1);
        let taken =
            Wait { peer, what: What::Answers { requests: 1 }, since: *since, deadline: *deadline, prolonged: false };
        if *requests == 0 {
            self.remove(serial);
        }
        Some(taken)
    }

    fn begin(&mut self, peer: PeerId, what: What<Id>, now: Instant) -> Serial {
        let deadline = Some(later(now, self.pace(what).patience()));
        self.insert(Wait { peer, what, since: now, deadline, prolonged: false })
    }

    fn insert(&mut self, wait: Wait<Id>) -> Serial {
        self.last_serial += 1;
        let serial = self.last_serial;
        let Wait { peer, what, since: _, deadline, prolonged: _ } = wait;
        self.waits.insert(serial, wait);
        match what {
            What::Answer(query) => self.by_query.entry(query).or_default().push((peer, serial)),
            What::Connection { .. } | What::Answers { .. } => {
                self.unnamed.insert(peer, serial);
            }
        }
        if let Some(deadline) = deadline {
            self.deadlines.insert((deadline, serial));
        }
        serial
    }

    fn set_deadline(&mut self, serial: Serial, deadline: Option<Instant>) {
        let Some(wait) = self.waits.get_mut(&serial) else { return };
        if let Some(due) = wait.deadline {
            self.deadlines.remove(&(due, serial));
        }
        self.unproven.remove(&serial);
        wait.deadline = deadline;
        match deadline {
            Some(due) => {
                self.deadlines.insert((due, serial));
            }
            None => {
                self.remembered.insert(serial);
                if self.remembered.len() > MAX_REMEMBERED
                    && let Some(oldest) = self.remembered.first().copied()
                {
                    self.remove(oldest);
                }
            }
        }
    }

    fn remove(&mut self, serial: Serial) -> Option<Wait<Id>> {
        let wait = self.waits.remove(&serial)?;
        if let Some(due) = wait.deadline {
            self.deadlines.remove(&(due, serial));
        }
        self.unproven.remove(&serial);
        self.remembered.remove(&serial);
        match wait.what {
            What::Answer(query) => {
                if let Entry::Occupied(mut of_query) = self.by_query.entry(query) {
                    of_query.get_mut().retain(|(_, other)| *other != serial);
                    if of_query.get().is_empty() {
                        of_query.remove();
                    }
                }
            }
            What::Connection { .. } | What::Answers { .. } => {
                self.unnamed.remove(&wait.peer);
            }
        }
        Some(wait)
    }
}

#[cfg(test)]
mod tests;
