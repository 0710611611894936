//! Phases of the demonstration that inject faults: callers that drop their calls, and a node that dies.

use std::time::Duration;

use futures::{FutureExt, StreamExt, future::BoxFuture, poll, stream};
use kadence_tokio::kadence::{
    Client, DriverClosedError, GetRecordError, RequestError,
    libp2p::kad::{QueryInfo, Record, RecordKey},
    node::Node,
    tracker::QueryPhase,
};
use rand::seq::IndexedRandom;
use serde::Serialize;
use tokio::time::{Instant, sleep, timeout};

use super::{
    CALL_TIMEOUT, CALLERS, Demo, WAIT,
    measure::{Samples, Summary, timed},
    retry,
};

/// Number of calls that are dropped at once. More than a driver has slots, so that some wait in the queue.
const CANCELLED_CALLS: usize = 48;

/// Number of gets before, during and after the death of a node.
const GETS_AROUND_DEATH: usize = 120;

/// Number of gets that end before the node is killed.
const GETS_BEFORE_DEATH: usize = 24;

/// Maximum time between a call's timeout and the end of its future. Far above the delays of a busy computer.
const SLACK: Duration = Duration::from_secs(30);

/// Figures of the dropped calls.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Cancelled {
    /// Number of calls that were dropped.
    pub(super) count: usize,
    /// Number of their queries that kad ran just before.
    pub(super) running: usize,
    /// Number of requests and queries that were left after the wait for their end.
    pub(super) left_alive: usize,
    /// Time from the drop until no request and no query was left, in milliseconds. The longest of all nodes.
    pub(super) gone_after_ms: f64,
}

/// Figures of the killed node.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Killed {
    /// Peer id of the killed node.
    pub(super) peer: String,
    /// Gets by the other nodes, before, during and after its death.
    pub(super) get: Summary,
    /// Number of gets of missing keys that ended with "not found" afterwards.
    pub(super) not_found: usize,
    /// `true` if calls of the killed node's own client end with an error that names the shutdown.
    pub(super) own_calls_end: bool,
}

impl Demo {
    /// Drops calls, some of which run and some of which are on their way to the driver, and checks that nothing of them
    /// is left.
    pub(super) async fn cancel(&mut self) {
        let nodes: Vec<&Node> = self.network.servers.iter().take(1).chain(self.network.askers.iter().take(1)).collect();
        self.progress.begin("cancel", nodes.len() * 2 * CANCELLED_CALLS);
        let mut cancelled = Cancelled::default();
        for node in nodes {
            match cancel_calls_of(node, &self.stored.iter().map(|file| file.key.clone()).collect::<Vec<_>>()).await {
                Ok(of_node) => {
                    cancelled.count += of_node.count;
                    cancelled.running += of_node.running;
                    cancelled.left_alive += of_node.left_alive;
                    cancelled.gone_after_ms = cancelled.gone_after_ms.max(of_node.gone_after_ms);
                }
                Err(DriverClosedError) => cancelled.left_alive += 1,
            }
        }
        let Cancelled { count, running, left_alive, gone_after_ms } = cancelled;
        let detail = format!("{count} dropped, {running} running then, {left_alive} left after {gone_after_ms:.1} ms");
        self.check("dropped calls leave no request and no query", left_alive == 0, &*detail);
        self.cancelled = cancelled;
        self.progress.end(format_args!("{detail}"));
    }

    /// Kills a node while gets run: the one through which all others joined.
    pub(super) async fn kill(&mut self) {
        if self.network.servers.is_empty() {
            return;
        }
        let victim = self.network.servers.remove(0);
        let dead = victim.client().clone();
        let mut victim = Some(victim);

        let (servers, askers) = self.network.clients();
        let readers: Vec<Client> = askers.into_iter().chain(servers).collect();
        let rng = &mut self.rng;
        let jobs: Vec<_> = (0..GETS_AROUND_DEATH)
            .filter_map(|_| Some((readers.choose(rng)?.clone(), self.stored.choose(rng)?.clone())))
            .collect();
        let count = jobs.len();
        self.progress.begin("kill", count);
        let mut gets = stream::iter(jobs)
            .map(|(client, file)| async move {
                (timed(client.get_record(file.key.clone()).retry(retry()).timeout(CALL_TIMEOUT)).await, file)
            })
            .buffer_unordered(CALLERS);
        let mut samples = Samples::default();
        let (mut done, mut equal, mut late) = (0, 0, 0);
        while let Some((get, file)) = gets.next().await {
            late += usize::from(get.0 > CALL_TIMEOUT + SLACK);
            if let Some(answer) = samples.add(get) {
                equal += usize::from(*answer.value() == *file.value);
            }
            done += 1;
            if done == GETS_BEFORE_DEATH {
                drop(victim.take());
            }
        }
        drop((gets, victim));
        let get = samples.summary();
        let detail = format!("{equal} of {count}{}", samples.first_failure());
        self.check("gets succeed while a node is killed", equal == count && count > 0, detail);
        self.progress.end(format_args!("{equal} of {count} gets succeeded"));

        let not_found = self.get_missing_keys("after").await;
        let all = self.network.len();
        let detail = format!("{not_found} of {all} gets of a missing key end, {late} calls outlast their timeout");
        self.check("no call hangs afterwards", not_found == all && late == 0, detail);

        let own_calls_end = timeout(WAIT, calls_end(&dead)).await.is_ok();
        self.check("calls of the killed node end with an error", own_calls_end, "");
        self.killed = Killed { peer: dead.local_peer_id().to_string(), get, not_found, own_calls_end };
    }
}

async fn cancel_calls_of(node: &Node, keys: &[RecordKey]) -> Result<Cancelled, DriverClosedError> {
    let client = node.client();
    // These are dropped while they run or wait for a slot.
    let mut calls = calls(client, keys, "running");
    for call in &mut calls {
        let _pending = poll!(call);
    }
    // A snapshot request follows the calls through the same channel. At the first snapshot, their queries may be about
    // to start; at the next, kad runs them.
    let mut running = 0;
    let mut pending = true;
    while running == 0 && pending {
        let snapshot = client.snapshot().await?;
        running = snapshot.queries.iter().filter(|query| query.phase == QueryPhase::Running).count();
        pending = !snapshot.requests.is_empty();
    }
    drop(calls);
    // These are dropped on their way to the driver.
    let mut more = self::calls(client, keys, "on their way");
    for call in &mut more {
        let _pending = poll!(call);
    }
    drop(more);

    let began = Instant::now();
    let mut left_alive = alive(node).await?;
    while left_alive > 0 && began.elapsed() < WAIT {
        sleep(Duration::from_millis(1)).await;
        left_alive = alive(node).await?;
    }
    let gone_after_ms = began.elapsed().as_micros() as f64 / 1000.0;
    Ok(Cancelled { count: 2 * CANCELLED_CALLS, running, left_alive, gone_after_ms })
}

/// Returns calls of each kind that needs the network, in turn.
fn calls(client: &Client, keys: &[RecordKey], when: &str) -> Vec<BoxFuture<'static, ()>> {
    let stored = keys.iter().cloned().cycle();
    let kinds = (0..CANCELLED_CALLS).zip(stored).map(|(index, stored)| {
        let key = RecordKey::from(format!("/cancelled/{when}/{index}").into_bytes());
        match index % 5 {
            0 => client.get_record(stored).all().into_future().map(drop).boxed(),
            1 => client.get_record(key).into_future().map(drop).boxed(),
            2 => client.get_providers(key).into_future().map(drop).boxed(),
            3 => client.get_closest_peers(key).into_future().map(drop).boxed(),
            _ => client.put_record(Record::new(key, b"unwanted".to_vec())).into_future().map(drop).boxed(),
        }
    });
    kinds.collect()
}

/// Returns the number of requests and queries that the driver knows, plus the number of queries in kad. kad's own
/// bootstraps do not count, and its republishing starts only after hours.
async fn alive(node: &Node) -> Result<usize, DriverClosedError> {
    let snapshot = node.client().snapshot().await?;
    let in_kad = node.swarm().with(|swarm| {
        let queries = swarm.behaviour_mut().kad.kad().iter_queries();
        queries.filter(|query| !matches!(query.info(), QueryInfo::Bootstrap { .. })).count()
    });
    Ok(snapshot.requests.len() + snapshot.queries.len() + in_kad.await?)
}

/// Waits until calls fail because the node has shut down. A driver that is being dropped may still answer some.
async fn calls_end(dead: &Client) {
    loop {
        let get = dead.get_record(b"/missing".to_vec()).timeout(CALL_TIMEOUT);
        if let Err(GetRecordError::Request(RequestError::Shutdown)) = get.await {
            return;
        }
    }
}
