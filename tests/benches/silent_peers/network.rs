//! Network with silent nodes, and two clients with equal routing tables.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::join_all;
use kadence::{
    ContainsKad, REPLICATION_FACTOR, Runtime,
    node::{BoxedTransport, Identity, Node, NodeConfig},
};
use kadence_tests::{self as tests, Contact, PROTOCOL, SilentNode, TestEnv, TestRuntime, bench::wait, with_kad};
use libp2p::{
    PeerId, Swarm,
    identity::Keypair,
    kad::{self, K_VALUE, KBucketKey, Mode, Record, RecordKey, store::RecordStore},
    swarm::{NetworkBehaviour, dial_opts::DialOpts, dummy},
};

use crate::{
    client::{Completed, ask},
    plain::Plain,
    plan::{ClientKind, Job, Operation, Size, existing, value},
};

/// Time without any query before measuring. kad bootstraps by itself half a second after it has learned of a peer.
const QUIET: Duration = Duration::from_millis(1_200);

/// Interval between two checks of the network.
const POLL_INTERVAL: Duration = Duration::from_millis(25);

/// Index of the clients' key. Nodes have smaller ones.
const CLIENT: usize = 255;

/// Nodes and clients of a network.
pub(crate) struct Network {
    /// Number of the network among those with the same share.
    pub(crate) number: usize,
    silent_percent: usize,
    servers: Vec<tests::Node>,
    _silent: Vec<SilentNode>,
    node: Node,
    plain: Plain,
}

impl Network {
    /// Starts the nodes, fills routing tables and stores, connects the clients, and waits until no query is running.
    pub(crate) async fn start<R: TestRuntime>(
        env: &TestEnv<R>,
        number: usize,
        silent_percent: usize,
        size: &Size,
    ) -> Self {
        let keypair = |n| keypair(silent_percent, number, n);
        let (mut servers, mut silent, mut contacts) = (Vec::new(), Vec::new(), Vec::new());
        for n in 0..size.nodes {
            // Silent nodes are evenly distributed among the others, because the first nodes get the places in full
            // buckets.
            let before = |n| n * size.silent(silent_percent) / size.nodes;
            if before(n + 1) > before(n) {
                let node = env.silent_node_as(&keypair(n)).await;
                contacts.push(node.contact.clone());
                silent.push(node);
            } else {
                let node = env.node_with(server(keypair(n))).await;
                contacts.push(node.contact.clone());
                servers.push(node);
            }
        }
        let contacts: Arc<[Contact]> = contacts.into();
        for server in &servers {
            let contacts = Arc::clone(&contacts);
            let local = server.peer();
            let introduced = with_kad(&server.swarm, move |kad| introduce(kad, local, &contacts));
            introduced.await;
        }
        fill(&servers, size).await;

        // Clients with one identity have the same routing table and start every lookup with the same peers. In client
        // mode, they are in no other node's table.
        let config =
            NodeConfig::default().identity(Identity::Keypair(keypair(CLIENT))).protocol(PROTOCOL).mode(Mode::Client);
        let transport = |keypair: &Keypair| Ok::<BoxedTransport, Infallible>(env.transport(keypair));
        let node = Node::start(env.runtime().clone(), config, transport, |_| dummy::Behaviour)
            .await
            .expect("a node that listens nowhere starts");
        let plain = Plain::start(env, &keypair(CLIENT));
        let network = Self { number, silent_percent, servers, _silent: silent, node, plain };
        network.connect(env, &contacts).await;
        network
    }

    /// Connects both clients to all nodes and waits until no query is running.
    async fn connect<R: TestRuntime>(&self, env: &TestEnv<R>, contacts: &Arc<[Contact]>) {
        let (ours, theirs) = (Arc::clone(contacts), Arc::clone(contacts));
        let ours = self.node.swarm().with(move |swarm| join(swarm, ContainsKad::kad, &ours));
        ours.await.expect("the driver runs");
        self.plain.with(move |swarm| join(swarm, |plain| &mut plain.kad, &theirs)).await;
        let mut quiet_since = Instant::now();
        while quiet_since.elapsed() < QUIET {
            wait(env.runtime(), POLL_INTERVAL).await;
            let servers = join_all(self.servers.iter().map(|server| with_kad(&server.swarm, end_queries))).await;
            let ours = self.node.swarm().with(|swarm| (end_queries(swarm.behaviour_mut().kad()), connected(swarm)));
            let ours = ours.await.expect("the driver runs");
            let theirs = self.plain.with(|swarm| (end_queries(&mut swarm.behaviour_mut().kad), connected(swarm))).await;
            let live: usize = servers.into_iter().sum::<usize>() + ours.0 + theirs.0;
            if live > 0 || ours.1 < contacts.len() || theirs.1 < contacts.len() {
                quiet_since = Instant::now();
            }
        }
    }

    /// Returns the number of peers in only one client's routing table, and in both.
    pub(crate) async fn tables(&self) -> (usize, usize) {
        let ours = self.node.swarm().with(|swarm| table(swarm.behaviour_mut().kad())).await.expect("the driver runs");
        let theirs = self.plain.with(|swarm| table(&mut swarm.behaviour_mut().kad)).await;
        (ours.symmetric_difference(&theirs).count(), ours.intersection(&theirs).count())
    }

    /// Runs one operation.
    pub(crate) async fn run(
        &self,
        runtime: &impl Runtime,
        client_kind: ClientKind,
        operation: Operation,
        round: usize,
        size: &Size,
    ) -> Completed {
        let job = Job::new(client_kind, operation, round, self.silent_percent);
        let begun = Instant::now();
        let answer = match client_kind {
            ClientKind::Kadence => ask(&self.node, job.clone(), size.timeout).await,
            ClientKind::Plain => self.plain.ask(job.clone(), wait(runtime, size.max_wait)).await,
        };
        let took = begun.elapsed();
        let recall = match operation {
            Operation::Closest | Operation::ClosestThorough | Operation::GetAll => {
                let there = self.closest_alive(&job.key);
                let found = there.iter().filter(|peer| answer.peers.contains(peer)).count();
                Some(share(found, there.len()))
            }
            // Copies are counted at the end.
            Operation::Put | Operation::GetFirst => None,
        };
        Completed { network: self.number, job, took, answer, recall }
    }

    /// Counts the copies of the records that were put.
    pub(crate) async fn count_copies(&self, completed: &mut [(ClientKind, Completed)]) {
        let mut held: HashMap<PeerId, HashSet<RecordKey>> = HashMap::new();
        for server in &self.servers {
            let keys = with_kad(&server.swarm, |kad| {
                kad.store_mut().records().map(|record| record.key.clone()).collect::<HashSet<_>>()
            });
            held.insert(server.peer(), keys.await);
        }
        let mine =
            completed.iter_mut().map(|(_, completed)| completed).filter(|completed| completed.network == self.number);
        for completed in mine.filter(|completed| completed.job.operation == Operation::Put) {
            let there = self.closest_alive(&completed.job.key);
            let copies =
                there.iter().filter(|peer| held.get(peer).is_some_and(|keys| keys.contains(&completed.job.key)));
            completed.recall = Some(share(copies.count(), there.len()));
        }
    }

    /// Returns the answering nodes that are closest to a key.
    fn closest_alive(&self, key: &RecordKey) -> Vec<PeerId> {
        closest(&self.servers, key).map(tests::Node::peer).collect()
    }
}

fn share(part: usize, whole: usize) -> f64 {
    part as f64 / whole as f64
}

fn closest<'a>(servers: &'a [tests::Node], key: &RecordKey) -> impl Iterator<Item = &'a tests::Node> {
    let target = KBucketKey::new(key.clone());
    let mut servers: Vec<_> = servers.iter().collect();
    servers.sort_by_cached_key(|server| KBucketKey::from(server.peer()).distance(&target));
    servers.into_iter().take(REPLICATION_FACTOR)
}

/// Stores every record at the answering nodes that are closest to its key.
async fn fill(servers: &[tests::Node], size: &Size) {
    let mut records: HashMap<PeerId, Vec<Record>> = HashMap::new();
    for round in 0..size.rounds.max(size.rounds_in_turns) {
        let key = existing(round);
        for server in closest(servers, &key) {
            records.entry(server.peer()).or_default().push(Record::new(key.clone(), value(&key)));
        }
    }
    for server in servers {
        server.store_all_locally(records.remove(&server.peer()).unwrap_or_default()).await;
    }
}

/// Adds contacts to the routing table while their buckets have room. For a full bucket, kad would dial peers to find
/// one to replace, also during the measurement.
fn introduce<S: RecordStore + Send + 'static>(kad: &mut kad::Behaviour<S>, local: PeerId, contacts: &[Contact]) {
    for Contact { peer, address } in contacts {
        if *peer != local && kad.kbucket(*peer).is_none_or(|bucket| bucket.num_entries() < K_VALUE.get()) {
            kad.add_address(peer, address.clone());
        }
    }
}

/// Adds contacts to the routing table and connects to all of them.
fn join<B: NetworkBehaviour, S: RecordStore + Send + 'static>(
    swarm: &mut Swarm<B>,
    kad: fn(&mut B) -> &mut kad::Behaviour<S>,
    contacts: &[Contact],
) {
    let local = *swarm.local_peer_id();
    introduce(kad(swarm.behaviour_mut()), local, contacts);
    for Contact { peer, address } in contacts {
        let dial = DialOpts::peer_id(*peer).addresses(vec![address.clone()]).build();
        // A dial that kad has started has the same effect.
        let _under_way = swarm.dial(dial);
    }
}

/// Finishes one phase of each query that kad has started itself. Returns the number of queries.
fn end_queries<S: RecordStore + Send + 'static>(kad: &mut kad::Behaviour<S>) -> usize {
    let mut live = 0;
    for mut query in kad.iter_queries_mut() {
        query.finish();
        live += 1;
    }
    live
}

fn connected<B: NetworkBehaviour>(swarm: &mut Swarm<B>) -> usize {
    swarm.network_info().num_peers()
}

fn table<S: RecordStore + Send + 'static>(kad: &mut kad::Behaviour<S>) -> BTreeSet<PeerId> {
    kad.kbuckets()
        .flat_map(|bucket| bucket.iter().map(|entry| *entry.node.key.preimage()).collect::<Vec<_>>())
        .collect()
}

/// Returns a key pair that differs between networks, but not between runs.
fn keypair(silent_percent: usize, network: usize, n: usize) -> Keypair {
    let mut seed = [11; 32];
    for (byte, n) in seed.iter_mut().zip([silent_percent, network, n]) {
        *byte = u8::try_from(n).expect("small numbers");
    }
    Keypair::ed25519_from_bytes(seed).expect("32 bytes")
}

/// Returns the configuration of a node without background traffic.
fn server(keypair: Keypair) -> tests::NodeConfig {
    let mut config = tests::NodeConfig::default().keypair(keypair);
    config.kad.set_replication_interval(None).set_publication_interval(None);
    config
}
