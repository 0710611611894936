use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use futures::io::{AsyncRead, AsyncWrite};
use quinn::{RecvStream, SendStream};

/// A stream of a [`Connection`](super::Connection), in both directions.
///
/// - Closing it (`close().await` of `AsyncWriteExt`) ends the own direction: what was written is still sent, the remote
///   reads the end of the stream, and can still send. It does not wait until the remote has received anything; whoever
///   closes the connection too early takes that from the remote.
/// - Dropping it does the same and tells the remote to stop sending.
/// - Flushing has nothing to do: what was written is on its way.
/// - The remote hears of a stream with the first bytes on it, or with its end.
#[derive(Debug)]
pub struct Stream {
    send: SendStream,
    receive: RecvStream,
}

impl Stream {
    pub(super) fn new((send, receive): (SendStream, RecvStream)) -> Self {
        Self { send, receive }
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        self.receive.poll_read(cx, buf).map_err(io::Error::from)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.send).poll_write(cx, buf).map_err(io::Error::from)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // It fails only where the direction has ended already; closing twice is no error.
        drop(self.send.finish());
        Poll::Ready(Ok(()))
    }
}
