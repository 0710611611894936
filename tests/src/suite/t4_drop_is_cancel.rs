//! T4: dropping a call cancels its query, now, whatever kad is doing.
//!
//! [`Bed::settles`] gives the driver less time than kad needs to give up a silent peer, so what is gone in time is gone
//! because it was cancelled.

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

use super::support::{begun, item, key, record, rest};
use crate::{
    BareKad, Bed, Behaviour, Node, NodeConfig, SilentNode, TestRuntime, keypair_in_bucket, live_queries, with_kad,
};

/// A deadline that cannot be what ended a call.
const NEVER: Duration = Duration::from_secs(60 * 60);

/// A client whose every query begins at one silent peer.
async fn client_of_silence<R: TestRuntime>(bed: &Bed<R>, config: NodeConfig) -> (Node, SilentNode) {
    let client = bed.node_with(config).await;
    let silent = bed.silent().await;
    client.meets(&silent.contact).await;
    (client, silent)
}

fn ids(snapshot: &Snapshot) -> Vec<QueryId> {
    snapshot.queries.iter().map(|query| query.id.expect("it was started")).collect()
}

/// Nothing of ours is alive, neither in the tracker nor in kad.
async fn nothing_is_left<R: TestRuntime>(bed: &Bed<R>, node: &Node, ours: &[QueryId]) {
    bed.settles(&node.client).await;
    let ours = ours.to_vec();
    let alive = with_kad(&node.swarm, move |kad| -> Vec<QueryId> {
        kad.iter_queries().map(|query| query.id()).filter(|id| ours.contains(id)).collect()
    });
    assert_eq!(alive.await, []);
    assert_eq!(live_queries(&node.swarm).await, []);
    let stats = node.client.stats().await.unwrap();
    assert_eq!((stats.lost_queries, stats.unknown_inputs, stats.mismatched_events), (0, 0, 0));
}

pub async fn t4_a_call_dropped_while_queued_never_starts<R: TestRuntime>(bed: &Bed<R>) {
    let (node, silent) = client_of_silence(bed, NodeConfig::default().max_running(1)).await;
    let first = begun(node.client.get_record(key("first")).timeout(NEVER)).await;
    silent.is_asked().await;
    let second = begun(node.client.get_record(key("second")).timeout(NEVER)).await;
    let third = begun(node.client.get_closest_peers(key("third")).timeout(NEVER)).await;
    let snapshot = bed.until_alive(&node.client, |snapshot| snapshot.requests.len() == 3).await;
    let phases: Vec<_> = snapshot.requests.iter().map(|request| request.phase).collect();
    assert_eq!(phases, [RequestPhase::Running, RequestPhase::Queued, RequestPhase::Queued]);

    drop(second);
    let snapshot = bed.until_alive(&node.client, |snapshot| snapshot.requests.len() == 2).await;
    assert_eq!(snapshot.queries.len(), 1);
    // The slot goes to the next one in the line that still wants it.
    drop(first);
    let running = |snapshot: &Snapshot| {
        snapshot.queries.iter().any(|query| query.operation == OperationKind::GetClosestPeers && query.id.is_some())
    };
    let snapshot = bed.until_alive(&node.client, running).await;
    let ours = ids(&snapshot);
    drop(third);
    nothing_is_left(bed, &node, &ours).await;
}

pub async fn t4_a_call_dropped_before_its_first_event_frees_its_slot_at_once<R: TestRuntime>(bed: &Bed<R>) {
    let (node, silent) = client_of_silence(bed, NodeConfig::default().max_running(1)).await;
    node.holds(record("local", "value")).await;
    let begin = bed.now();
    let call = begun(node.client.get_record(key("far")).timeout(NEVER)).await;
    assert_eq!(silent.is_asked().await, node.peer());
    let ours = ids(&bed.until_alive(&node.client, |snapshot| snapshot.queries.len() == 1).await);
    assert!(live_queries(&node.swarm).await.contains(&ours[0]));
    let next = begun(node.client.get_record(key("local")).timeout(NEVER)).await;
    drop(call);
    let (items, _, end) = rest(next).await;
    assert_eq!((items.len(), end.unwrap().value()), (1, b"value".as_slice()));
    let took = bed.now() - begin;
    assert!(took < Duration::from_secs(8), "it waited for kad to give up the silent peer: {took:?}");
    nothing_is_left(bed, &node, &ours).await;
}

pub async fn t4_a_stream_dropped_halfway_frees_its_slot_at_once<R: TestRuntime>(bed: &Bed<R>) {
    let (node, others) = bed.client_of(NodeConfig::default().max_running(1), 2).await;
    let silent = bed.silent().await;
    node.meets(&silent.contact).await;
    for other in &others {
        other.holds(record("file", "contents")).await;
    }
    let mut stream = begun(node.client.get_record(key("file")).all().timeout(NEVER)).await;
    assert_eq!(item(&mut stream).await.record.value, b"contents");
    silent.is_asked().await;
    let snapshot = bed.until_alive(&node.client, |snapshot| snapshot.queries.len() == 1).await;
    assert_eq!(snapshot.queries[0].phase, QueryPhase::Running);
    drop(stream);
    nothing_is_left(bed, &node, &ids(&snapshot)).await;
    node.client.get_record(key("file")).await.unwrap();
}

pub async fn t4_a_put_dropped_in_its_lookup_sends_and_keeps_nothing<R: TestRuntime>(bed: &Bed<R>) {
    let (node, others) = bed.client_of(NodeConfig::default(), 2).await;
    let silent = bed.silent().await;
    node.meets(&silent.contact).await;
    let put = begun(node.client.put_record(record("file", "contents")).timeout(NEVER)).await;
    silent.is_asked().await;
    let snapshot = bed.until_alive(&node.client, |snapshot| snapshot.queries.len() == 1).await;
    assert_eq!(snapshot.queries[0].operation, OperationKind::GetClosestPeers, "the first step is a lookup");
    assert_eq!(node.local_record(&key("file")).await, None, "nothing is kept before the put has succeeded");
    drop(put);
    nothing_is_left(bed, &node, &ids(&snapshot)).await;
    for node in others.iter().chain([&node]) {
        assert_eq!(node.local_record(&key("file")).await, None);
    }
}

pub async fn t4_a_dropped_announcement_leaves_no_local_provider<R: TestRuntime>(bed: &Bed<R>) {
    let (node, silent) = client_of_silence(bed, NodeConfig::default()).await;
    let call = begun(node.client.start_providing(key("file")).timeout(NEVER)).await;
    silent.is_asked().await;
    let snapshot = bed.until_alive(&node.client, |snapshot| snapshot.queries.len() == 1).await;
    assert_eq!(node.local_providers(&key("file")).await, [node.peer()], "kad makes the entry at once");
    drop(call);
    nothing_is_left(bed, &node, &ids(&snapshot)).await;
    assert_eq!(node.local_providers(&key("file")).await, []);
}

pub async fn t4_an_announcement_made_before_survives_a_dropped_one<R: TestRuntime>(bed: &Bed<R>) {
    let (node, _others) = bed.client_of(NodeConfig::default(), 2).await;
    node.client.start_providing(key("file")).await.unwrap();
    let silent = bed.silent().await;
    node.meets(&silent.contact).await;
    let call = begun(node.client.start_providing(key("file")).timeout(NEVER)).await;
    silent.is_asked().await;
    drop(call);
    nothing_is_left(bed, &node, &[]).await;
    assert_eq!(node.local_providers(&key("file")).await, [node.peer()]);
}

pub async fn t4_a_dropped_bootstrap_ends_in_all_its_phases<R: TestRuntime>(bed: &Bed<R>) {
    let node = bed.node().await;
    // The lookup of the own id, and then one for each of the two farther buckets, all of which would wait for silence.
    let mut silent = Vec::new();
    for bucket in [253, 254, 255] {
        silent.push(bed.silent_as(&keypair_in_bucket(node.peer(), bucket)).await);
    }
    for silent in &silent {
        node.meets(&silent.contact).await;
    }
    let call = begun(node.client.bootstrap().timeout(NEVER)).await;
    silent[0].is_asked().await;
    let snapshot = bed.until_alive(&node.client, |snapshot| snapshot.queries.len() == 1).await;
    drop(call);
    nothing_is_left(bed, &node, &ids(&snapshot)).await;
}

pub async fn t4_calls_dropped_before_the_driver_took_them_are_never_accepted<R: TestRuntime>(bed: &Bed<R>) {
    let mut config = NodeConfig::default();
    config.driver.command_capacity = 1;
    let mut node = bed.own_loop(config).await;
    // Nobody polls the driver: the first call fills the channel, and the others wait for a place in it.
    let mut calls = Vec::new();
    for n in 0..5 {
        calls.push(begun(node.client.get_record(key(&format!("key {n}"))).timeout(NEVER)).await);
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

pub async fn t4_calls_dropped_as_soon_as_they_are_sent_leave_nothing<R: TestRuntime>(bed: &Bed<R>) {
    let (node, _silent) = client_of_silence(bed, NodeConfig::default().max_running(4)).await;
    let callers = (0..4).map(|caller| {
        let client = node.client.clone();
        bed.spawn(async move {
            for n in 0..2_000 {
                let mut stream = client.get_record(key(&format!("{caller} {n}"))).timeout(NEVER).stream();
                // The call goes out here; whether anything comes back is of no interest.
                let _ = poll!(stream.next());
                drop(stream);
            }
        })
    });
    join_all(callers).await;
    nothing_is_left(bed, &node, &[]).await;
}

pub async fn t4_a_thousand_gets_dropped_midway_leave_nothing<R: TestRuntime>(bed: &Bed<R>) {
    let mut config = NodeConfig::default();
    // A call that finds the channel full is sent when it is polled again, and nobody will poll these.
    config.driver.command_capacity = 1_000;
    let (node, others) = bed.client_of(config, 4).await;
    for n in 0..10 {
        others[n % 4].holds(record(&format!("key {n}"), "value")).await;
    }
    let silent = bed.silent().await;
    node.meets(&silent.contact).await;
    let mut calls = Vec::new();
    for n in 0..1_000 {
        calls.push(begun(node.client.get_record(key(&format!("key {n}"))).all().timeout(NEVER)).await);
    }
    // Midway: some have found something, some are queued, and the silent peer keeps all of them from ending.
    item(&mut calls[0]).await;
    silent.is_asked().await;
    let snapshot = bed.until_alive(&node.client, |snapshot| snapshot.requests.len() == 1_000).await;
    assert_eq!(snapshot.queries.len(), 32);
    drop(calls);
    nothing_is_left(bed, &node, &ids(&snapshot)).await;
    // kad has not kept them elsewhere either, and still works.
    let count = |swarm: &mut Swarm<Behaviour>| {
        swarm.behaviour().kad.iter_queries().filter(|query| matches!(query.info(), QueryInfo::GetRecord { .. })).count()
    };
    assert_eq!(node.swarm.with(count).await, Ok(0));
    assert_eq!(node.client.get_record(key("key 3")).await.unwrap().value(), b"value");
}
