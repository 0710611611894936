use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use futures::io::{AsyncRead, AsyncWrite};
use quinn::{RecvStream, SendStream};

/// Bidirectional stream of a [`Connection`](super::Connection).
///
/// - Closing the stream (`close().await` of `AsyncWriteExt`) ends the direction to the remote: written data is still
///   sent, and the remote then reads the end of the stream and can still send. Closing does not wait until the remote
///   has received the data; if the connection is closed before that, the data is lost.
/// - Dropping the stream does the same, and asks the remote to stop sending.
/// - Flushing does nothing: written data is sent without a flush.
/// - The remote does not learn of a new stream before this end writes to it or closes it.
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
        // It fails only if the direction has ended. Closing twice is no error.
        drop(self.send.finish());
        Poll::Ready(Ok(()))
    }
}
