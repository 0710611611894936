//! A bounded queue of items with a labelled end, from the driver to one reader.
//!
//! The driver never waits for a reader: an item that finds the queue full is skipped and counted, and the count stands
//! in the queue at the place where the items are missing. The end has a place of its own, so it always arrives.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

/// What a reader takes out.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Letter<T, E> {
    /// The next item.
    Item(T),
    /// So many items were skipped here.
    Lagged(u64),
    /// The end.
    End(E),
    /// The sender went away without an end.
    Gone,
}

#[derive(Debug)]
struct State<T, E> {
    queue: VecDeque<Entry<T>>,
    /// Entries of `queue` that are items; gaps come on top, at most one after each item.
    items: usize,
    end: Option<E>,
    sender_gone: bool,
    receiver_gone: bool,
    waker: Option<Waker>,
}

#[derive(Debug)]
enum Entry<T> {
    Item(T),
    Gap(u64),
}

/// The driver's side. Dropping it without [`end`](Self::end) leaves the reader with [`Letter::Gone`].
#[derive(Debug)]
pub(crate) struct Sender<T, E> {
    state: Arc<Mutex<State<T, E>>>,
    capacity: usize,
}

/// The reader's side.
#[derive(Debug)]
pub(crate) struct Receiver<T, E> {
    state: Arc<Mutex<State<T, E>>>,
}

pub(crate) fn channel<T, E>(capacity: usize) -> (Sender<T, E>, Receiver<T, E>) {
    let state = Arc::new(Mutex::new(State {
        queue: VecDeque::new(),
        items: 0,
        end: None,
        sender_gone: false,
        receiver_gone: false,
        waker: None,
    }));
    (Sender { state: Arc::clone(&state), capacity }, Receiver { state })
}

/// No code of a caller runs under the lock, so a poisoned lock still holds a whole state.
fn lock<S>(state: &Mutex<S>) -> MutexGuard<'_, S> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T, E> Sender<T, E> {
    pub(crate) fn push(&self, item: T) {
        let mut state = lock(&self.state);
        if state.receiver_gone {
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

    /// Whether nobody will read any more.
    pub(crate) fn is_abandoned(&self) -> bool {
        lock(&self.state).receiver_gone
    }
}

impl<T, E> Drop for Sender<T, E> {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        state.sender_gone = true;
        wake(state);
    }
}

/// Wakes the reader after the lock is released: a waker may run code of its own.
fn wake<T, E>(mut state: MutexGuard<'_, State<T, E>>) {
    let waker = state.waker.take();
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl<T, E> Receiver<T, E> {
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Letter<T, E>> {
        let mut state = lock(&self.state);
        if let Some(entry) = state.queue.pop_front() {
            return Poll::Ready(match entry {
                Entry::Item(item) => {
                    state.items -= 1;
                    Letter::Item(item)
                }
                Entry::Gap(skipped) => Letter::Lagged(skipped),
            });
        }
        if let Some(end) = state.end.take() {
            return Poll::Ready(Letter::End(end));
        }
        if state.sender_gone {
            return Poll::Ready(Letter::Gone);
        }
        match &mut state.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

impl<T, E> Receiver<T, E> {
    /// Nobody will read any more: what is in the queue is dropped, and the sender can see it.
    pub(crate) fn close(&mut self) {
        let mut state = lock(&self.state);
        state.receiver_gone = true;
        state.items = 0;
        let unread = (std::mem::take(&mut state.queue), state.end.take(), state.waker.take());
        drop(state);
        drop(unread);
    }
}

impl<T, E> Drop for Receiver<T, E> {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(test)]
mod tests {
    use futures::task::noop_waker;

    use super::*;

    fn drain<T, E>(receiver: &mut Receiver<T, E>) -> Vec<Letter<T, E>> {
        let waker = noop_waker();
        let mut cx = Context::from_waker(&waker);
        let mut letters = Vec::new();
        while let Poll::Ready(letter) = receiver.poll_next(&mut cx) {
            let over = matches!(letter, Letter::End(_) | Letter::Gone);
            letters.push(letter);
            if over {
                break;
            }
        }
        letters
    }

    #[test]
    fn a_slow_reader_learns_how_much_it_missed_and_always_gets_the_end() {
        let (sender, mut receiver) = channel::<u32, &str>(2);
        (0..5).for_each(|n| sender.push(n));
        sender.end("timeout");
        let letters = drain(&mut receiver);
        assert_eq!(letters, [Letter::Item(0), Letter::Item(1), Letter::Lagged(3), Letter::End("timeout")]);
    }

    #[test]
    fn a_gap_stands_where_the_items_are_missing() {
        let (sender, mut receiver) = channel::<u32, ()>(1);
        sender.push(0);
        sender.push(1);
        assert_eq!(drain(&mut receiver), [Letter::Item(0), Letter::Lagged(1)]);
        sender.push(2);
        sender.push(3);
        sender.push(4);
        assert_eq!(drain(&mut receiver), [Letter::Item(2), Letter::Lagged(2)]);
    }

    #[test]
    fn a_sender_that_goes_away_without_an_end_is_not_a_clean_end() {
        let (sender, mut receiver) = channel::<u32, ()>(1);
        sender.push(0);
        drop(sender);
        assert_eq!(drain(&mut receiver), [Letter::Item(0), Letter::Gone]);
    }

    #[test]
    fn with_no_room_at_all_the_end_still_arrives() {
        let (sender, mut receiver) = channel::<u32, ()>(0);
        sender.push(0);
        sender.push(1);
        sender.end(());
        assert_eq!(drain(&mut receiver), [Letter::Lagged(2), Letter::End(())]);
    }

    #[test]
    fn a_reader_that_is_gone_holds_nothing() {
        let (sender, receiver) = channel::<Arc<()>, ()>(8);
        let item = Arc::new(());
        sender.push(Arc::clone(&item));
        assert!(!sender.is_abandoned());
        drop(receiver);
        sender.push(Arc::clone(&item));
        assert!(sender.is_abandoned());
        assert_eq!(Arc::strong_count(&item), 1);
    }
}
