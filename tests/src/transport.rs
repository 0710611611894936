use std::time::Duration;

use libp2p::{
    PeerId, Transport,
    core::{
        muxing::StreamMuxerBox,
        transport::{Boxed, MemoryTransport},
        upgrade::Version,
    },
    futures::{AsyncRead, AsyncWrite},
    identity::Keypair,
    noise, yamux,
};
use libp2p_plaintext as plaintext;

/// Timeout for establishing a connection. kad waits for a dial indefinitely, so the transport has to give up.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// Memory transport in plaintext. Peers still prove their identity, and a handshake is cheap in a debug build.
pub(crate) fn memory(keypair: &Keypair) -> Boxed<(PeerId, StreamMuxerBox)> {
    MemoryTransport::new()
        .upgrade(Version::V1Lazy)
        .authenticate(plaintext::Config::new(keypair))
        .multiplex(yamux::Config::default())
        .timeout(CONNECTION_TIMEOUT)
        .boxed()
}

/// Adds noise, yamux and a connection timeout to a byte stream transport, as in production.
pub fn secured<T, C>(transport: T, keypair: &Keypair) -> Boxed<(PeerId, StreamMuxerBox)>
where
    T: Transport<Output = C> + Send + Unpin + 'static,
    T::Error: Send + Sync + 'static,
    T::Dial: Send,
    T::ListenerUpgrade: Send,
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    transport
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(keypair).expect("an ed25519 key can sign"))
        .multiplex(yamux::Config::default())
        .timeout(CONNECTION_TIMEOUT)
        .boxed()
}
