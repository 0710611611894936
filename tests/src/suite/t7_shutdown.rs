//! T7: however the driver ends, every call learns of it.

use std::{pin::Pin, time::Duration};

use futures::{FutureExt, StreamExt, channel::oneshot, future::RemoteHandle, select};
use kadence::{
    Client, DriverClosedError, GetClosestPeersError, GetProvidersError, GetRecordError, PutRecordError,
    RemoveRecordError, RequestError, TaskEnd, Update,
    kind::{GetClosestPeers, GetProviders, GetRecord, PutRecord},
    tracker::RequestPhase,
};

use super::support::{Begun, begun, item, key, record};
use crate::{Bed, Contact, Node, NodeConfig, SilentNode, TestRuntime};

const NEVER: Duration = Duration::from_secs(60 * 60);

/// Two peers that have the record, and one that keeps every query from ending.
struct Network {
    holders: Vec<Node>,
    silent: SilentNode,
}

impl Network {
    async fn new<R: TestRuntime>(bed: &Bed<R>) -> Self {
        let holders = bed.mesh(2).await;
        for holder in &holders {
            // Two keys, so that two calls that run at once do not share a query.
            holder.holds(record("file", holder.peer().to_bytes())).await;
            holder.holds(record("half read", holder.peer().to_bytes())).await;
        }
        Self { holders, silent: bed.silent().await }
    }

    fn contacts(&self) -> impl Iterator<Item = &Contact> {
        self.holders.iter().map(|holder| &holder.contact).chain([&self.silent.contact])
    }
}

/// Three pending calls, a stream of which one item was read and one was not, and two calls that wait for a slot.
struct SixCalls {
    get: Begun<GetRecord>,
    closest: Begun<GetClosestPeers>,
    providers: Begun<GetProviders>,
    half_read: Begun<GetRecord>,
    queued_get: Begun<GetRecord>,
    queued_put: Begun<PutRecord>,
}

impl SixCalls {
    /// Of a client with four slots.
    async fn begin<R: TestRuntime>(bed: &Bed<R>, client: &Client) -> Self {
        let mut get = begun(client.get_record(key("file")).limit(3).timeout(NEVER)).await;
        let closest = begun(client.get_closest_peers(key("file")).timeout(NEVER)).await;
        let providers = begun(client.get_providers(key("file")).timeout(NEVER)).await;
        let mut half_read = begun(client.get_record(key("half read")).all().timeout(NEVER)).await;
        item(&mut half_read).await;
        assert!(matches!(Pin::new(&mut half_read).peek().await, Some(Update::Item(_))));
        // Two of the three that would satisfy it.
        item(&mut get).await;
        item(&mut get).await;
        let queued_get = begun(client.get_record(key("queued")).timeout(NEVER)).await;
        let queued_put = begun(client.put_record(record("other", "value")).timeout(NEVER)).await;
        let snapshot = bed.until_alive(client, |snapshot| snapshot.requests.len() == 6).await;
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
        // What had arrived is not lost, and then it is not a bare end, as if the answer were complete.
        assert!(matches!(half_read.next().await, Some(Update::Item(_))));
        let end = half_read.next().await;
        assert!(matches!(end, Some(Update::End(Err(GetRecordError::Request(RequestError::Shutdown))))), "not {end:?}");
        assert!(half_read.next().await.is_none());
    }
}

/// Every later call fails at once: without waiting for anything.
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

/// A node with four slots that is driven in a task, and its six calls.
async fn driven<R: TestRuntime>(bed: &Bed<R>) -> (Network, Node, SixCalls) {
    let network = Network::new(bed).await;
    let node = bed.node_with(NodeConfig::default().max_running(4)).await;
    for contact in network.contacts() {
        node.meets(contact).await;
    }
    let calls = SixCalls::begin(bed, &node.client).await;
    (network, node, calls)
}

pub async fn t7_shutdown_now_ends_every_call_with_shutdown<R: TestRuntime>(bed: &Bed<R>) {
    let (_network, node, calls) = driven(bed).await;
    node.client.shutdown_now().await;
    calls.all_end_with_shutdown().await;
    assert_eq!(node.task.await, TaskEnd::Finished);
    every_later_call_fails(&node.client).await;
    assert_eq!(node.swarm.with(|_| ()).await, Err(DriverClosedError));
}

pub async fn t7_an_aborted_task_ends_every_call_with_shutdown<R: TestRuntime>(bed: &Bed<R>) {
    let (_network, node, calls) = driven(bed).await;
    node.task.abort();
    calls.all_end_with_shutdown().await;
    assert_eq!(node.task.await, TaskEnd::Aborted);
    every_later_call_fails(&node.client).await;
    assert_eq!(node.swarm.with(|_| ()).await, Err(DriverClosedError));
}

pub async fn t7_a_panic_in_the_task_ends_every_call_with_shutdown<R: TestRuntime>(bed: &Bed<R>) {
    let (_network, node, calls) = driven(bed).await;
    let result: Result<(), DriverClosedError> = node.swarm.with(|_| panic!("on purpose, for the test")).await;
    assert_eq!(result, Err(DriverClosedError));
    calls.all_end_with_shutdown().await;
    assert_eq!(node.task.await, TaskEnd::Lost);
    every_later_call_fails(&node.client).await;
    assert_eq!(node.swarm.with(|_| ()).await, Err(DriverClosedError));
}

pub async fn t7_a_driver_dropped_by_its_application_ends_every_call_with_shutdown<R: TestRuntime>(bed: &Bed<R>) {
    let network = Network::new(bed).await;
    let mut node = bed.own_loop(NodeConfig::default().max_running(4)).await;
    for contact in network.contacts() {
        node.meets(contact);
    }
    let (client, swarm, mut driver) = (node.client, node.swarm, node.driver);
    let (stop, stopped) = oneshot::channel::<()>();
    let application: RemoteHandle<()> = bed.spawn(async move {
        let mut stopped = stopped.fuse();
        loop {
            select! {
                _ = stopped => return,
                _event = driver.select_next_some() => {}
            }
        }
    });
    let calls = SixCalls::begin(bed, &client).await;
    stop.send(()).unwrap();
    application.await;
    calls.all_end_with_shutdown().await;
    every_later_call_fails(&client).await;
    assert_eq!(swarm.with(|_| ()).await, Err(DriverClosedError));
}

pub async fn t7_a_graceful_shutdown_answers_what_was_accepted<R: TestRuntime>(bed: &Bed<R>) {
    let (node, others) = bed.client_of(NodeConfig::default().max_running(2), 3).await;
    let mut calls = Vec::new();
    for n in 0..50 {
        let name = format!("key {n}");
        others[n % 3].holds(record(&name, name.clone())).await;
        calls.push((name.clone(), begun(node.client.get_record(key(&name))).await));
    }
    node.client.shutdown().await;
    for (name, stream) in calls {
        let (_, _, end) = super::support::rest(stream).await;
        assert_eq!(end.unwrap().value(), name.as_bytes());
    }
    assert_eq!(node.task.await, TaskEnd::Finished);
    every_later_call_fails(&node.client).await;
}

pub async fn t7_a_graceful_shutdown_is_over_at_the_last_deadline<R: TestRuntime>(bed: &Bed<R>) {
    let network = Network::new(bed).await;
    let node = bed.node_with(NodeConfig::default().max_running(1)).await;
    for contact in network.contacts() {
        node.meets(contact).await;
    }
    let running = begun(node.client.get_closest_peers(key("file")).timeout(Duration::from_millis(300))).await;
    let queued = begun(node.client.get_closest_peers(key("queued")).timeout(Duration::from_millis(200))).await;
    let shutdown = node.client.shutdown();
    futures::pin_mut!(shutdown);
    assert!(futures::poll!(shutdown.as_mut()).is_pending());
    let late = node.client.get_record(key("file")).await;
    assert!(matches!(late, Err(GetRecordError::Request(RequestError::Shutdown))), "not {late:?}");
    shutdown.await;
    let (_, _, end) = super::support::rest(running).await;
    assert!(matches!(end, Err(GetClosestPeersError::Timeout { .. })), "not {end:?}");
    let (_, _, end) = super::support::rest(queued).await;
    assert!(matches!(end, Err(GetClosestPeersError::Request(RequestError::ExpiredInQueue))), "not {end:?}");
    assert_eq!(node.task.await, TaskEnd::Finished);
}

pub async fn t7_the_task_outlives_its_handles<R: TestRuntime>(bed: &Bed<R>) {
    let Node { contact, client, swarm, task, .. } = bed.node().await;
    // A node that only serves others has nobody left to call it.
    let other = bed.node().await;
    swarm
        .with(|swarm| {
            let kad = &mut swarm.behaviour_mut().kad;
            libp2p::kad::store::RecordStore::put(kad.store_mut(), record("file", "contents"))
        })
        .await
        .unwrap()
        .unwrap();
    drop((client, swarm, task));
    other.meets(&contact).await;
    assert_eq!(other.client.get_record(key("file")).await.unwrap().value(), b"contents");
}
