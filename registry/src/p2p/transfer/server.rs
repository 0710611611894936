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

/// Maximum number of refused streams that are answered at the same time. Further ones are closed without an answer.
const MAX_REFUSED: usize = 32;

/// Size of the part of a response to which `step_timeout` applies.
const WRITE_STEP: usize = 16 << 10;

/// Bandwidth that a request for a missing blob costs, in bytes: the lookup is work, too.
const MISS_COST: u64 = GROUP_BYTES;

/// Error of a second server on one stream behaviour: [`BLOB_PROTOCOL`] is registered already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the blob protocol is already served on this node")]
pub struct ProtocolTakenError;

/// Serves the blobs of a store to peers. Run [`run`](Self::run) as a task.
///
/// Data is verified when it is read: data that was damaged on the disk is not sent, and the peer gets the answer that
/// the blob was not found.
///
/// # Example
///
/// ```no_run
/// # use kadence_registry::blob::BlobStore;
/// # fn example(behaviour: &libp2p_stream::Behaviour, store: BlobStore) -> Result<(), Box<dyn std::error::Error>> {
/// use kadence_registry::p2p::transfer::{Server, ServerConfig};
/// use kadence_smol::SmolRuntime;
///
/// let config = ServerConfig::default().streams_per_peer(2);
/// let server = Server::new(&mut behaviour.new_control(), store, &SmolRuntime::default(), config)?;
/// let stats = server.stats();
/// smol::spawn(server.run()).detach();
/// println!("{:?}", stats.read());
/// # Ok(())
/// # }
/// ```
pub struct Server {
    incoming: Receiver<(PeerId, Stream)>,
    shared: Arc<Shared>,
}

impl Server {
    /// Registers the blob protocol on the stream behaviour of `control`. Streams are accepted from now on; up to 256
    /// wait until [`run`](Self::run) serves them, and further ones are closed.
    ///
    /// # Errors
    ///
    /// If the protocol is registered already, for example by another server that was not dropped, or was dropped only
    /// just now.
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

    /// Returns a handle to the counters, usable while the server runs.
    pub fn stats(&self) -> StatsHandle {
        StatsHandle(self.shared.counters.clone())
    }

    /// Serves peers until the future is dropped. The future ends by itself only when the stream behaviour, all of its
    /// connections, and all of its [`Control`]s were dropped.
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
                // An empty set yields `None`, and is polled again after the next stream.
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

/// Counters of a server since its creation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerStats {
    /// Number of streams that were admitted.
    pub streams: u64,
    /// Number of streams that were refused because a limit was reached.
    pub refused_streams: u64,
    /// Number of requests for which data was read from the store to be sent.
    pub served: u64,
    /// Number of bytes that were sent: data, the hashes that prove it, and the heads of all responses.
    pub bytes: u64,
    /// Number of requests for blobs that are not in the store.
    pub not_found: u64,
    /// Number of requests that were refused because of a bandwidth limit.
    pub busy: u64,
    /// Number of invalid requests.
    pub invalid: u64,
    /// Number of requests for blobs that could not be read or were damaged.
    pub unreadable: u64,
}

/// Handle that reads the [`ServerStats`] of a server.
#[derive(Debug, Clone)]
pub struct StatsHandle(Arc<Counters>);

impl StatsHandle {
    /// Returns the current counters.
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

/// Encoded response: a head and what follows it.
struct Response {
    bytes: Vec<u8>,
    /// True if the stream ends after it.
    is_last: bool,
    /// Time before the next request of the stream is read.
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
        // Releases the stream, however it ends.
        let _admitted = Admitted { shared: &self, peer };
        self.answer_all(peer, stream).await;
    }

    /// Answers requests in order. The next response is prepared while the current one is sent.
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
                // `next` makes progress while the response is sent; its output is taken in the next round.
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

    /// Returns the response to the next request, which is read after the pause; `None` at the end of the stream.
    async fn next<R: AsyncRead + Unpin>(&self, peer: PeerId, mut read: R, pause: Duration) -> Option<(R, Response)> {
        self.pause(pause).await;
        let mut request = [0; REQUEST_LEN];
        read.read_exact(&mut request).await.ok()?;
        let Some(request) = Request::decode(&request) else {
            self.counters.invalid.fetch_add(1, Relaxed);
            return Some((read, Response::head(Head::Invalid)));
        };
        // Reserved before any work, for the largest possible response.
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
            // Room for the head, which contains the size and is filled in below.
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
            // It was read before it was found to be damaged.
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

    /// Returns `None` if the peer does not take the response in time.
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
