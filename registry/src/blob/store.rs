use std::{
    fmt,
    fs::{self, DirEntry, File},
    io::{self, Read, Seek, Write},
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use bao_tree::{BaoTree, blake3, io::sync::outboard_post_order};
use tempfile::NamedTempFile;

use super::{
    BlobError, BlobReader,
    tree::{Blob, GROUP_LEN, GROUPS, Unproven, groups_in},
};
use crate::{ContentId, disk::sync_folder};

/// How many damaged blobs are kept to be looked at. A disk that goes bad would otherwise fill up with them.
const MAX_DAMAGED: usize = 16;

/// Blobs in a folder, by content id. Cloning it is cheap, and all clones are the same store.
///
/// Every method blocks on the disk: from async code, call it where blocking is welcome. A blob is written to a temporary
/// file, synced, and renamed, so that it is there as a whole or not at all, whenever the power goes.
///
/// A folder is for one process at a time: [`open`](Self::open) takes away what others are just writing, which then fails
/// for them.
#[derive(Clone)]
pub struct BlobStore {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    /// The blobs themselves, in folders by the first byte of their hash.
    blobs: PathBuf,
    /// What is being written.
    pub(super) temporary: PathBuf,
    /// What was set aside.
    damaged: PathBuf,
    #[cfg(feature = "p2p")]
    pub(super) partial: super::partial::Folder,
}

impl BlobStore {
    /// Opens the store in this folder, which is made if need be, and takes away what was left half written.
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
        let partial = super::partial::Folder::open(folder.join("partial"))?;
        Ok(Self {
            inner: Arc::new(Inner {
                blobs,
                temporary,
                damaged,
                #[cfg(feature = "p2p")]
                partial,
            }),
        })
    }

    /// Stores these bytes. If they are there already, nothing is written.
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

    /// Stores what can be read, up to `max` bytes, and says how many there were.
    ///
    /// # Errors
    ///
    /// [`BlobError::TooLarge`], [`BlobError::Source`] or [`BlobError::Io`].
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

    /// Takes a blob away, and says whether it was there. Readers that have begun may still read to the end.
    ///
    /// # Errors
    ///
    /// [`BlobError::Io`].
    pub fn remove(&self, id: &ContentId) -> Result<bool, BlobError> {
        // The tree last: without its blob, it is nothing.
        let was_there = remove_file(&self.path(id))?;
        remove_file(&self.hashes_path(id))?;
        Ok(was_there)
    }

    /// Whether the blob is there. It may have gone bad, which is found out when it is read.
    pub fn contains(&self, id: &ContentId) -> bool {
        self.path(id).is_file()
    }

    /// The size of a blob in bytes, if it is there.
    pub fn size(&self, id: &ContentId) -> Option<u64> {
        let metadata = fs::metadata(self.path(id)).ok()?;
        metadata.is_file().then_some(metadata.len())
    }

    /// A blob of up to `max` bytes.
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
        // It may have grown since.
        file.take(max.saturating_add(1)).read_to_end(&mut bytes).map_err(BlobError::at(&path))?;
        if ContentId::of(&bytes) == *id { Ok(bytes) } else { Err(self.set_aside(id)) }
    }

    /// A blob to be read in pieces, each of which is verified.
    ///
    /// # Errors
    ///
    /// [`BlobError::NotFound`] or [`BlobError::Io`]; that it has gone bad is seen when it is read.
    pub fn open_reader(&self, id: &ContentId) -> Result<BlobReader, BlobError> {
        let blob = self.blob(id)?;
        Ok(BlobReader::new(self.clone(), *id, blob.size))
    }

    /// Reads the whole blob and says its size, if all is right. A tree that is missing or bad is made again.
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
            // Another root, or it has become shorter.
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

    /// All blobs and their sizes in bytes, in no order.
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
                // Trees, and what is not ours, have other names.
                let id = ContentId::from(blake3::Hash::from_hex(file.file_name().to_str()?).ok()?);
                match file.metadata() {
                    Ok(metadata) => Some(Ok((id, metadata.len()))),
                    // It was removed meanwhile.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                    Err(error) => Some(Err(BlobError::at(&file.path())(error))),
                }
            })
    }

    /// The sizes of all blobs together, in bytes. It looks at each of them.
    ///
    /// # Errors
    ///
    /// [`BlobError::Io`].
    pub fn total_bytes(&self) -> Result<u64, BlobError> {
        self.iter().try_fold(0_u64, |total, blob| Ok(total.saturating_add(blob?.1)))
    }

    /// Appends these groups with their proofs, and says the blob's size. Groups behind the end stand for the last one.
    pub(crate) fn encode(&self, id: &ContentId, groups: Range<u64>, into: &mut Vec<u8>) -> Result<u64, BlobError> {
        // The second time with a tree that was made again.
        for is_last in [false, true] {
            let blob = self.blob(id)?;
            let last = groups_in(blob.size) - 1;
            let groups = groups.start.min(last)..groups.end.clamp(1, last + 1).max(groups.start.min(last) + 1);
            let count = usize::try_from(groups.end - groups.start).unwrap_or(usize::MAX);
            // Two hashes for each group, and for each step to the root; more than 64 groups are not asked for.
            into.reserve(count.min(64).saturating_mul(GROUP_LEN + 64).saturating_add(64 * 64));
            match blob.encode(&groups, into) {
                Ok(()) => return Ok(blob.size),
                Err(Unproven::Io(error)) => return Err(BlobError::at(&self.path(id))(error)),
                Err(Unproven::Mismatch) if is_last => {}
                Err(Unproven::Mismatch) => drop(self.verify(id)?),
            }
        }
        Err(self.set_aside(id))
    }

    /// Makes a blob of a file, of this id if one is given.
    pub(super) fn take(
        &self,
        mut file: NamedTempFile,
        expected: Option<&ContentId>,
    ) -> Result<(ContentId, u64), BlobError> {
        let path = file.path().to_owned();
        let failed = BlobError::at(&path);
        let size = file.as_file().metadata().map_err(&failed)?.len();
        file.as_file_mut().rewind().map_err(&failed)?;
        // What is on the disk is hashed, not what was meant to be written.
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

    /// Makes a blob of a file whose bytes and hashes were verified when they were written. It has come from others, and
    /// can again, should a power cut take its name away.
    pub(super) fn take_proven(&self, file: NamedTempFile, id: &ContentId, hashes: &[u8]) -> Result<(), BlobError> {
        let folder = self.folder(id);
        fs::create_dir_all(&folder).map_err(BlobError::at(&folder))?;
        // The blob last: when it is there, all is.
        if !hashes.is_empty() {
            self.write_hashes(id, hashes)?;
        }
        file.as_file().sync_all().map_err(BlobError::at(file.path()))?;
        let path = self.path(id);
        file.persist(&path).map(drop).map_err(|error| BlobError::at(&path)(error.error))
    }

    /// They are not synced: should they be lost, they are made again of the blob.
    fn write_hashes(&self, id: &ContentId, hashes: &[u8]) -> Result<(), BlobError> {
        let mut file = self.temporary()?;
        file.write_all(hashes).map_err(BlobError::at(file.path()))?;
        let path = self.hashes_path(id);
        file.persist(&path).map(drop).map_err(|error| BlobError::at(&path)(error.error))
    }

    pub(super) fn temporary(&self) -> Result<NamedTempFile, BlobError> {
        NamedTempFile::new_in(&self.inner.temporary).map_err(BlobError::at(&self.inner.temporary))
    }

    fn blob(&self, id: &ContentId) -> Result<Blob, BlobError> {
        let path = self.path(id);
        let data = open(&path)?.ok_or(BlobError::NotFound(*id))?;
        let size = data.metadata().map_err(BlobError::at(&path))?.len();
        let hashes = if groups_in(size) > 1 { open(&self.hashes_path(id))? } else { None };
        Ok(Blob { data, hashes, root: id.hash(), size })
    }

    /// Whatever becomes of it, it is not served any more.
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

fn open(path: &Path) -> Result<Option<File>, BlobError> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(BlobError::at(path)(error)),
    }
}

pub(super) fn remove_file(path: &Path) -> Result<bool, BlobError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(BlobError::at(path)(error)),
    }
}

type Children = Box<dyn Iterator<Item = Result<DirEntry, BlobError>> + Send>;

pub(super) fn children(folder: &Path) -> Children {
    let folder = folder.to_owned();
    match fs::read_dir(&folder) {
        Ok(children) => Box::new(children.map(move |child| child.map_err(BlobError::at(&folder)))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Box::new(std::iter::empty()),
        Err(error) => Box::new(std::iter::once(Err(BlobError::at(&folder)(error)))),
    }
}
