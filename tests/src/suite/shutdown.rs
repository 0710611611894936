//! Every pending and later call ends when the driver ends, however it ends.

use std::{pin::Pin, time::Duration};

use futures::{FutureExt, StreamExt, channel::oneshot, future::RemoteHandle, select};
use kadence::{
    Client, DriverClosedError, GetClosestPeersError, GetProvidersError, GetRecordError, PutRecordError,
    RemoveRecordError, RequestError, TaskEnd, Update,
    kind::{GetClosestPeers, GetProviders, GetRecord, PutRecord},
    tracker::RequestPhase,
};

use super::support::{StartedCall, key, next_item, record, start_call};
use crate::{Contact, Node, NodeConfig, SilentNode, TestEnv, TestRuntime};

const NEVER: Duration = Duration::from_secs(60 * 60);

/// Two peers that hold the record, and a silent one that keeps every query from ending.
struct Network {
    holders: Vec<Node>,
    silent: SilentNode,
}

impl Network {
    async fn new<R: TestRuntime>(env: &TestEnv<R>) -> Self {
        let holders = env.mesh(2).await;
        for holder in &holders {
            // Different keys, so that concurrent calls do not share a query.
            holder.store_locally(record("file", holder.peer().to_bytes())).await;
            holder.store_locally(record("half read", holder.peer().to_bytes())).await;
        }
        Self { holders, silent: env.silent_node().await }
    }

    fn contacts(&self) -> impl Iterator<Item = &Contact> {
        self.holders.iter().map(|holder| &holder.contact).chain([&self.silent.contact])
    }
}

/// Three pending calls, a stream with one item read and one unread, and two queued calls.
struct SixCalls {
    get: StartedCall<GetRecord>,
    closest: StartedCall<GetClosestPeers>,
    providers: StartedCall<GetProviders>,
    half_read: StartedCall<GetRecord>,
    queued_get: StartedCall<GetRecord>,
    queued_put: StartedCall<PutRecord>,
}

impl SixCalls {
    /// Starts the calls on a client with four slots.
    async fn begin<R: TestRuntime>(env: &TestEnv<R>, client: &Client) -> Self {
        let mut get = start_call(client.get_record(key("file")).limit(3).timeout(NEVER)).await;
        let closest = start_call(client.get_closest_peers(key("file")).timeout(NEVER)).await;
        let providers = start_call(client.get_providers(key("file")).timeout(NEVER)).await;
        let mut half_read = start_call(client.get_record(key("half read")).all().timeout(NEVER)).await;
        next_item(&mut half_read).await;
        assert!(matches!(Pin::new(&mut half_read).peek().await, Some(Update::Item(_))));
        // Two of the three items that satisfy its limit.
        next_item(&mut get).await;
        next_item(&mut get).await;
        let queued_get = start_call(client.get_record(key("queued")).timeout(NEVER)).await;
        let queued_put = start_call(client.put_record(record("other", "value")).timeout(NEVER)).await;
        let snapshot = env.wait_for_snapshot(client, |snapshot| snapshot.requests.len() == 6).await;
        let phases: Vec<_> = snapshot.requests.iter().map(|request| request.phase).collect();
        assert_eq!(phases[..4], [RequestPhase::Running; 4]);
        assert_eq!(phases[4..], [RequestPhase::Queued; 2]);
        Self { get, closest, providers, half_read, queued_get, queued_put }
    }

    async fn all_end_with_shutdown(self) {
        let Self { mut get, mut closest, mut providers, mut half_read, mut queued_get, mut queued_put } = self;
        for stream in [&mut get, &mut queued_get] {
            let end = stream.next().await;
            assert!(
                matches!(end, Some(Update::End(Err(GetRecordError::Request(RequestError::Shutdown))))),
                "not {end:?}"
            );
            assert!(stream.next().await.is_none());
        }
        let end = closest.next().await;
        assert!(
            matches!(end, Some(Update::End(Err(GetClosestPeersError::Request(RequestError::Shutdown))))),
            "not {end:?}"
        );
        let end = providers.next().await;
        assert!(
            matches!(end, Some(Update::End(Err(GetProvidersError::Request(RequestError::Shutdown))))),
            "not {end:?}"
        );
        let end = queued_put.next().await;
        assert!(matches!(end, Some(Update::End(Err(PutRecordError::Request(RequestError::Shutdown))))), "not {end:?}");
        // Items that had arrived are not lost, and the stream ends with an error, not as if the answer were complete.
        assert!(matches!(half_read.next().await, Some(Update::Item(_))));
        let end = half_read.next().await;
        assert!(matches!(end, Some(Update::End(Err(GetRecordError::Request(RequestError::Shutdown))))), "not {end:?}");
        assert!(half_read.next().await.is_none());
    }
}

/// Asserts that later calls fail immediately.
async fn every_later_call_fails(client: &Client) {
    let get = client.get_record(key("file")).into_future().now_or_never();
    assert!(matches!(get, Some(Err(GetRecordError::Request(RequestError::Shutdown)))), "not {get:?}");
    let mut stream = client.get_record(key("file")).stream();
    let end = stream.next().now_or_never().flatten();
    assert!(matches!(end, Some(Update::End(Err(GetRecordError::Request(RequestError::Shutdown))))), "not {end:?}");
    assert_eq!(client.snapshot().now_or_never(), Some(Err(DriverClosedError)));
    assert_eq!(client.stats().now_or_never(), Some(Err(DriverClosedError)));
    assert_eq!(client.stop_providing(key("file")).now_or_never(), Some(Err(DriverClosedError)));
    let removed = client.remove_record(key("file")).now_or_never();
    assert_eq!(removed, Some(Err(RemoveRecordError::Closed(DriverClosedError))));
    // There is nothing left to shut down.
    assert_eq!(client.shutdown().now_or_never(), Some(()));
    assert_eq!(client.shutdown_now().now_or_never(), Some(()));
}

/// Starts a node with four slots, driven in a task, and its six calls.
async fn driven<R: TestRuntime>(env: &TestEnv<R>) -> (Network, Node, SixCalls) {
    let network = Network::new(env).await;
    let node = env.node_with(NodeConfig::default().max_running(4)).await;
    for contact in network.contacts() {
        node.add_contact(contact).await;
    }
    let calls = SixCalls::begin(env, &node.client).await;
    (network, node, calls)
}

pub async fn shutdown_now_ends_every_call_with_shutdown<R: TestRuntime>(env: &TestEnv<R>) {
    let (_network, node, calls) = driven(env).await;
    node.client.shutdown_now().await;
    calls.all_end_with_shutdown().await;
    assert_eq!(node.task.await, TaskEnd::Finished);
    every_later_call_fails(&node.client).await;
    assert_eq!(node.swarm.with(|_| ()).await, Err(DriverClosedError));
}

pub async fn an_aborted_task_ends_every_call_with_shutdown<R: TestRuntime>(env: &TestEnv<R>) {
    let (_network, node, calls) = driven(env).await;
    node.task.abort();
    calls.all_end_with_shutdown().await;
    assert_eq!(node.task.await, TaskEnd::Aborted);
    every_later_call_fails(&node.client).await;
    assert_eq!(node.swarm.with(|_| ()).await, Err(DriverClosedError));
}

pub async fn a_panic_in_the_task_ends_every_call_with_shutdown<R: TestRuntime>(env: &TestEnv<R>) {
    let (_network, node, calls) = driven(env).await;
    let result: Result<(), DriverClosedError> = node.swarm.with(|_| panic!("on purpose, for the test")).await;
    assert_eq!(result, Err(DriverClosedError));
    calls.all_end_with_shutdown().await;
    assert_eq!(node.task.await, TaskEnd::Lost);
    every_later_call_fails(&node.client).await;
    assert_eq!(node.swarm.with(|_| ()).await, Err(DriverClosedError));
}

pub async fn a_driver_dropped_by_its_application_ends_every_call_with_shutdown<R: TestRuntime>(env: &TestEnv<R>) {
    let network = Network::new(env).await;
    let mut node = env.own_loop(NodeConfig::default().max_running(4)).await;
    for contact in network.contacts() {
        node.add_contact(contact);
    }
    let (client, swarm, mut driver) = (node.client, node.swarm, node.driver);
    let (stop, stopped) = oneshot::channel::<()>();
    let application: RemoteHandle<()> = env.spawn(async move {
        let mut stopped = stopped.fuse();
        loop {
            select! {
                _ = stopped => return,
                _event = driver.select_next_some() => {}
            }
        }
    });
    let calls = SixCalls::begin(env, &client).await;
    stop.send(()).unwrap();
    application.await;
    calls.all_end_with_shutdown().await;
    every_later_call_fails(&client).await;
    assert_eq!(swarm.with(|_| ()).await, Err(DriverClosedError));
}

pub async fn a_graceful_shutdown_answers_what_was_accepted<R: TestRuntime>(env: &TestEnv<R>) {
    let (node, others) = env.client_with_peers(NodeConfig::default().max_running(2), 3).await;
    let mut calls = Vec::new();
    for n in 0..50 {
        let name = format!("key {n}");
        others[n % 3].store_locally(record(&name, name.clone())).await;
        calls.push((name.clone(), start_call(node.client.get_record(key(&name))).await));
    }
    node.client.shutdown().await;
    for (name, stream) in calls {
        let (_, _, end) = super::support::collect(stream).await;
        assert_eq!(end.unwrap().value(), name.as_bytes());
    }
    assert_eq!(node.task.await, TaskEnd::Finished);
    every_later_call_fails(&node.client).await;
}

pub async fn a_graceful_shutdown_is_over_at_the_last_deadline<R: TestRuntime>(env: &TestEnv<R>) {
    let network = Network::new(env).await;
    let node = env.node_with(NodeConfig::default().max_running(1)).await;
    for contact in network.contacts() {
        node.add_contact(contact).await;
    }
    let running = start_call(node.client.get_closest_peers(key("file")).timeout(Duration::from_millis(300))).await;
    let queued = start_call(node.client.get_closest_peers(key("queued")).timeout(Duration::from_millis(200))).await;
    let shutdown = node.client.shutdown();
    futures::pin_mut!(shutdown);
    assert!(futures::poll!(shutdown.as_mut()).is_pending());
    let late = node.client.get_record(key("file")).await;
    assert!(matches!(late, Err(GetRecordError::Request(RequestError::Shutdown))), "not {late:?}");
    shutdown.await;
    let (_, _, end) = super::support::collect(running).await;
    assert!(matches!(end, Err(GetClosestPeersError::Timeout { .. })), "not {end:?}");
    let (_, _, end) = super::support::collect(queued).await;
    assert!(matches!(end, Err(GetClosestPeersError::Request(RequestError::ExpiredInQueue))), "not {end:?}");
    assert_eq!(node.task.await, TaskEnd::Finished);
}

pub async fn the_task_outlives_its_handles<R: TestRuntime>(env: &TestEnv<R>) {
    let Node { contact, client, swarm, task, .. } = env.node().await;
    // A node that only serves others needs no handles.
    let other = env.node().await;
    swarm
        .with(|swarm| {
            let kad = &mut swarm.behaviour_mut().kad;
            libp2p::kad::store::RecordStore::put(kad.store_mut(), record("file", "contents"))
        })
        .await
        .unwrap()
        .unwrap();
    drop((client, swarm, task));
    other.add_contact(&contact).await;
    assert_eq!(other.client.get_record(key("file")).await.unwrap().value(), b"contents");
}
