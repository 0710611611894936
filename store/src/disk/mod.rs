//! The store's file: an SQLite database in WAL mode.
//!
//! A commit is an append to the log next to the file, so that it survives the process from then on. A separate thread
//! brings the log to the disk, and from time to time into the file.

mod flush;
mod rows;
mod times;

use std::{
    collections::HashSet,
    fmt, mem,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use kadence_sqlite::{
    DatabaseError, DatabaseOpenError, Durability, FileLock, Format, IntegrityCheck, OpenOptions,
    rusqlite::{self, Connection, Transaction, TransactionBehavior::Immediate},
};
use libp2p::{
    PeerId,
    kad::{ProviderRecord, Record, RecordKey},
};

use self::{flush::Flusher, times::Moment};
use crate::{DiskError, StoreOpenError, clock::Clock};

/// `checksum` covers all other columns. Rows keep their `rowid` when they are renewed, because the providers of a key
/// have an order. An expiry has two columns, both in milliseconds: the wall-clock time, and the time that was left when
/// it was written. Both are null without an expiry.
const TABLES: &str = "
    CREATE TABLE records (
        key BLOB NOT NULL UNIQUE,
        value BLOB NOT NULL,
        publisher BLOB,
        expires INTEGER,
        life INTEGER,
        checksum INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE providers (
        key BLOB NOT NULL,
        provider BLOB NOT NULL,
        addresses BLOB NOT NULL,
        expires INTEGER,
        life INTEGER,
        checksum INTEGER NOT NULL,
        UNIQUE (key, provider)
    ) STRICT;
";

/// The log is synced by the flusher and before it is written into the file, not at a commit.
const OPTIONS: OpenOptions = OpenOptions::new(Format { application_id: *b"KADS", steps: &[TABLES] })
    .durability(Durability::Process)
    .check(IntegrityCheck::Full);

/// A change to be written.
#[derive(Debug)]
pub(crate) enum Change<'a> {
    Record(&'a Record),
    Provider(&'a ProviderRecord),
    Remove(Row),
}

/// Name of a row.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Row {
    Record(RecordKey),
    Provider(RecordKey, PeerId),
}

/// Contents of the file.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    pub(crate) records: Vec<Record>,
    pub(crate) providers: Vec<ProviderRecord>,
    /// Rows that have expired since they were written.
    pub(crate) expired: Vec<Row>,
}

pub(crate) struct Disk {
    path: PathBuf,
    clock: Arc<dyn Clock>,
    /// Removals that failed. At most as many as there are rows in the file.
    owed: HashSet<Row>,
    // Dropped in this order.
    /// `None`: the owner of the store flushes.
    flusher: Option<Flusher>,
    connection: Connection,
    /// Held as long as the file is open.
    _lock: FileLock,
}

impl Disk {
    /// Opens the file, or creates it, and reads it.
    pub(crate) fn open(
        path: &Path,
        clock: Arc<dyn Clock>,
        flush_within: Option<Duration>,
    ) -> Result<(Self, Contents), StoreOpenError> {
        // The database itself cannot be locked, because the flusher has a connection of its own.
        let lock = FileLock::acquire(path)?;
        let path = lock.path();
        let connection = OPTIONS.open(path)?;
        let read = || -> rusqlite::Result<Result<Contents, String>> {
            connection.pragma_update(None, "wal_autocheckpoint", 0)?;
            connection.pragma_update(None, "journal_size_limit", flush::CHECKPOINT_BYTES)?;
            let contents = rows::read(&connection, Moment::read(&*clock))?;
            // The entry of the log in its folder has to be on the disk, too, which the first checkpoint sees to.
            flush::checkpoint(&connection, "TRUNCATE")?;
            Ok(contents)
        };
        let contents = read()
            .map_err(DatabaseError::from)
            .and_then(|contents| contents.map_err(DatabaseError::Damaged))
            .map_err(|error| DatabaseOpenError::new(path, error))?;
        let flusher = flush_within
            .map(|flush_within| Flusher::start(path, flush_within))
            .transpose()
            .map_err(|error| StoreOpenError::Disk { path: path.to_owned(), error })?;
        let disk = Self { path: path.to_owned(), clock, owed: HashSet::new(), flusher, connection, _lock: lock };
        Ok((disk, contents))
    }

    /// Writes all of the changes or, if there is an error, none.
    pub(crate) fn write(&mut self, changes: &[Change<'_>]) -> Result<(), DiskError> {
        if changes.is_empty() {
            return Ok(());
        }
        let moment = Moment::read(&*self.clock);
        let owed = mem::take(&mut self.owed);
        let result = self.transact(|transaction| {
            for row in &owed {
                rows::remove(transaction, row)?;
            }
            for change in changes {
                match change {
                    Change::Record(record) => rows::put_record(transaction, record, moment)?,
                    Change::Provider(provider) => rows::put_provider(transaction, provider, moment)?,
                    Change::Remove(row) => rows::remove(transaction, row)?,
                }
            }
            Ok(())
        });
        match result {
            Ok(()) => {
                if let Some(flusher) = &self.flusher {
                    flusher.wrote();
                }
                Ok(())
            }
            Err(error) => {
                self.owed = owed;
                tracing::warn!(path = %self.path.display(), %error, "cannot write the store's file");
                Err(DiskError::new(error))
            }
        }
    }

    /// Removes rows. Those that cannot be removed now are removed with the next write.
    pub(crate) fn remove(&mut self, rows: Vec<Row>) -> Result<(), DiskError> {
        let changes: Vec<_> = rows.iter().cloned().map(Change::Remove).collect();
        self.write(&changes).inspect_err(|_| self.owed.extend(rows))
    }

    /// Brings all that was written to the disk.
    pub(crate) fn flush(&mut self) -> Result<(), DiskError> {
        flush::checkpoint(&self.connection, "FULL").map(drop).map_err(DiskError::new)
    }

    fn transact(&mut self, change: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<()>) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction_with_behavior(Immediate)?;
        change(&transaction)?;
        transaction.commit()
    }

    /// Makes all writes fail, or succeed again.
    #[cfg(test)]
    pub(crate) fn break_it(&self, broken: bool) {
        self.connection.pragma_update(None, "query_only", broken).unwrap();
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk").field("path", &self.path).field("owed", &self.owed.len()).finish_non_exhaustive()
    }
}
