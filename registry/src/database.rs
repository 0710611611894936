//! Opens the SQLite files of this crate. A commit is on the disk when it returns. All of it blocks.

use std::path::Path;

pub use kadence_sqlite::{DatabaseError, DatabaseOpenError};
use kadence_sqlite::{OpenOptions, rusqlite::Connection};

/// Kind and version of a file, as in [`kadence_sqlite::Format`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Format {
    /// Application id: four letters that distinguish the file from other databases, also of this crate.
    pub(crate) application_id: [u8; 4],
    /// SQL of each version. A released step is never changed.
    pub(crate) steps: &'static [&'static str],
    /// True if one connection has exclusive access, in this process and all others.
    pub(crate) exclusive: bool,
}

impl Format {
    fn options(self) -> OpenOptions {
        let Self { application_id, steps, exclusive } = self;
        OpenOptions::new(kadence_sqlite::Format { application_id, steps }).exclusive(exclusive)
    }
}

/// Opens the file, or creates it, and brings it up to the latest version. The folder has to exist.
///
/// # Errors
///
/// See [`DatabaseOpenError`].
pub(crate) fn open(path: &Path, format: Format) -> Result<Connection, DatabaseOpenError> {
    format.options().open(path)
}

/// Opens a database that ends with its connection.
///
/// # Errors
///
/// If there is not enough memory.
pub(crate) fn open_in_memory(format: Format) -> Result<Connection, DatabaseOpenError> {
    format.options().open_in_memory()
}
