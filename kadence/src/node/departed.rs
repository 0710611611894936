//! Peers of the routing table that are gone. kad never removes them, asks them in every lookup nearby, and waits.
//!
//! ```text
//!                    closed by the peer             refused, or failed twice
//!   in the table ──────────────────────► suspected ──────────────────────────► departed ──► forgotten
//!        ▲          or a dial failed         │                                    │   after a day
//!        └──────────── identified ───────────┴─────────── identified ─────────────┘
//! ```
//!
//! A suspected peer is dialled. It leaves the table if its machine refuses the connection, or if two dials fail while other
//! peers of the network answer: a node that has lost its own connection to the network keeps its table. Addresses of
//! departed peers are kept for a day, and dialled less and less often, so that two halves of a network find each other
//! again after a partition.
//!
//! Most peers close a connection because it is idle. A node that has joined has hundreds of idle ones, so that few peers are
//! checked at once, those that have left last, and the others slowly: a call that needs one of them finds out by itself.

use std::{
    collections::HashMap,
    io,
    task::Context,
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId, TransportError, multiaddr::Protocol, swarm::DialError};

use super::{
    addresses::{MAX_ADDRESSES, without_peer},
    config::KnownPeer,
    jitter::Jitter,
};
use crate::{Alarm, Runtime};

/// Maximum delay between the close of a connection and the dial that shows whether the peer is there. Nodes that lose the
/// same peer do not dial together.
const FIRST_CHECK: Duration = Duration::from_millis(500);

/// Delay of the next check after a failed dial. It doubles with each. Further failures within half of it do not count: they
/// are of dials at the same time.
const NEXT_CHECK: Duration = Duration::from_secs(10);

/// Maximum delay of a check.
const LONGEST_CHECK: Duration = Duration::from_secs(10 * 60);

/// Number of peers that are checked at once when they have closed their connections.
const CHECKS_AT_ONCE: u32 = 8;

/// Time after which one more peer that has closed its connection is checked.
const CHECK_EVERY: Duration = Duration::from_secs(10);

/// Time for which a peer that was there is not checked again, though it closes connection after connection. Most do so
/// when a connection is idle.
const TRUSTED: Duration = Duration::from_secs(10 * 60);

/// Minimum time between two dials. A node that loses all connections at once does not dial hundreds of peers together.
const PAUSE: Duration = Duration::from_millis(50);

/// Number of failed dials after which a silent peer is departed.
const MAX_FAILURES: u32 = 2;

/// Maximum number of peers that are remembered. A routing table of a large network has some two hundred entries.
const MAX_PEERS: usize = 512;

/// Delay of the first dial of a departed peer. It doubles with each.
const FIRST_RETURN: Duration = Duration::from_secs(60);

/// Maximum delay of a dial of a departed peer.
const LONGEST_RETURN: Duration = Duration::from_secs(60 * 60);

/// Time after which a departed peer is forgotten.
const FORGOTTEN: Duration = Duration::from_secs(24 * 60 * 60);

/// Time for which peers that were lost are a sign that this node is cut off from the network.
const LOST: Duration = Duration::from_secs(60 * 60);

/// Failure to reach a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// Its machine refuses connections at all of its addresses: nobody listens there.
    Refused,
    /// Nothing has answered.
    Silent,
    /// It accepts connections and closes them: it has no room, for example.
    Unwelcome,
}

pub(super) struct DepartedPeers {
    peers: HashMap<PeerId, Entry>,
    not_before: Instant,
    checks: Checks,
    /// Peers whose addresses are wanted from now on, or no longer, until the caller takes them.
    wanted: Vec<(PeerId, bool)>,
    jitter: Jitter,
    alarm: Alarm,
    changed: bool,
}

#[derive(Debug)]
struct Entry {
    state: State,
    /// Time of the next dial; `None` if others dial the peer.
    due: Option<Instant>,
    /// Addresses to dial besides those in the routing table, the latest first.
    addresses: Vec<Multiaddr>,
    last_failure: Option<Instant>,
    last_dial: Option<Instant>,
    /// Nothing has answered.
    is_silent: bool,
    /// It has closed its connection, as most peers do with idle ones.
    may_be_idle: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It was there at this time.
    Trusted(Instant),
    /// In the routing table, with a number of failures since a time.
    Suspected { failures: u32, since: Instant },
    /// No longer in the routing table, with a number of dials since a time.
    Departed { dials: u32, since: Instant },
}

impl Entry {
    fn new(state: State) -> Self {
        Self {
            state,
            due: None,
            addresses: Vec::new(),
            last_failure: None,
            last_dial: None,
            is_silent: false,
            may_be_idle: false,
        }
    }

    /// Adds addresses in front of the others.
    fn add(&mut self, addresses: impl DoubleEndedIterator<Item = Multiaddr>) {
        for address in addresses.rev() {
            let address = without_peer(&address);
            self.addresses.retain(|known| *known != address);
            self.addresses.insert(0, address);
        }
        self.addresses.truncate(MAX_ADDRESSES);
    }

    /// Returns whether the peer could not be reached when it was last dialled.
    fn is_lost(&self) -> bool {
        match self.state {
            State::Trusted(_) => false,
            State::Suspected { failures, since: _ } => failures > 0,
            State::Departed { .. } => true,
        }
    }

    /// Returns whether the next dial is the first one since the peer has closed its connection.
    fn is_check(&self) -> bool {
        self.may_be_idle && matches!(self.state, State::Suspected { failures: 0, since: _ }) && self.last_dial.is_none()
    }

    fn since(&self) -> Instant {
        match self.state {
            State::Trusted(since) | State::Suspected { failures: _, since } | State::Departed { dials: _, since } => {
                since
            }
        }
    }
}

/// Checks that are left: some at once, and one more after each [`CHECK_EVERY`].
struct Checks {
    left: u32,
    /// Time from which the next one counts.
    since: Instant,
}

impl Checks {
    /// Takes one. Returns whether there was one.
    fn take(&mut self, now: Instant) -> bool {
        while self.left < CHECKS_AT_ONCE && self.since + CHECK_EVERY <= now {
            self.left += 1;
            self.since += CHECK_EVERY;
        }
        if self.left == CHECKS_AT_ONCE {
            self.since = now;
        }
        let is_left = self.left > 0;
        self.left = self.left.saturating_sub(1);
        is_left
    }

    /// Returns the time from which there is one.
    fn next_at(&self, now: Instant) -> Instant {
        if self.left > 0 { now } else { self.since + CHECK_EVERY }
    }
}

impl DepartedPeers {
    pub(super) fn new(runtime: &impl Runtime, local_peer_id: PeerId) -> Self {
        Self {
            peers: HashMap::new(),
            not_before: runtime.now(),
            checks: Checks { left: CHECKS_AT_ONCE, since: runtime.now() },
            wanted: Vec::new(),
            jitter: Jitter::new(local_peer_id),
            alarm: Alarm::new(runtime),
            changed: false,
        }
    }

    /// Returns the current time.
    pub(super) fn now(&self) -> Instant {
        self.alarm.now()
    }

    /// Notes that a peer of the routing table has closed its last connection, or does not answer pings. `addresses` are
    /// those that it has named. `may_be_idle` says that it may only have had no use for the connection.
    pub(super) fn disconnected(&mut self, peer: PeerId, addresses: &[Multiaddr], may_be_idle: bool) {
        let (now, delay) = (self.alarm.now(), self.jitter.draw(Duration::ZERO, FIRST_CHECK));
        let entry = self.entry(peer, now);
        entry.add(addresses.iter().cloned());
        let is_trusted = match entry.state {
            State::Trusted(since) => since < now && now - since < TRUSTED,
            // It will be dialled.
            State::Suspected { .. } => true,
            State::Departed { .. } => false,
        };
        if !is_trusted {
            (entry.state, entry.due) = (State::Suspected { failures: 0, since: now }, Some(now + delay));
            entry.may_be_idle = may_be_idle;
            if !may_be_idle {
                self.wanted.push((peer, true));
            }
            self.changed = true;
        }
    }

    /// Notes that a peer of the routing table could not be reached at `addresses`. `is_dialled_anyway` says that others dial
    /// the peer again. `last_heard` is the time at which any peer of the network was last heard. Returns whether the peer
    /// is departed.
    #[must_use]
    pub(super) fn failed(
        &mut self,
        peer: PeerId,
        failure: Failure,
        addresses: &[Multiaddr],
        is_dialled_anyway: bool,
        last_heard: Option<Instant>,
    ) -> bool {
        let now = self.alarm.now();
        let entry = self.entry(peer, now);
        entry.add(addresses.iter().cloned());
        let (failures, since) = match entry.state {
            State::Suspected { failures, since } if failures > 0 => (failures, since),
            _ => (0, now),
        };
        let is_same = entry.last_failure.is_some_and(|last| now - last < NEXT_CHECK / 2);
        let failures = if is_same && failures > 0 { failures } else { failures + 1 };
        entry.is_silent = failure == Failure::Silent;
        entry.last_failure = Some(now);
        let is_network_there = last_heard.is_some_and(|heard| heard > since);
        let is_departed = failure == Failure::Refused || (failures >= MAX_FAILURES && is_network_there);
        if is_departed && is_dialled_anyway {
            self.forget(&peer);
        } else if is_departed {
            entry.state = State::Departed { dials: 0, since: now };
            entry.due = Some(now + FIRST_RETURN);
            self.wanted.push((peer, true));
        } else {
            entry.state = State::Suspected { failures, since };
            let wait = NEXT_CHECK.saturating_mul(1 << failures.min(8).saturating_sub(1)).min(LONGEST_CHECK);
            entry.due = (!is_dialled_anyway).then(|| now + wait);
            self.wanted.push((peer, true));
        }
        self.changed = true;
        is_departed
    }

    /// Notes that a peer is there.
    pub(super) fn is_there(&mut self, peer: &PeerId) {
        let now = self.alarm.now();
        if let Some(entry) = self.peers.get_mut(peer) {
            *entry = Entry::new(State::Trusted(now));
            self.wanted.push((*peer, false));
        }
    }

    /// Forgets a peer.
    pub(super) fn forget(&mut self, peer: &PeerId) {
        if self.peers.remove(peer).is_some() {
            self.wanted.push((*peer, false));
        }
    }

    /// Notes that other peers say that a peer is at these addresses. It is dialled there, but not again and again.
    pub(super) fn named(&mut self, peer: &PeerId, addresses: Vec<Multiaddr>) {
        let now = self.alarm.now();
        let Some(entry) = self.peers.get_mut(peer).filter(|entry| !matches!(entry.state, State::Trusted(_))) else {
            return;
        };
        let new: Vec<_> =
            addresses.into_iter().filter(|named| !entry.addresses.contains(&without_peer(named))).collect();
        if new.is_empty() {
            return;
        }
        entry.add(new.into_iter());
        let at = entry.last_dial.map_or(now, |last| now.max(last + NEXT_CHECK));
        entry.due = Some(entry.due.map_or(at, |due| due.min(at)));
        self.changed = true;
    }

    /// Returns the next peer to dial, with the addresses to dial besides those in the routing table, and whether the table
    /// should have the peer.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Option<(KnownPeer, bool)> {
        while self.changed || self.alarm.poll(cx).is_ready() {
            self.changed = false;
            let now = self.alarm.now();
            if let Some(peer) = self.due(now) {
                self.changed = true;
                return Some(peer);
            }
            let checks_from = self.checks.next_at(now);
            let due = |entry: &Entry| Some(if entry.is_check() { entry.due?.max(checks_from) } else { entry.due? });
            match self.peers.values().filter_map(due).min() {
                Some(due) => self.alarm.set(due.max(self.not_before)),
                None => self.alarm.stop(),
            }
        }
        None
    }

    /// Returns the numbers of peers that were lost in silence within the last hour: those that are still in the routing table,
    /// and those that have left it.
    pub(super) fn lost(&self) -> (usize, usize) {
        let now = self.alarm.now();
        let is_recent = |entry: &&Entry| now.saturating_duration_since(entry.since()) < LOST;
        let lost = self.peers.values().filter(|entry| entry.is_silent && entry.is_lost()).filter(is_recent);
        let departed = lost.clone().filter(|entry| matches!(entry.state, State::Departed { .. })).count();
        (lost.count() - departed, departed)
    }

    /// Returns the peers whose addresses are wanted from now on (`true`), or no longer, since the last call.
    pub(super) fn take_wanted(&mut self) -> Vec<(PeerId, bool)> {
        std::mem::take(&mut self.wanted)
    }

    fn due(&mut self, now: Instant) -> Option<(KnownPeer, bool)> {
        if self.not_before > now {
            return None;
        }
        loop {
            let is_due = |entry: &Entry| entry.due.is_some_and(|due| due <= now);
            let due = self.peers.iter().filter(|(_, entry)| is_due(entry));
            let (checks, others): (Vec<_>, Vec<_>) = due.partition(|(_, entry)| entry.is_check());
            let peer = match others.iter().map(|(peer, entry)| (entry.due, **peer)).min() {
                Some((_, peer)) => peer,
                None => {
                    let (_, last) = checks.iter().map(|(peer, entry)| (entry.since(), **peer)).max()?;
                    if !self.checks.take(now) {
                        return None;
                    }
                    self.wanted.push((last, true));
                    last
                }
            };
            let jitter = self.jitter.draw(Duration::ZERO, FIRST_RETURN);
            let entry = self.peers.get_mut(&peer)?;
            entry.last_dial = Some(now);
            let is_in_table = match &mut entry.state {
                State::Departed { dials: _, since } if now.saturating_duration_since(*since) >= FORGOTTEN => {
                    self.forget(&peer);
                    continue;
                }
                State::Departed { dials, since: _ } => {
                    *dials += 1;
                    let wait = FIRST_RETURN.saturating_mul(1 << (*dials).min(8)).min(LONGEST_RETURN);
                    entry.due = Some(now + wait + jitter);
                    false
                }
                // Until the dial has failed. Some end without a failure.
                State::Suspected { .. } | State::Trusted(_) => {
                    entry.due = Some(now + LONGEST_CHECK);
                    true
                }
            };
            self.not_before = now + PAUSE;
            return Some((KnownPeer { id: peer, addresses: entry.addresses.clone() }, is_in_table));
        }
    }

    /// Returns the entry of a peer, for which another one is forgotten if there are too many: one that was there, the longest ago
    /// first, and then any.
    fn entry(&mut self, peer: PeerId, now: Instant) -> &mut Entry {
        if self.peers.len() >= MAX_PEERS && !self.peers.contains_key(&peer) {
            let rank = |(peer, entry): (&PeerId, &Entry)| (entry.is_lost(), entry.due.is_some(), entry.since(), *peer);
            if let Some((.., forgotten)) = self.peers.iter().map(rank).min() {
                self.forget(&forgotten);
            }
        }
        self.peers.entry(peer).or_insert_with(|| Entry::new(State::Trusted(now)))
    }
}

/// Returns the failure that a failed dial shows, if it does. `known` are the addresses of the peer: a dial that left one out
/// shows nothing, and neither does a failure of this machine.
pub(super) fn failure_of(error: &DialError, known: &[Multiaddr]) -> Option<Failure> {
    let DialError::Transport(errors) = error else { return None };
    let was_dialled = |known: &Multiaddr| errors.iter().any(|(tried, _)| without_peer(tried) == without_peer(known));
    if errors.is_empty() || !known.iter().all(was_dialled) {
        return None;
    }
    // Transports wrap each other's errors in types that hide the kind, and not the text, which is the system's.
    let text = |error: &TransportError<io::Error>| match error {
        TransportError::Other(error) => error.to_string(),
        TransportError::MultiaddrNotSupported(_) => String::new(),
    };
    const OF_THIS_MACHINE: [&str; 3] =
        ["Too many open files", "Network is unreachable", "Cannot assign requested address"];
    if errors.iter().any(|(_, error)| OF_THIS_MACHINE.iter().any(|part| text(error).contains(part))) {
        return None;
    }
    let is_refused = |(address, error): &(Multiaddr, TransportError<io::Error>)| {
        // A name stands for several addresses, and a name server can refuse, too.
        let is_name = matches!(
            address.iter().next(),
            Some(Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_) | Protocol::Dnsaddr(_))
        );
        !is_name && text(error).contains("refused")
    };
    Some(if errors.iter().all(is_refused) { Failure::Refused } else { Failure::Silent })
}

#[cfg(test)]
mod tests {
    use futures::task::noop_waker_ref;

    use super::*;
    use crate::alarm::tests::TestRuntime;

    struct Bed {
        runtime: TestRuntime,
        peers: DepartedPeers,
    }

    impl Bed {
        fn new() -> Self {
            let runtime = TestRuntime::new();
            let peers = DepartedPeers::new(&runtime, PeerId::random());
            Self { runtime, peers }
        }

        fn poll(&mut self) -> Vec<PeerId> {
            let cx = &mut Context::from_waker(noop_waker_ref());
            std::iter::from_fn(|| self.peers.poll(cx)).map(|(peer, _)| peer.id).collect()
        }

        fn dialled_within(&mut self, span: Duration) -> Vec<PeerId> {
            let mut dialled = Vec::new();
            for _ in 0..span.as_millis() / 50 {
                self.runtime.pass(Duration::from_millis(50));
                dialled.extend(self.poll());
            }
            dialled
        }

        fn now(&self) -> Instant {
            self.runtime.now()
        }

        fn failed(&mut self, peer: PeerId, failure: Failure, last_heard: Option<Instant>) -> bool {
            self.peers.failed(peer, failure, &[], false, last_heard)
        }
    }

    fn address(port: u16) -> Multiaddr {
        format!("/ip4/1.2.3.4/tcp/{port}").parse().unwrap()
    }

    fn failed(errors: &[(&str, io::ErrorKind)]) -> DialError {
        // As a transport above another one does it.
        let wrapped = |kind: io::ErrorKind| io::Error::other(io::Error::from(kind).to_string());
        let errors =
            errors.iter().map(|(address, kind)| (address.parse().unwrap(), TransportError::Other(wrapped(*kind))));
        DialError::Transport(errors.collect())
    }

    const REFUSED: io::ErrorKind = io::ErrorKind::ConnectionRefused;
    const TIMED_OUT: io::ErrorKind = io::ErrorKind::TimedOut;

    #[test]
    fn a_peer_that_closes_its_connection_is_checked_once_and_then_trusted_for_a_while() {
        let (mut bed, peer) = (Bed::new(), PeerId::random());
        for _ in 0..3 {
            bed.peers.disconnected(peer, &[], true);
            assert_eq!(bed.dialled_within(FIRST_CHECK), [peer]);
            bed.peers.is_there(&peer);
            // It closes one idle connection after another.
            for _ in 0..9 {
                bed.runtime.pass(TRUSTED / 10);
                bed.peers.disconnected(peer, &[], true);
                assert!(bed.dialled_within(FIRST_CHECK).is_empty());
            }
            bed.runtime.pass(TRUSTED / 10);
        }
    }

    #[test]
    fn a_peer_whose_machine_refuses_is_departed_at_once() {
        let mut bed = Bed::new();
        assert!(bed.failed(PeerId::random(), Failure::Refused, None));
        assert!(!bed.failed(PeerId::random(), Failure::Silent, None));
        assert!(!bed.failed(PeerId::random(), Failure::Unwelcome, None));
    }

    #[test]
    fn a_dial_is_refused_if_each_address_refuses_it() {
        let (one, other, name) = ("/ip4/1.2.3.4/tcp/1", "/ip4/1.2.3.4/tcp/2", "/dns4/peer.example/tcp/1");
        for (errors, known, failure) in [
            (&[(one, REFUSED), (other, REFUSED)][..], &[1, 2][..], Some(Failure::Refused)),
            (&[(one, REFUSED), (other, TIMED_OUT)], &[1, 2], Some(Failure::Silent)),
            // Not all addresses of the peer were dialled.
            (&[(one, REFUSED)], &[1, 2], None),
            (&[(name, REFUSED)], &[], Some(Failure::Silent)),
            (&[(one, io::ErrorKind::NetworkUnreachable)], &[1], Some(Failure::Silent)),
            (&[], &[], None),
        ] {
            let known: Vec<_> = known.iter().copied().map(address).collect();
            assert_eq!(failure_of(&failed(errors), &known), failure, "{errors:?}");
        }
        assert_eq!(failure_of(&DialError::Aborted, &[]), None);
        // EMFILE, as the system words it.
        let error = TransportError::Other(io::Error::other(io::Error::from_raw_os_error(24).to_string()));
        let of_this_machine = DialError::Transport(vec![(address(1), error)]);
        if cfg!(unix) {
            assert_eq!(failure_of(&of_this_machine, &[address(1)]), None);
        }
    }

    #[test]
    fn a_silent_peer_is_departed_after_two_dials_if_others_answer_meanwhile() {
        let (mut bed, peer) = (Bed::new(), PeerId::random());
        assert!(!bed.failed(peer, Failure::Silent, Some(bed.now())));
        bed.runtime.pass(Duration::from_millis(1));
        assert!(!bed.failed(peer, Failure::Silent, Some(bed.now())), "a dial at the same time");
        assert_eq!(bed.dialled_within(NEXT_CHECK), [peer]);
        let heard = bed.now();
        bed.runtime.pass(NEXT_CHECK);
        assert!(bed.failed(peer, Failure::Silent, Some(heard)));
    }

    #[test]
    fn while_nobody_answers_nobody_is_departed() {
        let (mut bed, peer) = (Bed::new(), PeerId::random());
        let heard = bed.now();
        for _ in 0..20 {
            assert!(!bed.failed(peer, Failure::Silent, Some(heard)));
            bed.runtime.pass(LONGEST_CHECK);
            assert_eq!(bed.poll(), [peer]);
        }
        bed.peers.is_there(&peer);
        bed.runtime.pass(LONGEST_CHECK);
        assert!(!bed.failed(peer, Failure::Silent, Some(bed.now())), "its failures are forgotten");
    }

    #[test]
    fn peers_that_close_their_connections_together_are_checked_one_after_the_other_the_last_first() {
        let mut bed = Bed::new();
        let mut lost: Vec<_> = (0..100).map(|_| PeerId::random()).collect();
        for peer in &lost {
            bed.peers.disconnected(*peer, &[], true);
            bed.runtime.pass(Duration::from_millis(1));
        }
        bed.runtime.pass(FIRST_CHECK);
        let mut dialled = bed.poll();
        assert_eq!(dialled.len(), 1);
        dialled.extend(bed.dialled_within(CHECK_EVERY / 2));
        assert_eq!(dialled.len(), 8);
        let last = lost.split_off(92);
        assert!(dialled.iter().all(|peer| last.contains(peer)));
        for rest in [10, 40, 42] {
            dialled.iter().for_each(|peer| bed.peers.is_there(peer));
            dialled = bed.dialled_within(rest * CHECK_EVERY);
            assert_eq!(dialled.len(), rest as usize);
        }
        // After a quiet time, some are checked at once again.
        bed.runtime.pass(8 * CHECK_EVERY);
        for peer in &lost {
            bed.peers.is_there(peer);
        }
        bed.runtime.pass(TRUSTED);
        for peer in &lost {
            bed.peers.disconnected(*peer, &[], true);
        }
        assert_eq!(bed.dialled_within(CHECK_EVERY / 2).len(), 8);
    }

    #[test]
    fn peers_that_answer_no_ping_are_all_dialled_soon() {
        let mut bed = Bed::new();
        for _ in 0..100 {
            bed.peers.disconnected(PeerId::random(), &[], false);
        }
        assert_eq!(bed.dialled_within(FIRST_CHECK + 100 * PAUSE).len(), 100);
        assert_eq!(bed.peers.take_wanted().len(), 100);
    }

    #[test]
    fn peers_that_cannot_be_reached_are_dialled_though_all_checks_are_taken() {
        let (mut bed, failing) = (Bed::new(), PeerId::random());
        assert!(!bed.failed(failing, Failure::Silent, None));
        bed.runtime.pass(NEXT_CHECK - FIRST_CHECK - Duration::from_secs(1));
        for _ in 0..100 {
            bed.peers.disconnected(PeerId::random(), &[], true);
        }
        assert!(!bed.dialled_within(FIRST_CHECK + Duration::from_millis(500)).contains(&failing));
        assert!(bed.dialled_within(Duration::from_secs(1)).contains(&failing));
    }

    #[test]
    fn a_departed_peer_is_dialled_less_and_less_often_until_it_is_there_or_forgotten() {
        let (mut bed, peer, other) = (Bed::new(), PeerId::random(), PeerId::random());
        assert!(bed.failed(peer, Failure::Refused, None) && bed.failed(other, Failure::Refused, None));
        let mut dialled = bed.dialled_within(FIRST_RETURN + PAUSE);
        dialled.sort();
        let mut both = vec![peer, other];
        both.sort();
        assert_eq!(dialled, both);
        bed.peers.is_there(&peer);
        let mut dials = 0;
        for _ in 0..24 * 60 {
            bed.runtime.pass(Duration::from_secs(60));
            let dialled = bed.poll();
            assert!(dialled.iter().all(|dialled| *dialled == other));
            dials += dialled.len();
        }
        assert!((20..40).contains(&dials), "{dials}");
        bed.runtime.pass(2 * LONGEST_RETURN);
        assert!(bed.poll().is_empty());
        assert!(!bed.peers.peers.contains_key(&other));
    }

    #[test]
    fn silent_peers_are_lost_until_they_are_there_and_for_an_hour_at_most() {
        let (mut bed, silent, refusing) = (Bed::new(), PeerId::random(), PeerId::random());
        bed.peers.disconnected(silent, &[], true);
        assert_eq!(bed.peers.lost(), (0, 0));
        assert!(!bed.failed(silent, Failure::Silent, None));
        assert!(bed.failed(refusing, Failure::Refused, None));
        assert_eq!(bed.peers.lost(), (1, 0), "a machine that refuses can be reached");
        let gone = PeerId::random();
        assert!(!bed.failed(gone, Failure::Silent, None));
        bed.runtime.pass(NEXT_CHECK);
        assert!(bed.failed(gone, Failure::Silent, Some(bed.now())));
        assert_eq!(bed.peers.lost(), (1, 1));
        bed.peers.is_there(&silent);
        assert_eq!(bed.peers.lost(), (0, 1));
        bed.runtime.pass(LOST);
        assert_eq!(bed.peers.lost(), (0, 0));
    }

    #[test]
    fn a_peer_that_is_dialled_anyway_is_not_dialled_twice() {
        let (mut bed, peer) = (Bed::new(), PeerId::random());
        assert!(!bed.peers.failed(peer, Failure::Silent, &[], true, None));
        assert!(bed.dialled_within(NEXT_CHECK).is_empty());
        assert!(bed.peers.failed(peer, Failure::Silent, &[], true, Some(bed.now())));
        assert!(bed.dialled_within(2 * FIRST_RETURN).is_empty());
    }

    #[test]
    fn a_suspected_peer_is_dialled_where_others_say_that_it_is_but_not_all_the_time() {
        let (mut bed, peer, other) = (Bed::new(), PeerId::random(), PeerId::random());
        assert!(!bed.failed(peer, Failure::Silent, None));
        bed.peers.named(&other, vec![address(1)]);
        bed.peers.named(&peer, vec![address(1)]);
        let cx = &mut Context::from_waker(noop_waker_ref());
        let (dialled, is_in_table) = bed.peers.poll(cx).unwrap();
        assert_eq!((dialled.id, dialled.addresses, is_in_table), (peer, vec![address(1)], true));
        let mut dials = 0;
        for port in 2..100 {
            bed.peers.named(&peer, vec![address(port)]);
            dials += bed.dialled_within(Duration::from_secs(1)).len();
        }
        assert!((5..=11).contains(&dials), "{dials}");
    }

    #[test]
    fn addresses_are_wanted_of_peers_that_are_suspected_or_departed() {
        let (mut bed, peer) = (Bed::new(), PeerId::random());
        let last = |bed: &mut Bed| bed.peers.take_wanted().last().copied();
        bed.peers.disconnected(peer, &[], true);
        assert_eq!(last(&mut bed), None);
        assert_eq!(bed.dialled_within(FIRST_CHECK), [peer]);
        assert_eq!(last(&mut bed), Some((peer, true)));
        bed.peers.is_there(&peer);
        assert_eq!(last(&mut bed), Some((peer, false)));
        assert!(bed.failed(peer, Failure::Refused, None));
        assert_eq!(last(&mut bed), Some((peer, true)));
        bed.peers.forget(&peer);
        assert_eq!(last(&mut bed), Some((peer, false)));
    }

    #[test]
    fn the_number_of_peers_is_bounded_and_each_that_goes_is_no_longer_wanted() {
        let mut bed = Bed::new();
        let mut wanted = std::collections::HashSet::new();
        for _ in 0..2 * MAX_PEERS {
            bed.peers.disconnected(PeerId::random(), &[], true);
            let _dialled = bed.poll();
            let _departed = bed.failed(PeerId::random(), Failure::Refused, None);
        }
        for (peer, is_wanted) in bed.peers.take_wanted() {
            if is_wanted {
                wanted.insert(peer);
            } else {
                wanted.remove(&peer);
            }
        }
        assert_eq!(bed.peers.peers.len(), MAX_PEERS);
        assert_eq!(wanted.len(), MAX_PEERS);
    }
}
