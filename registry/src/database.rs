//! How the files of this crate are opened: SQLite databases in WAL mode, in which a commit is on the disk when it returns.
//!
//! All of it blocks.

use std::{
    error::Error,
    path::{self, Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior::Immediate};
use thiserror::Error;

/// How long a write waits for those of other connections and processes. They are short; a disk that works needs far less.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// How long opening a file for one waits for a process that is just ending.
const EXCLUSIVE_TIMEOUT: Duration = Duration::from_secs(1);

/// How often is tried again what SQLite does not wait for by itself.
const RETRY: Duration = Duration::from_millis(5);

/// What kind of file it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Format {
    /// Four letters that tell it from other databases, other kinds of this crate included.
    pub(crate) application_id: [u8; 4],
    /// What makes the tables: the first of an empty file, each further one of the version before it. The version of a file
    /// is the number of steps that it has taken, so that a step is never changed once it was released.
    pub(crate) steps: &'static [&'static str],
    /// Whether one connection has it for itself, of all processes.
    pub(crate) exclusive: bool,
}

/// Opens the file, or makes it, and brings it up to the latest version. Its folder has to exist.
///
/// # Errors
///
/// See [`DatabaseOpenError`]. The file is as it was then.
pub(crate) fn open(path: &Path, format: Format) -> Result<Connection, DatabaseOpenError> {
    let failed = |error: rusqlite::Error| DatabaseOpenError::of(path, &DatabaseError::from(error));
    // SQLite would take some relative names for something else than a path.
    let absolute = path::absolute(path).map_err(|error| DatabaseOpenError::Failed {
        path: path.to_owned(),
        error: DatabaseError::Failed(Arc::new(error)),
    })?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(absolute, flags).map_err(failed)?;
    let patience = if format.exclusive { EXCLUSIVE_TIMEOUT } else { BUSY_TIMEOUT };
    connection.busy_timeout(patience).map_err(failed)?;
    if format.exclusive {
        // Before anything is read, so that there is no time at which two have it.
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE").map_err(failed)?;
    }
    migrate(path, &mut connection, format)?;
    use_log(&connection, patience).map_err(failed)?;
    let damage: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(failed)?;
    if damage != "ok" {
        return Err(DatabaseOpenError::Damaged { path: path.to_owned(), what: damage });
    }
    Ok(connection)
}

/// A database that is gone with its connection.
///
/// # Errors
///
/// If there is no memory for it.
pub(crate) fn open_in_memory(format: Format) -> Result<Connection, DatabaseOpenError> {
    let path = Path::new(":memory:");
    let mut connection = Connection::open_in_memory().map_err(|error| DatabaseOpenError::of(path, &error.into()))?;
    migrate(path, &mut connection, format)?;
    Ok(connection)
}

/// In one transaction, so that two processes that open the file at once do not both do it.
fn migrate(path: &Path, connection: &mut Connection, format: Format) -> Result<(), DatabaseOpenError> {
    let failed = |error: rusqlite::Error| DatabaseOpenError::of(path, &DatabaseError::from(error));
    let known = i64::try_from(format.steps.len()).unwrap_or(i64::MAX);
    let id = i64::from(i32::from_be_bytes(format.application_id));
    // Without a lock first: a file that is up to date is only read.
    if state(connection).map_err(failed)? == (id, known) {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(Immediate).map_err(failed)?;
    let (found_id, found) = state(&transaction).map_err(failed)?;
    let tables: i64 =
        transaction.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(failed)?;
    let is_new = (found_id, found, tables) == (0, 0, 0);
    if !is_new && found_id != id {
        return Err(DatabaseOpenError::Foreign { path: path.to_owned() });
    }
    if !(0..=known).contains(&found) {
        return Err(DatabaseOpenError::Version { path: path.to_owned(), found, known });
    }
    for step in format.steps.iter().skip(usize::try_from(found).unwrap_or_default()) {
        transaction.execute_batch(step).map_err(failed)?;
    }
    transaction.pragma_update(None, "application_id", id).map_err(failed)?;
    transaction.pragma_update(None, "user_version", known).map_err(failed)?;
    transaction.commit().map_err(failed)
}

/// What the file says it is: the kind and the version.
fn state(connection: &Connection) -> rusqlite::Result<(i64, i64)> {
    let number = |pragma: &str| connection.pragma_query_value(None, pragma, |row| row.get(0));
    Ok((number("application_id")?, number("user_version")?))
}

/// A commit is then a write to the log beside the file, which is synced before the commit returns.
fn use_log(connection: &Connection, patience: Duration) -> rusqlite::Result<()> {
    let started = Instant::now();
    // SQLite refuses this at once, whatever the timeout, while another connection is just doing it.
    while let Err(error) = connection.pragma_update(None, "journal_mode", "wal") {
        if !is_busy(&error) || started.elapsed() > patience {
            return Err(error);
        }
        thread::sleep(RETRY);
    }
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "foreign_keys", true)
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// Why a file cannot be opened. It was left alone.
#[derive(Debug, Clone, Error)]
pub enum DatabaseOpenError {
    /// It is something else. Choose another path.
    #[error("{} is a file of another kind", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// A later version of this crate has written it. Use that one.
    #[error("{} has version {found} of its format; this program knows {known}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// The file's version.
        found: i64,
        /// The latest that is known.
        known: i64,
    },
    /// It was damaged, by a failing disk or another program. Bring back a copy, or move it away to begin anew.
    #[error("{} is damaged: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where it was seen.
        what: String,
    },
    /// It can be neither opened nor made.
    #[error("{} cannot be opened", path.display())]
    Failed {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        error: DatabaseError,
    },
}

impl DatabaseOpenError {
    fn of(path: &Path, error: &DatabaseError) -> Self {
        let path = path.to_owned();
        match error {
            DatabaseError::Foreign => Self::Foreign { path },
            DatabaseError::Damaged(what) => Self::Damaged { path, what: what.clone() },
            DatabaseError::Busy | DatabaseError::Full | DatabaseError::Failed(_) => {
                Self::Failed { path, error: error.clone() }
            }
        }
    }
}

/// Why an open file could not be read or written. What was to be written was not, and nothing of it.
#[derive(Debug, Clone, Error)]
pub enum DatabaseError {
    /// It is damaged. Bring back a copy, or move it away to begin anew.
    #[error("the file is damaged: {0}")]
    Damaged(String),
    /// It is no database any more: something else was written in its place.
    #[error("the file is of another kind")]
    Foreign,
    /// Others have kept it locked for seconds. Try again.
    #[error("the file is locked by another process")]
    Busy,
    /// The disk is full. Make room, and try again.
    #[error("the disk is full")]
    Full,
    /// The disk has failed, or does not let us.
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
                // The tables are strict, so that only damage puts something else into a column.
                error @ (rusqlite::Error::FromSqlConversionFailure(..)
                | rusqlite::Error::IntegralValueOutOfRange(..)
                | rusqlite::Error::InvalidColumnType(..)) => Self::Damaged(error.to_string()),
                error => Self::Failed(Arc::new(error)),
            },
        }
    }
}

#[cfg(test)]
mod tests;
