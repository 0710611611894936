//! Messages between kad and the handler of a connection, without a connection.
//!
//! Both event types are private to kad and reached through the swarm's traits. One event cannot be created: the failure
//! of a request. One cannot be read: the requests that kad gives to a new handler. The real handler provides both: when
//! a stream cannot be opened, it reports the failure of the request that was to be sent. Therefore every request passes
//! through the real handler of its connection, which never gets a stream. The failure that it reports is kept until the
//! peer's reaction is known.

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

/// Behaviour under test.
pub(super) type Kad = kad::Behaviour<MemoryStore>;

/// Events from kad to a handler.
pub(super) type ToHandler = THandlerInEvent<Kad>;

/// Events from a handler to kad.
pub(super) type FromHandler = THandlerOutEvent<Kad>;

/// Established connection with its real handler.
pub(super) struct Connection {
    pub(super) id: ConnectionId,
    pub(super) peer: PeerId,
    pub(super) endpoint: ConnectedPoint,
    handler: THandler<Kad>,
}

/// Request that kad has sent to a peer.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) query: QueryId,
    pub(super) peer: PeerId,
    pub(super) connection: ConnectionId,
    pub(super) request: PeerRequest,
    /// Event that the handler sends if the stream breaks.
    pub(super) failure: FromHandler,
}

/// Content of a request.
#[derive(Debug, Clone)]
pub(super) enum PeerRequest {
    FindNode { target: Vec<u8> },
    GetProviders { key: RecordKey },
    AddProvider { key: RecordKey },
    GetRecord { key: RecordKey },
    PutRecord { record: Record },
}

/// Content of an answer, to any kind of request.
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

    /// Returns the requests that kad gave to the handler when it created it. Requests of queries that have ended are
    /// left out, because kad ignores their answers.
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

    /// Passes an event to the handler. Returns the request, or `None` if the event is not a request.
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
        let (failed, failure) = failures.pop().expect("the handler sends a request immediately");
        assert!(failed == query && failures.is_empty(), "the handler sends exactly this request");
        Some(Sent { query, peer: self.peer, connection: self.id, request, failure })
    }

    /// Lets the handler send all its requests, and fails to open a stream for each of them.
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
                    other => panic!("unexpected event of a handler without a stream: {other:?}"),
                },
                other => panic!("unexpected request of kad's handler: {other:?}"),
            }
        }
        failures
    }
}

impl PeerRequest {
    /// Returns the request that a query sends in its current phase.
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

    /// Returns the target of the lookup.
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
