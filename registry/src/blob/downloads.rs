use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use super::{
    BlobError,
    files::{children, remove_file},
};
use crate::ContentId;

/// Maximum number of unfinished downloads that are kept, to be resumed. The oldest are removed first.
const MAX_PARTIALS: usize = 32;

/// Lock of a download: only one task at a time downloads a blob.
pub(crate) type DownloadLock = futures::lock::Mutex<()>;

/// Folder of unfinished downloads, and the locks of those that are running.
pub(super) struct Downloads {
    path: PathBuf,
    running: Mutex<HashMap<ContentId, Weak<DownloadLock>>>,
}

impl Downloads {
    pub(super) fn open(path: PathBuf) -> Result<Self, BlobError> {
        fs::create_dir_all(&path).map_err(BlobError::at(&path))?;
        Ok(Self { path, running: Mutex::default() })
    }

    /// Returns the lock of a blob's download.
    pub(super) fn lock(&self, id: &ContentId) -> Arc<DownloadLock> {
        let mut running = self.running();
        running.retain(|_, lock| lock.strong_count() > 0);
        if let Some(lock) = running.get(id).and_then(Weak::upgrade) {
            return lock;
        }
        let lock = Arc::new(DownloadLock::new(()));
        running.insert(*id, Arc::downgrade(&lock));
        lock
    }

    /// Returns the path of a download's data.
    pub(super) fn data_path(&self, id: &ContentId) -> PathBuf {
        self.path.join(id.hash().to_hex().as_str())
    }

    /// Removes the oldest downloads that are not running, so that one more can be kept.
    pub(super) fn make_room(&self) -> Result<(), BlobError> {
        let path_if_running =
            |(id, lock): (&ContentId, &Weak<DownloadLock>)| (lock.strong_count() > 0).then(|| self.data_path(id));
        let running: Vec<PathBuf> = self.running().iter().filter_map(path_if_running).collect();
        let mut kept = Vec::new();
        for child in children(&self.path) {
            let path = child?.path();
            if path.extension().is_none() && !running.contains(&path) {
                let modified = fs::metadata(&path).and_then(|metadata| metadata.modified()).ok();
                kept.push((modified, path));
            }
        }
        kept.sort();
        for (_, path) in kept.iter().take(kept.len().saturating_sub(MAX_PARTIALS - 1)) {
            remove_file(path)?;
            remove_file(&journal_path(path))?;
        }
        Ok(())
    }

    fn running(&self) -> MutexGuard<'_, HashMap<ContentId, Weak<DownloadLock>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the path of the journal of a download with data at this path.
pub(super) fn journal_path(data: &Path) -> PathBuf {
    data.with_extension("journal")
}
