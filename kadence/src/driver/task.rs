use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures::{
    FutureExt, Stream, StreamExt,
    channel::oneshot,
    future::{AbortHandle, Abortable, poll_fn},
    stream::FusedStream,
};
use libp2p::{Swarm, swarm::SwarmEvent};
use thiserror::Error;

use crate::{
    Client, ContainsKad, Driver, DriverConfig, Runtime, SwarmHandle,
    response::{self, Letter, channel},
};

/// How many events one wake-up of the task may hand on before other tasks of the runtime get their turn.
const EVENTS_PER_WAKE: usize = 100;

/// Drives a swarm in a task of its own.
///
/// The task ends after [`Client::shutdown`], and the swarm with it. Events that belong to no call go to [`Events`].
pub fn spawn<B, R>(
    runtime: &R,
    swarm: Swarm<B>,
    config: DriverConfig,
) -> (Client, SwarmHandle<B>, Events<SwarmEvent<B::ToSwarm>>, Task)
where
    B: ContainsKad + Send,
    B::ToSwarm: Send,
    R: Runtime,
{
    let (sender, events) = Events::new(config.event_capacity);
    let (client, handle, mut driver) = Driver::new(swarm, runtime.clone(), config);
    let run = async move {
        poll_fn(|cx| {
            for _ in 0..EVENTS_PER_WAKE {
                let event = driver.poll_next_unpin(cx);
                if driver.is_shut_down() {
                    return Poll::Ready(());
                }
                match event {
                    Poll::Ready(Some(event)) => sender.push(event),
                    Poll::Ready(None) => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                }
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    };
    let task = Task::spawn(runtime, run);
    (client, handle, events, task)
}

/// The events of a driven swarm that belong to no call: a bounded stream that ends with the driver.
///
/// It may be dropped; the events are then dropped as well.
#[derive(Debug)]
pub struct Events<T> {
    letters: response::Receiver<T, ()>,
    over: bool,
}

/// So many events are missing here, because the reader was slower than they came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the reader was too slow: {skipped} events were skipped")]
pub struct Lagged {
    /// How many events were skipped.
    pub skipped: u64,
}

impl<T> Events<T> {
    pub(crate) fn new(capacity: usize) -> (response::Sender<T, ()>, Self) {
        let (sender, letters) = channel(capacity);
        (sender, Self { letters, over: false })
    }
}

impl<T> Stream for Events<T> {
    type Item = Result<T, Lagged>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.over {
            return Poll::Ready(None);
        }
        self.letters.poll_next(cx).map(|letter| match letter {
            Letter::Item(event) => Some(Ok(event)),
            Letter::Lagged(skipped) => Some(Err(Lagged { skipped })),
            Letter::End(()) | Letter::Gone => {
                self.over = true;
                None
            }
        })
    }
}

impl<T> FusedStream for Events<T> {
    fn is_terminated(&self) -> bool {
        self.over
    }
}

/// A driver's task: a future that is ready when the task has ended. Dropping it lets the task run on.
pub struct Task {
    done: oneshot::Receiver<TaskEnd>,
    abort: AbortHandle,
    /// Once it is known, for those who ask again.
    end: Option<TaskEnd>,
}

/// How a driver's task ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskEnd {
    /// After a shutdown.
    Finished,
    /// By [`Task::abort`].
    Aborted,
    /// It panicked, or its runtime went away.
    Lost,
}

impl Task {
    pub(crate) fn spawn<R: Runtime>(runtime: &R, run: impl Future<Output = ()> + Send + 'static) -> Self {
        let (abort, registration) = AbortHandle::new_pair();
        let (ended, done) = oneshot::channel();
        let run = Abortable::new(run, registration);
        runtime.spawn(
            async move {
                let end = match run.await {
                    Ok(()) => TaskEnd::Finished,
                    Err(_aborted) => TaskEnd::Aborted,
                };
                // Nobody may be waiting for it.
                let _gone = ended.send(end);
            }
            .boxed(),
        );
        Self { done, abort, end: None }
    }

    /// Ends the task at once. Pending and later calls end with [`RequestError::Shutdown`](crate::RequestError).
    pub fn abort(&self) {
        self.abort.abort();
    }
}

impl Future for Task {
    type Output = TaskEnd;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<TaskEnd> {
        if let Some(end) = self.end {
            return Poll::Ready(end);
        }
        let end = ready!(self.done.poll_unpin(cx)).unwrap_or(TaskEnd::Lost);
        self.end = Some(end);
        Poll::Ready(end)
    }
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task").finish_non_exhaustive()
    }
}
