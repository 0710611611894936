use std::{
    fmt, fs,
    io::{self, Read, Seek, Write},
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use bao_tree::{BaoTree, blake3, io::sync::outboard_post_order};
use tempfile::NamedTempFile;

use super::{
    BlobError,
    files::{children, open, remove_file},
    tree::{Blob, EncodeGroupsError, GROUP_LEN, GROUPS, groups_in},
};
use crate::{ContentId, disk::sync_folder};

/// Maximum number of damaged blobs that are kept for inspection. Without it, a failing disk would fill up with them.
const MAX_DAMAGED: usize = 16;

/// Store of blobs (immutable bytes) in a folder, by content id. Cloning is cheap, and all clones are the same store.
///
/// Every method blocks on the disk: from async code, call it on a thread for blocking work. Writes are atomic: a blob
/// is written to a temporary file, synced and renamed, so that a crash leaves either the whole blob or none of it.
///
/// Only one store and its clones may use a folder at a time, and nothing checks that. [`open`](Self::open) deletes the
/// temporary files of any other store in the folder, whose writes in progress then fail.
///
/// # Example
///
/// ```
/// use kadence_registry::blob::BlobStore;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let folder = tempfile::tempdir()?;
/// let store = BlobStore::open(folder.path())?;
/// let id = store.put(b"hello")?;
/// assert_eq!(store.read(&id, 1024)?, b"hello");
/// assert_eq!(store.size(&id), Some(5));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct BlobStore {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    /// Folder of the blobs, in subfolders by the first byte of their hash.
    blobs: PathBuf,
    /// Folder of temporary files.
    pub(super) temporary: PathBuf,
    /// Folder of damaged blobs.
    damaged: PathBuf,
    #[cfg(feature = "p2p")]
    pub(super) downloads: super::downloads::Downloads,
}

impl BlobStore {
    /// Opens the store in a folder, creates the folder if it does not exist, and deletes the temporary files of
    /// interrupted writes.
    ///
    /// # Errors
    ///
    /// [`BlobError::Io`].
    pub fn open(folder: impl AsRef<Path>) -> Result<Self, BlobError> {
        let folder = folder.as_ref();
        let (blobs, temporary, damaged) = (folder.join("blobs"), folder.join("tmp"), folder.join("damaged"));
        match fs::remove_dir_all(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(BlobError::at(&temporary)(error)),
            _ => {}
        }
        for folder in [&blobs, &temporary, &damaged] {
            fs::create_dir_all(folder).map_err(BlobError::at(folder))?;
        }
        #[cfg(feature = "p2p")]
        let downloads = super::downloads::Downloads::open(folder.join("partial"))?;
        Ok(Self {
            inner: Arc::new(Inner {
                blobs,
                temporary,
                damaged,
                #[cfg(feature = "p2p")]
                downloads,
            }),
        })
    }

    /// Stores bytes and returns their id. If they are in the store already, the stored copy is verified, and written
    /// again only if it is damaged.
    ///
    /// # Errors
    ///
    /// [`BlobError::Io`].
    pub fn put(&self, bytes: &[u8]) -> Result<ContentId, BlobError> {
        let id = ContentId::of(bytes);
        match self.verify(&id) {
            Ok(_) => return Ok(id),
            Err(BlobError::NotFound(_) | BlobError::Damaged(_)) => {}
            Err(error) => return Err(error),
        }
        let mut file = self.temporary()?;
        file.write_all(bytes).map_err(BlobError::at(file.path()))?;
        self.take(file, None).map(|(id, _)| id)
    }

    /// Stores all bytes of a reader, at most `max`. Returns their id and their number.
    ///
    /// # Errors
    ///
    /// [`BlobError::TooLarge`] if the reader has more than `max` bytes, [`BlobError::Source`] if the reader fails, or
    /// [`BlobError::Io`]. Nothing is stored in the first two cases; after [`BlobError::Io`] the blob may be in the
    /// store.
    pub fn put_reader(&self, mut source: impl Read, max: u64) -> Result<(ContentId, u64), BlobError> {
        let mut file = self.temporary()?;
        let mut buffer = vec![0; 64 << 10];
        let mut size = 0_u64;
        loop {
            let read = match source.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(BlobError::Source(error)),
            };
            size = size.saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
            if size > max {
                return Err(BlobError::TooLarge { max });
            }
            let part = buffer.get(..read).unwrap_or_default();
            file.write_all(part).map_err(BlobError::at(file.path()))?;
        }
        self.take(file, None)
    }

    /// Removes a blob. Returns whether it was in the store. Each open [`BlobReader`](super::BlobReader) of the blob
    /// fails with [`BlobError::NotFound`] when it reads the next 16 KiB, unless the blob was stored again.
    ///
    /// # Errors
    ///
    /// [`BlobError::Io`].
    pub fn remove(&self, id: &ContentId) -> Result<bool, BlobError> {
        // The tree last: a tree without its blob is harmless.
        let was_there = remove_file(&self.path(id))?;
        remove_file(&self.hashes_path(id))?;
        Ok(was_there)
    }

    /// Returns whether the blob is in the store, without verifying it. False if the file system fails, too.
    pub fn contains(&self, id: &ContentId) -> bool {
        self.path(id).is_file()
    }

    /// Returns the size of a blob in bytes, without verifying it. `None` if it is not in the store, or if the file
    /// system fails.
    pub fn size(&self, id: &ContentId) -> Option<u64> {
        let metadata = fs::metadata(self.path(id)).ok()?;
        metadata.is_file().then_some(metadata.len())
    }

    /// Reads and verifies a whole blob of at most `max` bytes.
    ///
    /// # Errors
    ///
    /// [`BlobError::NotFound`], [`BlobError::TooLarge`], [`BlobError::Damaged`] or [`BlobError::Io`].
    pub fn read(&self, id: &ContentId, max: u64) -> Result<Vec<u8>, BlobError> {
        let path = self.path(id);
        let file = open(&path)?.ok_or(BlobError::NotFound(*id))?;
        if file.metadata().map_err(BlobError::at(&path))?.len() > max {
            return Err(BlobError::TooLarge { max });
        }
        let mut bytes = Vec::new();
        // The file may have grown since.
        file.take(max.saturating_add(1)).read_to_end(&mut bytes).map_err(BlobError::at(&path))?;
        if ContentId::of(&bytes) == *id { Ok(bytes) } else { Err(self.set_aside(id)) }
    }

    /// Reads and verifies a whole blob without returning its bytes. Returns its size in bytes. A stored hash tree that
    /// is missing or wrong is rebuilt.
    ///
    /// # Errors
    ///
    /// [`BlobError::NotFound`], [`BlobError::Damaged`] or [`BlobError::Io`].
    pub fn verify(&self, id: &ContentId) -> Result<u64, BlobError> {
        let blob = self.blob(id)?;
        let mut hashes = Vec::new();
        let root = outboard_post_order(&blob.data, BaoTree::new(blob.size, GROUPS), &mut hashes);
        match root {
            Ok(root) if root == id.hash() => {}
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => {
                return Err(BlobError::at(&self.path(id))(error));
            }
            // Another root, or the file has become shorter.
            _ => return Err(self.set_aside(id)),
        }
        let is_right = match fs::read(self.hashes_path(id)) {
            Ok(stored) => stored == hashes,
            Err(_) => hashes.is_empty(),
        };
        if !is_right {
            self.write_hashes(id, &hashes)?;
        }
        Ok(blob.size)
    }

    /// Iterates over all blobs with their sizes in bytes, in no particular order and without verifying them. An error
    /// of the file system is an item.
    pub fn iter(&self) -> impl Iterator<Item = Result<(ContentId, u64), BlobError>> + use<> {
        let folders = children(&self.inner.blobs);
        folders
            .flat_map(|folder| match folder {
                Ok(folder) => children(&folder.path()),
                Err(error) => Box::new(std::iter::once(Err(error))),
            })
            .filter_map(|file| {
                let file = match file {
                    Ok(file) => file,
                    Err(error) => return Some(Err(error)),
                };
                // Hash trees and foreign files have other names.
                let id = ContentId::from(blake3::Hash::from_hex(file.file_name().to_str()?).ok()?);
                match file.metadata() {
                    Ok(metadata) => Some(Ok((id, metadata.len()))),
                    // The blob was removed in the meantime.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                    Err(error) => Some(Err(BlobError::at(&file.path())(error))),
                }
            })
    }

    /// Returns the total size of all blobs in bytes, without their hash trees. The time is in proportion to the number
    /// of blobs.
    ///
    /// # Errors
    ///
    /// [`BlobError::Io`].
    pub fn total_bytes(&self) -> Result<u64, BlobError> {
        self.iter().try_fold(0_u64, |total, blob| Ok(total.saturating_add(blob?.1)))
    }

    /// Appends groups with their proofs to `into`. Returns the blob's size. Groups beyond the end stand for the last
    /// group.
    pub(crate) fn encode(&self, id: &ContentId, groups: Range<u64>, into: &mut Vec<u8>) -> Result<u64, BlobError> {
        // The second attempt has a rebuilt tree.
        for is_last in [false, true] {
            let blob = self.blob(id)?;
            let last = groups_in(blob.size) - 1;
            let groups = groups.start.min(last)..groups.end.clamp(1, last + 1).max(groups.start.min(last) + 1);
            let count = usize::try_from(groups.end - groups.start).unwrap_or(usize::MAX);
            // Two hashes for each group, and for each level up to the root. Callers ask for at most 64 groups.
            into.reserve(count.min(64).saturating_mul(GROUP_LEN + 64).saturating_add(64 * 64));
            match blob.encode(&groups, into) {
                Ok(()) => return Ok(blob.size),
                Err(EncodeGroupsError::Io(error)) => return Err(BlobError::at(&self.path(id))(error)),
                Err(EncodeGroupsError::Mismatch) if is_last => {}
                Err(EncodeGroupsError::Mismatch) => drop(self.verify(id)?),
            }
        }
        Err(self.set_aside(id))
    }

    /// Turns a file into a blob and, if an id is expected, checks its hash.
    pub(super) fn take(
        &self,
        mut file: NamedTempFile,
        expected: Option<&ContentId>,
    ) -> Result<(ContentId, u64), BlobError> {
        let path = file.path().to_owned();
        let failed = BlobError::at(&path);
        let size = file.as_file().metadata().map_err(&failed)?.len();
        file.as_file_mut().rewind().map_err(&failed)?;
        // Hash the bytes that are on the disk, not those that were meant to be written.
        let mut hashes = Vec::new();
        let root = outboard_post_order(file.as_file(), BaoTree::new(size, GROUPS), &mut hashes);
        let id = ContentId::from(root.map_err(&failed)?);
        match expected {
            Some(expected) if *expected != id => Err(BlobError::Damaged(*expected)),
            _ => {
                self.take_proven(file, &id, &hashes)?;
                let folder = self.folder(&id);
                sync_folder(&folder).map(|()| (id, size)).map_err(BlobError::at(&folder))
            }
        }
    }

    /// Turns a file whose bytes and hashes were verified when they were written into a blob. The folder is not synced:
    /// if a crash loses the name, the blob can be fetched from other peers again.
    pub(super) fn take_proven(&self, file: NamedTempFile, id: &ContentId, hashes: &[u8]) -> Result<(), BlobError> {
        let folder = self.folder(id);
        fs::create_dir_all(&folder).map_err(BlobError::at(&folder))?;
        // The blob last: its existence implies the tree's.
        if !hashes.is_empty() {
            self.write_hashes(id, hashes)?;
        }
        file.as_file().sync_all().map_err(BlobError::at(file.path()))?;
        let path = self.path(id);
        file.persist(&path).map(drop).map_err(|error| BlobError::at(&path)(error.error))
    }

    /// Writes a blob's hash tree, without a sync: a lost tree is rebuilt from the blob.
    fn write_hashes(&self, id: &ContentId, hashes: &[u8]) -> Result<(), BlobError> {
        let mut file = self.temporary()?;
        file.write_all(hashes).map_err(BlobError::at(file.path()))?;
        let path = self.hashes_path(id);
        file.persist(&path).map(drop).map_err(|error| BlobError::at(&path)(error.error))
    }

    pub(super) fn temporary(&self) -> Result<NamedTempFile, BlobError> {
        NamedTempFile::new_in(&self.inner.temporary).map_err(BlobError::at(&self.inner.temporary))
    }

    pub(super) fn blob(&self, id: &ContentId) -> Result<Blob, BlobError> {
        let path = self.path(id);
        let data = open(&path)?.ok_or(BlobError::NotFound(*id))?;
        let size = data.metadata().map_err(BlobError::at(&path))?.len();
        let hashes = if groups_in(size) > 1 { open(&self.hashes_path(id))? } else { None };
        Ok(Blob { data, hashes, root: id.hash(), size })
    }

    /// Moves a damaged blob out of the store, or deletes it, so that it is not served any more.
    fn set_aside(&self, id: &ContentId) -> BlobError {
        let path = self.path(id);
        let kept = children(&self.inner.damaged).count();
        let moved =
            kept < MAX_DAMAGED && fs::rename(&path, self.inner.damaged.join(id.hash().to_hex().as_str())).is_ok();
        if !moved {
            match remove_file(&path) {
                Ok(_) => {}
                Err(error) => return error,
            }
        }
        BlobError::Damaged(*id)
    }

    fn folder(&self, id: &ContentId) -> PathBuf {
        let hex = id.hash().to_hex();
        self.inner.blobs.join(hex.get(..2).unwrap_or_default())
    }

    fn path(&self, id: &ContentId) -> PathBuf {
        self.folder(id).join(id.hash().to_hex().as_str())
    }

    fn hashes_path(&self, id: &ContentId) -> PathBuf {
        self.path(id).with_extension("tree")
    }
}

impl fmt::Debug for BlobStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlobStore").field("blobs", &self.inner.blobs).finish_non_exhaustive()
    }
}
