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

/// kad protocol of the tests.
pub const PROTOCOL: StreamProtocol = StreamProtocol::new("/kadence-tests/kad/1.0.0");

/// Event of a node's swarm.
pub type NodeEvent = SwarmEvent<BehaviourEvent>;

/// Peer id and address of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contact {
    /// Id of the node.
    pub peer: PeerId,
    /// Listen address of the node.
    pub address: Multiaddr,
}

/// Configuration of a test node.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// Key pair of the node.
    pub keypair: Keypair,
    /// Configuration of the driver.
    pub driver: DriverConfig,
    /// Configuration of kad.
    pub kad: kad::Config,
    /// Limits of kad's store.
    pub store: MemoryStoreConfig,
    /// Keeps the node's events for the test. By default they are read, and addresses learned through identify are added
    /// to kad's routing table.
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
    /// Sets the maximum number of running queries.
    pub fn max_running(mut self, max_running: usize) -> Self {
        self.driver.tracker.max_running = max_running;
        self
    }

    /// Sets the key pair.
    pub fn keypair(mut self, keypair: Keypair) -> Self {
        self.keypair = keypair;
        self
    }

    /// Keeps the node's events for the test.
    pub fn keep_events(mut self) -> Self {
        self.keep_events = true;
        self
    }

    pub(crate) fn bare_kad(&self) -> kad::Behaviour<MemoryStore> {
        let peer = self.keypair.public().to_peer_id();
        let store = MemoryStore::with_config(peer, self.store.clone());
        let mut kad = kad::Behaviour::with_config(peer, store, self.kad.clone());
        // Without a confirmed external address, kad would run in client mode.
        kad.set_mode(Some(Mode::Server));
        kad
    }

    /// Returns the behaviour of the node, for a swarm that the test drives itself.
    pub fn behaviour(&self) -> Behaviour {
        Behaviour { kad: self.bare_kad(), identify: identify(self.keypair.public()) }
    }
}

pub(crate) fn identify(key: PublicKey) -> identify::Behaviour {
    identify::Behaviour::new(identify::Config::new("/kadence-tests/1.0.0".to_owned(), key))
}

/// Node whose driver runs in a task.
pub struct Node {
    /// Peer id and listen address.
    pub contact: Contact,
    /// Client of the node.
    pub client: Client,
    /// Handle to the node's swarm.
    pub swarm: SwarmHandle<Behaviour>,
    /// Task of the driver.
    pub task: Task,
    /// Events of the swarm, if they are kept.
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
        let (new_peer_sender, new_peers) = async_channel::unbounded();
        let mut kept = None;
        if config.keep_events {
            kept = Some(events);
        } else {
            runtime.spawn(Box::pin(add_identified_peers(events, swarm.clone(), new_peer_sender)));
        }
        Self { contact, client, swarm, task, events: kept, new_peers }
    }

    /// Id of the node.
    pub fn peer(&self) -> PeerId {
        self.contact.peer
    }

    /// Adds a contact to the routing table.
    pub async fn add_contact(&self, contact: &Contact) {
        let Contact { peer, address } = contact.clone();
        self.swarm
            .with(move |swarm| {
                swarm.behaviour_mut().kad.add_address(&peer, address);
            })
            .await
            .expect("the driver runs");
    }

    /// Waits until the routing table has this number of peers.
    pub async fn wait_for_peers(&self, peers: usize) {
        while self.known_peers().await < peers {
            self.new_peers.recv().await.expect("the task that reads events runs");
        }
    }

    /// Returns the number of peers in the routing table.
    pub async fn known_peers(&self) -> usize {
        let count = |swarm: &mut Swarm<Behaviour>| -> usize {
            swarm.behaviour_mut().kad.kbuckets().map(|bucket| bucket.num_entries()).sum()
        };
        self.swarm.with(count).await.expect("the driver runs")
    }

    /// Puts a record into the local store, bypassing Kadence.
    pub async fn store_locally(&self, record: Record) {
        self.store_all_locally([record]).await;
    }

    /// Puts records into the local store, bypassing Kadence.
    pub async fn store_all_locally(&self, records: impl IntoIterator<Item = Record>) {
        let records: Vec<_> = records.into_iter().collect();
        let put = move |swarm: &mut Swarm<Behaviour>| {
            let store = swarm.behaviour_mut().kad.store_mut();
            records.into_iter().try_for_each(|record| store.put(record))
        };
        self.swarm.with(put).await.expect("the driver runs").expect("the store has room");
    }

    /// Returns a record of the local store.
    pub async fn local_record(&self, key: &RecordKey) -> Option<Record> {
        let key = key.clone();
        let get = move |swarm: &mut Swarm<Behaviour>| {
            swarm.behaviour_mut().kad.store_mut().get(&key).map(|record| record.into_owned())
        };
        self.swarm.with(get).await.expect("the driver runs")
    }

    /// Returns the providers of a key in the local store.
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

/// Does what an application has to do for kad, until the driver is closed.
async fn add_identified_peers(
    mut events: Events<NodeEvent>,
    swarm: SwarmHandle<Behaviour>,
    new_peer_sender: async_channel::Sender<PeerId>,
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
                let _receiver_dropped = new_peer_sender.try_send(peer);
            }
            _ => {}
        }
    }
}

/// Returns the queries that kad is running, except bootstraps, which kad also starts by itself.
pub async fn live_queries<B: ContainsKad>(swarm: &SwarmHandle<B>) -> Vec<QueryId> {
    with_kad(swarm, |kad| {
        kad.iter_queries()
            .filter(|query| !matches!(query.info(), QueryInfo::Bootstrap { .. }))
            .map(|query| query.id())
            .collect()
    })
    .await
}

/// Runs a closure on the kad behaviour of a driven swarm.
pub async fn with_kad<B: ContainsKad, T: Send + 'static>(
    swarm: &SwarmHandle<B>,
    f: impl FnOnce(&mut kad::Behaviour<B::Store>) -> T + Send + 'static,
) -> T {
    swarm.with(|swarm| f(swarm.behaviour_mut().kad())).await.expect("the driver runs")
}
