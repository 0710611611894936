use std::{fmt, fs, path, path::Path, path::PathBuf, sync::Arc, time::Duration};

use rusqlite::Connection;

use crate::{DatabaseError, DatabaseOpenError, connect, with_suffix};

/// Exclusive lock of a file, for an owner that uses several connections to the file. The lock is released when it is
/// dropped or the process ends. The lock excludes only those who acquire it, too: it does not keep others from opening
/// the file. Hard links to a file have separate locks.
///
/// [`OpenOptions::exclusive`](crate::OpenOptions::exclusive) is for an owner with a single connection. The lock is held
/// in a second database, named like the file with the suffix `.lock`, because SQLite's locks work on all systems, and
/// also between two owners in one process.
///
/// ```
/// use kadence_sqlite::{DatabaseOpenError, FileLock};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("shared.db");
/// let lock = FileLock::acquire(&path)?;
/// assert!(matches!(FileLock::acquire(&path), Err(DatabaseOpenError::InUse { .. })));
/// drop(lock);
/// FileLock::acquire(&path)?;
/// # Ok(())
/// # }
/// ```
pub struct FileLock {
    path: PathBuf,
    _connection: Connection,
}

impl FileLock {
    /// Locks the file at `path`, which need not exist yet. Its folder has to exist. Does not wait for another owner.
    ///
    /// # Errors
    ///
    /// [`DatabaseOpenError::InUse`] if another owner has locked the file; another error if `path` cannot be made
    /// absolute, or if the file with the suffix `.lock` cannot be opened, created or locked.
    pub fn acquire(path: &Path) -> Result<Self, DatabaseOpenError> {
        let failed = |error| DatabaseOpenError::new(path, error);
        let canonical = fs::canonicalize(path)
            .or_else(|_| path::absolute(path))
            .map_err(|error| failed(DatabaseError::Failed(Arc::new(error))))?;
        let lock = || -> rusqlite::Result<Connection> {
            let connection = connect(&with_suffix(&canonical, ".lock"))?;
            connection.busy_timeout(Duration::ZERO)?;
            connection.execute_batch("PRAGMA journal_mode = MEMORY; BEGIN EXCLUSIVE")?;
            Ok(connection)
        };
        let connection = lock().map_err(|error| failed(error.into()))?;
        Ok(Self { path: canonical, _connection: connection })
    }

    /// Returns the absolute path of the locked file. Symbolic links are resolved if the file existed when it was
    /// locked.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl fmt::Debug for FileLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileLock").field("path", &self.path).finish_non_exhaustive()
    }
}
