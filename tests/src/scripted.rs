use std::{
    convert::Infallible,
    fmt,
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use kadence::{ContainsKad, DriverConfig, Spawned, SwarmHandle, Task, Timer, node, spawn};
use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    identify,
    identity::Keypair,
    kad::{
        self, Mode, ProviderRecord, Record, RecordKey,
        store::{MemoryStore, RecordStore},
    },
    swarm::{
        CloseConnection, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler, THandler,
        THandlerInEvent, THandlerOutEvent, ToSwarm, dummy,
    },
};

use crate::{BareKad, Contact, NodeConfig, PROTOCOL, TestEnv, TestRuntime, node::identify, with_kad};

/// Length that exceeds the maximum packet size of every node.
const TOO_LONG: usize = 256 * 1024;

/// Kind of a request. Announcements are not included, because they are not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestKind {
    /// `FIND_NODE`: the peers closest to a target.
    Closest,
    /// `GET_VALUE`: the record under a key.
    Record,
    /// `PUT_VALUE`: store a record.
    Put,
    /// `GET_PROVIDERS`: the providers of a key.
    Providers,
}

/// Reaction of a peer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnswerMode {
    /// Answers correctly.
    Prompt,
    /// Answers correctly after this delay.
    Slow(Duration),
    /// Never answers. Records that are put are stored.
    Silent,
    /// Breaks the stream and stores nothing: sends an unreadable message, so that the requester's stream ends with an
    /// error.
    ///
    /// kad's own way to reject a request only marks the stream for closing and does not wake the task that would close
    /// it. The requester mostly runs into its timeout; to a lookup this is [`Silent`](Self::Silent).
    BrokenStream,
    /// Closes the connection with all its pending requests, and stores nothing.
    ClosedConnection,
    /// Sends this value in place of the value of the stored record.
    WrongValue(Vec<u8>),
    /// Sends the stored record under another key.
    WrongKey,
    /// Answers without record, providers or closer peers.
    Empty,
}

/// Behaviour of a scripted peer, and its initial records and providers.
#[derive(Clone)]
pub struct Script {
    mode: Arc<dyn Fn(RequestKind) -> AnswerMode + Send + Sync>,
    records: Vec<Record>,
    providers: Vec<(RecordKey, PeerId)>,
}

impl Script {
    /// Reacts to all requests in the same way.
    pub fn always(mode: AnswerMode) -> Self {
        Self::of(move |_| mode.clone())
    }

    /// Reacts to requests of one kind in this way, and answers all others correctly.
    pub fn only(request: RequestKind, mode: AnswerMode) -> Self {
        Self::of(move |asked| if asked == request { mode.clone() } else { AnswerMode::Prompt })
    }

    /// Chooses the reaction by the kind of request.
    pub fn of(mode: impl Fn(RequestKind) -> AnswerMode + Send + Sync + 'static) -> Self {
        Self { mode: Arc::new(mode), records: Vec::new(), providers: Vec::new() }
    }

    /// Adds a record to the peer's store.
    #[must_use]
    pub fn with_record(mut self, record: Record) -> Self {
        self.records.push(record);
        self
    }

    /// Adds a provider to the peer's store.
    #[must_use]
    pub fn with_provider(mut self, key: RecordKey, provider: PeerId) -> Self {
        self.providers.push((key, provider));
        self
    }
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mode: _, records, providers } = self;
        f.debug_struct("Script").field("records", records).field("providers", providers).finish_non_exhaustive()
    }
}

/// Peer that behaves as its [`Script`] says: a real kad in a real swarm, whose answers are changed, delayed or dropped
/// on their way to the connection.
#[derive(Debug)]
pub struct ScriptedNode {
    /// Peer id and listen address.
    pub contact: Contact,
    swarm: SwarmHandle<ScriptedBehaviour>,
    _task: Task,
}

impl ScriptedNode {
    /// Returns the id of the peer.
    pub fn peer(&self) -> PeerId {
        self.contact.peer
    }

    /// Returns the record that the peer stores under a key.
    pub async fn local_record(&self, key: &RecordKey) -> Option<Record> {
        let key = key.clone();
        let get = move |kad: &mut BareKad| kad.store_mut().get(&key).map(|record| record.into_owned());
        with_kad(&self.swarm, get).await
    }
}

impl<R: TestRuntime> TestEnv<R> {
    /// Starts peers that behave by these scripts and know each other.
    pub async fn scripted_nodes(&self, scripts: impl IntoIterator<Item = Script>) -> Vec<ScriptedNode> {
        let mut nodes: Vec<ScriptedNode> = Vec::new();
        for script in scripts {
            let keypair = Keypair::generate_ed25519();
            let runtime = self.runtime().clone();
            let sleep = move |span| -> BoxFuture<'static, ()> {
                let mut timer = Box::pin(runtime.timer(runtime.now() + span));
                poll_fn(move |cx| timer.as_mut().poll_elapsed(cx)).boxed()
            };
            let Script { mode, records, providers } = script;
            let mut kad = NodeConfig::default().keypair(keypair.clone()).bare_kad();
            for record in records {
                kad.store_mut().put(record).expect("the store has room");
            }
            for (key, provider) in providers {
                // kad does not report a provider without an address. Nothing listens at this one.
                let nowhere = "/memory/1".parse().expect("the address is valid");
                let entry = ProviderRecord::new(key, provider, vec![nowhere]);
                kad.store_mut().add_provider(entry).expect("the store has room");
            }
            let kad = ScriptedKad { kad, mode, sleep: Box::new(sleep), slow: FuturesUnordered::new() };
            let behaviour = ScriptedBehaviour { kad, identify: identify(keypair.public()) };
            let (swarm, contact) = self.listening_swarm(&keypair, behaviour).await;
            let Spawned { swarm, task, .. } = spawn(self.runtime(), swarm, DriverConfig::default());
            let node = ScriptedNode { contact, swarm, _task: task };
            for other in &nodes {
                introduce(&node, &other.contact).await;
                introduce(other, &node.contact).await;
            }
            nodes.push(node);
        }
        nodes
    }

    /// Starts a `kadence::node::Node` in client mode that knows these peers.
    pub async fn asking_node<'a>(
        &self,
        config: node::NodeConfig,
        contacts: impl IntoIterator<Item = &'a Contact>,
    ) -> node::Node {
        let known = contacts.into_iter().map(|contact| contact.address.clone().with_p2p(contact.peer));
        let config = config
            .protocol(PROTOCOL)
            .mode(Mode::Client)
            .bootstrap_peers(known.map(|address| address.expect("the address ends in no other peer id")));
        let transport = |keypair: &Keypair| Ok::<_, Infallible>(self.transport(keypair));
        let started = node::Node::start(self.runtime().clone(), config, transport, |_| dummy::Behaviour);
        started.await.expect("the node starts")
    }
}

async fn introduce(node: &ScriptedNode, contact: &Contact) {
    let Contact { peer, address } = contact.clone();
    let add = move |kad: &mut BareKad| {
        kad.add_address(&peer, address);
    };
    with_kad(&node.swarm, add).await;
}

/// Behaviour of a scripted peer.
#[derive(NetworkBehaviour)]
#[behaviour(prelude = "libp2p::swarm::derive_prelude")]
pub(crate) struct ScriptedBehaviour {
    /// kad with scripted answers.
    pub(crate) kad: ScriptedKad,
    /// Unmodified identify.
    pub(crate) identify: identify::Behaviour,
}

impl ContainsKad for ScriptedBehaviour {
    type Store = MemoryStore;

    fn kad(&mut self) -> &mut BareKad {
        &mut self.kad.kad
    }

    fn try_into_kad(event: ScriptedBehaviourEvent) -> Result<kad::Event, ScriptedBehaviourEvent> {
        match event {
            ScriptedBehaviourEvent::Kad(event) => Ok(event),
            event @ ScriptedBehaviourEvent::Identify(_) => Err(event),
        }
    }

    fn from_kad(event: kad::Event) -> ScriptedBehaviourEvent {
        ScriptedBehaviourEvent::Kad(event)
    }
}

type ToHandler = THandlerInEvent<BareKad>;
type KadAction = ToSwarm<kad::Event, ToHandler>;

/// kad whose answers are changed on their way out.
pub(crate) struct ScriptedKad {
    kad: BareKad,
    mode: Arc<dyn Fn(RequestKind) -> AnswerMode + Send + Sync>,
    sleep: Box<dyn Fn(Duration) -> BoxFuture<'static, ()> + Send + Sync>,
    /// Delayed answers.
    slow: FuturesUnordered<BoxFuture<'static, KadAction>>,
}

impl fmt::Debug for ScriptedKad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScriptedKad").finish_non_exhaustive()
    }
}

impl ScriptedKad {
    /// Applies the script to an action of kad. Returns the action to take now, if any.
    fn apply(&mut self, action: KadAction) -> Option<KadAction> {
        let ToSwarm::NotifyHandler { peer_id, handler: NotifyHandler::One(connection), event } = action else {
            return Some(action);
        };
        let answer = move |event| ToSwarm::NotifyHandler { peer_id, handler: NotifyHandler::One(connection), event };
        let (request, request_id) = match &event {
            ToHandler::FindNodeRes { closer_peers: _, request_id } => (RequestKind::Closest, *request_id),
            ToHandler::GetRecordRes { record: _, closer_peers: _, request_id } => (RequestKind::Record, *request_id),
            ToHandler::PutRecordRes { key: _, value: _, request_id } => (RequestKind::Put, *request_id),
            ToHandler::GetProvidersRes { closer_peers: _, provider_peers: _, request_id } => {
                (RequestKind::Providers, *request_id)
            }
            // Requests of the peer's own, and resets.
            _ => return Some(answer(event)),
        };
        let mode = (self.mode)(request);
        if matches!(mode, AnswerMode::BrokenStream | AnswerMode::ClosedConnection)
            && let ToHandler::PutRecordRes { key, .. } = &event
        {
            self.kad.store_mut().remove(key);
        }
        match mode {
            AnswerMode::Prompt => Some(answer(event)),
            AnswerMode::Slow(span) => {
                self.slow.push((self.sleep)(span).map(move |()| answer(event)).boxed());
                None
            }
            AnswerMode::Silent => None,
            // Fits every kind of request, because the requester checks the length first.
            AnswerMode::BrokenStream => {
                let (key, value) = (RecordKey::new(b""), vec![0; TOO_LONG]);
                Some(answer(ToHandler::PutRecordRes { key, value, request_id }))
            }
            AnswerMode::ClosedConnection => {
                Some(ToSwarm::CloseConnection { peer_id, connection: CloseConnection::One(connection) })
            }
            AnswerMode::WrongValue(value) => Some(answer(replace_value(event, value))),
            AnswerMode::WrongKey => Some(answer(replace_key(event))),
            AnswerMode::Empty => Some(answer(clear(event))),
        }
    }
}

fn replace_value(mut event: ToHandler, wrong_value: Vec<u8>) -> ToHandler {
    if let ToHandler::GetRecordRes { record: Some(record), .. } = &mut event {
        record.value = wrong_value;
    }
    event
}

fn replace_key(mut event: ToHandler) -> ToHandler {
    if let ToHandler::GetRecordRes { record: Some(record), .. } = &mut event {
        record.key = RecordKey::new(&[record.key.as_ref(), b"?"].concat());
    }
    event
}

fn clear(mut event: ToHandler) -> ToHandler {
    match &mut event {
        ToHandler::FindNodeRes { closer_peers, .. } => closer_peers.clear(),
        ToHandler::GetRecordRes { record, closer_peers, .. } => {
            *record = None;
            closer_peers.clear();
        }
        ToHandler::GetProvidersRes { closer_peers, provider_peers, .. } => {
            closer_peers.clear();
            provider_peers.clear();
        }
        _ => {}
    }
    event
}

impl NetworkBehaviour for ScriptedKad {
    type ConnectionHandler = THandler<BareKad>;
    type ToSwarm = kad::Event;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.kad.handle_established_inbound_connection(connection, peer, local, remote)
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
        address: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.kad.handle_established_outbound_connection(connection, peer, address, role, port)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        self.kad.on_swarm_event(event);
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, connection: ConnectionId, event: THandlerOutEvent<Self>) {
        self.kad.on_connection_handler_event(peer, connection, event);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<KadAction> {
        while let Poll::Ready(action) = self.kad.poll(cx) {
            if let Some(action) = self.apply(action) {
                return Poll::Ready(action);
            }
        }
        match self.slow.poll_next_unpin(cx) {
            Poll::Ready(Some(action)) => Poll::Ready(action),
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}
