//! Simulation of a swarm around one kad. kad reads the system clock, but no test takes as long as kad's own timeouts.

use std::{
    collections::BTreeMap,
    num::NonZeroUsize,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use kadence::{Alarm, PeerTimeoutConfig, PeerTimeoutStats, PeerTimeouts};
use kadence_smol::SmolRuntime;
use kadence_tests::{ManualClock, PROTOCOL, Wakes};
use libp2p::{
    Multiaddr, PeerId,
    core::{ConnectedPoint, Endpoint, transport::PortUse},
    kad::{self, ConnectionType, Event, KadPeer, NodeStatus, QueryId, QueryResult, Record, store::MemoryStore},
    swarm::{
        ConnectionClosed, ConnectionId, DialError, DialFailure, FromSwarm, NetworkBehaviour, THandlerInEvent,
        THandlerOutEvent, ToSwarm, behaviour::ConnectionEstablished,
    },
};

type ToHandler = THandlerInEvent<kad::Behaviour<MemoryStore>>;
pub(crate) type FromHandler = THandlerOutEvent<kad::Behaviour<MemoryStore>>;

pub(crate) const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub(crate) struct ManualSwarm {
    pub(crate) kad: PeerTimeouts<MemoryStore>,
    pub(crate) clock: ManualClock<SmolRuntime>,
    pub(crate) wakes: Arc<Wakes>,
    connections: BTreeMap<usize, (PeerId, ConnectedPoint)>,
    last_connection: usize,
    /// Requests that kad has sent: peer and query.
    pub(crate) requests: Vec<(PeerId, QueryId)>,
    pub(crate) announcements: Vec<PeerId>,
    pub(crate) dials: Vec<PeerId>,
    pub(crate) events: Vec<Event>,
    /// Query to finish at its first record, before the next poll, as a driver does.
    pub(crate) finish_at_first_record: Option<QueryId>,
}

impl ManualSwarm {
    pub(crate) fn new() -> Self {
        Self::asking(3)
    }

    /// Creates a kad with this parallelism.
    fn asking(parallelism: usize) -> Self {
        let local = PeerId::random();
        let mut config = kad::Config::new(PROTOCOL);
        config.set_parallelism(NonZeroUsize::new(parallelism).unwrap());
        config.set_periodic_bootstrap_interval(None);
        let kad = kad::Behaviour::with_config(local, MemoryStore::new(local), config);
        let clock = ManualClock::new(SmolRuntime::default());
        Self {
            kad: PeerTimeouts::with_timer(kad, Alarm::new(&clock), PeerTimeoutConfig::default()),
            clock,
            wakes: Arc::default(),
            connections: BTreeMap::new(),
            last_connection: 0,
            requests: Vec::new(),
            announcements: Vec::new(),
            dials: Vec::new(),
            events: Vec::new(),
            finish_at_first_record: None,
        }
    }

    /// Creates a kad with connected peers and the minimum timeout.
    pub(crate) fn fast<const N: usize>() -> (Self, [PeerId; N]) {
        Self::fast_asking(3)
    }

    /// Creates a kad with connected peers, the minimum timeout and this parallelism.
    pub(crate) fn fast_asking<const N: usize>(parallelism: usize) -> (Self, [PeerId; N]) {
        let mut swarm = Self::asking(parallelism);
        let fast_peer = swarm.add_connected_peer();
        while swarm.stats().timeout > ms(100) {
            let query = swarm.kad.kad_mut().get_closest_peers(PeerId::random());
            swarm.poll_until_idle();
            swarm.clock.advance(ms(1));
            swarm.answer(fast_peer, query);
            swarm.poll_until_idle();
        }
        swarm.kad.kad_mut().remove_peer(&fast_peer);
        let peers = std::array::from_fn(|_| swarm.add_connected_peer());
        swarm.clear_log();
        (swarm, peers)
    }

    /// Adds a connected peer to the routing table.
    pub(crate) fn add_connected_peer(&mut self) -> PeerId {
        let peer = self.add_known_peer();
        self.connect(peer);
        peer
    }

    /// Adds a peer to the routing table.
    pub(crate) fn add_known_peer(&mut self) -> PeerId {
        let peer = PeerId::random();
        self.kad.kad_mut().add_address(&peer, address());
        peer
    }

    pub(crate) fn connect(&mut self, peer: PeerId) -> usize {
        self.last_connection += 1;
        let id = ConnectionId::new_unchecked(self.last_connection);
        let handler =
            self.kad.handle_established_outbound_connection(id, peer, &address(), Endpoint::Dialer, PortUse::Reuse);
        drop(handler.unwrap());
        let endpoint =
            ConnectedPoint::Dialer { address: address(), role_override: Endpoint::Dialer, port_use: PortUse::Reuse };
        let other_established = self.connections.values().filter(|(other, _)| *other == peer).count();
        self.kad.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
            peer_id: peer,
            connection_id: id,
            endpoint: &endpoint,
            failed_addresses: &[],
            other_established,
        }));
        let confirmed = FromHandler::ProtocolConfirmed { endpoint: endpoint.clone() };
        self.kad.on_connection_handler_event(peer, id, confirmed);
        self.connections.insert(self.last_connection, (peer, endpoint));
        self.poll_until_idle();
        self.last_connection
    }

    pub(crate) fn disconnect(&mut self, connection: usize) {
        let (peer, endpoint) = self.connections.remove(&connection).unwrap();
        let remaining_established = self.connections.values().filter(|(other, _)| *other == peer).count();
        self.kad.on_swarm_event(FromSwarm::ConnectionClosed(ConnectionClosed {
            peer_id: peer,
            connection_id: ConnectionId::new_unchecked(connection),
            endpoint: &endpoint,
            cause: None,
            remaining_established,
        }));
        self.poll_until_idle();
    }

    pub(crate) fn dial_fails(&mut self, peer: PeerId, error: &DialError) {
        let connection_id = ConnectionId::new_unchecked(usize::MAX);
        self.kad.on_swarm_event(FromSwarm::DialFailure(DialFailure { peer_id: Some(peer), error, connection_id }));
        self.poll_until_idle();
    }

    /// Returns the connected peers and their connections.
    pub(crate) fn connected(&self) -> Vec<(PeerId, usize)> {
        self.connections.iter().map(|(connection, (peer, _))| (*peer, *connection)).collect()
    }

    /// Lets a peer answer without closer peers.
    pub(crate) fn answer(&mut self, peer: PeerId, query_id: QueryId) {
        self.say(peer, FromHandler::FindNodeRes { closer_peers: Vec::new(), query_id });
    }

    /// Lets a peer answer with a closer peer.
    pub(crate) fn answer_naming(&mut self, peer: PeerId, query_id: QueryId, node_id: PeerId) {
        let closer = KadPeer { node_id, multiaddrs: vec![address()], connection_ty: ConnectionType::CanConnect };
        self.say(peer, FromHandler::GetRecordRes { record: None, closer_peers: vec![closer], query_id });
    }

    pub(crate) fn answer_with(&mut self, peer: PeerId, query_id: QueryId, record: Record) {
        let record = Some(record);
        self.say(peer, FromHandler::GetRecordRes { record, closer_peers: Vec::new(), query_id });
    }

    pub(crate) fn acknowledge(&mut self, peer: PeerId, query_id: QueryId, record: &Record) {
        let (key, value) = (record.key.clone(), record.value.clone());
        self.say(peer, FromHandler::PutRecordRes { key, value, query_id });
    }

    fn say(&mut self, peer: PeerId, event: FromHandler) {
        let (connection, _) = self.connections.iter().find(|(_, (other, _))| *other == peer).unwrap();
        self.kad.on_connection_handler_event(peer, ConnectionId::new_unchecked(*connection), event);
        self.poll_until_idle();
    }

    /// Advances the clock, and polls whenever that wakes the task.
    pub(crate) fn advance(&mut self, by: Duration) {
        let mut rest = by;
        while !rest.is_zero() {
            let step = rest.min(ms(5));
            rest -= step;
            if self.clock.advance(step) > 0 {
                self.poll_until_idle();
            }
        }
    }

    /// Polls until there is nothing more to do. Every poll with a result is followed by another one, as in a swarm.
    pub(crate) fn poll_until_idle(&mut self) {
        let waker = Waker::from(Arc::clone(&self.wakes));
        let mut cx = Context::from_waker(&waker);
        while let Poll::Ready(action) = self.kad.poll(&mut cx) {
            match action {
                ToSwarm::NotifyHandler { peer_id, handler: _, event } => match event {
                    ToHandler::FindNodeReq { query_id, .. }
                    | ToHandler::GetProvidersReq { query_id, .. }
                    | ToHandler::GetRecord { query_id, .. }
                    | ToHandler::PutRecord { query_id, .. } => self.requests.push((peer_id, query_id)),
                    ToHandler::AddProvider { .. } => self.announcements.push(peer_id),
                    _ => {}
                },
                ToSwarm::Dial { opts } => self.dials.push(opts.get_peer_id().unwrap()),
                ToSwarm::GenerateEvent(event) => {
                    if let Event::OutboundQueryProgressed { id, result: QueryResult::GetRecord(Ok(_)), .. } = &event
                        && self.finish_at_first_record.take_if(|query| query == id).is_some()
                    {
                        self.kad.kad_mut().query_mut(id).unwrap().finish();
                    }
                    self.events.push(event);
                }
                _ => {}
            }
        }
    }

    /// Clears the recorded requests, announcements, dials and events.
    pub(crate) fn clear_log(&mut self) {
        self.requests.clear();
        self.announcements.clear();
        self.dials.clear();
        self.events.clear();
    }

    pub(crate) fn stats(&self) -> PeerTimeoutStats {
        self.kad.stats().unwrap()
    }

    /// Returns the peers that a query has asked.
    pub(crate) fn asked(&self, query: QueryId) -> Vec<PeerId> {
        self.requests.iter().filter(|(_, other)| *other == query).map(|(peer, _)| *peer).collect()
    }

    /// Returns the end of a query, if it has ended: the result, and the numbers of requests, answers and failures.
    pub(crate) fn end_of(&self, query: QueryId) -> Option<(&QueryResult, [u32; 3])> {
        self.events.iter().find_map(|event| match event {
            Event::OutboundQueryProgressed { id, result, stats, step } if *id == query && step.last => {
                Some((result, [stats.num_requests(), stats.num_successes(), stats.num_failures()]))
            }
            _ => None,
        })
    }

    /// Returns a peer's connection status and addresses in the routing table.
    pub(crate) fn entry(&mut self, peer: PeerId) -> Option<(NodeStatus, Vec<Multiaddr>)> {
        let bucket = self.kad.kad_mut().kbucket(peer)?;
        let entry = bucket.iter().find(|entry| *entry.node.key.preimage() == peer)?;
        Some((entry.status, entry.node.value.iter().cloned().collect()))
    }
}

pub(crate) fn address() -> Multiaddr {
    "/memory/1".parse().unwrap()
}
