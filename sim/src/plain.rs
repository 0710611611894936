//! Plain `kad::Behaviour` with the map of queries that every application writes, to compare with.

use std::{
    collections::{HashMap, HashSet},
    io,
    time::Duration,
};

use futures::{
    FutureExt, StreamExt,
    channel::{mpsc, oneshot},
};
use kadence::{Runtime, node::DEFAULT_PROTOCOL};
use libp2p::{
    Multiaddr, PeerId, Swarm, identify,
    identity::Keypair,
    kad::{
        self, AddProviderOk, GetClosestPeersOk, GetProvidersOk, GetRecordOk, Mode, QueryId, QueryResult, Quorum,
        Record, RecordKey, store::MemoryStore,
    },
    multiaddr::Protocol,
    ping,
    swarm::{NetworkBehaviour, SwarmEvent},
};

use crate::{Host, PORT, members::IDLE_CONNECTION_TIMEOUT};

/// Interval of kad's own bootstraps, as of Kadence's nodes.
const BOOTSTRAP: Duration = Duration::from_secs(5 * 60);

/// Node with `kad::Behaviour`, identify and ping, driven by a loop that answers each query by its id. Reads finish their query
/// as soon as they have what they want. Runs until its host is killed.
pub struct PlainNode {
    /// The host.
    pub host: Host,
    peer: PeerId,
    commands: mpsc::UnboundedSender<Command>,
}

enum Command {
    Get(RecordKey, usize, oneshot::Sender<Option<Record>>),
    Put(Record, Quorum, oneshot::Sender<bool>),
    Closest(Vec<u8>, oneshot::Sender<Vec<PeerId>>),
    Provide(RecordKey, oneshot::Sender<bool>),
    Providers(RecordKey, oneshot::Sender<HashSet<PeerId>>),
}

enum Pending {
    Get(usize, Option<Record>, oneshot::Sender<Option<Record>>),
    Put(oneshot::Sender<bool>),
    Closest(oneshot::Sender<Vec<PeerId>>),
    Provide(oneshot::Sender<bool>),
    Providers(HashSet<PeerId>, oneshot::Sender<HashSet<PeerId>>),
}

#[derive(NetworkBehaviour)]
#[behaviour(prelude = "libp2p::swarm::derive_prelude")]
struct Behaviour {
    kad: kad::Behaviour<MemoryStore>,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
}

impl PlainNode {
    /// Starts a node on a host. It listens on [`PORT`] and joins through the peers at the addresses, which end with peer ids.
    ///
    /// # Errors
    ///
    /// If the port is taken or an address cannot be dialled.
    pub fn start(host: Host, known: &[Multiaddr]) -> io::Result<Self> {
        let keypair = Keypair::generate_ed25519();
        let (peer, runtime) = (keypair.public().to_peer_id(), host.runtime());
        let mut config = kad::Config::new(DEFAULT_PROTOCOL);
        config.set_periodic_bootstrap_interval(Some(BOOTSTRAP)).set_max_packet_size(128 * 1024);
        let mut kad = kad::Behaviour::with_config(peer, MemoryStore::new(peer), config);
        kad.set_mode(Some(Mode::Server));
        let agent = identify::Config::new("/plain/1".to_owned(), keypair.public());
        let behaviour = Behaviour { kad, identify: identify::Behaviour::new(agent), ping: ping::Behaviour::default() };
        let mut swarm = host.swarm(peer, behaviour, IDLE_CONNECTION_TIMEOUT);
        swarm.listen_on(host.multiaddr(PORT)).map_err(io::Error::other)?;
        for address in known {
            if let Some(Protocol::P2p(peer)) = address.iter().last() {
                swarm.behaviour_mut().kad.add_address(&peer, address.clone());
            }
            swarm.dial(address.clone()).map_err(io::Error::other)?;
        }
        let (commands, received) = mpsc::unbounded();
        runtime.spawn(drive(swarm, received).boxed());
        Ok(Self { host, peer, commands })
    }

    /// Returns the peer id.
    pub fn peer_id(&self) -> PeerId {
        self.peer
    }

    /// Returns the address, with the peer id.
    pub fn address(&self) -> Multiaddr {
        self.host.multiaddr(PORT).with(Protocol::P2p(self.peer))
    }

    /// Gets a record, from this number of peers.
    pub async fn get_record(&self, key: impl Into<RecordKey>, from: usize) -> Option<Record> {
        self.ask(|answer| Command::Get(key.into(), from, answer)).await.flatten()
    }

    /// Puts a record. Returns whether the quorum was reached.
    pub async fn put_record(&self, record: Record, quorum: Quorum) -> bool {
        self.ask(|answer| Command::Put(record, quorum, answer)).await.unwrap_or_default()
    }

    /// Looks up the peers that are closest to a key.
    pub async fn get_closest_peers(&self, key: Vec<u8>) -> Vec<PeerId> {
        self.ask(|answer| Command::Closest(key, answer)).await.unwrap_or_default()
    }

    /// Announces the node as a provider.
    pub async fn start_providing(&self, key: impl Into<RecordKey>) -> bool {
        self.ask(|answer| Command::Provide(key.into(), answer)).await.unwrap_or_default()
    }

    /// Looks up providers, until one is found.
    pub async fn get_providers(&self, key: impl Into<RecordKey>) -> HashSet<PeerId> {
        self.ask(|answer| Command::Providers(key.into(), answer)).await.unwrap_or_default()
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        let _ended = self.commands.unbounded_send(command(answer));
        answered.await.ok()
    }
}

async fn drive(mut swarm: Swarm<Behaviour>, mut commands: mpsc::UnboundedReceiver<Command>) {
    let mut pending: HashMap<QueryId, Pending> = HashMap::new();
    loop {
        futures::select_biased! {
            event = swarm.select_next_some() => on_event(&mut swarm, &mut pending, event),
            command = commands.next() => match command {
                Some(command) => begin(&mut swarm, &mut pending, command),
                // The node goes on serving others.
                None => break,
            },
        }
    }
    loop {
        let event = swarm.select_next_some().await;
        on_event(&mut swarm, &mut pending, event);
    }
}

fn begin(swarm: &mut Swarm<Behaviour>, pending: &mut HashMap<QueryId, Pending>, command: Command) {
    let kad = &mut swarm.behaviour_mut().kad;
    let (id, waits) = match command {
        Command::Get(key, from, answer) => (kad.get_record(key), Pending::Get(from, None, answer)),
        Command::Put(record, quorum, answer) => match kad.put_record(record, quorum) {
            Ok(id) => (id, Pending::Put(answer)),
            Err(_full) => {
                let _gone = answer.send(false);
                return;
            }
        },
        Command::Closest(key, answer) => (kad.get_closest_peers(key), Pending::Closest(answer)),
        Command::Provide(key, answer) => match kad.start_providing(key) {
            Ok(id) => (id, Pending::Provide(answer)),
            Err(_full) => {
                let _gone = answer.send(false);
                return;
            }
        },
        Command::Providers(key, answer) => (kad.get_providers(key), Pending::Providers(HashSet::new(), answer)),
    };
    pending.insert(id, waits);
}

fn on_event(swarm: &mut Swarm<Behaviour>, pending: &mut HashMap<QueryId, Pending>, event: SwarmEvent<BehaviourEvent>) {
    match event {
        SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received { peer_id, info, .. }))
            if info.protocols.contains(&DEFAULT_PROTOCOL) =>
        {
            for address in info.listen_addrs {
                swarm.behaviour_mut().kad.add_address(&peer_id, address);
            }
        }
        SwarmEvent::Behaviour(BehaviourEvent::Kad(kad::Event::OutboundQueryProgressed {
            id, result, step, ..
        })) => {
            let Some(waits) = pending.remove(&id) else { return };
            match on_result(waits, result, step.last) {
                Next::Wait(waits) => drop(pending.insert(id, waits)),
                Next::Finish => swarm.behaviour_mut().kad.query_mut(&id).iter_mut().for_each(|query| query.finish()),
            }
        }
        _ => {}
    }
}

enum Next {
    Wait(Pending),
    Finish,
}

/// Takes a result of a query. A caller that has gone misses nothing.
fn on_result(waits: Pending, result: QueryResult, is_last: bool) -> Next {
    match (waits, result) {
        (Pending::Get(left, first, answer), QueryResult::GetRecord(result)) => {
            let (left, first) = match result {
                Ok(GetRecordOk::FoundRecord(found)) => (left.saturating_sub(1), first.or(Some(found.record))),
                _ => (left, first),
            };
            if left > 0 && !is_last {
                return Next::Wait(Pending::Get(left, first, answer));
            }
            // Fewer than were asked for is not what was asked for.
            let _gone = answer.send(first.filter(|_| left == 0));
        }
        (Pending::Put(answer), QueryResult::PutRecord(result)) => {
            let _gone = answer.send(result.is_ok());
        }
        (Pending::Closest(answer), QueryResult::GetClosestPeers(result)) => {
            let peers = result.map(|GetClosestPeersOk { peers, .. }| peers).unwrap_or_default();
            let _gone = answer.send(peers.into_iter().map(|peer| peer.peer_id).collect());
        }
        (Pending::Provide(answer), QueryResult::StartProviding(result)) => {
            let _gone = answer.send(result.is_ok_and(|AddProviderOk { .. }| true));
        }
        (Pending::Providers(mut found, answer), QueryResult::GetProviders(result)) => {
            if let Ok(GetProvidersOk::FoundProviders { providers, .. }) = result {
                found.extend(providers);
            }
            if found.is_empty() && !is_last {
                return Next::Wait(Pending::Providers(found, answer));
            }
            let _gone = answer.send(found);
        }
        // An event of another kind has another query's id.
        (waits, _) => return Next::Wait(waits),
    }
    Next::Finish
}
