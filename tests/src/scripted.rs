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

use crate::{BareKad, Bed, Contact, NodeConfig, PROTOCOL, TestRuntime, node::identify, with_kad};

/// More bytes than any node's packets may hold.
const TOO_LONG: usize = 256 * 1024;

/// What a request asks for. An announcement is none: nobody answers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asks {
    /// The peers closest to a target.
    Closest,
    /// The record under a key.
    Record,
    /// To keep a record.
    Put,
    /// The providers of a key.
    Providers,
}

/// What a peer makes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Conduct {
    /// Answers what it has.
    Prompt,
    /// The same, after this time.
    Slow(Duration),
    /// Never answers. It keeps what is put.
    Silent,
    /// Breaks the stream off, and keeps nothing: it sends what nobody can read, and the asker's stream ends with an error.
    ///
    /// kad's own refusal only asks for the stream to be closed and wakes nobody to do it, so that the asker mostly waits
    /// for its timeout: to a lookup that is [`Silent`](Self::Silent).
    Refuses,
    /// Closes the connection, with every request that is under way on it, and keeps nothing.
    HangsUp,
    /// Sends this value in place of that of the record that it has.
    Lies(Vec<u8>),
    /// Sends the record that it has under the name of another key.
    WrongKey,
    /// Has no record, no provider and no closer peer for anybody.
    Empty,
}

/// A scripted peer, before it is started.
#[derive(Clone)]
pub struct Script {
    conduct: Arc<dyn Fn(Asks) -> Conduct + Send + Sync>,
    records: Vec<Record>,
    providers: Vec<(RecordKey, PeerId)>,
}

impl Script {
    /// Treats all requests alike.
    pub fn always(conduct: Conduct) -> Self {
        Self::of(move |_| conduct.clone())
    }

    /// Treats requests of one kind like this, and all others as it should.
    pub fn only(asks: Asks, conduct: Conduct) -> Self {
        Self::of(move |asked| if asked == asks { conduct.clone() } else { Conduct::Prompt })
    }

    /// Decides by what is asked.
    pub fn of(conduct: impl Fn(Asks) -> Conduct + Send + Sync + 'static) -> Self {
        Self { conduct: Arc::new(conduct), records: Vec::new(), providers: Vec::new() }
    }

    /// Has a record from the beginning.
    #[must_use]
    pub fn holds(mut self, record: Record) -> Self {
        self.records.push(record);
        self
    }

    /// Knows a provider from the beginning.
    #[must_use]
    pub fn names(mut self, key: RecordKey, provider: PeerId) -> Self {
        self.providers.push((key, provider));
        self
    }
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { conduct: _, records, providers } = self;
        f.debug_struct("Script").field("records", records).field("providers", providers).finish_non_exhaustive()
    }
}

/// A peer that behaves by a [`Script`]: a real kad in a real swarm, whose answers are changed, held back or thrown away
/// on their way to the connection.
#[derive(Debug)]
pub struct ScriptedNode {
    /// Who it is and where it listens.
    pub contact: Contact,
    swarm: SwarmHandle<ScriptedBehaviour>,
    _task: Task,
}

impl ScriptedNode {
    /// Its id.
    pub fn peer(&self) -> PeerId {
        self.contact.peer
    }

    /// What it has under a key.
    pub async fn local_record(&self, key: &RecordKey) -> Option<Record> {
        let key = key.clone();
        let get = move |kad: &mut BareKad| kad.store_mut().get(&key).map(|record| record.into_owned());
        with_kad(&self.swarm, get).await
    }
}

impl<R: TestRuntime> Bed<R> {
    /// Peers that behave by these scripts and know each other.
    pub async fn scripted(&self, scripts: impl IntoIterator<Item = Script>) -> Vec<ScriptedNode> {
        let mut nodes: Vec<ScriptedNode> = Vec::new();
        for script in scripts {
            let keypair = Keypair::generate_ed25519();
            let runtime = self.runtime().clone();
            let sleep = move |span| -> BoxFuture<'static, ()> {
                let mut timer = Box::pin(runtime.timer(runtime.now() + span));
                poll_fn(move |cx| timer.as_mut().poll_elapsed(cx)).boxed()
            };
            let Script { conduct, records, providers } = script;
            let mut kad = NodeConfig::default().keypair(keypair.clone()).bare_kad();
            for record in records {
                kad.store_mut().put(record).expect("the store takes it");
            }
            for (key, provider) in providers {
                // Without an address kad would keep it to itself. Nobody listens there.
                let nowhere = "/memory/1".parse().expect("an address");
                let entry = ProviderRecord::new(key, provider, vec![nowhere]);
                kad.store_mut().add_provider(entry).expect("the store takes it");
            }
            let kad = ScriptedKad { kad, conduct, sleep: Box::new(sleep), slow: FuturesUnordered::new() };
            let behaviour = ScriptedBehaviour { kad, identify: identify(keypair.public()) };
            let (swarm, contact) = self.listening(&keypair, behaviour).await;
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

    /// A ready-made node of this network that only asks, and knows these peers.
    pub async fn asker<'a>(
        &self,
        config: node::NodeConfig,
        contacts: impl IntoIterator<Item = &'a Contact>,
    ) -> node::Node {
        let known = contacts.into_iter().map(|contact| contact.address.clone().with_p2p(contact.peer));
        let config = config
            .protocol(PROTOCOL)
            .mode(Mode::Client)
            .bootstrap_peers(known.map(|address| address.expect("it names no other peer")));
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

/// A scripted peer's behaviour.
#[derive(NetworkBehaviour)]
#[behaviour(prelude = "libp2p::swarm::derive_prelude")]
pub(crate) struct ScriptedBehaviour {
    /// By the script.
    pub(crate) kad: ScriptedKad,
    /// As usual.
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
type Order = ToSwarm<kad::Event, ToHandler>;

/// kad, with its answers changed on their way out.
pub(crate) struct ScriptedKad {
    kad: BareKad,
    conduct: Arc<dyn Fn(Asks) -> Conduct + Send + Sync>,
    sleep: Box<dyn Fn(Duration) -> BoxFuture<'static, ()> + Send + Sync>,
    /// Answers whose time has not come.
    slow: FuturesUnordered<BoxFuture<'static, Order>>,
}

impl fmt::Debug for ScriptedKad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScriptedKad").finish_non_exhaustive()
    }
}

impl ScriptedKad {
    /// What becomes of something that kad wants, at once.
    fn play(&mut self, order: Order) -> Option<Order> {
        let ToSwarm::NotifyHandler { peer_id, handler: NotifyHandler::One(connection), event } = order else {
            return Some(order);
        };
        let answer = move |event| ToSwarm::NotifyHandler { peer_id, handler: NotifyHandler::One(connection), event };
        let (asks, request_id) = match &event {
            ToHandler::FindNodeRes { closer_peers: _, request_id } => (Asks::Closest, *request_id),
            ToHandler::GetRecordRes { record: _, closer_peers: _, request_id } => (Asks::Record, *request_id),
            ToHandler::PutRecordRes { key: _, value: _, request_id } => (Asks::Put, *request_id),
            ToHandler::GetProvidersRes { closer_peers: _, provider_peers: _, request_id } => {
                (Asks::Providers, *request_id)
            }
            // Not an answer: requests of its own, and refusals.
            _ => return Some(answer(event)),
        };
        let conduct = (self.conduct)(asks);
        if matches!(conduct, Conduct::Refuses | Conduct::HangsUp)
            && let ToHandler::PutRecordRes { key, .. } = &event
        {
            self.kad.store_mut().remove(key);
        }
        match conduct {
            Conduct::Prompt => Some(answer(event)),
            Conduct::Slow(span) => {
                self.slow.push((self.sleep)(span).map(move |()| answer(event)).boxed());
                None
            }
            Conduct::Silent => None,
            // To whatever question: the asker looks at the length first.
            Conduct::Refuses => {
                let (key, value) = (RecordKey::new(b""), vec![0; TOO_LONG]);
                Some(answer(ToHandler::PutRecordRes { key, value, request_id }))
            }
            Conduct::HangsUp => {
                Some(ToSwarm::CloseConnection { peer_id, connection: CloseConnection::One(connection) })
            }
            Conduct::Lies(value) => Some(answer(lie(event, value))),
            Conduct::WrongKey => Some(answer(rename(event))),
            Conduct::Empty => Some(answer(empty(event))),
        }
    }
}

fn lie(mut event: ToHandler, lie: Vec<u8>) -> ToHandler {
    if let ToHandler::GetRecordRes { record: Some(record), .. } = &mut event {
        record.value = lie;
    }
    event
}

fn rename(mut event: ToHandler) -> ToHandler {
    if let ToHandler::GetRecordRes { record: Some(record), .. } = &mut event {
        record.key = RecordKey::new(&[record.key.as_ref(), b"?"].concat());
    }
    event
}

fn empty(mut event: ToHandler) -> ToHandler {
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

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Order> {
        while let Poll::Ready(order) = self.kad.poll(cx) {
            if let Some(order) = self.play(order) {
                return Poll::Ready(order);
            }
        }
        match self.slow.poll_next_unpin(cx) {
            Poll::Ready(Some(order)) => Poll::Ready(order),
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}
