//! The thread that brings what was written to the disk.

use std::{
    error::Error,
    fs::{File, OpenOptions},
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    thread::{self, JoinHandle},
    time::Duration,
};

use rusqlite::{Connection, ffi};

use super::{beside, connect};
use crate::DiskError;

/// From this length on the log is written into the file. Small, because the whole log is looked through at the next start;
/// not smaller, because the first commit after it waits for the disk once.
pub(super) const CHECKPOINT_BYTES: u32 = 16 * 1024 * 1024;

/// From this length on writers have to wait until the log is empty: it would otherwise grow as long as somebody writes
/// without a pause.
const LIMIT_BYTES: u64 = 128 * 1024 * 1024;

/// How often the log is written into the file in a row, while somebody goes on writing. Each pass is shorter than the one
/// before it by what the disk is faster than the writer, so that more would not end either.
const PASSES: usize = 8;

pub(super) struct Flusher {
    /// Has one place: that something was written is known or not. Its end ends the thread.
    wrote: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Flusher {
    pub(super) fn start(path: &Path, flush_within: Duration) -> Result<Self, DiskError> {
        let connection = connect(path).map_err(DiskError::new)?;
        connection.pragma_update(None, "synchronous", "normal").map_err(DiskError::new)?;
        // SQLite keeps no locks on the log, so that a second handle to it does no harm.
        let log = OpenOptions::new().write(true).open(beside(path, "-wal")).map_err(DiskError::new)?;
        let (wrote, told) = sync_channel(1);
        let work = Work { path: path.to_owned(), connection, log };
        let thread = thread::Builder::new()
            .name("kadence-store".to_owned())
            .spawn(move || work.run(&told, flush_within))
            .map_err(DiskError::new)?;
        Ok(Self { wrote: Some(wrote), thread: Some(thread) })
    }

    /// Something was written. Never waits.
    pub(super) fn wrote(&self) {
        if let Some(wrote) = &self.wrote {
            // Full means that it is known.
            let _known = wrote.try_send(());
        }
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.wrote = None;
        if let Some(thread) = self.thread.take() {
            // Otherwise it has panicked, which was printed; the log is read at the next start in any case.
            let _ended = thread.join();
        }
    }
}

struct Work {
    path: PathBuf,
    connection: Connection,
    log: File,
}

impl Work {
    /// Sleeps until something is written, then for half of the time that it may take: the other half is for the disk.
    fn run(&self, told: &Receiver<()>, flush_within: Duration) {
        while told.recv().is_ok() {
            // Nothing is lost by what was told meanwhile: it is still there when this has ended.
            let is_over = pause(told, flush_within / 2);
            if let Err(error) = self.flush() {
                tracing::warn!(path = %self.path.display(), %error, "the store's log cannot be brought to the disk");
                // It is not known what is on the disk; the next write tries again.
            }
            if is_over {
                break;
            }
        }
        if let Err(error) = checkpoint(&self.connection, "TRUNCATE") {
            tracing::warn!(path = %self.path.display(), %error, "the store's log remains beside it");
        }
    }

    fn flush(&self) -> Result<(), Box<dyn Error>> {
        self.log.sync_data()?;
        let bytes = self.log.metadata()?.len();
        if bytes > u64::from(CHECKPOINT_BYTES) {
            // Does not stop the writer: once all is done, the writer begins again at the log's start. What it has written
            // meanwhile is for the next pass, which is the shorter for it.
            let mut passes = 0;
            while checkpoint(&self.connection, "PASSIVE")? > 0 && passes < PASSES {
                passes += 1;
            }
        }
        if bytes > LIMIT_BYTES {
            // Stops the writer for the little that is left.
            checkpoint(&self.connection, "TRUNCATE")?;
        }
        Ok(())
    }
}

/// True if the store was dropped meanwhile. What was written in the pause is flushed after it.
fn pause(told: &Receiver<()>, span: Duration) -> bool {
    let started = std::time::Instant::now();
    loop {
        match told.recv_timeout(span.saturating_sub(started.elapsed())) {
            Ok(()) => {}
            Err(RecvTimeoutError::Timeout) => return false,
            Err(RecvTimeoutError::Disconnected) => return true,
        }
    }
}

/// Writes the log into the file, and both to the disk. Gives back how many pages of the log are left.
///
/// # Errors
///
/// Also if a mode that has to wait for others has waited too long. `PASSIVE` never waits, and does what it can.
pub(super) fn checkpoint(connection: &Connection, mode: &str) -> rusqlite::Result<i64> {
    let (busy, pages, done): (bool, i64, i64) =
        connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })?;
    if busy && mode != "PASSIVE" {
        return Err(rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_BUSY), None));
    }
    Ok(pages - done)
}
