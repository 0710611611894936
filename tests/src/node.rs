use std::fmt;

use async_channel::Receiver;
use futures::StreamExt;
use kadence::{Client, ContainsKad, DriverConfig, Events, Runtime, Spawned, SwarmHandle, Task, spawn};
use libp2p::{
    Multiaddr, PeerId, StreamProtocol, Swarm, identify,
    identity::{Keypair, PublicKey},
    kad::{
        self, Mode, QueryId, QueryInfo, Record, RecordKey,
        store::{MemoryStore, MemoryStoreConfig, RecordStore},
    },
    swarm::SwarmEvent,
};

use crate::{Behaviour, BehaviourEvent};

/// The name of the tests' DHT.
pub const PROTOCOL: StreamProtocol = StreamProtocol::new("/kadence-tests/kad/1.0.0");

/// An event of a node's swarm.
pub type NodeEvent = SwarmEvent<BehaviourEvent>;

/// Who a node is and where it listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contact {
    /// Its id.
    pub peer: PeerId,
    /// Its only address.
    pub address: Multiaddr,
}

/// How a node differs from the ordinary one.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// Who it is.
    pub keypair: Keypair,
    /// Its driver's configuration.
    pub driver: DriverConfig,
    /// Its kad's configuration.
    pub kad: kad::Config,
    /// How much its store takes.
    pub store: MemoryStoreConfig,
    /// Leave the node's events to the test. Otherwise they are read, and what identify learns goes to kad.
    pub keep_events: bool,
}

impl Default for NodeConfig {
    fn default() -> Self {
        let mut kad = kad::Config::new(PROTOCOL);
        kad.set_periodic_bootstrap_interval(None);
        Self {
            keypair: Keypair::generate_ed25519(),
            driver: DriverConfig::default(),
            kad,
            store: MemoryStoreConfig::default(),
            keep_events: false,
        }
    }
}

impl NodeConfig {
    /// With so many slots.
    pub fn max_running(mut self, max_running: usize) -> Self {
        self.driver.tracker.max_running = max_running;
        self
    }

    /// As this peer.
    pub fn keypair(mut self, keypair: Keypair) -> Self {
        self.keypair = keypair;
        self
    }

    /// With its events left to the test.
    pub fn keep_events(mut self) -> Self {
        self.keep_events = true;
        self
    }

    pub(crate) fn bare_kad(&self) -> kad::Behaviour<MemoryStore> {
        let peer = self.keypair.public().to_peer_id();
        let store = MemoryStore::with_config(peer, self.store.clone());
        let mut kad = kad::Behaviour::with_config(peer, store, self.kad.clone());
        // Without a confirmed external address kad would only be a client.
        kad.set_mode(Some(Mode::Server));
        kad
    }

    /// Its behaviour, for a swarm that is driven in another way.
    pub fn behaviour(&self) -> Behaviour {
        Behaviour { kad: self.bare_kad(), identify: identify(self.keypair.public()) }
    }
}

pub(crate) fn identify(key: PublicKey) -> identify::Behaviour {
    identify::Behaviour::new(identify::Config::new("/kadence-tests/1.0.0".to_owned(), key))
}

/// A node that is driven in a task.
pub struct Node {
    /// Who it is and where it listens.
    pub contact: Contact,
    /// Its client.
    pub client: Client,
    /// Its swarm.
    pub swarm: SwarmHandle<Behaviour>,
    /// Its driver's task.
    pub task: Task,
    /// Its events, if they were to be kept.
    pub events: Option<Events<NodeEvent>>,
    new_peers: Receiver<PeerId>,
}

impl Node {
    pub(crate) fn drive<R: Runtime>(
        runtime: &R,
        swarm: Swarm<Behaviour>,
        contact: Contact,
        config: NodeConfig,
    ) -> Self {
        let Spawned { client, swarm, events, task } = spawn(runtime, swarm, config.driver);
        let (learned, new_peers) = async_channel::unbounded();
        let mut kept = None;
        if config.keep_events {
            kept = Some(events);
        } else {
            runtime.spawn(Box::pin(tell_kad_what_identify_learns(events, swarm.clone(), learned)));
        }
        Self { contact, client, swarm, task, events: kept, new_peers }
    }

    /// Its id.
    pub fn peer(&self) -> PeerId {
        self.contact.peer
    }

    /// Puts a contact into the routing table.
    pub async fn meets(&self, contact: &Contact) {
        let Contact { peer, address } = contact.clone();
        self.swarm
            .with(move |swarm| {
                swarm.behaviour_mut().kad.add_address(&peer, address);
            })
            .await
            .expect("the driver runs");
    }

    /// Waits until the routing table has so many peers.
    pub async fn knows(&self, peers: usize) {
        while self.known_peers().await < peers {
            self.new_peers.recv().await.expect("the node's events are read");
        }
    }

    /// How many peers the routing table has.
    pub async fn known_peers(&self) -> usize {
        let count = |swarm: &mut Swarm<Behaviour>| -> usize {
            swarm.behaviour_mut().kad.kbuckets().map(|bucket| bucket.num_entries()).sum()
        };
        self.swarm.with(count).await.expect("the driver runs")
    }

    /// Puts a record into the local store, behind Kadence's back.
    pub async fn holds(&self, record: Record) {
        self.holds_all([record]).await;
    }

    /// Puts records into the local store, behind Kadence's back.
    pub async fn holds_all(&self, records: impl IntoIterator<Item = Record>) {
        let records: Vec<_> = records.into_iter().collect();
        let put = move |swarm: &mut Swarm<Behaviour>| {
            let store = swarm.behaviour_mut().kad.store_mut();
            records.into_iter().try_for_each(|record| store.put(record))
        };
        self.swarm.with(put).await.expect("the driver runs").expect("the store takes them");
    }

    /// The record in the local store.
    pub async fn local_record(&self, key: &RecordKey) -> Option<Record> {
        let key = key.clone();
        let get = move |swarm: &mut Swarm<Behaviour>| {
            swarm.behaviour_mut().kad.store_mut().get(&key).map(|record| record.into_owned())
        };
        self.swarm.with(get).await.expect("the driver runs")
    }

    /// The providers in the local store.
    pub async fn local_providers(&self, key: &RecordKey) -> Vec<PeerId> {
        let key = key.clone();
        let get = move |swarm: &mut Swarm<Behaviour>| {
            swarm.behaviour_mut().kad.store_mut().providers(&key).iter().map(|entry| entry.provider).collect()
        };
        self.swarm.with(get).await.expect("the driver runs")
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("contact", &self.contact).finish_non_exhaustive()
    }
}

/// What an application has to do for its kad, until the driver is gone.
async fn tell_kad_what_identify_learns(
    mut events: Events<NodeEvent>,
    swarm: SwarmHandle<Behaviour>,
    learned: async_channel::Sender<PeerId>,
) {
    while let Some(event) = events.next().await {
        match event {
            Ok(SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received {
                peer_id, info, ..
            }))) if info.protocols.contains(&PROTOCOL) => {
                let add = move |swarm: &mut Swarm<Behaviour>| {
                    for address in info.listen_addrs {
                        swarm.behaviour_mut().kad.add_address(&peer_id, address);
                    }
                };
                if swarm.with(add).await.is_err() {
                    return;
                }
            }
            Ok(SwarmEvent::Behaviour(BehaviourEvent::Kad(kad::Event::RoutingUpdated {
                peer,
                is_new_peer: true,
                ..
            }))) => {
                // The test may not wait for it.
                let _unheard = learned.try_send(peer);
            }
            _ => {}
        }
    }
}

/// What kad runs at this moment, without its bootstraps, which it begins by itself.
pub async fn live_queries<B: ContainsKad>(swarm: &SwarmHandle<B>) -> Vec<QueryId> {
    with_kad(swarm, |kad| {
        kad.iter_queries()
            .filter(|query| !matches!(query.info(), QueryInfo::Bootstrap { .. }))
            .map(|query| query.id())
            .collect()
    })
    .await
}

/// Runs a closure on a driven kad.
pub async fn with_kad<B: ContainsKad, T: Send + 'static>(
    swarm: &SwarmHandle<B>,
    f: impl FnOnce(&mut kad::Behaviour<B::Store>) -> T + Send + 'static,
) -> T {
    swarm.with(|swarm| f(swarm.behaviour_mut().kad())).await.expect("the driver runs")
}
