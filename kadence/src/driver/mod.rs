pub(crate) mod config;
pub(crate) mod inbox;
pub(crate) mod swarm_handle;
pub(crate) mod task;

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use web_time::Instant;

use futures::{Stream, channel::oneshot, stream::FusedStream};
use kadence_core::{
    Action, Command, CommandError, Item, LOCAL_PEERS, Network, Operation, Outcome, Progress, Query, QueryEvent,
    QueryStartError, QueryTracker, Reachability, RecordingError, Request, RequestId, Started,
};
use libp2p::{
    Multiaddr, PeerId, Swarm,
    kad::{self, KBucketKey, QueryId, Quorum, Record, RecordKey, store::RecordStore},
    swarm::SwarmEvent,
};
use rustc_hash::FxHashMap;

pub use self::swarm_handle::SwarmHandle;
use self::{inbox::Inbox, swarm_handle::Closure};
use crate::{
    Client, Clock, ContainsKad, DriverConfig, Recording, RemoveRecordError, Runtime,
    alarm::Alarm,
    client::{
        connection::{CallEnd, Introspection, LocatedPeer, Message},
        polls::Polls,
    },
    response::ResponseSender,
    sync::channel,
};

/// Maximum number of turns of the loop for each wake-up. After these, the driver yields to other tasks of the runtime.
/// A turn handles one event of the swarm; a hundred turns take a fraction of a millisecond.
const TURNS_PER_WAKE: usize = 100;

/// Maximum number of messages of each kind that one turn receives, so that a flood of calls does not delay the swarm.
/// Queries of further calls would have to wait for a slot anyway.
pub(crate) const MESSAGES_PER_TURN: usize = 64;

/// Time for which a graceful shutdown keeps polling the swarm after the last announcement ended. kad reports an
/// announcement as done when the messages are with the connections, which still have to open a stream for each.
const ANNOUNCEMENT_LINGER: Duration = Duration::from_secs(1);

/// Time to live of a record below which it is sent with one second, the shortest that can be sent.
const ALMOST_EXPIRED: Duration = Duration::from_secs(2);

/// Longest time from the start of a put until its last peer is sent the record: up to 20 peers, ten or fewer at a time, each
/// of which has to be dialled first, for 10 s at most.
const LONGEST_SEND: Duration = Duration::from_secs(30);

/// Wrapper of a libp2p `Swarm` that carries out the calls of its [`Client`]s while it is polled.
///
/// A driver is a stream of swarm events, as a `Swarm` is. It consumes the progress events of the kad queries that it
/// has started itself, and yields all other events unchanged. Of the queries that kad did not end within
/// [`TrackerConfig::finish_timeout`](kadence_core::TrackerConfig::finish_timeout), the driver recognises only the last
/// 1,024, and it yields late events of earlier ones. In a program with an event loop, `driver.select_next_some()`
/// replaces `swarm.select_next_some()`. A program without an event loop uses [`spawn`](crate::spawn). The stream never
/// ends, not even after a shutdown.
///
/// The driver has to be polled all the time: otherwise neither the swarm nor a call makes progress. Do not await a call in the
/// turn of the loop that polls the driver: at its deadline it ends with
/// [`RequestError::NotPolled`](kadence_core::RequestError::NotPolled). Dropping the driver ends every pending and later call with
/// [`RequestError::Shutdown`](kadence_core::RequestError::Shutdown).
///
/// ```
/// use futures::StreamExt;
/// use kadence::{ContainsKad, Driver, DriverConfig, Runtime, libp2p::{Swarm, swarm::SwarmEvent}};
///
/// async fn event_loop<B: ContainsKad>(swarm: Swarm<B>, runtime: impl Runtime) {
///     let (client, _swarm_handle, mut driver) = Driver::new(swarm, runtime, DriverConfig::default());
///     let mut greeting = client.get_record("greeting").into_future();
///     loop {
///         futures::select! {
///             event = driver.select_next_some() => {
///                 if let SwarmEvent::ConnectionEstablished { peer_id, .. } = event {
///                     println!("connected to {peer_id}");
///                 }
///             }
///             result = greeting => return println!("{result:?}"),
///         }
///     }
/// }
/// ```
pub struct Driver<B: ContainsKad, R: Runtime> {
    swarm: Swarm<B>,
    runtime: R,
    tracker: QueryTracker,
    calls: FxHashMap<RequestId, LiveCall>,
    /// Queries to finish again after every poll of the swarm that returned no event: kad forgets the order when a query
    /// enters its next phase. At most as many as there are slots.
    finishing: Vec<QueryId>,
    /// Queries whose progress the tracker asked for. Read when the swarm has no further event.
    probes: Vec<QueryId>,
    messages: Pin<Box<Inbox<Message>>>,
    cancellations: Pin<Box<Inbox<RequestId>>>,
    polls: Arc<Polls>,
    closures: Pin<Box<Inbox<Closure<B>>>>,
    alarm: Alarm,
    shutdown_waiters: Vec<oneshot::Sender<()>>,
    /// End of the time that [`ANNOUNCEMENT_LINGER`] grants. `None`: there is nothing to wait for.
    linger_until: Option<Instant>,
    recording: Option<Recording>,
    requires_external_address: bool,
    reachability: Reachability,
}

struct LiveCall {
    /// Peer whose addresses are part of the call's end.
    locate: Option<PeerId>,
    /// The addresses that other peers name for `locate` are collected.
    watches: bool,
    response: ResponseSender<Item, CallEnd>,
    span: tracing::Span,
}

impl<B: ContainsKad, R: Runtime> Driver<B, R> {
    /// Returns a client, a handle to the swarm, and the driver that now owns the swarm.
    /// [`DriverConfig::event_capacity`] has no effect here.
    pub fn new(swarm: Swarm<B>, runtime: R, config: DriverConfig) -> (Client, SwarmHandle<B>, Self) {
        let (client, channels) = Client::new(
            *swarm.local_peer_id(),
            config.command_capacity,
            config.stream_capacity,
            Clock::new(&runtime),
            config.tracker.default_timeout,
        );
        let (closures, receive_closures) = channel::bounded(config.command_capacity.max(1));
        let now = runtime.now();
        let alarm = Alarm::new(&runtime);
        let mut tracker = QueryTracker::new(*swarm.local_peer_id(), config.tracker);
        if let Some(recording) = &config.recording
            && let Err(RecordingError) = tracker.record(recording.values, now)
        {
            // Does not happen: a new tracker is empty.
            tracing::error!("tracker cannot be recorded");
        }
        let driver = Self {
            tracker,
            swarm,
            runtime,
            calls: FxHashMap::default(),
            finishing: Vec::new(),
            probes: Vec::new(),
            messages: Inbox::new(channels.messages),
            cancellations: Inbox::new(channels.cancellations),
            polls: channels.polls,
            closures: Inbox::new(receive_closures),
            alarm,
            shutdown_waiters: Vec::new(),
            linger_until: None,
            recording: config.recording,
            requires_external_address: config.requires_external_address,
            reachability: Reachability::Unknown,
        };
        let handle = SwarmHandle::new(closures, client.connection());
        (client, handle, driver)
    }

    /// Returns the swarm, to change it or to start kad queries of your own. Poll the driver afterwards: nothing else
    /// polls the swarm.
    pub fn swarm_mut(&mut self) -> &mut Swarm<B> {
        &mut self.swarm
    }

    /// Returns the swarm.
    pub fn swarm(&self) -> &Swarm<B> {
        &self.swarm
    }

    /// Returns the state machine that makes the driver's decisions.
    pub fn tracker(&self) -> &QueryTracker {
        &self.tracker
    }

    /// Returns whether a shutdown was requested and is complete: every accepted call has ended and, after
    /// [`Client::shutdown`], one second has passed since the last successful provider announcement, which kad may still
    /// have been sending. A driver that is shut down still yields the events of the swarm.
    pub fn is_shut_down(&self) -> bool {
        self.tracker.is_shut_down() && self.linger_until.is_none()
    }

    /// Sets the connection of the local node to the rest of the network, as far as the owner of the driver knows. With
    /// [`Reachability::Isolated`], no empty result is conclusive. Default: [`Reachability::Unknown`].
    pub fn set_reachability(&mut self, reachability: Reachability) {
        self.reachability = reachability;
    }

    /// Drops the driver and returns the swarm. Pending and later calls end with
    /// [`RequestError::Shutdown`](kadence_core::RequestError::Shutdown). Queries that the driver has started go on in
    /// kad, and the swarm reports their events.
    pub fn into_swarm(self) -> Swarm<B> {
        self.swarm
    }

    // ---- Steps of the loop. Those that return a bool return whether the loop has to take another turn.

    /// Carries out the tracker's actions.
    fn act(&mut self) {
        while let Some(action) = self.tracker.poll_action() {
            self.write_log();
            match action {
                Action::Start { step, request, query } => {
                    let _span = self.calls.get(&request).map(|call| call.span.enter());
                    tracing::trace!(query = query.kind().name(), "starting a query");
                    let now = self.runtime.now();
                    let result = start(&mut self.swarm, query, now, self.requires_external_address);
                    self.tracker.handle_started(step, result, self.runtime.now());
                }
                Action::Finish(id) => {
                    // At once: with a busy swarm it may be long until finishes are repeated.
                    if let Some(mut query) = self.swarm.behaviour_mut().kad().query_mut(&id) {
                        query.finish();
                    }
                    self.finishing.push(id);
                }
                Action::FinishPhase(id) => {
                    tracing::debug!(query = ?id, "query has stalled and is finished early");
                    if let Some(mut query) = self.swarm.behaviour_mut().kad().query_mut(&id) {
                        query.finish();
                    }
                }
                Action::Probe(id) => self.probes.push(id),
                Action::Forget(id) => {
                    tracing::warn!(query = ?id, "finished query did not end; its slot is freed");
                    self.finishing.retain(|finishing| *finishing != id);
                }
                Action::LocalPeers { request, target } => {
                    let target = KBucketKey::new(target);
                    let kad = self.swarm.behaviour_mut().kad();
                    let peers =
                        kad.get_closest_local_peers(&target).take(LOCAL_PEERS).map(|key| *key.preimage()).collect();
                    self.tracker.handle_local_peers(request, peers, self.runtime.now());
                }
                Action::StoreLocal { request, record } => {
                    let store = self.swarm.behaviour_mut().kad().store_mut();
                    let result = store.put(Arc::unwrap_or_clone(record));
                    self.tracker.handle_stored(request, result, self.runtime.now());
                }
                Action::StopProviding { key } => self.swarm.behaviour_mut().kad().stop_providing(&key),
                Action::Item { request, item } => {
                    if let Some(call) = self.calls.get(&request) {
                        call.response.push(item);
                    }
                }
                Action::Outcome { request, mut outcome } => {
                    if let Outcome::StartProviding(Ok(answer)) = &mut outcome {
                        if self.swarm.external_addresses().next().is_none() {
                            answer.sent_to = 0;
                        }
                        self.linger_until = Some(self.runtime.now() + ANNOUNCEMENT_LINGER);
                    }
                    if let Some(call) = self.calls.remove(&request) {
                        self.end_call(call, outcome);
                    }
                }
            }
        }
        self.write_log();
        if self.is_shut_down() {
            for waiter in self.shutdown_waiters.drain(..) {
                // The caller may have stopped waiting.
                let _cancelled = waiter.send(());
            }
        }
    }

    fn write_log(&mut self) {
        if let Some(recording) = &self.recording {
            while let Some(line) = self.tracker.poll_log() {
                recording.write(&line);
            }
        }
    }

    /// Handles deadlines that have passed. The clock decides which; the timer only wakes the task.
    fn handle_due(&mut self) {
        let tracker = self.tracker.poll_timeout();
        if tracker.is_none() && self.linger_until.is_none() {
            return;
        }
        let now = self.runtime.now();
        if self.linger_until.is_some_and(|until| until <= now) {
            self.linger_until = None;
            self.act();
        }
        if tracker.is_some_and(|due| due <= now) {
            self.tracker.handle_timeout(now);
            self.act();
        }
    }

    /// Receives messages from clients and swarm handles, cancellations first.
    fn receive(&mut self, cx: &mut Context<'_>) -> bool {
        let mut received = false;
        for _ in 0..MESSAGES_PER_TURN {
            let Poll::Ready(id) = self.cancellations.as_mut().poll_receive(cx) else { break };
            received = true;
            // The call was dropped together with its response channel: nobody reads the outcome.
            let _never_fails = self.tracker.handle_command(Command::Cancel { id }, self.runtime.now());
        }
        for _ in 0..MESSAGES_PER_TURN {
            let Poll::Ready(message) = self.messages.as_mut().poll_receive(cx) else { break };
            received = true;
            self.handle_message(message);
        }
        for _ in 0..MESSAGES_PER_TURN {
            let Poll::Ready(closure) = self.closures.as_mut().poll_receive(cx) else { break };
            received = true;
            self.run(closure);
        }
        if received {
            self.act();
        }
        received
    }

    /// Runs a closure of the application. A query that it finishes may find less than the network has.
    fn run(&mut self, closure: Closure<B>) {
        let kad = self.swarm.behaviour_mut().kad();
        let running: Vec<_> = self.tracker.query_ids().filter(|id| kad.query(id).is_some()).collect();
        closure(&mut self.swarm);
        for id in running {
            if self.swarm.behaviour_mut().kad().query(&id).is_none() {
                self.tracker.handle_cut_short(id, self.runtime.now());
            }
        }
    }

    /// Polls the swarm for one event. `Ready(None)`: what the poll brought was for the tracker, and is consumed.
    fn poll_swarm(&mut self, cx: &mut Context<'_>) -> Poll<Option<SwarmEvent<B::ToSwarm>>> {
        let polled = Pin::new(&mut self.swarm).poll_next(cx);
        let mut cut_short = false;
        for id in self.swarm.behaviour_mut().take_incomplete_queries() {
            if self.tracker.owns(&id) {
                self.tracker.handle_cut_short(id, self.runtime.now());
                cut_short = true;
            }
        }
        let event = match polled {
            // Every input of the tracker may give actions.
            Poll::Ready(None) | Poll::Pending if cut_short => {
                self.act();
                return Poll::Ready(None);
            }
            Poll::Ready(Some(event)) => event,
            // A swarm's stream does not end.
            Poll::Ready(None) | Poll::Pending => return Poll::Pending,
        };
        let event = match event {
            SwarmEvent::Behaviour(event) => event,
            event => return Poll::Ready(Some(event)),
        };
        match B::try_into_kad(event) {
            Ok(kad::Event::OutboundQueryProgressed { id, result, stats, step }) if self.tracker.owns(&id) => {
                let last = step.last;
                if last {
                    self.finishing.retain(|finishing| *finishing != id);
                }
                if last && is_empty(&result) {
                    self.report_network();
                }
                let event = QueryEvent { id, result, progress: Progress::from(&stats), last };
                self.tracker.handle_event(event, self.runtime.now());
                self.act();
                Poll::Ready(None)
            }
            Ok(event) => Poll::Ready(Some(SwarmEvent::Behaviour(B::from_kad(event)))),
            Err(event) => Poll::Ready(Some(SwarmEvent::Behaviour(event))),
        }
    }

    /// Reports the size of the network to the tracker: a routing table with few peers has all of a small network. With
    /// 20 peers or more, the tracker does not need the exact number.
    fn report_network(&mut self) {
        let peers: usize = self.swarm.behaviour_mut().kad().kbuckets().map(|bucket| bucket.num_entries()).sum();
        let network = Network::default().size(peers + 1).reachability(self.reachability);
        self.tracker.handle_network(network, self.runtime.now());
    }

    /// Finishes queries again that kad still runs, and returns whether there was one. Such a query has entered its next
    /// phase without an event, and the swarm has to be polled again. `query_mut` does not return a finished query, so
    /// the repetition ends.
    fn repeat_finishes(&mut self) -> bool {
        let mut finished = false;
        if !self.finishing.is_empty() {
            let kad = self.swarm.behaviour_mut().kad();
            for id in &self.finishing {
                if let Some(mut query) = kad.query_mut(id) {
                    query.finish();
                    finished = true;
                }
            }
        }
        finished
    }

    /// Reports to the tracker the progress of the queries that it asked for.
    fn answer_probes(&mut self) -> bool {
        if self.probes.is_empty() {
            return false;
        }
        let now = self.runtime.now();
        for id in std::mem::take(&mut self.probes) {
            let behaviour = self.swarm.behaviour_mut();
            let progress = if behaviour.is_transferring(&id) {
                None
            } else {
                behaviour.kad().query(&id).map(|query| Progress::from(query.stats()))
            };
            self.tracker.handle_probe(id, progress, now);
        }
        self.act();
        true
    }

    /// Sets the alarm to the tracker's next deadline, or stops it if there is none. Returns whether that deadline has
    /// come.
    fn arm(&mut self, cx: &mut Context<'_>) -> bool {
        // Lingering matters only to a shutdown; until there is one, it must not wake an idle driver.
        let lingering = self.linger_until.filter(|_| self.tracker.is_shut_down());
        match self.tracker.poll_timeout().into_iter().chain(lingering).min() {
            Some(due) => self.alarm.set(due),
            None => self.alarm.stop(),
        }
        self.alarm.poll(cx).is_ready()
    }

    fn handle_message(&mut self, message: Message) {
        match message {
            Message::Request { request, locate, response } => self.accept(request, locate, response),
            Message::StopProviding { key, reply } => {
                self.swarm.behaviour_mut().kad().stop_providing(&key);
                self.local_store_changed(key);
                let _cancelled = reply.send(());
            }
            Message::RemoveRecord { key, reply } => {
                let _cancelled = reply.send(self.remove_record(&key));
            }
            Message::Introspect { reply } => {
                let now = self.runtime.now();
                // First, because the statistics contain the number of queries that kad runs by itself.
                let live = self.swarm.behaviour_mut().kad().iter_queries().count();
                self.tracker.handle_query_count(live, now);
                let _cancelled = reply.send(Introspection {
                    snapshot: self.tracker.snapshot(now),
                    stats: self.tracker.stats(),
                    metrics: self.tracker.metrics().clone(),
                });
            }
            Message::Shutdown { drain, reply } => {
                self.shutdown_waiters.push(reply);
                if !drain {
                    self.linger_until = None;
                }
                let _never_fails = self.tracker.handle_command(Command::Shutdown { drain }, self.runtime.now());
            }
        }
    }

    fn accept(&mut self, request: Request, locate: Option<PeerId>, response: ResponseSender<Item, CallEnd>) {
        if response.is_closed() {
            // The call was dropped before its request arrived. Its cancellation was faster and found nothing to cancel.
            return;
        }
        let Request { id, operation, options: _ } = &request;
        let (id, kind) = (*id, operation.kind());
        let mut call = LiveCall { locate, watches: false, response, span: span(id, operation) };
        match self.tracker.handle_command(Command::Request(request), self.runtime.now()) {
            Ok(()) => {
                call.watches = locate.is_some_and(|peer| self.swarm.behaviour_mut().watch_addresses(peer));
                // Before the actions of this request are carried out, so that none of them misses its call.
                self.calls.insert(id, call);
            }
            Err(CommandError(error)) => self.end_call(call, Outcome::failed(kind, error)),
        }
    }

    fn end_call(&mut self, call: LiveCall, outcome: Outcome) {
        let LiveCall { locate, watches, response, span } = call;
        span.in_scope(|| match outcome.error() {
            None => tracing::debug!("succeeded"),
            Some(error) => tracing::debug!(error, "failed"),
        });
        let located = locate.map(|peer| {
            let behaviour = self.swarm.behaviour_mut();
            let mut addresses = addresses_of(behaviour.kad(), peer).unwrap_or_default();
            if watches {
                addresses.extend(behaviour.named_addresses(&peer));
                behaviour.unwatch_addresses(&peer);
            }
            LocatedPeer { peer, addresses }
        });
        response.end(CallEnd { outcome, located });
    }

    fn remove_record(&mut self, key: &RecordKey) -> Result<(), RemoveRecordError> {
        let local_peer = *self.swarm.local_peer_id();
        let kad = self.swarm.behaviour_mut().kad();
        let publisher = match kad.store_mut().get(key) {
            Some(record) => record.publisher,
            None => return Err(RemoveRecordError::NotFound),
        };
        if publisher != Some(local_peer) {
            return Err(RemoveRecordError::NotPublisher { publisher });
        }
        kad.remove_record(key);
        self.local_store_changed(key.clone());
        Ok(())
    }

    /// Reports to the tracker that the local store was changed without a request.
    fn local_store_changed(&mut self, key: RecordKey) {
        let _never_fails = self.tracker.handle_command(Command::Written { key }, self.runtime.now());
    }
}

impl<B: ContainsKad, R: Runtime> Stream for Driver<B, R> {
    type Item = SwarmEvent<B::ToSwarm>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        this.polls.begin();
        // True once all inboxes were found empty: a new message then wakes the task, and they need no further poll.
        let mut listening = false;
        for _ in 0..TURNS_PER_WAKE {
            this.act();
            this.handle_due();
            let received = !listening && this.receive(cx);
            listening = !received;
            match this.poll_swarm(cx) {
                Poll::Ready(Some(event)) => {
                    this.polls.set_due();
                    return Poll::Ready(Some(event));
                }
                Poll::Ready(None) => continue,
                Poll::Pending => {}
            }
            // The swarm is idle. Any step below that touches kad leads to another turn, which polls the swarm again.
            if this.repeat_finishes() || this.answer_probes() || received || this.arm(cx) {
                continue;
            }
            // The swarm, the three inboxes and, if there is a deadline, the timer have registered the waker.
            return Poll::Pending;
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<B: ContainsKad, R: Runtime> FusedStream for Driver<B, R> {
    fn is_terminated(&self) -> bool {
        false
    }
}

impl<B: ContainsKad, R: Runtime> fmt::Debug for Driver<B, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver")
            .field("local_peer", self.swarm.local_peer_id())
            .field("calls", &self.calls.len())
            .field("finishing", &self.finishing)
            .finish_non_exhaustive()
    }
}

/// Returns whether a result is an end without an item, or a lookup of peers.
fn is_empty(result: &kad::QueryResult) -> bool {
    matches!(
        result,
        kad::QueryResult::GetRecord(Err(kad::GetRecordError::NotFound { .. }))
            | kad::QueryResult::GetProviders(Ok(kad::GetProvidersOk::FinishedWithNoAdditionalRecord { .. }))
            | kad::QueryResult::GetClosestPeers(_)
    )
}

/// Starts a query in kad.
fn start<B: ContainsKad>(
    swarm: &mut Swarm<B>,
    query: Query,
    now: Instant,
    requires_external_address: bool,
) -> Result<Started, QueryStartError> {
    let local_peer: PeerId = *swarm.local_peer_id();
    let lacks_address = requires_external_address && swarm.external_addresses().next().is_none();
    let kad = swarm.behaviour_mut().kad();
    let mut had_provider = false;
    let id = match query {
        Query::GetRecord { key } => kad.get_record(key),
        Query::PutRecordTo { record, peers } => {
            let mut record = Arc::unwrap_or_clone(record);
            keep_from_never(&mut record, now);
            kad.put_record_to(record, peers.iter().copied(), Quorum::All)
        }
        Query::GetProviders { key } => kad.get_providers(key),
        Query::StartProviding { key: _ } if lacks_address => return Err(QueryStartError::NoExternalAddress),
        Query::StartProviding { key } => {
            had_provider = kad.store_mut().providers(&key).iter().any(|entry| entry.provider == local_peer);
            kad.start_providing(key)?
        }
        Query::GetClosestPeers { target } => kad.get_closest_peers(target.to_vec()),
        Query::Bootstrap => match kad.bootstrap() {
            Ok(id) => id,
            Err(kad::NoKnownPeers()) => return Err(QueryStartError::NoKnownPeers),
        },
    };
    Ok(Started { id, had_provider })
}

/// Moves the expiry of a record that is sent soon, if it is near. kad sends the time to live in whole seconds, and peers
/// take zero for a record that does not expire, which some keep for two days.
///
/// A record with less than two seconds to live gets one second: kad sends that of an expired one. Another one gets at
/// least the time in which it may be sent.
fn keep_from_never(record: &mut Record, now: Instant) {
    if let Some(expires) = &mut record.expires {
        let left = expires.saturating_duration_since(now);
        *expires = if left < ALMOST_EXPIRED { now } else { (*expires).max(now + LONGEST_SEND) };
    }
}

fn span(id: RequestId, operation: &Operation) -> tracing::Span {
    tracing::debug_span!(
        "kad_request",
        request = id.0,
        kind = operation.kind().name(),
        key = %operation.key().escape_ascii(),
    )
}

/// Returns the addresses of a peer in the local routing table, each with the peer id at the end. `None` if the table does not
/// have the peer.
pub(crate) fn addresses_of<S: RecordStore + Send + 'static>(
    kad: &mut kad::Behaviour<S>,
    peer: PeerId,
) -> Option<Vec<Multiaddr>> {
    let bucket = kad.kbucket(peer)?;
    let entry = bucket.iter().find(|entry| *entry.node.key.preimage() == peer)?;
    Some(entry.node.value.iter().cloned().collect())
}
