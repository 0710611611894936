use std::{
    fmt,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use async_channel::Receiver;
use blocking::unblock;
use futures::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, FutureExt, StreamExt,
    future::{Either, maybe_done, select},
    stream::FuturesUnordered,
};
use kadence::{Alarm, Clock, Runtime};
use libp2p::{PeerId, Stream};
use libp2p_stream::Control;
use thiserror::Error;

use super::{
    config::ServerConfig,
    limits::{Limits, RetryAfter},
    wire::{BLOB_PROTOCOL, Head, REQUEST_LEN, Request},
};
use crate::{
    blob::{BlobError, BlobStore, GROUP_BYTES},
    p2p::streams::accept_streams,
};

/// How many streams are told at a time that there is no room for them. The others are closed without a word.
const MAX_REFUSED: usize = 32;

/// What a part of a response is that has its own deadline.
const WRITE_STEP: usize = 16 << 10;

/// What a request for something that is not there costs, in bytes of bandwidth: to look for it is work, too.
const MISS_COST: u64 = GROUP_BYTES;

/// Somebody else has registered the protocol with this behaviour: there can be one server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the protocol of blobs is served already")]
pub struct ProtocolTakenError;

/// Serves the blobs of a store to whoever asks: [`run`](Self::run) it as a task.
///
/// What is served is verified as it is read: no peer gets anything that has gone bad on the disk.
pub struct Server {
    incoming: Receiver<(PeerId, Stream)>,
    shared: Arc<Shared>,
}

impl Server {
    /// Registers the protocol.
    ///
    /// # Errors
    ///
    /// If it is registered already.
    pub fn new(
        control: &mut Control,
        store: BlobStore,
        runtime: &impl Runtime,
        config: ServerConfig,
    ) -> Result<Self, ProtocolTakenError> {
        let incoming = accept_streams(runtime, control.accept(BLOB_PROTOCOL).map_err(|_| ProtocolTakenError)?);
        let clock = Clock::new(runtime);
        let limits = Mutex::new(Limits::new(config, clock.now()));
        Ok(Self { incoming, shared: Arc::new(Shared { store, clock, config, limits, counters: Arc::default() }) })
    }

    /// What it has done, to be looked at while it runs.
    pub fn stats(&self) -> StatsHandle {
        StatsHandle(self.shared.counters.clone())
    }

    /// Serves until the behaviour is gone.
    pub async fn run(self) {
        let Self { incoming, shared } = self;
        let mut incoming = pin!(incoming.fuse());
        let (mut serving, mut refused) = (FuturesUnordered::new(), FuturesUnordered::new());
        loop {
            futures::select_biased! {
                stream = incoming.next() => {
                    let Some((peer, stream)) = stream else { return };
                    let admitted = shared.limits().admit(peer, shared.clock.now());
                    match admitted {
                        Ok(()) => {
                            shared.counters.streams.fetch_add(1, Relaxed);
                            serving.push(shared.clone().serve(peer, stream).boxed());
                        }
                        Err(retry_after) => {
                            shared.counters.refused_streams.fetch_add(1, Relaxed);
                            if refused.len() < MAX_REFUSED {
                                refused.push(shared.clone().refuse(stream, retry_after).boxed());
                            }
                        }
                    }
                }
                // An empty one says that it has ended, and is asked again after the next stream.
                _ = serving.select_next_some() => {}
                _ = refused.select_next_some() => {}
            }
        }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("config", &self.shared.config).finish_non_exhaustive()
    }
}

/// What a server has done since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ServerStats {
    /// Streams that were served.
    pub streams: u64,
    /// Streams for which there was no room.
    pub refused_streams: u64,
    /// Requests that were answered with data.
    pub served: u64,
    /// The bytes of these answers, with the proofs.
    pub bytes: u64,
    /// Requests for what is not there.
    pub not_found: u64,
    /// Requests for which there was no bandwidth.
    pub busy: u64,
    /// Requests against the rules.
    pub invalid: u64,
    /// Requests for blobs that could not be read, or had gone bad.
    pub unreadable: u64,
}

/// Reads a server's [`ServerStats`].
#[derive(Debug, Clone)]
pub struct StatsHandle(Arc<Counters>);

impl StatsHandle {
    /// What has been done up to now.
    pub fn read(&self) -> ServerStats {
        let Counters { streams, refused_streams, served, bytes, not_found, busy, invalid, unreadable } = &*self.0;
        ServerStats {
            streams: streams.load(Relaxed),
            refused_streams: refused_streams.load(Relaxed),
            served: served.load(Relaxed),
            bytes: bytes.load(Relaxed),
            not_found: not_found.load(Relaxed),
            busy: busy.load(Relaxed),
            invalid: invalid.load(Relaxed),
            unreadable: unreadable.load(Relaxed),
        }
    }
}

#[derive(Debug, Default)]
struct Counters {
    streams: AtomicU64,
    refused_streams: AtomicU64,
    served: AtomicU64,
    bytes: AtomicU64,
    not_found: AtomicU64,
    busy: AtomicU64,
    invalid: AtomicU64,
    unreadable: AtomicU64,
}

struct Shared {
    store: BlobStore,
    clock: Clock,
    config: ServerConfig,
    limits: Mutex<Limits>,
    counters: Arc<Counters>,
}

/// An answer that is ready to be sent: a head and what follows it.
struct Response {
    bytes: Vec<u8>,
    /// Whether the stream ends with it.
    is_last: bool,
    /// How long the next request of the stream has to wait.
    pause: Duration,
}

impl Response {
    fn head(head: Head) -> Self {
        let pause = if let Head::Busy(after) = head { after } else { Duration::ZERO };
        Self { bytes: head.encode().to_vec(), is_last: head == Head::Invalid, pause }
    }
}

impl Shared {
    fn limits(&self) -> MutexGuard<'_, Limits> {
        self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn serve(self: Arc<Self>, peer: PeerId, stream: Stream) {
        // However it ends.
        let _admitted = Admitted { shared: &self, peer };
        self.answer_all(peer, stream).await;
    }

    /// Answers request after request, and prepares the next answer while one is sent.
    async fn answer_all(&self, peer: PeerId, stream: Stream) {
        let (read, mut write) = stream.split();
        let mut alarm = self.clock.alarm();
        let (mut idle, mut whole) = (self.clock.alarm(), self.clock.alarm());
        let mut next = Box::pin(maybe_done(self.next(peer, read, Duration::ZERO)));
        loop {
            if idle.within(self.config.idle_timeout, next.as_mut()).await.is_err() {
                return;
            }
            let Some(Some((read, response))) = next.as_mut().take_output() else { return };
            let is_last = response.is_last;
            if !is_last {
                next.set(maybe_done(self.next(peer, read, response.pause)));
            }
            let sent = {
                let send = self.send(&mut write, &mut alarm, response);
                let send = pin!(whole.within(self.config.response_timeout, send));
                // `next` is polled as long as the answer is not sent, and stays what it is.
                match select(send, next.as_mut()).await {
                    Either::Left((sent, _)) => sent,
                    Either::Right(((), send)) => send.await,
                }
            };
            if sent != Ok(Some(())) || is_last {
                return;
            }
        }
    }

    /// The answer to the next request, which is not read before the pause is over. `None`: there is none.
    async fn next<R: AsyncRead + Unpin>(&self, peer: PeerId, mut read: R, pause: Duration) -> Option<(R, Response)> {
        self.pause(pause).await;
        let mut request = [0; REQUEST_LEN];
        read.read_exact(&mut request).await.ok()?;
        let Some(request) = Request::decode(&request) else {
            self.counters.invalid.fetch_add(1, Relaxed);
            return Some((read, Response::head(Head::Invalid)));
        };
        // Before anything is read or hashed, as if all of it were there.
        let most = u64::from(request.count).saturating_mul(GROUP_BYTES);
        let reserved = self.limits().reserve(peer, most, self.clock.now());
        match reserved {
            Ok(wait) => self.pause(wait).await,
            Err(RetryAfter(after)) => {
                self.counters.busy.fetch_add(1, Relaxed);
                return Some((read, Response::head(Head::Busy(after))));
            }
        }
        let store = self.store.clone();
        let encoded = unblock(move || {
            // Room for the head, which has the size in it.
            let mut bytes = Head::Have(0).encode().to_vec();
            let size = store.encode(&request.id, request.groups(), &mut bytes)?;
            for (to, from) in bytes.iter_mut().zip(Head::Have(size).encode()) {
                *to = from;
            }
            Ok::<_, BlobError>(bytes)
        });
        let (response, cost) = match encoded.await {
            Ok(bytes) => {
                self.counters.served.fetch_add(1, Relaxed);
                let cost = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                (Response { bytes, is_last: false, pause: Duration::ZERO }, cost)
            }
            Err(BlobError::NotFound(_)) => {
                self.counters.not_found.fetch_add(1, Relaxed);
                (Response::head(Head::NotFound), MISS_COST)
            }
            // It was read before it was found to be bad.
            Err(_) => {
                self.counters.unreadable.fetch_add(1, Relaxed);
                (Response::head(Head::NotFound), most)
            }
        };
        self.limits().give_back(peer, most.saturating_sub(cost));
        Some((read, response))
    }

    async fn pause(&self, span: Duration) {
        if !span.is_zero() {
            self.clock.alarm().sleep(span).await;
        }
    }

    /// `None`: the peer does not take it.
    async fn send(&self, write: &mut (impl AsyncWrite + Unpin), alarm: &mut Alarm, response: Response) -> Option<()> {
        for part in response.bytes.chunks(WRITE_STEP) {
            alarm.within(self.config.step_timeout, write.write_all(part)).await.ok()?.ok()?;
            self.counters.bytes.fetch_add(u64::try_from(part.len()).unwrap_or(u64::MAX), Relaxed);
        }
        alarm.within(self.config.step_timeout, write.flush()).await.ok()?.ok()
    }

    async fn refuse(self: Arc<Self>, mut stream: Stream, RetryAfter(after): RetryAfter) {
        let mut alarm = self.clock.alarm();
        let response = Response::head(Head::Busy(after));
        if self.send(&mut stream, &mut alarm, response).await.is_some() {
            let _closed = alarm.within(self.config.step_timeout, stream.close()).await;
        }
    }
}

struct Admitted<'a> {
    shared: &'a Shared,
    peer: PeerId,
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        self.shared.limits().release(self.peer);
    }
}
