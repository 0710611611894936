use std::{io, path::PathBuf, time::Duration};

use libp2p::{Multiaddr, TransportError};
use thiserror::Error;

use crate::DriverClosedError;

/// Error of starting a node or adding a peer.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum NodeError {
    /// The identity file can be neither read nor created, or does not contain a key pair that this program supports.
    #[error("identity file {} cannot be used", path.display())]
    Identity {
        /// The file.
        path: PathBuf,
        /// Cause.
        #[source]
        error: io::Error,
    },
    /// The address of a peer has no peer id at the end, or nothing before the peer id.
    #[error("address {address} is incomplete: append /p2p/<peer id> to the address that the peer listens on")]
    NoPeerId {
        /// The address.
        address: Multiaddr,
    },
    /// The address passed to [`Node::add_peer`](super::Node::add_peer) ends with this node's own peer id.
    #[error("address {address} is this node's own")]
    OwnAddress {
        /// The address.
        address: Multiaddr,
    },
    /// The store's file cannot be opened: another node has it open, it is not a store's file, a later version has
    /// written it, it is damaged, or access failed. The source names the reason.
    #[cfg(feature = "disk")]
    #[error("store cannot be opened")]
    Store(#[source] kadence_store::StoreOpenError),
    /// The transport cannot be created.
    #[error("transport cannot be created")]
    Transport(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// An address cannot be listened on, for example because it is in use, is not an address of this machine, or is not
    /// supported by the transport.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: Multiaddr,
        /// Cause.
        #[source]
        error: TransportError<io::Error>,
    },
    /// The node's task has ended, or the runtime ended before it ran the task.
    #[error(transparent)]
    Closed(#[from] DriverClosedError),
}

/// Error of [`Node::ready`](super::Node::ready).
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum ReadyError {
    /// No peer has announced within the timeout that it serves the network's kad protocol, or the routing table was
    /// empty. Check the addresses of the bootstrap peers and the name of the protocol.
    #[error("no peer of this network found within {timeout:?}{}", because(last_dial_error.as_deref()))]
    NoPeer {
        /// Timeout that has passed.
        timeout: Duration,
        /// Error of the last failed dial since the start of the node. `None` if no dial has failed.
        last_dial_error: Option<String>,
    },
    /// The node has ended, or the runtime ended before it ran the node's task.
    #[error(transparent)]
    Closed(DriverClosedError),
}

fn because(reason: Option<&str>) -> String {
    reason.map_or_else(String::new, |reason| format!(": {reason}"))
}
