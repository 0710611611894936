use std::{
    io::{self, IoSlice, IoSliceMut},
    net::{Shutdown, SocketAddr},
    pin::Pin,
    task::{Context, Poll},
};

use async_io::Async;
use futures::io::{AsyncRead, AsyncWrite};

/// TCP connection of a [`Transport`](super::Transport), as a byte stream.
///
/// Closing the stream (`close().await` of `AsyncWriteExt`) ends the direction to the remote: the remote reads the end
/// of the stream and can still send. Dropping the stream closes both directions.
#[derive(Debug)]
pub struct TcpStream(Async<std::net::TcpStream>);

impl TcpStream {
    pub(super) fn new(stream: Async<std::net::TcpStream>) -> Self {
        Self(stream)
    }

    /// Returns the local address of the connection.
    ///
    /// # Errors
    ///
    /// The system's error, for example if the connection is broken.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.get_ref().local_addr()
    }

    /// Returns the remote address of the connection.
    ///
    /// # Errors
    ///
    /// The system's error, for example if the connection is broken.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.0.get_ref().peer_addr()
    }
}

impl From<TcpStream> for Async<std::net::TcpStream> {
    fn from(stream: TcpStream) -> Self {
        stream.0
    }
}

impl AsyncRead for TcpStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }

    fn poll_read_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_read_vectored(cx, bufs)
    }
}

impl AsyncWrite for TcpStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // async-io's `poll_close` only flushes, and the remote would wait for more.
        Poll::Ready(match self.0.get_ref().shutdown(Shutdown::Write) {
            // Both ends have closed it, or the remote has reset it.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            result => result,
        })
    }
}
