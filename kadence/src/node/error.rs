use std::{io, path::PathBuf, time::Duration};

use libp2p::{Multiaddr, TransportError};
use thiserror::Error;

use crate::DriverClosedError;

/// Error of starting a node, of adding a peer to a node, or of [`Identity::load`](super::Identity::load).
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum NodeError {
    /// The identity file exists and cannot be read, does not exist and cannot be created, or does not contain a key
    /// pair that this program supports.
    #[error("identity file {} cannot be used", path.display())]
    Identity {
        /// The file.
        path: PathBuf,
        /// Cause.
        #[source]
        error: io::Error,
    },
    /// An address in [`NodeConfig::bootstrap_peers`](field@super::NodeConfig::bootstrap_peers) or passed to
    /// [`Node::add_peer`](super::Node::add_peer) has no peer id at the end, or nothing before the peer id of another
    /// node.
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
    /// The store's file cannot be opened, for example because another node has the file open, because it is not a
    /// store's file, or because it is damaged. The source names the reason.
    #[cfg(feature = "disk")]
    #[error("store cannot be opened")]
    Store(#[source] kadence_store::StoreOpenError),
    /// The transport cannot be created.
    #[error("transport cannot be created")]
    Transport(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A listener cannot be opened, for example because its address is in use, is not an address of this machine, or is
    /// not supported by the transport. A listener that fails after it was opened causes an event of the swarm and no
    /// error.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: Multiaddr,
        /// Cause.
        #[source]
        error: TransportError<io::Error>,
    },
    /// The node's task has ended, for example after a shutdown or a panic, or the runtime has dropped the task.
    #[error(transparent)]
    Closed(#[from] DriverClosedError),
}

/// Error of [`Node::ready`](super::Node::ready).
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum ReadyError {
    /// Until the timeout passed, no peer announced that it serves the network's kad protocol, or the routing table was
    /// empty. Check the addresses of the bootstrap peers and the name of the protocol.
    #[error("no peer of this network found within {timeout:?}{}", because(last_dial_error.as_deref()))]
    NoPeer {
        /// Timeout that has passed.
        timeout: Duration,
        /// Error of the last dial, to any peer, that has failed since the start of the node. `None` if no dial has
        /// failed. A dial that libp2p refused to begin does not count.
        last_dial_error: Option<String>,
    },
    /// The node's task ended before a first peer was found, or the runtime has dropped the task.
    #[error(transparent)]
    Closed(DriverClosedError),
}

fn because(reason: Option<&str>) -> String {
    reason.map_or_else(String::new, |reason| format!(": {reason}"))
}
