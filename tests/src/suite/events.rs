//! Events that belong to no call are forwarded to the application, and an idle driver does nothing.

use std::{
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures::{StreamExt, future::join_all};
use kadence::{Driver, LaggedError, Runtime};
use libp2p::{
    kad::{self, GetClosestPeersOk, QueryId, QueryResult},
    swarm::SwarmEvent,
};

use super::support::{key, peers, record, sorted, start_call};
use crate::{BareKad, BehaviourEvent, ManualClock, Node, NodeConfig, NodeEvent, TestEnv, TestRuntime, Wakes, with_kad};

/// Returns the outbound query of an event.
fn query(event: &NodeEvent) -> Option<(QueryId, &QueryResult, bool)> {
    match event {
        SwarmEvent::Behaviour(BehaviourEvent::Kad(kad::Event::OutboundQueryProgressed {
            id, result, step, ..
        })) => Some((*id, result, step.last)),
        _ => None,
    }
}

pub async fn queries_of_the_application_are_forwarded_unchanged<R: TestRuntime>(env: &TestEnv<R>) {
    let (mut node, others) = env.client_with_peers(NodeConfig::default().keep_events(), 3).await;
    let mut events = node.events.take().unwrap();
    for other in &others {
        other.store_locally(record("file", "contents")).await;
    }
    // Kadence's queries run before, between and after those of the application.
    let application = |name: &'static str| with_kad(&node.swarm, move |kad| kad.get_closest_peers(key(name).to_vec()));
    node.client.get_record(key("file")).all().await.unwrap();
    let first = application("first").await;
    let ours = node.client.get_closest_peers(key("ours"));
    let (ours, second) = futures::join!(ours.into_future(), application("second"));
    assert_eq!(ours.unwrap().peers.len(), 3);
    node.client.get_record(key("file")).await.unwrap();

    let mut ended = Vec::new();
    while ended.len() < 2 {
        let event = events.next().await.unwrap().unwrap();
        let Some((id, result, last)) = query(&event) else { continue };
        if matches!(result, QueryResult::Bootstrap(_)) {
            continue;
        }
        let QueryResult::GetClosestPeers(Ok(GetClosestPeersOk { key: target, peers: found })) = result else {
            panic!("the application never asked for {result:?}")
        };
        let name = if id == first { "first" } else { "second" };
        assert!(id == first || id == second, "{event:?}");
        assert_eq!(*target, key(name).to_vec());
        assert_eq!(sorted(found.iter().map(|info| info.peer_id)), peers(&others));
        assert!(last);
        ended.push(id);
    }
    assert!(ended.contains(&first) && ended.contains(&second));
    assert_eq!(node.client.stats().await.unwrap().unknown_inputs, 0);
}

pub async fn bootstraps_of_kad_are_forwarded<R: TestRuntime>(env: &TestEnv<R>) {
    let (mut node, _others) = env.client_with_peers(NodeConfig::default().keep_events(), 2).await;
    let mut events = node.events.take().unwrap();
    // kad starts one by itself, half a second after it has learned of a peer.
    loop {
        let event = events.next().await.unwrap().unwrap();
        if let Some((_, QueryResult::Bootstrap(Ok(_)), true)) = query(&event) {
            break;
        }
    }
    assert_eq!(node.client.stats().await.unwrap().accepted, 0);
}

/// Runs `number` lookups that do not belong to Kadence, and returns when all their events have arrived.
async fn lookups(node: &Node, number: usize) {
    let begun = with_kad(&node.swarm, move |kad| {
        for n in 0..number {
            kad.get_closest_peers(format!("target {n}").into_bytes());
        }
    });
    begun.await;
    while !crate::live_queries(&node.swarm).await.is_empty() {
        node.client.get_closest_peers(key("another")).await.unwrap();
    }
    // Everything that kad had finished before this call started was reported before its result.
    node.client.get_closest_peers(key("another")).await.unwrap();
}

pub async fn a_slow_reader_of_events_learns_how_many_it_missed<R: TestRuntime>(env: &TestEnv<R>) {
    let mut config = NodeConfig::default().keep_events();
    config.driver.event_capacity = 2;
    let (mut node, _others) = env.client_with_peers(config, 2).await;
    let mut events = node.events.take().unwrap();
    lookups(&node, 20).await;
    assert!(events.next().await.unwrap().is_ok());
    assert!(events.next().await.unwrap().is_ok());
    let Some(Err(LaggedError { skipped, .. })) = events.next().await else {
        panic!("20 events do not fit into a buffer of two")
    };
    assert!(skipped >= 18, "{skipped}");

    // From here on the reader keeps up and misses nothing.
    let id = with_kad(&node.swarm, |kad| kad.get_closest_peers(b"last".to_vec())).await;
    loop {
        let event = events.next().await.unwrap().unwrap();
        if query(&event).is_some_and(|(seen, _, last)| seen == id && last) {
            break;
        }
    }
    node.task.abort();
    while let Some(event) = events.next().await {
        event.unwrap();
    }
}

pub async fn unread_events_do_not_block_the_driver<R: TestRuntime>(env: &TestEnv<R>) {
    let mut config = NodeConfig::default().keep_events();
    config.driver.event_capacity = 1;
    let (mut node, others) = env.client_with_peers(config, 2).await;
    others[0].store_locally(record("file", "contents")).await;
    lookups(&node, 20).await;
    assert_eq!(node.client.get_record(key("file")).await.unwrap().value(), b"contents");
    drop(node.events.take());
    lookups(&node, 20).await;
    assert_eq!(node.client.get_record(key("file")).await.unwrap().value(), b"contents");
}

/// Polls a driver until it has nothing to do.
fn exhaust<R: Runtime>(driver: &mut Driver<BareKad, R>, wakes: &Arc<Wakes>) {
    let waker = Waker::from(Arc::clone(wakes));
    let mut cx = Context::from_waker(&waker);
    loop {
        let before = wakes.count();
        if let Poll::Pending = driver.poll_next_unpin(&mut cx)
            && wakes.count() == before
        {
            return;
        }
    }
}

pub async fn an_idle_driver_is_never_woken_by_its_own_timer<R: TestRuntime>(env: &TestEnv<R>) {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    let clock = ManualClock::new(env.runtime().clone());
    // There are no peers, so only the driver itself could wake it.
    let mut node = env.own_loop_on(&clock, NodeConfig::default()).await;
    let wakes = Arc::new(Wakes::default());
    exhaust(&mut node.driver, &wakes);
    assert_eq!(clock.advance(DAY), 0, "the driver has had nothing to wait for");

    let client = node.client.clone();
    let calls = (0..10).map(|n| client.get_record(key(&format!("key {n}"))).timeout((n + 1) * DAY).into_future());
    node.run_until(join_all(calls)).await;
    exhaust(&mut node.driver, &wakes);
    let before = wakes.count();
    assert_eq!(clock.advance(30 * DAY), 0, "deadlines of answered calls do not wake the driver");
    assert_eq!(wakes.count(), before);

    // A cancelled call wakes the driver as little as one that was answered.
    let silent = env.silent_node().await;
    node.add_contact(&silent.contact);
    let (call, _) = node.run_until(start_call(client.get_record(key("file")).timeout(DAY))).await;
    node.run_until(silent.next_request()).await;
    drop(call);
    node.run_until(env.wait_until_idle(&client)).await;
    exhaust(&mut node.driver, &wakes);
    assert_eq!(clock.advance(2 * DAY), 0);

    // Proves that the counter works.
    let (call, _) = node.run_until(start_call(client.get_record(key("file")).timeout(DAY))).await;
    exhaust(&mut node.driver, &wakes);
    let before = wakes.count();
    assert_eq!(clock.advance(DAY), 1);
    assert!(wakes.count() > before);
    drop(call);
}
