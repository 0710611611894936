//! What kad and a connection's handler say to each other, without a connection.
//!
//! Both types of events are kad's own and have no public name; they are reached through the swarm's traits. One of
//! them cannot be made by hand, the failure of a request, and one cannot be read, the requests that kad gives to a new
//! handler. The real handler has both: a stream that cannot be opened makes it report the failure of the very request
//! that was to be sent. So every request goes through the handler of its connection, which is never given a stream, and
//! its failure is kept until it is known what the peer makes of the request.

use std::task::{Context, Poll, Waker};

use libp2p::{
    PeerId,
    core::ConnectedPoint,
    kad::{self, AddProviderPhase, KadPeer, PutRecordPhase, QueryId, QueryInfo, Record, RecordKey, store::MemoryStore},
    swarm::{
        ConnectionHandler, ConnectionHandlerEvent, ConnectionId, StreamUpgradeError, THandler, THandlerInEvent,
        THandlerOutEvent,
        handler::{ConnectionEvent, DialUpgradeError},
    },
};

/// The behaviour under test.
pub(super) type Kad = kad::Behaviour<MemoryStore>;

/// What kad tells a handler.
pub(super) type ToHandler = THandlerInEvent<Kad>;

/// What a handler tells kad.
pub(super) type FromHandler = THandlerOutEvent<Kad>;

/// An established connection, with its real handler.
pub(super) struct Connection {
    pub(super) id: ConnectionId,
    pub(super) peer: PeerId,
    pub(super) endpoint: ConnectedPoint,
    handler: THandler<Kad>,
}

/// A request that kad has sent to a peer.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) query: QueryId,
    pub(super) peer: PeerId,
    pub(super) connection: ConnectionId,
    pub(super) request: PeerRequest,
    /// What the handler says if the stream breaks.
    pub(super) failure: FromHandler,
}

/// What a request asks.
#[derive(Debug, Clone)]
pub(super) enum PeerRequest {
    FindNode { target: Vec<u8> },
    GetProviders { key: RecordKey },
    AddProvider { key: RecordKey },
    GetRecord { key: RecordKey },
    PutRecord { record: Record },
}

/// What a peer answers, to whatever request.
#[derive(Debug)]
pub(super) enum Answer {
    Closer(Vec<KadPeer>),
    Providers { closer: Vec<KadPeer>, providers: Vec<KadPeer> },
    Record { record: Option<Record>, closer: Vec<KadPeer> },
    Stored { key: RecordKey, value: Vec<u8> },
}

impl Connection {
    pub(super) fn new(id: ConnectionId, peer: PeerId, endpoint: ConnectedPoint, handler: THandler<Kad>) -> Self {
        Self { id, peer, endpoint, handler }
    }

    /// Takes what kad gave to the handler before it was made known. A request of a query that is over is not among
    /// it: whatever its answer, kad passes it over.
    pub(super) fn preloaded(&mut self, kad: &Kad) -> Vec<Sent> {
        let mut sent = Vec::new();
        for (query, failure) in self.failures() {
            if let Some(info) = kad.query(&query).map(|query| query.info().clone()) {
                let request = PeerRequest::by(&info);
                sent.push(Sent { query, peer: self.peer, connection: self.id, request, failure });
            }
        }
        sent
    }

    /// Takes an event for the handler. `None` if it is not a request.
    pub(super) fn send(&mut self, event: ToHandler) -> Option<Sent> {
        let (query, request) = match &event {
            ToHandler::FindNodeReq { key, query_id } => (*query_id, PeerRequest::FindNode { target: key.clone() }),
            ToHandler::GetProvidersReq { key, query_id } => (*query_id, PeerRequest::GetProviders { key: key.clone() }),
            ToHandler::AddProvider { key, provider: _, query_id } => {
                (*query_id, PeerRequest::AddProvider { key: key.clone() })
            }
            ToHandler::GetRecord { key, query_id } => (*query_id, PeerRequest::GetRecord { key: key.clone() }),
            ToHandler::PutRecord { record, query_id } => (*query_id, PeerRequest::PutRecord { record: record.clone() }),
            ToHandler::Reset(_)
            | ToHandler::ReconfigureMode { .. }
            | ToHandler::FindNodeRes { .. }
            | ToHandler::GetProvidersRes { .. }
            | ToHandler::GetRecordRes { .. }
            | ToHandler::PutRecordRes { .. } => return None,
        };
        self.handler.on_behaviour_event(event);
        let mut failures = self.failures();
        let (failed, failure) = failures.pop().expect("the handler sends a request at once");
        assert!(failed == query && failures.is_empty(), "the handler sends this request and no other");
        Some(Sent { query, peer: self.peer, connection: self.id, request, failure })
    }

    /// Has the handler send all it has, and no stream can be opened.
    fn failures(&mut self) -> Vec<(QueryId, FromHandler)> {
        let mut failures = Vec::new();
        let mut cx = Context::from_waker(Waker::noop());
        while let Poll::Ready(event) = self.handler.poll(&mut cx) {
            match event {
                ConnectionHandlerEvent::OutboundSubstreamRequest { protocol: _ } => {
                    let error = DialUpgradeError { info: (), error: StreamUpgradeError::NegotiationFailed };
                    self.handler.on_connection_event(ConnectionEvent::DialUpgradeError(error));
                }
                ConnectionHandlerEvent::NotifyBehaviour(failure) => match failure {
                    FromHandler::QueryError { query_id, error: _ } => failures.push((query_id, failure)),
                    other => panic!("no stream was ever opened, and the handler says {other:?}"),
                },
                other => panic!("kad's handler does not ask for {other:?}"),
            }
        }
        failures
    }
}

impl PeerRequest {
    /// What a query asks in its present phase.
    fn by(info: &QueryInfo) -> Self {
        match info {
            QueryInfo::Bootstrap { peer, remaining: _, step: _ } => Self::FindNode { target: peer.to_bytes() },
            QueryInfo::GetClosestPeers { key, step: _, num_results: _ } => Self::FindNode { target: key.clone() },
            QueryInfo::GetProviders { key, providers_found: _, step: _ } => Self::GetProviders { key: key.clone() },
            QueryInfo::AddProvider { key, phase, context: _ } => match phase {
                AddProviderPhase::GetClosestPeers => Self::FindNode { target: key.to_vec() },
                AddProviderPhase::AddProvider { .. } => Self::AddProvider { key: key.clone() },
            },
            QueryInfo::PutRecord { record, quorum: _, phase, context: _ } => match phase {
                PutRecordPhase::GetClosestPeers => Self::FindNode { target: record.key.to_vec() },
                PutRecordPhase::PutRecord { success: _, get_closest_peers_stats: _ } => {
                    Self::PutRecord { record: record.clone() }
                }
            },
            QueryInfo::GetRecord { key, step: _, found_a_record: _, cache_candidates: _ } => {
                Self::GetRecord { key: key.clone() }
            }
        }
    }

    /// The bytes that a lookup goes for.
    pub(super) fn target(&self) -> &[u8] {
        match self {
            Self::FindNode { target } => target,
            Self::GetProviders { key } | Self::AddProvider { key } | Self::GetRecord { key } => key.as_ref(),
            Self::PutRecord { record } => record.key.as_ref(),
        }
    }
}

impl Answer {
    pub(super) fn to(self, query_id: QueryId) -> FromHandler {
        match self {
            Self::Closer(closer_peers) => FromHandler::FindNodeRes { closer_peers, query_id },
            Self::Providers { closer, providers } => {
                FromHandler::GetProvidersRes { closer_peers: closer, provider_peers: providers, query_id }
            }
            Self::Record { record, closer } => FromHandler::GetRecordRes { record, closer_peers: closer, query_id },
            Self::Stored { key, value } => FromHandler::PutRecordRes { key, value, query_id },
        }
    }
}
