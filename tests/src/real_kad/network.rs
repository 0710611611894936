//! Simulation of the swarm: dials, connections, and the requests on them.

use std::io;

use libp2p::{
    Multiaddr, PeerId, TransportError,
    core::{ConnectedPoint, Endpoint, transport::PortUse},
    kad::RecordKey,
    swarm::{
        ConnectionClosed, ConnectionId, DialError, DialFailure, FromSwarm, NetworkBehaviour, NotifyHandler,
        behaviour::ConnectionEstablished,
        dial_opts::{DialOpts, PeerCondition},
    },
};

use super::{
    peers::{PeerKind, Peers, Reaction},
    rng::Rng,
    wire::{Connection, FromHandler, Kad, Sent, ToHandler},
};

/// Far above the ids of dials.
const FIRST_INBOUND: usize = 1 << 40;

/// Connections to simulated peers. Nothing happens except in calls; random decisions come from `rng`.
pub(super) struct Network {
    pub(super) peers: Peers,
    pub(super) rng: Rng,
    connections: Vec<Connection>,
    dials: Vec<Dial>,
    /// Requests that will be answered or fail, in any order.
    pending: Vec<Sent>,
    last_inbound: usize,
    pub(super) counts: Counts,
}

/// Statistics of a network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests that kad has sent.
    pub requests: u64,
    /// Requests that were answered.
    pub answers: u64,
    /// Requests whose stream broke.
    pub failures: u64,
    /// Requests that were lost with their connection.
    pub lost: u64,
    /// Requests that were lost with their connection while another connection to the same peer stayed open. kad never
    /// learns of this loss.
    pub unnoticed: u64,
    /// Dials that ended in a connection.
    pub connected: u64,
    /// Dials that failed.
    pub unreachable: u64,
}

impl Counts {
    /// Adds the statistics of another network.
    pub fn sum(self, other: Self) -> Self {
        Self {
            requests: self.requests + other.requests,
            answers: self.answers + other.answers,
            failures: self.failures + other.failures,
            lost: self.lost + other.lost,
            unnoticed: self.unnoticed + other.unnoticed,
            connected: self.connected + other.connected,
            unreachable: self.unreachable + other.unreachable,
        }
    }
}

struct Dial {
    peer: PeerId,
    id: ConnectionId,
    addresses: Vec<Multiaddr>,
}

impl Network {
    pub(super) fn new(local: PeerId, rng: Rng) -> Self {
        Self {
            peers: Peers::new(local),
            rng,
            connections: Vec::new(),
            dials: Vec::new(),
            pending: Vec::new(),
            last_inbound: FIRST_INBOUND,
            counts: Counts::default(),
        }
    }

    // ---- actions of kad

    pub(super) fn dial(&mut self, kad: &mut Kad, opts: &DialOpts) {
        let peer = opts.get_peer_id().expect("kad dials peers");
        let id = opts.connection_id();
        if self.dials.iter().any(|dial| dial.peer == peer) || self.is_connected(peer) {
            // The condition of kad's own dials.
            let error = DialError::DialPeerConditionFalse(PeerCondition::DisconnectedAndNotDialing);
            return fail(kad, peer, id, &error);
        }
        let addresses = kad
            .handle_pending_outbound_connection(id, Some(peer), &[], Endpoint::Dialer)
            .expect("kad denies no connection");
        if addresses.is_empty() {
            return fail(kad, peer, id, &DialError::NoAddresses);
        }
        self.dials.push(Dial { peer, id, addresses });
    }

    /// A message for a closed connection is lost, as in a swarm.
    pub(super) fn notify(&mut self, peer: PeerId, handler: &NotifyHandler, event: ToHandler) {
        let able: Vec<_> = (0..self.connections.len())
            .filter(|place| {
                let connection = &self.connections[*place];
                connection.peer == peer
                    && match handler {
                        NotifyHandler::One(id) => connection.id == *id,
                        NotifyHandler::Any => true,
                    }
            })
            .collect();
        if able.is_empty() {
            return;
        }
        let place = *self.rng.pick(&able);
        let sent = self.connections[place].send(event);
        self.take(sent);
    }

    fn take(&mut self, sent: impl IntoIterator<Item = Sent>) {
        for sent in sent {
            self.counts.requests += 1;
            self.pending.push(sent);
        }
    }

    // ---- events for kad

    /// Ends one of the pending dials. Returns whether there was one that can end.
    pub(super) fn finish_dial(&mut self, kad: &mut Kad) -> bool {
        let able: Vec<_> = (0..self.dials.len())
            .filter(|place| self.peers.kind(self.dials[*place].peer) != PeerKind::NeverConnects)
            .collect();
        if able.is_empty() {
            return false;
        }
        let Dial { peer, id, addresses } = self.dials.swap_remove(*self.rng.pick(&able));
        if self.peers.kind(peer) == PeerKind::Unreachable {
            self.counts.unreachable += 1;
            let refused = || TransportError::Other(io::ErrorKind::ConnectionRefused.into());
            let errors = addresses.into_iter().map(|address| (address, refused())).collect();
            fail(kad, peer, id, &DialError::Transport(errors));
            return true;
        }
        self.counts.connected += 1;
        let address = addresses.into_iter().next().expect("a dial has an address");
        let handler = kad
            .handle_established_outbound_connection(id, peer, &address, Endpoint::Dialer, PortUse::Reuse)
            .expect("kad denies no connection");
        let endpoint = ConnectedPoint::Dialer { address, role_override: Endpoint::Dialer, port_use: PortUse::Reuse };
        self.established(kad, Connection::new(id, peer, endpoint, handler));
        true
    }

    /// Accepts a connection from a peer.
    pub(super) fn accept_connection(&mut self, kad: &mut Kad, peer: PeerId) {
        self.last_inbound += 1;
        let id = ConnectionId::new_unchecked(self.last_inbound);
        let local: Multiaddr = "/memory/999999".parse().expect("the address is valid");
        let remote = self.peers.address(peer).expect("the peer exists");
        let handler =
            kad.handle_established_inbound_connection(id, peer, &local, &remote).expect("kad denies no connection");
        let endpoint = ConnectedPoint::Listener { local_addr: local, send_back_addr: remote };
        self.established(kad, Connection::new(id, peer, endpoint, handler));
    }

    fn established(&mut self, kad: &mut Kad, mut connection: Connection) {
        let (id, peer, endpoint) = (connection.id, connection.peer, connection.endpoint.clone());
        let preloaded = connection.preloaded(kad);
        kad.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
            peer_id: peer,
            connection_id: id,
            endpoint: &endpoint,
            failed_addresses: &[],
            other_established: self.connections.iter().filter(|other| other.peer == peer).count(),
        }));
        self.connections.push(connection);
        self.take(preloaded);
        kad.on_connection_handler_event(peer, id, FromHandler::ProtocolConfirmed { endpoint });
    }

    /// Ends one of the pending requests. Returns whether there was one that can end.
    pub(super) fn finish_request(&mut self, kad: &mut Kad) -> bool {
        while !self.pending.is_empty() {
            let place = self.rng.below(self.pending.len());
            let sent = self.pending.swap_remove(place);
            match self.peers.respond(sent.peer, &sent.request, &mut self.rng) {
                Reaction::Answers(answer) => {
                    self.counts.answers += 1;
                    kad.on_connection_handler_event(sent.peer, sent.connection, answer.to(sent.query));
                }
                Reaction::Breaks => {
                    self.counts.failures += 1;
                    kad.on_connection_handler_event(sent.peer, sent.connection, sent.failure);
                }
                Reaction::HangsUp => {
                    self.counts.lost += 1;
                    self.counts.unnoticed += u64::from(self.connections_of(sent.peer) > 1);
                    self.close(kad, sent.connection);
                }
                Reaction::Nothing => continue,
            }
            return true;
        }
        false
    }

    /// Closes one of the connections with all pending requests on it. Returns whether there was one.
    pub(super) fn close_connection(&mut self, kad: &mut Kad) -> bool {
        if self.connections.is_empty() {
            return false;
        }
        let place = self.rng.below(self.connections.len());
        self.close(kad, self.connections[place].id);
        true
    }

    fn close(&mut self, kad: &mut Kad, id: ConnectionId) {
        let Some(place) = self.connections.iter().position(|connection| connection.id == id) else { return };
        let closed = self.connections.remove(place);
        let remaining = self.connections_of(closed.peer);
        let before = self.pending.len();
        self.pending.retain(|sent| sent.connection != id);
        let lost = (before - self.pending.len()) as u64;
        self.counts.lost += lost;
        self.counts.unnoticed += if remaining > 0 { lost } else { 0 };
        kad.on_swarm_event(FromSwarm::ConnectionClosed(ConnectionClosed {
            peer_id: closed.peer,
            connection_id: id,
            endpoint: &closed.endpoint,
            cause: None,
            remaining_established: remaining,
        }));
    }

    /// Lets a connected peer announce itself as a provider.
    pub(super) fn announce(&mut self, kad: &mut Kad, key: &RecordKey) {
        if !self.connections.is_empty() {
            let place = self.rng.below(self.connections.len());
            let Connection { id, peer, .. } = self.connections[place];
            let provider = libp2p::kad::KadPeer {
                node_id: peer,
                multiaddrs: self.peers.address(peer).into_iter().collect(),
                connection_ty: libp2p::kad::ConnectionType::Connected,
            };
            self.peers.answer_log.providers.insert((key.to_vec(), peer));
            kad.on_connection_handler_event(peer, id, FromHandler::AddProvider { key: key.clone(), provider });
        }
    }

    fn is_connected(&self, peer: PeerId) -> bool {
        self.connections_of(peer) > 0
    }

    fn connections_of(&self, peer: PeerId) -> usize {
        self.connections.iter().filter(|connection| connection.peer == peer).count()
    }
}

fn fail(kad: &mut Kad, peer: PeerId, connection_id: ConnectionId, error: &DialError) {
    kad.on_swarm_event(FromSwarm::DialFailure(DialFailure { peer_id: Some(peer), error, connection_id }));
}
