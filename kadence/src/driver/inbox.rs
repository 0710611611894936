//! The driver's end of a channel.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use async_channel::Receiver;
use futures::Stream;
use pin_project::{pin_project, pinned_drop};

/// A receiver that, when it goes away, also drops what is still under way.
///
/// A channel keeps its messages until the last sender is gone, and each message holds the reply of a caller: without
/// this, a call that was sent and not yet received would wait for ever after the driver's end.
#[pin_project(PinnedDrop)]
pub(crate) struct Inbox<T> {
    #[pin]
    receiver: Receiver<T>,
}

impl<T> Inbox<T> {
    pub(crate) fn new(receiver: Receiver<T>) -> Pin<Box<Self>> {
        Box::pin(Self { receiver })
    }

    /// The next message. Without one, the task is woken when there is; once no sender is left, there never is.
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
