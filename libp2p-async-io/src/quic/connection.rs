use std::{
    fmt,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use async_io::Timer;
use futures::{
    FutureExt,
    future::{self, BoxFuture, Either},
};
use libp2p_core::{
    PeerId,
    muxing::{StreamMuxer, StreamMuxerEvent},
};
use quinn::{ConnectionError, RecvStream, SendStream, VarInt, rustls::pki_types::CertificateDer};

use super::{Error, Stream};

/// QUIC connection. It is authenticated, encrypted and multiplexed, so that it needs no upgrade.
///
/// A task of its own drives the connection: packets are sent and received also while nobody polls. Closing the
/// connection (`poll_close`) takes effect at once, also on its streams, and data that the remote has not received is
/// lost. A connection that is dropped stays open until its last stream is dropped.
pub struct Connection {
    connection: quinn::Connection,
    inbound: Option<Opening>,
    outbound: Option<Opening>,
}

type Opening = BoxFuture<'static, Result<(SendStream, RecvStream), ConnectionError>>;

impl Connection {
    fn new(connection: quinn::Connection) -> Self {
        Self { connection, inbound: None, outbound: None }
    }

    /// Returns the remote's IP address and UDP port.
    pub fn remote_addr(&self) -> SocketAddr {
        self.connection.remote_address()
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("remote_addr", &self.remote_addr()).finish_non_exhaustive()
    }
}

impl StreamMuxer for Connection {
    type Substream = Stream;
    type Error = Error;

    fn poll_inbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Stream, Error>> {
        let this = &mut *self;
        let inbound = this.inbound.get_or_insert_with(|| {
            let connection = this.connection.clone();
            async move { connection.accept_bi().await }.boxed()
        });
        let result = ready!(inbound.poll_unpin(cx));
        this.inbound = None;
        Poll::Ready(result.map(Stream::new).map_err(Error::connection))
    }

    fn poll_outbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Stream, Error>> {
        let this = &mut *self;
        let outbound = this.outbound.get_or_insert_with(|| {
            let connection = this.connection.clone();
            async move { connection.open_bi().await }.boxed()
        });
        let result = ready!(outbound.poll_unpin(cx));
        this.outbound = None;
        Poll::Ready(result.map(Stream::new).map_err(Error::connection))
    }

    /// Marks the connection as closed. Its task notifies the remote.
    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.connection.close(VarInt::from_u32(0), &[]);
        Poll::Ready(Ok(()))
    }

    /// Never ready: a new address of the remote is not supported.
    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<StreamMuxerEvent, Error>> {
        Poll::Pending
    }
}

/// Waits for a connection and the identity of the remote. Dropping the future cancels it.
pub(super) async fn handshake(connecting: quinn::Connecting, timeout: Duration) -> Result<(PeerId, Connection), Error> {
    match future::select(connecting, Timer::after(timeout)).await {
        Either::Left((Ok(connection), _)) => {
            let peer = remote_peer(&connection).ok_or(Error::NoPeerId)?;
            Ok((peer, Connection::new(connection)))
        }
        Either::Left((Err(error), _)) => Err(Error::handshake(error)),
        Either::Right(_) => Err(Error::HandshakeTimedOut),
    }
}

/// Returns the peer id in the remote's certificate. TLS has verified that the remote has its key.
fn remote_peer(connection: &quinn::Connection) -> Option<PeerId> {
    let certificates = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    let certificate = libp2p_tls::certificate::parse(certificates.first()?).ok()?;
    Some(certificate.peer_id())
}
