use std::{
    collections::{BTreeSet, HashMap},
    fs::{self, File, OpenOptions},
    io::{Read, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use bao_tree::{BaoTree, io::sync::WriteAt};
use tempfile::{NamedTempFile, TempPath};

use super::{
    BlobError, BlobStore,
    store::{children, remove_file},
    tree::GROUPS,
};
use crate::ContentId;

/// How many unfinished downloads are kept to be gone on with. The oldest go first.
const MAX_PARTIALS: usize = 32;

/// After so many bytes the disk begins to write, so that not all is left for the end.
const SYNC_AFTER: u64 = 4 << 20;

/// The first bytes of a journal, with its version.
const MAGIC: &[u8; 8] = b"ggenjnl1";

/// The longest journal that is read: the largest blob has not as many pieces.
const MAX_JOURNAL: u64 = 4 << 20;

/// Where unfinished downloads are, and which of them are going on.
pub(super) struct Folder {
    path: PathBuf,
    busy: Mutex<HashMap<ContentId, Weak<Turn>>>,
}

/// Whose turn it is with a download.
pub(crate) type Turn = futures::lock::Mutex<()>;

impl Folder {
    pub(super) fn open(path: PathBuf) -> Result<Self, BlobError> {
        fs::create_dir_all(&path).map_err(BlobError::at(&path))?;
        Ok(Self { path, busy: Mutex::default() })
    }

    fn busy(&self) -> MutexGuard<'_, HashMap<ContentId, Weak<Turn>>> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn data(&self, id: &ContentId) -> PathBuf {
        self.path.join(id.hash().to_hex().as_str())
    }

    /// Takes away the oldest ones that nobody is at.
    fn make_room(&self) -> Result<(), BlobError> {
        let going_on = |(id, turn): (&ContentId, &Weak<Turn>)| (turn.strong_count() > 0).then(|| self.data(id));
        let busy: Vec<PathBuf> = self.busy().iter().filter_map(going_on).collect();
        let mut kept = Vec::new();
        for child in children(&self.path) {
            let path = child?.path();
            if path.extension().is_none() && !busy.contains(&path) {
                let modified = fs::metadata(&path).and_then(|metadata| metadata.modified()).ok();
                kept.push((modified, path));
            }
        }
        kept.sort();
        for (_, path) in kept.iter().take(kept.len().saturating_sub(MAX_PARTIALS - 1)) {
            remove_file(path)?;
            remove_file(&journal(path))?;
        }
        Ok(())
    }
}

/// An unfinished download: a file with holes, and a journal of the pieces that were verified and written.
///
/// The journal is a hint: a power cut may leave it ahead of the file. If anything is there from an earlier time, the whole
/// file is hashed before it becomes a blob.
#[derive(Debug)]
pub(crate) struct Partial {
    files: Mutex<Files>,
    path: PathBuf,
}

#[derive(Debug)]
struct Files {
    data: File,
    journal: File,
    /// The hash tree in post-order, as far as it has come: 0.4 % of the blob.
    hashes: Vec<u8>,
    /// Bytes that were written since the disk was last asked to keep what there is.
    unsynced: u64,
    /// Whether every piece was verified by us: nothing is there from an earlier time.
    is_ours: bool,
}

/// A pair of hashes that was verified, and where it is in a tree in post-order.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) offset: u64,
    pub(crate) hashes: [u8; 64],
}

impl Partial {
    /// Opens the download of a blob of this size in pieces of this size, and says which pieces are there. What was begun
    /// with other sizes is begun anew.
    pub(crate) fn open(
        store: &BlobStore,
        id: &ContentId,
        size: u64,
        piece: u64,
    ) -> Result<(Self, BTreeSet<u32>), BlobError> {
        let folder = &store.inner.partial;
        folder.make_room()?;
        let path = folder.data(id);
        let journal_path = journal(&path);
        let header = header(size, piece);
        let pieces = u32::try_from(size.div_ceil(piece).max(1)).unwrap_or(u32::MAX);
        let found = if fs::metadata(&path).is_ok_and(|metadata| metadata.len() == size) {
            read_journal(&journal_path, &header, pieces)
        } else {
            None
        };
        if found.is_none() {
            remove_file(&journal_path)?;
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
        let mut journal = open(&journal_path)?;
        let noted = found.unwrap_or_default();
        // It is written anew: the last time may have ended in the middle of an entry.
        let entries = noted.iter().flat_map(|piece| piece.to_le_bytes());
        let bytes: Vec<u8> = header.into_iter().chain(entries).collect();
        journal.write_all(&bytes).map_err(BlobError::at(&journal_path))?;
        journal.set_len(u64::try_from(bytes.len()).unwrap_or(u64::MAX)).map_err(BlobError::at(&journal_path))?;
        let hashes = usize::try_from(BaoTree::new(size, GROUPS).outboard_size()).unwrap_or_default();
        let files = Files { data, journal, hashes: vec![0; hashes], unsynced: 0, is_ours: noted.is_empty() };
        Ok((Self { files: Mutex::new(files), path }, noted))
    }

    /// Whose turn it is with the download of this blob: two at once would do the same work twice.
    pub(crate) fn turn(store: &BlobStore, id: &ContentId) -> Arc<Turn> {
        let mut busy = store.inner.partial.busy();
        busy.retain(|_, turn| turn.strong_count() > 0);
        if let Some(turn) = busy.get(id).and_then(Weak::upgrade) {
            return turn;
        }
        let turn = Arc::new(Turn::new(()));
        busy.insert(*id, Arc::downgrade(&turn));
        turn
    }

    /// Writes a piece that was verified, and notes that it is there.
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
            // What comes of it does not matter here: the whole is synced at the end.
            blocking::unblock(move || data.sync_data()).detach();
        }
        Ok(())
    }

    /// Makes the blob of it, if it is right as a whole. If it is not, it is taken away.
    pub(crate) fn finish(&self, store: &BlobStore, id: &ContentId) -> Result<(), BlobError> {
        let files = self.files();
        let file = files.data.try_clone().map_err(BlobError::at(&self.path))?;
        let mut path = TempPath::try_from_path(&self.path).map_err(BlobError::at(&self.path))?;
        // Whoever cannot store it now, because the disk is full, may go on later.
        path.disable_cleanup(true);
        let file = NamedTempFile::from_parts(file, path);
        let taken = if files.is_ours {
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
        remove_file(&journal(&self.path)).map(drop)
    }

    /// Takes away what there is of it.
    pub(crate) fn discard(&self) -> Result<(), BlobError> {
        remove_file(&journal(&self.path))?;
        remove_file(&self.path).map(drop)
    }

    fn files(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn journal(path: &Path) -> PathBuf {
    path.with_extension("journal")
}

fn header(size: u64, piece: u64) -> [u8; 24] {
    let mut header = [0; 24];
    let fields = MAGIC.iter().copied().chain(size.to_le_bytes()).chain(piece.to_le_bytes());
    for (to, from) in header.iter_mut().zip(fields) {
        *to = from;
    }
    header
}

/// The pieces that are there, if the journal is one of this download. A torn end is left out.
fn read_journal(path: &Path, header: &[u8; 24], pieces: u32) -> Option<BTreeSet<u32>> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(MAX_JOURNAL).read_to_end(&mut bytes).ok()?;
    let entries = bytes.strip_prefix(header)?;
    let (entries, _) = entries.as_chunks::<4>();
    Some(entries.iter().map(|entry| u32::from_le_bytes(*entry)).filter(|piece| *piece < pieces).collect())
}
