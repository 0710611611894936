#![doc = include_str!("../README.md")]

mod config;
mod late_records;
mod liveness;
mod pending;
mod progress;
mod request_window;
mod rtt_estimator;
mod timer;
mod uploads;
mod watched;

use std::{
    fmt,
    task::{Context, Poll},
    time::Duration,
};

use web_time::Instant;

use rustc_hash::FxHashMap;

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
    progress::{CountedStream, ResponseProgress},
    timer::{DeadlineTimer, SystemTimer},
};
use self::{
    late_records::{LateRecords, found_nothing},
    pending::PendingRequests,
    progress::Moment,
    request_window::RequestWindow,
    timer::later,
    uploads::{LARGE, Upload, Uploads},
    watched::WatchedPeers,
};

/// Time to live of a record below which it is sent with one second, the shortest that can be sent. kad sends whole seconds,
/// rounded down, and peers take zero for a record that does not expire. The second of margin is for a message that waits
/// for its stream.
const ALMOST_EXPIRED: Duration = Duration::from_secs(2);

/// Time without a byte after which a response that has begun to arrive does not hold back other requests of its query any
/// more: that of two packets on a link of 64 kbit/s which three responses share.
const PAUSE: Duration = Duration::from_secs(1);

/// Messages between kad and its connection handlers. The types have no public name and do not depend on the store.
type ToHandler = THandlerInEvent<kad::Behaviour<MemoryStore>>;
type Action = ToSwarm<kad::Event, ToHandler>;
type FromHandler = THandlerOutEvent<kad::Behaviour<MemoryStore>>;

/// A `kad::Behaviour` that gives up silent peers by measured round-trip times.
///
/// In a lookup, kad waits for a silent peer for 10 seconds by default. A put first does such a lookup. Then it waits
/// for a silent peer until the peer's stream times out, unless its quorum has acknowledged before. If one peer in
/// twenty is silent, most queries that ask all the closest peers take 10 seconds or more. This behaviour wraps kad and
/// times the requests to peers. If a peer takes longer than responses in this network usually take, the behaviour
/// reports to kad, under the conditions below, that a dial of this peer has failed. A lookup then asks another peer,
/// and a put goes on without the peer.
///
/// - The timeout follows the measured round-trip times, as TCP's does: see [`PeerTimeoutConfig`].
/// - An overdue request is given up before the maximum timeout only if every query that waits for its peer has had a
///   response from some peer, and the network counts as alive. (The lookup and the storing of a put count as two
///   queries here, and each lookup of a bootstrap as one.) The network counts as alive if any peer has responded since
///   the request was sent. Otherwise it counts as alive until eight peers that were asked after the last response have
///   been given up. If fewer than eight peers have responded to one of those queries, that number replaces eight. If
///   one of the two conditions is not met, the maximum timeout applies, so that a network that is slow, or gone for a
///   moment, does not turn into "not found".
/// - A request is given up together with all other requests to its peer, even those that were sent later. If the
///   behaviour is polled more than 25 ms after a deadline, the deadline is first extended once, even beyond the maximum
///   timeout, because responses may not have been read yet.
/// - Dials that kad starts while a query waits for responses are timed as well, with a timeout of their own. A dial can
///   be given up before its queries have had a response. For dials, the connection that a timed dial leads to counts as
///   a response, too.
/// - By default, a lookup first asks three connected peers: see
///   [`first_requests`](field@PeerTimeoutConfig::first_requests). It asks the others that kad's parallelism allows as
///   responses arrive, or when responses are later than most. So a read that finds its value at once at a connected
///   peer costs no more requests to connected peers than with kad's default parallelism of three.
/// - Bytes of a response that arrive are a sign of life, if the transport is watched: see
///   [`with_progress`](Self::with_progress). A read that has found nothing ends only when no late response arrives any more.
/// - Values of more than 4 KiB are put to some peers at a time: at first 256 KiB are under way, then as many bytes as the uplink
///   takes within one to two seconds. A request behind such values has their timeout.
/// - A peer that is given up keeps its connections and its place in the routing table, and later queries ask it again.
///   A record that the peer sends late is still delivered while the query runs. Late responses are measured, too, for
///   as long as a request counts as [abandoned](field@PeerTimeoutStats::abandoned), so that the timeout follows a
///   network that has become slow.
/// - Announcements (`ADD_PROVIDER`) have no response and are not timed, except those that wait for a timed dial.
///
/// [`kad`](Self::kad) and [`kad_mut`](Self::kad_mut) return the behaviour inside.
///
/// ```
/// use std::num::NonZeroUsize;
///
/// use libp2p::{PeerId, StreamProtocol, kad};
/// use libp2p_kad_timeouts::{PeerTimeoutConfig, PeerTimeouts};
///
/// let local_peer_id = PeerId::random();
/// let mut config = kad::Config::new(StreamProtocol::new("/my-network/kad/1.0.0"));
/// // With kad's own 3, three silent peers leave nobody who could show that the network is alive.
/// config.set_parallelism(NonZeroUsize::new(10).unwrap());
/// let store = kad::store::MemoryStore::new(local_peer_id);
/// let kad = kad::Behaviour::with_config(local_peer_id, store, config);
///
/// let mut timeouts = PeerTimeouts::new(kad, PeerTimeoutConfig::default());
/// timeouts.kad_mut().set_mode(Some(kad::Mode::Server));
/// assert_eq!(timeouts.stats().unwrap().pending, 0);
/// ```
pub struct PeerTimeouts<S> {
    kad: kad::Behaviour<S>,
    /// `None`: disabled.
    timeouts: Option<Timeouts>,
    watched: WatchedPeers,
}

impl<S: RecordStore + Send + 'static> PeerTimeouts<S> {
    /// Wraps a kad behaviour, which must not have started a query yet. Uses the clock of the system and a timer that works with
    /// every runtime ([`SystemTimer`]).
    pub fn new(kad: kad::Behaviour<S>, config: PeerTimeoutConfig) -> Self {
        Self::with_timer(kad, SystemTimer::default(), config)
    }

    /// Wraps a kad behaviour, which must not have started a query yet. Uses the given clock and timer, such as those of a
    /// runtime, or virtual ones.
    pub fn with_timer(kad: kad::Behaviour<S>, timer: impl DeadlineTimer, config: PeerTimeoutConfig) -> Self {
        let window = (config.first_requests > 0).then(|| RequestWindow::new(config.first_requests));
        let pending = PendingRequests::new(&config, ResponseProgress::default());
        let timeouts = Timeouts {
            pending,
            window,
            uploads: Uploads::default(),
            late: LateRecords::default(),
            transfers: FxHashMap::default(),
            timer: Box::new(timer),
            armed: None,
        };
        Self { kad, timeouts: Some(timeouts), watched: WatchedPeers::default() }
    }

    /// Takes arriving bytes of responses as signs of life: those that are noticed in the swarm's transport, which
    /// [`ResponseProgress::watch`] has returned. Without this, a response is late as long as it is not complete, however large
    /// it is.
    #[must_use]
    pub fn with_progress(mut self, progress: ResponseProgress) -> Self {
        if let Some(timeouts) = &mut self.timeouts {
            timeouts.pending.set_progress(progress);
        }
        self
    }

    /// Wraps a kad behaviour and adds no timeouts: everything is passed on unchanged. So a program that can switch timeouts
    /// off has one type for both cases.
    pub fn disabled(kad: kad::Behaviour<S>) -> Self {
        Self { kad, timeouts: None, watched: WatchedPeers::default() }
    }

    /// Returns the wrapped kad behaviour.
    pub fn kad(&self) -> &kad::Behaviour<S> {
        &self.kad
    }

    /// Returns the wrapped kad behaviour, for example to start queries or to change its settings.
    pub fn kad_mut(&mut self) -> &mut kad::Behaviour<S> {
        &mut self.kad
    }

    /// Returns the wrapped kad behaviour, and drops the timeouts.
    pub fn into_inner(self) -> kad::Behaviour<S> {
        self.kad
    }

    /// Returns the ids of the queries for which a connected peer was given up since the last call, one for each such
    /// peer. If such a query finds nothing, the peer may hold what it looked for. Only the latest 1,024 are kept for a
    /// caller. A peer that could not be dialled in time is not included: it is unreachable.
    pub fn take_incomplete_queries(&mut self) -> impl Iterator<Item = QueryId> + use<S> {
        let incomplete = self.timeouts.as_mut().map(|timeouts| timeouts.pending.take_incomplete());
        incomplete.into_iter().flatten()
    }

    /// Returns whether a query sends a large value, or waits until it may, or bytes of a response to it have arrived within
    /// the last second. (The second counts from the call that noticed the bytes.)
    pub fn is_transferring(&mut self, query: &QueryId) -> bool {
        let Self { kad, timeouts: Some(timeouts), .. } = self else { return false };
        timeouts.late.is_waiting(query) || kad.query(query).is_some() && timeouts.is_transferring(query)
    }

    /// Collects the addresses that responses name for a peer, until [`unwatch_addresses`](Self::unwatch_addresses) was
    /// called as often as this method for the peer. kad uses such addresses for the query alone that the response belongs
    /// to, and only if it has not given the peer up. Returns `false`, and collects nothing, if 1,024 peers are watched.
    pub fn watch_addresses(&mut self, peer: PeerId) -> bool {
        self.watched.insert(peer)
    }

    /// Ends one call of [`watch_addresses`](Self::watch_addresses) that returned `true`.
    pub fn unwatch_addresses(&mut self, peer: &PeerId) {
        self.watched.remove(peer);
    }

    /// Returns the addresses that responses have named for a peer since it is [watched](Self::watch_addresses), the latest
    /// 16, the oldest first. Nothing shows that they are true: a peer can name any address.
    pub fn named_addresses(&self, peer: &PeerId) -> impl Iterator<Item = &Multiaddr> {
        self.watched.addresses(peer)
    }

    /// Returns the addresses that responses have named for [watched](Self::watch_addresses) peers since the last call, at
    /// most 16 for each. Nothing shows that they are true: a peer can name any address.
    pub fn take_addresses(&mut self) -> impl Iterator<Item = (PeerId, Vec<Multiaddr>)> + use<S> {
        self.watched.take().into_iter()
    }

    /// Returns the counters and the current timeouts. `None` if timeouts are [`disabled`](Self::disabled).
    pub fn stats(&self) -> Option<PeerTimeoutStats> {
        self.timeouts.as_ref().map(|timeouts| timeouts.pending.stats())
    }

    /// Reports overdue peers to kad.
    fn give_up_overdue(&mut self) {
        let Self { kad, timeouts: Some(timeouts), .. } = self else { return };
        if let Some(due) = timeouts.pending.next_deadline()
            && let now = timeouts.timer.now()
            && due <= now
        {
            timeouts.pending.set_uplink_busy(timeouts.uploads.is_uplink_busy(now));
            let waiting = kad.iter_queries().filter(|query| query.stats().num_pending() > 0);
            let least = waiting.map(|query| query.stats().num_successes()).min();
            if least.is_none() {
                timeouts.pending.abandon_all();
            }
            let answers_of = |kad: &kad::Behaviour<S>, id: &QueryId| Some(kad.query(id)?.stats().num_successes());
            while let Some(peer) = timeouts.pending.overdue(now, least.unwrap_or(0), |id| answers_of(kad, id)) {
                tracing::debug!(%peer, "peer did not respond in time: its queries continue without it");
                let held = timeouts.uploads.forget(peer);
                timeouts.pending.never_sent(held);
                // A peer without a connection is unreachable, as after any failed dial.
                let before = timeouts.pending.is_connected(&peer).then(|| failures(kad));
                // Among the errors of a dial, this one changes neither the routing table nor an address.
                kad.on_swarm_event(FromSwarm::DialFailure(DialFailure {
                    peer_id: Some(peer),
                    error: &DialError::Aborted,
                    connection_id: ConnectionId::new_unchecked(0),
                }));
                if let Some(before) = before {
                    let after = failures(kad);
                    for (query, _) in before.into_iter().filter(|query| !after.contains(query)) {
                        timeouts.pending.goes_on_without(query);
                    }
                }
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
        if let Some(timeouts) = &mut self.timeouts {
            timeouts.on_swarm_event(&event);
        }
        self.kad.on_swarm_event(event);
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, connection: ConnectionId, event: THandlerOutEvent<Self>) {
        if let Some(timeouts) = &mut self.timeouts {
            timeouts.on_handler_event(peer, &event);
        }
        if !self.watched.is_empty() {
            for named in named_peers(&event) {
                self.watched.named(&named.node_id, &named.multiaddrs);
            }
        }
        self.kad.on_connection_handler_event(peer, connection, event);
        // Released requests are returned by the next `poll`, which the swarm calls after every event.
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<kad::Event, THandlerInEvent<Self>>> {
        loop {
            let Self { kad, timeouts, .. } = &mut *self;
            let Some(timeouts) = timeouts else { return kad.poll(cx).map(keep_from_never) };
            if let Poll::Ready(action) = kad.poll(cx).map(keep_from_never) {
                match timeouts.on_action(action, kad) {
                    Some(action) => return Poll::Ready(action),
                    None => continue,
                }
            }
            if let Some(event) = timeouts.late.pop() {
                return Poll::Ready(ToSwarm::GenerateEvent(event));
            }
            // After kad's events: the response that released this request may end the query.
            if let Some(request) = timeouts.next_released(kad) {
                return Poll::Ready(request);
            }
            // The timer says when to look at the clock. Giving up a peer does not wake the task, so the loop polls kad
            // again.
            if !timeouts.arm(cx) {
                // kad and, if there is a deadline, the timer have registered the waker.
                return Poll::Pending;
            }
            timeouts.release_late();
            self.give_up_overdue();
        }
    }
}

impl<S> fmt::Debug for PeerTimeouts<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stats = self.timeouts.as_ref().map(|timeouts| timeouts.pending.stats());
        f.debug_struct("PeerTimeouts").field("stats", &stats).finish_non_exhaustive()
    }
}

/// State of an enabled [`PeerTimeouts`].
struct Timeouts {
    pending: PendingRequests<QueryId>,
    /// `None`: nothing is held back.
    window: Option<RequestWindow<QueryId, Action>>,
    uploads: Uploads<QueryId, Action>,
    late: LateRecords,
    /// Moments at which bytes of responses to a query were looked for, and seen, last.
    transfers: FxHashMap<QueryId, (Moment, Option<Instant>)>,
    timer: Box<dyn DeadlineTimer>,
    /// Deadline of the timer.
    armed: Option<Instant>,
}

impl Timeouts {
    /// Takes an action of kad, and returns it unless it is held back.
    fn on_action<S: RecordStore + Send + 'static>(
        &mut self,
        action: Action,
        kad: &kad::Behaviour<S>,
    ) -> Option<Action> {
        match &action {
            ToSwarm::NotifyHandler { peer_id, handler: _, event } => {
                let Some(query) = query_of_request(event) else { return Some(action) };
                if let ToHandler::PutRecord { record, query_id: _ } = event
                    && record.value.len() > LARGE
                {
                    let (peer, len) = (*peer_id, record.value.len());
                    let upload = Upload { query, peer, len, request: action, is_wanted: false };
                    self.uploads.push(upload, |query| kad.query(query).is_some());
                    return self.next_upload(kad);
                }
                if let Some(window) = &mut self.window
                    && is_lookup(event)
                    && has_no_result(kad, &query)
                {
                    let due = self.pending.window_deadline(self.timer.now());
                    let action = window.request(query, action, due, self.pending.progress().now())?;
                    return Some(self.send(action));
                }
                return Some(self.send(action));
            }
            ToSwarm::Dial { opts } => {
                // An announcement dials as well; to kad its request counts as answered from the beginning.
                if let Some(peer) = opts.get_peer_id()
                    && has_pending_requests(kad)
                {
                    self.pending.dialled(peer, self.timer.now());
                }
            }
            ToSwarm::GenerateEvent(kad::Event::OutboundQueryProgressed { id, result, stats: _, step }) => {
                // A bootstrap starts its next lookup under the same id.
                if step.last || matches!(result, kad::QueryResult::Bootstrap(_)) {
                    if matches!(result, kad::QueryResult::PutRecord(Ok(_)) | kad::QueryResult::RepublishRecord(Ok(_))) {
                        self.uploads.query_succeeded(id);
                    } else {
                        let held = self.uploads.query_ended(id);
                        self.pending.never_sent(held);
                    }
                    let held = self.window.as_mut().map_or(0, |window| window.end(id));
                    self.pending.never_sent(held);
                }
                if step.last {
                    self.transfers.remove(id);
                    self.pending.query_ended(*id);
                    if !has_pending_requests(kad) {
                        self.pending.abandon_all();
                    }
                }
            }
            _ => {}
        }
        match action {
            ToSwarm::GenerateEvent(event) => self.on_event(event).map(ToSwarm::GenerateEvent),
            action => Some(action),
        }
    }

    /// Takes an event of kad, and returns it unless it ends a read that has found nothing while a response arrives.
    fn on_event(&mut self, event: kad::Event) -> Option<kad::Event> {
        let Some(query) = found_nothing(&event) else { return Some(event) };
        let arriving = self.pending.arriving(&query);
        if arriving.is_empty() {
            return Some(event);
        }
        self.late.wait(query, event, arriving, self.timer.now())
    }

    /// Returns the next request that was held back and is to be sent now.
    fn next_released<S: RecordStore + Send + 'static>(&mut self, kad: &kad::Behaviour<S>) -> Option<Action> {
        while let Some(action) = self.window.as_mut().and_then(RequestWindow::pop) {
            // If the connection has closed meanwhile, kad knows that and does not wait for a response.
            if let ToSwarm::NotifyHandler { peer_id, .. } = &action
                && self.pending.is_connected(peer_id)
            {
                return Some(self.send(action));
            }
        }
        self.next_upload(kad)
    }

    /// Returns the next put of a large value that is to be sent now.
    fn next_upload<S: RecordStore + Send + 'static>(&mut self, kad: &kad::Behaviour<S>) -> Option<Action> {
        let Self { pending, uploads, timer, .. } = self;
        // Every poll gets here, and most have nothing to send: they need no clock.
        if !uploads.are_held() {
            return None;
        }
        let now = timer.now();
        let upload = uploads.pop(now, |peer| pending.is_connected(peer), |query| kad.query(query).is_some())?;
        pending.uploaded(upload.peer, upload.query, now);
        // It may have been held back until its record is about to expire.
        Some(keep_from_never(upload.request))
    }

    fn is_transferring(&mut self, query: &QueryId) -> bool {
        let now = self.timer.now();
        if self.uploads.has(query, now) {
            return true;
        }
        let nothing_yet = || (self.pending.progress().now(), None);
        let (seen, last) = self.transfers.entry(*query).or_insert_with(nothing_yet);
        if self.pending.has_moved(query, seen) {
            *last = Some(now);
        }
        last.is_some_and(|last| now.saturating_duration_since(last) < PAUSE)
    }

    /// Releases held requests of queries whose first responses are later than most, and ends of queries whose late responses
    /// do not arrive.
    fn release_late(&mut self) {
        let Self { pending, window, late, timer, .. } = self;
        let now = timer.now();
        late.handle_timeout(now, pending.progress());
        let Some(window) = window else { return };
        window.handle_timeout(now, later(now, PAUSE), |query, seen, first_due| {
            pending.holds_back(query, seen, first_due, now)
        });
    }

    /// Notes that a request is handed to the swarm.
    fn send(&mut self, action: Action) -> Action {
        if let ToSwarm::NotifyHandler { peer_id, handler: _, event } = &action
            && let Some(query) = query_of_request(event)
        {
            self.pending.sent(*peer_id, query, self.timer.now());
        }
        action
    }

    fn on_handler_event(&mut self, peer: PeerId, event: &FromHandler) {
        match event {
            FromHandler::FindNodeRes { closer_peers: _, query_id }
            | FromHandler::GetProvidersRes { closer_peers: _, provider_peers: _, query_id }
            | FromHandler::GetRecordRes { record: _, closer_peers: _, query_id }
            | FromHandler::PutRecordRes { key: _, value: _, query_id } => {
                let now = self.timer.now();
                self.pending.answered(peer, *query_id, now);
                self.uploads.answered(*query_id, peer, now);
                let record = match event {
                    FromHandler::GetRecordRes { record, .. } => record.as_ref(),
                    _ => None,
                };
                self.late.responded(*query_id, peer, record);
                self.on_response(query_id);
            }
            FromHandler::QueryError { error: _, query_id } => {
                self.pending.failed(peer, *query_id);
                self.uploads.end(*query_id, peer);
                self.late.responded(*query_id, peer, None);
                self.on_response(query_id);
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

    /// Releases a few held requests after a response or a failure.
    fn on_response(&mut self, query: &QueryId) {
        if let Some(window) = &mut self.window {
            window.on_response(query);
        }
    }

    /// Removes requests on exactly those events after which kad no longer waits for the peer.
    fn on_swarm_event(&mut self, event: &FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished { peer_id, .. }) => {
                self.pending.connected(*peer_id, self.timer.now());
            }
            FromSwarm::ConnectionClosed(ConnectionClosed { peer_id, remaining_established: 0, .. }) => {
                // A late response that will not come ends its query at the next deadline.
                self.pending.disconnected(*peer_id);
                let held = self.uploads.forget(*peer_id);
                self.pending.never_sent(held);
            }
            FromSwarm::DialFailure(DialFailure { peer_id: Some(peer), error, connection_id: _ })
                if !matches!(error, DialError::DialPeerConditionFalse(_)) =>
            {
                self.pending.dial_failed(*peer);
            }
            _ => {}
        }
    }

    /// Sets the timer to the next deadline, or stops it without one. Returns whether it has elapsed.
    ///
    /// Deadlines mostly move later, as requests are answered before theirs. The timer is then left alone, and set again
    /// when it has elapsed.
    fn arm(&mut self, cx: &mut Context<'_>) -> bool {
        let held = self.window.as_ref().and_then(RequestWindow::next_deadline);
        let deadlines = [self.pending.next_deadline(), held, self.late.next_deadline(), self.uploads.next_deadline()];
        let Some(due) = deadlines.into_iter().flatten().min() else {
            if self.armed.take().is_some() {
                self.timer.stop();
                // Some timers cancel their wake-up only when they are polled.
                let _pending = self.timer.poll_elapsed(cx);
            }
            return false;
        };
        if self.armed.is_none_or(|armed| due < armed) {
            self.timer.set(due);
            self.armed = Some(due);
        }
        let elapsed = self.timer.poll_elapsed(cx).is_ready();
        if elapsed {
            self.armed = None;
        }
        elapsed
    }
}

/// Returns the peers that a response names.
fn named_peers(event: &FromHandler) -> impl Iterator<Item = &kad::KadPeer> {
    let (closer, providers): (&[_], &[_]) = match event {
        FromHandler::FindNodeRes { closer_peers, query_id: _ }
        | FromHandler::GetRecordRes { record: _, closer_peers, query_id: _ } => (closer_peers, &[]),
        FromHandler::GetProvidersRes { closer_peers, provider_peers, query_id: _ } => (closer_peers, provider_peers),
        _ => (&[], &[]),
    };
    closer.iter().chain(providers)
}

/// Gives a record that is about to expire one second: kad sends that of an expired one.
fn keep_from_never(mut action: Action) -> Action {
    if let ToSwarm::NotifyHandler { peer_id: _, handler: _, event: ToHandler::PutRecord { record, query_id: _ } } =
        &mut action
        && let Some(expires) = record.expires
        // Records have the clock of the system.
        && let now = Instant::now()
        && expires.saturating_duration_since(now) < ALMOST_EXPIRED
    {
        record.expires = Some(now);
    }
    action
}

/// Returns the number of failures of every query that has not finished.
fn failures<S: RecordStore + Send + 'static>(kad: &kad::Behaviour<S>) -> Vec<(QueryId, u32)> {
    kad.iter_queries().map(|query| (query.id(), query.stats().num_failures())).collect()
}

fn has_pending_requests<S: RecordStore + Send + 'static>(kad: &kad::Behaviour<S>) -> bool {
    kad.iter_queries().any(|query| query.stats().num_pending() > 0)
}

/// Returns whether no peer that a query has asked has responded or failed.
fn has_no_result<S: RecordStore + Send + 'static>(kad: &kad::Behaviour<S>, query: &QueryId) -> bool {
    kad.query(query).is_some_and(|query| query.stats().num_successes() + query.stats().num_failures() == 0)
}

/// Returns whether a request belongs to a lookup, which ends once enough was found. All requests of a put have to be
/// sent.
fn is_lookup(event: &ToHandler) -> bool {
    matches!(event, ToHandler::FindNodeReq { .. } | ToHandler::GetProvidersReq { .. } | ToHandler::GetRecord { .. })
}

/// Returns the query of a request that has a response.
fn query_of_request(event: &ToHandler) -> Option<QueryId> {
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
