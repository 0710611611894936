//! A slow reader blocks no other call, and learns how many items it missed.

use std::collections::BTreeSet;

use futures::{StreamExt, future::join_all};
use kadence::Update;

use super::support::{collect, key, next_item, peers, record, sorted, start_call};
use crate::{Node, TestEnv, TestRuntime};

/// Number of peers that kad asks in one lookup.
const HOLDERS: usize = 20;

/// Number of other requests that run meanwhile.
const OTHERS: usize = 1_000;

/// Number of records, including the local one.
const RECORDS: usize = HOLDERS + 1;

/// Starts a client and 20 nodes, each of which has its own record under the same key.
async fn many_records<R: TestRuntime>(env: &TestEnv<R>) -> (Node, Vec<Node>) {
    let client = env.node().await;
    client.store_locally(record("popular", "mine")).await;
    let mut holders = Vec::new();
    for _ in 0..HOLDERS {
        let holder = env.node().await;
        holder.store_locally(record("popular", holder.peer().to_bytes())).await;
        holder.store_locally(record("other", "value")).await;
        client.add_contact(&holder.contact).await;
        holders.push(holder);
    }
    (client, holders)
}

pub async fn an_unread_stream_blocks_no_other_call_and_keeps_its_end<R: TestRuntime>(env: &TestEnv<R>) {
    let (client, holders) = many_records(env).await;
    let untouched = start_call(client.client.get_record(key("popular")).all().buffer(10)).await;
    let without_room = start_call(client.client.get_record(key("popular")).all().buffer(0)).await;
    // Each get has its own key and therefore its own query. Every second one has to ask the network.
    let records = |half: usize| (0..OTHERS).filter(move |n| n % 2 == half).map(|n| record(&format!("{n}"), "value"));
    client.store_all_locally(records(0)).await;
    for holder in &holders {
        holder.store_all_locally(records(1)).await;
    }
    let others = (0..OTHERS).map(|n| client.client.get_record(key(&format!("{n}"))));
    for answer in join_all(others.map(IntoFuture::into_future)).await {
        assert_eq!(answer.unwrap().value(), b"value");
    }
    env.wait_until_idle(&client.client).await;

    let (items, lagged, end) = collect(untouched).await;
    // `start_call` polls the call once. That may take an item out of the buffer and make room for another.
    assert!((10..=11).contains(&items.len()), "the buffer holds 10 items: {}", items.len());
    assert_eq!(items.len() as u64 + lagged, RECORDS as u64, "items received and skipped add up");
    let answer = end.unwrap();
    let sources: Vec<_> = answer.iter().map(|found| found.peer).collect();
    assert_eq!(sources[0], None, "the local copy comes first");
    assert_eq!(sorted(sources.into_iter().flatten()), peers(&holders), "the end carries the whole answer");

    let (items, lagged, end) = collect(without_room).await;
    assert_eq!((items.len(), lagged, end.unwrap().iter().count()), (0, 21, RECORDS));
}

pub async fn items_received_and_skipped_by_a_slow_reader_add_up<R: TestRuntime>(env: &TestEnv<R>) {
    let (client, _holders) = many_records(env).await;
    let mut stream = start_call(client.client.get_record(key("popular")).all().buffer(2)).await;
    let (mut items, mut lagged) = (Vec::new(), 0);
    let end = loop {
        // The reader is busy between two reads of the stream.
        client.client.get_record(key("other")).await.unwrap();
        match stream.next().await.unwrap() {
            Update::Item(item) => items.push(item.peer),
            Update::Lagged { skipped } => lagged += skipped,
            Update::End(end) => break end,
        }
    };
    assert_eq!(items.len() as u64 + lagged, RECORDS as u64);
    assert_eq!(items.iter().collect::<BTreeSet<_>>().len(), items.len());
    assert_eq!(end.unwrap().iter().count(), RECORDS);
    assert!(stream.next().await.is_none());
}

pub async fn a_reader_that_keeps_up_misses_nothing<R: TestRuntime>(env: &TestEnv<R>) {
    let (client, holders) = many_records(env).await;
    let mut stream = client.client.get_record(key("popular")).all().buffer(RECORDS).stream();
    assert_eq!(next_item(&mut stream).await.record.value, b"mine");
    let (items, lagged, end) = collect(stream).await;
    assert_eq!(lagged, 0);
    assert_eq!(sorted(items.iter().map(|found| found.peer.unwrap())), peers(&holders));
    assert_eq!(end.unwrap().iter().count(), RECORDS);
}
