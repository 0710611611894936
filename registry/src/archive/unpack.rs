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

/// Result of [`unpack`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unpacked {
    /// Number of files, without folders.
    pub files: usize,
    /// Total size of the files, in bytes.
    pub bytes: u64,
}

/// Error of [`unpack`]. The temporary folder with the unpacked files is deleted, if possible; parent folders of the
/// target that were created stay.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum UnpackError {
    /// The target exists and is not an empty folder: choose another one, or remove it.
    #[error("{} exists and is not an empty folder", path.display())]
    Occupied {
        /// The target.
        path: PathBuf,
    },
    /// The archive is not a valid gzipped tar, for example because it is damaged or cut off, or the archive's reader
    /// failed.
    #[error("not an archive: {0}")]
    Malformed(#[source] io::Error),
    /// A path is rejected for a reason in [`PathError`], for example because it is not portable or too long: the
    /// archive is malicious, or was made by a program that allows such paths.
    #[error("archive contains the path {path:?}: {reason}")]
    Path {
        /// The path, with invalid UTF-8 replaced.
        path: String,
        /// The reason.
        reason: PathError,
    },
    /// An entry is neither a file nor a folder but, for example, a link, a device or an extension of the format.
    #[error("archive contains {path:?}, which is neither a file nor a folder")]
    NotAFile {
        /// The path, with invalid UTF-8 replaced.
        path: String,
    },
    /// A path occurs twice, is both a file and a folder, or differs from another one only in upper and lower case.
    /// Parent folders without an entry of their own are compared, too.
    #[error("archive contains {path:?} twice, or as a folder and a file")]
    Ambiguous {
        /// The path.
        path: String,
    },
    /// The archive has more files and folders than [`ArchiveLimits::entries`](field@ArchiveLimits::entries). Parent
    /// folders without an entry of their own count, too.
    #[error("archive has more than {max} files and folders")]
    TooManyEntries {
        /// Maximum number.
        max: usize,
    },
    /// A file is larger than [`ArchiveLimits::file_bytes`](field@ArchiveLimits::file_bytes).
    #[error("{path:?} is larger than the maximum of {max} bytes")]
    FileTooLarge {
        /// The path.
        path: String,
        /// Maximum size, in bytes.
        max: u64,
    },
    /// The files are larger in total than [`ArchiveLimits::total_bytes`](field@ArchiveLimits::total_bytes), or the
    /// uncompressed tar is larger than one within all limits can be.
    #[error("archive has more than {max} bytes in total")]
    TooLarge {
        /// Maximum total size of the files, in bytes.
        max: u64,
    },
    /// A file or folder cannot be created, written or synced, the target cannot be examined, or the unpacked folder
    /// cannot be renamed to the target.
    #[error("{} cannot be written: {source}", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
}

/// Unpacks an archive as the folder `into`, which has to be missing or empty. Missing parent folders are created.
/// Blocks the thread.
///
/// The archive is unpacked into a new folder next to `into`, which is synced and renamed at the end: after a crash,
/// `into` is complete, missing, or as empty as before, never a part of the archive. Of the permissions, only the
/// executable bit is taken over.
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
    rename(fresh.path(), into).map_err(|source| match source.kind() {
        io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => {
            UnpackError::Occupied { path: into.to_owned() }
        }
        _ => write(source),
    })?;
    // The folder was renamed: there is nothing to delete.
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

fn rename(fresh: &Path, into: &Path) -> io::Result<()> {
    match fs::remove_dir(into) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => fs::rename(fresh, into),
    }
}

struct Unpacking<'a> {
    root: &'a Path,
    limits: &'a ArchiveLimits,
    /// The paths seen so far, by their [`key`].
    seen: HashMap<String, Seen>,
    unpacked: Unpacked,
}

struct Seen {
    path: String,
    kind: EntryKind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum EntryKind {
    File,
    Folder,
    /// A folder that an entry implied before the folder's own entry.
    ImpliedFolder,
}

impl Unpacking<'_> {
    fn run(&mut self, archive: impl Read) -> Result<(), UnpackError> {
        let max = self.limits.tar_bytes();
        // One more byte distinguishes an archive of exactly the maximum size from a larger one.
        let mut tar = Archive::new(GzDecoder::new(archive).take(max.saturating_add(1)));
        let too_large = UnpackError::TooLarge { max: self.limits.total_bytes };
        let outcome = self.entries(&mut tar);
        // Read to the end, so that gzip verifies its checksum.
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
        // Raw: extensions such as long names are entries of their own kind, instead of being read into memory.
        for entry in tar.entries().map_err(UnpackError::Malformed)?.raw(true) {
            let mut entry = entry.map_err(UnpackError::Malformed)?;
            let header = entry.header();
            let kind = header.entry_type();
            let name = header.path_bytes().into_owned();
            let size = header.entry_size().map_err(UnpackError::Malformed)?;
            let mode = header.mode().map_err(UnpackError::Malformed)?;
            let shown = || String::from_utf8_lossy(&name).into_owned();
            if !matches!(kind, EntryType::Regular | EntryType::Directory) {
                return Err(UnpackError::NotAFile { path: shown() });
            }
            let is_folder = kind == EntryType::Directory;
            let path = str::from_utf8(&name).map_err(|_| PathError::NotUtf8).and_then(|path| {
                let path = if is_folder { path.strip_suffix('/').unwrap_or(path) } else { path };
                check(path, self.limits.longest_path()).map(|()| path)
            });
            let path = path.map_err(|reason| UnpackError::Path { path: shown(), reason })?;
            self.enter(path, if is_folder { EntryKind::Folder } else { EntryKind::File })?;
            if is_folder {
                // A folder has no content. Bytes that follow its header are skipped, and count towards the total.
                self.folder(path)?;
            } else {
                self.file(path, size, mode & 0o111 != 0, &mut entry)?;
            }
        }
        Ok(())
    }

    /// Records a path and the folders above it.
    fn enter(&mut self, path: &str, kind: EntryKind) -> Result<(), UnpackError> {
        for above in ancestors(path) {
            self.note(above, EntryKind::ImpliedFolder)?;
        }
        self.note(path, kind)
    }

    fn note(&mut self, path: &str, kind: EntryKind) -> Result<(), UnpackError> {
        let ambiguous = || UnpackError::Ambiguous { path: path.to_owned() };
        match self.seen.entry(key(path)) {
            hash_map::Entry::Vacant(vacant) => {
                vacant.insert(Seen { path: path.to_owned(), kind });
            }
            hash_map::Entry::Occupied(mut seen) => {
                let seen = seen.get_mut();
                match (seen.kind, kind) {
                    _ if seen.path != path => return Err(ambiguous()),
                    (EntryKind::Folder | EntryKind::ImpliedFolder, EntryKind::ImpliedFolder) => {}
                    (EntryKind::ImpliedFolder, EntryKind::Folder) => seen.kind = EntryKind::Folder,
                    (EntryKind::File, _) | (_, EntryKind::File) | (EntryKind::Folder, EntryKind::Folder) => {
                        return Err(ambiguous());
                    }
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

    /// Syncs the folders, so that the names of the files are on the disk.
    fn sync_folders(&self) -> io::Result<()> {
        for Seen { path, kind } in self.seen.values() {
            if *kind != EntryKind::File {
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
        // `create_new` makes it an error if the file system does not distinguish two names that differ here.
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

/// Takes only the executable bit from an archive: no setuid bit, and no file that everyone can write.
#[cfg(unix)]
fn set_mode(path: &Path, executable: bool) -> io::Result<()> {
    let mode = if executable { 0o755 } else { 0o644 };
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode))
}

#[cfg(not(unix))]
fn set_mode(_: &Path, _: bool) -> io::Result<()> {
    Ok(())
}
