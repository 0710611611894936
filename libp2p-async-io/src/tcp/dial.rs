use std::{io, net::SocketAddr};

use async_io::Async;
use libp2p_core::transport::PortUse;
use socket2::Socket;

use super::{Config, TcpStream, port_reuse::ListenPorts};

/// Connects to `remote`. Dropping the future closes the socket.
pub(super) async fn dial(
    config: Config,
    remote: SocketAddr,
    port_use: PortUse,
    ports: ListenPorts,
) -> io::Result<TcpStream> {
    let local = match port_use {
        PortUse::Reuse => ports.local_end(remote),
        PortUse::New => None,
    };
    if let Some(local) = local {
        match connect_from_shared(&config, local, remote).await {
            Ok(stream) => return Ok(stream),
            Err(Failed::Connect(error)) => return Err(error),
            Err(Failed::Port(error)) => {
                tracing::debug!(%remote, %local, %error, "cannot reuse the listening port: dialling from a new one");
            }
        }
    }
    connect(&config, None, remote).await
}

/// Connects to `remote`, from `local` if that is given.
pub(crate) async fn connect(config: &Config, local: Option<SocketAddr>, remote: SocketAddr) -> io::Result<TcpStream> {
    let socket = config.socket(remote, false)?;
    if let Some(local) = local {
        socket.bind(&local.into())?;
    }
    finish(socket, remote).await
}

/// Error of a connection from a listener's port.
enum Failed {
    /// Error of the port. Another one may work.
    Port(io::Error),
    Connect(io::Error),
}

async fn connect_from_shared(config: &Config, local: SocketAddr, remote: SocketAddr) -> Result<TcpStream, Failed> {
    let socket = config.socket(remote, true).map_err(Failed::Port)?;
    socket.bind(&local.into()).map_err(Failed::Port)?;
    finish(socket, remote).await.map_err(|error| match error.kind() {
        // The pair of addresses has a connection, or had one shortly before.
        io::ErrorKind::AddrNotAvailable | io::ErrorKind::AddrInUse => Failed::Port(error),
        _ => Failed::Connect(error),
    })
}

async fn finish(socket: Socket, remote: SocketAddr) -> io::Result<TcpStream> {
    match socket.connect(&remote.into()) {
        Ok(()) => {}
        Err(error) if in_progress(&error) => {}
        Err(error) => return Err(error),
    }
    let stream = Async::new_nonblocking(std::net::TcpStream::from(socket))?;
    // A writable socket is connected or has failed.
    stream.writable().await?;
    if let Some(error) = stream.get_ref().take_error()? {
        return Err(error);
    }
    let socket = stream.get_ref();
    // Two sockets that dial each other at the same time get one connection, even if they are the same socket.
    if socket.local_addr().ok() == socket.peer_addr().ok() {
        return Err(io::Error::new(io::ErrorKind::AddrInUse, "socket was connected to itself"));
    }
    Ok(TcpStream::new(stream))
}

fn in_progress(error: &io::Error) -> bool {
    #[cfg(unix)]
    if error.raw_os_error() == Some(libc::EINPROGRESS) {
        return true;
    }
    error.kind() == io::ErrorKind::WouldBlock
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_socket_connected_to_itself_is_an_error() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let connected = async_io::block_on(connect(&Config::default(), Some(free), free));
        assert_eq!(connected.unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
