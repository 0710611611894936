//! Channels between the clients and their driver, and the messages on them. Knows neither calls nor the client.

use std::sync::atomic::{AtomicU64, Ordering};

use futures::channel::oneshot;
use kadence_core::{Item, Metrics, Outcome, Request, RequestId, Snapshot, Stats};
use libp2p::{Multiaddr, PeerId, kad::RecordKey};
use thiserror::Error;

use crate::{
    response::ResponseSender,
    sync::channel::{self, Receiver, Sender, TrySendError},
};

/// A client's end of the channels, shared by all clones of the client.
pub(crate) struct Connection {
    local_peer_id: PeerId,
    last_id: AtomicU64,
    messages: Sender<Message>,
    /// A channel of its own, so that a full message channel does not delay a cancellation. It needs no bound: every
    /// live call sends at most one.
    cancellations: Sender<RequestId>,
}

/// The driver's end of the channels.
pub(crate) struct DriverChannels {
    pub(crate) messages: Receiver<Message>,
    pub(crate) cancellations: Receiver<RequestId>,
}

/// A message from a client to its driver.
pub(crate) enum Message {
    /// Carries out a request. With `locate`, its end names the addresses of that peer in the routing table.
    Request {
        request: Request,
        locate: Option<PeerId>,
        response: ResponseSender<Item, CallEnd>,
    },
    StopProviding {
        key: RecordKey,
        reply: oneshot::Sender<()>,
    },
    RemoveRecord {
        key: RecordKey,
        reply: oneshot::Sender<Result<(), RemoveRecordError>>,
    },
    Introspect {
        reply: oneshot::Sender<Introspection>,
    },
    Shutdown {
        drain: bool,
        reply: oneshot::Sender<()>,
    },
}

/// The end of a request, with what the driver adds to the tracker's outcome.
#[derive(Debug)]
pub struct CallEnd {
    pub(crate) outcome: Outcome,
    pub(crate) located: Option<LocatedPeer>,
}

/// A peer's addresses when a request for it ended: those in the local routing table, then those that other peers named.
#[derive(Debug)]
pub(crate) struct LocatedPeer {
    pub(crate) peer: PeerId,
    pub(crate) addresses: Vec<Multiaddr>,
}

/// A driver's state at one point in time.
pub(crate) struct Introspection {
    pub(crate) snapshot: Snapshot,
    pub(crate) stats: Stats,
    pub(crate) metrics: Metrics,
}

impl Connection {
    /// Connects a client to a driver. `capacity` is the number of messages that may be under way, at least 1.
    pub(crate) fn new(local_peer_id: PeerId, capacity: usize) -> (Self, DriverChannels) {
        let (messages, received_messages) = channel::bounded(capacity.max(1));
        let (cancellations, received_cancellations) = channel::unbounded();
        let connection = Self { local_peer_id, last_id: AtomicU64::new(0), messages, cancellations };
        (connection, DriverChannels { messages: received_messages, cancellations: received_cancellations })
    }

    pub(crate) fn local_peer_id(&self) -> PeerId {
        self.local_peer_id
    }

    pub(crate) fn next_request_id(&self) -> RequestId {
        RequestId(self.last_id.fetch_add(1, Ordering::Relaxed))
    }

    /// Sends a message that carries its own reply channel, and waits for the reply.
    pub(crate) async fn ask<T>(
        &self,
        message: impl FnOnce(oneshot::Sender<T>) -> Message,
    ) -> Result<T, DriverClosedError> {
        let (reply, answer) = oneshot::channel();
        self.send(message(reply)).await?;
        answer.await.map_err(|_| DriverClosedError)
    }

    #[expect(clippy::result_large_err, reason = "the message comes back to be sent later")]
    pub(crate) fn try_send(&self, message: Message) -> Result<(), TrySendError<Message>> {
        self.messages.try_send(message)
    }

    pub(crate) async fn send(&self, message: Message) -> Result<(), DriverClosedError> {
        self.messages.send(message).await.map_err(|_| DriverClosedError)
    }

    /// Cancels a request whose call was dropped. Does nothing if the driver is closed.
    pub(crate) fn cancel(&self, id: RequestId) {
        let _closed = self.cancellations.try_send(id);
    }
}

/// Error of a message to a driver that was dropped before it had replied, for example because the driver's task has
/// ended, or of a closure that panicked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("driver is closed")]
pub struct DriverClosedError;

/// Error of [`Client::remove_record`](crate::Client::remove_record). No record was removed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RemoveRecordError {
    /// The local store has no record under the key.
    #[error("local store has no record under this key")]
    NotFound,
    /// The publisher of the record is another peer, or the record names no publisher.
    #[error("record was not published by this peer")]
    NotPublisher {
        /// Publisher of the record. `None` if the record names no publisher.
        publisher: Option<PeerId>,
    },
    /// The driver was dropped before it had replied.
    #[error(transparent)]
    Closed(#[from] DriverClosedError),
}
