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

/// An SQLite database that one process has for itself. Cloning it is cheap, and all clones are the same database.
///
/// What it does blocks, so it is done on the threads for blocking work. A change is made as a whole or not at all, and is
/// on the disk when it is answered.
#[derive(Clone)]
pub(crate) struct Database {
    connection: Arc<Mutex<Connection>>,
    path: Arc<PathBuf>,
}

impl Database {
    /// Opens the database at `path`, which is made if need be.
    pub(crate) async fn open(path: PathBuf, format: Format) -> Result<Self, StorageError> {
        let opened = unblock(move || database::open(&path, format).map(|connection| (connection, path)));
        let (connection, path) = opened.await?;
        Ok(Self::of(connection, path))
    }

    /// A database that is gone when the last clone is dropped.
    pub(crate) async fn in_memory(format: Format) -> Result<Self, StorageError> {
        let connection = unblock(move || database::open_in_memory(format)).await?;
        Ok(Self::of(connection, PathBuf::from(":memory:")))
    }

    fn of(connection: Connection, path: PathBuf) -> Self {
        Self { connection: Arc::new(Mutex::new(connection)), path: Arc::new(path) }
    }

    /// That something in it cannot be.
    pub(crate) fn damaged(&self, what: String) -> StorageError {
        StorageError::Damaged { path: self.path.to_path_buf(), source: what.into() }
    }

    /// Changes it, or reads it: what `change` has done counts if it and the whole transaction succeed.
    pub(crate) async fn transaction<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StorageError> {
        let Self { connection, path } = self.clone();
        unblock(move || {
            // A panic in a transaction has rolled it back.
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

/// Why what is kept on the disk cannot be used. Nothing was changed by the call.
#[derive(Debug, Error)]
pub enum StorageError {
    /// Another process, or another registry of this one, has it open: close that, or use another folder.
    #[error("{} is in use by another process", path.display())]
    InUse {
        /// The database.
        path: PathBuf,
    },
    /// It is no database, or has gone bad. It was left as it is: put it back from a copy, or take it away and begin anew.
    #[error("{} is damaged: {source}", path.display())]
    Damaged {
        /// The database.
        path: PathBuf,
        /// What was found.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It was written by another version of this software: use that one.
    #[error("{} has format {found}, which this version does not know", path.display())]
    OtherVersion {
        /// The database.
        path: PathBuf,
        /// The number of its format.
        found: i64,
    },
    /// It cannot be written or read: the disk is full, or permissions are missing.
    #[error("{}: {source}", path.display())]
    Database {
        /// The database.
        path: PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The folder cannot be made.
    #[error("{}: {source}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The blobs' folder cannot be used.
    #[error(transparent)]
    Blob(#[from] BlobError),
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMAT: Format = Format { application_id: *b"TSTs", steps: &["CREATE TABLE t(n)"], exclusive: true };

    #[test]
    fn a_change_that_fails_changes_nothing_and_the_next_one_goes_on() {
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
    fn a_database_is_for_one_at_a_time_and_free_again_afterwards() {
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
    fn a_damaged_database_is_called_that_and_left_as_it_is() {
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
