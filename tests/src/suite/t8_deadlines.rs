//! T8: a deadline comes when it comes, on a network that says nothing; T10: and gives the slot back.

use std::{collections::BTreeSet, time::Duration};

use futures::{StreamExt, poll};
use kadence::{
    BootstrapError, GetClosestPeersError, GetProvidersError, GetRecordError, PutRecordError, RequestError,
    StartProvidingError, Update, tracker::OperationKind,
};

use super::support::{begun, key, record, rest};
use crate::{Bed, ManualClock, NodeConfig, TestRuntime, with_kad};

const NEVER: Duration = Duration::from_secs(60 * 60);

/// The deadline in tests that look at a real clock.
const SHORT: Duration = Duration::from_millis(200);

/// Where it has to be over, on a busy machine. kad alone takes 10 seconds.
const IN_TIME: Duration = Duration::from_secs(8);

/// The other tests are worth nothing if the silent node is not what it says.
pub async fn t8_a_silent_peer_is_known_and_asked_and_never_answers<R: TestRuntime>(bed: &Bed<R>) {
    let (node, others) = bed.client_of(NodeConfig::default(), 1).await;
    let silent = bed.silent().await;
    // By identify alone, as any other node: it connects to nobody, so somebody has to connect to it.
    let address = silent.contact.address.clone();
    node.swarm.with(move |swarm| swarm.dial(address)).await.unwrap().unwrap();
    node.knows(2).await;
    let peer = silent.contact.peer;
    let known = with_kad(&node.swarm, move |kad| kad.kbucket(peer).is_some_and(|bucket| !bucket.is_empty())).await;
    assert!(known, "it looks like a node of the DHT");

    let call = begun(node.client.get_closest_peers(key("target")).timeout(NEVER)).await;
    assert_eq!(silent.is_asked().await, node.peer());
    // The other node has answered, and the lookup waits for the silent one.
    let progress = bed.until(async || {
        with_kad(&node.swarm, |kad| kad.iter_queries().any(|query| query.stats().num_successes() == 1)).await
    });
    progress.await;
    let pending = with_kad(&node.swarm, |kad| {
        kad.iter_queries().any(|query| query.stats().num_successes() == 1 && query.stats().num_pending() == 1)
    });
    assert!(pending.await);
    drop((call, others));
}

pub async fn t8_a_deadline_on_silent_peers_comes_with_what_was_found<R: TestRuntime>(bed: &Bed<R>) {
    let clock = ManualClock::new(bed.runtime().clone());
    let node = bed.node_on(&clock, NodeConfig::default()).await;
    let holders = bed.mesh(2).await;
    for holder in &holders {
        holder.holds(record("file", holder.peer().to_bytes())).await;
        node.meets(&holder.contact).await;
    }
    // Fewer than the three that kad asks at a time, so that the others are asked as well.
    let silent = [bed.silent().await, bed.silent().await];
    for silent in &silent {
        node.meets(&silent.contact).await;
    }
    let mut get = node.client.get_record(key("file")).limit(3).timeout(NEVER).stream();
    for _ in 0..2 {
        let item = get.next().await;
        assert!(matches!(item, Some(Update::Item(_))), "{item:?}");
    }
    for silent in &silent {
        silent.is_asked().await;
    }
    clock.advance(NEVER);
    let end = get.next().await;
    let Some(Update::End(Err(GetRecordError::Timeout { found, progress }))) = end else { panic!("{end:?}") };
    let sources: BTreeSet<_> = found.iter().map(|found| found.peer.unwrap()).collect();
    assert_eq!((found.len(), sources.len()), (2, 2), "what was found is in the error");
    // kad counts an answer only after it has reported what was in it.
    assert!(progress.requests >= 3 && progress.successes >= 1, "{progress:?}");
    bed.settles(&node.client).await;
}

pub async fn t8_every_operation_ends_at_its_deadline_on_silent_peers<R: TestRuntime>(bed: &Bed<R>) {
    let node = bed.node().await;
    let silent = bed.silent().await;
    node.meets(&silent.contact).await;
    let begin = bed.now();
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
    let took = bed.now() - begin;
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
    bed.settles(client).await;
}

pub async fn t8_a_deadline_comes_neither_early_nor_late<R: TestRuntime>(bed: &Bed<R>) {
    let clock = ManualClock::new(bed.runtime().clone());
    let mut config = NodeConfig::default();
    // Nobody looks whether the query has stalled: then nothing but deadlines is due.
    config.driver.tracker.stall = None;
    let node = bed.node_on(&clock, config).await;
    let silent = bed.silent().await;
    node.meets(&silent.contact).await;
    let deadline = Duration::from_secs(5);
    let call = node.client.get_record(key("file")).timeout(deadline).into_future();
    let later = node.client.get_record(key("other")).timeout(2 * deadline).into_future();
    futures::pin_mut!(call, later);
    assert!(poll!(call.as_mut()).is_pending());
    assert!(poll!(later.as_mut()).is_pending());
    silent.is_asked().await;
    // It goes the way that the calls went, after them: both deadlines count from now.
    assert_eq!(node.client.snapshot().await.unwrap().requests.len(), 2);

    clock.advance(deadline - Duration::from_nanos(1));
    // The answer comes from a driver that has been woken and has looked at the clock.
    let snapshot = node.client.snapshot().await.unwrap();
    let remaining: Vec<_> = snapshot.requests.iter().map(|request| request.remaining).collect();
    assert_eq!(remaining, [Duration::from_nanos(1), deadline + Duration::from_nanos(1)]);
    assert!(poll!(call.as_mut()).is_pending());

    assert_eq!(clock.advance(Duration::from_nanos(1)), 1, "the driver has one timer, and it waits for this");
    let result = call.await;
    assert!(matches!(result, Err(GetRecordError::Timeout { .. })), "{result:?}");
    assert!(poll!(later.as_mut()).is_pending());
    clock.advance(deadline);
    let result = later.await;
    assert!(matches!(result, Err(GetRecordError::Timeout { .. })), "{result:?}");
}

pub async fn t8_a_call_that_never_got_a_slot_expires_in_the_queue<R: TestRuntime>(bed: &Bed<R>) {
    let node = bed.node_with(NodeConfig::default().max_running(1)).await;
    let silent = bed.silent().await;
    node.meets(&silent.contact).await;
    let running = begun(node.client.get_record(key("first")).timeout(NEVER)).await;
    silent.is_asked().await;
    let begin = bed.now();
    let result = node.client.get_record(key("second")).timeout(SHORT).await;
    let took = bed.now() - begin;
    assert!(matches!(result, Err(GetRecordError::Request(RequestError::ExpiredInQueue))), "{result:?}");
    assert!(took >= SHORT && took < IN_TIME, "after {took:?}");
    let keys = with_kad(&node.swarm, |kad| -> Vec<_> {
        let key = |query: libp2p::kad::QueryRef<'_>| match query.info() {
            libp2p::kad::QueryInfo::GetRecord { key, .. } => Some(key.clone()),
            _ => None,
        };
        kad.iter_queries().filter_map(key).collect()
    });
    assert_eq!(keys.await, [key("first")], "kad was never asked for the second");
    let snapshot = node.client.snapshot().await.unwrap();
    assert_eq!((snapshot.requests.len(), snapshot.queries.len()), (1, 1));
    drop(running);
}

pub async fn t10_silent_peers_do_not_use_up_the_slots<R: TestRuntime>(bed: &Bed<R>) {
    let mut config = NodeConfig::default().max_running(2);
    // Slots come back because queries end, and not because they are given up for lost.
    config.driver.tracker.finish_timeout = NEVER;
    let node = bed.node_with(config).await;
    let silent = bed.silent().await;
    node.meets(&silent.contact).await;
    node.holds(record("local", "value")).await;
    // Each round fills all slots and the queue, and lets all of it run into its deadline.
    for round in 0..3 {
        let (mut calls, timeout) = (Vec::new(), Duration::from_millis(50));
        for n in 0..4 {
            let name = format!("{round} {n}");
            calls.push(begun(node.client.get_closest_peers(key(&name)).timeout(timeout)).await);
        }
        for call in calls {
            let (_, _, end) = rest(call).await;
            use RequestError::ExpiredInQueue;
            let timed_out = matches!(
                end,
                Err(GetClosestPeersError::Timeout { .. } | GetClosestPeersError::Request(ExpiredInQueue))
            );
            assert!(timed_out, "{end:?}");
        }
        assert_eq!(node.client.get_record(key("local")).await.unwrap().value(), b"value");
    }
    // A bootstrap has several phases, and every one of them has to be ended.
    let bootstrap = node.client.bootstrap().timeout(Duration::from_millis(50)).await;
    assert!(matches!(bootstrap, Err(BootstrapError::Timeout { .. })), "{bootstrap:?}");
    bed.settles(&node.client).await;
    assert_eq!(node.client.stats().await.unwrap().lost_queries, 0, "kad ends what it is told to end");
    let begin = begun(node.client.put_record(record("x", "y")).timeout(NEVER)).await;
    let snapshot = bed.until_alive(&node.client, |snapshot| snapshot.queries.len() == 1).await;
    assert_eq!(snapshot.queries[0].operation, OperationKind::GetClosestPeers);
    drop(begin);
}
