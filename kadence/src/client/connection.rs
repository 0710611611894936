//! Channels between the clients and their driver, and the messages on them. Knows neither calls nor the client.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
    time::Duration,
};

use futures::channel::oneshot;
use kadence_core::{Item, Metrics, Outcome, Request, RequestId, Snapshot, Stats};
use libp2p::{Multiaddr, PeerId, kad::RecordKey};
use thiserror::Error;

use super::polls::{Polls, Watch};
use crate::{
    Clock,
    response::ResponseSender,
    sync::channel::{self, Receiver, Sender, TrySendError},
};

/// A client's end of the channels, shared by all clones of the client.
pub(crate) struct Connection {
    local_peer_id: PeerId,
    last_id: AtomicU64,
    messages: Sender<Message>,
    /// A channel of its own, so that a full message channel does not delay a cancellation. It needs no bound: every
    /// live call sends at most one, and a look at the driver's polls one more only after the driver has polled.
    cancellations: Sender<RequestId>,
    polls: Arc<Polls>,
    clock: Clock,
    default_timeout: Duration,
}

/// The driver's end of the channels.
pub(crate) struct DriverChannels {
    pub(crate) messages: Receiver<Message>,
    pub(crate) cancellations: Receiver<RequestId>,
    pub(crate) polls: Arc<Polls>,
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
    pub(crate) fn new(
        local_peer_id: PeerId,
        capacity: usize,
        clock: Clock,
        default_timeout: Duration,
    ) -> (Self, DriverChannels) {
        let (messages, received_messages) = channel::bounded(capacity.max(1));
        let (cancellations, received_cancellations) = channel::unbounded();
        let polls = Arc::<Polls>::default();
        let channels = DriverChannels {
            messages: received_messages,
            cancellations: received_cancellations,
            polls: Arc::clone(&polls),
        };
        let last_id = AtomicU64::new(0);
        (Self { local_peer_id, last_id, messages, cancellations, polls, clock, default_timeout }, channels)
    }

    pub(super) fn polls(&self) -> &Polls {
        &self.polls
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Returns the timeout of a call that has none of its own.
    pub(super) fn default_timeout(&self) -> Duration {
        self.default_timeout
    }

    /// Makes the driver poll if it waits for messages.
    pub(super) fn wake_driver(&self) {
        self.cancel(NO_REQUEST);
    }

    pub(crate) fn local_peer_id(&self) -> PeerId {
        self.local_peer_id
    }

    pub(crate) fn next_request_id(&self) -> RequestId {
        RequestId(self.last_id.fetch_add(1, Ordering::Relaxed))
    }

    /// Sends a message that carries its own reply channel, and waits for the reply, for as long as somebody polls the driver.
    pub(crate) async fn ask<T>(
        &self,
        message: impl FnOnce(oneshot::Sender<T>) -> Message,
    ) -> Result<T, DriverClosedError> {
        let (reply, answer) = oneshot::channel();
        self.while_polled(async {
            self.send(message(reply)).await?;
            answer.await.map_err(|_| DriverClosedError)
        })
        .await
    }

    /// Waits for the driver, for as long as somebody polls it.
    pub(crate) async fn while_polled<T>(
        &self,
        wait: impl Future<Output = Result<T, DriverClosedError>>,
    ) -> Result<T, DriverClosedError> {
        let (mut wait, mut watch) = (pin!(wait), Watch::default());
        poll_fn(|cx| match wait.as_mut().poll(cx) {
            Poll::Ready(result) => Poll::Ready(result),
            Poll::Pending => watch.poll(cx, self, self.default_timeout).map(|()| Err(DriverClosedError)),
        })
        .await
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

/// Id of no request: the first ids are given to requests.
const NO_REQUEST: RequestId = RequestId(u64::MAX);

/// Error of a message to a driver without a reply. The driver was dropped before, for example because its task has ended, or
/// a closure has panicked. Or nobody has polled the driver for the default timeout of calls: it then carries the message out
/// when it is polled again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("driver is closed, or nobody polls it")]
pub struct DriverClosedError;

/// Error of [`Client::remove_record`](crate::Client::remove_record). No record was removed so far.
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
    /// The driver was dropped before it had replied, or nobody polls it. In the second case the record is removed if the
    /// driver is polled again.
    #[error(transparent)]
    Closed(#[from] DriverClosedError),
}
