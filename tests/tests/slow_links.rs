//! Large values over slow links on loopback TCP, on tokio and smol. Each link is a limit for the bytes that a node's sockets
//! read or write, below the encryption, as the network's is. `sim/examples/slow_links.rs` has more rates in virtual time.

#![cfg(test)]

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use futures::{AsyncRead, AsyncWrite, FutureExt, future::BoxFuture};
use kadence_smol::SmolRuntime;
use kadence_tokio::{
    TokioRuntime,
    kadence::node::{Node, NodeConfig, NodeError, upgrade},
};
use libp2p::{Transport, kad::Record, swarm::dummy};
use smol::Timer;

const LONG: Duration = Duration::from_secs(30);

/// Length of the values.
const LEN: usize = 60_000;

/// Bytes that pass a link at a time: a segment of TCP.
const SEGMENT: usize = 1400;

/// Link of a node, which all its connections share.
#[derive(Debug, Clone, Default)]
struct Link {
    down: Option<Rate>,
    up: Option<Rate>,
}

#[derive(Debug, Clone)]
struct Rate {
    bytes_per_second: f64,
    /// Time at which the link has passed all that it was given.
    free: Arc<Mutex<Instant>>,
}

impl Rate {
    fn bits_per_second(bits: u32) -> Self {
        Self { bytes_per_second: f64::from(bits) / 8.0, free: Arc::new(Mutex::new(Instant::now())) }
    }

    /// Waits until these bytes have passed.
    fn pass(&self, len: usize) -> Timer {
        let mut free = self.free.lock().unwrap();
        *free = (*free).max(Instant::now()) + Duration::from_secs_f64(len as f64 / self.bytes_per_second);
        Timer::at(*free)
    }
}

/// Socket at a link.
struct AtLink<S> {
    socket: S,
    link: Link,
    /// Bytes that were read, and the time at which they have passed the link.
    arriving: Option<(Vec<u8>, Timer)>,
    /// Time at which the bytes that were written have passed the link.
    leaving: Option<Timer>,
}

impl<S: AsyncRead + Unpin> AsyncRead for AtLink<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let Some(rate) = &this.link.down else { return Pin::new(&mut this.socket).poll_read(cx, buf) };
        if this.arriving.is_none() {
            let mut segment = vec![0; buf.len().min(SEGMENT)];
            let read = ready!(Pin::new(&mut this.socket).poll_read(cx, &mut segment))?;
            if read == 0 {
                return Poll::Ready(Ok(0));
            }
            segment.truncate(read);
            this.arriving = Some((segment, rate.pass(read)));
        }
        let (segment, passed) = this.arriving.as_mut().unwrap();
        ready!(passed.poll_unpin(cx));
        let read = segment.len().min(buf.len());
        buf[..read].copy_from_slice(&segment[..read]);
        segment.drain(..read);
        if segment.is_empty() {
            this.arriving = None;
        }
        Poll::Ready(Ok(read))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for AtLink<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let Some(rate) = &this.link.up else { return Pin::new(&mut this.socket).poll_write(cx, buf) };
        if let Some(passed) = &mut this.leaving {
            ready!(passed.poll_unpin(cx));
            this.leaving = None;
        }
        let written = ready!(Pin::new(&mut this.socket).poll_write(cx, &buf[..buf.len().min(SEGMENT)]))?;
        this.leaving = Some(rate.pass(written));
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_close(cx)
    }
}

type Start = fn(NodeConfig, Link) -> BoxFuture<'static, Result<Node, NodeError>>;

fn tokio_node(config: NodeConfig, link: Link) -> BoxFuture<'static, Result<Node, NodeError>> {
    let tcp = libp2p::tcp::tokio::Transport::new(libp2p::tcp::Config::default().nodelay(true));
    let tcp = tcp.map(move |socket, _| AtLink { socket, link, arriving: None, leaving: None });
    let runtime = TokioRuntime::current().unwrap();
    Node::start(runtime, config, |keypair| upgrade(tcp, keypair), |_| dummy::Behaviour).boxed()
}

fn smol_node(config: NodeConfig, link: Link) -> BoxFuture<'static, Result<Node, NodeError>> {
    let tcp = libp2p_async_io::tcp::Transport::new(libp2p_async_io::tcp::Config::default());
    let tcp = tcp.map(move |socket, _| AtLink { socket, link, arriving: None, leaving: None });
    Node::start(SmolRuntime::default(), config, |keypair| upgrade(tcp, keypair), |_| dummy::Behaviour).boxed()
}

kadence_tests::on_tokio_and_smol! {
    large_values_are_read_over_a_slow_downlink,
    large_values_are_put_over_a_slow_uplink,
}

/// Starts nodes that know each other.
async fn network(start: Start, number: usize) -> Vec<Node> {
    let mut nodes: Vec<Node> = Vec::new();
    for _ in 0..number {
        let known = nodes.first().map(Node::listen_addrs).unwrap_or_default();
        let config = NodeConfig::default().listen(["/ip4/127.0.0.1/tcp/0".parse().unwrap()]).bootstrap_peers(known);
        nodes.push(start(config, Link::default()).await.unwrap());
    }
    for node in &nodes[1..] {
        node.ready(LONG).await.unwrap();
        node.client().bootstrap().await.unwrap();
    }
    nodes
}

/// Starts a node on a link that knows all others, and waits until it has looked around.
async fn node_at(start: Start, link: Link, others: &[Node]) -> Node {
    let config = NodeConfig::default().bootstrap_peers(others.iter().flat_map(Node::listen_addrs));
    let node = start(config, link).await.unwrap();
    node.ready(LONG).await.unwrap();
    node.client().bootstrap().timeout(LONG).await.unwrap();
    node
}

fn record(key: u8) -> Record {
    Record::new(vec![key], vec![7; LEN])
}

/// One of eight nodes has the records. Each takes a second to arrive, ten times as long as a response usually takes.
async fn large_values_are_read_over_a_slow_downlink(start: Start) {
    let nodes = network(start, 8).await;
    for key in 0..3 {
        nodes[1].client().put_record_to(record(key), [nodes[0].local_peer_id()]).await.unwrap();
    }
    let link = Link { down: Some(Rate::bits_per_second(512_000)), up: None };
    let reader = node_at(start, link, &nodes).await;
    for key in 0..3 {
        let got = reader.client().get_record(vec![key]).timeout(LONG).await;
        assert_eq!(got.map(|got| got.value().len()).map_err(|error| format!("get {key}: {error}")), Ok(LEN));
    }
}

/// Twenty copies of 60 kB take more than two seconds.
async fn large_values_are_put_over_a_slow_uplink(start: Start) {
    let nodes = network(start, 24).await;
    let link = Link { down: None, up: Some(Rate::bits_per_second(4_000_000)) };
    let writer = node_at(start, link, &nodes).await;
    for key in 0..2 {
        let put = writer.client().put_record(record(key)).timeout(LONG).await;
        assert!(put.is_ok(), "put {key}: {}", put.unwrap_err());
    }
}
