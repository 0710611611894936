pub(crate) mod config;
pub(crate) mod inbox;
pub(crate) mod swarm_handle;
pub(crate) mod task;

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures::{Stream, channel::oneshot, stream::FusedStream};
use kadence_core::{
    Action, Command, CommandError, LOCAL_PEERS, Operation, Outcome, Progress, Query, QueryEvent, QueryStartError,
    QueryTracker, RecordingError, Request, RequestId, Started,
};
use libp2p::{
    PeerId, Swarm,
    kad::{self, QueryId, Quorum, RecordKey, store::RecordStore},
    swarm::SwarmEvent,
};
use rustc_hash::FxHashMap;

pub use self::swarm_handle::SwarmHandle;
use self::{inbox::Inbox, swarm_handle::Closure};
use crate::{
    Alarm, Client, ContainsKad, DriverConfig, Recording, RemoveRecordError, Runtime,
    client::{Look, Message, Reply, find_peer},
};

/// How many turns of the loop one wake-up may take before other tasks of the runtime get theirs. A turn takes one
/// event of the swarm; a hundred of them are a fraction of a millisecond.
const TURNS_PER_WAKE: usize = 100;

/// How many messages of each kind are taken in one turn, so that a flood of calls does not keep the swarm waiting.
/// Their queries wait for a slot anyway.
const MESSAGES_PER_TURN: usize = 64;

/// How long a graceful shutdown lets the swarm go on after the last announcement was answered. kad answers it when it
/// has handed the messages to the connections, which still have to open a stream for each.
const ANNOUNCEMENT_LINGER: Duration = Duration::from_secs(1);

/// A swarm that answers a [`Client`]'s calls while it is polled.
///
/// It is a stream of the swarm's events, like `Swarm` itself: what belongs to a call is consumed, everything else is
/// yielded untouched. A program with a loop of its own replaces `swarm.select_next_some()` by
/// `driver.select_next_some()` and keeps its loop; one without uses [`spawn`](crate::spawn). The stream never ends.
///
/// It must be polled for anything to happen, deadlines included. Dropping it ends every pending and later call with
/// [`RequestError::Shutdown`](crate::RequestError::Shutdown).
pub struct Driver<B: ContainsKad, R: Runtime> {
    swarm: Swarm<B>,
    runtime: R,
    tracker: QueryTracker,
    calls: FxHashMap<RequestId, LiveCall>,
    /// Standing orders: queries to finish after every poll of the swarm that had nothing more. At most as many as
    /// there are slots.
    finishing: Vec<QueryId>,
    /// Queries whose progress is told once the swarm has nothing more to say.
    probes: Vec<QueryId>,
    messages: Pin<Box<Inbox<Message>>>,
    cancels: Pin<Box<Inbox<RequestId>>>,
    closures: Pin<Box<Inbox<Closure<B>>>>,
    alarm: Alarm,
    shutdown_waiters: Vec<oneshot::Sender<()>>,
    /// Until when a graceful shutdown lingers.
    linger_until: Option<Instant>,
    recording: Option<Recording>,
}

struct LiveCall {
    reply: Reply,
    span: tracing::Span,
}

impl<B: ContainsKad, R: Runtime> Driver<B, R> {
    /// Takes a swarm in. The client and the handle talk to this driver, whoever polls it.
    pub fn new(swarm: Swarm<B>, runtime: R, config: DriverConfig) -> (Client, SwarmHandle<B>, Self) {
        let (client, channels) = Client::new(*swarm.local_peer_id(), &config);
        let (closures, receive_closures) = async_channel::bounded(config.command_capacity.max(1));
        let now = runtime.now();
        let alarm = Alarm::new(&runtime);
        let mut tracker = QueryTracker::new(*swarm.local_peer_id(), config.tracker);
        if let Some(recording) = &config.recording
            && let Err(RecordingError) = tracker.record(recording.values, now)
        {
            // A new tracker is empty.
            tracing::error!("the tracker cannot be recorded");
        }
        let driver = Self {
            tracker,
            swarm,
            runtime,
            calls: FxHashMap::default(),
            finishing: Vec::new(),
            probes: Vec::new(),
            messages: Inbox::new(channels.messages),
            cancels: Inbox::new(channels.cancels),
            closures: Inbox::new(receive_closures),
            alarm,
            shutdown_waiters: Vec::new(),
            linger_until: None,
            recording: config.recording,
        };
        (client, SwarmHandle::new(closures), driver)
    }

    /// The swarm. The driver polls it again before it sleeps only if it is itself polled afterwards, which a loop
    /// over its events does.
    pub fn swarm_mut(&mut self) -> &mut Swarm<B> {
        &mut self.swarm
    }

    /// The swarm.
    pub fn swarm(&self) -> &Swarm<B> {
        &self.swarm
    }

    /// The state machine that decides, to look at.
    pub fn tracker(&self) -> &QueryTracker {
        &self.tracker
    }

    /// Whether a shutdown was asked for, every call has ended, and what they have sent had time to leave. Events of
    /// the swarm still come.
    pub fn is_shut_down(&self) -> bool {
        self.tracker.is_shut_down() && self.linger_until.is_none()
    }

    /// Gives the swarm back. Pending and later calls end with [`RequestError::Shutdown`](crate::RequestError).
    pub fn into_swarm(self) -> Swarm<B> {
        self.swarm
    }

    // ---- the steps of the loop; each says whether there is reason to go round again

    /// Carries out what the tracker wants done.
    fn act(&mut self) {
        while let Some(action) = self.tracker.poll_action() {
            self.write_log();
            match action {
                Action::Start { step, request, query } => {
                    let _span = self.calls.get(&request).map(|call| call.span.enter());
                    tracing::trace!(query = query.kind().name(), "starting a query");
                    let result = start(&mut self.swarm, query);
                    self.tracker.handle_started(step, result, self.runtime.now());
                }
                Action::Finish(id) => {
                    // At once, because a busy swarm may be long in coming to the point where orders are repeated.
                    if let Some(mut query) = self.swarm.behaviour_mut().kad().query_mut(&id) {
                        query.finish();
                    }
                    self.finishing.push(id);
                }
                Action::FinishPhase(id) => {
                    tracing::debug!(query = ?id, "a query has stalled; it makes do with what it has");
                    if let Some(mut query) = self.swarm.behaviour_mut().kad().query_mut(&id) {
                        query.finish();
                    }
                }
                Action::Probe(id) => self.probes.push(id),
                Action::Forget(id) => {
                    tracing::warn!(query = ?id, "a finished query never ended; its slot is taken back");
                    self.finishing.retain(|finishing| *finishing != id);
                }
                Action::LocalPeers { request, target } => {
                    let target = kad::KBucketKey::new(target);
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
                        call.reply.push(item);
                    }
                }
                Action::Outcome { request, outcome } => {
                    if let Outcome::StartProviding(Ok(_)) = &outcome {
                        self.linger_until = Some(self.runtime.now() + ANNOUNCEMENT_LINGER);
                    }
                    if let Some(call) = self.calls.remove(&request) {
                        end(call, outcome);
                    }
                }
            }
        }
        self.write_log();
        if self.is_shut_down() {
            for waiter in self.shutdown_waiters.drain(..) {
                // Whoever asked may have gone.
                let _gone = waiter.send(());
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

    /// The clock decides what is due; the timer only wakes.
    fn keep_time(&mut self) {
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

    /// Takes what callers have sent, cancels first.
    fn receive(&mut self, cx: &mut Context<'_>) -> bool {
        let mut received = false;
        for _ in 0..MESSAGES_PER_TURN {
            let Poll::Ready(id) = self.cancels.as_mut().poll_receive(cx) else { break };
            received = true;
            // The caller is gone, and its reply with it: the outcome is for nobody.
            let _never_fails = self.tracker.handle_command(Command::Cancel { id }, self.runtime.now());
        }
        for _ in 0..MESSAGES_PER_TURN {
            let Poll::Ready(message) = self.messages.as_mut().poll_receive(cx) else { break };
            received = true;
            self.take(message);
        }
        for _ in 0..MESSAGES_PER_TURN {
            let Poll::Ready(closure) = self.closures.as_mut().poll_receive(cx) else { break };
            received = true;
            closure(&mut self.swarm);
        }
        if received {
            self.act();
        }
        received
    }

    /// Takes one event of the swarm: ours are consumed, all others yielded.
    fn poll_swarm(&mut self, cx: &mut Context<'_>) -> Poll<Option<SwarmEvent<B::ToSwarm>>> {
        let event = match Pin::new(&mut self.swarm).poll_next(cx) {
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
                let event = QueryEvent { id, result, progress: Progress::from(&stats), last };
                self.tracker.handle_event(event, self.runtime.now());
                self.act();
                Poll::Ready(None)
            }
            Ok(event) => Poll::Ready(Some(SwarmEvent::Behaviour(B::from_kad(event)))),
            Err(event) => Poll::Ready(Some(SwarmEvent::Behaviour(event))),
        }
    }

    /// Repeats the standing orders. A query that kad still runs has moved to its next phase without an event, and
    /// the swarm must be polled again; one that is finished is not seen by `query_mut`, so this comes to an end.
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

    /// Tells the tracker how far the queries got that it asks about.
    fn answer_probes(&mut self) -> bool {
        if self.probes.is_empty() {
            return false;
        }
        let now = self.runtime.now();
        for id in std::mem::take(&mut self.probes) {
            let progress = self.swarm.behaviour_mut().kad().query(&id).map(|query| Progress::from(query.stats()));
            self.tracker.handle_probe(id, progress, now);
        }
        self.act();
        true
    }

    /// Sets the alarm to the tracker's next deadline, or stops it if there is none. Returns whether that deadline has come.
    fn arm(&mut self, cx: &mut Context<'_>) -> bool {
        // Lingering matters only to a shutdown; until there is one, it must not wake an idle driver.
        let lingering = self.linger_until.filter(|_| self.tracker.is_shut_down());
        match self.tracker.poll_timeout().into_iter().chain(lingering).min() {
            Some(due) => self.alarm.set(due),
            None => self.alarm.stop(),
        }
        self.alarm.poll(cx).is_ready()
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Request { request, reply } => self.accept(request, reply),
            Message::StopProviding { key, reply } => {
                self.swarm.behaviour_mut().kad().stop_providing(&key);
                self.forget(key);
                let _gone = reply.send(());
            }
            Message::RemoveRecord { key, reply } => {
                let _gone = reply.send(self.remove_record(&key));
            }
            Message::Addresses { peer, reply } => {
                let _gone = reply.send(find_peer::addresses(&mut self.swarm, peer));
            }
            Message::Snapshot { reply } => {
                let now = self.runtime.now();
                // Before the tracker is looked at, because the statistics count what kad runs of its own.
                let live = self.swarm.behaviour_mut().kad().iter_queries().count();
                self.tracker.handle_query_count(live, now);
                let _gone = reply.send(Look {
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

    fn accept(&mut self, request: Request, reply: Reply) {
        if reply.is_abandoned() {
            // Dropped on its way here. Its cancel came by the faster way and found nothing.
            return;
        }
        let Request { id, operation, options: _ } = &request;
        let (id, kind) = (*id, operation.kind());
        let span = span(id, operation);
        match self.tracker.handle_command(Command::Request(request), self.runtime.now()) {
            Ok(()) => {
                // The actions that this has caused are carried out later, so none of them is missed.
                self.calls.insert(id, LiveCall { reply, span });
            }
            Err(CommandError(error)) => end(LiveCall { reply, span }, Outcome::failed(kind, error)),
        }
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
        self.forget(key.clone());
        Ok(())
    }

    /// The local store was changed without a request.
    fn forget(&mut self, key: RecordKey) {
        let _never_fails = self.tracker.handle_command(Command::Forget { key }, self.runtime.now());
    }
}

impl<B: ContainsKad, R: Runtime> Stream for Driver<B, R> {
    type Item = SwarmEvent<B::ToSwarm>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        // Whether whatever comes into an inbox wakes us: once they were found empty, there is no need to look again.
        let mut listening = false;
        for _ in 0..TURNS_PER_WAKE {
            this.act();
            this.keep_time();
            let received = !listening && this.receive(cx);
            listening = !received;
            match this.poll_swarm(cx) {
                Poll::Ready(Some(event)) => return Poll::Ready(Some(event)),
                Poll::Ready(None) => continue,
                Poll::Pending => {}
            }
            // The swarm is idle. Whatever touches kad from here on sends us round again, to poll it once more.
            if this.repeat_finishes() || this.answer_probes() || received || this.arm(cx) {
                continue;
            }
            // The swarm, the three inboxes and the timer (if anything is due) have registered our waker.
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

/// Starts a query as it was ordered. Nothing is decided here.
fn start<B: ContainsKad>(swarm: &mut Swarm<B>, query: Query) -> Result<Started, QueryStartError> {
    let local_peer: PeerId = *swarm.local_peer_id();
    let kad = swarm.behaviour_mut().kad();
    let mut had_provider = false;
    let id = match query {
        Query::GetRecord { key } => kad.get_record(key),
        Query::PutRecordTo { record, peers } => {
            kad.put_record_to(Arc::unwrap_or_clone(record), peers.iter().copied(), Quorum::All)
        }
        Query::GetProviders { key } => kad.get_providers(key),
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

fn span(id: RequestId, operation: &Operation) -> tracing::Span {
    tracing::debug_span!(
        "kad_request",
        request = id.0,
        kind = operation.kind().name(),
        key = %operation.key().escape_ascii(),
    )
}

fn end(call: LiveCall, outcome: Outcome) {
    let LiveCall { reply, span } = call;
    span.in_scope(|| match outcome.error() {
        None => tracing::debug!("answered"),
        Some(error) => tracing::debug!(error, "failed"),
    });
    reply.end(outcome);
}
