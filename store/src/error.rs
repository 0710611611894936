#[cfg(feature = "disk")]
use std::path::PathBuf;
use std::{error::Error, sync::Arc};

use thiserror::Error;

/// Error of reading or writing the file: the disk is full, has failed, or access was denied.
#[derive(Debug, Clone, Error)]
#[error("{0}")]
pub struct DiskError(Arc<dyn Error + Send + Sync>);

#[cfg(feature = "disk")]
impl DiskError {
    pub(crate) fn new(error: impl Error + Send + Sync + 'static) -> Self {
        Self(Arc::new(error))
    }
}

/// Error of opening a store's file. A file that is in use, of another kind or of a later version is unchanged. A
/// damaged one may have been upgraded or switched to WAL mode before the damage was found; its contents are not
/// repaired.
#[cfg(feature = "disk")]
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StoreOpenError {
    /// Another store has the file open, in this process or another one.
    #[error("{} is in use by another store", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The file is something else. Choose another path.
    #[error("{} is not a store's file", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// A later version of this crate has written the file. Use that version.
    #[error("{} has version {found} of the format: this program knows versions up to {known}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Version of the file.
        found: i64,
        /// Latest known version.
        known: i64,
    },
    /// The file was damaged by a failing disk or another program. Move it away to begin anew: records of others come
    /// back by replication, the node's own have to be put again.
    #[error("{} is damaged: {what}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Place of the damage.
        what: String,
    },
    /// The file can be neither opened nor created.
    #[error("{} cannot be used", path.display())]
    Disk {
        /// The file.
        path: PathBuf,
        /// Cause.
        #[source]
        error: DiskError,
    },
}

#[cfg(feature = "disk")]
impl From<kadence_sqlite::DatabaseOpenError> for StoreOpenError {
    fn from(error: kadence_sqlite::DatabaseOpenError) -> Self {
        use kadence_sqlite::DatabaseOpenError as E;
        match error {
            E::InUse { path } => Self::InUse { path },
            E::Foreign { path } => Self::Foreign { path },
            E::Version { path, found, known } => Self::Version { path, found, known },
            E::Damaged { path, what } => Self::Corrupt { path, what },
            E::Failed { path, error } => Self::Disk { path, error: DiskError::new(error) },
        }
    }
}
