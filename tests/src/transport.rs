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
    noise, plaintext, yamux,
};

/// How long a connection may take to be made. kad waits for a dial without end, so the transport has to give up.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// Memory with plaintext: peers still prove to be who they say, and a handshake costs nothing in a debug build.
pub(crate) fn memory(keypair: &Keypair) -> Boxed<(PeerId, StreamMuxerBox)> {
    MemoryTransport::new()
        .upgrade(Version::V1Lazy)
        .authenticate(plaintext::Config::new(keypair))
        .multiplex(yamux::Config::default())
        .timeout(CONNECTION_TIMEOUT)
        .boxed()
}

/// A byte stream transport with noise, yamux and a connection timeout: what a node in earnest has.
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
        .authenticate(noise::Config::new(keypair).expect("an ed25519 key signs"))
        .multiplex(yamux::Config::default())
        .timeout(CONNECTION_TIMEOUT)
        .boxed()
}
