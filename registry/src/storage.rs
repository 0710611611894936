use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use blocking::unblock;
use rusqlite::{Connection, Transaction, TransactionBehavior};
use thiserror::Error;

use crate::{
    DatabaseError, DatabaseOpenError,
    blob::BlobError,
    database::{self, Format},
};

/// An SQLite database that one process uses exclusively. Cloning is cheap, and all clones are the same database.
///
/// Calls run on the thread pool for blocking work. A change is atomic, and it is on the disk when its call returns.
#[derive(Clone)]
pub(crate) struct Database {
    connection: Arc<Mutex<Connection>>,
    path: Arc<PathBuf>,
}

impl Database {
    /// Opens the database at `path`, and creates it if it does not exist.
    pub(crate) async fn open(path: PathBuf, format: Format) -> Result<Self, StorageError> {
        let opened = unblock(move || database::open(&path, format).map(|connection| (connection, path)));
        let (connection, path) = opened.await?;
        Ok(Self::of(connection, path))
    }

    /// Opens a database in memory, which ends with its last clone.
    pub(crate) async fn in_memory(format: Format) -> Result<Self, StorageError> {
        let connection = unblock(move || database::open_in_memory(format)).await?;
        Ok(Self::of(connection, PathBuf::from(":memory:")))
    }

    fn of(connection: Connection, path: PathBuf) -> Self {
        Self { connection: Arc::new(Mutex::new(connection)), path: Arc::new(path) }
    }

    /// Returns the error of an impossible value in the database.
    pub(crate) fn damaged(&self, what: String) -> StorageError {
        StorageError::Damaged { path: self.path.to_path_buf(), source: what.into() }
    }

    /// Runs `change` in a transaction, which is committed if `change` succeeds and rolled back otherwise.
    pub(crate) async fn transaction<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StorageError> {
        let Self { connection, path } = self.clone();
        unblock(move || {
            // A panic inside a transaction rolls it back, so that a poisoned lock is usable.
            let mut connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
            let run = |connection: &mut Connection| -> rusqlite::Result<T> {
                let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
                let done = change(&transaction)?;
                transaction.commit()?;
                Ok(done)
            };
            run(&mut connection).map_err(|error| failed(&path, DatabaseError::from(error)))
        })
        .await
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("path", &self.path).finish_non_exhaustive()
    }
}

fn failed(path: &Path, error: DatabaseError) -> StorageError {
    let path = path.to_owned();
    match error {
        DatabaseError::Busy => StorageError::InUse { path },
        DatabaseError::Damaged(_) | DatabaseError::Foreign => StorageError::Damaged { path, source: error.into() },
        DatabaseError::Full | DatabaseError::Failed(_) => StorageError::Database { path, source: error.into() },
    }
}

impl From<DatabaseOpenError> for StorageError {
    fn from(error: DatabaseOpenError) -> Self {
        match error {
            DatabaseOpenError::Failed { path, error } => failed(&path, error),
            DatabaseOpenError::InUse { path } => failed(&path, DatabaseError::Busy),
            DatabaseOpenError::Version { path, found, known: _ } => Self::OtherVersion { path, found },
            DatabaseOpenError::Damaged { path, what } => failed(&path, DatabaseError::Damaged(what)),
            DatabaseOpenError::Foreign { path } => failed(&path, DatabaseError::Foreign),
        }
    }
}

/// Error of local storage: of an SQLite database, of a folder or another file, or of the blob store. A failed
/// transaction has changed nothing in its database.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StorageError {
    /// Another process, or another user of the file in this process, has the database open or locked. Close the
    /// database there, or use another folder.
    #[error("{} is in use by another process", path.display())]
    InUse {
        /// The database file.
        path: PathBuf,
    },
    /// The file is not what it should be, or is damaged: a database or, on a network, the stored head of a published
    /// package. Restore the file from a backup, or remove the file and start anew.
    #[error("{} is damaged: {source}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Description of the damage.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The version number of the file's format is higher than this version of the library supports, or negative.
    /// Usually a later version of the library wrote the file: use that version.
    #[error("{} has format {found}, which this version does not support", path.display())]
    OtherVersion {
        /// The database file.
        path: PathBuf,
        /// Version number of the file's format.
        found: i64,
    },
    /// The database cannot be read or written, for example because the disk is full or permissions are missing. For the
    /// store of heads (`heads.db`) also if that database is damaged or locked, or is full of packages that it must not
    /// evict.
    #[error("{}: {source}", path.display())]
    Database {
        /// The database file.
        path: PathBuf,
        /// Cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The folder cannot be created, read or emptied, or the file, which is the stored head of a published package,
    /// cannot be read or written.
    #[error("{}: {source}", path.display())]
    Folder {
        /// The folder or file.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// The [`BlobStore`](crate::blob::BlobStore) failed.
    #[error(transparent)]
    Blob(#[from] BlobError),
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMAT: Format = Format { application_id: *b"TSTs", steps: &["CREATE TABLE t(n)"], exclusive: true };

    #[test]
    fn a_failed_change_is_rolled_back_and_the_database_stays_usable() {
        smol::block_on(async {
            let database = Database::in_memory(FORMAT).await.unwrap();
            let failed = database
                .transaction(|t| t.execute("INSERT INTO t VALUES (1)", []).and_then(|_| t.execute("nonsense", [])))
                .await;
            assert!(matches!(failed, Err(StorageError::Database { .. })), "{failed:?}");
            let count = |t: &Transaction<'_>| t.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, u32>(0));
            assert_eq!(database.transaction(count).await.unwrap(), 0);
        });
    }

    #[test]
    fn a_database_is_exclusive_until_it_is_closed() {
        smol::block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("x.db");
            let first = Database::open(path.clone(), FORMAT).await.unwrap();
            let second = Database::open(path.clone(), FORMAT).await;
            assert!(matches!(second, Err(StorageError::InUse { .. })), "{second:?}");
            drop(first);
            Database::open(path.clone(), FORMAT).await.unwrap();
            let later = Database::open(path, Format { steps: &[], ..FORMAT }).await;
            assert!(matches!(later, Err(StorageError::OtherVersion { found: 1, .. })), "{later:?}");
        });
    }

    #[test]
    fn a_damaged_database_is_reported_and_not_changed() {
        smol::block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("x.db");
            std::fs::write(&path, [7; 9000]).unwrap();
            let opened = Database::open(path.clone(), FORMAT).await;
            assert!(matches!(opened, Err(StorageError::Damaged { .. })), "{opened:?}");
            assert_eq!(std::fs::read(&path).unwrap(), [7; 9000]);
            let nowhere = Database::open(dir.path().join("no/where.db"), FORMAT).await;
            assert!(matches!(nowhere, Err(StorageError::Database { .. })), "{nowhere:?}");
        });
    }
}
