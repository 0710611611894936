//! Streams that peers open, accepted from the swarm without delay.

use std::pin::pin;

use async_channel::Receiver;
use futures::{FutureExt, StreamExt, future::select};
use kadence::Runtime;
use libp2p::{PeerId, Stream};
use libp2p_stream::IncomingStreams;

/// Number of streams that wait for a server. More than a server handles at a time, so that the server, which knows the
/// limits by peer, decides which streams to refuse.
const WAITING: usize = 256;

/// Accepts streams in a task of its own. The behaviour holds one stream and drops those that come before it is taken,
/// so a server that also answers would lose streams of a burst. The task ends when the receiver is dropped.
pub(super) fn accept_streams(runtime: &impl Runtime, mut incoming: IncomingStreams) -> Receiver<(PeerId, Stream)> {
    let (sender, receiver) = async_channel::bounded(WAITING);
    let take = async move {
        let closed = sender.clone();
        let take = async {
            while let Some(stream) = incoming.next().await {
                // Drops the stream if the queue is full.
                let _full = sender.try_send(stream);
            }
        };
        select(pin!(take), pin!(closed.closed())).await;
    };
    runtime.spawn(take.boxed());
    receiver
}
