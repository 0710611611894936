//! Streams that peers open, taken from the swarm at once.

use std::pin::pin;

use async_channel::Receiver;
use futures::{FutureExt, StreamExt, future::select};
use kadence::Runtime;
use libp2p::{PeerId, Stream};
use libp2p_stream::IncomingStreams;

/// How many streams wait for whoever answers them. More than he would answer at a time, so that a peer that opens many is
/// turned away by him, by his own rules.
const WAITING: usize = 256;

/// The behaviour holds a single stream and drops those that come before it was taken, so that a burst of honest peers would
/// be told nothing: a task of its own takes them, which has nothing else to do. It ends with the receiver.
pub(super) fn accept_streams(runtime: &impl Runtime, mut incoming: IncomingStreams) -> Receiver<(PeerId, Stream)> {
    let (sender, receiver) = async_channel::bounded(WAITING);
    let take = async move {
        let closed = sender.clone();
        let take = async {
            while let Some(stream) = incoming.next().await {
                // Dropped if there is no room.
                let _full = sender.try_send(stream);
            }
        };
        select(pin!(take), pin!(closed.closed())).await;
    };
    runtime.spawn(take.boxed());
    receiver
}
