use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior};
use thiserror::Error;

use crate::blob::BlobError;

/// How long opening waits for a process that is just ending.
const BUSY: Duration = Duration::from_secs(1);

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
    /// Opens the database at `path`, which is made with this schema if need be. The schema's number is kept with it.
    pub(crate) async fn open(
        path: PathBuf,
        schema: &'static [&'static str],
        number: u32,
    ) -> Result<Self, StorageError> {
        blocking::unblock(move || {
            let opened = Connection::open(&path).and_then(|connection| {
                connection.busy_timeout(BUSY)?;
                // Before anything is read, so that there is no time at which two have it.
                connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
                connection.pragma_update(None, "journal_mode", "WAL")?;
                connection.pragma_update(None, "synchronous", "FULL")?;
                Ok(connection)
            });
            Self::with_schema(opened.map_err(|error| failed(&path, error))?, path, schema, number)
        })
        .await
    }

    /// A database that is gone when the last clone is dropped.
    pub(crate) async fn in_memory(schema: &'static [&'static str], number: u32) -> Result<Self, StorageError> {
        blocking::unblock(move || {
            let path = PathBuf::from(":memory:");
            let connection = Connection::open_in_memory().map_err(|error| failed(&path, error))?;
            Self::with_schema(connection, path, schema, number)
        })
        .await
    }

    fn with_schema(
        mut connection: Connection,
        path: PathBuf,
        schema: &[&str],
        number: u32,
    ) -> Result<Self, StorageError> {
        let prepare = |connection: &mut Connection| {
            let change = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let found: u32 = change.pragma_query_value(None, "user_version", |row| row.get(0))?;
            if found == 0 {
                schema.iter().try_for_each(|part| change.execute_batch(part))?;
                change.pragma_update(None, "user_version", number)?;
            }
            change.commit()?;
            Ok(found)
        };
        let found = prepare(&mut connection).map_err(|error| failed(&path, error))?;
        if found != 0 && found != number {
            return Err(StorageError::OtherVersion { path, found });
        }
        Ok(Self { connection: Arc::new(Mutex::new(connection)), path: Arc::new(path) })
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
        blocking::unblock(move || {
            // A panic in a transaction has rolled it back.
            let mut connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
            let run = |connection: &mut Connection| {
                let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
                let done = change(&transaction)?;
                transaction.commit()?;
                Ok(done)
            };
            run(&mut connection).map_err(|error| failed(&path, error))
        })
        .await
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("path", &self.path).finish_non_exhaustive()
    }
}

fn failed(path: &Path, error: rusqlite::Error) -> StorageError {
    let path = path.to_owned();
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StorageError::InUse { path },
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            StorageError::Damaged { path, source: error.into() }
        }
        _ => StorageError::Database { path, source: error.into() },
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
        found: u32,
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

    #[test]
    fn a_change_that_fails_changes_nothing_and_the_next_one_goes_on() {
        smol::block_on(async {
            let database = Database::in_memory(&["CREATE TABLE t(n)"], 1).await.unwrap();
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
            let first = Database::open(path.clone(), &["CREATE TABLE t(n)"], 1).await.unwrap();
            let second = Database::open(path.clone(), &["CREATE TABLE t(n)"], 1).await;
            assert!(matches!(second, Err(StorageError::InUse { .. })), "{second:?}");
            drop(first);
            Database::open(path.clone(), &["CREATE TABLE t(n)"], 1).await.unwrap();
            let later = Database::open(path, &["CREATE TABLE t(n)"], 2).await;
            assert!(matches!(later, Err(StorageError::OtherVersion { found: 1, .. })), "{later:?}");
        });
    }

    #[test]
    fn a_damaged_database_is_called_that_and_left_as_it_is() {
        smol::block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("x.db");
            std::fs::write(&path, [7; 9000]).unwrap();
            let opened = Database::open(path.clone(), &["CREATE TABLE t(n)"], 1).await;
            assert!(matches!(opened, Err(StorageError::Damaged { .. })), "{opened:?}");
            assert_eq!(std::fs::read(&path).unwrap(), [7; 9000]);
            let nowhere = Database::open(dir.path().join("no/where.db"), &[], 1).await;
            assert!(matches!(nowhere, Err(StorageError::Database { .. })), "{nowhere:?}");
        });
    }
}
