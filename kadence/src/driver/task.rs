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
    response::{Response, ResponseReceiver, ResponseSender, response_channel},
};

/// Maximum number of events that the task forwards for each wake-up. After these, it yields to other tasks.
const EVENTS_PER_WAKE: usize = 100;

/// Parts of a driver that runs in a task of its own, as [`spawn`] returns them.
///
/// ```
/// use kadence::{ContainsKad, DriverConfig, Runtime, Spawned, libp2p::Swarm, spawn};
///
/// async fn example<B>(runtime: impl Runtime, swarm: Swarm<B>)
/// where
///     B: ContainsKad + Send,
///     B::ToSwarm: Send,
/// {
///     let Spawned { client, task, .. } = spawn(&runtime, swarm, DriverConfig::default());
///     client.shutdown().await;
///     task.await;
/// }
/// ```
pub struct Spawned<B: ContainsKad> {
    /// Client of the driver.
    pub client: Client,
    /// Handle to the driver's swarm.
    pub swarm: SwarmHandle<B>,
    /// Events of the swarm, except those of the driver's own queries. If this stream is dropped, the events are
    /// discarded.
    pub events: Events<SwarmEvent<B::ToSwarm>>,
    /// Handle to the task of the driver. If this handle is dropped, the task goes on.
    pub task: Task,
}

impl<B: ContainsKad> fmt::Debug for Spawned<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spawned").field("client", &self.client).finish_non_exhaustive()
    }
}

/// Runs a driver for a swarm in a task of its own.
///
/// The task ends after [`Client::shutdown`], [`Client::shutdown_now`] or [`Task::abort`], if it panics, or if the
/// runtime drops it. The end of the task drops the swarm. The task does not end because all clients are dropped. The
/// events of the swarm, except those of the driver's own queries, go to [`Spawned::events`]. Each runtime crate has a
/// function `spawn` that calls this one with its runtime.
///
/// ```
/// use futures::StreamExt;
/// use kadence::{ContainsKad, DriverConfig, Runtime, TaskEnd, libp2p::Swarm, spawn};
///
/// async fn run<B>(runtime: impl Runtime, swarm: Swarm<B>)
/// where
///     B: ContainsKad + Send,
///     B::ToSwarm: Send,
/// {
///     let spawned = spawn(&runtime, swarm, DriverConfig::default());
///     println!("{:?}", spawned.client.get_record("greeting").await);
///     spawned.client.shutdown().await;
///     assert_eq!(spawned.task.await, TaskEnd::Finished);
/// }
/// ```
pub fn spawn<B, R>(runtime: &R, swarm: Swarm<B>, config: DriverConfig) -> Spawned<B>
where
    B: ContainsKad + Send,
    B::ToSwarm: Send,
    R: Runtime,
{
    let (sender, events) = Events::new(config.event_capacity);
    let (client, swarm, mut driver) = Driver::new(swarm, runtime.clone(), config);
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
    Spawned { client, swarm, events, task }
}

/// Stream of the events of a driver's swarm, except those of the driver's own queries. After the driver's task has
/// ended, the stream yields the events that it still keeps, and ends.
///
/// The stream keeps at most [`DriverConfig::event_capacity`] events. If the reader falls behind, further events are
/// dropped, and the reader gets a [`LaggedError`] in their place. After the stream is dropped, all events are
/// discarded.
///
/// ```
/// use futures::StreamExt;
/// use kadence::{Events, LaggedError};
///
/// async fn log<T: std::fmt::Debug>(mut events: Events<T>) {
///     while let Some(event) = events.next().await {
///         match event {
///             Ok(event) => println!("{event:?}"),
///             Err(LaggedError { skipped, .. }) => println!("{skipped} events skipped"),
///         }
///     }
/// }
/// ```
#[derive(Debug)]
pub struct Events<T> {
    responses: ResponseReceiver<T, ()>,
    ended: bool,
}

/// Gap in [`Events`]: the reader fell behind, and events were dropped at this point. The stream goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("reader fell behind: {skipped} events were skipped")]
#[non_exhaustive]
pub struct LaggedError {
    /// Number of dropped events.
    pub skipped: u64,
}

impl<T> Events<T> {
    pub(crate) fn new(capacity: usize) -> (ResponseSender<T, ()>, Self) {
        let (sender, responses) = response_channel(capacity);
        (sender, Self { responses, ended: false })
    }
}

impl<T> Stream for Events<T> {
    type Item = Result<T, LaggedError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        self.responses.poll_next(cx).map(|response| match response {
            Response::Item(event) => Some(Ok(event)),
            Response::Lagged(skipped) => Some(Err(LaggedError { skipped })),
            Response::End(()) | Response::Disconnected => {
                self.ended = true;
                None
            }
        })
    }
}

impl<T> FusedStream for Events<T> {
    fn is_terminated(&self) -> bool {
        self.ended
    }
}

/// Handle to the task of a driver. As a future, it completes with a [`TaskEnd`] when the task has ended and the swarm
/// is dropped. If the handle is dropped, the task goes on.
pub struct Task {
    done: oneshot::Receiver<TaskEnd>,
    abort: AbortHandle,
    /// Kept, so that the future can be polled after its end.
    end: Option<TaskEnd>,
}

/// Reason why a driver's task ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TaskEnd {
    /// [`Client::shutdown`] or [`Client::shutdown_now`] ended the task.
    Finished,
    /// [`Task::abort`] ended the task.
    Aborted,
    /// The task panicked, or its runtime dropped it.
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
                // The `Task` may have been dropped.
                let _dropped = ended.send(end);
            }
            .boxed(),
        );
        Self { done, abort, end: None }
    }

    /// Aborts the task without a shutdown: the driver and the swarm are dropped as soon as the runtime polls the task
    /// again. Pending and later calls then end with [`RequestError::Shutdown`](kadence_core::RequestError::Shutdown).
    /// Await the `Task` to wait for that.
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
