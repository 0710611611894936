//! The network between the hosts: who reaches whom, and when what they send arrives.

#![expect(clippy::indexing_slicing, reason = "a `HostId` is the index of a host that stays")]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use futures_timer::schedule;
use libp2p::{Multiaddr, multiaddr::Protocol};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{connection::Connection, latency::Latency, trace::Trace, transport::Listener};

/// Number of a host, in the order of their creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(pub(crate) usize);

/// Bandwidth of a host and its reachability.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Link {
    /// Bits per second that the host can send, over all connections. `None`, the default: without limit.
    pub up: Option<u64>,
    /// Bits per second that the host can receive, over all connections. `None`, the default: without limit.
    pub down: Option<u64>,
    /// Probability with which the link loses a packet, in either direction. A lost packet is sent again, which takes
    /// bandwidth and holds up what follows it on the connection. Values above 0.9 count as 0.9. Dials are not lost.
    /// Default: 0.
    pub loss: f64,
    /// Time that everything takes to or from the host, on top of the latency of the pair. Default: 0.
    pub delay: Duration,
    /// Answer to a dial from outside. Default: [`Reach::Open`].
    pub reach: Reach,
}

impl Default for Link {
    fn default() -> Self {
        Self { up: None, down: None, loss: 0.0, delay: Duration::ZERO, reach: Reach::Open }
    }
}

impl Link {
    /// Sets [`up`](field@Self::up).
    #[must_use]
    pub fn up(mut self, bits_per_second: impl Into<Option<u64>>) -> Self {
        self.up = bits_per_second.into();
        self
    }

    /// Sets [`down`](field@Self::down).
    #[must_use]
    pub fn down(mut self, bits_per_second: impl Into<Option<u64>>) -> Self {
        self.down = bits_per_second.into();
        self
    }

    /// Sets [`loss`](field@Self::loss).
    #[must_use]
    pub fn loss(mut self, probability: f64) -> Self {
        self.loss = probability;
        self
    }

    /// Sets [`delay`](field@Self::delay).
    #[must_use]
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Sets [`reach`](field@Self::reach).
    #[must_use]
    pub fn reach(mut self, reach: Reach) -> Self {
        self.reach = reach;
        self
    }
}

/// Answer of a host to a dial from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reach {
    /// Dials of a port without a listener are refused after a round trip.
    Open,
    /// As [`Open`](Self::Open), but dials of a port without a listener are not answered, as behind most firewalls.
    Filtered,
    /// No dial is answered, as behind a NAT, but for those of [mapped ports](crate::Host::map_port). The host can dial
    /// others.
    Nat,
}

/// Bytes and messages of a host or of all hosts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Traffic {
    /// Packets that were sent.
    pub packets: u64,
    /// Bytes that were sent, with 52 bytes of headers for each packet.
    pub bytes: u64,
    /// Dials that were begun.
    pub dials: u64,
}

/// Headers of IP, TCP and the multiplexer.
const HEADERS: u64 = 52;

/// Time after which a lost packet is sent again, on top of a round trip: the minimum of TCP on Linux.
const RETRANSMISSION: Duration = Duration::from_millis(200);

/// With more, nothing would arrive in a world's time.
const MAX_LOSS: f64 = 0.9;

/// Network of one world.
#[derive(Clone)]
pub(crate) struct Network(Arc<Mutex<State>>);

struct State {
    hosts: Vec<Host>,
    by_address: BTreeMap<Ipv4Addr, HostId>,
    listeners: BTreeMap<(HostId, u16), Listener>,
    /// Ports of hosts behind a NAT that can be reached from outside.
    mapped: BTreeSet<(HostId, u16)>,
    /// Pairs that do not reach each other, the smaller one first.
    cut: BTreeSet<(HostId, HostId)>,
    connections: Vec<Weak<Connection>>,
    latency: Latency,
    random: ChaCha8Rng,
    next_port: u16,
    next_address: u32,
    seed: u64,
    trace: Trace,
}

struct Host {
    address: Ipv4Addr,
    link: Link,
    up_free: u64,
    down_free: u64,
    is_up: bool,
    is_stalled: bool,
    traffic: Traffic,
}

impl Network {
    pub(crate) fn new(latency: Latency, seed: u64, trace: Trace) -> Self {
        Self(Arc::new(Mutex::new(State {
            hosts: Vec::new(),
            by_address: BTreeMap::new(),
            listeners: BTreeMap::new(),
            mapped: BTreeSet::new(),
            cut: BTreeSet::new(),
            connections: Vec::new(),
            latency,
            random: ChaCha8Rng::seed_from_u64(seed),
            next_port: 0,
            next_address: 0,
            seed,
            trace,
        })))
    }

    /// Locks the state. It is consistent even after a panic of a scenario.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add_host(&self, link: Link) -> HostId {
        let mut state = self.lock();
        let id = HostId(state.hosts.len());
        let address = state.new_address();
        state.by_address.insert(address, id);
        let (is_up, is_stalled, traffic) = (true, false, Traffic::default());
        state.hosts.push(Host { address, link, up_free: 0, down_free: 0, is_up, is_stalled, traffic });
        id
    }

    pub(crate) fn address(&self, host: HostId) -> Ipv4Addr {
        self.lock().hosts[host.0].address
    }

    pub(crate) fn host_at(&self, address: Ipv4Addr) -> Option<HostId> {
        self.lock().by_address.get(&address).copied()
    }

    /// Gives a host another address. Its connections are lost, without a sign.
    pub(crate) fn move_host(&self, host: HostId) {
        let mut state = self.lock();
        let (old, new) = (state.hosts[host.0].address, state.new_address());
        state.by_address.remove(&old);
        state.by_address.insert(new, host);
        state.hosts[host.0].address = new;
        let connections = state.connections_of(host);
        let of_host = state.listeners.range((host, 0)..=(host, u16::MAX));
        let listeners: Vec<_> = of_host.map(|((_, port), listener)| (*port, listener.clone())).collect();
        drop(state);
        for (port, listener) in listeners {
            listener.moved(port, &multiaddr(old, port), &multiaddr(new, port));
        }
        connections.iter().for_each(|connection| connection.silence());
    }

    pub(crate) fn set_link(&self, host: HostId, link: Link) {
        self.lock().hosts[host.0].link = link;
    }

    pub(crate) fn set_up(&self, host: HostId, is_up: bool) {
        self.lock().hosts[host.0].is_up = is_up;
    }

    pub(crate) fn traffic(&self, host: Option<HostId>) -> Traffic {
        let state = self.lock();
        let hosts = state.hosts.iter().enumerate().filter(|(at, _)| host.is_none_or(|host| host.0 == *at));
        hosts.fold(Traffic::default(), |sum, (_, host)| Traffic {
            packets: sum.packets + host.traffic.packets,
            bytes: sum.bytes + host.traffic.bytes,
            dials: sum.dials + host.traffic.dials,
        })
    }

    /// Cuts two hosts from each other, or connects them again. What was sent meanwhile arrives afterwards.
    pub(crate) fn set_cut(&self, a: HostId, b: HostId, is_cut: bool) {
        let mut state = self.lock();
        if is_cut {
            state.cut.insert(pair(a, b));
            return;
        }
        state.cut.remove(&pair(a, b));
        let connections: Vec<_> =
            state.connections_of(a).into_iter().filter(|connection| connection.hosts().contains(&b)).collect();
        drop(state);
        connections.iter().for_each(|connection| connection.flush());
    }

    /// Lets nothing pass to or from a host, or lets it pass again, with all that was held up.
    pub(crate) fn set_stalled(&self, host: HostId, is_stalled: bool) {
        let mut state = self.lock();
        state.hosts[host.0].is_stalled = is_stalled;
        let connections = if is_stalled { Vec::new() } else { state.connections_of(host) };
        drop(state);
        connections.iter().for_each(|connection| connection.flush());
    }

    pub(crate) fn is_cut(&self, a: HostId, b: HostId) -> bool {
        self.lock().is_cut(a, b)
    }

    /// Returns whether each of two hosts would answer the other: both have power, and nothing is between them.
    pub(crate) fn reach_each_other(&self, a: HostId, b: HostId) -> bool {
        self.lock().reach_each_other(a, b)
    }

    /// Returns the time from one host to another.
    pub(crate) fn one_way(&self, from: HostId, to: HostId) -> Duration {
        self.lock().one_way(from, to)
    }

    pub(crate) fn set_mapped(&self, host: HostId, port: u16, is_mapped: bool) {
        let mut state = self.lock();
        if is_mapped {
            state.mapped.insert((host, port));
        } else {
            state.mapped.remove(&(host, port));
        }
    }

    /// Returns whether packets between two hosts, which are known by these addresses, still arrive.
    pub(crate) fn still_reach(&self, hosts: [(HostId, Ipv4Addr); 2]) -> bool {
        let state = self.lock();
        let [(a, _), (b, _)] = hosts;
        state.reach_each_other(a, b) && hosts.into_iter().all(|(id, address)| state.hosts[id.0].address == address)
    }

    /// Returns the time at which the last byte of a packet leaves, and that at which it reaches the other host's link.
    pub(crate) fn send(&self, from: HostId, to: HostId, len: usize) -> (u64, u64) {
        let mut state = self.lock();
        let one_way = state.one_way(from, to);
        let State { hosts, random, trace, .. } = &mut *state;
        let kept = [from, to].map(|host| 1.0 - hosts[host.0].link.loss.clamp(0.0, MAX_LOSS));
        let lost = 1.0 - kept[0] * kept[1];
        let host = &mut hosts[from.0];
        let bytes = len as u64 + HEADERS;
        let now = schedule::now().unwrap_or_default();
        let (mut takes, mut times) = (one_way, 1);
        while lost > 0.0 && random.random_bool(lost) {
            takes += 2 * one_way + RETRANSMISSION;
            times += 1;
        }
        // What a host without power sends is lost before its link.
        if host.is_up {
            host.traffic.packets += times;
            host.traffic.bytes += times * bytes;
        }
        let leaves = host.up_free.max(now).saturating_add(transmission(times * bytes, host.link.up));
        host.up_free = leaves;
        let arrives = leaves.saturating_add(nanos(takes));
        trace.note(from.0 as u64, arrives ^ bytes);
        (leaves, arrives)
    }

    /// Returns the time at which a packet that has reached a host's link is received.
    pub(crate) fn receive(&self, to: HostId, len: usize) -> u64 {
        let mut state = self.lock();
        let host = &mut state.hosts[to.0];
        let now = schedule::now().unwrap_or_default();
        let received = host.down_free.max(now).saturating_add(transmission(len as u64 + HEADERS, host.link.down));
        host.down_free = received;
        received
    }

    pub(crate) fn listen(&self, host: HostId, port: u16, listener: Listener) -> Option<u16> {
        let mut state = self.lock();
        let port = if port == 0 { state.new_port() } else { port };
        if state.listeners.contains_key(&(host, port)) {
            return None;
        }
        state.listeners.insert((host, port), listener);
        Some(port)
    }

    pub(crate) fn stop_listening(&self, host: HostId, port: u16, of: &Listener) {
        let mut state = self.lock();
        if state.listeners.get(&(host, port)).is_some_and(|listener| listener.is(of)) {
            state.listeners.remove(&(host, port));
        }
    }

    /// Closes all ports of a host.
    pub(crate) fn stop_all_listening(&self, host: HostId) {
        self.lock().listeners.retain(|(of, _), _| *of != host);
    }

    pub(crate) fn new_port(&self) -> u16 {
        self.lock().new_port()
    }

    pub(crate) fn count_dial(&self, host: HostId) {
        self.lock().hosts[host.0].traffic.dials += 1;
    }

    /// Returns what a packet finds that begins a connection to an address.
    pub(crate) fn knock(&self, from: HostId, address: Ipv4Addr, port: u16) -> Knock {
        let state = self.lock();
        let Some(&to) = state.by_address.get(&address) else { return Knock::Silence };
        let host = &state.hosts[to.0];
        let is_hidden = host.link.reach == Reach::Nat && from != to && !state.mapped.contains(&(to, port));
        if is_hidden || !state.reach_each_other(from, to) {
            return Knock::Silence;
        }
        match (state.listeners.get(&(to, port)), host.link.reach) {
            (Some(listener), _) => Knock::Answered(to, listener.clone()),
            (None, Reach::Open) => Knock::Refused,
            (None, Reach::Filtered | Reach::Nat) => Knock::Silence,
        }
    }

    pub(crate) fn register(&self, connection: &Arc<Connection>) {
        let mut state = self.lock();
        if state.connections.len() >= 1024 && state.connections.len().is_power_of_two() {
            state.connections.retain(|connection| connection.strong_count() > 0);
        }
        state.connections.push(Arc::downgrade(connection));
    }

    /// Returns the connections of a host.
    pub(crate) fn connections_of(&self, host: HostId) -> Vec<Arc<Connection>> {
        self.lock().connections_of(host)
    }
}

impl State {
    /// Returns an address that no host has ever had, of 20.0.0.0/8, which is public.
    fn new_address(&mut self) -> Ipv4Addr {
        self.next_address += 1;
        let [_, a, b, c] = self.next_address.to_be_bytes();
        Ipv4Addr::new(20, a, b, c)
    }

    fn is_cut(&self, a: HostId, b: HostId) -> bool {
        self.cut.contains(&pair(a, b)) || self.hosts[a.0].is_stalled || self.hosts[b.0].is_stalled
    }

    fn reach_each_other(&self, a: HostId, b: HostId) -> bool {
        !self.is_cut(a, b) && [a, b].into_iter().all(|host| self.hosts[host.0].is_up)
    }

    fn one_way(&self, from: HostId, to: HostId) -> Duration {
        let delays = self.hosts[from.0].link.delay + self.hosts[to.0].link.delay;
        self.latency.one_way(from.0, to.0, self.seed) + delays
    }

    fn new_port(&mut self) -> u16 {
        self.next_port = self.next_port.wrapping_add(1);
        32_768 + self.next_port % 28_000
    }

    fn connections_of(&self, host: HostId) -> Vec<Arc<Connection>> {
        self.connections
            .iter()
            .filter_map(Weak::upgrade)
            .filter(|connection| connection.hosts().contains(&host))
            .collect()
    }
}

/// Answer to a packet that begins a connection.
pub(crate) enum Knock {
    /// Nothing comes back.
    Silence,
    Refused,
    Answered(HostId, Listener),
}

fn pair(a: HostId, b: HostId) -> (HostId, HostId) {
    (a.min(b), a.max(b))
}

fn transmission(bytes: u64, bits_per_second: Option<u64>) -> u64 {
    match bits_per_second {
        None => 0,
        Some(rate) => (bytes * 8).saturating_mul(1_000_000_000) / rate.max(1),
    }
}

pub(crate) fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

pub(crate) fn multiaddr(address: Ipv4Addr, port: u16) -> Multiaddr {
    Multiaddr::from(address).with(Protocol::Tcp(port))
}

/// Returns the address and the port of a TCP address.
pub(crate) fn parse(address: &Multiaddr) -> Option<(Ipv4Addr, u16)> {
    let mut parts = address.iter();
    match (parts.next()?, parts.next()?, parts.next(), parts.next()) {
        (Protocol::Ip4(address), Protocol::Tcp(port), None | Some(Protocol::P2p(_)), None) => Some((address, port)),
        _ => None,
    }
}
