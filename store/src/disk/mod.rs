//! The file: an SQLite database in WAL mode.
//!
//! A commit is a `write` to the log beside the file, so that it survives the process from then on; a thread of its own
//! brings the log to the disk, and from time to time into the file.

mod flush;
mod rows;
mod times;

use std::{
    collections::HashSet,
    ffi::OsString,
    fmt, fs, mem,
    path::{self, Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use libp2p::{
    PeerId,
    kad::{ProviderRecord, Record, RecordKey},
};
use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior::Immediate};

use self::{flush::Flusher, times::Moment};
use crate::{DiskError, StoreOpenError, clock::Clock};

/// `KADS`: says that a database is one of ours.
const APPLICATION_ID: i64 = 0x4b41_4453;

/// The version of the tables. An older file is brought up to it when it is opened, a newer one is refused.
const VERSION: i64 = 1;

/// `checksum` is of all other columns. Rows keep their `rowid` when they are renewed, because the providers of a key have
/// an order. Of the expiry there are the time and what was left, both in milliseconds; both are null if there is none.
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

/// How long a write waits for the flusher, if that has to stop it: far longer than a disk needs that works.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// What is to be written.
#[derive(Debug)]
pub(crate) enum Change<'a> {
    Record(&'a Record),
    Provider(&'a ProviderRecord),
    Remove(Row),
}

/// What names a row.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Row {
    Record(RecordKey),
    Provider(RecordKey, PeerId),
}

/// What was in the file.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    pub(crate) records: Vec<Record>,
    pub(crate) providers: Vec<ProviderRecord>,
    /// Rows that have expired while nobody looked.
    pub(crate) expired: Vec<Row>,
}

pub(crate) struct Disk {
    path: PathBuf,
    clock: Arc<dyn Clock>,
    /// Removals that failed. At most as many as there are rows in the file.
    owed: HashSet<Row>,
    // In the order in which they have to go.
    flusher: Flusher,
    connection: Connection,
    /// Held as long as the file is open.
    _lock: Connection,
}

impl Disk {
    /// Opens the file, or makes it, and reads it.
    pub(crate) fn open(
        path: &Path,
        clock: Arc<dyn Clock>,
        flush_within: Duration,
    ) -> Result<(Self, Contents), StoreOpenError> {
        let path = &resolve(path)?;
        let lock = lock(path)?;
        let result = (|| {
            let mut connection = connect(path)?;
            if let Some(refusal) = check_format(path, &mut connection)? {
                return Ok(Err(refusal));
            }
            // From here on it is ours to change.
            connection.pragma_update(None, "journal_mode", "wal")?;
            // The log is not synced at a commit, but before it is written into the file.
            connection.pragma_update(None, "synchronous", "normal")?;
            connection.pragma_update(None, "wal_autocheckpoint", 0)?;
            connection.pragma_update(None, "journal_size_limit", flush::CHECKPOINT_BYTES)?;
            let damage: String = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
            if damage != "ok" {
                return Ok(Err(StoreOpenError::Corrupt { path: path.to_owned(), what: damage }));
            }
            let contents = match rows::read(&connection, Moment::read(&*clock))? {
                Ok(contents) => contents,
                Err(what) => return Ok(Err(StoreOpenError::Corrupt { path: path.to_owned(), what })),
            };
            // The log's entry in its folder has to be on the disk, too, which the first checkpoint sees to.
            flush::checkpoint(&connection, "TRUNCATE")?;
            Ok(Ok((connection, contents)))
        })();
        let (connection, contents) = result.map_err(|error| explain(path, error))??;
        let flusher = Flusher::start(path, flush_within)
            .map_err(|error| StoreOpenError::Disk { path: path.to_owned(), error })?;
        let disk = Self { path: path.to_owned(), clock, owed: HashSet::new(), flusher, connection, _lock: lock };
        Ok((disk, contents))
    }

    /// All of the changes or, if there is an error, none.
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
                self.flusher.wrote();
                Ok(())
            }
            Err(error) => {
                self.owed = owed;
                tracing::warn!(path = %self.path.display(), %error, "the store's file cannot be written");
                Err(DiskError::new(error))
            }
        }
    }

    /// Removals that are not refused: what cannot be removed now is removed with the next write.
    pub(crate) fn remove(&mut self, rows: Vec<Row>) -> Result<(), DiskError> {
        let changes: Vec<_> = rows.iter().cloned().map(Change::Remove).collect();
        self.write(&changes).inspect_err(|_| self.owed.extend(rows))
    }

    /// Brings everything that was written to the disk.
    pub(crate) fn flush(&mut self) -> Result<(), DiskError> {
        flush::checkpoint(&self.connection, "FULL").map(drop).map_err(DiskError::new)
    }

    fn transact(&mut self, change: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<()>) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction_with_behavior(Immediate)?;
        change(&transaction)?;
        transaction.commit()
    }

    /// From now on no write succeeds.
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

/// The one name of the file, by which its lock is found, too; and one that SQLite takes for nothing but a path.
fn resolve(path: &Path) -> Result<PathBuf, StoreOpenError> {
    fs::canonicalize(path)
        .or_else(|_| path::absolute(path))
        .map_err(|error| StoreOpenError::Disk { path: path.to_owned(), error: DiskError::new(error) })
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    Ok(connection)
}

/// A file beside the file, which is itself a database: SQLite's locks work on all systems, end with their process however
/// it ends, and also hold between two stores of one process. The database proper cannot be locked, because the flusher
/// has a connection of its own.
fn lock(path: &Path) -> Result<Connection, StoreOpenError> {
    let take = || {
        let connection = connect(&beside(path, ".lock"))?;
        connection.busy_timeout(Duration::ZERO)?;
        connection.execute_batch("PRAGMA journal_mode = MEMORY; BEGIN EXCLUSIVE")?;
        Ok(connection)
    };
    take().map_err(|error: rusqlite::Error| match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreOpenError::InUse { path: path.to_owned() },
        _ => explain(path, error),
    })
}

/// Looks at the format before anything is changed, and makes the tables in an empty file.
fn check_format(path: &Path, connection: &mut Connection) -> rusqlite::Result<Option<StoreOpenError>> {
    let number = |pragma: &str| connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    let (application, version) = (number("application_id")?, number("user_version")?);
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if (application, version, tables) == (0, 0, 0) {
        let transaction = connection.transaction_with_behavior(Immediate)?;
        transaction.execute_batch(TABLES)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", VERSION)?;
        transaction.commit()?;
        return Ok(None);
    }
    if application != APPLICATION_ID {
        return Ok(Some(StoreOpenError::Foreign { path: path.to_owned() }));
    }
    if version != VERSION {
        return Ok(Some(StoreOpenError::Version { path: path.to_owned(), found: version, known: VERSION }));
    }
    Ok(None)
}

fn explain(path: &Path, error: rusqlite::Error) -> StoreOpenError {
    let path = path.to_owned();
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => StoreOpenError::Foreign { path },
        Some(ErrorCode::DatabaseCorrupt) => StoreOpenError::Corrupt { path, what: error.to_string() },
        _ => StoreOpenError::Disk { path, error: DiskError::new(error) },
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}
