//! The network that is asked: servers whose stores are filled, and one client node for each way of asking.

use std::time::Duration;

use futures::future::join_all;
use kadence::{DriverConfig, TrackerConfig};
use kadence_tests::{Bed, Behaviour, Contact, Node, NodeConfig, PROTOCOL, TestRuntime, bench::wait, with_kad};
use libp2p::{
    PeerId, Swarm,
    identity::Keypair,
    kad::{
        self, KBucketKey, Mode, Record, RecordKey,
        store::{MemoryStoreConfig, RecordStore},
    },
};

use crate::{
    asking::{Ask, Kadence},
    burst::{self, Gets},
    naive::{Ends, Naive},
    plan::{Cell, Load, Size, Who},
};

/// Bytes of a value: a pointer to something larger, as in most DHTs.
const VALUE_LEN: usize = 64;

/// How long the whole network has to have no query before it is measured on. kad bootstraps by itself half a second
/// after it has learned of a peer.
const QUIET: Duration = Duration::from_secs(1);

/// Between two looks at the whole network.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// A filled network and the clients in it.
pub(crate) struct Network {
    servers: Vec<Node>,
    client: Node,
    kadence: Kadence,
    first_event: Naive,
    first_record: Naive,
}

impl Network {
    /// Starts the nodes, fills their stores, connects the clients, and waits until nothing moves.
    pub(crate) async fn start<R: TestRuntime>(bed: &Bed<R>, size: &Size) -> Self {
        let mut servers: Vec<Node> = Vec::with_capacity(size.servers);
        for n in 0..size.servers {
            let mut config = config(n);
            config.store = MemoryStoreConfig { max_records: size.keys, ..MemoryStoreConfig::default() };
            let server = bed.node_with(config).await;
            for other in &servers {
                server.meets(&other.contact).await;
                other.meets(&server.contact).await;
            }
            servers.push(server);
        }
        fill(&servers, size).await;
        let contacts: Vec<Contact> = servers.iter().map(|server| server.contact.clone()).collect();

        let mut config = config(size.servers);
        config.driver = driver_for(size);
        let client = bed.node_with(config).await;
        with_kad(&client.swarm, |kad| kad.set_mode(Some(Mode::Client))).await;
        for contact in &contacts {
            client.meets(contact).await;
        }
        let kadence = Kadence::new(client.client.clone(), client.swarm.clone());
        let first_event = Naive::start(bed, naive(bed, size.servers + 1, &contacts).await, Ends::Never);
        let first_record = Naive::start(bed, naive(bed, size.servers + 2, &contacts).await, Ends::AtFirstRecord);
        let network = Self { servers, client, kadence, first_event, first_record };
        network.settle(bed).await;
        network
    }

    /// Measures one cell.
    pub(crate) async fn get<R: TestRuntime>(&self, bed: &Bed<R>, cell: Cell, run: usize, size: &Size) -> Gets {
        match cell.who {
            Who::Kadence => gets(bed, &self.kadence, cell.load, run, size).await,
            Who::FirstEvent => gets(bed, &self.first_event, cell.load, run, size).await,
            Who::FirstRecord => gets(bed, &self.first_record, cell.load, run, size).await,
        }
    }

    /// Waits until no node has had a query for a while.
    async fn settle<R: TestRuntime>(&self, bed: &Bed<R>) {
        let mut quiet_since = bed.now();
        while bed.now() - quiet_since < QUIET {
            wait(bed.runtime(), LOOK_AGAIN).await;
            let driven = join_all(self.servers.iter().chain([&self.client]).map(live)).await;
            let naive = futures::join!(self.first_event.live(), self.first_record.live());
            if driven.into_iter().chain([naive.0, naive.1]).any(|live| live > 0) {
                quiet_since = bed.now();
            }
        }
    }
}

async fn gets<R: TestRuntime>(bed: &Bed<R>, client: &impl Ask, load: Load, run: usize, size: &Size) -> Gets {
    let records = size.records(load, run);
    match load {
        Load::Bursts { gets, .. } => {
            let bursts = records.step_by(gets).map(|start| start..start + gets);
            burst::bursts(bed, client, bursts, size.patience()).await
        }
        Load::Callers { callers, .. } => burst::callers(bed, client, callers, records, size.patience()).await,
    }
}

/// The queries of a node, kad's own included.
async fn live(node: &Node) -> usize {
    with_kad(&node.swarm, |kad| kad.iter_queries().count()).await
}

/// The `n`th node, of the servers first. Keys come from `n`, so that every run has the same network.
fn config(n: usize) -> NodeConfig {
    let mut seed = [7; 32];
    seed[..8].copy_from_slice(&(n as u64).to_le_bytes());
    let mut kad = kad::Config::new(PROTOCOL);
    kad.set_periodic_bootstrap_interval(None)
        // Nothing that is not asked for goes over the wire while it is measured.
        .set_replication_interval(None)
        .set_publication_interval(None);
    NodeConfig { keypair: Keypair::ed25519_from_bytes(seed).expect("32 bytes"), kad, ..NodeConfig::default() }
}

/// Kadence as it is by default, with room in the queue and time for the largest burst.
fn driver_for(size: &Size) -> DriverConfig {
    let tracker = TrackerConfig::default().max_queued(size.keys).default_timeout(size.deadline);
    DriverConfig::default().tracker(tracker)
}

async fn naive<R: TestRuntime>(bed: &Bed<R>, n: usize, contacts: &[Contact]) -> Swarm<Behaviour> {
    let config = config(n);
    let (mut swarm, _) = bed.listening(&config.keypair, config.behaviour()).await;
    let kad = &mut swarm.behaviour_mut().kad;
    kad.set_mode(Some(Mode::Client));
    for Contact { peer, address } in contacts {
        kad.add_address(peer, address.clone());
    }
    swarm
}

/// Puts every record into the stores of the servers that are closest to its key.
async fn fill(servers: &[Node], size: &Size) {
    let peers: Vec<KBucketKey<PeerId>> = servers.iter().map(|server| server.peer().into()).collect();
    let mut stores: Vec<Vec<Record>> = servers.iter().map(|_| Vec::new()).collect();
    for n in 0..size.keys {
        let (key, value) = (key(n), value(n));
        let target = KBucketKey::new(key.clone());
        let mut closest: Vec<usize> = (0..servers.len()).collect();
        closest.sort_by_cached_key(|&server| peers[server].distance(&target));
        for &server in closest.iter().take(size.replicas) {
            stores[server].push(Record::new(key.clone(), value.clone()));
        }
    }
    for (server, records) in servers.iter().zip(stores) {
        server.holds_all(records).await;
    }
}

/// The key of the `n`th record.
pub(crate) fn key(n: usize) -> RecordKey {
    RecordKey::new(&format!("record {n}"))
}

/// The value of the `n`th record.
pub(crate) fn value(n: usize) -> Vec<u8> {
    format!("value of {n}. ").into_bytes().into_iter().cycle().take(VALUE_LEN).collect()
}

/// Copies in a client's own store: none, or the next gets would find them there.
pub(crate) fn local_copies(swarm: &mut Swarm<Behaviour>) -> usize {
    swarm.behaviour_mut().kad.store_mut().records().count()
}
