use std::{io, net::SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};

/// Options of the sockets of a [`Transport`](super::Transport). The defaults are those of libp2p's own TCP transport.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    nodelay: bool,
    ttl: Option<u32>,
    backlog: u32,
}

impl Config {
    /// Returns the defaults: `TCP_NODELAY` set, a backlog of 1,024 connections, the system's time to live.
    pub fn new() -> Self {
        Self { nodelay: true, ttl: None, backlog: 1024 }
    }

    /// Sets `TCP_NODELAY`. If true, small writes are sent at once instead of being collected. Default: `true`, because
    /// libp2p's protocols send small messages and wait for a response.
    #[must_use]
    pub fn nodelay(mut self, nodelay: bool) -> Self {
        self.nodelay = nodelay;
        self
    }

    /// Sets the maximum number of hops of a packet: the time to live of IPv4, the hop limit of IPv6. Use 1 to 255:
    /// listening and dialling fail if the system rejects the value. Default: the system's.
    #[must_use]
    pub fn ttl(mut self, hops: u32) -> Self {
        self.ttl = Some(hops);
        self
    }

    /// Sets the maximum number of connections of a listener that wait to be accepted. The system may use a lower
    /// maximum, and refuses or ignores further connections. Default: 1,024.
    #[must_use]
    pub fn listen_backlog(mut self, connections: u32) -> Self {
        self.backlog = connections;
        self
    }

    /// Returns a bound and listening socket.
    pub(super) fn listen(&self, addr: SocketAddr) -> io::Result<std::net::TcpListener> {
        check_port_is_free(addr)?;
        let socket = self.socket(addr, true)?;
        socket.bind(&addr.into())?;
        socket.listen(i32::try_from(self.backlog).unwrap_or(i32::MAX))?;
        Ok(socket.into())
    }

    /// Returns a non-blocking socket of the IP version of `addr`. With `shared_port`, it can be bound to the port of
    /// other such sockets.
    pub(super) fn socket(&self, addr: SocketAddr, shared_port: bool) -> io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        if addr.is_ipv6() {
            // Otherwise it would accept IPv4 connections, too, and a listener on the same IPv4 port would fail.
            socket.set_only_v6(true)?;
        }
        self.set_options(&socket, addr)?;
        if shared_port {
            share_port(&socket)?;
        }
        socket.set_nonblocking(true)?;
        Ok(socket)
    }

    fn set_options(&self, socket: &Socket, addr: SocketAddr) -> io::Result<()> {
        socket.set_tcp_nodelay(self.nodelay)?;
        match (self.ttl, addr) {
            (None, _) => Ok(()),
            (Some(hops), SocketAddr::V4(_)) => socket.set_ttl_v4(hops),
            (Some(hops), SocketAddr::V6(_)) => socket.set_unicast_hops_v6(hops),
        }
    }

    /// Sets the options of an accepted connection. Not every system lets it inherit the listener's.
    pub(super) fn set_accepted(&self, stream: &std::net::TcpStream) {
        // It fails if the remote has closed the connection, which the first read reports.
        if let Err(error) = stream.set_nodelay(self.nodelay) {
            tracing::debug!(%error, "cannot set TCP_NODELAY of an accepted connection");
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::new()
    }
}

/// Fails if another socket listens on a port. A listener shares its port with the sockets that dial from it, and could
/// share it with the listener of another program: each would get a part of the connections.
fn check_port_is_free(addr: SocketAddr) -> io::Result<()> {
    if addr.port() == 0 {
        return Ok(());
    }
    let probe = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        probe.set_only_v6(true)?;
    }
    // Connections of an earlier program may linger. On Windows the option means more.
    #[cfg(unix)]
    probe.set_reuse_address(true)?;
    probe.bind(&addr.into())
}

#[cfg(all(unix, not(any(target_os = "solaris", target_os = "illumos"))))]
fn share_port(socket: &Socket) -> io::Result<()> {
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)
}

// Elsewhere there is only `SO_REUSEADDR`. On Windows it already means both.
#[cfg(not(all(unix, not(any(target_os = "solaris", target_os = "illumos")))))]
fn share_port(socket: &Socket) -> io::Result<()> {
    socket.set_reuse_address(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_reach_the_socket() {
        let loopback: SocketAddr = ([127, 0, 0, 1], 0).into();
        let socket = Config::new().nodelay(false).ttl(7).socket(loopback, true).unwrap();
        assert!(!socket.tcp_nodelay().unwrap());
        assert_eq!(socket.ttl_v4().unwrap(), 7);
        assert!(Config::default().socket(loopback, false).unwrap().tcp_nodelay().unwrap());
        assert!(Config::default().ttl(100_000).socket(loopback, false).is_err());
    }

    #[test]
    fn a_port_that_another_socket_listens_on_is_in_use() {
        let first = Config::default().listen(([127, 0, 0, 1], 0).into()).unwrap();
        let addr = first.local_addr().unwrap();
        let second = Config::default().listen(addr).unwrap_err();
        assert_eq!(second.kind(), io::ErrorKind::AddrInUse);
        // A socket that dials from the port does not listen.
        let dialling = Config::default().socket(addr, true).unwrap();
        dialling.bind(&addr.into()).unwrap();
        drop(first);
        Config::default().listen(addr).unwrap();
    }

    #[test]
    fn an_ipv6_socket_has_a_hop_limit_and_takes_no_ipv4() {
        let loopback: SocketAddr = "[::1]:0".parse().unwrap();
        match Config::default().ttl(7).socket(loopback, false) {
            Ok(socket) => {
                assert_eq!(socket.unicast_hops_v6().unwrap(), 7);
                assert!(socket.only_v6().unwrap());
            }
            Err(error) => println!("skipped: no IPv6 here ({error})"),
        }
    }
}
