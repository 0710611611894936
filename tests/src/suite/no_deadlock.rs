//! Full channels do not deadlock callers and driver.

use std::time::Duration;

use futures::{StreamExt, future::join_all};

use super::support::{collect, key, record, start_call};
use crate::{NodeConfig, TestEnv, TestRuntime};

pub async fn full_channels_and_an_unpolled_driver_do_not_deadlock<R: TestRuntime>(env: &TestEnv<R>) {
    const TASKS: usize = 4;
    let mut config = NodeConfig::default().max_running(1);
    config.driver.command_capacity = 1;
    config.driver.stream_capacity = 1;
    let mut node = env.own_loop(config).await;
    let others = env.mesh(3).await;
    for other in &others {
        other.store_locally(record("file", other.peer().to_bytes())).await;
        node.add_contact(&other.contact);
    }
    let (started, mut waiting) = futures::channel::mpsc::unbounded();
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let (client, swarm, started) = (node.client.clone(), node.swarm.clone(), started.clone());
            env.spawn(async move {
                for round in 0..5 {
                    let get = start_call(client.get_record(key("file"))).await;
                    if round == 0 {
                        started.unbounded_send(()).unwrap();
                    }
                    let (_, _, end) = collect(get).await;
                    assert_eq!(end.unwrap().iter().count(), 1);
                    let (items, lagged, end) = collect(client.get_record(key("file")).all().stream()).await;
                    assert_eq!((items.len() as u64 + lagged, end.unwrap().iter().count()), (3, 3));
                    swarm.with(|_| ()).await.unwrap();
                    client.snapshot().await.unwrap();
                    // A call that is dropped while it waits for room in the channel, or later.
                    let mut dropped = client.get_closest_peers(key("file")).into_future();
                    let _ = futures::poll!(&mut dropped);
                    drop(dropped);
                    client.stop_providing(key("file")).await.unwrap();
                }
            })
        })
        .collect();
    // The driver is not polled until every task waits for it.
    for _ in 0..TASKS {
        waiting.next().await.unwrap();
    }
    node.run_until(join_all(tasks)).await;
    let client = node.client.clone();
    node.run_until(env.wait_until_idle(&client)).await;
}

pub async fn many_callers_share_a_channel_of_one<R: TestRuntime>(env: &TestEnv<R>) {
    const CALLERS: usize = 64;
    const GETS: usize = 20;
    let mut config = NodeConfig::default();
    config.driver.command_capacity = 1;
    config.driver.tracker.default_timeout = Duration::from_secs(60 * 60);
    let (node, others) = env.client_with_peers(config, 3).await;
    // Each caller has its own keys: equal gets would share queries.
    let name = |caller: usize, n: usize| format!("{caller} {n}");
    for (i, other) in others.iter().enumerate() {
        let mine = (0..CALLERS * GETS).filter(|n| n % 3 == i).map(|n| name(n / GETS, n % GETS));
        other.store_all_locally(mine.map(|name| record(&name, name.clone()))).await;
    }
    let callers = (0..CALLERS).map(|caller| {
        let client = node.client.clone();
        env.spawn(async move {
            for n in 0..GETS {
                let answer = client.get_record(key(&name(caller, n))).await.unwrap();
                assert_eq!(answer.value(), name(caller, n).as_bytes());
            }
        })
    });
    join_all(callers).await;
    env.wait_until_idle(&node.client).await;
    assert_eq!(node.client.stats().await.unwrap().accepted, (CALLERS * GETS) as u64);
}
