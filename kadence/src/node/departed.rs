//! Peers of the routing table that are gone. kad never removes them, asks them in every lookup nearby, and waits.
//!
//! ```text
//!                    closed by the peer             refused, or failed twice
//!   in the table ──────────────────────► suspected ──────────────────────────► departed ──► forgotten
//!        ▲          or a dial failed         │                                    │  failed too often
//!        └──────────── connected ────────────┴──────────── connected ─────────────┘
//! ```
//!
//! A suspected peer is dialled. It leaves the table if its machine refuses the connection, or if two dials fail while other
//! peers of the network answer: a node that has lost its own connection to the network keeps its table. Addresses of
//! departed peers are kept for a while, and dialled from time to time, so that two halves of a network find each other
//! again after a partition.

use std::{
    collections::{HashMap, VecDeque},
    io,
    task::Context,
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId, TransportError, swarm::DialError};

use super::{config::KnownPeer, jitter::between};
use crate::{Alarm, Runtime, deadline_after};

/// Maximum delay between the close of a connection and the dial that shows whether the peer is there. Nodes that lose the
/// same peer do not dial together.
const FIRST_CHECK: Duration = Duration::from_millis(500);

/// Delay of the next check after a failed dial. It doubles with each.
const NEXT_CHECK: Duration = Duration::from_secs(10);

/// Maximum delay of a check.
const LONGEST_WAIT: Duration = Duration::from_secs(10 * 60);

/// Time for which a peer that was there is not checked again, though it closes connection after connection. Most do so
/// when a connection is idle.
const TRUSTED: Duration = Duration::from_secs(10 * 60);

/// Minimum time between two dials. A node that loses all connections at once does not dial hundreds of peers together.
const PAUSE: Duration = Duration::from_millis(50);

/// Number of failed dials after which a peer is departed.
const MAX_FAILURES: u32 = 2;

/// Maximum number of suspected peers. A routing table of a large network has some two hundred entries.
const MAX_SUSPECTS: usize = 512;

/// Maximum number of departed peers that are remembered.
const MAX_DEPARTED: usize = 128;

/// Mean time between two dials of departed peers, each of which has its turn every two hours if there are many.
const DEPARTED_PAUSE: Duration = Duration::from_secs(60);

/// Time for which peers that were lost are a sign that this node is cut off from the network.
const REMEMBERED_FOR: Duration = Duration::from_secs(60 * 60);

/// Number of failed dials after which a departed peer is forgotten.
const MAX_RETURNS: u32 = 8;

pub(super) struct DepartedPeers {
    local_peer_id: PeerId,
    suspects: HashMap<PeerId, Suspect>,
    /// In the order of their dials.
    departed: VecDeque<Departed>,
    departed_due: Instant,
    not_before: Instant,
    /// Peers whose addresses are wanted from now on, or no longer, until the caller takes them.
    wanted: Vec<(PeerId, bool)>,
    draws: u64,
    alarm: Alarm,
    changed: bool,
}

#[derive(Debug)]
struct Departed {
    peer: KnownPeer,
    dials: u32,
    since: Instant,
}

#[derive(Debug)]
struct Suspect {
    /// Time of the next dial; `None` if none is due.
    due: Option<Instant>,
    failures: u32,
    /// Time of the first of the failures, or of the last sign of life.
    since: Instant,
}

impl DepartedPeers {
    pub(super) fn new(runtime: &impl Runtime, local_peer_id: PeerId) -> Self {
        let now = runtime.now();
        Self {
            local_peer_id,
            suspects: HashMap::new(),
            departed: VecDeque::new(),
            departed_due: now,
            not_before: now,
            wanted: Vec::new(),
            draws: 0,
            alarm: Alarm::new(runtime),
            changed: false,
        }
    }

    /// Returns the current time.
    pub(super) fn now(&self) -> Instant {
        self.alarm.now()
    }

    /// Notes that a peer of the routing table has closed its last connection, or does not answer pings.
    pub(super) fn disconnected(&mut self, peer: PeerId) {
        let (now, delay) = (self.alarm.now(), self.draw(Duration::ZERO, FIRST_CHECK));
        self.make_room(now);
        let suspect = self.suspects.entry(peer).or_insert(Suspect { due: None, failures: 0, since: now });
        let is_trusted = suspect.due.is_none() && suspect.since < now && now - suspect.since < TRUSTED;
        if !is_trusted && suspect.due.is_none() {
            (suspect.due, suspect.failures, suspect.since) = (Some(now + delay), 0, now);
            self.wanted.push((peer, true));
            self.changed = true;
        }
    }

    /// Notes that a dial of a peer of the routing table has failed, or that a connection was closed before the peer was
    /// identified. `is_dialled_anyway` says that others dial the peer again. `last_heard` is the time at which any peer of
    /// the network was last heard. Returns whether the peer is departed.
    #[must_use]
    pub(super) fn failed(
        &mut self,
        peer: PeerId,
        is_refused: bool,
        is_dialled_anyway: bool,
        last_heard: Option<Instant>,
    ) -> bool {
        let now = self.alarm.now();
        self.make_room(now);
        let suspect = self.suspects.entry(peer).or_insert(Suspect { due: None, failures: 0, since: now });
        if suspect.failures == 0 {
            suspect.since = now;
        }
        suspect.failures += 1;
        let is_network_there = last_heard.is_some_and(|heard| heard > suspect.since);
        if is_refused || (suspect.failures >= MAX_FAILURES && is_network_there) {
            self.suspects.remove(&peer);
            self.wanted.push((peer, false));
            return true;
        }
        let wait = NEXT_CHECK.saturating_mul(1 << suspect.failures.min(8).saturating_sub(1)).min(LONGEST_WAIT);
        suspect.due = (!is_dialled_anyway).then(|| deadline_after(now, wait));
        self.wanted.push((peer, true));
        self.changed = true;
        false
    }

    /// Remembers a peer that has left the routing table.
    pub(super) fn remember(&mut self, id: PeerId, addresses: Vec<Multiaddr>) {
        if self.departed.is_empty() {
            self.departed_due = self.alarm.now() + self.draw(DEPARTED_PAUSE / 2, DEPARTED_PAUSE);
        } else if self.departed.len() == MAX_DEPARTED
            && let Some(forgotten) = self.departed.pop_front()
        {
            self.wanted.push((forgotten.peer.id, false));
        }
        self.wanted.push((id, true));
        let (peer, since) = (KnownPeer { id, addresses }, self.alarm.now());
        self.departed.push_back(Departed { peer, dials: 0, since });
        self.changed = true;
    }

    /// Notes that a peer is there.
    pub(super) fn is_there(&mut self, peer: &PeerId) {
        if let Some(suspect) = self.suspects.get_mut(peer) {
            *suspect = Suspect { due: None, failures: 0, since: self.alarm.now() };
        }
        self.departed.retain(|departed| departed.peer.id != *peer);
        self.wanted.push((*peer, false));
    }

    /// Returns the next peer to dial: one of the routing table, without addresses, or a departed one.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Option<KnownPeer> {
        while self.changed || self.alarm.poll(cx).is_ready() {
            self.changed = false;
            let now = self.alarm.now();
            if let Some(peer) = self.due(now) {
                self.changed = true;
                return Some(peer);
            }
            let suspect = self.suspects.values().filter_map(|suspect| suspect.due).min();
            let suspect = suspect.map(|due| due.max(self.not_before));
            let departed = (!self.departed.is_empty()).then_some(self.departed_due);
            match suspect.into_iter().chain(departed).min() {
                Some(due) => self.alarm.set(due),
                None => self.alarm.stop(),
            }
        }
        None
    }

    /// Returns the numbers of peers that could not be reached within the last hour, and were not there since: those that
    /// are still in the routing table, and those that have left it.
    pub(super) fn lost(&self) -> (usize, usize) {
        let now = self.alarm.now();
        let is_recent = |since: Instant| now.saturating_duration_since(since) < REMEMBERED_FOR;
        let failing = self.suspects.values().filter(|suspect| suspect.failures > 0 && is_recent(suspect.since));
        (failing.count(), self.departed.iter().filter(|departed| is_recent(departed.since)).count())
    }

    /// Returns the peers whose addresses are wanted from now on (`true`), or no longer, since the last call.
    pub(super) fn take_wanted(&mut self) -> Vec<(PeerId, bool)> {
        std::mem::take(&mut self.wanted)
    }

    fn due(&mut self, now: Instant) -> Option<KnownPeer> {
        if self.not_before <= now {
            let first = self.suspects.iter_mut().filter(|(_, suspect)| suspect.due.is_some_and(|due| due <= now));
            if let Some((peer, suspect)) = first.min_by_key(|(peer, suspect)| (suspect.due, **peer)) {
                // The next one is due when this dial has failed.
                suspect.due = None;
                self.not_before = now + PAUSE;
                return Some(KnownPeer { id: *peer, addresses: Vec::new() });
            }
        }
        if self.departed_due <= now
            && let Some(Departed { peer, dials, since }) = self.departed.pop_front()
        {
            self.departed_due = now + self.draw(DEPARTED_PAUSE / 2, DEPARTED_PAUSE * 3 / 2);
            if dials + 1 < MAX_RETURNS {
                self.departed.push_back(Departed { peer: peer.clone(), dials: dials + 1, since });
            } else {
                self.wanted.push((peer.id, false));
            }
            return Some(peer);
        }
        None
    }

    fn draw(&mut self, shortest: Duration, longest: Duration) -> Duration {
        self.draws += 1;
        between(shortest, longest, (self.local_peer_id.to_bytes(), self.draws))
    }

    /// Makes room for another suspect: peers that were there long ago go, and then any.
    fn make_room(&mut self, now: Instant) {
        if self.suspects.len() < MAX_SUSPECTS {
            return;
        }
        self.suspects
            .retain(|_, suspect| suspect.due.is_some() || now.saturating_duration_since(suspect.since) < TRUSTED);
        if self.suspects.len() >= MAX_SUSPECTS
            && let Some(oldest) = self.suspects.iter().min_by_key(|(peer, suspect)| (suspect.since, **peer))
        {
            let oldest = *oldest.0;
            self.suspects.remove(&oldest);
            self.wanted.push((oldest, false));
        }
    }
}

/// Returns whether a machine has refused the connection at each address: nobody listens there.
pub(super) fn is_refused(error: &DialError) -> bool {
    let DialError::Transport(errors) = error else { return false };
    let is_refused = |error: &TransportError<io::Error>| match error {
        // Transports wrap each other's errors in types that hide the kind, and not the text.
        TransportError::Other(error) => {
            error.kind() == io::ErrorKind::ConnectionRefused || error.to_string().contains("refused")
        }
        TransportError::MultiaddrNotSupported(_) => false,
    };
    !errors.is_empty() && errors.iter().all(|(_, error)| is_refused(error))
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
            std::iter::from_fn(|| self.peers.poll(cx)).map(|peer| peer.id).collect()
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
    }

    fn failed(kinds: &[io::ErrorKind]) -> DialError {
        let address = || "/ip4/1.2.3.4/tcp/1".parse().unwrap();
        // As a transport above another one does it. The text is that of the system.
        let wrapped = |kind: io::ErrorKind| io::Error::other(io::Error::from(kind).to_string());
        DialError::Transport(kinds.iter().map(|kind| (address(), TransportError::Other(wrapped(*kind)))).collect())
    }

    const REFUSED: io::ErrorKind = io::ErrorKind::ConnectionRefused;
    const TIMED_OUT: io::ErrorKind = io::ErrorKind::TimedOut;

    #[test]
    fn a_peer_that_closes_its_connection_is_checked_once_and_then_trusted_for_a_while() {
        let (mut bed, peer) = (Bed::new(), PeerId::random());
        for _ in 0..3 {
            bed.peers.disconnected(peer);
            assert_eq!(bed.dialled_within(FIRST_CHECK), [peer]);
            bed.peers.is_there(&peer);
            // It closes one idle connection after another.
            for _ in 0..9 {
                bed.runtime.pass(TRUSTED / 10);
                bed.peers.disconnected(peer);
                assert!(bed.dialled_within(FIRST_CHECK).is_empty());
            }
            bed.runtime.pass(TRUSTED / 10);
        }
    }

    #[test]
    fn a_peer_whose_machine_refuses_is_departed_at_once() {
        let mut bed = Bed::new();
        assert!(bed.peers.failed(PeerId::random(), true, false, None));
        assert!(!bed.peers.failed(PeerId::random(), false, false, None));
    }

    #[test]
    fn a_dial_is_refused_if_each_address_refuses_it() {
        assert!(is_refused(&failed(&[REFUSED, REFUSED])));
        assert!(!is_refused(&failed(&[REFUSED, TIMED_OUT])));
        assert!(!is_refused(&failed(&[])));
        assert!(!is_refused(&DialError::Aborted));
    }

    #[test]
    fn a_silent_peer_is_departed_after_two_dials_if_others_answer_meanwhile() {
        let (mut bed, peer) = (Bed::new(), PeerId::random());
        assert!(!bed.peers.failed(peer, false, false, Some(bed.now())));
        assert_eq!(bed.dialled_within(NEXT_CHECK), [peer]);
        let heard = bed.now();
        bed.runtime.pass(NEXT_CHECK);
        assert!(bed.peers.failed(peer, false, false, Some(heard)));
    }

    #[test]
    fn while_nobody_answers_nobody_is_departed() {
        let (mut bed, peer) = (Bed::new(), PeerId::random());
        let heard = bed.now();
        for _ in 0..20 {
            assert!(!bed.peers.failed(peer, false, false, Some(heard)));
            bed.runtime.pass(LONGEST_WAIT);
            assert_eq!(bed.poll(), [peer]);
        }
        bed.peers.is_there(&peer);
        bed.runtime.pass(LONGEST_WAIT);
        assert!(!bed.peers.failed(peer, false, false, Some(bed.now())), "its failures are forgotten");
    }

    #[test]
    fn peers_that_are_lost_together_are_dialled_one_after_the_other() {
        let mut bed = Bed::new();
        for _ in 0..100 {
            bed.peers.disconnected(PeerId::random());
        }
        bed.runtime.pass(FIRST_CHECK);
        assert_eq!(bed.poll().len(), 1);
        assert_eq!(bed.dialled_within(99 * PAUSE).len(), 99);
    }

    #[test]
    fn a_departed_peer_is_dialled_from_time_to_time_until_it_is_there_or_forgotten() {
        let (mut bed, peer, other) = (Bed::new(), PeerId::random(), PeerId::random());
        bed.peers.remember(peer, Vec::new());
        bed.peers.remember(other, Vec::new());
        bed.runtime.pass(DEPARTED_PAUSE);
        assert_eq!(bed.poll(), [peer]);
        bed.peers.is_there(&peer);
        let dialled: Vec<_> = (0..100).flat_map(|_| bed.dialled_within(DEPARTED_PAUSE)).collect();
        assert_eq!(dialled, [other; MAX_RETURNS as usize]);
        let sets = bed.runtime.timer_sets();
        bed.runtime.pass(LONGEST_WAIT);
        assert!(bed.poll().is_empty());
        assert_eq!(bed.runtime.timer_sets(), sets);
    }

    #[test]
    fn peers_are_lost_from_their_first_failure_until_they_are_there_and_for_an_hour_at_most() {
        let (mut bed, silent, refusing) = (Bed::new(), PeerId::random(), PeerId::random());
        bed.peers.disconnected(silent);
        assert_eq!(bed.peers.lost(), (0, 0));
        assert!(!bed.peers.failed(silent, false, false, None));
        assert!(bed.peers.failed(refusing, true, false, None));
        bed.peers.remember(refusing, Vec::new());
        assert_eq!(bed.peers.lost(), (1, 1));
        bed.peers.is_there(&silent);
        assert_eq!(bed.peers.lost(), (0, 1));
        bed.runtime.pass(REMEMBERED_FOR);
        assert_eq!(bed.peers.lost(), (0, 0));
    }

    #[test]
    fn a_peer_that_is_dialled_anyway_is_not_dialled_twice() {
        let (mut bed, peer) = (Bed::new(), PeerId::random());
        assert!(!bed.peers.failed(peer, false, true, None));
        assert!(bed.dialled_within(NEXT_CHECK).is_empty());
        assert!(bed.peers.failed(peer, false, true, Some(bed.now())));
    }

    #[test]
    fn addresses_are_wanted_of_peers_that_are_suspected_or_departed() {
        let (mut bed, peer) = (Bed::new(), PeerId::random());
        let last = |bed: &mut Bed| bed.peers.take_wanted().last().copied();
        bed.peers.disconnected(peer);
        assert_eq!(last(&mut bed), Some((peer, true)));
        bed.peers.is_there(&peer);
        assert_eq!(last(&mut bed), Some((peer, false)));
        assert!(bed.peers.failed(peer, true, false, None));
        bed.peers.remember(peer, Vec::new());
        assert_eq!(last(&mut bed), Some((peer, true)));
        for _ in 0..MAX_RETURNS {
            bed.dialled_within(2 * DEPARTED_PAUSE);
        }
        assert_eq!(last(&mut bed), Some((peer, false)));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut bed = Bed::new();
        for _ in 0..2 * MAX_SUSPECTS {
            bed.peers.disconnected(PeerId::random());
            bed.peers.remember(PeerId::random(), Vec::new());
        }
        assert_eq!(bed.peers.suspects.len(), MAX_SUSPECTS);
        assert_eq!(bed.peers.departed.len(), MAX_DEPARTED);
    }
}
