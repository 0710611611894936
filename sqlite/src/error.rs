use std::{
    error::Error,
    path::{Path, PathBuf},
    sync::Arc,
};

use rusqlite::ErrorCode;
use thiserror::Error;

/// Error of opening a database file. A file of another kind or of a later version is unchanged; any other may have been
/// upgraded or switched to WAL mode before the error.
#[derive(Debug, Clone, Error)]
pub enum DatabaseOpenError {
    /// Another connection has locked the file, in this process or another one. Close that connection, or try again.
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
    /// A later version of the program, with more steps in its [`Format`](crate::Format), has written the file. Use that
    /// version.
    #[error("{} has version {found} of its format: this program knows versions up to {known}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Version of the file, in steps.
        found: i64,
        /// Latest version that this program knows, in steps.
        known: i64,
    },
    /// The file was damaged by a failing disk or another program. Restore a copy, or move the file away to begin anew.
    #[error("{} is damaged: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Description of the damage.
        what: String,
    },
    /// The file cannot be opened, created or upgraded, for example because access is denied or the disk is full.
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
    /// Returns the error of opening the file at `path` for an error of its database: [`DatabaseError::Busy`] becomes
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

/// Error of reading or writing a database. A statement that failed has changed nothing.
#[derive(Debug, Clone, Error)]
pub enum DatabaseError {
    /// The file is damaged, or contains a value of an unexpected type. Restore a copy, or move the file away to begin
    /// anew.
    #[error("the file is damaged: {0}")]
    Damaged(String),
    /// The file is not an SQLite database, or belongs to another application.
    #[error("the file is of another kind")]
    Foreign,
    /// Another connection, in this process or another one, has kept the file locked for longer than the connection's
    /// timeout. Try again.
    #[error("the file is locked by another process")]
    Busy,
    /// The disk is full. Free some space, and try again.
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
