//! Deadlines on networks of silent peers are exact and free the slots.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use futures::{StreamExt, channel::oneshot, poll, stream::FuturesUnordered};
use kadence::{
    BootstrapError, DriverClosedError, GetClosestPeersError, GetProvidersError, GetRecordError, PutRecordError,
    RequestError, StartProvidingError, Update,
    tracker::{OperationKind, Snapshot},
};

use libp2p::Multiaddr;

use super::support::{collect, key, record, start_call};
use crate::{ManualClock, NodeConfig, TestEnv, TestRuntime, with_kad};

const NEVER: Duration = Duration::from_secs(60 * 60);

/// Timeout of tests on a real clock.
const SHORT: Duration = Duration::from_millis(200);

/// Limit for a timeout of [`SHORT`] on a busy machine. kad alone takes 10 seconds.
const IN_TIME: Duration = Duration::from_secs(8);

/// Checks the silent node itself, which the other tests rely on.
pub async fn a_silent_peer_is_known_and_asked_and_never_answers<R: TestRuntime>(env: &TestEnv<R>) {
    let (node, others) = env.client_with_peers(NodeConfig::default(), 1).await;
    let silent = env.silent_node().await;
    // Only identify makes the silent node known, as for any other node. It connects to nobody, so this node dials it.
    let address = silent.contact.address.clone();
    node.swarm.with(move |swarm| swarm.dial(address)).await.unwrap().unwrap();
    node.wait_for_peers(2).await;
    let peer = silent.contact.peer;
    let known = with_kad(&node.swarm, move |kad| kad.kbucket(peer).is_some_and(|bucket| !bucket.is_empty())).await;
    assert!(known, "the silent peer is in the routing table");

    let call = start_call(node.client.get_closest_peers(key("target")).timeout(NEVER)).await;
    assert_eq!(silent.next_request().await, node.peer());
    // The other node has answered, and the lookup waits for the silent one.
    let progress = env.wait_until(async || {
        with_kad(&node.swarm, |kad| kad.iter_queries().any(|query| query.stats().num_successes() == 1)).await
    });
    progress.await;
    let pending = with_kad(&node.swarm, |kad| {
        kad.iter_queries().any(|query| query.stats().num_successes() == 1 && query.stats().num_pending() == 1)
    });
    assert!(pending.await);
    drop((call, others));
}

pub async fn a_deadline_on_silent_peers_comes_with_what_was_found<R: TestRuntime>(env: &TestEnv<R>) {
    let clock = ManualClock::new(env.runtime().clone());
    let node = env.node_on(&clock, NodeConfig::default()).await;
    let holders = env.mesh(2).await;
    for holder in &holders {
        holder.store_locally(record("file", holder.peer().to_bytes())).await;
        node.add_contact(&holder.contact).await;
    }
    // Fewer than the three peers that kad asks at a time, so that the others are asked as well.
    let silent = [env.silent_node().await, env.silent_node().await];
    for silent in &silent {
        node.add_contact(&silent.contact).await;
    }
    let mut get = node.client.get_record(key("file")).limit(3).timeout(NEVER).stream();
    for _ in 0..2 {
        let item = get.next().await;
        assert!(matches!(item, Some(Update::Item(_))), "{item:?}");
    }
    for silent in &silent {
        silent.next_request().await;
    }
    clock.advance(NEVER);
    let end = get.next().await;
    let Some(Update::End(Err(GetRecordError::Timeout { found, progress }))) = end else { panic!("{end:?}") };
    let sources: BTreeSet<_> = found.iter().map(|found| found.peer.unwrap()).collect();
    assert_eq!((found.len(), sources.len()), (2, 2), "the error contains the records found so far");
    // kad counts an answer only after it has reported its contents.
    assert!(progress.requests >= 3 && progress.successes >= 1, "{progress:?}");
    env.wait_until_idle(&node.client).await;
}

pub async fn every_operation_ends_at_its_deadline_on_silent_peers<R: TestRuntime>(env: &TestEnv<R>) {
    let node = env.node().await;
    let silent = env.silent_node().await;
    node.add_contact(&silent.contact).await;
    let begin = env.now();
    let client = &node.client;
    let (get, put, put_to, providers, announced, closest, bootstrapped) = futures::join!(
        client.get_record(key("a")).timeout(SHORT).into_future(),
        client.put_record(record("b", "value")).timeout(SHORT).into_future(),
        client.put_record_to(record("c", "value"), [silent.contact.peer]).timeout(SHORT).into_future(),
        client.get_providers(key("d")).timeout(SHORT).into_future(),
        client.start_providing(key("e")).timeout(SHORT).into_future(),
        client.get_closest_peers(key("f")).timeout(SHORT).into_future(),
        client.bootstrap().timeout(SHORT).into_future(),
    );
    let took = env.now() - begin;
    assert!(matches!(&get, Err(GetRecordError::Timeout { found, .. }) if found.is_empty()), "{get:?}");
    assert!(matches!(&put, Err(PutRecordError::Timeout { sent_to, .. }) if sent_to.is_empty()), "{put:?}");
    let sent = [silent.contact.peer];
    assert!(matches!(&put_to, Err(PutRecordError::Timeout { sent_to, .. }) if *sent_to == sent), "{put_to:?}");
    assert!(matches!(&providers, Err(GetProvidersError::Timeout { found, .. }) if found.is_empty()), "{providers:?}");
    assert!(matches!(announced, Err(StartProvidingError::Timeout { .. })), "{announced:?}");
    assert!(matches!(closest, Err(GetClosestPeersError::Timeout { .. })), "{closest:?}");
    assert!(matches!(bootstrapped, Err(BootstrapError::Timeout { phases: 0, .. })), "{bootstrapped:?}");
    assert!(took >= SHORT && took < IN_TIME, "after {took:?}");
    assert_eq!(node.local_record(&key("b")).await, None);
    assert_eq!(node.local_providers(&key("e")).await, []);
    env.wait_until_idle(client).await;
}

pub async fn a_deadline_comes_neither_early_nor_late<R: TestRuntime>(env: &TestEnv<R>) {
    let clock = ManualClock::new(env.runtime().clone());
    let mut config = NodeConfig::default();
    // Without stall detection, only deadlines are due.
    config.driver.tracker.stall = None;
    let node = env.node_on(&clock, config).await;
    let silent = env.silent_node().await;
    node.add_contact(&silent.contact).await;
    let deadline = Duration::from_secs(5);
    let call = node.client.get_record(key("file")).timeout(deadline).into_future();
    let later = node.client.get_record(key("other")).timeout(2 * deadline).into_future();
    futures::pin_mut!(call, later);
    assert!(poll!(call.as_mut()).is_pending());
    assert!(poll!(later.as_mut()).is_pending());
    silent.next_request().await;
    // The snapshot request follows the calls through the same channel: both deadlines count from now.
    assert_eq!(node.client.snapshot().await.unwrap().requests.len(), 2);

    clock.advance(deadline - Duration::from_nanos(1));
    // The snapshot shows that the driver has been woken and has read the clock.
    let snapshot = node.client.snapshot().await.unwrap();
    let remaining: Vec<_> = snapshot.requests.iter().map(|request| request.remaining).collect();
    assert_eq!(remaining, [Duration::from_nanos(1), deadline + Duration::from_nanos(1)]);
    assert!(poll!(call.as_mut()).is_pending());

    assert_eq!(clock.advance(Duration::from_nanos(1)), 1, "the driver's only timer is set to the deadline");
    let result = call.await;
    assert!(matches!(result, Err(GetRecordError::Timeout { .. })), "{result:?}");
    assert!(poll!(later.as_mut()).is_pending());
    clock.advance(deadline);
    let result = later.await;
    assert!(matches!(result, Err(GetRecordError::Timeout { .. })), "{result:?}");
}

pub async fn a_call_that_never_got_a_slot_expires_in_the_queue<R: TestRuntime>(env: &TestEnv<R>) {
    let node = env.node_with(NodeConfig::default().max_running(1)).await;
    let silent = env.silent_node().await;
    node.add_contact(&silent.contact).await;
    let running = start_call(node.client.get_record(key("first")).timeout(NEVER)).await;
    silent.next_request().await;
    let begin = env.now();
    let result = node.client.get_record(key("second")).timeout(SHORT).await;
    let took = env.now() - begin;
    assert!(matches!(result, Err(GetRecordError::Request(RequestError::ExpiredInQueue))), "{result:?}");
    assert!(took >= SHORT && took < IN_TIME, "after {took:?}");
    let keys = with_kad(&node.swarm, |kad| -> Vec<_> {
        let key = |query: libp2p::kad::QueryRef<'_>| match query.info() {
            libp2p::kad::QueryInfo::GetRecord { key, .. } => Some(key.clone()),
            _ => None,
        };
        kad.iter_queries().filter_map(key).collect()
    });
    assert_eq!(keys.await, [key("first")], "kad never started the second query");
    let snapshot = node.client.snapshot().await.unwrap();
    assert_eq!((snapshot.requests.len(), snapshot.queries.len()), (1, 1));
    drop(running);
}

pub async fn silent_peers_do_not_use_up_the_slots<R: TestRuntime>(env: &TestEnv<R>) {
    let mut config = NodeConfig::default().max_running(2);
    // Slots become free because queries end, not because they are given up.
    config.driver.tracker.finish_timeout = NEVER;
    let node = env.node_with(config).await;
    let silent = env.silent_node().await;
    node.add_contact(&silent.contact).await;
    node.store_locally(record("local", "value")).await;
    // Each round fills all slots and the queue, and lets every call time out.
    for round in 0..3 {
        let (mut calls, timeout) = (Vec::new(), Duration::from_millis(50));
        for n in 0..4 {
            let name = format!("{round} {n}");
            calls.push(start_call(node.client.get_closest_peers(key(&name)).timeout(timeout)).await);
        }
        for call in calls {
            let (_, _, end) = collect(call).await;
            use RequestError::ExpiredInQueue;
            let timed_out = matches!(
                end,
                Err(GetClosestPeersError::Timeout { .. } | GetClosestPeersError::Request(ExpiredInQueue))
            );
            assert!(timed_out, "{end:?}");
        }
        assert_eq!(node.client.get_record(key("local")).await.unwrap().value(), b"value");
    }
    // A bootstrap has several phases, each of which has to be finished.
    let bootstrap = node.client.bootstrap().timeout(Duration::from_millis(50)).await;
    assert!(matches!(bootstrap, Err(BootstrapError::Timeout { .. })), "{bootstrap:?}");
    env.wait_until_idle(&node.client).await;
    assert_eq!(node.client.stats().await.unwrap().lost_queries, 0, "kad ended every query that was finished");
    let begin = start_call(node.client.put_record(record("x", "y")).timeout(NEVER)).await;
    let snapshot = env.wait_for_snapshot(&node.client, |snapshot| snapshot.queries.len() == 1).await;
    assert_eq!(snapshot.queries[0].operation, OperationKind::GetClosestPeers);
    drop(begin);
}

pub async fn a_call_that_is_awaited_in_place_of_the_driver_ends_at_its_deadline<R: TestRuntime>(env: &TestEnv<R>) {
    let mut config = NodeConfig::default();
    config.driver.tracker.default_timeout = SHORT;
    let mut node = env.own_loop(config).await;
    let client = node.client.clone();
    let in_place_of_the_driver = async || {
        let began = Instant::now();
        let result = client.get_closest_peers(key("target")).await;
        assert!(matches!(result, Err(GetClosestPeersError::Request(RequestError::NotPolled))), "{result:?}");
        assert!(began.elapsed() >= SHORT && began.elapsed() < IN_TIME, "{:?}", began.elapsed());
        assert_eq!(client.snapshot().await, Err(DriverClosedError));
    };
    // Before the first event.
    in_place_of_the_driver().await;
    assert_eq!(node.swarm.with(|_| ()).await, Err(DriverClosedError));
    // After an event.
    node.driver.swarm_mut().dial("/ip4/127.0.0.1/udp/1".parse::<Multiaddr>().unwrap()).unwrap();
    node.driver.select_next_some().await;
    in_place_of_the_driver().await;
    // While the driver waits, with a waker of this task.
    while poll!(node.driver.next()).is_ready() {}
    in_place_of_the_driver().await;
    // In a group and in another task, whose calls have wakers of their own, which the driver does not wake.
    while poll!(node.driver.next()).is_ready() {}
    let call = || client.get_closest_peers(key("target")).into_future();
    let results: Vec<_> = [call(), call()].into_iter().collect::<FuturesUnordered<_>>().collect().await;
    let not_polled =
        |result: &Result<_, _>| matches!(result, Err(GetClosestPeersError::Request(RequestError::NotPolled)));
    assert!(results.iter().all(not_polled), "{results:?}");
    let (sender, receiver) = oneshot::channel();
    let call = call();
    env.runtime().spawn(Box::pin(async move { assert!(sender.send(call.await).is_ok()) }));
    let result = receiver.await.unwrap();
    assert!(not_polled(&result), "{result:?}");
    // Side by side, calls go on, and what was given up has left nothing.
    let (result, _) = node.run_until(client.get_closest_peers(key("target")).into_future()).await;
    assert!(matches!(result, Err(GetClosestPeersError::NoKnownPeers)), "{result:?}");
    let (snapshot, _) = node.run_until(client.snapshot()).await;
    assert!(snapshot.as_ref().is_ok_and(Snapshot::is_empty), "{snapshot:?}");
}
