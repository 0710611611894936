//! Dropping a call cancels its query immediately.
//!
//! [`TestEnv::wait_until_idle`] allows less time than kad needs to give up a silent peer. What has ended by then has
//! therefore ended by cancellation.

use std::time::Duration;

use futures::{StreamExt, future::join_all, poll};
use kadence::{
    Driver, Snapshot,
    tracker::{OperationKind, QueryPhase, RequestPhase},
};
use libp2p::{
    Swarm,
    kad::{QueryId, QueryInfo},
};

use super::support::{collect, key, next_item, record, start_call};
use crate::{
    BareKad, Behaviour, Node, NodeConfig, SilentNode, TestEnv, TestRuntime, keypair_in_bucket, live_queries, with_kad,
};

/// Timeout that no test reaches.
const NEVER: Duration = Duration::from_secs(60 * 60);

/// Starts a client whose queries all start at one silent peer.
async fn client_of_silent_peer<R: TestRuntime>(env: &TestEnv<R>, config: NodeConfig) -> (Node, SilentNode) {
    let client = env.node_with(config).await;
    let silent = env.silent_node().await;
    client.add_contact(&silent.contact).await;
    (client, silent)
}

fn ids(snapshot: &Snapshot) -> Vec<QueryId> {
    snapshot.queries.iter().map(|query| query.id.expect("the query was started")).collect()
}

/// Asserts that nothing of the client's requests is left, neither in the tracker nor in kad.
async fn nothing_is_left<R: TestRuntime>(env: &TestEnv<R>, node: &Node, ours: &[QueryId]) {
    env.wait_until_idle(&node.client).await;
    let ours = ours.to_vec();
    let alive = with_kad(&node.swarm, move |kad| -> Vec<QueryId> {
        kad.iter_queries().map(|query| query.id()).filter(|id| ours.contains(id)).collect()
    });
    assert_eq!(alive.await, []);
    assert_eq!(live_queries(&node.swarm).await, []);
    let stats = node.client.stats().await.unwrap();
    assert_eq!((stats.lost_queries, stats.unknown_inputs, stats.mismatched_events), (0, 0, 0));
}

pub async fn a_call_dropped_while_queued_never_starts<R: TestRuntime>(env: &TestEnv<R>) {
    let (node, silent) = client_of_silent_peer(env, NodeConfig::default().max_running(1)).await;
    let first = start_call(node.client.get_record(key("first")).timeout(NEVER)).await;
    silent.next_request().await;
    let second = start_call(node.client.get_record(key("second")).timeout(NEVER)).await;
    let third = start_call(node.client.get_closest_peers(key("third")).timeout(NEVER)).await;
    let snapshot = env.wait_for_snapshot(&node.client, |snapshot| snapshot.requests.len() == 3).await;
    let phases: Vec<_> = snapshot.requests.iter().map(|request| request.phase).collect();
    assert_eq!(phases, [RequestPhase::Running, RequestPhase::Queued, RequestPhase::Queued]);

    drop(second);
    let snapshot = env.wait_for_snapshot(&node.client, |snapshot| snapshot.requests.len() == 2).await;
    assert_eq!(snapshot.queries.len(), 1);
    // The slot goes to the next queued call that was not dropped.
    drop(first);
    let running = |snapshot: &Snapshot| {
        snapshot.queries.iter().any(|query| query.operation == OperationKind::GetClosestPeers && query.id.is_some())
    };
    let snapshot = env.wait_for_snapshot(&node.client, running).await;
    let ours = ids(&snapshot);
    drop(third);
    nothing_is_left(env, &node, &ours).await;
}

pub async fn a_call_dropped_before_its_first_event_frees_its_slot_at_once<R: TestRuntime>(env: &TestEnv<R>) {
    let (node, silent) = client_of_silent_peer(env, NodeConfig::default().max_running(1)).await;
    node.store_locally(record("local", "value")).await;
    let begin = env.now();
    let call = start_call(node.client.get_record(key("far")).timeout(NEVER)).await;
    assert_eq!(silent.next_request().await, node.peer());
    let ours = ids(&env.wait_for_snapshot(&node.client, |snapshot| snapshot.queries.len() == 1).await);
    assert!(live_queries(&node.swarm).await.contains(&ours[0]));
    let next = start_call(node.client.get_record(key("local")).timeout(NEVER)).await;
    drop(call);
    let (items, _, end) = collect(next).await;
    assert_eq!((items.len(), end.unwrap().value()), (1, b"value".as_slice()));
    let took = env.now() - begin;
    assert!(took < Duration::from_secs(8), "it waited for kad to give up the silent peer: {took:?}");
    nothing_is_left(env, &node, &ours).await;
}

pub async fn a_stream_dropped_halfway_frees_its_slot_at_once<R: TestRuntime>(env: &TestEnv<R>) {
    let (node, others) = env.client_with_peers(NodeConfig::default().max_running(1), 2).await;
    let silent = env.silent_node().await;
    node.add_contact(&silent.contact).await;
    for other in &others {
        other.store_locally(record("file", "contents")).await;
    }
    let mut stream = start_call(node.client.get_record(key("file")).all().timeout(NEVER)).await;
    assert_eq!(next_item(&mut stream).await.record.value, b"contents");
    silent.next_request().await;
    let snapshot = env.wait_for_snapshot(&node.client, |snapshot| snapshot.queries.len() == 1).await;
    assert_eq!(snapshot.queries[0].phase, QueryPhase::Running);
    drop(stream);
    nothing_is_left(env, &node, &ids(&snapshot)).await;
    node.client.get_record(key("file")).await.unwrap();
}

pub async fn a_put_dropped_in_its_lookup_sends_and_keeps_nothing<R: TestRuntime>(env: &TestEnv<R>) {
    let (node, others) = env.client_with_peers(NodeConfig::default(), 2).await;
    let silent = env.silent_node().await;
    node.add_contact(&silent.contact).await;
    let put = start_call(node.client.put_record(record("file", "contents")).timeout(NEVER)).await;
    silent.next_request().await;
    let snapshot = env.wait_for_snapshot(&node.client, |snapshot| snapshot.queries.len() == 1).await;
    assert_eq!(snapshot.queries[0].operation, OperationKind::GetClosestPeers, "the first step is a lookup");
    assert_eq!(
        node.local_record(&key("file")).await,
        None,
        "the record is stored locally only when the put has succeeded"
    );
    drop(put);
    nothing_is_left(env, &node, &ids(&snapshot)).await;
    for node in others.iter().chain([&node]) {
        assert_eq!(node.local_record(&key("file")).await, None);
    }
}

pub async fn a_dropped_announcement_leaves_no_local_provider<R: TestRuntime>(env: &TestEnv<R>) {
    let (node, silent) = client_of_silent_peer(env, NodeConfig::default()).await;
    let call = start_call(node.client.start_providing(key("file")).timeout(NEVER)).await;
    silent.next_request().await;
    let snapshot = env.wait_for_snapshot(&node.client, |snapshot| snapshot.queries.len() == 1).await;
    assert_eq!(node.local_providers(&key("file")).await, [node.peer()], "kad adds the local provider immediately");
    drop(call);
    nothing_is_left(env, &node, &ids(&snapshot)).await;
    assert_eq!(node.local_providers(&key("file")).await, []);
}

pub async fn an_announcement_made_before_survives_a_dropped_one<R: TestRuntime>(env: &TestEnv<R>) {
    let (node, _others) = env.client_with_peers(NodeConfig::default(), 2).await;
    node.client.start_providing(key("file")).await.unwrap();
    let silent = env.silent_node().await;
    node.add_contact(&silent.contact).await;
    let call = start_call(node.client.start_providing(key("file")).timeout(NEVER)).await;
    silent.next_request().await;
    drop(call);
    nothing_is_left(env, &node, &[]).await;
    assert_eq!(node.local_providers(&key("file")).await, [node.peer()]);
}

pub async fn a_dropped_bootstrap_ends_in_all_its_phases<R: TestRuntime>(env: &TestEnv<R>) {
    let node = env.node().await;
    // The lookup of the local id, and one for each of the two farther buckets. All of them would wait for silent peers.
    let mut silent = Vec::new();
    for bucket in [253, 254, 255] {
        silent.push(env.silent_node_as(&keypair_in_bucket(node.peer(), bucket)).await);
    }
    for silent in &silent {
        node.add_contact(&silent.contact).await;
    }
    let call = start_call(node.client.bootstrap().timeout(NEVER)).await;
    silent[0].next_request().await;
    let snapshot = env.wait_for_snapshot(&node.client, |snapshot| snapshot.queries.len() == 1).await;
    drop(call);
    nothing_is_left(env, &node, &ids(&snapshot)).await;
}

pub async fn calls_dropped_before_the_driver_took_them_are_never_accepted<R: TestRuntime>(env: &TestEnv<R>) {
    let mut config = NodeConfig::default();
    config.driver.command_capacity = 1;
    let mut node = env.own_loop(config).await;
    // The driver is not polled: the first call fills the channel, and the others wait for room in it.
    let mut calls = Vec::new();
    for n in 0..5 {
        calls.push(start_call(node.client.get_record(key(&format!("key {n}"))).timeout(NEVER)).await);
    }
    drop(calls);
    let client = node.client.clone();
    let (snapshot, _) = node.run_until(client.snapshot()).await;
    assert!(snapshot.unwrap().is_empty());
    let (stats, _) = node.run_until(client.stats()).await;
    assert_eq!((stats.unwrap().accepted, live_ids(&node.driver)), (0, Vec::new()));
}

fn live_ids<R: TestRuntime>(driver: &Driver<BareKad, R>) -> Vec<QueryId> {
    driver.swarm().behaviour().iter_queries().map(|query| query.id()).collect()
}

pub async fn calls_dropped_as_soon_as_they_are_sent_leave_nothing<R: TestRuntime>(env: &TestEnv<R>) {
    let (node, _silent) = client_of_silent_peer(env, NodeConfig::default().max_running(4)).await;
    let callers = (0..4).map(|caller| {
        let client = node.client.clone();
        env.spawn(async move {
            for n in 0..2_000 {
                let mut stream = client.get_record(key(&format!("{caller} {n}"))).timeout(NEVER).stream();
                // The call is sent here. Its result is ignored.
                let _ = poll!(stream.next());
                drop(stream);
            }
        })
    });
    join_all(callers).await;
    nothing_is_left(env, &node, &[]).await;
}

pub async fn a_thousand_gets_dropped_midway_leave_nothing<R: TestRuntime>(env: &TestEnv<R>) {
    let mut config = NodeConfig::default();
    // A call that finds the channel full is only sent when it is polled again, which this test does not do.
    config.driver.command_capacity = 1_000;
    let (node, others) = env.client_with_peers(config, 4).await;
    for n in 0..10 {
        others[n % 4].store_locally(record(&format!("key {n}"), "value")).await;
    }
    let silent = env.silent_node().await;
    node.add_contact(&silent.contact).await;
    let mut calls = Vec::new();
    for n in 0..1_000 {
        calls.push(start_call(node.client.get_record(key(&format!("key {n}"))).all().timeout(NEVER)).await);
    }
    // Midway: some calls have received items, some are queued, and the silent peer keeps all of them from ending.
    next_item(&mut calls[0]).await;
    silent.next_request().await;
    let snapshot = env.wait_for_snapshot(&node.client, |snapshot| snapshot.requests.len() == 1_000).await;
    assert_eq!(snapshot.queries.len(), 32);
    drop(calls);
    nothing_is_left(env, &node, &ids(&snapshot)).await;
    // kad has kept none of them elsewhere, and still works.
    let count = |swarm: &mut Swarm<Behaviour>| {
        swarm.behaviour().kad.iter_queries().filter(|query| matches!(query.info(), QueryInfo::GetRecord { .. })).count()
    };
    assert_eq!(node.swarm.with(count).await, Ok(0));
    assert_eq!(node.client.get_record(key("key 3")).await.unwrap().value(), b"value");
}
