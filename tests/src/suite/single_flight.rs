//! T11: equal reads share a query.

use std::time::Duration;

use libp2p::kad::QueryInfo;

use super::support::{begun, item, key, peers, record, sorted};
use crate::{Bed, NodeConfig, TestRuntime, with_kad};

const NEVER: Duration = Duration::from_secs(60 * 60);

pub async fn t11_equal_gets_share_one_query_that_lives_as_long_as_any_of_them<R: TestRuntime>(bed: &Bed<R>) {
    let (node, holders) = bed.client_of(NodeConfig::default(), 2).await;
    for holder in &holders {
        holder.holds(record("file", holder.peer().to_bytes())).await;
    }
    // Keeps the query alive after both records have come.
    let silent = bed.silent().await;
    node.meets(&silent.contact).await;
    let mut calls = Vec::new();
    for _ in 0..100 {
        calls.push(begun(node.client.get_record(key("file")).all().timeout(NEVER)).await);
    }
    for call in &mut calls {
        let sources = [item(call).await.peer.unwrap(), item(call).await.peer.unwrap()];
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

    // Any 99 may go.
    let last = calls.swap_remove(42);
    drop(calls);
    let snapshot = bed.until_alive(&node.client, |snapshot| snapshot.requests.len() == 1).await;
    assert_eq!((snapshot.queries.len(), kads_gets().await), (1, 1));

    let mut late = node.client.get_record(key("file")).all().timeout(NEVER).stream();
    let sources = [item(&mut late).await.peer.unwrap(), item(&mut late).await.peer.unwrap()];
    assert_eq!(sorted(sources), peers(&holders), "who comes late gets what was found before");
    assert_eq!(kads_gets().await, 1);
    drop((late, last));
    bed.settles(&node.client).await;
    assert_eq!(kads_gets().await, 0);
}
