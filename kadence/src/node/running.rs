//! The loop of a node: the driver, and what follows from connections: addresses in the routing table, peers that are gone,
//! dials of bootstrap peers.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures::{StreamExt, channel::oneshot};
use libp2p::{
    Multiaddr, PeerId, StreamProtocol, Swarm,
    core::{ConnectedPoint, transport::ListenerId},
    identify, kad, ping,
    swarm::{ConnectionError, ConnectionId, DialError, NetworkBehaviour, SwarmEvent, dial_opts::DialOpts},
};

use super::{
    addresses,
    announcer::Announcer,
    behaviour::{NodeBehaviour, NodeBehaviourEvent, NodeEvent},
    bootstrap::{BootstrapPeers, Step},
    config::KnownPeer,
    departed::{DepartedPeers, Failure, failure_of},
    routing,
    sweeper::Sweeper,
};
use crate::{ContainsKad, Driver, Reachability, Runtime, response::ResponseSender};

/// Maximum number of events per wake-up, so that other tasks of the runtime get their turn.
const EVENTS_PER_WAKE: usize = 100;

/// Time after which the network is measured again although no connection has changed.
const MEASURED_EVERY: Duration = Duration::from_secs(60);

/// State that a node's task shares with its handle.
#[derive(Debug, Default)]
pub(super) struct Status {
    listen_addrs: Mutex<BTreeSet<Multiaddr>>,
    last_dial_error: Mutex<Option<String>>,
}

impl Status {
    pub(super) fn listen_addrs(&self) -> Vec<Multiaddr> {
        self.listen_addrs.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    pub(super) fn last_dial_error(&self) -> Option<String> {
        self.last_dial_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn update_listen_addrs(&self, update: impl FnOnce(&mut BTreeSet<Multiaddr>)) {
        update(&mut self.listen_addrs.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn dial_failed(&self, error: &dyn std::error::Error) {
        *self.last_dial_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(one_line(&error.to_string()));
    }
}

pub(super) struct Running<X: NetworkBehaviour, R: Runtime> {
    pub(super) driver: Driver<NodeBehaviour<X>, R>,
    pub(super) events: ResponseSender<NodeEvent<X>, ()>,
    pub(super) status: Arc<Status>,
    pub(super) protocol: StreamProtocol,
    pub(super) connected: ConnectedPeers,
    pub(super) bootstrap: BootstrapPeers,
    /// Bootstrap peers that are in the routing table although none of them has answered.
    pub(super) untried: Vec<PeerId>,
    pub(super) departed: DepartedPeers,
    /// Peers whose addresses are collected from what other peers say.
    pub(super) watched: HashSet<PeerId>,
    /// Completed at the first peer that speaks the network's protocol.
    pub(super) first_peer: Option<oneshot::Sender<()>>,
    /// Completed when every listener has an address or has failed.
    pub(super) listening: Option<oneshot::Sender<()>>,
    pub(super) listeners: HashSet<ListenerId>,
    /// External addresses that follow from those that the node listens on. `None`: those of the configuration are
    /// announced, or the application confirms them.
    pub(super) announced: Option<Vec<Multiaddr>>,
    /// Time at which the network was last measured.
    pub(super) measured: Instant,
    pub(super) announcer: Announcer,
    pub(super) sweeper: Sweeper,
}

/// Connections, and the peers behind them that belong to the network.
#[derive(Debug, Default)]
pub(super) struct ConnectedPeers {
    endpoints: HashMap<ConnectionId, (PeerId, ConnectedPoint)>,
    /// Peers that have announced that they speak the network's protocol, with their addresses.
    of_network: HashMap<PeerId, Vec<Multiaddr>>,
    /// Time at which one of them was last heard.
    last_heard: Option<Instant>,
}

impl<X, R> Running<X, R>
where
    X: NetworkBehaviour,
    R: Runtime,
{
    /// Runs the node. `Ready` when it has shut down.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.report_listening();
        for _ in 0..EVENTS_PER_WAKE {
            let event = self.driver.poll_next_unpin(cx);
            if self.driver.is_shut_down() {
                return Poll::Ready(());
            }
            let has_dialled = self.take_addresses();
            match event {
                Poll::Ready(Some(event)) => {
                    if !self.take_announcement(&event) {
                        self.handle(&event);
                        self.events.push(event);
                    }
                    continue;
                }
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending => {}
            }
            if has_dialled || self.dial(cx) {
                continue;
            }
            let kad = self.driver.swarm_mut().behaviour_mut().kad();
            if self.announcer.poll(cx, kad) || self.sweeper.poll(cx, kad.store_mut()) {
                continue;
            }
            return Poll::Pending;
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Takes an event of the announcer's queries. Returns whether it was one.
    fn take_announcement(&mut self, event: &NodeEvent<X>) -> bool {
        match event {
            SwarmEvent::Behaviour(NodeBehaviourEvent::Kad(kad::Event::OutboundQueryProgressed {
                id,
                result,
                stats,
                step,
            })) => {
                let store = self.driver.swarm_mut().behaviour_mut().kad().store_mut();
                self.announcer.handle(*id, result, stats, step.last, store)
            }
            _ => false,
        }
    }

    fn handle(&mut self, event: &NodeEvent<X>) {
        match event {
            SwarmEvent::Behaviour(NodeBehaviourEvent::Identify(identify::Event::Received {
                peer_id,
                info,
                connection_id,
            })) => self.identified(*peer_id, *connection_id, info),
            SwarmEvent::Behaviour(NodeBehaviourEvent::Kad(kad::Event::RoutingUpdated { .. })) => self.check_ready(),
            SwarmEvent::Behaviour(NodeBehaviourEvent::Ping(ping::Event { peer, connection, result })) => match result {
                Ok(_round_trip) => self.heard(peer),
                Err(ping::Failure::Unsupported) => {}
                // Without an answer to a ping the connection is dead, and every query over it would wait for its timeout.
                Err(error) => {
                    tracing::debug!(%peer, %error, "closing a dead connection");
                    self.driver.swarm_mut().close_connection(*connection);
                    let addresses = self.connected.of_network.get(peer).cloned().unwrap_or_default();
                    self.suspect(*peer, &addresses, false);
                }
            },
            SwarmEvent::NewListenAddr { listener_id, address } => {
                self.status.update_listen_addrs(|addrs| {
                    addrs.insert(address.clone());
                });
                self.listeners.remove(listener_id);
                self.announce_addresses();
                self.report_listening();
            }
            SwarmEvent::ExpiredListenAddr { listener_id: _, address } => {
                self.status.update_listen_addrs(|addrs| {
                    addrs.remove(address);
                });
                self.announce_addresses();
            }
            SwarmEvent::ListenerClosed { listener_id, addresses, reason: _ } => {
                self.status.update_listen_addrs(|addrs| addrs.retain(|address| !addresses.contains(address)));
                self.listeners.remove(listener_id);
                self.announce_addresses();
                self.report_listening();
            }
            SwarmEvent::ExternalAddrConfirmed { .. } | SwarmEvent::ExternalAddrExpired { .. } => self.push_addresses(),
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.connected.endpoints.insert(*connection_id, (*peer_id, endpoint.clone()));
                self.bootstrap.connected(peer_id);
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, num_established, cause, .. } => {
                self.connected.endpoints.remove(connection_id);
                if *num_established == 0 {
                    self.disconnected(*peer_id, cause.as_ref());
                }
            }
            SwarmEvent::OutgoingConnectionError { peer_id, error, .. } => {
                self.status.dial_failed(error);
                if let Some(peer) = peer_id {
                    self.bootstrap.dial_failed(peer);
                    self.dial_failed(*peer, error);
                }
            }
            _ => {}
        }
    }

    /// Updates the routing table by what a peer says of itself. kad learns of a peer that has dialled this node only in
    /// this way.
    fn identified(&mut self, peer: PeerId, connection: ConnectionId, info: &identify::Info) {
        // The event can come after the end of its connection.
        let Some((_, endpoint)) = self.connected.endpoints.get(&connection) else { return };
        if !info.protocols.contains(&self.protocol) {
            // It has been a server before.
            self.kad().remove_peer(&peer);
            self.leaves_network(peer);
            return;
        }
        let endpoints = self.connected.endpoints.values().filter(|(of, endpoint)| *of == peer && endpoint.is_dialer());
        let dialled: Vec<_> = endpoints.map(|(_, endpoint)| endpoint.get_remote_address().clone()).collect();
        let addresses = addresses::of_peer(&info.listen_addrs, endpoint, &dialled);
        routing::set_addresses(self.kad(), peer, &addresses);
        self.bootstrap.identified(&peer);
        self.departed.is_there(&peer);
        let is_new = self.connected.of_network.insert(peer, addresses).is_none();
        self.heard(&peer);
        if is_new {
            for untried in std::mem::take(&mut self.untried) {
                if !self.driver.swarm().is_connected(&untried) {
                    self.kad().remove_peer(&untried);
                }
            }
            if self.connected.of_network.len() == 1 && self.first_peer.is_none() {
                self.announce_entries();
            }
            self.network_changed();
        }
        self.check_ready();
    }

    /// Notes a sign of life of a peer.
    fn heard(&mut self, peer: &PeerId) {
        if self.connected.of_network.contains_key(peer) {
            let now = self.departed.now();
            self.connected.last_heard = Some(now);
            // Peers that were lost count for a time.
            if now.saturating_duration_since(self.measured) > MEASURED_EVERY {
                self.network_changed();
            }
        }
    }

    fn disconnected(&mut self, peer: PeerId, cause: Option<&ConnectionError>) {
        self.bootstrap.disconnected(&peer);
        match self.leaves_network(peer) {
            // This node has closed the connection if it was idle, or at the application's wish.
            Some(addresses) if matches!(cause, Some(ConnectionError::IO(_))) => self.suspect(peer, &addresses, true),
            Some(_) => {}
            // It was closed before the peer was identified.
            None => self.failed(peer, Failure::Unwelcome, &[]),
        }
    }

    /// Notes that a connected peer is not, or no longer, one of the network. Returns its addresses if it was.
    fn leaves_network(&mut self, peer: PeerId) -> Option<Vec<Multiaddr>> {
        let addresses = self.connected.of_network.remove(&peer)?;
        if self.connected.of_network.is_empty() {
            self.announcer.alone(self.driver.swarm_mut().behaviour_mut().kad().store_mut());
        }
        self.network_changed();
        Some(addresses)
    }

    fn suspect(&mut self, peer: PeerId, addresses: &[Multiaddr], may_be_idle: bool) {
        if !self.bootstrap.contains(&peer) && routing::addresses_of(self.kad(), peer).is_some() {
            self.departed.disconnected(peer, addresses, may_be_idle);
        }
    }

    fn dial_failed(&mut self, peer: PeerId, error: &DialError) {
        match error {
            DialError::Transport(errors) if !self.driver.swarm().is_connected(&peer) => {
                let known = routing::addresses_of(self.kad(), peer).unwrap_or_default();
                if let Some(failure) = failure_of(error, &known) {
                    // kad has removed all but the last of them from the table.
                    let tried: Vec<_> = errors.iter().map(|(address, _)| address.clone()).collect();
                    self.failed(peer, failure, &tried);
                }
            }
            // Another peer lives there.
            DialError::WrongPeerId { obtained: _, address } => {
                self.kad().remove_address(&peer, address);
            }
            DialError::Transport(_)
            | DialError::LocalPeerId { .. }
            | DialError::NoAddresses
            | DialError::DialPeerConditionFalse(_)
            | DialError::Aborted
            | DialError::Denied { .. } => {}
        }
    }

    /// Removes a peer that cannot be reached from the routing table, once that is clear.
    fn failed(&mut self, peer: PeerId, failure: Failure, tried: &[Multiaddr]) {
        let last_heard = self.connected.last_heard;
        let Some(known) = routing::addresses_of(self.kad(), peer) else {
            return;
        };
        let is_bootstrap_peer = self.bootstrap.contains(&peer);
        let tried = [tried, &known].concat();
        let is_departed = self.departed.failed(peer, failure, &tried, is_bootstrap_peer, last_heard);
        // While there is nobody else, a call that asks a bootstrap peer finds it as soon as it is back.
        if is_departed && !(is_bootstrap_peer && self.connected.of_network.is_empty()) {
            tracing::debug!(%peer, "a peer that cannot be reached leaves the routing table");
            let kad = self.driver.swarm_mut().behaviour_mut().kad();
            kad.remove_peer(&peer);
            routing::fill_bucket(kad, peer, &self.connected.of_network);
        }
        self.network_changed();
    }

    /// Completes `first_peer` if a peer speaks the protocol and the routing table is not empty.
    fn check_ready(&mut self) {
        if !self.connected.of_network.is_empty()
            && self.first_peer.is_some()
            && self.kad().kbuckets().any(|bucket| !bucket.is_empty())
            && let Some(first_peer) = self.first_peer.take()
        {
            // An error means that nobody waits.
            let _gone = first_peer.send(());
            self.announce_entries();
        }
    }

    /// Announces the node's own records and providers that no peer of the network may know.
    fn announce_entries(&mut self) {
        self.announcer.begin(self.driver.swarm_mut().behaviour_mut().kad().store_mut());
    }

    fn network_changed(&mut self) {
        let is_alone = self.connected.of_network.is_empty();
        let (peers, size) = routing::network_size(self.kad());
        self.bootstrap.set_network_size((!is_alone).then_some(size));
        let (failing, departed) = self.departed.lost();
        let reachable = peers.saturating_sub(failing);
        self.measured = self.departed.now();
        // An island says "not found" of what only the rest of the network has. A bootstrap peer may be on it.
        let most = if self.bootstrap.any_is_there() { 2 * reachable } else { reachable };
        let is_isolated = failing + departed > most;
        self.driver.set_reachability(if is_isolated { Reachability::Isolated } else { Reachability::Connected });
    }

    /// Takes where other peers say that suspected and departed peers are. kad uses that only within one query, unless it has
    /// given the peer up there. Returns whether there is a dial to start.
    fn take_addresses(&mut self) -> bool {
        let kad = &mut self.driver.swarm_mut().behaviour_mut().kad;
        for (peer, is_wanted) in self.departed.take_wanted() {
            if is_wanted && !self.watched.contains(&peer) {
                if kad.watch_addresses(peer) {
                    self.watched.insert(peer);
                }
            } else if !is_wanted && self.watched.remove(&peer) {
                kad.unwatch_addresses(&peer);
            }
        }
        let mut is_named = false;
        for (peer, addresses) in kad.take_addresses() {
            // Calls look for others.
            if self.watched.contains(&peer) {
                self.departed.named(&peer, addresses);
                is_named = true;
            }
        }
        is_named
    }

    /// Starts the dials that are due. Returns whether there was one.
    fn dial(&mut self, cx: &mut Context<'_>) -> bool {
        let swarm = self.driver.swarm_mut();
        match self.bootstrap.poll(cx) {
            Some(Step::Dial(peer)) => {
                // A dial that does not begin causes no event.
                if !start_dial(swarm, &peer) {
                    self.bootstrap.dial_failed(&peer.id);
                }
                return true;
            }
            Some(Step::Abort(peer)) => {
                // It returns an error unless there is a connection, and ends dials in both cases.
                let _not_dialling = swarm.disconnect_peer_id(peer);
                return true;
            }
            None => {}
        }
        if let Some((peer, is_suspected)) = self.departed.poll(cx) {
            if is_suspected && routing::addresses_of(swarm.behaviour_mut().kad(), peer.id).is_none() {
                // kad or the application has removed it.
                self.departed.forget(&peer.id);
            } else {
                start_dial(swarm, &peer);
            }
            return true;
        }
        false
    }

    /// Announces the addresses that the node listens on as external ones, unless the configuration has others.
    fn announce_addresses(&mut self) {
        let Some(announced) = &mut self.announced else { return };
        let listening = self.status.listen_addrs();
        let addresses = addresses::to_announce(listening.iter());
        if addresses == *announced {
            return;
        }
        let swarm = self.driver.swarm_mut();
        for old in announced.iter().filter(|old| !addresses.contains(old)) {
            swarm.remove_external_address(old);
        }
        for new in addresses.iter().filter(|new| !announced.contains(new)) {
            swarm.add_external_address(new.clone());
        }
        *announced = addresses;
        self.push_addresses();
    }

    /// Sends the external addresses to connected peers: identify does so by itself only if a listen address has changed.
    fn push_addresses(&mut self) {
        let swarm = self.driver.swarm_mut();
        let connected: Vec<_> = swarm.connected_peers().copied().collect();
        swarm.behaviour_mut().identify.push(connected);
    }

    fn kad(&mut self) -> &mut kad::Behaviour<kadence_store::Store> {
        self.driver.swarm_mut().behaviour_mut().kad()
    }

    fn report_listening(&mut self) {
        if self.listeners.is_empty()
            && let Some(listening) = self.listening.take()
        {
            let _gone = listening.send(());
        }
    }
}

/// Joins the lines of an error: libp2p's dial errors have one for each address.
fn one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Adds a peer to the routing table and dials it.
pub(super) fn add_and_dial<X: NetworkBehaviour>(swarm: &mut Swarm<NodeBehaviour<X>>, peer: &KnownPeer) {
    routing::add(swarm.behaviour_mut().kad(), peer);
    start_dial(swarm, peer);
}

/// Dials a peer at these addresses and at those that the behaviours know. Returns whether the peer is being dialled or
/// connected.
fn start_dial<X: NetworkBehaviour>(swarm: &mut Swarm<NodeBehaviour<X>>, peer: &KnownPeer) -> bool {
    // In kad's form, so that none is dialled twice.
    let addresses = peer.addresses.iter().filter_map(|address| address.clone().with_p2p(peer.id).ok()).collect();
    let dial = DialOpts::peer_id(peer.id).addresses(addresses).extend_addresses_through_behaviour().build();
    match swarm.dial(dial) {
        Ok(()) | Err(DialError::DialPeerConditionFalse(_)) => true,
        Err(error) => {
            tracing::debug!(peer = %peer.id, %error, "did not dial");
            false
        }
    }
}
