#[cfg(feature = "disk")]
use std::path::PathBuf;
use std::{error::Error, sync::Arc};

use thiserror::Error;

/// Error of reading or writing a store's file, for example because the disk is full or has failed, access was denied,
/// or another process has locked the file.
#[derive(Debug, Clone, Error)]
#[error("{0}")]
pub struct DiskError(Arc<dyn Error + Send + Sync>);

#[cfg(feature = "disk")]
impl DiskError {
    pub(crate) fn new(error: impl Error + Send + Sync + 'static) -> Self {
        Self(Arc::new(error))
    }
}

/// Error of opening a store's file. A file that is in use, of another kind or of a later version is unchanged. Any
/// other file may have been upgraded to the current format or switched to WAL mode before the error. A damaged file is
/// not repaired.
#[cfg(feature = "disk")]
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StoreOpenError {
    /// Another store has the file open, in this process or another one, or another program has locked the database.
    #[error("{} is in use by another store", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The file is not a store's file. Choose another path.
    #[error("{} is not a store's file", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// A later version of this crate, with another format, has written the file. Use that version.
    #[error("{} has version {found} of the format: this program knows versions up to {known}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Number of the file's format.
        found: i64,
        /// Number of the latest format that this version knows.
        known: i64,
    },
    /// The file was damaged by a failing disk or another program. Move the file away to begin with an empty store:
    /// peers send their records again when they republish or replicate them, and the node's own records have to be put
    /// again.
    #[error("{} is damaged: {what}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Description of the damage.
        what: String,
    },
    /// The file cannot be opened, created, read or written, or a file next to it cannot (`-wal`, `-shm`, `.lock`).
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
