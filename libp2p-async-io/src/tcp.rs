//! TCP over IPv4 and IPv6.
//!
//! [`Transport`] understands `/ip4/<address>/tcp/<port>` and `/ip6/<address>/tcp/<port>`, each with or without a
//! `/p2p/<peer>` after it. For any other address, and for a dial to port 0 or to the unspecified address, it returns
//! [`TransportError::MultiaddrNotSupported`], so that another transport can take the address.
//!
//! - **Listening** on the unspecified address (`/ip4/0.0.0.0/tcp/4001`) announces each address that the machine has in
//!   that IP version, and new and expired ones as interfaces change. An IPv6 socket accepts IPv6 connections only.
//! - **Dialling** starts when the future of the dial is polled for the first time. Dropping the future closes the
//!   socket. The only time limit of a dial is the operating system's, which is minutes: wrap the finished transport in
//!   a [`TransportTimeout`](libp2p_core::transport::timeout::TransportTimeout).
//! - **Port reuse**: with [`PortUse::Reuse`](libp2p_core::transport::PortUse::Reuse), the dial uses the port of a
//!   listener of the same IP version that can reach the remote, if there is one and the remote is not itself the
//!   address of a listener. If the system does not allow that (for example because the pair of addresses has a
//!   connection already), the dial uses a new port.

use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll},
};

use futures::{
    StreamExt,
    future::{BoxFuture, FutureExt, Ready},
    stream::SelectAll,
};
use libp2p_core::{
    Multiaddr,
    transport::{DialOpts, ListenerId, TransportError, TransportEvent},
};

mod address;
mod dial;
mod listener;
mod port_reuse;
mod socket;
mod stream;

#[cfg(feature = "dns")]
pub(crate) use self::dial::connect;
use self::{listener::Listener, port_reuse::ListenPorts};
pub use self::{socket::Config, stream::TcpStream};

/// TCP transport for libp2p: see the [module](self).
///
/// It needs no runtime: `async-io`, which has a thread of its own, wakes the tasks that wait for sockets and timers. A
/// connection is a plain byte stream, which has to be authenticated and multiplexed for a swarm: see
/// [`Transport::upgrade`](libp2p_core::Transport::upgrade), and the program on the [front page](crate).
///
/// ```
/// use futures::StreamExt;
/// use libp2p::core::{Transport, transport::ListenerId};
/// use libp2p_async_io::tcp;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let config = tcp::Config::default().nodelay(true).listen_backlog(64);
/// let mut transport = tcp::Transport::new(config).boxed();
/// transport.listen_on(ListenerId::next(), "/ip4/127.0.0.1/tcp/0".parse()?)?;
/// let event = smol::block_on(transport.select_next_some());
/// println!("listening on {}", event.into_new_address().unwrap());
/// # Ok(())
/// # }
/// ```
pub struct Transport {
    config: Config,
    listeners: SelectAll<Listener>,
    /// Shared with the listeners, which add and remove their ports, and with the dials, which choose one.
    ports: ListenPorts,
}

impl Transport {
    /// Returns a transport without a listener.
    pub fn new(config: Config) -> Self {
        Self { config, listeners: SelectAll::new(), ports: ListenPorts::default() }
    }
}

impl Default for Transport {
    fn default() -> Self {
        Self::new(Config::default())
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport")
            .field("config", &self.config)
            .field("listeners", &self.listeners.len())
            .finish_non_exhaustive()
    }
}

impl libp2p_core::Transport for Transport {
    type Output = TcpStream;
    type Error = io::Error;
    type ListenerUpgrade = Ready<io::Result<TcpStream>>;
    type Dial = BoxFuture<'static, io::Result<TcpStream>>;

    fn listen_on(&mut self, id: ListenerId, addr: Multiaddr) -> Result<(), TransportError<io::Error>> {
        let Some(socket_addr) = address::from_multiaddr(&addr) else {
            return Err(TransportError::MultiaddrNotSupported(addr));
        };
        let listener =
            Listener::new(id, &self.config, socket_addr, self.ports.clone()).map_err(TransportError::Other)?;
        self.listeners.push(listener);
        Ok(())
    }

    /// Closes the listening socket at once. [`TransportEvent::ListenerClosed`] follows. Accepted connections stay open.
    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.listeners.iter_mut().any(|listener| listener.close(id))
    }

    fn dial(&mut self, addr: Multiaddr, opts: DialOpts) -> Result<Self::Dial, TransportError<io::Error>> {
        match address::from_multiaddr(&addr) {
            Some(remote) if remote.port() != 0 && !remote.ip().is_unspecified() => {
                Ok(dial::dial(self.config.clone(), remote, opts.port_use, self.ports.clone()).boxed())
            }
            Some(_) | None => Err(TransportError::MultiaddrNotSupported(addr)),
        }
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<TransportEvent<Self::ListenerUpgrade, io::Error>> {
        match self.listeners.poll_next_unpin(cx) {
            Poll::Ready(Some(event)) => Poll::Ready(event),
            // Without a listener there is nothing to wait for. The swarm polls again after it has added one.
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}
