//! QUIC version 1 over IPv4 and IPv6 (feature `quic`).
//!
//! [`Transport`] understands `/ip4/<address>/udp/<port>/quic-v1` and `/ip6/<address>/udp/<port>/quic-v1`, each with or
//! without a `/p2p/<peer>` behind it. Everything else is [`TransportError::MultiaddrNotSupported`], so that another
//! transport can have it. Its connections are authenticated and multiplexed already; that the remote is the peer that
//! was dialled is for the swarm to check, as with every transport.
//!
//! - **Listening** on the unspecified address (`/ip4/0.0.0.0/udp/4001/quic-v1`) announces one address for each address
//!   of the machine, and follows them as interfaces come and go. An IPv6 socket takes IPv6 connections only. A remote
//!   costs no handshake before its upgrade is polled, and is refused if the upgrade is dropped.
//! - **Dialling** sends nothing before its future is polled, and gives up when its future is dropped. Over UDP nobody
//!   says that nobody listens: such a dial takes the whole [`Config::handshake_timeout`].
//! - **Port use**: with [`PortUse::Reuse`], the connection comes from the socket of a listener of the same IP version
//!   (on loopback only if the remote is), otherwise from one that all dials of the IP version share; with [`PortUse::New`], from
//!   one of its own.
//! - **No hole punching**: a dial as [`Endpoint::Listener`] is [`Error::HolePunching`]. (As
//!   [`Endpoint::Dialer`], it works against a remote that punches.)
//!
//! # Who runs it
//!
//! Each socket and each connection has a task of its own, which also outlives its handle for a moment, so that the
//! remote hears of the end. They run on the global executor of smol, which is a thread that is started with the first
//! of them; or wherever [`Transport::with_executor`] says. When everything was dropped, all of them end by themselves.
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
//! // Around both, so that names of either kind are looked up.
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

/// A QUIC transport for libp2p, see the [module](self).
pub struct Transport {
    config: Parts,
    listeners: SelectAll<Listener>,
    /// What is dialled from as long as no listener can be: one socket for IPv4, one for IPv6.
    clients: [Option<quinn::Endpoint>; 2],
    tasks: Arc<Tasks>,
}

impl Transport {
    /// A transport that listens nowhere yet. Its tasks run on the global executor of smol.
    pub fn new(config: Config) -> Self {
        Self::with_tasks(config, Tasks::default())
    }

    /// The same, with its tasks given to `executor`, which has to run each of them to its end. What loses them loses
    /// the listeners and connections, too; connections without their task are not closed but stuck.
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

    /// The socket to dial `remote` from that other dials use, too.
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
        // From here on, the listener's socket is dialled from; connections that use the other one keep it.
        *self.client(socket_addr) = None;
        Ok(())
    }

    /// Takes no more connections from this moment on; [`TransportEvent::ListenerClosed`] follows. Connections that were
    /// accepted before, or dialled from this socket, stay open, and the socket closes with the last of them: until then,
    /// and in any case until its task has noticed, the port is taken.
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
            // Without listeners there is nothing to wake up for: whoever adds one polls again.
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}
