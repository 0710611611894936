//! Model of `async-channel`, as far as the driver uses it, on a lock of the checker. Room wakes all senders that wait,
//! where the real one wakes one of them.

use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::Pin,
    sync::{Arc, PoisonError},
    task::{Context, Poll, Waker},
};

use futures::Stream;
use shuttle::sync::{Mutex, MutexGuard};

struct State<T> {
    queue: VecDeque<T>,
    capacity: usize,
    senders: usize,
    closed: bool,
    receiving: Option<Waker>,
    sending: Vec<Waker>,
}

pub(crate) struct Sender<T>(Arc<Mutex<State<T>>>);

pub(crate) struct Receiver<T>(Arc<Mutex<State<T>>>);

#[derive(Debug)]
pub(crate) enum TrySendError<T> {
    Full(T),
    Closed(T),
}

#[derive(Debug)]
pub(crate) struct SendError<T>(pub(crate) T);

#[derive(Debug)]
pub(crate) struct TryRecvError;

pub(crate) fn bounded<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let state =
        State { queue: VecDeque::new(), capacity, senders: 1, closed: false, receiving: None, sending: Vec::new() };
    let state = Arc::new(Mutex::new(state));
    (Sender(Arc::clone(&state)), Receiver(state))
}

pub(crate) fn unbounded<T>() -> (Sender<T>, Receiver<T>) {
    bounded(usize::MAX)
}

impl<T> Sender<T> {
    pub(crate) fn try_send(&self, message: T) -> Result<(), TrySendError<T>> {
        let mut state = lock(&self.0);
        if state.closed {
            return Err(TrySendError::Closed(message));
        }
        if state.queue.len() >= state.capacity {
            return Err(TrySendError::Full(message));
        }
        state.queue.push_back(message);
        let receiving = state.receiving.take();
        drop(state);
        receiving.into_iter().for_each(Waker::wake);
        Ok(())
    }

    pub(crate) async fn send(&self, message: T) -> Result<(), SendError<T>> {
        let mut message = Some(message);
        poll_fn(|cx| {
            // Registered first: room that is made after the attempt wakes the task.
            let mut state = lock(&self.0);
            if !state.sending.iter().any(|waker| waker.will_wake(cx.waker())) {
                state.sending.push(cx.waker().clone());
            }
            drop(state);
            match self.try_send(message.take().expect("a send is not polled after its end")) {
                Ok(()) => Poll::Ready(Ok(())),
                Err(TrySendError::Closed(message)) => Poll::Ready(Err(SendError(message))),
                Err(TrySendError::Full(unsent)) => {
                    message = Some(unsent);
                    Poll::Pending
                }
            }
        })
        .await
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        lock(&self.0).senders += 1;
        Self(Arc::clone(&self.0))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let mut state = lock(&self.0);
        state.senders -= 1;
        if state.senders == 0 {
            close(state);
        }
    }
}

impl<T> Receiver<T> {
    pub(crate) fn close(&self) {
        close(lock(&self.0));
    }

    pub(crate) fn try_recv(&self) -> Result<T, TryRecvError> {
        pop(lock(&self.0)).map_err(|_state| TryRecvError)
    }
}

impl<T> Stream for Receiver<T> {
    type Item = T;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        match pop(lock(&self.0)) {
            Ok(message) => Poll::Ready(Some(message)),
            Err(state) if state.closed => Poll::Ready(None),
            Err(mut state) => {
                state.receiving = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.close();
    }
}

/// A driver that panics drops its channels.
fn lock<T>(state: &Mutex<State<T>>) -> MutexGuard<'_, State<T>> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the next message, and wakes those that wait for room. Without one, the state stays locked.
fn pop<T>(mut state: MutexGuard<'_, State<T>>) -> Result<T, MutexGuard<'_, State<T>>> {
    let Some(message) = state.queue.pop_front() else { return Err(state) };
    let sending = std::mem::take(&mut state.sending);
    drop(state);
    sending.into_iter().for_each(Waker::wake);
    Ok(message)
}

fn close<T>(mut state: MutexGuard<'_, State<T>>) {
    state.closed = true;
    let wakers = (state.receiving.take(), std::mem::take(&mut state.sending));
    drop(state);
    wakers.0.into_iter().chain(wakers.1).for_each(Waker::wake);
}
