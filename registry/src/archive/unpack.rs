use std::{
    collections::{HashMap, hash_map},
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use flate2::read::GzDecoder;
use tar::{Archive, EntryType};
use thiserror::Error;

use super::{
    ArchiveLimits, PathError,
    path::{ancestors, check, key},
};
use crate::disk::sync_folder;

/// What an archive came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unpacked {
    /// How many files.
    pub files: usize,
    /// How many bytes they have together.
    pub bytes: u64,
}

/// Why an archive was not unpacked. There is nothing of it on the disk then.
#[derive(Debug, Error)]
pub enum UnpackError {
    /// The target is there and is not an empty folder: choose another, or take it away.
    #[error("{} is there already", path.display())]
    Occupied {
        /// The target.
        path: PathBuf,
    },
    /// This is no gzipped tar, or one that ends too early.
    #[error("this is not an archive: {0}")]
    Malformed(#[source] io::Error),
    /// A path in it is not plain: the archive was made to do harm, or on a system with other paths.
    #[error("the archive has the path {path:?}: {fault}")]
    Path {
        /// Which, as far as it is text.
        path: String,
        /// What is wrong with it.
        fault: PathError,
    },
    /// Something else than a file or a folder is in it: a link, a device, an extension of the format.
    #[error("the archive has {path:?}, which is neither a file nor a folder")]
    Kind {
        /// Which, as far as it is text.
        path: String,
    },
    /// A path is there twice, or in two cases, or leads through a file.
    #[error("the archive has {path:?} twice, or something below a file")]
    Ambiguous {
        /// Which.
        path: String,
    },
    /// It has more files and folders than the limit.
    #[error("more than {max} files and folders")]
    TooManyEntries {
        /// The limit.
        max: usize,
    },
    /// A file in it is larger than the limit.
    #[error("{path:?} is larger than {max} bytes")]
    FileTooLarge {
        /// Which.
        path: String,
        /// The limit in bytes.
        max: u64,
    },
    /// All files together are larger than the limit, or the tar has more in it than files.
    #[error("more than {max} bytes in all")]
    TooLarge {
        /// The limit in bytes.
        max: u64,
    },
    /// The files cannot be written.
    #[error("{} cannot be written: {source}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Unpacks an archive as the folder `into`, which must not be there or be empty. What is above it is made if need be.
///
/// All is unpacked into a new folder beside it, which takes its name once all was right and is on the disk: whatever happens
/// to the power, the folder is not there or is as it should be. It blocks.
///
/// # Errors
///
/// See [`UnpackError`].
pub fn unpack(archive: impl Read, into: &Path, limits: &ArchiveLimits) -> Result<Unpacked, UnpackError> {
    let write = |source| UnpackError::Write { path: into.to_owned(), source };
    if is_occupied(into).map_err(write)? {
        return Err(UnpackError::Occupied { path: into.to_owned() });
    }
    let above = match into.parent() {
        Some(above) if !above.as_os_str().is_empty() => above,
        _ => Path::new("."),
    };
    fs::create_dir_all(above).map_err(write)?;
    let fresh = tempfile::Builder::new().prefix(".unpacking-").tempdir_in(above).map_err(write)?;
    let mut unpacking =
        Unpacking { root: fresh.path(), limits, seen: HashMap::new(), unpacked: Unpacked { files: 0, bytes: 0 } };
    unpacking.run(archive)?;
    let unpacked = unpacking.unpacked;
    set_mode(fresh.path(), true).map_err(write)?;
    unpacking.sync_folders().map_err(write)?;
    take_its_name(fresh.path(), into).map_err(|source| match source.kind() {
        io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => {
            UnpackError::Occupied { path: into.to_owned() }
        }
        _ => write(source),
    })?;
    // It is not there under its old name any more: there is nothing to be taken away.
    let _moved = fresh.keep();
    Ok(unpacked)
}

fn is_occupied(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => Ok(fs::read_dir(path)?.next().is_some()),
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn take_its_name(fresh: &Path, into: &Path) -> io::Result<()> {
    match fs::remove_dir(into) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => fs::rename(fresh, into),
    }
}

struct Unpacking<'a> {
    root: &'a Path,
    limits: &'a ArchiveLimits,
    /// By [`key`].
    seen: HashMap<String, Seen>,
    unpacked: Unpacked,
}

struct Seen {
    path: String,
    what: What,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    File,
    Folder,
    /// Something was in it before it was named itself.
    ImpliedFolder,
}

impl Unpacking<'_> {
    fn run(&mut self, archive: impl Read) -> Result<(), UnpackError> {
        let max = self.limits.tar_bytes();
        // One byte more tells an archive that has just the size from one that has more.
        let mut tar = Archive::new(GzDecoder::new(archive).take(max.saturating_add(1)));
        let too_large = UnpackError::TooLarge { max: self.limits.total_bytes };
        let outcome = self.entries(&mut tar);
        // To the end, for the checksum that is there.
        let mut rest = tar.into_inner();
        let drained = if outcome.is_ok() { io::copy(&mut rest, &mut io::sink()) } else { Ok(0) };
        match (outcome, drained) {
            (_, _) if rest.limit() == 0 => Err(too_large),
            (Err(error), _) => Err(error),
            (Ok(()), Err(error)) => Err(UnpackError::Malformed(error)),
            (Ok(()), Ok(_)) => Ok(()),
        }
    }

    fn entries<R: Read>(&mut self, tar: &mut Archive<R>) -> Result<(), UnpackError> {
        // Raw: long names and other extensions come as entries of their own kind, instead of being read into memory.
        for entry in tar.entries().map_err(UnpackError::Malformed)?.raw(true) {
            let mut entry = entry.map_err(UnpackError::Malformed)?;
            let header = entry.header();
            let kind = header.entry_type();
            let name = header.path_bytes().into_owned();
            let size = header.entry_size().map_err(UnpackError::Malformed)?;
            let mode = header.mode().map_err(UnpackError::Malformed)?;
            let shown = || String::from_utf8_lossy(&name).into_owned();
            if !matches!(kind, EntryType::Regular | EntryType::Directory) {
                return Err(UnpackError::Kind { path: shown() });
            }
            let is_folder = kind == EntryType::Directory;
            let path = str::from_utf8(&name).map_err(|_| PathError::NotUtf8).and_then(|path| {
                let path = if is_folder { path.strip_suffix('/').unwrap_or(path) } else { path };
                check(path, self.limits.longest_path()).map(|()| path)
            });
            let path = path.map_err(|fault| UnpackError::Path { path: shown(), fault })?;
            self.enter(path, if is_folder { What::Folder } else { What::File })?;
            if is_folder {
                // It has no content, whatever the header says; what there is would be skipped, and counts in the whole.
                self.folder(path)?;
            } else {
                self.file(path, size, mode & 0o111 != 0, &mut entry)?;
            }
        }
        Ok(())
    }

    /// Notes a path and the folders above it.
    fn enter(&mut self, path: &str, what: What) -> Result<(), UnpackError> {
        for above in ancestors(path) {
            self.note(above, What::ImpliedFolder)?;
        }
        self.note(path, what)
    }

    fn note(&mut self, path: &str, what: What) -> Result<(), UnpackError> {
        let ambiguous = || UnpackError::Ambiguous { path: path.to_owned() };
        match self.seen.entry(key(path)) {
            hash_map::Entry::Vacant(vacant) => {
                vacant.insert(Seen { path: path.to_owned(), what });
            }
            hash_map::Entry::Occupied(mut seen) => {
                let seen = seen.get_mut();
                match (seen.what, what) {
                    _ if seen.path != path => return Err(ambiguous()),
                    (What::Folder | What::ImpliedFolder, What::ImpliedFolder) => {}
                    (What::ImpliedFolder, What::Folder) => seen.what = What::Folder,
                    (What::File, _) | (_, What::File) | (What::Folder, What::Folder) => return Err(ambiguous()),
                }
            }
        }
        if self.seen.len() > self.limits.entries {
            return Err(UnpackError::TooManyEntries { max: self.limits.entries });
        }
        Ok(())
    }

    fn folder(&self, path: &str) -> Result<(), UnpackError> {
        let path = self.root.join(path);
        fs::create_dir_all(&path).map_err(|source| UnpackError::Write { path, source })
    }

    /// Which files are in them.
    fn sync_folders(&self) -> io::Result<()> {
        for Seen { path, what } in self.seen.values() {
            if *what != What::File {
                sync_folder(&self.root.join(path))?;
            }
        }
        sync_folder(self.root)
    }

    fn file(&mut self, path: &str, size: u64, executable: bool, content: &mut impl Read) -> Result<(), UnpackError> {
        if size > self.limits.file_bytes {
            return Err(UnpackError::FileTooLarge { path: path.to_owned(), max: self.limits.file_bytes });
        }
        let bytes = self.unpacked.bytes.saturating_add(size);
        if bytes > self.limits.total_bytes {
            return Err(UnpackError::TooLarge { max: self.limits.total_bytes });
        }
        let target = self.root.join(path);
        let write = |source| UnpackError::Write { path: target.clone(), source };
        if let Some(above) = target.parent() {
            fs::create_dir_all(above).map_err(write)?;
        }
        // A new one: should the file system take two names for the same that we do not, it is an error.
        let mut file = OpenOptions::new().write(true).create_new(true).open(&target).map_err(write)?;
        copy(content, size, &mut file).map_err(|error| match error {
            CopyError::Read(error) => UnpackError::Malformed(error),
            CopyError::Write(source) => write(source),
        })?;
        set_mode(&target, executable).map_err(write)?;
        file.sync_all().map_err(write)?;
        self.unpacked = Unpacked { files: self.unpacked.files + 1, bytes };
        Ok(())
    }
}

enum CopyError {
    Read(io::Error),
    Write(io::Error),
}

fn copy(from: &mut impl Read, size: u64, to: &mut File) -> Result<(), CopyError> {
    let mut buffer = vec![0; 64 << 10];
    let mut left = size;
    while left > 0 {
        let read = match from.read(&mut buffer) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(CopyError::Read(error)),
        };
        let Some(part) = buffer.get(..read).filter(|part| !part.is_empty()) else {
            return Err(CopyError::Read(io::ErrorKind::UnexpectedEof.into()));
        };
        to.write_all(part).map_err(CopyError::Write)?;
        left = left.saturating_sub(u64::try_from(read).unwrap_or(u64::MAX));
    }
    Ok(())
}

/// Nothing but whether it can be executed (a folder: entered) is taken from an archive: no setuid, no file that everyone
/// can write.
#[cfg(unix)]
fn set_mode(path: &Path, executable: bool) -> io::Result<()> {
    let mode = if executable { 0o755 } else { 0o644 };
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode))
}

#[cfg(not(unix))]
fn set_mode(_: &Path, _: bool) -> io::Result<()> {
    Ok(())
}
