//! Notices bytes of responses as they arrive. kad's handlers report whole messages alone, so that is done below them: in
//! the substreams, and below the encryption, which passes on blocks of up to 64 KiB.

use std::{
    cell::Cell,
    fmt,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use futures_io::{AsyncRead, AsyncWrite};
use libp2p::{
    PeerId, StreamProtocol, Transport,
    core::{
        StreamMuxer,
        muxing::{StreamMuxerBox, StreamMuxerEvent, SubstreamBox},
        transport::Boxed,
    },
};
use rustc_hash::FxHashMap;

/// Bytes of a substream in which the confirmation of its protocol is looked for. A substream that begins with more is not
/// kad's: a confirmation and what goes before it take less than a hundred.
const MAX_NEGOTIATION: usize = 1024;

/// Bytes that a connection has received, and that no stream has, above which a part of a large block has arrived. Pings,
/// acknowledgements and other small messages are complete when they arrive.
const LARGE_BLOCK: u64 = 1024;

thread_local! {
    /// Bytes that were read from counted streams while a connection is polled.
    static READ: Cell<u64> = const { Cell::new(0) };
}

/// Notices the bytes of kad's responses as they arrive, so that a [`PeerTimeouts`](crate::PeerTimeouts) does not give up a
/// peer in the middle of a large response. Clones share what they notice.
///
/// Give the same one to the swarm's transport ([`watch`](Self::watch)) and to the behaviour
/// ([`PeerTimeouts::with_progress`](crate::PeerTimeouts::with_progress)). Only streams that this node has opened, and on
/// which the remote has confirmed one of the protocols, matter: a peer that sends pings or requests and answers no request
/// makes no progress. The default has no protocols, and notices nothing.
///
/// Noise passes on blocks of up to 64 KiB, each when it is complete. For a response that takes long to arrive, wrap the
/// connections below it in [`CountedStream`], too.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use libp2p::{
///     StreamProtocol, Transport,
///     core::{transport::MemoryTransport, upgrade::Version},
///     identity::Keypair,
///     kad, noise, yamux,
/// };
/// use libp2p_kad_timeouts::{CountedStream, PeerTimeoutConfig, PeerTimeouts, ResponseProgress};
///
/// let keypair = Keypair::generate_ed25519();
/// let local_peer_id = keypair.public().to_peer_id();
/// let protocol = StreamProtocol::new("/my-network/kad/1.0.0");
/// let progress = ResponseProgress::new([protocol.clone()]);
///
/// // For the swarm.
/// let transport = MemoryTransport::default()
///     .map(|stream, _| CountedStream::new(stream))
///     .upgrade(Version::V1)
///     .authenticate(noise::Config::new(&keypair)?)
///     .multiplex(yamux::Config::default())
///     .boxed();
/// let transport = progress.watch(transport);
///
/// // For its behaviour.
/// let store = kad::store::MemoryStore::new(local_peer_id);
/// let kad = kad::Behaviour::with_config(local_peer_id, store, kad::Config::new(protocol));
/// let timeouts = PeerTimeouts::new(kad, PeerTimeoutConfig::default()).with_progress(progress);
/// # drop((transport, timeouts));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
pub struct ResponseProgress(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// Lines that confirm one of the protocols.
    confirmations: Vec<Vec<u8>>,
    /// Number of things that were noticed: an order without a clock.
    last: AtomicU64,
    /// Moment at which a further piece of a response arrived last, of any peer.
    piece: AtomicU64,
    responses: Mutex<Responses>,
}

#[derive(Default)]
struct Responses {
    /// Those that are awaited or arriving. Peers without any have no entry.
    of_peers: FxHashMap<PeerId, Vec<Arc<Response>>>,
    /// Those of which bytes have arrived. A response that comes in one piece leaves at once, because kad drops the stream.
    arriving: Vec<Arc<Response>>,
    /// Blocks that the connections of a peer receive.
    blocks: FxHashMap<PeerId, Vec<Arc<Block>>>,
}

/// The block that a connection receives.
#[derive(Debug, Default)]
struct Block {
    /// Bytes since a stream has received any.
    len: AtomicU64,
    /// Moment at which bytes of a large block arrived last.
    moved: AtomicU64,
}

/// A response on a substream, from the confirmation of the protocol to the end of the substream.
#[derive(Debug)]
struct Response {
    confirmed: Moment,
    /// Moment at which bytes arrived last; zero before the first.
    moved: AtomicU64,
}

impl Response {
    fn moved(&self) -> Moment {
        Moment(self.moved.load(Relaxed))
    }
}

/// A position in the order of all that was noticed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(u64);

impl ResponseProgress {
    /// Notices responses on streams of the given protocols, which are those of [`kad::Config`](libp2p::kad::Config).
    pub fn new(protocols: impl IntoIterator<Item = StreamProtocol>) -> Self {
        let confirmation = |protocol: StreamProtocol| {
            let line = [protocol.as_ref().as_bytes(), b"\n"].concat();
            // Its length comes first, so that it is not the end of another one. A long one has two bytes of it.
            let len = u8::try_from(line.len()).ok().filter(|len| *len < 128);
            len.into_iter().chain(line).collect()
        };
        let confirmations = protocols.into_iter().map(confirmation).collect();
        Self(Arc::new(Shared { confirmations, ..Shared::default() }))
    }

    /// Returns a transport whose connections are watched.
    pub fn watch(&self, transport: Boxed<(PeerId, StreamMuxerBox)>) -> Boxed<(PeerId, StreamMuxerBox)> {
        let progress = self.clone();
        let watched = move |(peer, connection), _| {
            (peer, StreamMuxerBox::new(WatchedConnection::new(connection, peer, progress.clone())))
        };
        transport.map(watched).boxed()
    }

    /// Returns the current moment.
    pub(crate) fn now(&self) -> Moment {
        Moment(self.0.last.load(Relaxed))
    }

    /// Returns whether bytes have arrived from a peer since `seen`, of a response whose stream was opened after `sent`.
    pub(crate) fn has_moved(&self, peer: &PeerId, sent: Moment, seen: Moment) -> bool {
        let responses = self.0.responses();
        let of_peer = responses.of_peers.get(peer).map(Vec::as_slice).unwrap_or_default();
        let blocks = responses.blocks.get(peer).map(Vec::as_slice).unwrap_or_default();
        let has_block = blocks.iter().any(|block| Moment(block.moved.load(Relaxed)) > seen);
        of_peer.iter().any(|response| response.confirmed > sent && (has_block || response.moved() > seen))
    }

    /// Returns whether a response of any peer that arrives in pieces has had bytes since `seen`, complete or not.
    pub(crate) fn had_piece(&self, seen: Moment) -> bool {
        Moment(self.0.piece.load(Relaxed)) > seen
    }

    /// Returns whether a response of any peer has had bytes since `seen` and is not complete: others may wait behind it for
    /// the same link.
    pub(crate) fn is_link_busy(&self, seen: Moment) -> bool {
        self.0.responses().arriving.iter().any(|response| response.moved() > seen)
    }
}

impl fmt::Debug for ResponseProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseProgress").field("now", &self.now()).finish_non_exhaustive()
    }
}

impl Shared {
    fn responses(&self) -> MutexGuard<'_, Responses> {
        self.responses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn notice(&self) -> Moment {
        Moment(self.last.fetch_add(1, Relaxed) + 1)
    }

    /// Returns the length of what was received up to the end of a confirmation.
    fn confirmed(&self, received: &[u8]) -> Option<usize> {
        let end_of = |confirmation: &Vec<u8>| {
            let begins = received.windows(confirmation.len()).position(|part| part == confirmation.as_slice())?;
            Some(begins + confirmation.len())
        };
        self.confirmations.iter().find_map(end_of)
    }
}

struct WatchedConnection {
    inner: StreamMuxerBox,
    peer: PeerId,
    block: Arc<Block>,
    progress: ResponseProgress,
}

impl WatchedConnection {
    fn new(inner: StreamMuxerBox, peer: PeerId, progress: ResponseProgress) -> Self {
        let block = Arc::new(Block::default());
        progress.0.responses().blocks.entry(peer).or_default().push(Arc::clone(&block));
        Self { inner, peer, block, progress }
    }

    /// Polls the connection, and notices the bytes that it reads.
    fn poll_inner<T>(&mut self, poll: impl FnOnce(Pin<&mut StreamMuxerBox>) -> T) -> T {
        let outside = READ.replace(0);
        let result = poll(Pin::new(&mut self.inner));
        let read = READ.replace(outside);
        // A message that came whole is taken by a stream before the next poll.
        if read > 0
            && self.block.len.fetch_add(read, Relaxed) >= LARGE_BLOCK
            && self.progress.0.responses().of_peers.contains_key(&self.peer)
        {
            let Moment(now) = self.progress.0.notice();
            self.block.moved.store(now, Relaxed);
            self.progress.0.piece.store(now, Relaxed);
        }
        result
    }

    fn stream(&self, inner: SubstreamBox, state: State) -> WatchedStream {
        WatchedStream { inner, block: Arc::clone(&self.block), state }
    }
}

impl Drop for WatchedConnection {
    fn drop(&mut self) {
        let mut responses = self.progress.0.responses();
        if let Some(blocks) = responses.blocks.get_mut(&self.peer) {
            blocks.retain(|block| !Arc::ptr_eq(block, &self.block));
            if blocks.is_empty() {
                responses.blocks.remove(&self.peer);
            }
        }
    }
}

impl StreamMuxer for WatchedConnection {
    type Substream = WatchedStream;
    type Error = <StreamMuxerBox as StreamMuxer>::Error;

    fn poll_inbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Self::Substream, Self::Error>> {
        let inner = ready!(self.poll_inner(|inner| inner.poll_inbound(cx)))?;
        // The peer's own request, which says nothing about its responses.
        Poll::Ready(Ok(self.stream(inner, State::Other)))
    }

    fn poll_outbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Self::Substream, Self::Error>> {
        let inner = ready!(self.poll_inner(|inner| inner.poll_outbound(cx)))?;
        let state = State::Negotiating { received: Vec::new(), peer: self.peer, progress: self.progress.clone() };
        Poll::Ready(Ok(self.stream(inner, state)))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.poll_inner(|inner| inner.poll_close(cx))
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<StreamMuxerEvent, Self::Error>> {
        self.poll_inner(|inner| inner.poll(cx))
    }
}

/// Connection below its encryption, whose bytes a [`ResponseProgress`] notices as they arrive.
#[derive(Debug)]
pub struct CountedStream<S>(S);

impl<S> CountedStream<S> {
    /// Wraps a connection.
    pub fn new(stream: S) -> Self {
        Self(stream)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for CountedStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<std::io::Result<usize>> {
        let read = ready!(Pin::new(&mut self.0).poll_read(cx, buf))?;
        READ.set(READ.get() + read as u64);
        Poll::Ready(Ok(read))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for CountedStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_close(cx)
    }
}

struct WatchedStream {
    inner: SubstreamBox,
    /// That of the connection.
    block: Arc<Block>,
    state: State,
}

enum State {
    /// The remote has not confirmed a protocol yet.
    Negotiating {
        received: Vec<u8>,
        peer: PeerId,
        progress: ResponseProgress,
    },
    Response(Receiving),
    Other,
}

/// Is in the list of its peer for as long as it exists.
pub(crate) struct Receiving {
    response: Arc<Response>,
    peer: PeerId,
    progress: ResponseProgress,
}

impl Receiving {
    pub(crate) fn begin(peer: PeerId, progress: ResponseProgress) -> Self {
        let response = Arc::new(Response { confirmed: progress.0.notice(), moved: AtomicU64::new(0) });
        progress.0.responses().of_peers.entry(peer).or_default().push(Arc::clone(&response));
        Self { response, peer, progress }
    }

    pub(crate) fn moved(&self) {
        let Moment(now) = self.progress.0.notice();
        if self.response.moved.swap(now, Relaxed) == 0 {
            self.progress.0.responses().arriving.push(Arc::clone(&self.response));
        } else {
            self.progress.0.piece.store(now, Relaxed);
        }
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        let is_other = |other: &Arc<Response>| !Arc::ptr_eq(other, &self.response);
        let mut responses = self.progress.0.responses();
        if let Some(of_peer) = responses.of_peers.get_mut(&self.peer) {
            of_peer.retain(is_other);
            if of_peer.is_empty() {
                responses.of_peers.remove(&self.peer);
            }
        }
        if self.response.moved() > Moment::default() {
            responses.arriving.retain(is_other);
        }
    }
}

impl State {
    fn received(&mut self, bytes: &[u8]) {
        match self {
            Self::Other => {}
            Self::Response(receiving) => receiving.moved(),
            Self::Negotiating { received, peer, progress } => {
                received.extend_from_slice(bytes);
                if let Some(end) = progress.0.confirmed(received) {
                    let receiving = Receiving::begin(*peer, progress.clone());
                    if received.len() > end {
                        receiving.moved();
                    }
                    *self = Self::Response(receiving);
                } else if received.len() > MAX_NEGOTIATION {
                    *self = Self::Other;
                }
            }
        }
    }
}

impl AsyncRead for WatchedStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<std::io::Result<usize>> {
        let read = ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        if let Some(bytes) = buf.get(..read).filter(|bytes| !bytes.is_empty()) {
            self.block.len.store(0, Relaxed);
            self.state.received(bytes);
        }
        Poll::Ready(Ok(read))
    }
}

impl AsyncWrite for WatchedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(cx)
    }
}

#[cfg(test)]
mod tests {
    use futures::{
        AsyncReadExt, FutureExt,
        io::{Cursor, Error},
        task::noop_waker,
    };

    use super::*;

    /// Bytes that a remote sends before a response.
    const NEGOTIATION: &[u8] = b"\x13/multistream/1.0.0\n\x0e/kad-test/1.0\n";

    fn progress() -> ResponseProgress {
        ResponseProgress::new([StreamProtocol::new("/kad-test/1.0")])
    }

    /// Returns a stream that this node has opened to a peer, and that receives these bytes.
    fn opened(progress: &ResponseProgress, peer: PeerId, bytes: &[u8]) -> WatchedStream {
        let state = State::Negotiating { received: Vec::new(), peer, progress: progress.clone() };
        let inner = SubstreamBox::new(Cursor::new(bytes.to_vec()));
        WatchedStream { inner, block: Arc::default(), state }
    }

    fn receive(stream: &mut WatchedStream, len: usize) {
        let mut buf = vec![0; len];
        stream.read_exact(&mut buf).now_or_never().unwrap().unwrap();
    }

    fn has_moved(progress: &ResponseProgress, peer: &PeerId, seen: Moment) -> bool {
        progress.has_moved(peer, Moment::default(), seen)
    }

    #[test]
    fn bytes_after_the_confirmation_are_progress_until_the_stream_ends() {
        let (progress, peer, other) = (progress(), PeerId::random(), PeerId::random());
        let mut stream = opened(&progress, peer, &[NEGOTIATION, &[7; 100]].concat());
        receive(&mut stream, NEGOTIATION.len());
        assert!(!has_moved(&progress, &peer, Moment::default()), "a silent peer confirms the protocol, too");
        receive(&mut stream, 50);
        assert!(has_moved(&progress, &peer, Moment::default()));
        assert!(!has_moved(&progress, &other, Moment::default()));
        let seen = progress.now();
        assert!(!has_moved(&progress, &peer, seen));
        assert!(!progress.had_piece(Moment::default()), "one piece may be all of it");
        receive(&mut stream, 50);
        assert!(has_moved(&progress, &peer, seen) && progress.is_link_busy(seen) && progress.had_piece(seen));
        drop(stream);
        assert!(!has_moved(&progress, &peer, seen) && !progress.is_link_busy(seen));
        assert!(progress.had_piece(seen) && !progress.had_piece(progress.now()));
        let responses = progress.0.responses();
        assert!(responses.of_peers.is_empty() && responses.arriving.is_empty());
    }

    #[test]
    fn a_confirmation_may_come_in_parts_and_with_the_response() {
        let (progress, peer) = (progress(), PeerId::random());
        let mut stream = opened(&progress, peer, &[NEGOTIATION, &[7; 10]].concat());
        for _ in 0..NEGOTIATION.len() / 5 {
            receive(&mut stream, 5);
        }
        assert!(!has_moved(&progress, &peer, Moment::default()));
        receive(&mut stream, NEGOTIATION.len() % 5 + 10);
        assert!(has_moved(&progress, &peer, Moment::default()));
    }

    #[test]
    fn a_response_says_nothing_about_a_request_that_was_sent_after_its_stream_was_opened() {
        let (progress, peer) = (progress(), PeerId::random());
        let mut stream = opened(&progress, peer, &[NEGOTIATION, &[7; 10]].concat());
        receive(&mut stream, NEGOTIATION.len());
        let sent = progress.now();
        receive(&mut stream, 10);
        assert!(!progress.has_moved(&peer, sent, sent));
    }

    #[test]
    fn a_protocol_that_ends_alike_is_another_one() {
        let (progress, peer) = (progress(), PeerId::random());
        let mut stream = opened(&progress, peer, &[b"\x12/lan/kad-test/1.0\n".as_slice(), &[7; 100]].concat());
        receive(&mut stream, 100);
        assert!(!has_moved(&progress, &peer, Moment::default()));
    }

    #[test]
    fn streams_of_other_protocols_are_no_progress() {
        let (progress, peer) = (progress(), PeerId::random());
        let mut stream = opened(&progress, peer, &[b"/ping\n".as_slice(), &[7; 5000]].concat());
        receive(&mut stream, 5000);
        assert!(matches!(stream.state, State::Other));
        assert!(!has_moved(&progress, &peer, Moment::default()));
    }

    /// Connection that receives what a counted stream has, some bytes at each poll, and passes nothing on.
    struct Receiver {
        stream: CountedStream<Cursor<Vec<u8>>>,
        len: usize,
    }

    impl StreamMuxer for Receiver {
        type Substream = Cursor<Vec<u8>>;
        type Error = Error;

        fn poll_inbound(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<Self::Substream, Error>> {
            Poll::Pending
        }

        fn poll_outbound(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<Self::Substream, Error>> {
            Poll::Pending
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
            Poll::Ready(Ok(()))
        }

        fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<StreamMuxerEvent, Error>> {
            let mut buf = vec![0; self.len];
            let _read = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buf))?;
            Poll::Pending
        }
    }

    #[test]
    fn a_part_of_a_large_block_is_progress_while_a_response_is_awaited() {
        let (progress, peer) = (progress(), PeerId::random());
        let receiver = Receiver { stream: CountedStream::new(Cursor::new(vec![7; 64 * 1024])), len: 400 };
        let mut connection = WatchedConnection::new(StreamMuxerBox::new(receiver), peer, progress.clone());
        let waker = noop_waker();
        let mut arrive = || {
            let _pending = Pin::new(&mut connection).poll(&mut Context::from_waker(&waker));
        };
        let mut stream = opened(&progress, peer, &[NEGOTIATION, &[7; 10]].concat());
        receive(&mut stream, NEGOTIATION.len());
        (0..3).for_each(|_| arrive());
        assert!(!has_moved(&progress, &peer, Moment::default()), "so much may be complete");
        arrive();
        assert!(has_moved(&progress, &peer, Moment::default()) && progress.had_piece(Moment::default()));
        drop(stream);
        assert!(!has_moved(&progress, &peer, Moment::default()), "nobody waits for it");
        drop(connection);
        assert!(progress.0.responses().blocks.is_empty());
    }

    #[test]
    fn what_streams_receive_was_no_part_of_a_larger_block() {
        let (progress, peer) = (progress(), PeerId::random());
        let receiver = Receiver { stream: CountedStream::new(Cursor::new(vec![7; 64 * 1024])), len: 2000 };
        let mut connection = WatchedConnection::new(StreamMuxerBox::new(receiver), peer, progress.clone());
        let mut request = connection.stream(SubstreamBox::new(Cursor::new(vec![7; 50_000])), State::Other);
        let _awaited = Receiving::begin(peer, progress.clone());
        let waker = noop_waker();
        for _ in 0..10 {
            let _pending = Pin::new(&mut connection).poll(&mut Context::from_waker(&waker));
            receive(&mut request, 1900);
        }
        assert!(!progress.had_piece(Moment::default()) && !has_moved(&progress, &peer, Moment::default()));
    }
}
