use std::io;

/// Error of a dial, a connection or a listener.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A socket cannot be opened, configured or bound, the machine's addresses cannot be watched, or a listener has
    /// ended because its socket failed or the executor dropped the socket's task.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The dial could not start.
    #[error(transparent)]
    Dial(DialError),
    /// The handshake took longer than [`Config::handshake_timeout`](super::Config::handshake_timeout), or no packet
    /// came from the remote within the idle timeout ([`Config::max_idle_timeout`](super::Config::max_idle_timeout)).
    /// This is also the error if nobody listens, which UDP does not report.
    #[error("handshake timed out")]
    HandshakeTimedOut,
    /// The handshake is complete, but no peer id can be read from the certificate of the remote. This is not expected:
    /// the handshake itself fails with [`Protocol`](Self::Protocol) if the certificate is missing or not that of a
    /// libp2p node.
    #[error("certificate of the remote has no peer id")]
    NoPeerId,
    /// After the handshake, no packet came from the remote within the idle timeout: see
    /// [`Config::max_idle_timeout`](super::Config::max_idle_timeout).
    #[error("connection timed out: no packet from the remote")]
    TimedOut,
    /// The connection was closed by this end.
    #[error("connection closed")]
    Closed,
    /// The remote has closed the connection after the handshake, as a libp2p node does with a connection that it no
    /// longer needs.
    #[error("connection closed by the remote, code {code}")]
    ClosedByRemote {
        /// Error code that the remote sent. 0 if it gave no reason.
        code: u64,
    },
    /// The remote does not know the connection any more and has said so by a stateless reset. After a restart, only a remote
    /// that has kept its reset key can do that, as those of libp2p-quic do; one with the transport of this crate has a new
    /// key, and the connection ends with [`TimedOut`](Self::TimedOut).
    #[error("connection reset by the remote")]
    Reset,
    /// The connection failed by an error of QUIC or TLS: for example, one end violated the protocol or could not be
    /// authenticated, the remote refused the connection, or the executor dropped the task of the socket.
    #[error(transparent)]
    Protocol(ProtocolError),
    /// The dial was to be the listening end of a hole punch ([`Endpoint::Listener`](libp2p_core::Endpoint::Listener)),
    /// which this transport does not support.
    #[error("hole punching over QUIC is not supported")]
    HolePunching,
}

/// Error of starting a dial. The usual cause is that the executor has dropped the task of the socket.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct DialError(quinn::ConnectError);

/// Error of QUIC or TLS.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct ProtocolError(quinn::ConnectionError);

// Functions rather than `From`, which would make quinn a part of the API.
impl Error {
    pub(super) fn dial(error: quinn::ConnectError) -> Self {
        Self::Dial(DialError(error))
    }

    pub(super) fn handshake(error: quinn::ConnectionError) -> Self {
        match Self::connection(error) {
            Self::TimedOut => Self::HandshakeTimedOut,
            other => other,
        }
    }

    pub(super) fn connection(error: quinn::ConnectionError) -> Self {
        use quinn::ConnectionError as E;
        match error {
            E::ApplicationClosed(close) => Self::ClosedByRemote { code: close.error_code.into_inner() },
            E::Reset => Self::Reset,
            E::TimedOut => Self::TimedOut,
            E::LocallyClosed => Self::Closed,
            E::VersionMismatch | E::TransportError(_) | E::ConnectionClosed(_) | E::CidsExhausted => {
                Self::Protocol(ProtocolError(error))
            }
        }
    }
}
