//! The transports under test, and helper functions.

use std::{future::Future, net::UdpSocket, pin::Pin, time::Duration};

use async_io::Timer;
use futures::{
    future::{self, Either, poll_fn},
    join,
};
use libp2p::{
    Multiaddr, PeerId,
    core::{
        Endpoint, StreamMuxer, Transport,
        muxing::{StreamMuxerBox, SubstreamBox},
        transport::{Boxed, DialOpts, ListenerId, PortUse, TransportEvent},
    },
    identity::Keypair,
    multiaddr::Protocol,
};
use libp2p_async_io::quic;

/// Upper bound for anything that has to happen, also on a loaded machine.
const DEADLINE: Duration = Duration::from_secs(30);

/// Time that a test waits for nothing to happen.
pub const SHORT: Duration = Duration::from_millis(200);

pub const LOOPBACK: &str = "/ip4/127.0.0.1/udp/0/quic-v1";
pub const LOOPBACK_6: &str = "/ip6/::1/udp/0/quic-v1";

pub type Node = Boxed<(PeerId, StreamMuxerBox)>;

/// A QUIC transport, with everything but peers and streams hidden.
pub trait Subject: 'static {
    fn node(keypair: &Keypair, max_streams: u32) -> Node;
}

pub struct Ours;

impl Subject for Ours {
    fn node(keypair: &Keypair, max_streams: u32) -> Node {
        let config = quic::Config::new(keypair).unwrap().max_concurrent_streams(max_streams);
        quic::Transport::new(config).map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection))).boxed()
    }
}

pub struct Libp2p;

impl Subject for Libp2p {
    fn node(keypair: &Keypair, max_streams: u32) -> Node {
        let mut config = libp2p_quic::Config::new(keypair);
        config.max_concurrent_stream_limit = max_streams;
        libp2p_quic::tokio::Transport::new(config)
            .map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection)))
            .boxed()
    }
}

/// Returns the transport of this crate, with a random key pair.
pub fn ours() -> quic::Transport {
    quic::Transport::new(config())
}

pub fn config() -> quic::Config {
    quic::Config::new(&Keypair::generate_ed25519()).unwrap()
}

pub fn on_tokio(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap().block_on(test);
}

pub async fn within<F: Future>(what: F) -> F::Output {
    match future::select(Box::pin(what), Timer::after(DEADLINE)).await {
        Either::Left((output, _)) => output,
        Either::Right(_) => panic!("nothing happened for {DEADLINE:?}"),
    }
}

pub type Event<T> = TransportEvent<<T as Transport>::ListenerUpgrade, <T as Transport>::Error>;

pub async fn next<T: Transport + Unpin>(transport: &mut T) -> Event<T> {
    within(poll_fn(|cx| Pin::new(&mut *transport).poll(cx))).await
}

pub fn opts(port_use: PortUse) -> DialOpts {
    DialOpts { role: Endpoint::Dialer, port_use }
}

pub fn port(addr: &Multiaddr) -> u16 {
    let port = addr.iter().find_map(|part| if let Protocol::Udp(port) = part { Some(port) } else { None });
    port.unwrap()
}

/// Listens, and waits for the first address.
pub async fn listen<T: Transport + Unpin>(transport: &mut T, addr: &str) -> (ListenerId, Multiaddr) {
    let id = ListenerId::next();
    transport.listen_on(id, addr.parse().unwrap()).unwrap();
    match next(transport).await {
        TransportEvent::NewAddress { listener_id, listen_addr } => {
            assert_eq!(listener_id, id);
            (id, listen_addr)
        }
        event => panic!("instead of an address: {event:?}"),
    }
}

/// A connection: the dialler's end, the listener's end, and where it came from.
pub struct Connected<D, L> {
    pub dialled: D,
    pub accepted: L,
    pub local_addr: Multiaddr,
    pub send_back_addr: Multiaddr,
}

pub async fn connect<D: Transport, L: Transport + Unpin>(
    dialler: &mut D,
    listener: &mut L,
    addr: Multiaddr,
    port_use: PortUse,
) -> Connected<D::Output, L::Output> {
    let dial = dialler.dial(addr, opts(port_use)).unwrap();
    let accept = async {
        loop {
            match next(listener).await {
                TransportEvent::Incoming { upgrade, local_addr, send_back_addr, .. } => {
                    return (upgrade.await.unwrap(), local_addr, send_back_addr);
                }
                TransportEvent::NewAddress { .. } => {}
                event => panic!("instead of a connection: {event:?}"),
            }
        }
    };
    let (dialled, (accepted, local_addr, send_back_addr)) = within(future::join(dial, accept)).await;
    Connected { dialled: dialled.unwrap(), accepted, local_addr, send_back_addr }
}

pub async fn inbound<M: StreamMuxer + Unpin>(muxer: &mut M) -> Result<M::Substream, M::Error> {
    within(poll_fn(|cx| Pin::new(&mut *muxer).poll_inbound(cx))).await
}

pub async fn outbound<M: StreamMuxer + Unpin>(muxer: &mut M) -> Result<M::Substream, M::Error> {
    within(poll_fn(|cx| Pin::new(&mut *muxer).poll_outbound(cx))).await
}

pub async fn close<M: StreamMuxer + Unpin>(muxer: &mut M) -> Result<(), M::Error> {
    within(poll_fn(|cx| Pin::new(&mut *muxer).poll_close(cx))).await
}

/// Both ends of a connection.
pub type Pair = (StreamMuxerBox, StreamMuxerBox);

pub async fn pair<D: Subject, L: Subject>(max_streams: u32) -> Pair {
    let mut dialler = D::node(&Keypair::generate_ed25519(), max_streams);
    let mut listener = L::node(&Keypair::generate_ed25519(), max_streams);
    let (_, addr) = listen(&mut listener, LOOPBACK).await;
    let connected = connect(&mut dialler, &mut listener, addr, PortUse::Reuse).await;
    (connected.dialled.1, connected.accepted.1)
}

/// Opens a stream from one end to the other, which learns of it with the first byte.
pub async fn stream(from: &mut StreamMuxerBox, to: &mut StreamMuxerBox) -> (SubstreamBox, SubstreamBox) {
    use futures::{AsyncReadExt, AsyncWriteExt};
    let open = async {
        let mut stream = outbound(from).await.unwrap();
        stream.write_all(b"!").await.unwrap();
        stream
    };
    let accept = async {
        let mut stream = inbound(to).await.unwrap();
        stream.read_exact(&mut [0]).await.unwrap();
        stream
    };
    within(async { join!(open, accept) }).await
}

/// Returns whether this machine has IPv6, and prints that the test is skipped if not.
pub fn ipv6() -> bool {
    let bound = UdpSocket::bind("[::1]:0");
    if let Err(error) = &bound {
        println!("skipped: no IPv6 here ({error})");
    }
    bound.is_ok()
}

/// Returns a socket that never responds, and its address.
pub fn silent() -> (UdpSocket, Multiaddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    let port = socket.local_addr().unwrap().port();
    (socket, format!("/ip4/127.0.0.1/udp/{port}/quic-v1").parse().unwrap())
}
