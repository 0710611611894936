//! A network of which some nodes are silent, and two clients that know the same of it.

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
use kadence_tests::{self as tests, Bed, Contact, PROTOCOL, SilentNode, TestRuntime, bench::wait, with_kad};
use libp2p::{
    PeerId, Swarm,
    identity::Keypair,
    kad::{self, K_VALUE, KBucketKey, Mode, Record, RecordKey, store::RecordStore},
    swarm::{NetworkBehaviour, dial_opts::DialOpts, dummy},
};

use crate::{
    asking::{Ended, ask},
    plain::Plain,
    plan::{Job, Operation, Size, Who, existing, value},
};

/// How long the whole network has to have no query before it is measured on: kad bootstraps by itself half a second
/// after it has learned of a peer.
const QUIET: Duration = Duration::from_millis(1_200);

/// Between two looks at the network.
const LOOK_AGAIN: Duration = Duration::from_millis(25);

/// The clients' place among the keys of a network; fewer nodes are before it.
const CLIENT: usize = 255;

/// The nodes and both clients.
pub(crate) struct Network {
    /// Its number among those of its share.
    pub(crate) number: usize,
    silent_percent: usize,
    servers: Vec<tests::Node>,
    _silent: Vec<SilentNode>,
    node: Node,
    plain: Plain,
}

impl Network {
    /// Starts the nodes, fills tables and stores, connects the clients, and waits until nothing moves.
    pub(crate) async fn start<R: TestRuntime>(bed: &Bed<R>, number: usize, silent_percent: usize, size: &Size) -> Self {
        let keypair = |n| keypair(silent_percent, number, n);
        let (mut servers, mut silent, mut contacts) = (Vec::new(), Vec::new(), Vec::new());
        for n in 0..size.nodes {
            // Evenly among the others: who comes first has the places in full buckets.
            let before = |n| n * size.silent(silent_percent) / size.nodes;
            if before(n + 1) > before(n) {
                let node = bed.silent_as(&keypair(n)).await;
                contacts.push(node.contact.clone());
                silent.push(node);
            } else {
                let node = bed.node_with(server(keypair(n))).await;
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

        // Two clients with one identity have the same table, bucket by bucket, and begin every lookup with the same
        // peers. As clients they are in nobody else's table.
        let config =
            NodeConfig::default().identity(Identity::Keypair(keypair(CLIENT))).protocol(PROTOCOL).mode(Mode::Client);
        let transport = |keypair: &Keypair| Ok::<BoxedTransport, Infallible>(bed.transport(keypair));
        let node = Node::start(bed.runtime().clone(), config, transport, |_| dummy::Behaviour)
            .await
            .expect("a node that listens nowhere starts");
        let plain = Plain::start(bed, &keypair(CLIENT));
        let network = Self { number, silent_percent, servers, _silent: silent, node, plain };
        network.connect(bed, &contacts).await;
        network
    }

    /// Both clients know and reach everybody, and nobody has anything to do.
    async fn connect<R: TestRuntime>(&self, bed: &Bed<R>, contacts: &Arc<[Contact]>) {
        let (ours, theirs) = (Arc::clone(contacts), Arc::clone(contacts));
        let ours = self.node.swarm().with(move |swarm| join(swarm, ContainsKad::kad, &ours));
        ours.await.expect("the driver runs");
        self.plain.with(move |swarm| join(swarm, |plain| &mut plain.kad, &theirs)).await;
        let mut quiet_since = Instant::now();
        while quiet_since.elapsed() < QUIET {
            wait(bed.runtime(), LOOK_AGAIN).await;
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

    /// How many peers are in one client's routing table and not in the other's, beside how many are in both.
    pub(crate) async fn tables(&self) -> (usize, usize) {
        let ours = self.node.swarm().with(|swarm| table(swarm.behaviour_mut().kad())).await.expect("the driver runs");
        let theirs = self.plain.with(|swarm| table(&mut swarm.behaviour_mut().kad)).await;
        (ours.symmetric_difference(&theirs).count(), ours.intersection(&theirs).count())
    }

    /// One operation.
    pub(crate) async fn run(
        &self,
        runtime: &impl Runtime,
        who: Who,
        operation: Operation,
        round: usize,
        size: &Size,
    ) -> Ended {
        let job = Job::new(who, operation, round, self.silent_percent);
        let begun = Instant::now();
        let answer = match who {
            Who::Kadence => ask(&self.node, job.clone(), size.timeout).await,
            Who::Plain => self.plain.ask(job.clone(), wait(runtime, size.patience)).await,
        };
        let took = begun.elapsed();
        let recall = match operation {
            Operation::Closest | Operation::ClosestThorough | Operation::GetAll => {
                let there = self.closest_alive(&job.key);
                let found = there.iter().filter(|peer| answer.peers.contains(peer)).count();
                Some(share(found, there.len()))
            }
            // Copies are counted when all is over.
            Operation::Put | Operation::GetFirst => None,
        };
        Ended { network: self.number, job, took, answer, recall }
    }

    /// Counts the copies of what was put.
    pub(crate) async fn count_copies(&self, ended: &mut [(Who, Ended)]) {
        let mut held: HashMap<PeerId, HashSet<RecordKey>> = HashMap::new();
        for server in &self.servers {
            let keys = with_kad(&server.swarm, |kad| {
                kad.store_mut().records().map(|record| record.key.clone()).collect::<HashSet<_>>()
            });
            held.insert(server.peer(), keys.await);
        }
        let mine = ended.iter_mut().map(|(_, ended)| ended).filter(|ended| ended.network == self.number);
        for ended in mine.filter(|ended| ended.job.operation == Operation::Put) {
            let there = self.closest_alive(&ended.job.key);
            let copies = there.iter().filter(|peer| held.get(peer).is_some_and(|keys| keys.contains(&ended.job.key)));
            ended.recall = Some(share(copies.count(), there.len()));
        }
    }

    /// Those of the nodes that answer which are closest to a key.
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

/// Puts every record that is asked for into the stores of the nodes that are closest to it and answer.
async fn fill(servers: &[tests::Node], size: &Size) {
    let mut records: HashMap<PeerId, Vec<Record>> = HashMap::new();
    for round in 0..size.rounds.max(size.rounds_in_turns) {
        let key = existing(round);
        for server in closest(servers, &key) {
            records.entry(server.peer()).or_default().push(Record::new(key.clone(), value(&key)));
        }
    }
    for server in servers {
        server.holds_all(records.remove(&server.peer()).unwrap_or_default()).await;
    }
}

/// Puts contacts into the routing table, as long as their buckets have room. In a full one, kad dials in order to
/// find out who could be replaced, which would go on during the measurement.
fn introduce<S: RecordStore + Send + 'static>(kad: &mut kad::Behaviour<S>, local: PeerId, contacts: &[Contact]) {
    for Contact { peer, address } in contacts {
        if *peer != local && kad.kbucket(*peer).is_none_or(|bucket| bucket.num_entries() < K_VALUE.get()) {
            kad.add_address(peer, address.clone());
        }
    }
}

/// The same, and connects to everybody.
fn join<B: NetworkBehaviour, S: RecordStore + Send + 'static>(
    swarm: &mut Swarm<B>,
    kad: fn(&mut B) -> &mut kad::Behaviour<S>,
    contacts: &[Contact],
) {
    let local = *swarm.local_peer_id();
    introduce(kad(swarm.behaviour_mut()), local, contacts);
    for Contact { peer, address } in contacts {
        let dial = DialOpts::peer_id(*peer).addresses(vec![address.clone()]).build();
        // One that kad has begun is as good.
        let _under_way = swarm.dial(dial);
    }
}

/// Ends what kad has begun by itself, a phase of it at a time, and says how many queries there were.
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

/// Other keys in every network, and the same ones in every run.
fn keypair(silent_percent: usize, network: usize, n: usize) -> Keypair {
    let mut seed = [11; 32];
    for (byte, n) in seed.iter_mut().zip([silent_percent, network, n]) {
        *byte = u8::try_from(n).expect("small numbers");
    }
    Keypair::ed25519_from_bytes(seed).expect("32 bytes")
}

/// A node that answers, and does nothing by itself while it is measured.
fn server(keypair: Keypair) -> tests::NodeConfig {
    let mut config = tests::NodeConfig::default().keypair(keypair);
    config.kad.set_replication_interval(None).set_publication_interval(None);
    config
}
