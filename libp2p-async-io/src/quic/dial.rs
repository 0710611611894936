use std::{net::SocketAddr, sync::Arc};

use libp2p_core::PeerId;
use quinn::{ConnectError, Connecting, Endpoint};

use super::{Connection, Error, config::Parts, connection::handshake, endpoint, runtime::Tasks};

/// Connects to `remote`, from the socket of `shared` if that is given. Dropping the future cancels the connection.
pub(super) async fn dial(
    config: Parts,
    remote: SocketAddr,
    shared: Option<Endpoint>,
    tasks: Arc<Tasks>,
) -> Result<(PeerId, Connection), Error> {
    let connecting = match shared.map(|endpoint| connect(&endpoint, &config, remote)) {
        Some(Ok(connecting)) => connecting,
        Some(Err(error)) => {
            tracing::debug!(%remote, %error, "the shared socket cannot be used, taking a new one");
            connect_from_new(&config, remote, tasks)?
        }
        None => connect_from_new(&config, remote, tasks)?,
    };
    handshake(connecting, config.handshake_timeout).await
}

fn connect_from_new(config: &Parts, remote: SocketAddr, tasks: Arc<Tasks>) -> Result<Connecting, Error> {
    let endpoint = endpoint::client(config, remote, tasks)?;
    connect(&endpoint, config, remote).map_err(Error::dial)
}

fn connect(endpoint: &Endpoint, config: &Parts, remote: SocketAddr) -> Result<Connecting, ConnectError> {
    // TLS wants a name and sends it along, unless it is an IP address.
    endpoint.connect_with(config.client.clone(), remote, &remote.ip().to_string())
}
