#[cfg(feature = "disk")]
use std::path::PathBuf;
use std::{error::Error, sync::Arc};

use thiserror::Error;

/// Error of using a store's file, for example because the disk is full or has failed, access was denied, or another
/// connection has locked the file.
#[derive(Debug, Clone, Error)]
#[error("{0}")]
pub struct DiskError(Arc<dyn Error + Send + Sync>);

#[cfg(feature = "disk")]
impl DiskError {
    pub(crate) fn new(error: impl Error + Send + Sync + 'static) -> Self {
        Self(Arc::new(error))
    }
}

/// Error of opening a store's file. The content of a file of another kind or of a later version is unchanged. Any other
/// file may have been created, upgraded to the current format or switched to WAL mode before the error. A damaged file
/// is not repaired.
#[cfg(feature = "disk")]
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StoreOpenError {
    /// Another store has the file open, in this process or another one, or another connection has locked the file or
    /// the lock file next to it (`.lock`).
    #[error("{} is in use by another store", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The file is not a store's file, or the lock file next to it (`.lock`) is not an SQLite database. Choose another
    /// path.
    #[error("{} is not a store's file", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The number of the file's format is higher than the latest one that this version of the crate knows, or negative.
    /// Usually a later version of this crate has written the file: use that version.
    #[error("{} has version {found} of the format: this program knows versions up to {known}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Number of the file's format.
        found: i64,
        /// Number of the latest format that this version knows.
        known: i64,
    },
    /// The file, or the lock file next to it (`.lock`), is damaged, for example by a failing disk or another program.
    /// Delete the lock file if it is the damaged one. Otherwise move the file away to begin with an empty store: peers
    /// send their records and announcements again when they republish or replicate them; the node's own records have to
    /// be put again, and its own providers announced again.
    #[error("{} is damaged: {what}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Description of the damage.
        what: String,
    },
    /// The file cannot be opened, created, read or written, or a file next to it cannot (`-wal`, `-shm`, `.lock`), or
    /// the thread that flushes the file cannot be started.
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
