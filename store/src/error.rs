#[cfg(feature = "disk")]
use std::path::PathBuf;
use std::{error::Error, sync::Arc};

use kadence_core::ValidationError;
use libp2p::kad::store;
use thiserror::Error;

/// Why a store does not take a record or a provider.
///
/// kad's own error knows three reasons; [`store::Error`] is made of this one by the nearest of them, and
/// [`StoreStats`](crate::StoreStats) counts the true one.
#[derive(Debug, Clone, Error)]
pub enum Refusal {
    /// The value is too long. Split what it says, or put a pointer to it.
    #[error("a value of {bytes} bytes is longer than the {max} that are stored")]
    ValueTooLarge {
        /// Its length.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// The key is too long. Use a hash of it.
    #[error("a key of {bytes} bytes is longer than the {max} that are stored")]
    KeyTooLong {
        /// Its length.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// It expired before it came. Nothing is to be done.
    #[error("it has expired already")]
    Expired,
    /// The validator of its namespace does not want it. To put it again is of no use.
    #[error("the record is invalid")]
    Invalid(#[source] ValidationError),
    /// No validator is registered for the namespace, and the store is configured to require one.
    #[error("nobody can say whether the record is valid")]
    NoValidator,
    /// A better record is stored. Read it, and put one that is better still.
    #[error("a better record is stored under this key")]
    Worse,
    /// A plain record of our own stands under this key.
    #[error("a record of this node's own is stored under this key")]
    Ours,
    /// The store is full of what is closer to this node, or its own. Other nodes are closer to the key.
    #[error("the store is full of what is closer to this node")]
    Full,
    /// The publisher, or the provider, has as much as one may have, and all of that is closer to this node.
    #[error("its publisher or provider has as much here as one may have")]
    ShareFull,
    /// The key has as many providers as are kept. kad is told nothing of it, as by its own store.
    #[error("the key has as many providers as are kept")]
    KeyFull,
    /// The file cannot be written. Nothing was stored, in memory neither.
    #[error("the store's file cannot be written")]
    Disk(#[source] DiskError),
}

impl Refusal {
    pub(crate) fn of_record(&self) -> store::Error {
        match self {
            Self::ValueTooLarge { .. } | Self::KeyTooLong { .. } => store::Error::ValueTooLarge,
            Self::Expired
            | Self::Invalid(_)
            | Self::NoValidator
            | Self::Worse
            | Self::Ours
            | Self::Full
            | Self::ShareFull
            | Self::KeyFull
            | Self::Disk(_) => store::Error::MaxRecords,
        }
    }
}

/// The file could not be read or written: the disk is full, has failed, or does not let us.
#[derive(Debug, Clone, Error)]
#[error("{0}")]
pub struct DiskError(Arc<dyn Error + Send + Sync>);

#[cfg(feature = "disk")]
impl DiskError {
    pub(crate) fn new(error: impl Error + Send + Sync + 'static) -> Self {
        Self(Arc::new(error))
    }
}

/// Why a store's file cannot be opened.
#[cfg(feature = "disk")]
#[derive(Debug, Error)]
pub enum StoreOpenError {
    /// Another store, of this process or another one, has the file open.
    #[error("{} is in use by another store", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The file is something else, and was left alone.
    #[error("{} is not a store's file", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// A later version of this crate has written the file. It was left alone.
    #[error("{} has version {found} of the format; this program knows {known}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// The file's version.
        found: i64,
        /// The latest that is known.
        known: i64,
    },
    /// The file is damaged, by a failing disk or another program. It was left alone: move it away to begin anew; what it
    /// held of others comes back by replication, what was published here has to be put again.
    #[error("{} is damaged: {what}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where it was seen.
        what: String,
    },
    /// The file can be neither opened nor made.
    #[error("{} cannot be used", path.display())]
    Disk {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        error: DiskError,
    },
}
