use std::time::Duration;

use libp2p::{
    PeerId, Transport,
    core::{muxing::StreamMuxerBox, transport::Boxed, upgrade::Version},
    identity::Keypair,
    noise, yamux,
};

use crate::CountedStream;

/// Maximum time from the first packet of a connection to its last handshake, in both directions. Without it a silent
/// peer that accepts a connection would keep a dial open for ever.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// Transport of authenticated and multiplexed connections, in the form in which a swarm takes it.
pub type BoxedTransport = Boxed<(PeerId, StreamMuxerBox)>;

/// Encrypts (noise) and multiplexes (yamux) the connections of a transport. A dial or the handshakes of an incoming
/// connection fail if they take longer than 10 s.
///
/// # Errors
///
/// Fails if the key pair cannot sign.
pub fn upgrade<T>(transport: T, keypair: &Keypair) -> Result<BoxedTransport, noise::Error>
where
    T: Transport + Send + Unpin + 'static,
    T::Output: futures::AsyncRead + futures::AsyncWrite + Send + Unpin + 'static,
    T::Error: Send + Sync + 'static,
    T::Dial: Send + 'static,
    T::ListenerUpgrade: Send + 'static,
{
    Ok(transport
        .map(|stream, _| CountedStream::new(stream))
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(keypair)?)
        .multiplex(yamux::Config::default())
        .timeout(CONNECTION_TIMEOUT)
        .boxed())
}
