use std::{
    error::Error,
    path::{Path, PathBuf},
    sync::Arc,
};

use rusqlite::ErrorCode;
use thiserror::Error;

/// Error of opening a database file. The content of a file of another kind or of a later version is unchanged; any
/// other file may have been created, upgraded or switched to WAL mode before the error. An error of
/// [`FileLock::acquire`](crate::FileLock::acquire) is about the file with the suffix `.lock`, but names the file to
/// lock as its path.
#[derive(Debug, Clone, Error)]
pub enum DatabaseOpenError {
    /// Another connection, in this process or another one, has locked the file. Close that connection, or try again.
    #[error("{} is in use by another process", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The file is not an SQLite database, or belongs to another application. Choose another path.
    #[error("{} is a file of another kind", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The version of the file is higher than the number of steps in the [`Format`](crate::Format), or negative.
    /// Usually a later version of the program has written the file: use that version.
    #[error("{} has version {found} of its format: this program knows versions up to {known}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Version of the file, in steps.
        found: i64,
        /// Latest version that this program knows, in steps.
        known: i64,
    },
    /// The file is damaged, for example by a failing disk or another program. Restore a copy, or move the file away to
    /// begin anew.
    #[error("{} is damaged: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Description of the damage.
        what: String,
    },
    /// The file cannot be opened, created, read or upgraded for any other reason: for example, access is denied or the
    /// disk is full.
    #[error("{} cannot be opened", path.display())]
    Failed {
        /// The file.
        path: PathBuf,
        /// Cause.
        #[source]
        error: DatabaseError,
    },
}

impl DatabaseOpenError {
    /// Converts an error of a database into the error of opening its file, at `path`: [`DatabaseError::Busy`] becomes
    /// `InUse`, [`DatabaseError::Full`] and [`DatabaseError::Failed`] become `Failed`, and the others keep their names.
    pub fn new(path: &Path, error: DatabaseError) -> Self {
        let path = path.to_owned();
        match error {
            DatabaseError::Busy => Self::InUse { path },
            DatabaseError::Foreign => Self::Foreign { path },
            DatabaseError::Damaged(what) => Self::Damaged { path, what },
            DatabaseError::Full | DatabaseError::Failed(_) => Self::Failed { path, error },
        }
    }
}

/// Error of reading or writing a database. By default, SQLite undoes the changes of a statement that fails.
#[derive(Debug, Clone, Error)]
pub enum DatabaseError {
    /// The file is damaged, or contains a value of an unexpected type or range. Restore a copy, or move the file away
    /// to begin anew.
    #[error("the file is damaged: {0}")]
    Damaged(String),
    /// The file is not an SQLite database, or belongs to another application.
    #[error("the file is of another kind")]
    Foreign,
    /// The file is locked. Usually another connection, in this process or another one, has kept the file locked for
    /// longer than this connection's timeout; SQLite also reports some conflicts at once. Repeat the whole transaction.
    #[error("the file is locked by another process")]
    Busy,
    /// The disk is full, or the database has SQLite's maximum size. Free some space, and try again.
    #[error("the disk is full")]
    Full,
    /// Any other failure: for example, the disk has failed, access was denied, or a statement is invalid.
    #[error("the file cannot be read or written")]
    Failed(#[source] Arc<dyn Error + Send + Sync>),
}

impl From<rusqlite::Error> for DatabaseError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => Self::Foreign,
            Some(ErrorCode::DatabaseCorrupt) => Self::Damaged(error.to_string()),
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy,
            Some(ErrorCode::DiskFull) => Self::Full,
            _ => match error {
                // In strict tables only damage puts a value of another type into a column.
                error @ (rusqlite::Error::FromSqlConversionFailure(..)
                | rusqlite::Error::IntegralValueOutOfRange(..)
                | rusqlite::Error::InvalidColumnType(..)) => Self::Damaged(error.to_string()),
                error => Self::Failed(Arc::new(error)),
            },
        }
    }
}
