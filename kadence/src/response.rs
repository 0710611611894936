//! Response channel: a bounded queue of items and one end, from the driver to one reader.
//!
//! The driver never waits for a reader. An item that finds the queue full is dropped and counted, and the count stands
//! in the queue at the place of the dropped items. The end is stored outside the queue, so it always arrives.

use std::{
    collections::VecDeque,
    sync::{Arc, PoisonError},
    task::{Context, Poll, Waker},
};

use crate::sync::{Mutex, MutexGuard};

/// One message from the driver to a reader.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Response<T, E> {
    /// The next item.
    Item(T),
    /// Number of items that were dropped at this point because the queue was full.
    Lagged(u64),
    /// The end.
    End(E),
    /// The sender was dropped without an end.
    Disconnected,
}

#[derive(Debug)]
struct State<T, E> {
    queue: VecDeque<Entry<T>>,
    /// Number of entries of `queue` that are items. There is at most one gap after each item.
    items: usize,
    end: Option<E>,
    sender_dropped: bool,
    receiver_closed: bool,
    waker: Option<Waker>,
}

#[derive(Debug)]
enum Entry<T> {
    Item(T),
    Gap(u64),
}

/// The driver's half of a response channel. If it is dropped without [`end`](Self::end), the reader gets
/// [`Response::Disconnected`].
#[derive(Debug)]
pub(crate) struct ResponseSender<T, E> {
    state: Arc<Mutex<State<T, E>>>,
    capacity: usize,
}

/// The reader's half of a response channel.
#[derive(Debug)]
pub(crate) struct ResponseReceiver<T, E> {
    state: Arc<Mutex<State<T, E>>>,
}

/// Returns a channel that holds at most `capacity` items. With a capacity of zero it carries the end alone.
pub(crate) fn response_channel<T, E>(capacity: usize) -> (ResponseSender<T, E>, ResponseReceiver<T, E>) {
    let state = Arc::new(Mutex::new(State {
        queue: VecDeque::new(),
        items: 0,
        end: None,
        sender_dropped: false,
        receiver_closed: false,
        waker: None,
    }));
    (ResponseSender { state: Arc::clone(&state), capacity }, ResponseReceiver { state })
}

/// Locks the state. No code of a caller runs under the lock, so the state behind a poisoned lock is consistent.
fn lock<S>(state: &Mutex<S>) -> MutexGuard<'_, S> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T, E> ResponseSender<T, E> {
    /// Queues an item, or counts it as dropped if the queue is full.
    pub(crate) fn push(&self, item: T) {
        let mut state = lock(&self.state);
        if state.receiver_closed {
            return;
        }
        if state.items < self.capacity {
            state.items += 1;
            state.queue.push_back(Entry::Item(item));
        } else if let Some(Entry::Gap(skipped)) = state.queue.back_mut() {
            *skipped = skipped.saturating_add(1);
        } else {
            state.queue.push_back(Entry::Gap(1));
        }
        wake(state);
    }

    pub(crate) fn end(self, end: E) {
        let mut state = lock(&self.state);
        state.end = Some(end);
        wake(state);
    }

    /// Returns whether the receiver was closed or dropped.
    pub(crate) fn is_closed(&self) -> bool {
        lock(&self.state).receiver_closed
    }
}

impl<T, E> Drop for ResponseSender<T, E> {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        state.sender_dropped = true;
        wake(state);
    }
}

/// Wakes the reader after the lock is released, because a waker may run any code.
fn wake<T, E>(mut state: MutexGuard<'_, State<T, E>>) {
    let waker = state.waker.take();
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl<T, E> ResponseReceiver<T, E> {
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Response<T, E>> {
        let mut state = lock(&self.state);
        if let Some(entry) = state.queue.pop_front() {
            return Poll::Ready(match entry {
                Entry::Item(item) => {
                    state.items -= 1;
                    Response::Item(item)
                }
                Entry::Gap(skipped) => Response::Lagged(skipped),
            });
        }
        if let Some(end) = state.end.take() {
            return Poll::Ready(Response::End(end));
        }
        if state.sender_dropped {
            return Poll::Ready(Response::Disconnected);
        }
        match &mut state.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// Drops the queue, and tells the sender that nothing will be read any more.
    pub(crate) fn close(&mut self) {
        let mut state = lock(&self.state);
        state.receiver_closed = true;
        state.items = 0;
        let unread = (std::mem::take(&mut state.queue), state.end.take(), state.waker.take());
        drop(state);
        drop(unread);
    }
}

impl<T, E> Drop for ResponseReceiver<T, E> {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(test)]
mod tests {
    use futures::task::noop_waker;

    use super::*;

    fn drain<T, E>(receiver: &mut ResponseReceiver<T, E>) -> Vec<Response<T, E>> {
        let waker = noop_waker();
        let mut cx = Context::from_waker(&waker);
        let mut responses = Vec::new();
        while let Poll::Ready(response) = receiver.poll_next(&mut cx) {
            let last = matches!(response, Response::End(_) | Response::Disconnected);
            responses.push(response);
            if last {
                break;
            }
        }
        responses
    }

    #[test]
    fn a_slow_reader_learns_how_much_it_missed_and_always_gets_the_end() {
        let (sender, mut receiver) = response_channel::<u32, &str>(2);
        (0..5).for_each(|n| sender.push(n));
        sender.end("timeout");
        let responses = drain(&mut receiver);
        assert_eq!(responses, [Response::Item(0), Response::Item(1), Response::Lagged(3), Response::End("timeout")]);
    }

    #[test]
    fn a_gap_stands_at_the_place_of_the_dropped_items() {
        let (sender, mut receiver) = response_channel::<u32, ()>(1);
        sender.push(0);
        sender.push(1);
        assert_eq!(drain(&mut receiver), [Response::Item(0), Response::Lagged(1)]);
        sender.push(2);
        sender.push(3);
        sender.push(4);
        assert_eq!(drain(&mut receiver), [Response::Item(2), Response::Lagged(2)]);
    }

    #[test]
    fn a_sender_dropped_without_an_end_is_not_a_clean_end() {
        let (sender, mut receiver) = response_channel::<u32, ()>(1);
        sender.push(0);
        drop(sender);
        assert_eq!(drain(&mut receiver), [Response::Item(0), Response::Disconnected]);
    }

    #[test]
    fn a_channel_without_capacity_still_delivers_the_end() {
        let (sender, mut receiver) = response_channel::<u32, ()>(0);
        sender.push(0);
        sender.push(1);
        sender.end(());
        assert_eq!(drain(&mut receiver), [Response::Lagged(2), Response::End(())]);
    }

    #[test]
    fn a_dropped_receiver_keeps_no_items() {
        let (sender, receiver) = response_channel::<Arc<()>, ()>(8);
        let item = Arc::new(());
        sender.push(Arc::clone(&item));
        assert!(!sender.is_closed());
        drop(receiver);
        sender.push(Arc::clone(&item));
        assert!(sender.is_closed());
        assert_eq!(Arc::strong_count(&item), 1);
    }
}
