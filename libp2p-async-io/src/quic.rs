//! QUIC version 1 over IPv4 and IPv6 (feature `quic`).
//!
//! [`Transport`] understands `/ip4/<address>/udp/<port>/quic-v1` and `/ip6/<address>/udp/<port>/quic-v1`, each with or
//! without a `/p2p/<peer>` after it. For any other address, and for a dial to port 0 or to the unspecified address, it
//! returns [`TransportError::MultiaddrNotSupported`], so that another transport can take the address. Its connections
//! are authenticated and multiplexed. As with every transport, the swarm and not the transport checks that the remote
//! is the dialled peer.
//!
//! - **Listening** on the unspecified address (`/ip4/0.0.0.0/udp/4001/quic-v1`) announces each address that the machine
//!   has in that IP version, and new and expired ones as interfaces change. An IPv6 socket accepts IPv6 connections
//!   only. The handshake of an incoming connection starts when its upgrade is polled for the first time; if the upgrade
//!   is dropped before that, the connection is refused.
//! - **Dialling** starts when the future of the dial is polled for the first time, and is cancelled when the future is
//!   dropped. UDP does not report that nobody listens: such a dial fails only after [`Config::handshake_timeout`], or
//!   by the idle timeout if that passes before (see [`Config::max_idle_timeout`]).
//! - **Port use**: with [`PortUse::Reuse`], a dial uses the socket of a listener of the same IP version that can reach
//!   the remote. If there is no such listener, it uses a socket that the dials of the IP version share. If the shared
//!   socket has failed, the dial uses a socket of its own. With [`PortUse::New`], each dial has a socket of its own.
//! - **No hole punching**: a dial as [`Endpoint::Listener`] returns [`Error::HolePunching`]. A dial as
//!   [`Endpoint::Dialer`] works, also if the remote punches the hole.
//!
//! # Tasks
//!
//! Each socket and each connection has a task of its own, which outlives the dropped socket or connection for a moment
//! to close it properly. The tasks run on smol's global executor, which starts a thread with its first task, or on
//! another executor: see [`Transport::with_executor`]. All tasks end shortly after the transport, its connections and
//! their streams were dropped.
//!
//! # QUIC next to TCP, with names
//!
//! ```
//! use libp2p::{
//!     Transport,
//!     core::{muxing::StreamMuxerBox, upgrade::Version},
//!     identity::Keypair,
//!     noise, yamux,
//! };
//! use libp2p_async_io::{dns, quic, tcp};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let keypair = Keypair::generate_ed25519();
//! let tcp = tcp::Transport::default()
//!     .upgrade(Version::V1Lazy)
//!     .authenticate(noise::Config::new(&keypair)?)
//!     .multiplex(yamux::Config::default())
//!     .timeout(std::time::Duration::from_secs(20))
//!     .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
//! let quic = quic::Transport::new(quic::Config::new(&keypair)?)
//!     .map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection)));
//! // Around both, so that names in addresses of either kind are looked up.
//! let transport = dns::Transport::system(quic.or_transport(tcp).map(|either, _| either.into_inner())).boxed();
//! # drop::<libp2p::core::transport::Boxed<(libp2p::PeerId, StreamMuxerBox)>>(transport);
//! # Ok(())
//! # }
//! ```

use std::{
    fmt, io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures::{
    StreamExt,
    future::{BoxFuture, FutureExt},
    stream::SelectAll,
};
use libp2p_core::{
    Endpoint, Multiaddr, PeerId,
    transport::{DialOpts, ListenerId, PortUse, TransportError, TransportEvent},
};

mod address;
mod config;
mod connection;
mod dial;
mod endpoint;
mod error;
mod listener;
mod runtime;
mod stream;

use self::{config::Parts, listener::Listener, runtime::Tasks};
pub use self::{
    config::{Config, ConfigError},
    connection::Connection,
    error::{DialError, Error, ProtocolError},
    stream::Stream,
};

/// QUIC transport for libp2p: see the [module](self).
///
/// ```
/// use futures::StreamExt;
/// use libp2p::{
///     core::{Transport, transport::ListenerId},
///     identity::Keypair,
/// };
/// use libp2p_async_io::quic;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let config = quic::Config::new(&Keypair::generate_ed25519())?.max_concurrent_streams(64);
/// let mut transport = quic::Transport::new(config).boxed();
/// transport.listen_on(ListenerId::next(), "/ip4/127.0.0.1/udp/0/quic-v1".parse()?)?;
/// let event = smol::block_on(transport.select_next_some());
/// println!("listening on {}", event.into_new_address().unwrap());
/// # Ok(())
/// # }
/// ```
pub struct Transport {
    config: Parts,
    listeners: SelectAll<Listener>,
    /// Sockets of dials that no listener fits: one for IPv4, one for IPv6.
    clients: [Option<quinn::Endpoint>; 2],
    tasks: Arc<Tasks>,
}

impl Transport {
    /// Returns a transport without a listener. Its tasks run on smol's global executor.
    pub fn new(config: Config) -> Self {
        Self::with_tasks(config, Tasks::default())
    }

    /// Returns a transport without a listener whose tasks run on `executor`. The executor has to run each task to its
    /// end. If it drops the task of a socket, listening on the socket ends and its connections fail; if it drops the
    /// task of a connection, the connection hangs instead of being closed.
    ///
    /// ```no_run
    /// # fn doc(config: libp2p_async_io::quic::Config, executor: std::sync::Arc<smol::Executor<'static>>) {
    /// let transport = libp2p_async_io::quic::Transport::with_executor(config, move |task| executor.spawn(task).detach());
    /// # }
    /// ```
    pub fn with_executor(config: Config, executor: impl Fn(BoxFuture<'static, ()>) + Send + Sync + 'static) -> Self {
        Self::with_tasks(config, Tasks::new(executor))
    }

    fn with_tasks(config: Config, tasks: Tasks) -> Self {
        Self { config: config.into_parts(), listeners: SelectAll::new(), clients: [None, None], tasks: Arc::new(tasks) }
    }

    /// Returns the shared socket for a dial to `remote`.
    fn shared(&mut self, remote: SocketAddr) -> io::Result<quinn::Endpoint> {
        if let Some(endpoint) = self.listeners.iter().find_map(|listener| listener.endpoint_to(remote)) {
            return Ok(endpoint.clone());
        }
        let client = self.client(remote);
        if let Some(endpoint) = client {
            return Ok(endpoint.clone());
        }
        let endpoint = endpoint::client(&self.config, remote, self.tasks.clone())?;
        *self.client(remote) = Some(endpoint.clone());
        Ok(endpoint)
    }

    fn client(&mut self, addr: SocketAddr) -> &mut Option<quinn::Endpoint> {
        let [v4, v6] = &mut self.clients;
        if addr.is_ipv4() { v4 } else { v6 }
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport").field("listeners", &self.listeners.len()).finish_non_exhaustive()
    }
}

impl libp2p_core::Transport for Transport {
    type Output = (PeerId, Connection);
    type Error = Error;
    type ListenerUpgrade = BoxFuture<'static, Result<Self::Output, Error>>;
    type Dial = BoxFuture<'static, Result<Self::Output, Error>>;

    fn listen_on(&mut self, id: ListenerId, addr: Multiaddr) -> Result<(), TransportError<Error>> {
        let Some(socket_addr) = address::from_multiaddr(&addr) else {
            return Err(TransportError::MultiaddrNotSupported(addr));
        };
        let listener = Listener::new(id, &self.config, socket_addr, self.tasks.clone())
            .map_err(|error| TransportError::Other(error.into()))?;
        self.listeners.push(listener);
        // From now on, dials use the listener's socket. Connections that use the other one keep it.
        *self.client(socket_addr) = None;
        Ok(())
    }

    /// Refuses further connections at once. [`TransportEvent::ListenerClosed`] follows. Connections that were accepted
    /// on or dialled from the listener's socket stay open. The socket is closed, and its port free, shortly after the
    /// last of the socket's connections has ended.
    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.listeners.iter_mut().any(|listener| listener.close(id))
    }

    fn dial(&mut self, addr: Multiaddr, opts: DialOpts) -> Result<Self::Dial, TransportError<Error>> {
        let remote = match address::from_multiaddr(&addr) {
            Some(remote) if remote.port() != 0 && !remote.ip().is_unspecified() => remote,
            Some(_) | None => return Err(TransportError::MultiaddrNotSupported(addr)),
        };
        match opts.role {
            Endpoint::Dialer => {}
            Endpoint::Listener => return Err(TransportError::Other(Error::HolePunching)),
        }
        let shared = match opts.port_use {
            PortUse::Reuse => Some(self.shared(remote).map_err(|error| TransportError::Other(error.into()))?),
            PortUse::New => None,
        };
        Ok(dial::dial(self.config.clone(), remote, shared, self.tasks.clone()).boxed())
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<TransportEvent<Self::ListenerUpgrade, Error>> {
        match self.listeners.poll_next_unpin(cx) {
            Poll::Ready(Some(event)) => Poll::Ready(event),
            // Without a listener there is nothing to wait for. The swarm polls again after it has added one.
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}
