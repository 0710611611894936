//! Peers that are not Kadence's: servers of the DHT with a behaviour of their own, honest or not.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{AsyncReadExt, AsyncWriteExt, FutureExt, StreamExt};
use futures_timer::Delay;
use kadence::{Runtime, node::DEFAULT_PROTOCOL};
use libp2p::{
    Multiaddr, PeerId, Stream, Swarm, identify,
    identity::Keypair,
    kad::KBucketKey,
    multiaddr::Protocol,
    ping,
    swarm::{NetworkBehaviour, SwarmEvent},
};
use libp2p_stream::{Control, IncomingStreams};
use prost::Message as _;
use rand::RngCore;

use crate::{Host, PORT, World, members::IDLE_CONNECTION_TIMEOUT};

/// Peers that an answer names.
const CLOSEST: usize = 20;

/// Longest message that is read.
const MAX_MESSAGE: usize = 1 << 20;

/// Time for which a provider is kept, and a record that says nothing.
const LIFE: Duration = Duration::from_secs(48 * 60 * 60);

/// Time after which a peer gives up a request.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Message types of the kad protocol.
const PUT_VALUE: i32 = 0;
const GET_VALUE: i32 = 1;
const ADD_PROVIDER: i32 = 2;
const GET_PROVIDERS: i32 = 3;

/// Behaviour of a [`ForeignPeer`]. Each answers pings and identify, and stores and answers honestly where nothing else is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Habit {
    /// Stores, and answers every request.
    Honest,
    /// Accepts every request and answers none.
    Silent,
    /// Answers each request for a record with the value [`WRONG_VALUE`].
    WrongValue,
    /// Answers each request for a record with a record of another key.
    WrongKey,
    /// Names this number of invented peers as the closest ones. Half of them are at ports that refuse, half at addresses
    /// that do not answer.
    InventedPeers(usize),
    /// Names this number of invented providers of each key.
    InventedProviders(usize),
    /// Acknowledges what is put or announced, and does not keep it.
    Dropping,
    /// Keeps the record that expires later, as litep2p does, whatever the values are.
    LaterExpiry,
    /// Does not answer when a record is put, as kad does with a record that its store refuses.
    RefusingBySilence,
}

/// Value of the records that [`Habit::WrongValue`] answers with.
pub const WRONG_VALUE: &[u8] = b"not what was stored";

/// Peer that speaks kad's protocol, with a [`Habit`]. Runs until its host is killed. It asks nothing by itself.
pub struct ForeignPeer {
    /// The host.
    pub host: Host,
    peer: PeerId,
    control: Control,
    state: Arc<Mutex<State>>,
}

struct State {
    habit: Habit,
    own: PeerId,
    world: World,
    own_address: Multiaddr,
    known: BTreeMap<PeerId, Vec<Multiaddr>>,
    records: BTreeMap<Vec<u8>, Stored>,
    providers: BTreeMap<Vec<u8>, BTreeMap<PeerId, Vec<Multiaddr>>>,
    requests: u64,
    /// Streams of requests that are not answered.
    held: Vec<Stream>,
}

struct Stored {
    record: Record,
    /// Virtual time.
    until: Duration,
}

#[derive(NetworkBehaviour)]
#[behaviour(prelude = "libp2p::swarm::derive_prelude")]
struct Behaviour {
    streams: libp2p_stream::Behaviour,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Message {
    #[prost(int32, tag = "1")]
    kind: i32,
    #[prost(bytes = "vec", tag = "2")]
    key: Vec<u8>,
    #[prost(message, optional, tag = "3")]
    record: Option<Record>,
    #[prost(message, repeated, tag = "8")]
    closer: Vec<Peer>,
    #[prost(message, repeated, tag = "9")]
    providers: Vec<Peer>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Record {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
    #[prost(bytes = "vec", tag = "666")]
    publisher: Vec<u8>,
    #[prost(uint32, tag = "777")]
    ttl: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Peer {
    #[prost(bytes = "vec", tag = "1")]
    id: Vec<u8>,
    #[prost(bytes = "vec", repeated, tag = "2")]
    addresses: Vec<Vec<u8>>,
    #[prost(int32, tag = "3")]
    connection: i32,
}

impl ForeignPeer {
    /// Starts a peer on a host. It listens on [`PORT`] and dials the peers at the addresses, which end with peer ids.
    ///
    /// # Errors
    ///
    /// If the port is taken or an address cannot be dialled.
    pub fn start(host: Host, habit: Habit, known: &[Multiaddr]) -> io::Result<Self> {
        Self::start_as(host, &Keypair::generate_ed25519(), habit, known)
    }

    /// Starts a peer with this key pair, as [`start`](Self::start).
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub fn start_as(host: Host, keypair: &Keypair, habit: Habit, known: &[Multiaddr]) -> io::Result<Self> {
        let (peer, runtime) = (keypair.public().to_peer_id(), host.runtime());
        let streams = libp2p_stream::Behaviour::new();
        let mut control = streams.new_control();
        let requests = control.accept(DEFAULT_PROTOCOL).map_err(io::Error::other)?;
        let agent = identify::Config::new("/foreign/1".to_owned(), keypair.public());
        let behaviour =
            Behaviour { streams, identify: identify::Behaviour::new(agent), ping: ping::Behaviour::default() };
        let mut swarm = host.swarm(peer, behaviour, IDLE_CONNECTION_TIMEOUT);
        swarm.listen_on(host.multiaddr(PORT)).map_err(io::Error::other)?;
        for address in known {
            swarm.dial(address.clone()).map_err(io::Error::other)?;
        }
        let state = State {
            habit,
            own: peer,
            world: host.world().clone(),
            own_address: host.multiaddr(PORT),
            known: BTreeMap::new(),
            records: BTreeMap::new(),
            providers: BTreeMap::new(),
            requests: 0,
            held: Vec::new(),
        };
        let state = Arc::new(Mutex::new(state));
        runtime.spawn(learn(swarm, Arc::clone(&state)).boxed());
        runtime.spawn(serve_all(requests, Arc::clone(&state)).boxed());
        Ok(Self { host, peer, control, state })
    }

    /// Returns the peer id.
    pub fn peer_id(&self) -> PeerId {
        self.peer
    }

    /// Returns the address, with the peer id.
    pub fn address(&self) -> Multiaddr {
        self.host.multiaddr(PORT).with(Protocol::P2p(self.peer))
    }

    /// Changes the habit, for the requests to come.
    pub fn set_habit(&self, habit: Habit) {
        lock(&self.state).habit = habit;
    }

    /// Returns the number of requests that have arrived.
    pub fn requests(&self) -> u64 {
        lock(&self.state).requests
    }

    /// Returns whether a record is stored under this key.
    pub fn has_record(&self, key: &[u8]) -> bool {
        lock(&self.state).records.contains_key(key)
    }

    /// Returns the value that is stored under this key.
    pub fn value(&self, key: &[u8]) -> Option<Vec<u8>> {
        lock(&self.state).records.get(key).map(|stored| stored.record.value.clone())
    }

    /// Returns the addresses with which a peer has announced itself as a provider. `None` if it has not.
    pub fn provider_addresses(&self, key: &[u8], provider: PeerId) -> Option<Vec<Multiaddr>> {
        lock(&self.state).providers.get(key)?.get(&provider).cloned()
    }

    /// Stores a record, with this time to live.
    pub fn store(&self, key: Vec<u8>, value: Vec<u8>, life: Duration) {
        let mut state = lock(&self.state);
        let until = state.world.now() + life;
        let record = Record { key: key.clone(), value, ..Record::default() };
        state.records.insert(key, Stored { record, until });
    }

    /// Sends a record to a peer, as a put does that asks nobody for its closest peers. Returns whether the peer
    /// acknowledged it within ten seconds.
    pub async fn put_at(&self, peer: PeerId, key: Vec<u8>, value: Vec<u8>, publisher: Option<PeerId>) -> bool {
        let publisher = publisher.map(PeerId::to_bytes).unwrap_or_default();
        let record = Record { key: key.clone(), value, publisher, ttl: 0 };
        let message = Message { kind: PUT_VALUE, key, record: Some(record), ..Message::default() };
        let mut control = self.control.clone();
        let put = async {
            let Ok(mut stream) = control.open_stream(peer, DEFAULT_PROTOCOL).await else { return false };
            write(&mut stream, &message).await.is_ok() && matches!(read(&mut stream).await, Ok(Some(_)))
        };
        futures::select_biased! {
            was_taken = pin!(put.fuse()) => was_taken,
            () = Delay::new(ANSWER_TIMEOUT).fuse() => false,
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs the swarm, and remembers the servers of the DHT that it meets.
async fn learn(mut swarm: Swarm<Behaviour>, state: Arc<Mutex<State>>) {
    loop {
        let event = swarm.select_next_some().await;
        if let SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received { peer_id, info, .. })) = event
            && info.protocols.contains(&DEFAULT_PROTOCOL)
        {
            lock(&state).known.insert(peer_id, info.listen_addrs);
        }
    }
}

async fn serve_all(requests: IncomingStreams, state: Arc<Mutex<State>>) {
    requests
        .for_each_concurrent(None, |(from, stream)| {
            let state = Arc::clone(&state);
            async move {
                // A peer that breaks off ends its own stream alone.
                let _broken = serve(from, stream, &state).await;
            }
        })
        .await;
}

async fn serve(from: PeerId, mut stream: Stream, state: &Mutex<State>) -> io::Result<()> {
    while let Some(request) = read(&mut stream).await? {
        let answer = lock(state).answer(from, request);
        match answer {
            Answer::Message(message) => write(&mut stream, &message).await?,
            Answer::Nothing => {}
            Answer::Silence => {
                lock(state).held.push(stream);
                return Ok(());
            }
            Answer::Reset => return Ok(()),
        }
    }
    stream.close().await
}

enum Answer {
    Message(Message),
    /// The protocol has no answer to this request.
    Nothing,
    Silence,
    Reset,
}

impl State {
    fn answer(&mut self, from: PeerId, request: Message) -> Answer {
        self.requests += 1;
        if self.habit == Habit::Silent {
            return Answer::Silence;
        }
        match request.kind {
            PUT_VALUE => return self.put(request),
            ADD_PROVIDER => {
                self.add_provider(from, request);
                return Answer::Nothing;
            }
            _ => {}
        }
        let record = if request.kind == GET_VALUE { self.record(&request.key) } else { None };
        let providers = if request.kind == GET_PROVIDERS { self.providers_of(&request.key) } else { Vec::new() };
        let closer = self.closest(&request.key, from);
        Answer::Message(Message { kind: request.kind, key: request.key, record, closer, providers })
    }

    fn put(&mut self, request: Message) -> Answer {
        let Some(record) = &request.record else { return Answer::Reset };
        if self.habit == Habit::RefusingBySilence {
            return Answer::Silence;
        }
        let life = if record.ttl == 0 { LIFE } else { Duration::from_secs(record.ttl.into()) };
        let until = self.world.now() + life;
        let is_kept = match self.habit {
            Habit::Dropping => false,
            Habit::LaterExpiry => self.records.get(&record.key).is_none_or(|stored| stored.until < until),
            _ => true,
        };
        if is_kept {
            self.records.insert(record.key.clone(), Stored { record: record.clone(), until });
        }
        Answer::Message(request)
    }

    fn add_provider(&mut self, from: PeerId, request: Message) {
        if self.habit == Habit::Dropping {
            return;
        }
        // Peers may only announce themselves.
        let own = request.providers.into_iter().find(|provider| provider.id == from.to_bytes());
        let addresses = own.map(|provider| provider.addresses).unwrap_or_default();
        let addresses = addresses.into_iter().filter_map(|address| Multiaddr::try_from(address).ok()).collect();
        self.providers.entry(request.key).or_default().insert(from, addresses);
    }

    fn record(&mut self, key: &[u8]) -> Option<Record> {
        match self.habit {
            Habit::WrongValue => {
                return Some(Record { key: key.to_vec(), value: WRONG_VALUE.to_vec(), ..Record::default() });
            }
            Habit::WrongKey => {
                let other = [key, b" of another"].concat();
                return Some(Record { key: other, value: WRONG_VALUE.to_vec(), ..Record::default() });
            }
            _ => {}
        }
        let now = self.world.now();
        let stored = self.records.get(key).filter(|stored| stored.until > now)?;
        let left = u32::try_from((stored.until - now).as_secs()).unwrap_or(u32::MAX);
        Some(Record { ttl: left.max(1), ..stored.record.clone() })
    }

    fn providers_of(&self, key: &[u8]) -> Vec<Peer> {
        if let Habit::InventedProviders(number) = self.habit {
            return (0..number).map(|at| self.invented(at)).collect();
        }
        self.providers.get(key).into_iter().flatten().map(|(peer, addresses)| message_of(peer, addresses)).collect()
    }

    fn closest(&self, key: &[u8], asker: PeerId) -> Vec<Peer> {
        if let Habit::InventedPeers(number) = self.habit {
            return (0..number).map(|at| self.invented(at)).collect();
        }
        let target = KBucketKey::new(key.to_vec());
        let others = self.known.iter().filter(|(peer, _)| ![asker, self.own].contains(peer));
        let mut by_distance: Vec<_> =
            others.map(|(peer, addresses)| (KBucketKey::from(*peer).distance(&target), peer, addresses)).collect();
        by_distance.sort();
        by_distance.into_iter().take(CLOSEST).map(|(_, peer, addresses)| message_of(peer, addresses)).collect()
    }

    /// Returns a peer that does not exist.
    fn invented(&self, at: usize) -> Peer {
        let mut id = vec![0x12, 0x20];
        id.resize(34, 0);
        self.world.random(|random| random.fill_bytes(id.split_at_mut(2).1));
        let address = if at.is_multiple_of(2) {
            let unused = Protocol::Tcp(u16::try_from(at % 1_000).unwrap_or_default() + 1);
            self.own_address.iter().take(1).chain([unused]).collect::<Multiaddr>()
        } else {
            let [a, b, ..] = id.split_at(2).1 else { return Peer::default() };
            Multiaddr::from(std::net::Ipv4Addr::new(21, *a, *b, 1)).with(Protocol::Tcp(PORT))
        };
        Peer { id, addresses: vec![address.to_vec()], connection: 1 }
    }
}

fn message_of(peer: &PeerId, addresses: &[Multiaddr]) -> Peer {
    Peer { id: peer.to_bytes(), addresses: addresses.iter().map(Multiaddr::to_vec).collect(), connection: 1 }
}

async fn write(stream: &mut Stream, message: &Message) -> io::Result<()> {
    stream.write_all(&message.encode_length_delimited_to_vec()).await?;
    stream.flush().await
}

/// Reads a message. `None`: the stream has ended.
async fn read(stream: &mut Stream) -> io::Result<Option<Message>> {
    let mut bytes = Vec::new();
    let len = loop {
        let mut byte = [0];
        if stream.read(&mut byte).await? == 0 {
            return if bytes.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
        let [byte] = byte;
        bytes.push(byte);
        if byte < 0x80 {
            break prost::decode_length_delimiter(bytes.as_slice()).map_err(io::Error::other)?;
        }
        if bytes.len() > 4 {
            return Err(io::ErrorKind::InvalidData.into());
        }
    };
    if len > MAX_MESSAGE {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = vec![0; len];
    stream.read_exact(&mut bytes).await?;
    Message::decode(bytes.as_slice()).map(Some).map_err(io::Error::other)
}

/// Returns key pairs whose peers are nearer to a key than all but a share of 2<sup>-`bits`</sup> of all peers, as those who
/// want to hold the key would choose them. Takes 2<sup>`bits`</sup> key pairs for each.
pub fn keypairs_near(key: &[u8], bits: u32, number: usize) -> Vec<Keypair> {
    let target = KBucketKey::new(key.to_vec());
    let is_near = |keypair: &Keypair| {
        let distance = KBucketKey::from(keypair.public().to_peer_id()).distance(&target);
        distance.ilog2().is_none_or(|log| log < 256 - bits.min(256))
    };
    let mut seen = BTreeSet::new();
    let drawn = std::iter::repeat_with(Keypair::generate_ed25519).filter(is_near);
    drawn.filter(|keypair| seen.insert(keypair.public().to_peer_id())).take(number).collect()
}
