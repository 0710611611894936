use std::io;

/// Why there is no connection, or no longer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A socket could not be opened or bound, the machine's addresses could not be watched, or a listener's socket has
    /// ended because the executor dropped its task.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The dial could not begin.
    #[error(transparent)]
    Dial(DialError),
    /// The remote did not finish the handshake in time, or did not answer at all: over UDP, nobody says that nobody
    /// listens.
    #[error("no handshake with the remote within the time limit")]
    HandshakeTimedOut,
    /// The remote has a certificate that says no peer id.
    #[error("the remote does not say who it is")]
    NoPeerId,
    /// Nothing was heard from the remote for longer than [`Config::max_idle_timeout`](super::Config::max_idle_timeout),
    /// its own or ours.
    #[error("nothing heard from the remote within the time limit")]
    TimedOut,
    /// The connection was closed at this end.
    #[error("closed")]
    Closed,
    /// The remote has closed the connection, which is what a libp2p node does that needs it no longer.
    #[error("closed by the remote with code {code}")]
    ClosedByRemote {
        /// What the remote says about its reason; 0 if nothing.
        code: u64,
    },
    /// The remote no longer knows the connection.
    #[error("reset by the remote")]
    Reset,
    /// The connection was given up because one end broke the protocol or could not prove who it is, or because the
    /// remote refuses new connections.
    #[error(transparent)]
    Protocol(ProtocolError),
    /// The dial was to be the listening end of a hole punch
    /// ([`Endpoint::Listener`](libp2p_core::Endpoint::Listener)), which this transport does not do.
    #[error("hole punching over QUIC is not supported")]
    HolePunching,
}

/// Why a dial could not begin, in words: usually, because the executor has dropped the task of the socket.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct DialError(quinn::ConnectError);

/// How QUIC or TLS failed, in words.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct ProtocolError(quinn::ConnectionError);

// Functions and not `From`, which would make quinn a part of the API.
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
