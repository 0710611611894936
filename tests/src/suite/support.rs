//! Small things that many tests need.

use std::pin::Pin;

use futures::{Stream, StreamExt, poll, stream::Peekable};
use kadence::{Call, CallStream, Update, kind::Kind};
use libp2p::{
    PeerId,
    kad::{Record, RecordKey},
};

use crate::Node;

/// A key with a name.
pub fn key(name: &str) -> RecordKey {
    RecordKey::new(&name)
}

/// A record under a key with a name.
pub fn record(name: &str, value: impl Into<Vec<u8>>) -> Record {
    Record::new(key(name), value.into())
}

/// In an order that two sets of peers can be compared in.
pub fn sorted(peers: impl IntoIterator<Item = PeerId>) -> Vec<PeerId> {
    let mut peers: Vec<_> = peers.into_iter().collect();
    peers.sort_unstable();
    peers
}

/// The ids of nodes, sorted.
pub fn peers<'a>(nodes: impl IntoIterator<Item = &'a Node>) -> Vec<PeerId> {
    sorted(nodes.into_iter().map(Node::peer))
}

/// A call on its way: sent, and nothing of it read.
pub type StartedCall<K> = Peekable<CallStream<K>>;

/// Sends a call to the driver.
pub async fn start_call<K: Kind>(call: Call<K>) -> StartedCall<K> {
    let mut stream = call.stream().peekable();
    // Another thread's driver may be so fast that there is something to read already; it stays where it is.
    let _ = poll!(Pin::new(&mut stream).peek());
    stream
}

/// The next item of a stream that has one.
pub async fn next_item<T, R>(stream: &mut (impl Stream<Item = Update<T, R>> + Unpin)) -> T {
    match stream.next().await {
        Some(Update::Item(item)) => item,
        Some(Update::Lagged { skipped }) => panic!("{skipped} items were skipped"),
        Some(Update::End(_)) | None => panic!("the stream has ended"),
    }
}

/// What is left in a stream: items, how many were skipped, and the end.
pub async fn collect<T, R>(mut stream: impl Stream<Item = Update<T, R>> + Unpin) -> (Vec<T>, u64, R) {
    let (mut items, mut lagged) = (Vec::new(), 0);
    loop {
        match stream.next().await.expect("a stream has an end") {
            Update::Item(item) => items.push(item),
            Update::Lagged { skipped } => lagged += skipped,
            Update::End(end) => {
                assert!(stream.next().await.is_none(), "nothing follows the end");
                return (items, lagged, end);
            }
        }
    }
}
