use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{Read, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bao_tree::{BaoTree, io::sync::WriteAt};
use tempfile::{NamedTempFile, TempPath};

use super::{
    BlobError, BlobStore,
    downloads::{DownloadLock, journal_path},
    files::remove_file,
    tree::GROUPS,
};
use crate::ContentId;

/// Number of bytes after which the data is synced, so that not all of it is left for the end.
const SYNC_AFTER: u64 = 4 << 20;

/// First bytes of a journal, with its version.
const MAGIC: &[u8; 8] = b"kadpart1";

/// Maximum length of a journal that is read, in bytes: more than the largest blob needs for its pieces.
const MAX_JOURNAL_LEN: u64 = 4 << 20;

/// Unfinished download: a file with holes, and a journal of the pieces that were verified and written.
///
/// The journal is only a hint, since a crash may leave it ahead of the data. If a download is resumed, the whole file
/// is hashed before it becomes a blob.
#[derive(Debug)]
pub(crate) struct Partial {
    files: Mutex<Files>,
    path: PathBuf,
}

#[derive(Debug)]
struct Files {
    data: File,
    journal: File,
    /// Hash tree in post-order, with zeros for unknown hashes: 0.4 % of the blob.
    hashes: Vec<u8>,
    /// Bytes written since the last sync.
    unsynced: u64,
    /// True if nothing is left of an earlier run: every piece was verified by this process.
    is_fresh: bool,
}

/// Verified pair of hashes with its position in the tree in post-order.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) offset: u64,
    pub(crate) hashes: [u8; 64],
}

impl Partial {
    /// Opens the download of a blob of `size` bytes in pieces of `piece` bytes. Returns it with the pieces that are
    /// present. A download that was started with other sizes is started anew.
    pub(crate) fn open(
        store: &BlobStore,
        id: &ContentId,
        size: u64,
        piece: u64,
    ) -> Result<(Self, BTreeSet<u32>), BlobError> {
        let downloads = &store.inner.downloads;
        downloads.make_room()?;
        let path = downloads.data_path(id);
        let journal_file = journal_path(&path);
        let header = header(size, piece);
        let pieces = u32::try_from(size.div_ceil(piece).max(1)).unwrap_or(u32::MAX);
        let previous = if fs::metadata(&path).is_ok_and(|metadata| metadata.len() == size) {
            read_journal(&journal_file, &header, pieces)
        } else {
            None
        };
        if previous.is_none() {
            remove_file(&journal_file)?;
            remove_file(&path)?;
        }
        let open = |path: &Path| {
            OpenOptions::new()
                .create(true)
                .truncate(false)
                .read(true)
                .write(true)
                .open(path)
                .map_err(BlobError::at(path))
        };
        let data = open(&path)?;
        data.set_len(size).map_err(BlobError::at(&path))?;
        let mut journal = open(&journal_file)?;
        let verified = previous.unwrap_or_default();
        // The journal is rewritten: its last entry may be incomplete.
        let entries = verified.iter().flat_map(|piece| piece.to_le_bytes());
        let bytes: Vec<u8> = header.into_iter().chain(entries).collect();
        journal.write_all(&bytes).map_err(BlobError::at(&journal_file))?;
        journal.set_len(u64::try_from(bytes.len()).unwrap_or(u64::MAX)).map_err(BlobError::at(&journal_file))?;
        let hashes = usize::try_from(BaoTree::new(size, GROUPS).outboard_size()).unwrap_or_default();
        let files = Files { data, journal, hashes: vec![0; hashes], unsynced: 0, is_fresh: verified.is_empty() };
        Ok((Self { files: Mutex::new(files), path }, verified))
    }

    /// Returns the lock of this blob's download. Two downloads at the same time would do the same work twice.
    pub(crate) fn lock(store: &BlobStore, id: &ContentId) -> Arc<DownloadLock> {
        store.inner.downloads.lock(id)
    }

    /// Writes a verified piece, and notes it in the journal.
    pub(crate) fn write(&self, piece: u32, at: u64, bytes: &[u8], proof: &[Pair]) -> Result<(), BlobError> {
        let mut files = self.files();
        for Pair { offset, hashes } in proof {
            let at = usize::try_from(offset.saturating_mul(64)).unwrap_or(usize::MAX);
            if let Some(to) = files.hashes.get_mut(at..at.saturating_add(64)) {
                to.copy_from_slice(hashes);
            }
        }
        files.data.write_all_at(at, bytes).map_err(BlobError::at(&self.path))?;
        files.journal.write_all(&piece.to_le_bytes()).map_err(BlobError::at(&self.path))?;
        files.unsynced = files.unsynced.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        if files.unsynced >= SYNC_AFTER
            && let Ok(data) = files.data.try_clone()
        {
            files.unsynced = 0;
            // An error does not matter here: the whole file is synced at the end.
            blocking::unblock(move || data.sync_data()).detach();
        }
        Ok(())
    }

    /// Turns the download into a blob. If its hash is wrong, its files are deleted.
    pub(crate) fn finish(&self, store: &BlobStore, id: &ContentId) -> Result<(), BlobError> {
        let files = self.files();
        let file = files.data.try_clone().map_err(BlobError::at(&self.path))?;
        let mut path = TempPath::try_from_path(&self.path).map_err(BlobError::at(&self.path))?;
        // If storing fails because the disk is full, the download can be resumed later.
        path.disable_cleanup(true);
        let file = NamedTempFile::from_parts(file, path);
        let taken = if files.is_fresh {
            store.take_proven(file, id, &files.hashes)
        } else {
            store.take(file, Some(id)).map(drop)
        };
        match taken {
            Ok(()) => {}
            Err(BlobError::Damaged(id)) => {
                self.discard()?;
                return Err(BlobError::Damaged(id));
            }
            Err(error) => return Err(error),
        }
        remove_file(&journal_path(&self.path)).map(drop)
    }

    /// Deletes the files of the download.
    pub(crate) fn discard(&self) -> Result<(), BlobError> {
        remove_file(&journal_path(&self.path))?;
        remove_file(&self.path).map(drop)
    }

    fn files(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn header(size: u64, piece: u64) -> [u8; 24] {
    let mut header = [0; 24];
    let fields = MAGIC.iter().copied().chain(size.to_le_bytes()).chain(piece.to_le_bytes());
    for (to, from) in header.iter_mut().zip(fields) {
        *to = from;
    }
    header
}

/// Reads the pieces in the journal of this download. An incomplete last entry is ignored. `None` if the journal is of
/// another download.
fn read_journal(path: &Path, header: &[u8; 24], pieces: u32) -> Option<BTreeSet<u32>> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(MAX_JOURNAL_LEN).read_to_end(&mut bytes).ok()?;
    let entries = bytes.strip_prefix(header)?;
    let (entries, _) = entries.as_chunks::<4>();
    Some(entries.iter().map(|entry| u32::from_le_bytes(*entry)).filter(|piece| *piece < pieces).collect())
}
