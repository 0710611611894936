//! What a node has acknowledged survives `kill -9`.
//!
//! The node that is killed is this test's own program, which is told so by its environment. Two rounds are the default;
//! `KADENCE_KILL_ROUNDS=20` makes twenty, with their figures in the output of `--nocapture`.

#![cfg(test)]

use std::{
    env,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use futures::{StreamExt, stream::FuturesUnordered};
use kadence_tokio::{
    Identity, NodeConfig,
    kadence::{
        node::NodeStore,
        store::{Store, StoreConfig},
    },
    node,
};
use libp2p::{
    Multiaddr, PeerId,
    kad::{Record, store::RecordStore},
    multiaddr::Protocol,
};
use tempfile::tempdir;
use tokio::time::interval;

const PUTS: usize = 1000;
const PATH: &str = "KADENCE_NODE_KILLED_PATH";
const ROUNDS: &str = "KADENCE_KILL_ROUNDS";

/// Far more than anything here needs.
const WAIT: Duration = Duration::from_secs(60);

/// How often the loop is asked how late it is.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// Not the same length each time, so that a write ends anywhere in a page.
fn record(number: usize) -> Record {
    let value = vec![number.to_le_bytes()[0]; number * 37 % 5000];
    Record::new(number.to_be_bytes().to_vec(), value)
}

/// Not a test by itself: without the variable it has nothing to do.
#[tokio::test(flavor = "multi_thread")]
async fn child() {
    let Some(folder) = env::var_os(PATH) else { return };
    let folder = Path::new(&folder);
    let config = NodeConfig::default()
        .identity(Identity::File(folder.join("key")))
        .store(NodeStore::Disk(folder.join("store")))
        .listen(["/ip4/127.0.0.1/tcp/0".parse().unwrap()])
        // All records have the same publisher, who may have half of them.
        .max_records(2 * PUTS);
    let node = node(config).await.unwrap();
    let mut out = std::io::stdout();
    writeln!(out, "\naddress {}", node.listen_addrs()[0]).unwrap();
    // Until it is killed. A line is an answer to nothing, so it is printed as soon as there is something new.
    let (mut longest_turn, mut longest_write) = (Duration::ZERO, Duration::ZERO);
    let mut ticks = interval(LOOK_AGAIN);
    loop {
        ticks.tick().await;
        let asked = Instant::now();
        node.swarm().with(|_| ()).await.unwrap();
        let (turn, write) = (asked.elapsed(), node.store_stats().longest_write);
        if turn > longest_turn || write > longest_write {
            (longest_turn, longest_write) = (turn.max(longest_turn), write.max(longest_write));
            writeln!(out, "longest {} {}", longest_turn.as_nanos(), longest_write.as_nanos()).unwrap();
        }
    }
}

/// What a node that was killed has said.
#[derive(Debug, Default)]
struct Said {
    /// The longest that the node's loop has let somebody wait, whatever for.
    longest_turn: Duration,
    /// The longest that the store has held up the loop.
    longest_write: Duration,
}

/// A node in a process of its own. Killed when it is dropped.
struct Killable {
    child: Child,
    lines: mpsc::Receiver<String>,
    address: Multiaddr,
    peer: PeerId,
}

impl Killable {
    fn start(folder: &Path) -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["child", "--exact", "--nocapture"])
            .env(PATH, folder)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let address = loop {
            let line = lines.recv_timeout(WAIT).unwrap();
            if let Some(address) = line.strip_prefix("address ") {
                break address.parse::<Multiaddr>().unwrap();
            }
        };
        let Some(Protocol::P2p(peer)) = address.iter().last() else { panic!("{address}") };
        Self { child, lines, address, peer }
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        let _killed = self.child.wait().unwrap();
    }

    fn said(&self) -> Said {
        let mut said = Said::default();
        for line in &self.lines {
            // The last line may be half a one.
            let numbers = line.strip_prefix("longest ").and_then(|rest| rest.split_once(' '));
            if let Some((Ok(turn), Ok(write))) = numbers.map(|(turn, write)| (turn.parse(), write.parse())) {
                said = Said { longest_turn: Duration::from_nanos(turn), longest_write: Duration::from_nanos(write) };
            }
        }
        said
    }
}

impl Drop for Killable {
    fn drop(&mut self) {
        // Mostly it is dead.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Puts all records at once, kills the node when it has acknowledged so many, and says which it has acknowledged in all.
async fn put_until_killed(killable: &mut Killable, acknowledgements: usize) -> Vec<usize> {
    let putting = node(NodeConfig::default().bootstrap_peers([killable.address.clone()])).await.unwrap();
    putting.ready(WAIT).await.unwrap();
    let put = |number| {
        let put = putting.client().put_record(record(number)).timeout(WAIT).into_future();
        async move { (number, put.await) }
    };
    let mut puts: FuturesUnordered<_> = (0..PUTS).map(put).collect();
    let mut acknowledged = Vec::new();
    while let Some((number, result)) = puts.next().await {
        if let Ok(answer) = result {
            assert_eq!(answer.acknowledged, [killable.peer]);
            acknowledged.push(number);
            // Those that are under way are heard to their end as well.
            if acknowledged.len() == acknowledgements {
                killable.kill();
            }
        }
    }
    assert!(acknowledged.len() >= acknowledgements, "only {} were acknowledged", acknowledged.len());
    acknowledged
}

#[tokio::test(flavor = "multi_thread")]
async fn every_record_that_a_node_has_acknowledged_is_there_after_it_was_killed() {
    let rounds = env::var(ROUNDS).map_or(2, |rounds| rounds.parse().unwrap());
    let mut seed: u64 = 0x9e37_79b9_7f4a_7c15;
    for round in 0..rounds {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let acknowledgements = if round == 0 { PUTS } else { (seed >> 33) as usize % PUTS + 1 };
        let folder = tempdir().unwrap();
        let mut killable = Killable::start(folder.path());
        let began = Instant::now();
        let acknowledged = put_until_killed(&mut killable, acknowledgements).await;
        let took = began.elapsed();
        let Said { longest_turn, longest_write } = killable.said();

        let config = StoreConfig::default().max_records(PUTS).max_records_per_publisher(PUTS);
        let store = Store::open(folder.path().join("store"), killable.peer, config).unwrap();
        let missing = acknowledged.iter().filter(|number| {
            let Record { key, value, .. } = record(**number);
            store.get(&key).is_none_or(|found| found.value != value)
        });
        let missing: Vec<_> = missing.collect();
        assert!(missing.is_empty(), "round {round}: {missing:?} of {} are lost", acknowledged.len());
        println!(
            "round {round}: killed at {acknowledgements}, {} acknowledged, {} stored, none lost; {took:.1?}; \
             longest write {longest_write:.1?}, longest wait for the loop {longest_turn:.1?}",
            acknowledged.len(),
            store.records().count(),
        );
    }
}
