use std::{io, path::PathBuf, time::Duration};

use libp2p::{Multiaddr, TransportError};
use thiserror::Error;

use crate::DriverClosedError;

/// Error of starting a node or adding a peer.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum NodeError {
    /// The identity file can be neither read nor created, or contains something else.
    #[error("identity file {} cannot be used", path.display())]
    Identity {
        /// The file.
        path: PathBuf,
        /// Cause.
        #[source]
        error: io::Error,
    },
    /// A peer's address has no peer id at the end, or nothing before it.
    #[error("address {address} is incomplete: append /p2p/<peer id> to the address that the peer listens on")]
    NoPeerId {
        /// The address.
        address: Multiaddr,
    },
    /// A peer's address is this node's own.
    #[error("address {address} is this node's own")]
    OwnAddress {
        /// The address.
        address: Multiaddr,
    },
    /// The store's file cannot be opened, and was left unchanged. The source tells whether another node has it, it is
    /// something else, it is damaged, or access failed.
    #[cfg(feature = "disk")]
    #[error("store cannot be opened")]
    Store(#[source] kadence_store::StoreOpenError),
    /// The transport cannot be created.
    #[error("transport cannot be created")]
    Transport(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// An address cannot be listened on: it is in use, not one of this machine, or not supported by the transport.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: Multiaddr,
        /// Cause.
        #[source]
        error: TransportError<io::Error>,
    },
    /// The node's task has ended, or its runtime stopped before running it.
    #[error(transparent)]
    Closed(#[from] DriverClosedError),
}

/// Error of waiting until a node is ready.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum ReadyError {
    /// No peer that speaks the network's protocol was found in time. Check the addresses of the bootstrap peers and the name
    /// of the protocol.
    #[error("no peer of this network found within {timeout:?}{}", because(last_dial_error.as_deref()))]
    NoPeer {
        /// Time that was waited.
        timeout: Duration,
        /// Error of the last failed dial, if there was one.
        last_dial_error: Option<String>,
    },
    /// The node has ended, or its runtime ended before it started.
    #[error(transparent)]
    Closed(DriverClosedError),
}

fn because(reason: Option<&str>) -> String {
    reason.map_or_else(String::new, |reason| format!(": {reason}"))
}
