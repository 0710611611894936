use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::Arc,
};

use quinn::{Endpoint, ServerConfig};
use socket2::{Domain, Protocol, Socket, Type};

use super::{config::Parts, runtime::Tasks};

/// Opens a socket bound to `addr`, with a task that reads from it. The task ends with the last handle and connection.
pub(super) fn open(
    config: &Parts,
    server: Option<ServerConfig>,
    addr: SocketAddr,
    tasks: Arc<Tasks>,
) -> io::Result<Endpoint> {
    Endpoint::new(config.endpoint.clone(), server, socket(addr)?, tasks)
}

/// Opens a socket at any free port to dial `remote` from. It accepts no connections.
pub(super) fn client(config: &Parts, remote: SocketAddr, tasks: Arc<Tasks>) -> io::Result<Endpoint> {
    let any = match remote {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    open(config, None, any, tasks)
}

fn socket(addr: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if addr.is_ipv6() {
        // Otherwise it would also occupy the IPv4 port of the same number.
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    Ok(socket.into())
}
