//! Receiving end of a driver's channel.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use futures::Stream;
use pin_project::{pin_project, pinned_drop};

use crate::sync::channel::Receiver;

/// Receiver that drops the messages in the channel when it is dropped.
///
/// A channel keeps its messages until the last sender is dropped, and each message contains the way back to a caller.
/// Without this, a call that was sent and not yet received would wait forever after the end of the driver.
#[pin_project(PinnedDrop)]
pub(crate) struct Inbox<T> {
    #[pin]
    receiver: Receiver<T>,
}

impl<T> Inbox<T> {
    pub(crate) fn new(receiver: Receiver<T>) -> Pin<Box<Self>> {
        Box::pin(Self { receiver })
    }

    /// Returns the next message. Without one, the task is woken when there is one. Pending forever if all senders were
    /// dropped.
    pub(crate) fn poll_receive(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        match self.project().receiver.poll_next(cx) {
            Poll::Ready(Some(message)) => Poll::Ready(message),
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}

#[pinned_drop]
impl<T> PinnedDrop for Inbox<T> {
    fn drop(self: Pin<&mut Self>) {
        self.receiver.close();
        while let Ok(message) = self.receiver.try_recv() {
            drop(message);
        }
    }
}
