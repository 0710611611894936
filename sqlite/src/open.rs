use std::{
    ffi::OsString,
    path::{self, Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior::Immediate};

use crate::{DatabaseError, DatabaseOpenError};

/// Maximum time that a write waits for those of other connections. They are short; a working disk needs far less.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum time that an exclusive opening waits for a process that is just ending.
const EXCLUSIVE_TIMEOUT: Duration = Duration::from_secs(1);

/// Pause between attempts at what SQLite's busy timeout does not cover.
const RETRY: Duration = Duration::from_millis(5);

/// Kind and version of a database file.
#[derive(Debug, Clone, Copy)]
pub struct Format {
    /// SQLite's `application_id`: four bytes that distinguish the file from the databases of other applications.
    pub application_id: [u8; 4],
    /// SQL of each version: the first step creates the tables in an empty file, and each further step upgrades a file
    /// from the version before. The version of a file (SQLite's `user_version`) is the number of steps that it has
    /// taken, so a step must not change once it was released.
    pub steps: &'static [&'static str],
}

/// Failures that a committed transaction survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Commits survive a power failure, unless the disk loses what it has reported as written: SQLite syncs its log to
    /// the disk before a commit returns.
    Power,
    /// Commits survive the end of the process, also by a kill. A power failure or a crash of the system may undo the
    /// last commits; the file stays consistent.
    Process,
}

/// Thoroughness of the check for damage, which reads the whole file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IntegrityCheck {
    /// Checks the structure of pages and rows.
    Quick,
    /// Also compares each index with its table and verifies `UNIQUE` constraints, which takes longer.
    Full,
}

/// Options of opening a database file.
///
/// [`open`](Self::open) connects, checks the format before it changes the content of a file, upgrades an older version
/// in one transaction, switches to WAL mode, and looks for damage. The connection enforces foreign keys. Opening blocks
/// the thread.
#[derive(Debug, Clone, Copy)]
#[must_use]
pub struct OpenOptions {
    format: Format,
    exclusive: bool,
    durability: Durability,
    check: IntegrityCheck,
}

impl OpenOptions {
    /// Returns the default options: not exclusive, [`Durability::Power`] and [`IntegrityCheck::Quick`].
    pub const fn new(format: Format) -> Self {
        Self { format, exclusive: false, durability: Durability::Power, check: IntegrityCheck::Quick }
    }

    /// Sets whether this connection excludes all other SQLite connections from the file, in this process and all
    /// others. If another connection holds a lock on the file, as every connection in WAL mode does from its first
    /// access on, opening waits for about one second, then fails with [`DatabaseOpenError::InUse`]. Default: `false`.
    /// If the owner needs several connections, use [`FileLock`](crate::FileLock) instead.
    pub const fn exclusive(mut self, exclusive: bool) -> Self {
        self.exclusive = exclusive;
        self
    }

    /// Sets the durability of a commit: the failures after which it is still in the file. Default: [`Durability::Power`].
    pub const fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Sets the thoroughness of the check for damage when the file is opened. Default: [`IntegrityCheck::Quick`].
    pub const fn check(mut self, check: IntegrityCheck) -> Self {
        self.check = check;
        self
    }

    /// Opens the file at `path`, or creates it. An empty file counts as a new one. The folder has to exist.
    ///
    /// # Errors
    ///
    /// See [`DatabaseOpenError`]. The content of a file of another kind or of a later version is unchanged. Any other
    /// file may have been created, upgraded or switched to WAL mode before the error.
    pub fn open(&self, path: &Path) -> Result<Connection, DatabaseOpenError> {
        self.try_open(path).map_err(|error| error.with_path(path))
    }

    /// Opens a database in memory, which is lost when the connection is closed. Of the options, only the format has an
    /// effect.
    ///
    /// # Errors
    ///
    /// If there is not enough memory, or a step of the format fails.
    pub fn open_in_memory(&self) -> Result<Connection, DatabaseOpenError> {
        let open = || -> Result<Connection, Failure> {
            let mut connection = Connection::open_in_memory()?;
            connection.pragma_update(None, "foreign_keys", true)?;
            self.format.upgrade(&mut connection)?;
            Ok(connection)
        };
        open().map_err(|error| error.with_path(Path::new(":memory:")))
    }

    fn try_open(&self, path: &Path) -> Result<Connection, Failure> {
        // SQLite would not take some relative names for paths.
        let absolute =
            path::absolute(path).map_err(|error| Failure::Database(DatabaseError::Failed(Arc::new(error))))?;
        let mut connection = connect(&absolute)?;
        let timeout = if self.exclusive { EXCLUSIVE_TIMEOUT } else { BUSY_TIMEOUT };
        connection.busy_timeout(timeout)?;
        if self.exclusive {
            // Before anything is read, so that two connections never have the file at the same time.
            connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
        }
        self.format.upgrade(&mut connection)?;
        self.use_wal(&connection, timeout)?;
        let check = match self.check {
            IntegrityCheck::Quick => "PRAGMA quick_check(1)",
            IntegrityCheck::Full => "PRAGMA integrity_check(1)",
        };
        let damage: String = connection.query_row(check, [], |row| row.get(0))?;
        if damage == "ok" { Ok(connection) } else { Err(Failure::Database(DatabaseError::Damaged(damage))) }
    }

    /// Makes a commit an append to the log, the file with the suffix `-wal`.
    fn use_wal(&self, connection: &Connection, timeout: Duration) -> rusqlite::Result<()> {
        let started = Instant::now();
        // While another connection does the same, SQLite refuses this at once, without regard to the busy timeout.
        while let Err(error) = connection.pragma_update(None, "journal_mode", "wal") {
            if !is_busy(&error) || started.elapsed() > timeout {
                return Err(error);
            }
            thread::sleep(RETRY);
        }
        let synchronous = match self.durability {
            Durability::Power => "full",
            Durability::Process => "normal",
        };
        connection.pragma_update(None, "synchronous", synchronous)?;
        connection.pragma_update(None, "foreign_keys", true)
    }
}

/// State of a file, by a [`Format`].
enum Found {
    /// Some steps are missing, all of them in an empty file.
    Outdated {
        version: usize,
    },
    Current,
    Newer {
        version: i64,
    },
    Foreign,
}

impl Format {
    /// Brings a file up to the latest version.
    fn upgrade(&self, connection: &mut Connection) -> Result<(), Failure> {
        // Reads first, without a lock for writing: most files are up to date, and one of another kind is not touched.
        // In a transaction, because another process may be just creating the tables.
        let transaction = connection.transaction()?;
        if self.state(&transaction)?.missing_after(self)?.is_none() {
            return Ok(());
        }
        drop(transaction);
        let transaction = connection.transaction_with_behavior(Immediate)?;
        // Another process may have upgraded the file meanwhile.
        let Some(version) = self.state(&transaction)?.missing_after(self)? else { return Ok(()) };
        for step in self.steps.iter().skip(version) {
            transaction.execute_batch(step)?;
        }
        transaction.pragma_update(None, "application_id", self.id())?;
        transaction.pragma_update(None, "user_version", self.version())?;
        Ok(transaction.commit()?)
    }

    fn state(&self, connection: &Connection) -> rusqlite::Result<Found> {
        let number = |pragma: &str| connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
        let (id, version) = (number("application_id")?, number("user_version")?);
        let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        let is_empty = (id, version, tables) == (0, 0, 0);
        Ok(match usize::try_from(version) {
            _ if !is_empty && id != self.id() => Found::Foreign,
            Ok(version) if version < self.steps.len() => Found::Outdated { version },
            _ if version == self.version() => Found::Current,
            _ => Found::Newer { version },
        })
    }

    fn id(&self) -> i64 {
        i64::from(i32::from_be_bytes(self.application_id))
    }

    fn version(&self) -> i64 {
        i64::try_from(self.steps.len()).unwrap_or(i64::MAX)
    }
}

impl Found {
    /// Returns the version after which steps are missing; `None` if the file is up to date.
    fn missing_after(self, format: &Format) -> Result<Option<usize>, Failure> {
        match self {
            Self::Current => Ok(None),
            Self::Outdated { version } => Ok(Some(version)),
            Self::Foreign => Err(Failure::Database(DatabaseError::Foreign)),
            Self::Newer { version } => Err(Failure::Version { found: version, known: format.version() }),
        }
    }
}

/// A [`DatabaseOpenError`] without its path.
enum Failure {
    Database(DatabaseError),
    Version { found: i64, known: i64 },
}

impl Failure {
    fn with_path(self, path: &Path) -> DatabaseOpenError {
        match self {
            Self::Database(error) => DatabaseOpenError::new(path, error),
            Self::Version { found, known } => DatabaseOpenError::Version { path: path.to_owned(), found, known },
        }
    }
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error.into())
    }
}

/// Connects to a file without the checks and settings of [`OpenOptions::open`]: for further connections to a file that
/// was opened with it. The file is created if there is none. A statement waits for the locks of other connections for
/// at most 5 seconds, then fails; SQLite reports some conflicts at once.
///
/// # Errors
///
/// If the file can be neither opened nor created.
pub fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    Ok(connection)
}

/// Returns `path` with a suffix appended to its file name. For example, SQLite's log is the file with the suffix
/// `-wal`.
pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}
