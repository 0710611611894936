//! A libp2p `kad::Behaviour` that keeps silent and slow peers from delaying queries.

mod config;
mod hold;
mod pace;
mod round_trip;
mod timer;
mod waits;

use std::{
    fmt,
    task::{Context, Poll},
    time::Instant,
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    kad::{
        self, QueryId,
        store::{MemoryStore, RecordStore},
    },
    swarm::{
        ConnectionClosed, ConnectionDenied, ConnectionId, DialError, DialFailure, FromSwarm, NetworkBehaviour,
        THandler, THandlerInEvent, THandlerOutEvent, ToSwarm, behaviour::ConnectionEstablished,
    },
};

pub use self::{
    config::{AdaptiveTimeout, PeerTimeoutConfig, PeerTimeoutStats},
    timer::{SystemTimer, Timer},
};
use self::{hold::Hold, waits::Waits};

/// What kad and the handlers of its connections say to each other. The types have no public name and do not depend on
/// the store.
type ToHandler = THandlerInEvent<kad::Behaviour<MemoryStore>>;
type Action = ToSwarm<kad::Event, ToHandler>;
type FromHandler = THandlerOutEvent<kad::Behaviour<MemoryStore>>;

/// A `kad::Behaviour` that does not wait 10 seconds for each silent peer.
///
/// In a lookup kad gives every peer 10 seconds, which cannot be configured, and a put waits for a silent peer until the
/// peer's stream times out. One peer in twenty that accepts requests and answers none is enough for nearly every query
/// to take that long. This behaviour stands in the place of kad, passes everything through, and sees each request as
/// it leaves and each answer as it comes. A peer that takes longer than answers from this network are seen to take, is
/// reported to kad as failed, as if its dial had, and kad goes on to the next one.
///
/// - How long that is follows the measured round trips, as TCP's timeout does: see [`PeerTimeoutConfig`].
/// - While nobody at all answers, or nobody has answered the query, it is the longest patience: a network that is slow, or
///   gone for a moment, does not turn into "not found". Only few peers in a row are given up before that.
/// - A dial is waited for as well, with a patience of its own.
/// - A query asks three peers first, and the others that kad's parallelism allows as answers come, or once one is later than
///   most: so a read that finds its value at once costs no more than it does with kad's own parallelism.
/// - A peer that is given up is given up in the queries that wait for it at that moment. It stays connected and in the
///   routing table, later queries ask it again, and a record that it sends late is still delivered while its query runs.
///   Late answers also count for the estimate, so that a network that has become slow is waited for.
/// - Announcements (`ADD_PROVIDER`) have no answer, and nothing waits for one.
///
/// [`kad`](Self::kad) and [`kad_mut`](Self::kad_mut) return the behaviour inside. In a swarm of your own:
///
/// ```
/// use libp2p::{PeerId, StreamProtocol, kad, swarm::NetworkBehaviour};
/// use libp2p_kad_timeouts::{PeerTimeoutConfig, PeerTimeouts};
///
/// fn behaviour(local_peer_id: PeerId) -> PeerTimeouts<kad::store::MemoryStore> {
///     let mut config = kad::Config::new(StreamProtocol::new("/my-network/kad/1.0.0"));
///     // With kad's own 3, three silent peers in a row leave nobody who could show that the network is alive.
///     config.set_parallelism(std::num::NonZeroUsize::MIN.saturating_add(9));
///     let store = kad::store::MemoryStore::new(local_peer_id);
///     let kad = kad::Behaviour::with_config(local_peer_id, store, config);
///     PeerTimeouts::new(kad, PeerTimeoutConfig::default())
/// }
/// ```
pub struct PeerTimeouts<S> {
    kad: kad::Behaviour<S>,
    /// `None`: kad is on its own.
    watch: Option<Watch>,
}

impl<S: RecordStore + Send + 'static> PeerTimeouts<S> {
    /// Wraps a kad behaviour, before its first query, with the system's clock and timer.
    pub fn new(kad: kad::Behaviour<S>, config: PeerTimeoutConfig) -> Self {
        Self::with_timer(kad, SystemTimer::default(), config)
    }

    /// Wraps a kad behaviour, before its first query, with another clock and timer: those of a runtime, or virtual ones.
    pub fn with_timer(kad: kad::Behaviour<S>, timer: impl Timer, config: PeerTimeoutConfig) -> Self {
        let alarm = Box::new(timer);
        let hold = (config.first_requests > 0).then(|| Hold::new(config.first_requests));
        Self { kad, watch: Some(Watch { waits: Waits::new(&config), hold, alarm, armed: None }) }
    }

    /// kad as it is, with its 10 seconds, where the type has to be the same.
    pub fn disabled(kad: kad::Behaviour<S>) -> Self {
        Self { kad, watch: None }
    }

    /// Returns the wrapped behaviour.
    pub fn kad(&self) -> &kad::Behaviour<S> {
        &self.kad
    }

    /// Returns the wrapped behaviour, to start and finish queries or change its settings.
    pub fn kad_mut(&mut self) -> &mut kad::Behaviour<S> {
        &mut self.kad
    }

    /// Unwraps the behaviour.
    pub fn into_inner(self) -> kad::Behaviour<S> {
        self.kad
    }

    /// What was done, and what is waited for. `None` if it is [`disabled`](Self::disabled).
    pub fn stats(&self) -> Option<PeerTimeoutStats> {
        self.watch.as_ref().map(|watch| watch.waits.stats())
    }

    /// Reports to kad the peers whose time is up.
    fn give_up_overdue(&mut self) {
        let Self { kad, watch: Some(watch) } = self else { return };
        if let Some(due) = watch.waits.next_deadline()
            && let now = watch.alarm.now()
            && due <= now
        {
            let waiting = kad.iter_queries().filter(|query| query.stats().num_pending() > 0);
            let least = waiting.map(|query| query.stats().num_successes()).min();
            if least.is_none() {
                watch.waits.nobody_waits();
            }
            let answers_of = |kad: &kad::Behaviour<S>, id: &QueryId| Some(kad.query(id)?.stats().num_successes());
            while let Some(peer) = watch.waits.overdue(now, least.unwrap_or(0), |id| answers_of(kad, id)) {
                tracing::debug!(%peer, "a peer does not answer, its queries go on without it");
                // Of all reports of a failed dial, this one touches neither the routing table nor an address.
                kad.on_swarm_event(FromSwarm::DialFailure(DialFailure {
                    peer_id: Some(peer),
                    error: &DialError::Aborted,
                    connection_id: ConnectionId::new_unchecked(0),
                }));
            }
        }
    }
}

impl<S: RecordStore + Send + 'static> NetworkBehaviour for PeerTimeouts<S> {
    type ConnectionHandler = THandler<kad::Behaviour<S>>;
    type ToSwarm = kad::Event;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        local_addr: &Multiaddr,
        remote_addr: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.kad.handle_pending_inbound_connection(connection, local_addr, remote_addr)
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local_addr: &Multiaddr,
        remote_addr: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.kad.handle_established_inbound_connection(connection, peer, local_addr, remote_addr)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        self.kad.handle_pending_outbound_connection(connection, peer, addresses, role)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        addr: &Multiaddr,
        role: Endpoint,
        port_use: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.kad.handle_established_outbound_connection(connection, peer, addr, role, port_use)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        if let Some(watch) = &mut self.watch {
            watch.swarm_event(&event);
        }
        self.kad.on_swarm_event(event);
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, connection: ConnectionId, event: THandlerOutEvent<Self>) {
        if let Some(watch) = &mut self.watch {
            watch.handler_event(peer, &event);
        }
        self.kad.on_connection_handler_event(peer, connection, event);
        // What this releases goes when the swarm polls next, as it does after every event.
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<kad::Event, THandlerInEvent<Self>>> {
        loop {
            let Self { kad, watch } = &mut *self;
            let Some(watch) = watch else { return kad.poll(cx) };
            if let Poll::Ready(action) = kad.poll(cx) {
                match watch.action(action, kad) {
                    Some(action) => return Poll::Ready(action),
                    None => continue,
                }
            }
            // Once whoever reads kad's events has seen the answer that released it: it may be all that was wanted.
            if let Some(request) = watch.next_released() {
                return Poll::Ready(request);
            }
            // The timer says when to look at the clock. What is done to kad then wakes nobody: it is polled again before we
            // sleep.
            if !watch.arm(cx) {
                // kad and, if anybody is waited for, the timer have registered our waker.
                return Poll::Pending;
            }
            watch.release_late();
            self.give_up_overdue();
        }
    }
}

impl<S> fmt::Debug for PeerTimeouts<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stats = self.watch.as_ref().map(|watch| watch.waits.stats());
        f.debug_struct("PeerTimeouts").field("stats", &stats).finish_non_exhaustive()
    }
}

/// What is seen of kad, and the timer.
struct Watch {
    waits: Waits<QueryId>,
    /// `None`: nothing is held back.
    hold: Option<Hold<QueryId, Action>>,
    alarm: Box<dyn Timer>,
    /// When the timer wakes us.
    armed: Option<Instant>,
}

impl Watch {
    /// kad wants something of the swarm, which comes back if it is to happen now.
    fn action<S: RecordStore + Send + 'static>(&mut self, action: Action, kad: &kad::Behaviour<S>) -> Option<Action> {
        match &action {
            ToSwarm::NotifyHandler { peer_id: _, handler: _, event } => {
                let Some(query) = awaits_an_answer(event) else { return Some(action) };
                if let Some(hold) = &mut self.hold
                    && looks_for_something(event)
                    && has_no_sign(kad, &query)
                {
                    let due = self.waits.late(self.alarm.now());
                    let action = hold.request(query, action, due)?;
                    return Some(self.goes(action));
                }
                return Some(self.goes(action));
            }
            ToSwarm::Dial { opts } => {
                // An announcement dials as well; its request counts as answered from the beginning.
                if let Some(peer) = opts.get_peer_id()
                    && waits_for_anybody(kad)
                {
                    self.waits.dialled(peer, self.alarm.now());
                }
            }
            ToSwarm::GenerateEvent(kad::Event::OutboundQueryProgressed { id, result, stats: _, step }) => {
                // The next lookup of a bootstrap begins anew, under the same id.
                if step.last || matches!(result, kad::QueryResult::Bootstrap(_)) {
                    self.waits.spared(self.hold.as_mut().map_or(0, |hold| hold.end(id)));
                }
                if step.last {
                    self.waits.query_ended(*id);
                    if !waits_for_anybody(kad) {
                        self.waits.nobody_waits();
                    }
                }
            }
            _ => {}
        }
        Some(action)
    }

    /// The next request that was held back and goes now.
    fn next_released(&mut self) -> Option<Action> {
        loop {
            let action = self.hold.as_mut()?.pop()?;
            // If the connection has closed meanwhile, kad was told and waits for nothing.
            if let ToSwarm::NotifyHandler { peer_id, .. } = &action
                && self.waits.is_connected(peer_id)
            {
                return Some(self.goes(action));
            }
        }
    }

    /// Lets requests go whose query's first ones are not answered as soon as most are.
    fn release_late(&mut self) {
        if let Some(hold) = &mut self.hold {
            hold.handle_timeout(self.alarm.now());
        }
    }

    /// A request is handed to the swarm.
    fn goes(&mut self, action: Action) -> Action {
        if let ToSwarm::NotifyHandler { peer_id, handler: _, event } = &action
            && let Some(query) = awaits_an_answer(event)
        {
            self.waits.sent(*peer_id, query, self.alarm.now());
        }
        action
    }

    /// A peer has said something.
    fn handler_event(&mut self, peer: PeerId, event: &FromHandler) {
        match event {
            FromHandler::FindNodeRes { closer_peers: _, query_id }
            | FromHandler::GetProvidersRes { closer_peers: _, provider_peers: _, query_id }
            | FromHandler::GetRecordRes { record: _, closer_peers: _, query_id }
            | FromHandler::PutRecordRes { key: _, value: _, query_id } => {
                self.waits.answered(peer, *query_id, self.alarm.now());
                self.sign(query_id);
            }
            FromHandler::QueryError { error: _, query_id } => {
                self.waits.failed(peer, *query_id);
                self.sign(query_id);
            }
            FromHandler::ProtocolConfirmed { .. }
            | FromHandler::ProtocolNotSupported { .. }
            | FromHandler::FindNodeReq { .. }
            | FromHandler::GetProvidersReq { .. }
            | FromHandler::AddProvider { .. }
            | FromHandler::GetRecord { .. }
            | FromHandler::PutRecord { .. } => {}
        }
    }

    /// A query has heard of a peer.
    fn sign(&mut self, query: &QueryId) {
        if let Some(hold) = &mut self.hold {
            hold.sign(query);
        }
    }

    /// What makes kad go on without a peer ends our waiting for it, and nothing else does.
    fn swarm_event(&mut self, event: &FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished { peer_id, .. }) => {
                self.waits.connected(*peer_id, self.alarm.now());
            }
            FromSwarm::ConnectionClosed(ConnectionClosed { peer_id, remaining_established: 0, .. }) => {
                self.waits.disconnected(*peer_id);
            }
            FromSwarm::DialFailure(DialFailure { peer_id: Some(peer), error, connection_id: _ })
                if !matches!(error, DialError::DialPeerConditionFalse(_)) =>
            {
                self.waits.dial_failed(*peer);
            }
            _ => {}
        }
    }

    /// Sees to it that the timer wakes us at the next deadline, or that there is none. Deadlines mostly move later, as
    /// requests are answered before theirs: the timer is then left as it is, and set again when it has elapsed.
    fn arm(&mut self, cx: &mut Context<'_>) -> bool {
        let held = self.hold.as_ref().and_then(Hold::next_deadline);
        let Some(due) = self.waits.next_deadline().into_iter().chain(held).min() else {
            if self.armed.take().is_some() {
                self.alarm.stop();
            }
            return false;
        };
        if self.armed.is_none_or(|armed| due < armed) {
            self.alarm.set(due);
            self.armed = Some(due);
        }
        let elapsed = self.alarm.poll_elapsed(cx).is_ready();
        if elapsed {
            self.armed = None;
        }
        elapsed
    }
}

fn waits_for_anybody<S: RecordStore + Send + 'static>(kad: &kad::Behaviour<S>) -> bool {
    kad.iter_queries().any(|query| query.stats().num_pending() > 0)
}

/// Whether nobody whom a query has asked has answered or failed.
fn has_no_sign<S: RecordStore + Send + 'static>(kad: &kad::Behaviour<S>, query: &QueryId) -> bool {
    kad.query(query).is_some_and(|query| query.stats().num_successes() + query.stats().num_failures() == 0)
}

/// Whether a request is one of a lookup, which ends when enough was found. Those of a put all have to go.
fn looks_for_something(event: &ToHandler) -> bool {
    matches!(event, ToHandler::FindNodeReq { .. } | ToHandler::GetProvidersReq { .. } | ToHandler::GetRecord { .. })
}

/// The query of a request that will be answered.
fn awaits_an_answer(event: &ToHandler) -> Option<QueryId> {
    match event {
        ToHandler::FindNodeReq { key: _, query_id }
        | ToHandler::GetProvidersReq { key: _, query_id }
        | ToHandler::GetRecord { key: _, query_id }
        | ToHandler::PutRecord { record: _, query_id } => Some(*query_id),
        ToHandler::AddProvider { .. }
        | ToHandler::Reset(_)
        | ToHandler::ReconfigureMode { .. }
        | ToHandler::FindNodeRes { .. }
        | ToHandler::GetProvidersRes { .. }
        | ToHandler::GetRecordRes { .. }
        | ToHandler::PutRecordRes { .. } => None,
    }
}
