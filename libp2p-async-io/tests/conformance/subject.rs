//! The transports under test, and helper functions.

use std::{future::Future, io, pin::Pin, time::Duration};

use async_io::Timer;
use futures::{
    AsyncRead, AsyncWrite,
    future::{self, BoxFuture, Either, poll_fn},
};
use libp2p::{
    Multiaddr,
    core::{
        Endpoint, Transport,
        transport::{DialOpts, ListenerId, PortUse, TransportEvent},
    },
};

/// Upper bound for anything that has to happen, also on a loaded machine.
const DEADLINE: Duration = Duration::from_secs(30);

pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Stream for S {}

/// A TCP transport under test.
pub trait Tcp:
    Transport<Output: Stream, Error = io::Error, Dial: Send, ListenerUpgrade: Send> + Unpin + Send + 'static
{
}

impl<T> Tcp for T where
    T: Transport<Output: Stream, Error = io::Error, Dial: Send, ListenerUpgrade: Send> + Unpin + Send + 'static
{
}

pub trait Subject: 'static {
    type Transport: Tcp;

    /// Returns a transport with or without `TCP_NODELAY`.
    fn with_nodelay(nodelay: bool) -> Self::Transport;

    fn transport() -> Self::Transport {
        Self::with_nodelay(true)
    }

    fn nodelay(stream: <Self::Transport as Transport>::Output) -> bool;

    fn block_on<F: Future<Output = ()>>(test: F);

    fn spawn(task: BoxFuture<'static, ()>);
}

pub struct Ours;

impl Subject for Ours {
    type Transport = libp2p_async_io::tcp::Transport;

    fn with_nodelay(nodelay: bool) -> Self::Transport {
        Self::Transport::new(libp2p_async_io::tcp::Config::default().nodelay(nodelay))
    }

    fn nodelay(stream: libp2p_async_io::tcp::TcpStream) -> bool {
        async_io::Async::<std::net::TcpStream>::from(stream).get_ref().nodelay().unwrap()
    }

    fn block_on<F: Future<Output = ()>>(test: F) {
        smol::block_on(test);
    }

    fn spawn(task: BoxFuture<'static, ()>) {
        smol::spawn(task).detach();
    }
}

pub struct Libp2p;

impl Subject for Libp2p {
    type Transport = libp2p::tcp::tokio::Transport;

    fn with_nodelay(nodelay: bool) -> Self::Transport {
        Self::Transport::new(libp2p::tcp::Config::default().nodelay(nodelay))
    }

    fn nodelay(stream: libp2p::tcp::tokio::TcpStream) -> bool {
        stream.0.nodelay().unwrap()
    }

    fn block_on<F: Future<Output = ()>>(test: F) {
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap().block_on(test);
    }

    fn spawn(task: BoxFuture<'static, ()>) {
        drop(tokio::spawn(task));
    }
}

pub async fn within<F: Future + Unpin>(what: F) -> F::Output {
    match future::select(what, Timer::after(DEADLINE)).await {
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
pub struct Connection<D, L> {
    pub dialled: D,
    pub accepted: L,
    pub local_addr: Multiaddr,
    pub send_back_addr: Multiaddr,
}

pub async fn connect<D, L>(
    dialler: &mut D,
    listener: &mut L,
    addr: Multiaddr,
    port_use: PortUse,
) -> Connection<D::Output, L::Output>
where
    D: Transport<Dial: Send>,
    L: Transport<ListenerUpgrade: Send> + Unpin,
{
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
    let (dialled, (accepted, local_addr, send_back_addr)) = within(Box::pin(future::join(dial, accept))).await;
    Connection { dialled: dialled.unwrap(), accepted, local_addr, send_back_addr }
}

/// Returns whether this machine has IPv6, and prints that the test is skipped if not.
pub fn ipv6() -> bool {
    let bound = std::net::TcpListener::bind("[::1]:0");
    if let Err(error) = &bound {
        println!("skipped: no IPv6 here ({error})");
    }
    bound.is_ok()
}
