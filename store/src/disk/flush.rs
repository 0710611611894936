//! The thread that brings written changes to the disk.

use std::{
    error::Error,
    fs::{File, OpenOptions},
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    thread::{self, JoinHandle},
    time::Duration,
};

use kadence_sqlite::{
    connect,
    rusqlite::{self, Connection, ffi},
    with_suffix,
};

use crate::DiskError;

/// Length of the log above which it is written into the file, in bytes. Small, because the next start reads the whole
/// log; not smaller, because the first commit afterwards waits for the disk.
pub(super) const CHECKPOINT_BYTES: u32 = 16 * 1024 * 1024;

/// Length of the log above which writers have to wait until it is empty, in bytes. Without it the log would grow as
/// long as a program writes without a pause.
const LIMIT_BYTES: u64 = 128 * 1024 * 1024;

/// Maximum number of passes in a row that write the log into the file while a program keeps writing. Each pass covers
/// what was written during the one before; if eight do not catch up, the writer is as fast as the disk.
const PASSES: usize = 8;

pub(super) struct Flusher {
    /// Wakes the thread. Has one slot, as a second wake-up adds nothing. Dropping it ends the thread.
    wrote: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Flusher {
    pub(super) fn start(path: &Path, flush_within: Duration) -> Result<Self, DiskError> {
        let connection = connect(path).map_err(DiskError::new)?;
        connection.pragma_update(None, "synchronous", "normal").map_err(DiskError::new)?;
        // SQLite keeps no locks on the log, so that a second handle to it does no harm.
        let log = OpenOptions::new().write(true).open(with_suffix(path, "-wal")).map_err(DiskError::new)?;
        let (wrote, told) = sync_channel(1);
        let work = Work { path: path.to_owned(), connection, log };
        let thread = thread::Builder::new()
            .name("kadence-store".to_owned())
            .spawn(move || work.run(&told, flush_within))
            .map_err(DiskError::new)?;
        Ok(Self { wrote: Some(wrote), thread: Some(thread) })
    }

    /// Notes that something was written. Never waits.
    pub(super) fn wrote(&self) {
        if let Some(wrote) = &self.wrote {
            // A full channel means that the thread knows already.
            let _known = wrote.try_send(());
        }
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.wrote = None;
        if let Some(thread) = self.thread.take() {
            // An error is a panic of the thread, which was printed. The next start reads the log in any case.
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
    /// Sleeps until something is written, then for half of `flush_within`: the other half is for the disk.
    fn run(&self, told: &Receiver<()>, flush_within: Duration) {
        while told.recv().is_ok() {
            // A wake-up during the flush stays in the channel.
            let is_over = pause(told, flush_within / 2);
            if let Err(error) = self.flush() {
                tracing::warn!(path = %self.path.display(), %error, "cannot flush the store's log");
                // The next write tries again.
            }
            if is_over {
                break;
            }
        }
        if let Err(error) = checkpoint(&self.connection, "TRUNCATE") {
            tracing::warn!(path = %self.path.display(), %error, "cannot write the store's log into its file");
        }
    }

    fn flush(&self) -> Result<(), Box<dyn Error>> {
        self.log.sync_data()?;
        let bytes = self.log.metadata()?.len();
        if bytes > u64::from(CHECKPOINT_BYTES) {
            // Does not stop the writer, whose changes during a pass are left for the next one. After a complete pass
            // the writer begins again at the start of the log.
            let mut passes = 0;
            while checkpoint(&self.connection, "PASSIVE")? > 0 && passes < PASSES {
                passes += 1;
            }
        }
        if bytes > LIMIT_BYTES {
            // Stops the writer until the rest is written.
            checkpoint(&self.connection, "TRUNCATE")?;
        }
        Ok(())
    }
}

/// Sleeps, and returns whether the store was dropped meanwhile.
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

/// Writes the log into the file, and both to the disk. Returns the number of pages that are left in the log.
///
/// `PASSIVE` never waits for other connections, and does what it can.
///
/// # Errors
///
/// If the disk fails, or another mode has waited for other connections in vain.
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
