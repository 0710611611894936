//! Calls against a driver in a task of its own: every call ends, and one that was dropped leaves nothing.

use std::{
    future::Future,
    panic::AssertUnwindSafe,
    pin::Pin,
    task::{Context, Poll},
};

use futures::{FutureExt, StreamExt, future::BoxFuture};
use libp2p::{
    Multiaddr, PeerId, Swarm, Transport,
    core::{
        muxing::StreamMuxerBox,
        transport::{DialOpts, ListenerId, TransportError, TransportEvent},
    },
    kad::{self, Record, store::MemoryStore},
    swarm,
};
use shuttle::{future, rand::Rng, thread};
use web_time::Instant;

use super::check;
use crate::{
    Client, DriverConfig, GetRecordError, RequestError, Runtime, Spawned, TaskEnd, Timer, driver::MESSAGES_PER_TURN,
    spawn,
};

/// Key of a record in the local store, so that a get of it ends at once.
const STORED: &[u8] = b"stored";

/// Key of no record: a get of it waits for the one peer, which never answers.
const MISSING: &[u8] = b"missing";

/// Runs each task as one of the checker's. Its clock stands still, so that only callers and the driver end a call.
#[derive(Clone)]
struct Checked(Instant);

impl Runtime for Checked {
    type Timer = Never;

    fn now(&self) -> Instant {
        self.0
    }

    fn timer(&self, _deadline: Instant) -> Never {
        Never
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        // A runtime drops a task that panics.
        drop(future::spawn(AssertUnwindSafe(task).catch_unwind()));
    }
}

struct Never;

impl Timer for Never {
    fn reset(self: Pin<&mut Self>, _deadline: Instant) {}

    fn poll_elapsed(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
}

/// Transport whose dials never end.
struct Silent;

impl Transport for Silent {
    type Output = (PeerId, StreamMuxerBox);
    type Error = std::io::Error;
    type ListenerUpgrade = futures::future::Pending<Result<Self::Output, Self::Error>>;
    type Dial = futures::future::Pending<Result<Self::Output, Self::Error>>;

    fn listen_on(&mut self, _id: ListenerId, address: Multiaddr) -> Result<(), TransportError<Self::Error>> {
        Err(TransportError::MultiaddrNotSupported(address))
    }

    fn remove_listener(&mut self, _id: ListenerId) -> bool {
        false
    }

    fn dial(&mut self, _address: Multiaddr, _opts: DialOpts) -> Result<Self::Dial, TransportError<Self::Error>> {
        Ok(futures::future::pending())
    }

    fn poll(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<TransportEvent<Self::ListenerUpgrade, Self::Error>> {
        Poll::Pending
    }
}

fn start(config: DriverConfig) -> Spawned<kad::Behaviour<MemoryStore>> {
    let (local, remote) = (PeerId::random(), PeerId::random());
    let mut store = MemoryStore::new(local);
    let record = Record::new(STORED.to_vec(), b"value".to_vec());
    kad::store::RecordStore::put(&mut store, record).unwrap();
    let mut config_of_kad = kad::Config::default();
    config_of_kad.set_periodic_bootstrap_interval(None);
    config_of_kad.set_replication_interval(None);
    config_of_kad.set_publication_interval(None);
    config_of_kad.set_provider_publication_interval(None);
    let mut behaviour = kad::Behaviour::with_config(local, store, config_of_kad);
    behaviour.add_address(&remote, "/memory/1".parse().unwrap());
    // A new address arms kad's timer for an automatic bootstrap, which runs on a thread of its own. A bootstrap that has
    // begun drops it, and this one never ends.
    behaviour.bootstrap().unwrap();
    let executor = |task: Pin<Box<dyn Future<Output = ()> + Send>>| drop(future::spawn(task));
    let swarm = Swarm::new(Silent.boxed(), behaviour, local, swarm::Config::with_executor(executor));
    spawn(&Checked(Instant::now()), swarm, config)
}

/// Starts a call and drops it, at once or after others have had time to go on.
async fn start_and_drop(client: &Client, key: &[u8]) {
    let mut call = client.get_record(key).into_future();
    for _ in 0..shuttle::rand::thread_rng().gen_range(0..3) {
        if (&mut call).now_or_never().is_some() {
            return;
        }
        future::yield_now().await;
    }
    let _result = (&mut call).now_or_never();
}

fn is_shutdown(error: &GetRecordError) -> bool {
    matches!(error, GetRecordError::Request(RequestError::Shutdown))
}

/// Turns of a driver within which a dropped call is gone. A cancellation waits for the next turn, and the end of its query
/// for another one. Each turn handles one event of the swarm, and some may come first: a dial, a new peer in the routing
/// table, the records of other calls.
const TURNS: usize = 16;

/// Waits until a driver has no request and no query. One turn may answer as many snapshots as it receives messages.
async fn assert_idle(client: &Client) {
    for _ in 0..TURNS * (MESSAGES_PER_TURN + 1) {
        let snapshot = client.snapshot().await.unwrap();
        if snapshot.requests.is_empty() && snapshot.queries.is_empty() {
            return;
        }
    }
    panic!("a dropped call is still carried out");
}

#[test]
fn a_dropped_call_leaves_nothing() {
    check(|| {
        future::block_on(async {
            let Spawned { client, task, .. } = start(DriverConfig::default());
            let other = client.clone();
            let dropping = future::spawn(async move {
                start_and_drop(&other, MISSING).await;
                start_and_drop(&other, STORED).await;
            });
            let answer = client.get_record(STORED).await.unwrap();
            assert_eq!(answer.value(), b"value");
            dropping.await.unwrap();
            assert_idle(&client).await;
            client.shutdown().await;
            assert_eq!(task.await, TaskEnd::Finished);
        });
    });
}

/// Way in which a driver ends.
#[derive(Clone, Copy)]
enum End {
    Abort,
    ShutDown,
    Panic,
}

fn every_call_ends_with(end: End) {
    check(move || {
        future::block_on(async {
            let Spawned { client, swarm, task, .. } = start(DriverConfig::default());
            let calls = [STORED, MISSING].map(|key| {
                let client = client.clone();
                future::spawn(async move { client.get_record(key).await })
            });
            let expected = match end {
                End::Abort => {
                    task.abort();
                    TaskEnd::Aborted
                }
                End::ShutDown => {
                    client.shutdown_now().await;
                    TaskEnd::Finished
                }
                End::Panic => {
                    let result = swarm.with(|_swarm| std::panic::resume_unwind(Box::new("planned"))).await;
                    let result: Result<(), _> = result;
                    assert!(result.is_err());
                    TaskEnd::Lost
                }
            };
            assert_eq!(task.await, expected);
            for call in calls {
                match call.await.unwrap() {
                    Ok(answer) => assert_eq!(answer.value(), b"value"),
                    Err(error) => assert!(is_shutdown(&error), "{error:?}"),
                }
            }
            let late = client.get_record(STORED).await.unwrap_err();
            assert!(is_shutdown(&late), "{late:?}");
        });
    });
}

#[test]
fn every_call_ends_after_an_abort_of_its_driver() {
    every_call_ends_with(End::Abort);
}

#[test]
fn every_call_ends_after_a_shutdown() {
    every_call_ends_with(End::ShutDown);
}

#[test]
fn every_call_ends_after_a_panic_of_its_driver() {
    every_call_ends_with(End::Panic);
}

#[test]
fn calls_that_find_the_channel_full_wait_for_room_or_leave() {
    check(|| {
        future::block_on(async {
            let Spawned { client, task, .. } = start(DriverConfig::default().command_capacity(1));
            let calls = [(); 3].map(|()| {
                let client = client.clone();
                future::spawn(async move { client.get_record(STORED).await })
            });
            let other = client.clone();
            let dropping = thread::spawn(move || future::block_on(start_and_drop(&other, MISSING)));
            for call in calls {
                assert_eq!(call.await.unwrap().unwrap().value(), b"value");
            }
            dropping.join().unwrap();
            assert_idle(&client).await;
            client.shutdown().await;
            assert_eq!(task.await, TaskEnd::Finished);
        });
    });
}

#[test]
fn a_stream_ends_after_its_items_however_slow_its_reader_is() {
    check(|| {
        future::block_on(async {
            let Spawned { client, task, .. } = start(DriverConfig::default().stream_capacity(1));
            let mut items = client.get_record(STORED).stream();
            let mut updates = 0;
            while let Some(update) = items.next().await {
                updates += 1;
                match update {
                    crate::Update::Item(record) => assert_eq!(record.record.value, b"value"),
                    crate::Update::Lagged { skipped } => panic!("{skipped} of one item skipped"),
                    crate::Update::End(result) => assert_eq!(result.unwrap().value(), b"value"),
                }
                future::yield_now().await;
            }
            assert_eq!(updates, 2);
            client.shutdown().await;
            assert_eq!(task.await, TaskEnd::Finished);
        });
    });
}

#[test]
fn a_shutdown_ends_while_calls_arrive() {
    check(|| {
        future::block_on(async {
            let Spawned { client, task, .. } = start(DriverConfig::default().command_capacity(1));
            let other = client.clone();
            let calling = thread::spawn(move || {
                future::block_on(async {
                    for _ in 0..3 {
                        match other.get_record(STORED).await {
                            Ok(answer) => assert_eq!(answer.value(), b"value"),
                            Err(error) => assert!(is_shutdown(&error), "{error:?}"),
                        }
                    }
                });
            });
            client.shutdown().await;
            assert_eq!(task.await, TaskEnd::Finished);
            calling.join().unwrap();
        });
    });
}
