//! The driver loop is fair: a busy swarm, a flood of calls and other tasks of the runtime all get their share. An idle
//! driver is not polled.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures::{FutureExt, StreamExt, future::join_all, poll};
use kadence::{ContainsKad, Driver, GetRecordError, Runtime, Spawned, spawn};
use libp2p::{
    Multiaddr, PeerId, Swarm,
    core::{Endpoint, transport::PortUse},
    kad::{
        self,
        store::{MemoryStore, RecordStore},
    },
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent,
        ToSwarm, dummy,
    },
};

use super::support::{key, record, start_call};
use crate::{BareKad, Contact, CountedPolls, ManualClock, NodeConfig, TestEnv, TestRuntime, live_queries};

/// Number of calls in a flood: many more than the loop handles before it polls the swarm.
const FLOOD: usize = 5_000;

/// Maximum number of calls of one kind that the loop handles before it polls the swarm: a fraction of a millisecond's
/// work.
const MAX_BATCH: usize = 100;

/// Time for which an idle driver is watched.
const IDLE: Duration = Duration::from_secs(10);

/// Behaviour whose swarm always has another event.
#[derive(NetworkBehaviour)]
#[behaviour(prelude = "libp2p::swarm::derive_prelude")]
pub struct Busy {
    kad: BareKad,
    chatter: Chatter,
}

impl ContainsKad for Busy {
    type Store = MemoryStore;

    fn kad(&mut self) -> &mut BareKad {
        &mut self.kad
    }

    fn try_into_kad(event: BusyEvent) -> Result<kad::Event, BusyEvent> {
        match event {
            BusyEvent::Kad(event) => Ok(event),
            event @ BusyEvent::Chatter(()) => Err(event),
        }
    }

    fn from_kad(event: kad::Event) -> BusyEvent {
        BusyEvent::Kad(event)
    }
}

/// Behaviour with an event at every poll. libp2p polls behaviours before connections, so nothing arrives from the
/// network meanwhile.
#[derive(Debug, Default)]
pub struct Chatter;

impl NetworkBehaviour for Chatter {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = ();

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<(), THandlerInEvent<Self>>> {
        Poll::Ready(ToSwarm::GenerateEvent(()))
    }
}

/// Returns a busy swarm that knows one peer and has one local record.
fn busy<R: TestRuntime>(env: &TestEnv<R>, config: &NodeConfig, known: &Contact) -> Swarm<Busy> {
    let behaviour = Busy { kad: config.bare_kad(), chatter: Chatter };
    let mut swarm = env.swarm(&config.keypair, behaviour);
    let kad = &mut swarm.behaviour_mut().kad;
    kad.add_address(&known.peer, known.address.clone());
    kad.store_mut().put(record("local", "value")).unwrap();
    swarm
}

/// Polls the driver until a call has ended. Returns its result and the number of swarm events that the driver yielded.
async fn events_until<T, R: Runtime>(driver: &mut Driver<Busy, R>, call: impl Future<Output = T>) -> (T, usize) {
    let mut call = pin!(call);
    for events in 0..=MAX_BATCH {
        if let Poll::Ready(result) = poll!(call.as_mut()) {
            return (result, events);
        }
        driver.select_next_some().await;
    }
    panic!("the call had not ended after {MAX_BATCH} events of the swarm");
}

pub async fn a_busy_swarm_does_not_delay_calls<R: TestRuntime>(env: &TestEnv<R>) {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    let clock = ManualClock::new(env.runtime().clone());
    let config = NodeConfig::default();
    let unreachable = env.silent_node().await.contact;
    let (client, handle, mut driver) =
        Driver::new(busy(env, &config, &unreachable), clock.clone(), config.driver.clone());
    for _ in 0..100 {
        // A command, a closure on the swarm, and a call that kad answers.
        let (_, events) = events_until(&mut driver, client.snapshot()).await;
        assert!(events <= 1, "{events}");
        let (_, events) = events_until(&mut driver, handle.with(|_| ())).await;
        assert!(events <= 1, "{events}");
        let (answer, events) = events_until(&mut driver, client.get_record(key("local")).into_future()).await;
        assert_eq!(answer.unwrap().value(), b"value");
        assert!(events <= 2, "{events}");
        // A call that is dropped.
        drop(start_call(client.get_record(key("elsewhere"))).await);
        let (snapshot, _) = events_until(&mut driver, client.snapshot()).await;
        assert_eq!(snapshot.unwrap().requests.len(), 0);
        // A call whose deadline passes.
        let mut call = pin!(client.get_record(key("elsewhere")).timeout(DAY).into_future());
        assert!(poll!(call.as_mut()).is_pending());
        driver.select_next_some().await;
        clock.advance(DAY);
        let (result, events) = events_until(&mut driver, call).await;
        assert!(matches!(result, Err(GetRecordError::Timeout { .. })), "{result:?}");
        assert!(events <= 1, "{events}");
    }
}

pub async fn a_busy_swarm_does_not_starve_other_tasks<R: TestRuntime>(env: &TestEnv<R>) {
    let config = NodeConfig::default();
    let unreachable = env.silent_node().await.contact;
    let busy = busy(env, &config, &unreachable);
    let Spawned { client, swarm, events, task } = spawn(env.runtime(), busy, config.driver.clone());
    // A task that reads the events of that swarm would be busy as well.
    drop(events);
    for _ in 0..100 {
        assert_eq!(client.get_record(key("local")).await.unwrap().value(), b"value");
        swarm.with(|_| ()).await.unwrap();
    }
    // A node in another task of the same runtime is not affected.
    let (other, holders) = env.client_with_peers(NodeConfig::default(), 2).await;
    holders[0].store_locally(record("file", "contents")).await;
    for _ in 0..10 {
        assert_eq!(other.client.get_record(key("file")).await.unwrap().value(), b"contents");
    }
    task.abort();
    task.await;
}

pub async fn a_flood_of_calls_does_not_starve_the_swarm<R: TestRuntime>(env: &TestEnv<R>) {
    let mut config = NodeConfig::default();
    config.driver.command_capacity = FLOOD;
    let unreachable = env.silent_node().await.contact;
    let swarm = busy(env, &config, &unreachable);
    let (client, handle, mut driver) = Driver::new(swarm, env.runtime().clone(), config.driver.clone());

    let mut commands: Vec<_> = (0..FLOOD).map(|_| client.stop_providing(key("file")).boxed()).collect();
    let mut closures: Vec<_> = (0..FLOOD).map(|_| handle.with(|_| ()).boxed()).collect();
    for n in 0..FLOOD {
        assert!(poll!(&mut commands[n]).is_pending());
        assert!(poll!(&mut closures[n]).is_pending());
    }
    let (mut events, mut ended) = (0, (0, 0));
    while ended != (FLOOD, FLOOD) {
        driver.select_next_some().await;
        events += 1;
        let before = ended;
        while ended.0 < FLOOD && poll!(&mut commands[ended.0]).is_ready() {
            ended.0 += 1;
        }
        while ended.1 < FLOOD && poll!(&mut closures[ended.1]).is_ready() {
            ended.1 += 1;
        }
        let taken = (ended.0 - before.0, ended.1 - before.1);
        assert!(taken.0 <= MAX_BATCH && taken.1 <= MAX_BATCH, "{taken:?} between two events");
        assert!(taken.0 > 0 || taken.1 > 0, "{ended:?} after {events} events");
    }

    // Cancels have their own channel. Running calls are dropped last, because kad would report further events of them.
    let mut given_up = Vec::new();
    for n in 0..FLOOD / 2 {
        given_up.push(start_call(client.get_record(key(&format!("{n}")))).await);
    }
    let accepted = |driver: &Driver<Busy, R>| driver.tracker().stats().accepted;
    while accepted(&driver) < (FLOOD / 2) as u64 {
        driver.select_next_some().await;
    }
    given_up.into_iter().rev().for_each(drop);
    let mut left = FLOOD / 2;
    while left > 0 {
        driver.select_next_some().await;
        let live = driver.tracker().snapshot(env.now()).requests.len();
        assert!(left - live <= MAX_BATCH, "{} cancels between two events", left - live);
        left = live;
    }
}

pub async fn a_node_under_a_flood_of_calls_still_sends_and_answers_requests<R: TestRuntime>(env: &TestEnv<R>) {
    const GETS: usize = 50;
    let (flooded, others) = env.client_with_peers(NodeConfig::default(), 1).await;
    let other = &others[0];
    other.add_contact(&flooded.contact).await;
    for n in 0..GETS {
        flooded.store_locally(record(&format!("here {n}"), "value")).await;
        other.store_locally(record(&format!("there {n}"), "value")).await;
    }
    let enough = Arc::new(AtomicBool::new(false));
    let flood: Vec<_> = (0..4)
        .map(|_| {
            let (client, swarm, enough) = (flooded.client.clone(), flooded.swarm.clone(), Arc::clone(&enough));
            env.spawn(async move {
                while !enough.load(Ordering::SeqCst) {
                    let commands = (0..100).map(|_| client.stop_providing(key("file")));
                    let closures = (0..100).map(|_| swarm.with(|_| ()));
                    futures::join!(join_all(commands), join_all(closures));
                }
            })
        })
        .collect();
    for n in 0..GETS {
        let (asks, answers) = futures::join!(
            flooded.client.get_record(key(&format!("there {n}"))).into_future(),
            other.client.get_record(key(&format!("here {n}"))).into_future(),
        );
        assert_eq!((asks.unwrap().value(), answers.unwrap().value()), (&b"value"[..], &b"value"[..]));
    }
    enough.store(true, Ordering::SeqCst);
    join_all(flood).await;
}

pub async fn an_idle_driver_is_not_polled_for_ten_seconds<R: TestRuntime>(env: &TestEnv<R>) {
    /// Longer than kad waits before it bootstraps by itself, and than requests of the others take on a busy machine.
    const SETTLED: Duration = Duration::from_secs(5);
    let counted = CountedPolls::new(env.runtime().clone());
    // The node is connected and has completed calls. Its events are not read, so that only the driver is counted.
    let node = env.node_on(&counted, NodeConfig::default().keep_events()).await;
    let others = env.mesh(3).await;
    for other in &others {
        other.store_locally(record("file", "contents")).await;
        node.add_contact(&other.contact).await;
    }
    for _ in 0..10 {
        node.client.get_record(key("file")).await.unwrap();
    }
    env.wait_until_idle(&node.client).await;
    assert!(live_queries(&node.swarm).await.is_empty());
    let still_for = async |span: Duration| {
        let (mut polls, mut since) = (counted.count(), env.now());
        let begin = polls;
        env.wait_until(async || {
            let now = counted.count();
            if now != polls {
                (polls, since) = (now, env.now());
            }
            env.now() - since >= span
        })
        .await;
        polls - begin
    };
    still_for(SETTLED).await;
    assert_eq!(still_for(IDLE).await, 0);
    // Proves that the counter works.
    let before = counted.count();
    node.client.snapshot().await.unwrap();
    assert!(counted.count() > before);
}
