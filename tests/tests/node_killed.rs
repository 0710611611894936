//! Records that a node has acknowledged survive `kill -9`.
//!
//! The node to kill runs in a child process: this test program, started with an environment variable. There are two
//! rounds by default. `KADENCE_KILL_ROUNDS=20` sets another number; `--nocapture` prints the figures of each round.

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
const FOLDER_VAR: &str = "KADENCE_NODE_KILLED_PATH";
const ROUNDS_VAR: &str = "KADENCE_KILL_ROUNDS";

/// Limit for every wait. Much longer than anything here takes.
const WAIT: Duration = Duration::from_secs(60);

/// Interval between two measurements of the loop's latency.
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// Lengths differ, so that writes end at any position in a page.
fn record(number: usize) -> Record {
    let value = vec![number.to_le_bytes()[0]; number * 37 % 5000];
    Record::new(number.to_be_bytes().to_vec(), value)
}

/// Runs the child process. Does nothing without the environment variable.
#[tokio::test(flavor = "multi_thread")]
async fn child() {
    let Some(folder) = env::var_os(FOLDER_VAR) else { return };
    let folder = Path::new(&folder);
    let config = NodeConfig::default()
        .identity(Identity::File(folder.join("key")))
        .store(NodeStore::Disk(folder.join("store")))
        .listen(["/ip4/127.0.0.1/tcp/0".parse().unwrap()])
        // All records have the same publisher, which may own half of the records.
        .max_records(2 * PUTS);
    let node = node(config).await.unwrap();
    let mut out = std::io::stdout();
    writeln!(out, "\naddress {}", node.listen_addrs()[0]).unwrap();
    // Runs until it is killed. Each new maximum is printed immediately.
    let (mut longest_turn, mut longest_write) = (Duration::ZERO, Duration::ZERO);
    let mut ticks = interval(POLL_INTERVAL);
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

/// Latencies that a child process has reported.
#[derive(Debug, Default)]
struct Timings {
    /// Longest time that a closure on the swarm has waited.
    longest_turn: Duration,
    /// Longest time that a write of the store has blocked the loop.
    longest_write: Duration,
}

/// Node in a child process. Killed on drop.
struct KillableNode {
    child: Child,
    lines: mpsc::Receiver<String>,
    address: Multiaddr,
    peer: PeerId,
}

impl KillableNode {
    fn start(folder: &Path) -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["child", "--exact", "--nocapture"])
            .env(FOLDER_VAR, folder)
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

    fn timings(&self) -> Timings {
        let mut timings = Timings::default();
        for line in &self.lines {
            // The last line may be incomplete.
            let numbers = line.strip_prefix("longest ").and_then(|rest| rest.split_once(' '));
            if let Some((Ok(turn), Ok(write))) = numbers.map(|(turn, write)| (turn.parse(), write.parse())) {
                timings =
                    Timings { longest_turn: Duration::from_nanos(turn), longest_write: Duration::from_nanos(write) };
            }
        }
        timings
    }
}

impl Drop for KillableNode {
    fn drop(&mut self) {
        // In most cases it is dead already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Puts all records at once and kills the node when it has acknowledged `acknowledgements` of them. Returns all
/// acknowledged records.
async fn put_until_killed(killable: &mut KillableNode, acknowledgements: usize) -> Vec<usize> {
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
            // Puts that are still running are awaited as well.
            if acknowledged.len() == acknowledgements {
                killable.kill();
            }
        }
    }
    assert!(acknowledged.len() >= acknowledgements, "only {} were acknowledged", acknowledged.len());
    acknowledged
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_records_survive_a_kill() {
    let rounds = env::var(ROUNDS_VAR).map_or(2, |rounds| rounds.parse().unwrap());
    let mut seed: u64 = 0x9e37_79b9_7f4a_7c15;
    for round in 0..rounds {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let acknowledgements = if round == 0 { PUTS } else { (seed >> 33) as usize % PUTS + 1 };
        let folder = tempdir().unwrap();
        let mut killable = KillableNode::start(folder.path());
        let began = Instant::now();
        let acknowledged = put_until_killed(&mut killable, acknowledgements).await;
        let took = began.elapsed();
        let Timings { longest_turn, longest_write } = killable.timings();

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
