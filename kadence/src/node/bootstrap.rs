//! Bootstrap peers: times at which they are dialled.
//!
//! ```text
//!                 ┌──── failed, or gave way to another one ────┐
//!                 ▼                                            │
//!              waiting ─────────────── due ───────────────► dialling
//!                 ▲                                            │
//!                 └──────── closed ──────── connected ◄────────┘
//! ```
//!
//! A node without a connected peer of its network dials all of them, at growing intervals. A node that has one checks
//! those that are not connected from time to time, so that one that was started again, and knows nobody, becomes part of
//! the network again. The larger the network, the less often each node does so: a bootstrap peer is dialled by somebody
//! every two seconds or so, however many nodes have it in their lists.

use std::{
    collections::HashMap,
    task::Context,
    time::{Duration, Instant},
};

use libp2p::PeerId;

use super::{config::KnownPeer, jitter::Jitter};
use crate::{Alarm, Runtime};

/// Maximum number of bootstrap peers that are dialled at the same time. Each dial takes a file descriptor or several, of
/// the 1,024 that most systems allow.
const MAX_DIALLING: usize = 64;

/// Time after which a dial gives way to that of another peer, if [`MAX_DIALLING`] are under way. Handshakes take four
/// round trips, and few are longer than a quarter of a second.
const PATIENCE: Duration = Duration::from_secs(1);

/// Delay of the first redial of a peer. It doubles with each dial until a peer of the network answers.
const WAIT_MIN: Duration = Duration::from_secs(2);
/// Maximum delay of a redial while no peer of the network is connected: one that comes back is found within a minute.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// The same for a peer that accepts connections and closes them: it has no room, or does not belong to the network.
const WAIT_MAX_UNWELCOME: Duration = Duration::from_secs(5 * 60);

/// Mean time between two dials of a bootstrap peer by all nodes of a network together.
const CHECKED_EVERY: Duration = Duration::from_secs(2);

/// Maximum of the mean time between two dials of a bootstrap peer by one node, in a network of 3,600 nodes or more. Peers
/// close to this node's id, which are cheap to make, let a network look larger than it is.
const LONGEST_MEAN: Duration = Duration::from_secs(2 * 60 * 60);

/// Action that the node has to carry out.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Dial(KnownPeer),
    /// Ends the dial of a peer.
    Abort(PeerId),
}

pub(super) struct BootstrapPeers {
    peers: Vec<Entry>,
    places: HashMap<PeerId, usize>,
    /// `None` while no peer of the network is connected.
    network_size: Option<usize>,
    jitter: Jitter,
    alarm: Alarm,
    /// A state has changed since the alarm was set.
    changed: bool,
}

struct Entry {
    peer: KnownPeer,
    state: State,
    /// Dials since the peer was last identified as one of the network.
    dials: u32,
    /// It was identified as one of the network, and no dial has failed since.
    is_there: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting { due: Instant },
    Dialling { since: Instant },
    Connected,
}

impl BootstrapPeers {
    /// Creates the peers, all of which are due.
    pub(super) fn new(runtime: &impl Runtime, local_peer_id: PeerId, peers: Vec<KnownPeer>) -> Self {
        let now = runtime.now();
        let places = peers.iter().enumerate().map(|(place, peer)| (peer.id, place)).collect();
        let peers =
            peers.into_iter().map(|peer| Entry { peer, state: State::Waiting { due: now }, dials: 0, is_there: false });
        let alarm = Alarm::new(runtime);
        let jitter = Jitter::new(local_peer_id);
        Self { peers: peers.collect(), places, network_size: None, jitter, alarm, changed: true }
    }

    pub(super) fn contains(&self, peer: &PeerId) -> bool {
        self.places.contains_key(peer)
    }

    /// Returns whether one of the peers is there, as far as is known.
    pub(super) fn any_is_there(&self) -> bool {
        self.peers.iter().any(|entry| entry.is_there)
    }

    /// Notes a connection to a peer.
    pub(super) fn connected(&mut self, peer: &PeerId) {
        if let Some(entry) = self.entry(peer) {
            entry.state = State::Connected;
        }
    }

    /// Notes that a connected peer speaks the protocol of the network.
    pub(super) fn identified(&mut self, peer: &PeerId) {
        if let Some(entry) = self.entry(peer) {
            (entry.dials, entry.is_there) = (0, true);
        }
    }

    /// Notes that the last connection to a peer has closed.
    pub(super) fn disconnected(&mut self, peer: &PeerId) {
        if self.state(peer) == Some(State::Connected) {
            let was_identified = self.entry(peer).is_some_and(|entry| entry.dials == 0);
            self.wait(peer, if was_identified { WAIT_MAX } else { WAIT_MAX_UNWELCOME });
        }
    }

    /// Notes that a dial has failed.
    pub(super) fn dial_failed(&mut self, peer: &PeerId) {
        if matches!(self.state(peer), Some(State::Dialling { .. })) {
            self.wait(peer, WAIT_MAX);
        }
        // A dial at the same time as the connection says nothing.
        if let Some(entry) = self.entry(peer).filter(|entry| entry.state != State::Connected) {
            entry.is_there = false;
        }
    }

    /// Sets the estimated number of nodes of the network. `None`: no peer of the network is connected.
    pub(super) fn set_network_size(&mut self, size: Option<usize>) {
        let was_connected = self.network_size.is_some();
        self.network_size = size;
        if was_connected && size.is_none() {
            self.hurry();
        }
    }

    /// Shortens the waits to those of a node without a connected peer.
    fn hurry(&mut self) {
        let waiting = self.peers.iter().filter(|entry| matches!(entry.state, State::Waiting { .. }));
        let waiting: Vec<_> = waiting.map(|entry| (entry.peer.id, entry.state)).collect();
        for (peer, earlier) in waiting {
            self.wait(&peer, WAIT_MAX);
            let Some(entry) = self.entry(&peer) else { continue };
            // The wait has not begun again.
            entry.dials = entry.dials.saturating_sub(1);
            if let (State::Waiting { due: earlier }, State::Waiting { due }) = (earlier, &mut entry.state) {
                *due = earlier.min(*due);
            }
        }
    }

    /// Returns the next step.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Option<Step> {
        // Timers fire early now and then.
        while self.changed || self.alarm.poll(cx).is_ready() {
            self.changed = false;
            let now = self.alarm.now();
            if let Some(step) = self.step(now) {
                self.changed = true;
                return Some(step);
            }
            match self.next_due() {
                Some(due) => self.alarm.set(due),
                None => self.alarm.stop(),
            }
        }
        None
    }

    fn step(&mut self, now: Instant) -> Option<Step> {
        let is_due = |entry: &Entry| matches!(entry.state, State::Waiting { due } if due <= now);
        let due = self.peers.iter().position(is_due)?;
        let (dialling, oldest) = self.dialling();
        if dialling < MAX_DIALLING {
            let entry = self.peers.get_mut(due)?;
            entry.state = State::Dialling { since: now };
            return Some(Step::Dial(entry.peer.clone()));
        }
        let (since, peer) = oldest?;
        if now.saturating_duration_since(since) < PATIENCE {
            return None;
        }
        self.wait(&peer, WAIT_MAX);
        Some(Step::Abort(peer))
    }

    /// Returns the next time at which there may be a step.
    fn next_due(&self) -> Option<Instant> {
        let waiting = self.peers.iter().filter_map(|entry| match entry.state {
            State::Waiting { due } => Some(due),
            State::Dialling { .. } | State::Connected => None,
        });
        let first = waiting.min()?;
        match self.dialling() {
            (dialling, Some((since, _))) if dialling >= MAX_DIALLING => Some(first.max(since + PATIENCE)),
            _ => Some(first),
        }
    }

    /// Returns the number of peers that are being dialled, and the one whose dial began first.
    fn dialling(&self) -> (usize, Option<(Instant, PeerId)>) {
        let dialling = self.peers.iter().filter_map(|entry| match entry.state {
            State::Dialling { since } => Some((since, entry.peer.id)),
            State::Waiting { .. } | State::Connected => None,
        });
        (dialling.clone().count(), dialling.min_by_key(|(since, _)| *since))
    }

    /// Draws the time of the next dial.
    fn wait(&mut self, peer: &PeerId, at_most: Duration) {
        let (now, network_size) = (self.alarm.now(), self.network_size);
        let Some(entry) = self.places.get(peer).and_then(|place| self.peers.get_mut(*place)) else { return };
        let growing = WAIT_MIN.saturating_mul(1 << entry.dials.min(8)).min(at_most);
        let longest = network_size.map_or(growing, |size| {
            // The mean is half of the longest.
            let mean = CHECKED_EVERY.saturating_mul(u32::try_from(size).unwrap_or(u32::MAX)).min(LONGEST_MEAN);
            growing.max(2 * mean)
        });
        entry.dials = entry.dials.saturating_add(1);
        entry.state = State::Waiting { due: crate::deadline_after(now, self.jitter.draw(growing / 2, longest)) };
        self.changed = true;
    }

    fn state(&self, peer: &PeerId) -> Option<State> {
        Some(self.peers.get(*self.places.get(peer)?)?.state)
    }

    fn entry(&mut self, peer: &PeerId) -> Option<&mut Entry> {
        let entry = self.peers.get_mut(*self.places.get(peer)?)?;
        self.changed = true;
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use futures::task::noop_waker_ref;

    use super::*;
    use crate::alarm::tests::TestRuntime;

    struct Bed {
        runtime: TestRuntime,
        peers: BootstrapPeers,
        ids: Vec<PeerId>,
    }

    impl Bed {
        fn new(number: usize) -> Self {
            let runtime = TestRuntime::new();
            let ids: Vec<_> = (0..number).map(|_| PeerId::random()).collect();
            let known = ids.iter().map(|id| KnownPeer { id: *id, addresses: Vec::new() });
            let peers = BootstrapPeers::new(&runtime, PeerId::random(), known.collect());
            Self { runtime, peers, ids }
        }

        /// Polls as a node's loop does. Returns the peers that are dialled, and those whose dials are aborted.
        fn poll(&mut self) -> (Vec<PeerId>, Vec<PeerId>) {
            let cx = &mut Context::from_waker(noop_waker_ref());
            let (mut dialled, mut aborted) = (Vec::new(), Vec::new());
            while let Some(step) = self.peers.poll(cx) {
                match step {
                    Step::Dial(peer) => dialled.push(peer.id),
                    Step::Abort(peer) => aborted.push(peer),
                }
            }
            (dialled, aborted)
        }

        /// Returns the number of dials of the only peer within a time, all of which end by `end`.
        fn dials_within(&mut self, seconds: u64, end: impl Fn(&mut BootstrapPeers, &PeerId)) -> usize {
            let mut dials = 0;
            for _ in 0..seconds {
                self.runtime.pass(Duration::from_secs(1));
                for peer in self.poll().0 {
                    dials += 1;
                    end(&mut self.peers, &peer);
                }
            }
            dials
        }
    }

    #[test]
    fn all_are_dialled_at_the_start() {
        let mut bed = Bed::new(3);
        assert_eq!(bed.poll(), (bed.ids.clone(), Vec::new()));
        bed.runtime.pass(WAIT_MAX);
        assert_eq!(bed.poll(), (Vec::new(), Vec::new()), "they are being dialled");
    }

    #[test]
    fn a_silent_peer_gives_way_to_the_next_of_a_long_list() {
        let mut bed = Bed::new(MAX_DIALLING + 2);
        assert_eq!(bed.poll().0, bed.ids[..MAX_DIALLING]);
        bed.runtime.pass(PATIENCE - Duration::from_millis(1));
        assert_eq!(bed.poll(), (Vec::new(), Vec::new()));
        bed.runtime.pass(Duration::from_millis(1));
        let (dialled, aborted) = bed.poll();
        assert_eq!(dialled, bed.ids[MAX_DIALLING..]);
        assert_eq!(aborted, bed.ids[..2]);
    }

    #[test]
    fn waits_grow_until_a_peer_of_the_network_is_identified() {
        // A peer that has no room accepts each connection and closes it.
        let full = |peers: &mut BootstrapPeers, peer: &PeerId| {
            peers.connected(peer);
            peers.disconnected(peer);
        };
        let mut bed = Bed::new(1);
        assert_eq!(bed.poll().0.len(), 1);
        full(&mut bed.peers, &bed.ids[0].clone());
        let half_an_hour = bed.dials_within(30 * 60, full);
        assert!((8..=20).contains(&half_an_hour), "{half_an_hour}");
        // A machine that is down is dialled more often.
        let mut down = Bed::new(1);
        down.poll();
        down.peers.dial_failed(&down.ids[0].clone());
        let half_an_hour = down.dials_within(30 * 60, BootstrapPeers::dial_failed);
        assert!((30..=60).contains(&half_an_hour), "{half_an_hour}");
        assert!(!bed.peers.any_is_there());
        bed.peers.identified(&bed.ids[0].clone());
        assert!(bed.peers.any_is_there());
        bed.peers.connected(&bed.ids[0].clone());
        bed.peers.dial_failed(&bed.ids[0].clone());
        assert!(bed.peers.any_is_there(), "a dial at the same time");
        bed.peers.disconnected(&bed.ids[0].clone());
        assert_eq!(bed.dials_within(2, full), 1);
        bed.peers.dial_failed(&bed.ids[0].clone());
        assert!(!bed.peers.any_is_there());
    }

    #[test]
    fn all_nodes_of_a_network_together_dial_a_bootstrap_peer_every_two_seconds() {
        for size in [10, 100, 1000] {
            let mut dials = 0;
            let mut beds: Vec<_> = (0..size).map(|_| Bed::new(1)).collect();
            for bed in &mut beds {
                bed.poll();
                bed.peers.connected(&bed.ids[0].clone());
                bed.peers.identified(&bed.ids[0].clone());
                bed.peers.set_network_size(Some(size));
                bed.peers.disconnected(&bed.ids[0].clone());
                // A peer that is there, and to which the connection is idle at once.
                dials += bed.dials_within(600, |peers, peer| {
                    peers.connected(peer);
                    peers.identified(peer);
                    peers.disconnected(peer);
                });
            }
            let pause = 600.0 / dials as f64;
            assert!((0.5..4.0).contains(&pause), "{size} nodes: every {pause} s");
        }
    }

    #[test]
    fn a_node_that_is_alone_does_not_wait_for_the_next_check() {
        let mut bed = Bed::new(1);
        let id = bed.ids[0];
        bed.poll();
        bed.peers.connected(&id);
        bed.peers.identified(&id);
        bed.peers.set_network_size(Some(100_000));
        bed.peers.disconnected(&id);
        bed.runtime.pass(WAIT_MIN);
        assert!(bed.poll().0.is_empty());
        bed.peers.set_network_size(None);
        bed.runtime.pass(2 * WAIT_MIN);
        assert_eq!(bed.poll().0, [id]);
    }

    #[test]
    fn events_of_other_peers_change_nothing() {
        let mut bed = Bed::new(1);
        bed.poll();
        let other = PeerId::random();
        assert!(!bed.peers.contains(&other));
        bed.peers.connected(&other);
        bed.peers.identified(&other);
        bed.peers.dial_failed(&other);
        bed.peers.disconnected(&other);
        // The dial of the only peer goes on.
        bed.peers.disconnected(&bed.ids[0].clone());
        bed.runtime.pass(WAIT_MAX);
        assert!(bed.poll().0.is_empty());
    }

    #[test]
    fn without_bootstrap_peers_no_timer_is_set() {
        let mut bed = Bed::new(0);
        bed.peers.set_network_size(None);
        assert!(bed.poll().0.is_empty());
        assert_eq!(bed.runtime.timer_sets(), 0);
    }
}
