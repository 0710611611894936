//! Helpers of many tests.

use std::pin::Pin;

use futures::{Stream, StreamExt, poll, stream::Peekable};
use kadence::{Call, CallStream, Update, kind::Kind};
use libp2p::{
    PeerId,
    kad::{Record, RecordKey},
};

use crate::Node;

/// Returns a key with this name.
pub fn key(name: &str) -> RecordKey {
    RecordKey::new(&name)
}

/// Returns a record under a key with this name.
pub fn record(name: &str, value: impl Into<Vec<u8>>) -> Record {
    Record::new(key(name), value.into())
}

/// Sorts peers, so that two sets can be compared.
pub fn sorted(peers: impl IntoIterator<Item = PeerId>) -> Vec<PeerId> {
    let mut peers: Vec<_> = peers.into_iter().collect();
    peers.sort_unstable();
    peers
}

/// Returns the ids of nodes, sorted.
pub fn peers<'a>(nodes: impl IntoIterator<Item = &'a Node>) -> Vec<PeerId> {
    sorted(nodes.into_iter().map(Node::peer))
}

/// A call that was sent and not read.
pub type StartedCall<K> = Peekable<CallStream<K>>;

/// Sends a call to the driver.
pub async fn start_call<K: Kind>(call: Call<K>) -> StartedCall<K> {
    let mut stream = call.stream().peekable();
    // The driver may run on another thread and be so fast that an item is available already. Peeking leaves it in the
    // stream.
    let _ = poll!(Pin::new(&mut stream).peek());
    stream
}

/// Returns the next item of a stream. Panics if there is none.
pub async fn next_item<T, R>(stream: &mut (impl Stream<Item = Update<T, R>> + Unpin)) -> T {
    match stream.next().await {
        Some(Update::Item(item)) => item,
        Some(Update::Lagged { skipped }) => panic!("{skipped} items were skipped"),
        Some(Update::End(_)) | None => panic!("the stream has ended"),
    }
}

/// Reads a stream to its end. Returns the items, the number of skipped items, and the end.
pub async fn collect<T, R>(mut stream: impl Stream<Item = Update<T, R>> + Unpin) -> (Vec<T>, u64, R) {
    let (mut items, mut lagged) = (Vec::new(), 0);
    loop {
        match stream.next().await.expect("a stream yields its end last") {
            Update::Item(item) => items.push(item),
            Update::Lagged { skipped } => lagged += skipped,
            Update::End(end) => {
                assert!(stream.next().await.is_none(), "nothing follows the end");
                return (items, lagged, end);
            }
        }
    }
}
