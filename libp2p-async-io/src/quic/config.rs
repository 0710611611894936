use std::{fmt, sync::Arc, time::Duration};

use libp2p_identity::Keypair;
use quinn::{
    MtuDiscoveryConfig, VarInt,
    crypto::rustls::{NoInitialCipherSuite, QuicClientConfig, QuicServerConfig},
};

/// Certificates of the node, and limits of its connections. The default limits are those of libp2p's own QUIC
/// transport.
#[derive(Clone)]
pub struct Config {
    client: Arc<QuicClientConfig>,
    server: Arc<QuicServerConfig>,
    handshake_timeout: Duration,
    max_idle_timeout: Duration,
    keep_alive_interval: Duration,
    max_concurrent_streams: u32,
    max_stream_data: u32,
    max_connection_data: u32,
    mtu_discovery: Option<MtuDiscoveryConfig>,
}

/// Error of creating the certificates for a key pair, or the TLS configuration with them.
#[derive(Debug, thiserror::Error)]
#[error("cannot create a certificate")]
pub struct ConfigError(#[source] Cause);

#[derive(Debug, thiserror::Error)]
enum Cause {
    #[error(transparent)]
    Certificate(#[from] libp2p_tls::certificate::GenError),
    #[error(transparent)]
    CipherSuite(#[from] NoInitialCipherSuite),
}

impl Config {
    /// Returns the default limits, with new certificates that prove the possession of `keypair`.
    ///
    /// # Errors
    ///
    /// If a certificate cannot be created, for example because `keypair` cannot sign or the system has no randomness.
    pub fn new(keypair: &Keypair) -> Result<Self, ConfigError> {
        let (client, server) = tls(keypair).map_err(ConfigError)?;
        Ok(Self {
            client: Arc::new(client),
            server: Arc::new(server),
            handshake_timeout: Duration::from_secs(5),
            max_idle_timeout: Duration::from_secs(10),
            keep_alive_interval: Duration::from_secs(5),
            max_concurrent_streams: 256,
            max_stream_data: 10_000_000,
            max_connection_data: 15_000_000,
            mtu_discovery: Some(MtuDiscoveryConfig::default()),
        })
    }

    /// Sets the timeout of the handshake of a dialled or accepted connection. A handshake also fails for the reasons
    /// for which a connection fails, for example if no packet comes from the remote within
    /// [`max_idle_timeout`](Self::max_idle_timeout). Default: 5 seconds.
    #[must_use]
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.handshake_timeout = timeout;
        self
    }

    /// Sets the idle timeout: the time without a packet from the remote after which a connection is lost. The time
    /// starts at the last packet from the remote, and again at the first packet that this end sends after that one and
    /// that the remote has to acknowledge, such as one that keeps the connection alive. The shorter timeout of both
    /// ends applies, but at least three of QUIC's probe timeouts, which follow from the round-trip time: about 3
    /// seconds before the first response. The value is rounded down to whole milliseconds, but to one at least; the
    /// maximum is 49 days. Zero means no timeout of this end. Default: 10 seconds.
    #[must_use]
    pub fn max_idle_timeout(mut self, timeout: Duration) -> Self {
        self.max_idle_timeout = timeout;
        self
    }

    /// Sets the time without a packet in either direction after which a packet is sent to keep the connection alive. To
    /// have an effect, it has to be shorter than the [`max_idle_timeout`](Self::max_idle_timeout) of both ends. Zero
    /// disables this. Default: 5 seconds.
    #[must_use]
    pub fn keep_alive_interval(mut self, interval: Duration) -> Self {
        self.keep_alive_interval = interval;
        self
    }

    /// Sets the maximum number of streams, opened by the remote, that are open on a connection at the same time. The
    /// remote has to wait before it opens further ones. Default: 256.
    #[must_use]
    pub fn max_concurrent_streams(mut self, streams: u32) -> Self {
        self.max_concurrent_streams = streams;
        self
    }

    /// Sets the maximum number of bytes on a stream that were sent by the remote but not yet read here; the remote has
    /// to wait before it sends more. Such bytes are held in memory. Default: 10,000,000, less than the default of
    /// [`max_connection_data`](Self::max_connection_data), so that one stream that is not read does not block the
    /// others.
    #[must_use]
    pub fn max_stream_data(mut self, bytes: u32) -> Self {
        self.max_stream_data = bytes;
        self
    }

    /// Sets the maximum number of bytes on all streams of a connection together that were sent by the remote but not
    /// yet read here. Default: 15,000,000.
    #[must_use]
    pub fn max_connection_data(mut self, bytes: u32) -> Self {
        self.max_connection_data = bytes;
        self
    }

    /// Sets the maximum size of packets, in bytes of UDP payload, that path MTU discovery tries. Packets have at
    /// most 1,200 bytes, which every QUIC path has to carry, until the discovery finds that larger ones arrive. `None`
    /// disables the discovery. Default: 1,452, which fits into an Ethernet frame.
    #[must_use]
    pub fn mtu_upper_bound(mut self, bytes: Option<u16>) -> Self {
        self.mtu_discovery = bytes.map(|bytes| {
            let mut discovery = MtuDiscoveryConfig::default();
            discovery.upper_bound(bytes);
            discovery
        });
        self
    }

    /// Converts the limits to quinn's types.
    pub(super) fn into_parts(self) -> Parts {
        let mut transport = quinn::TransportConfig::default();
        transport
            // libp2p has neither streams in one direction nor datagrams.
            .max_concurrent_uni_streams(VarInt::from_u32(0))
            .datagram_receive_buffer_size(None)
            .max_concurrent_bidi_streams(self.max_concurrent_streams.into())
            .keep_alive_interval((!self.keep_alive_interval.is_zero()).then_some(self.keep_alive_interval))
            // To quinn a timeout of zero would have passed at once.
            .max_idle_timeout(
                (!self.max_idle_timeout.is_zero()).then(|| VarInt::from_u32(idle_millis(self.max_idle_timeout)).into()),
            )
            .stream_receive_window(self.max_stream_data.into())
            .receive_window(self.max_connection_data.into())
            .mtu_discovery_config(self.mtu_discovery)
            // The spin bit would show the round-trip time to every observer on the path.
            .allow_spin(false);
        let transport = Arc::new(transport);

        let mut client = quinn::ClientConfig::new(self.client);
        client.transport_config(transport.clone());
        let mut server = quinn::ServerConfig::with_crypto(self.server);
        // The muxer does not report a new address of the remote.
        server.transport_config(transport).migration(false);
        let mut endpoint = quinn::EndpointConfig::default();
        endpoint.supported_versions(vec![1]);
        Parts { client, server, endpoint, handshake_timeout: self.handshake_timeout }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Omits the keys of the certificates.
        f.debug_struct("Config")
            .field("handshake_timeout", &self.handshake_timeout)
            .field("max_idle_timeout", &self.max_idle_timeout)
            .field("keep_alive_interval", &self.keep_alive_interval)
            .field("max_concurrent_streams", &self.max_concurrent_streams)
            .field("max_stream_data", &self.max_stream_data)
            .field("max_connection_data", &self.max_connection_data)
            .field("mtu_discovery", &self.mtu_discovery)
            .finish_non_exhaustive()
    }
}

/// [`Config`] in quinn's types.
#[derive(Debug, Clone)]
pub(super) struct Parts {
    pub(super) client: quinn::ClientConfig,
    pub(super) server: quinn::ServerConfig,
    pub(super) endpoint: quinn::EndpointConfig,
    pub(super) handshake_timeout: Duration,
}

/// Returns the timeout in milliseconds, at least one unless it is zero, which means no limit in QUIC.
fn idle_millis(timeout: Duration) -> u32 {
    let at_least = u32::from(!timeout.is_zero());
    u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX).max(at_least)
}

fn tls(keypair: &Keypair) -> Result<(QuicClientConfig, QuicServerConfig), Cause> {
    // The swarm checks that the remote is the expected peer.
    let client = libp2p_tls::make_client_config(keypair, None)?.try_into()?;
    let server = libp2p_tls::make_server_config(keypair)?.try_into()?;
    Ok((client, server))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_zero_means_no_limit() {
        assert_eq!(idle_millis(Duration::ZERO), 0);
        assert_eq!(idle_millis(Duration::from_nanos(1)), 1);
        assert_eq!(idle_millis(Duration::from_secs(10)), 10_000);
        assert_eq!(idle_millis(Duration::MAX), u32::MAX);
    }

    #[test]
    fn debug_output_shows_the_limits_and_omits_keys() {
        let config = Config::new(&Keypair::generate_ed25519()).unwrap().max_concurrent_streams(7);
        let text = format!("{config:?}");
        assert!(text.contains("max_concurrent_streams: 7"), "{text}");
        assert!(!text.contains("QuicClientConfig"), "{text}");
    }
}
