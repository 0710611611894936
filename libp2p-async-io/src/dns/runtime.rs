use std::{
    future::Future,
    io,
    net::{SocketAddr, UdpSocket},
    pin::{Pin, pin},
    sync::{Arc, Weak},
    task::{Context, Poll, ready},
    time::Duration,
};

use async_executor::Executor;
use async_io::{Async, Timer};
use async_trait::async_trait;
use futures::{
    future::{self, Either},
    io::{AsyncRead, AsyncWrite},
};
use hickory_resolver::net::runtime::{DnsTcpStream, DnsUdpSocket, RuntimeProvider, Spawn, Time};

use crate::tcp::{self, TcpStream};

/// Default timeout of a TCP connection to a name server. As in the resolver's own runtime.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Sockets, timers and tasks of the resolver.
#[derive(Clone)]
pub(super) struct AsyncIo {
    // Weak, because the tasks have a clone of this.
    tasks: Weak<Executor<'static>>,
}

impl AsyncIo {
    pub(super) fn new(tasks: &Arc<Executor<'static>>) -> Self {
        Self { tasks: Arc::downgrade(tasks) }
    }
}

impl Spawn for AsyncIo {
    fn spawn_bg(&mut self, future: impl Future<Output = ()> + Send + 'static) {
        // Without the executor, no lookup waits for a response any more.
        if let Some(tasks) = self.tasks.upgrade() {
            tasks.spawn(future).detach();
        }
    }
}

impl RuntimeProvider for AsyncIo {
    type Handle = Self;
    type Timer = AsyncIoTime;
    type Udp = Udp;
    type Tcp = Tcp;

    fn create_handle(&self) -> Self {
        self.clone()
    }

    fn connect_tcp(
        &self,
        server: SocketAddr,
        local: Option<SocketAddr>,
        timeout: Option<Duration>,
    ) -> Pin<Box<dyn Future<Output = io::Result<Tcp>> + Send>> {
        let connect = async move { tcp::connect(&tcp::Config::new(), local, server).await.map(Tcp) };
        Box::pin(async move { AsyncIoTime::timeout(timeout.unwrap_or(CONNECT_TIMEOUT), connect).await? })
    }

    fn bind_udp(
        &self,
        local: SocketAddr,
        _server: SocketAddr,
    ) -> Pin<Box<dyn Future<Output = io::Result<Udp>> + Send>> {
        Box::pin(async move { Ok(Udp(Async::<UdpSocket>::bind(local)?)) })
    }
}

pub(super) struct AsyncIoTime;

#[async_trait]
impl Time for AsyncIoTime {
    async fn delay_for(duration: Duration) {
        Timer::after(duration).await;
    }

    async fn timeout<F: Future + Send + 'static>(duration: Duration, future: F) -> io::Result<F::Output> {
        match future::select(pin!(future), Timer::after(duration)).await {
            Either::Left((output, _)) => Ok(output),
            Either::Right(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

// A separate type, so that the public one does not implement the resolver's trait.
pub(super) struct Tcp(TcpStream);

impl DnsTcpStream for Tcp {
    type Time = AsyncIoTime;
}

impl AsyncRead for Tcp {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Tcp {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_close(cx)
    }
}

pub(super) struct Udp(Async<UdpSocket>);

#[async_trait]
impl DnsUdpSocket for Udp {
    type Time = AsyncIoTime;

    fn poll_recv_from(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<(usize, SocketAddr)>> {
        loop {
            match self.0.get_ref().recv_from(buf) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(self.0.poll_readable(cx))?,
                result => return Poll::Ready(result),
            }
        }
    }

    fn poll_send_to(&self, cx: &mut Context<'_>, buf: &[u8], target: SocketAddr) -> Poll<io::Result<usize>> {
        loop {
            match self.0.get_ref().send_to(buf, target) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(self.0.poll_writable(cx))?,
                result => return Poll::Ready(result),
            }
        }
    }
}
