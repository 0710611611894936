use std::{
    collections::{BTreeMap, btree_map},
    fs::{self, File, Metadata},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use flate2::{Compression, GzBuilder};
use tar::{Builder, EntryType, Header};
use thiserror::Error;

use super::{
    ArchiveLimits, PathError,
    path::{check, key},
};

/// Result of [`pack`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packed {
    /// Number of files.
    pub files: usize,
    /// Total size of the files, in bytes.
    pub bytes: u64,
}

/// Error of [`pack`]. The bytes written until then are not an archive.
#[derive(Debug, Error)]
pub enum PackError {
    /// A file or folder cannot be read.
    #[error("{} cannot be read: {source}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// An entry is neither a file nor a folder but, for example, a symbolic link, a socket or a device: remove it, or
    /// replace it with a file.
    #[error("{} is neither a file nor a folder", path.display())]
    Kind {
        /// The entry.
        path: PathBuf,
    },
    /// A path is not portable: rename the file or folder.
    #[error("{} cannot be packed: {fault}", path.display())]
    Path {
        /// The file or folder.
        path: PathBuf,
        /// The reason.
        fault: PathError,
    },
    /// Two paths differ only in upper and lower case, which some file systems do not distinguish: rename one.
    #[error("{} is also there in other case", path.display())]
    Ambiguous {
        /// One of the two.
        path: PathBuf,
    },
    /// The folder has too many files and folders.
    #[error("more than {max} files and folders")]
    TooManyEntries {
        /// Maximum number.
        max: usize,
    },
    /// A file is too large.
    #[error("{} is larger than {max} bytes", path.display())]
    FileTooLarge {
        /// The file.
        path: PathBuf,
        /// Maximum size, in bytes.
        max: u64,
    },
    /// The total size of all files is too large.
    #[error("more than {max} bytes in all")]
    TooLarge {
        /// Maximum size, in bytes.
        max: u64,
    },
    /// A file changed while it was read: retry.
    #[error("{} has changed meanwhile", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// The archive cannot be written.
    #[error("the archive cannot be written: {0}")]
    Write(#[source] io::Error),
}

/// Writes the content of `folder` to `out` as a gzipped tar. Blocks.
///
/// Modification times, owners and permissions other than the executable bit are left out.
///
/// # Errors
///
/// See [`PackError`]. Nothing is left out silently: an entry that cannot be packed is an error.
pub fn pack(folder: &Path, limits: &ArchiveLimits, out: impl Write) -> Result<Packed, PackError> {
    let entries = list(folder, limits)?;
    // The gzip header's time and operating system are left out.
    let gzip = GzBuilder::new().mtime(0).operating_system(255).write(out, Compression::default());
    let mut tar = Builder::new(gzip);
    let mut packed = Packed { files: 0, bytes: 0 };
    for (name, entry) in entries {
        match entry {
            Entry::Folder => {
                let header = header(&name, EntryType::Directory, 0o755, 0).map_err(|fault| at(folder, &name, fault))?;
                tar.append(&header, io::empty()).map_err(PackError::Write)?;
            }
            Entry::File => {
                let bytes = append(&mut tar, &folder.join(&name), &name, limits, packed.bytes)?;
                packed = Packed { files: packed.files + 1, bytes: packed.bytes + bytes };
            }
        }
    }
    let gzip = tar.into_inner().map_err(PackError::Write)?;
    gzip.finish().and_then(|mut out| out.flush()).map_err(PackError::Write)?;
    Ok(packed)
}

#[derive(Clone, Copy)]
enum Entry {
    Folder,
    File,
}

/// Lists the content of a folder in the order of the paths: a folder precedes its content.
fn list(root: &Path, limits: &ArchiveLimits) -> Result<BTreeMap<String, Entry>, PackError> {
    let mut entries = BTreeMap::new();
    let mut keys = BTreeMap::new();
    let mut folders = vec![(root.to_owned(), String::new())];
    while let Some((folder, prefix)) = folders.pop() {
        let read = |source| PackError::Read { path: folder.clone(), source };
        for child in fs::read_dir(&folder).map_err(read)? {
            let child = child.map_err(read)?;
            let path = child.path();
            let name = child
                .file_name()
                .into_string()
                .map_err(|_| PackError::Path { path: path.clone(), fault: PathError::NotUtf8 })?;
            let name = format!("{prefix}{name}");
            check(&name, limits.longest_path()).map_err(|fault| PackError::Path { path: path.clone(), fault })?;
            // The type of a link itself, not of its target.
            let kind = child.file_type().map_err(|source| PackError::Read { path: path.clone(), source })?;
            let entry = if kind.is_dir() {
                folders.push((path.clone(), format!("{name}/")));
                Entry::Folder
            } else if kind.is_file() {
                Entry::File
            } else {
                return Err(PackError::Kind { path });
            };
            match keys.entry(key(&name)) {
                btree_map::Entry::Vacant(vacant) => vacant.insert(()),
                btree_map::Entry::Occupied(_) => return Err(PackError::Ambiguous { path }),
            };
            entries.insert(name, entry);
            if entries.len() > limits.entries {
                return Err(PackError::TooManyEntries { max: limits.entries });
            }
        }
    }
    Ok(entries)
}

fn append<W: Write>(
    tar: &mut Builder<W>,
    path: &Path,
    name: &str,
    limits: &ArchiveLimits,
    before: u64,
) -> Result<u64, PackError> {
    let read = |source| PackError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(read)?;
    let metadata = file.metadata().map_err(read)?;
    if !metadata.is_file() {
        return Err(PackError::Changed { path: path.to_owned() });
    }
    let bytes = metadata.len();
    if bytes > limits.file_bytes {
        return Err(PackError::FileTooLarge { path: path.to_owned(), max: limits.file_bytes });
    }
    if before.saturating_add(bytes) > limits.total_bytes {
        return Err(PackError::TooLarge { max: limits.total_bytes });
    }
    let mode = if is_executable(&metadata) { 0o755 } else { 0o644 };
    let header = header(name, EntryType::Regular, mode, bytes)
        .map_err(|fault| PackError::Path { path: path.to_owned(), fault })?;
    let mut source = Source { file, left: bytes, failed: None };
    let appended = tar.append(&header, &mut source);
    match (source.failed, appended) {
        (Some(Failed::Read(source)), _) => Err(read(source)),
        (Some(Failed::Changed), _) => Err(PackError::Changed { path: path.to_owned() }),
        (None, Err(error)) => Err(PackError::Write(error)),
        (None, Ok(())) => Ok(bytes),
    }
}

fn header(name: &str, kind: EntryType, mode: u32, bytes: u64) -> Result<Header, PathError> {
    let mut header = Header::new_ustar();
    header.set_path(name).map_err(|_| PathError::TooLong)?;
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(bytes);
    header.set_cksum();
    Ok(header)
}

fn at(folder: &Path, name: &str, fault: PathError) -> PackError {
    PackError::Path { path: folder.join(name), fault }
}

#[cfg(unix)]
fn is_executable(metadata: &Metadata) -> bool {
    std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o111 != 0
}

#[cfg(not(unix))]
fn is_executable(_: &Metadata) -> bool {
    false
}

/// Reader of a file that returns exactly as many bytes as the header says. It keeps the file's errors apart from those
/// of the writer that copies it.
struct Source {
    file: File,
    left: u64,
    failed: Option<Failed>,
}

enum Failed {
    Read(io::Error),
    Changed,
}

impl Read for Source {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let result = self.file.read(into);
        let failed = match result {
            Ok(0) if self.left > 0 => Failed::Changed,
            Ok(read) => match self.left.checked_sub(u64::try_from(read).unwrap_or(u64::MAX)) {
                Some(left) => {
                    self.left = left;
                    return Ok(read);
                }
                None => Failed::Changed,
            },
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            Err(error) => Failed::Read(error),
        };
        self.failed = Some(failed);
        Err(io::Error::other("the file cannot be read as it was announced"))
    }
}
