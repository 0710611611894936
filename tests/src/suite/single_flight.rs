//! Equal reads share a query.

use std::time::Duration;

use libp2p::kad::QueryInfo;

use super::support::{key, next_item, peers, record, sorted, start_call};
use crate::{NodeConfig, TestEnv, TestRuntime, with_kad};

const NEVER: Duration = Duration::from_secs(60 * 60);

pub async fn equal_gets_share_one_query_that_lives_as_long_as_any_of_them<R: TestRuntime>(env: &TestEnv<R>) {
    let (node, holders) = env.client_with_peers(NodeConfig::default(), 2).await;
    for holder in &holders {
        holder.store_locally(record("file", holder.peer().to_bytes())).await;
    }
    // Keeps the query running after both records have arrived.
    let silent = env.silent_node().await;
    node.add_contact(&silent.contact).await;
    let mut calls = Vec::new();
    for _ in 0..100 {
        calls.push(start_call(node.client.get_record(key("file")).all().timeout(NEVER)).await);
    }
    for call in &mut calls {
        let sources = [next_item(call).await.peer.unwrap(), next_item(call).await.peer.unwrap()];
        assert_eq!(sorted(sources), peers(&holders));
    }
    let kads_gets = async || {
        with_kad(&node.swarm, |kad| {
            kad.iter_queries().filter(|query| matches!(query.info(), QueryInfo::GetRecord { .. })).count()
        })
        .await
    };
    let snapshot = node.client.snapshot().await.unwrap();
    assert_eq!((snapshot.requests.len(), snapshot.queries.len(), kads_gets().await), (100, 1, 1));

    // All calls but one may be dropped.
    let last = calls.swap_remove(42);
    drop(calls);
    let snapshot = env.wait_for_snapshot(&node.client, |snapshot| snapshot.requests.len() == 1).await;
    assert_eq!((snapshot.queries.len(), kads_gets().await), (1, 1));

    let mut late = node.client.get_record(key("file")).all().timeout(NEVER).stream();
    let sources = [next_item(&mut late).await.peer.unwrap(), next_item(&mut late).await.peer.unwrap()];
    assert_eq!(sorted(sources), peers(&holders), "a late caller gets the records found before");
    assert_eq!(kads_gets().await, 1);
    drop((late, last));
    env.wait_until_idle(&node.client).await;
    assert_eq!(kads_gets().await, 0);
}
