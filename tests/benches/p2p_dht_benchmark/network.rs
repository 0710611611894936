//! Network to measure on: servers with filled stores, and one client node of each kind.

use std::time::Duration;

use futures::future::join_all;
use kadence::{DriverConfig, TrackerConfig};
use kadence_tests::{Behaviour, Contact, Node, NodeConfig, PROTOCOL, TestEnv, TestRuntime, bench::wait, with_kad};
use libp2p::{
    PeerId, Swarm,
    identity::Keypair,
    kad::{
        self, KBucketKey, Mode, Record, RecordKey,
        store::{MemoryStoreConfig, RecordStore},
    },
};

use crate::{
    burst::{self, GetResults},
    client::{GetClient, Kadence},
    naive::{Naive, OnFirstRecord},
    plan::{Case, ClientKind, Load, Size},
};

/// Length of a value in bytes: a pointer to something larger, as in most DHTs.
const VALUE_LEN: usize = 64;

/// Time without any query before measuring. kad bootstraps by itself half a second after it has learned of a peer.
const QUIET: Duration = Duration::from_secs(1);

/// Interval between two checks of the whole network.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Network with filled stores, and its clients.
pub(crate) struct Network {
    servers: Vec<Node>,
    client: Node,
    kadence: Kadence,
    first_event: Naive,
    first_record: Naive,
}

impl Network {
    /// Starts the nodes, fills their stores, connects the clients, and waits until no query is running.
    pub(crate) async fn start<R: TestRuntime>(env: &TestEnv<R>, size: &Size) -> Self {
        let mut servers: Vec<Node> = Vec::with_capacity(size.servers);
        for n in 0..size.servers {
            let mut config = config(n);
            config.store = MemoryStoreConfig { max_records: size.keys, ..MemoryStoreConfig::default() };
            let server = env.node_with(config).await;
            for other in &servers {
                server.add_contact(&other.contact).await;
                other.add_contact(&server.contact).await;
            }
            servers.push(server);
        }
        fill(&servers, size).await;
        let contacts: Vec<Contact> = servers.iter().map(|server| server.contact.clone()).collect();

        let mut config = config(size.servers);
        config.driver = driver_for(size);
        let client = env.node_with(config).await;
        with_kad(&client.swarm, |kad| kad.set_mode(Some(Mode::Client))).await;
        for contact in &contacts {
            client.add_contact(contact).await;
        }
        let kadence = Kadence::new(client.client.clone(), client.swarm.clone());
        let first_event = Naive::start(env, naive(env, size.servers + 1, &contacts).await, OnFirstRecord::KeepRunning);
        let first_record = Naive::start(env, naive(env, size.servers + 2, &contacts).await, OnFirstRecord::Finish);
        let network = Self { servers, client, kadence, first_event, first_record };
        network.wait_until_idle(env).await;
        network
    }

    /// Measures one case.
    pub(crate) async fn get<R: TestRuntime>(
        &self,
        env: &TestEnv<R>,
        case: Case,
        run: usize,
        size: &Size,
    ) -> GetResults {
        match case.client_kind {
            ClientKind::Kadence => gets(env, &self.kadence, case.load, run, size).await,
            ClientKind::FirstEvent => gets(env, &self.first_event, case.load, run, size).await,
            ClientKind::FirstRecord => gets(env, &self.first_record, case.load, run, size).await,
        }
    }

    /// Waits until no node has had a query for [`QUIET`].
    async fn wait_until_idle<R: TestRuntime>(&self, env: &TestEnv<R>) {
        let mut quiet_since = env.now();
        while env.now() - quiet_since < QUIET {
            wait(env.runtime(), POLL_INTERVAL).await;
            let driven = join_all(self.servers.iter().chain([&self.client]).map(live)).await;
            let naive = futures::join!(self.first_event.live(), self.first_record.live());
            if driven.into_iter().chain([naive.0, naive.1]).any(|live| live > 0) {
                quiet_since = env.now();
            }
        }
    }
}

async fn gets<R: TestRuntime>(
    env: &TestEnv<R>,
    client: &impl GetClient,
    load: Load,
    run: usize,
    size: &Size,
) -> GetResults {
    let records = size.records(load, run);
    match load {
        Load::Bursts { gets, .. } => {
            let bursts = records.step_by(gets).map(|start| start..start + gets);
            burst::bursts(env, client, bursts, size.max_wait()).await
        }
        Load::Callers { callers, .. } => burst::callers(env, client, callers, records, size.max_wait()).await,
    }
}

/// Returns the number of queries of a node, kad's own included.
async fn live(node: &Node) -> usize {
    with_kad(&node.swarm, |kad| kad.iter_queries().count()).await
}

/// Returns the configuration of the `n`th node, servers first. Keys derive from `n`, so that every run has the same
/// network.
fn config(n: usize) -> NodeConfig {
    let mut seed = [7; 32];
    seed[..8].copy_from_slice(&(n as u64).to_le_bytes());
    let mut kad = kad::Config::new(PROTOCOL);
    kad.set_periodic_bootstrap_interval(None)
        // No background traffic while measuring.
        .set_replication_interval(None)
        .set_publication_interval(None);
    NodeConfig { keypair: Keypair::ed25519_from_bytes(seed).expect("32 bytes"), kad, ..NodeConfig::default() }
}

/// Returns Kadence's defaults, with a queue and a timeout for the largest burst.
fn driver_for(size: &Size) -> DriverConfig {
    let tracker = TrackerConfig::default().max_queued(size.keys).default_timeout(size.deadline);
    DriverConfig::default().tracker(tracker)
}

async fn naive<R: TestRuntime>(env: &TestEnv<R>, n: usize, contacts: &[Contact]) -> Swarm<Behaviour> {
    let config = config(n);
    let (mut swarm, _) = env.listening_swarm(&config.keypair, config.behaviour()).await;
    let kad = &mut swarm.behaviour_mut().kad;
    kad.set_mode(Some(Mode::Client));
    for Contact { peer, address } in contacts {
        kad.add_address(peer, address.clone());
    }
    swarm
}

/// Stores every record at the servers that are closest to its key.
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
        server.store_all_locally(records).await;
    }
}

/// Returns the key of the `n`th record.
pub(crate) fn key(n: usize) -> RecordKey {
    RecordKey::new(&format!("record {n}"))
}

/// Returns the value of the `n`th record.
pub(crate) fn value(n: usize) -> Vec<u8> {
    format!("value of {n}. ").into_bytes().into_iter().cycle().take(VALUE_LEN).collect()
}

/// Returns the number of records in a client's local store. It must be zero, or later gets would be answered locally.
pub(crate) fn local_copies(swarm: &mut Swarm<Behaviour>) -> usize {
    swarm.behaviour_mut().kad.store_mut().records().count()
}
