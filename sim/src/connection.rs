//! A connection of two hosts, and its substreams: pairs of queues of bytes, which arrive when the network says.

#![expect(clippy::indexing_slicing, reason = "the two ends of a connection have the numbers 0 and 1")]

use std::{
    collections::{BTreeMap, VecDeque},
    io, mem,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use futures::{AsyncRead, AsyncWrite};
use futures_timer::schedule;
use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};

use crate::network::{HostId, Network};

/// Bytes that may be under way or unread on one direction of a substream: yamux's first window.
const WINDOW: usize = 256 * 1024;

/// Bytes that an end of a connection may have written and not yet sent: the send buffer of a TCP socket.
const SEND_BUFFER: usize = 256 * 1024;

/// Longest packet: a segment or two of TCP, so that large messages arrive bit by bit without an event for each segment.
const MAX_PACKET: usize = 2 * 1024;

pub(crate) struct Connection {
    network: Network,
    hosts: [HostId; 2],
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    ends: [End; 2],
    /// Even numbers are opened by the first host, odd ones by the second.
    streams: BTreeMap<u64, [Half; 2]>,
    next_stream: [u64; 2],
    /// Nothing arrives any more, and nobody notices.
    is_silent: bool,
    /// Packets that arrived while the hosts were cut from each other.
    held: Vec<(usize, Packet)>,
}

/// The connection as one host sees it.
#[derive(Default)]
struct End {
    opened: VecDeque<u64>,
    accepting: Option<Waker>,
    polling: Option<Waker>,
    is_closed: bool,
    unsent: usize,
    last_arrival: u64,
    writing: Vec<Waker>,
}

/// A substream as one host sees it: its bytes to read.
#[derive(Default)]
struct Half {
    bytes: VecDeque<u8>,
    /// Bytes that the other host has written without credit for them.
    outstanding: usize,
    /// Bytes that this host has read and not yet given credit for.
    uncredited: usize,
    is_ended: bool,
    is_reset: bool,
    /// This host has dropped the substream.
    is_dropped: bool,
    /// This host has ended its own direction.
    has_ended: bool,
    reading: Option<Waker>,
    /// Waits for room in the other host's half.
    writing: Option<Waker>,
}

enum Packet {
    /// Room for this number of further bytes.
    Credit(u64, usize),
    Open(u64),
    Data(u64, Vec<u8>),
    End(u64),
    Reset(u64),
    Close,
}

impl Packet {
    fn len(&self) -> usize {
        match self {
            Self::Data(_, bytes) => bytes.len(),
            Self::Credit(_, _) | Self::Open(_) | Self::End(_) | Self::Reset(_) | Self::Close => 0,
        }
    }
}

fn closed() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

impl Connection {
    /// Creates a connection from one host to another.
    pub(crate) fn new(network: &Network, hosts: [HostId; 2]) -> Arc<Self> {
        let state = State { next_stream: [0, 1], ..State::default() };
        let connection = Arc::new(Self { network: network.clone(), hosts, state: Mutex::new(state) });
        network.register(&connection);
        connection
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn hosts(&self) -> [HostId; 2] {
        self.hosts
    }

    /// Lets nothing arrive any more, without a sign: a cable was pulled, or a host has another address.
    pub(crate) fn silence(&self) {
        self.lock().is_silent = true;
    }

    /// Closes the connection on both sides at once, as a firewall does.
    pub(crate) fn reset(&self) {
        for end in 0..2 {
            self.close(end);
        }
    }

    /// Delivers what was held while the hosts were cut from each other.
    pub(crate) fn flush(self: &Arc<Self>) {
        let held = mem::take(&mut self.lock().held);
        for (end, packet) in held {
            self.at_link(end, packet);
        }
    }

    /// Sends a packet from one end.
    fn send(self: &Arc<Self>, from: usize, packet: Packet) {
        // As yamux: after the end of a connection nothing is sent on it.
        if self.lock().ends[from].is_closed && !matches!(packet, Packet::Close) {
            return;
        }
        let (to, len) = (1 - from, packet.len());
        let (leaves, arrives) = self.network.send(self.hosts[from], self.hosts[to], len);
        let mut state = self.lock();
        let arrives = arrives.max(state.ends[to].last_arrival);
        state.ends[to].last_arrival = arrives;
        state.ends[from].unsent += len;
        drop(state);
        let connection = Arc::clone(self);
        if leaves > schedule::now().unwrap_or_default() && len > 0 {
            schedule::call_at(leaves, move || connection.sent(from, len));
        } else {
            connection.sent(from, len);
        }
        let connection = Arc::clone(self);
        schedule::call_at(arrives, move || connection.at_link(to, packet));
    }

    /// A packet has reached the link of a host. It takes bandwidth there unless it is lost or held up before.
    fn at_link(self: &Arc<Self>, to: usize, packet: Packet) {
        let Some(packet) = self.unless_lost_or_held(to, packet) else { return };
        let received = self.network.receive(self.hosts[to], packet.len());
        if received > schedule::now().unwrap_or_default() {
            let connection = Arc::clone(self);
            schedule::call_at(received, move || connection.arrive(to, packet));
        } else {
            self.deliver(to, packet);
        }
    }

    fn unless_lost_or_held(&self, to: usize, packet: Packet) -> Option<Packet> {
        let is_cut = self.network.is_cut(self.hosts[0], self.hosts[1]);
        let mut state = self.lock();
        if state.is_silent {
            return None;
        }
        if is_cut {
            state.held.push((to, packet));
            return None;
        }
        Some(packet)
    }

    fn sent(&self, from: usize, len: usize) {
        let mut state = self.lock();
        let end = &mut state.ends[from];
        end.unsent -= len;
        let writing = mem::take(&mut end.writing);
        drop(state);
        writing.into_iter().for_each(Waker::wake);
    }

    /// Ends everything that one host sees of the connection.
    fn close(&self, end: usize) {
        let mut state = self.lock();
        let State { ends, streams, .. } = &mut *state;
        let closing = &mut ends[end];
        closing.is_closed = true;
        let mut wakers = mem::take(&mut closing.writing);
        wakers.extend(closing.accepting.take());
        wakers.extend(closing.polling.take());
        for halves in streams.values_mut() {
            wakers.extend(halves[end].reading.take());
            wakers.extend(halves[end].writing.take());
        }
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    fn arrive(&self, to: usize, packet: Packet) {
        if let Some(packet) = self.unless_lost_or_held(to, packet) {
            self.deliver(to, packet);
        }
    }

    fn deliver(&self, to: usize, packet: Packet) {
        let mut state = self.lock();
        let State { ends, streams, .. } = &mut *state;
        let end = &mut ends[to];
        if end.is_closed {
            return;
        }
        let mut wakers = Vec::new();
        match packet {
            Packet::Open(stream) => {
                end.opened.push_back(stream);
                wakers.extend(end.accepting.take());
            }
            Packet::Close => {
                drop(state);
                return self.close(to);
            }
            Packet::Credit(stream, len) => {
                let Some(halves) = streams.get_mut(&stream) else { return };
                let [mine, other] = mine_and_other(halves, to);
                other.outstanding = other.outstanding.saturating_sub(len);
                wakers.extend(mine.writing.take());
            }
            Packet::Data(stream, _) | Packet::End(stream) | Packet::Reset(stream) => {
                // Both hosts may have dropped it.
                let Some(half) = streams.get_mut(&stream).map(|halves| &mut halves[to]) else { return };
                match packet {
                    Packet::Data(_, bytes) if !half.is_dropped => half.bytes.extend(bytes),
                    Packet::End(_) => half.is_ended = true,
                    Packet::Reset(_) => half.is_reset = true,
                    _ => {}
                }
                wakers.extend(half.reading.take());
                if half.is_reset {
                    wakers.extend(half.writing.take());
                }
            }
        }
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// One host's end of a connection.
pub(crate) struct Muxer {
    connection: Arc<Connection>,
    end: usize,
    has_closed: bool,
}

impl Muxer {
    pub(crate) fn new(connection: Arc<Connection>, end: usize) -> Self {
        Self { connection, end, has_closed: false }
    }

    fn close(&mut self) {
        if !mem::replace(&mut self.has_closed, true) {
            self.connection.send(self.end, Packet::Close);
            self.connection.close(self.end);
        }
    }
}

impl Drop for Muxer {
    fn drop(&mut self) {
        self.close();
    }
}

impl StreamMuxer for Muxer {
    type Substream = Substream;
    type Error = io::Error;

    fn poll_inbound(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<Substream>> {
        let mut state = self.connection.lock();
        let end = &mut state.ends[self.end];
        if let Some(stream) = end.opened.pop_front() {
            let connection = Arc::clone(&self.connection);
            return Poll::Ready(Ok(Substream { connection, end: self.end, stream }));
        }
        if end.is_closed {
            return Poll::Ready(Err(closed()));
        }
        end.accepting = Some(cx.waker().clone());
        Poll::Pending
    }

    fn poll_outbound(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<Substream>> {
        let mut state = self.connection.lock();
        if state.ends[self.end].is_closed {
            return Poll::Ready(Err(closed()));
        }
        let stream = state.next_stream[self.end];
        state.next_stream[self.end] += 2;
        state.streams.insert(stream, Default::default());
        drop(state);
        self.connection.send(self.end, Packet::Open(stream));
        Poll::Ready(Ok(Substream { connection: Arc::clone(&self.connection), end: self.end, stream }))
    }

    fn poll_close(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.close();
        Poll::Ready(Ok(()))
    }

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<StreamMuxerEvent>> {
        let mut state = self.connection.lock();
        let end = &mut state.ends[self.end];
        if end.is_closed {
            return Poll::Ready(Err(closed()));
        }
        end.polling = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// One host's end of a substream. Dropping it before either host has ended it resets it.
pub(crate) struct Substream {
    connection: Arc<Connection>,
    end: usize,
    stream: u64,
}

impl AsyncRead for Substream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut state = self.connection.lock();
        let State { ends, streams, .. } = &mut *state;
        let Some(halves) = streams.get_mut(&self.stream) else { return Poll::Ready(Ok(0)) };
        let [mine, _] = mine_and_other(halves, self.end);
        if !mine.bytes.is_empty() {
            let len = io::Read::read(&mut mine.bytes, buffer)?;
            mine.uncredited += len;
            // As yamux: credit is given for half a window at a time.
            let credit = if mine.uncredited >= WINDOW / 2 { mem::take(&mut mine.uncredited) } else { 0 };
            drop(state);
            if credit > 0 {
                self.connection.send(self.end, Packet::Credit(self.stream, credit));
            }
            return Poll::Ready(Ok(len));
        }
        // As yamux: a reader does not learn why there is no more.
        if mine.is_ended || mine.is_reset || ends[self.end].is_closed {
            return Poll::Ready(Ok(0));
        }
        mine.reading = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl AsyncWrite for Substream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.connection.lock();
        let State { ends, streams, .. } = &mut *state;
        let Some(halves) = streams.get_mut(&self.stream) else { return Poll::Ready(Err(closed())) };
        let [mine, other] = mine_and_other(halves, self.end);
        if mine.is_reset || mine.has_ended || ends[self.end].is_closed {
            return Poll::Ready(Err(closed()));
        }
        if ends[self.end].unsent >= SEND_BUFFER {
            ends[self.end].writing.push(cx.waker().clone());
            return Poll::Pending;
        }
        let len = bytes.len().min(MAX_PACKET).min(WINDOW.saturating_sub(other.outstanding));
        if len == 0 && !bytes.is_empty() {
            mine.writing = Some(cx.waker().clone());
            return Poll::Pending;
        }
        other.outstanding += len;
        drop(state);
        self.connection.send(self.end, Packet::Data(self.stream, bytes[..len].to_vec()));
        Poll::Ready(Ok(len))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.connection.lock();
        let Some(halves) = state.streams.get_mut(&self.stream) else { return Poll::Ready(Ok(())) };
        let has_ended = mem::replace(&mut halves[self.end].has_ended, true);
        drop(state);
        if !has_ended {
            self.connection.send(self.end, Packet::End(self.stream));
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Substream {
    fn drop(&mut self) {
        let mut state = self.connection.lock();
        let Some(halves) = state.streams.get_mut(&self.stream) else { return };
        let [mine, other] = mine_and_other(halves, self.end);
        mine.is_dropped = true;
        mine.bytes = VecDeque::new();
        // As yamux: a substream that the other host has ended is ended, and one that this host has ended needs nothing.
        let packet = match (mine.is_ended, mine.has_ended) {
            _ if mine.is_reset => None,
            (_, true) => None,
            (true, false) => Some(Packet::End(self.stream)),
            (false, false) => Some(Packet::Reset(self.stream)),
        };
        if other.is_dropped {
            state.streams.remove(&self.stream);
        }
        drop(state);
        if let Some(packet) = packet {
            self.connection.send(self.end, packet);
        }
    }
}

fn mine_and_other(halves: &mut [Half; 2], end: usize) -> [&mut Half; 2] {
    let [first, second] = halves;
    if end == 0 { [first, second] } else { [second, first] }
}
