use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};

use futures::FutureExt;
use kadence::libp2p::{
    Multiaddr, Transport, TransportError,
    core::transport::{DialOpts, ListenerId, PortUse, TransportEvent},
    multiaddr::Protocol,
    tcp,
};
use socket2::{Domain, Socket, Type};

type Inner = tcp::tokio::Transport;

/// libp2p's TCP transport, but for ports that another program has.
///
/// - Listening on a port on which another socket listens is an error. libp2p's listeners share their port with the
///   sockets that dial from it, and so also with the listener of another program, which then gets a part of the
///   connections.
/// - A dial from the port of a listener uses a new port if the system refuses that one, because a socket with another
///   local address has it. libp2p's dials fail for as long as that socket exists.
pub(crate) struct TcpTransport(Inner);

impl TcpTransport {
    pub(crate) fn new() -> Self {
        Self(Inner::new(tcp::Config::default().nodelay(true)))
    }
}

impl Transport for TcpTransport {
    type Output = <Inner as Transport>::Output;
    type Error = <Inner as Transport>::Error;
    type ListenerUpgrade = <Inner as Transport>::ListenerUpgrade;
    type Dial = <Inner as Transport>::Dial;

    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<io::Error>> {
        if let Some(socket) = socket_of(&address) {
            check_port_is_free(socket).map_err(TransportError::Other)?;
        }
        self.0.listen_on(id, address)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.0.remove_listener(id)
    }

    fn dial(&mut self, address: Multiaddr, options: DialOpts) -> Result<Self::Dial, TransportError<io::Error>> {
        let dial = self.0.dial(address.clone(), options)?;
        match options.port_use {
            PortUse::New => Ok(dial),
            PortUse::Reuse => Ok(dial_from_new_port_if_in_use(dial, address, options).boxed()),
        }
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, Self::Error>> {
        Pin::new(&mut self.0).poll(cx)
    }
}

async fn dial_from_new_port_if_in_use(
    dial: <Inner as Transport>::Dial,
    address: Multiaddr,
    options: DialOpts,
) -> io::Result<<Inner as Transport>::Output> {
    match dial.await {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            // A new port depends on nothing of the transport that listens.
            let new_port = DialOpts { port_use: PortUse::New, ..options };
            TcpTransport::new().0.dial(address, new_port).map_err(io::Error::other)?.await
        }
        result => result,
    }
}

/// Returns the address of a socket, if libp2p's TCP transport would listen there.
fn socket_of(address: &Multiaddr) -> Option<SocketAddr> {
    let mut parts = address.iter();
    let ip = match parts.next()? {
        Protocol::Ip4(ip) => ip.into(),
        Protocol::Ip6(ip) => ip.into(),
        _ => return None,
    };
    match parts.next()? {
        Protocol::Tcp(port) => Some(SocketAddr::new(ip, port)),
        _ => None,
    }
}

fn check_port_is_free(addr: SocketAddr) -> io::Result<()> {
    if addr.port() == 0 {
        return Ok(());
    }
    let probe = Socket::new(Domain::for_address(addr), Type::STREAM, Some(socket2::Protocol::TCP))?;
    if addr.is_ipv6() {
        // As libp2p's listeners: one on the same IPv4 port is another one.
        probe.set_only_v6(true)?;
    }
    // Connections of an earlier program may linger. On Windows the option means more.
    #[cfg(unix)]
    probe.set_reuse_address(true)?;
    probe.bind(&addr.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_those_of_tcp() {
        for (address, socket) in [
            ("/ip4/127.0.0.1/tcp/4001", Some("127.0.0.1:4001")),
            ("/ip6/::1/tcp/4001", Some("[::1]:4001")),
            ("/ip4/127.0.0.1/udp/4001/quic-v1", None),
            ("/memory/7", None),
        ] {
            assert_eq!(socket_of(&address.parse().unwrap()), socket.map(|socket| socket.parse().unwrap()), "{address}");
        }
    }
}
