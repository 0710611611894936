use std::{
    collections::{BTreeMap, btree_map},
    fs::{self, File, Metadata},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use flate2::{Compression, GzBuilder};
use libp2p_identity::Keypair;
use tar::{Builder, EntryType, Header};
use thiserror::Error;

use super::{
    ArchiveLimits, Excluded, PathError, PrivateKeyKind,
    exclude::Exclusions,
    path::{check, key},
    secrets::{PrivateKeys, Scanner},
};

/// Options of [`pack`].
///
/// The built-in rules ([`ExclusionReason`](super::ExclusionReason), [`PrivateKeyKind`]) cannot be turned off;
/// `private_paths` and `private_keys` only add to them.
///
/// # Example
///
/// ```
/// use kadence_registry::archive::{ArchiveLimits, PackOptions};
///
/// let options = PackOptions::default().limits(ArchiveLimits::default().entries(100)).private_paths(["/home/ada/.kadence"]);
/// assert_eq!(options.private_paths.len(), 1);
/// ```
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct PackOptions {
    /// Limits of the archive.
    pub limits: ArchiveLimits,
    /// Files and folders that are left out, also if they are reached by a link. Packing a folder that is itself one of
    /// them is an error; packing a folder inside one of them is not. Relative paths are relative to the process's
    /// working directory. Paths that do not exist are ignored. Default: none.
    pub private_paths: Vec<PathBuf>,
    /// Key pairs of the publisher. A packed file that contains the secret half of one of them, anywhere in the file, as
    /// bytes or in hexadecimal, base64 or decimal digits, is an error. RSA key pairs are not searched for;
    /// [`PrivateKeyKind`] has the other limits of the search. Default: none.
    ///
    /// Private keys that are not listed here are an error, too, where they are recognised by their encoding: see
    /// [`PrivateKeyKind`].
    pub private_keys: Vec<Keypair>,
}

impl PackOptions {
    /// Sets [`limits`](field@Self::limits).
    #[must_use]
    pub fn limits(mut self, limits: ArchiveLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets [`private_paths`](field@Self::private_paths).
    #[must_use]
    pub fn private_paths(mut self, paths: impl IntoIterator<Item = impl Into<PathBuf>>) -> Self {
        self.private_paths = paths.into_iter().map(Into::into).collect();
        self
    }

    /// Sets [`private_keys`](field@Self::private_keys).
    #[must_use]
    pub fn private_keys(mut self, keys: impl IntoIterator<Item = Keypair>) -> Self {
        self.private_keys = keys.into_iter().collect();
        self
    }
}

impl From<ArchiveLimits> for PackOptions {
    fn from(limits: ArchiveLimits) -> Self {
        Self { limits, ..Self::default() }
    }
}

/// Result of [`pack`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Packed {
    /// Number of files that were packed, without folders.
    pub files: usize,
    /// Total size of the packed files, in bytes, before compression.
    pub bytes: u64,
    /// Files and folders that were not packed, sorted by path.
    pub excluded: Vec<Excluded>,
}

/// Error of [`pack`]. Discard the bytes that were written: they may form a valid archive that lacks files.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PackError {
    /// A file or folder cannot be read, or one of [`PackOptions::private_paths`](field@PackOptions::private_paths)
    /// cannot be examined.
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
    NotAFile {
        /// The entry.
        path: PathBuf,
    },
    /// A path cannot be in an archive, for example because it is not portable or too long: rename the file or folder.
    #[error("{} cannot be packed: {reason}", path.display())]
    Path {
        /// The file or folder.
        path: PathBuf,
        /// The reason.
        reason: PathError,
    },
    /// Two paths differ only in upper and lower case, which some file systems do not distinguish: rename one of them.
    #[error("{} is also there in other case", path.display())]
    Ambiguous {
        /// One of the two.
        path: PathBuf,
    },
    /// A private key was found in a file that is not excluded. Move the file out of the folder, or the key out of the
    /// file. If it was published with an earlier version, it is no longer secret: replace the key.
    #[error("{} contains {kind}: move it out of the package's folder", path.display())]
    PrivateKey {
        /// The file.
        path: PathBuf,
        /// Kind of key.
        kind: PrivateKeyKind,
    },
    /// The folder to pack is itself private: it is one of
    /// [`PackOptions::private_paths`](field@PackOptions::private_paths), or has the database of a registry in
    /// `registry/heads.db`. Pack another folder.
    #[error("{} is a Kadence home: publish another folder, or choose another home", path.display())]
    Home {
        /// The folder.
        path: PathBuf,
    },
    /// The folder has more files and folders, excluded ones included, than
    /// [`ArchiveLimits::entries`](field@ArchiveLimits::entries).
    #[error("more than {max} files and folders")]
    TooManyEntries {
        /// Maximum number.
        max: usize,
    },
    /// A file is larger than [`ArchiveLimits::file_bytes`](field@ArchiveLimits::file_bytes).
    #[error("{} is larger than {max} bytes", path.display())]
    FileTooLarge {
        /// The file.
        path: PathBuf,
        /// Maximum size, in bytes.
        max: u64,
    },
    /// The files are larger in total than [`ArchiveLimits::total_bytes`](field@ArchiveLimits::total_bytes).
    #[error("more than {max} bytes in all")]
    TooLarge {
        /// Maximum size, in bytes.
        max: u64,
    },
    /// While a file was packed, its size changed; or the file was replaced by something other than a file after the
    /// folder was listed. Retry.
    #[error("{} has changed meanwhile", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// The archive cannot be written to `out`.
    #[error("the archive cannot be written: {0}")]
    Write(#[source] io::Error),
}

/// Writes the content of `folder` to `out` as a gzipped tar. Blocks the thread.
///
/// Modification times, owners and permissions other than the executable bit are left out.
///
/// Files and folders that should not be published are left out and listed in [`Packed::excluded`];
/// [`ExclusionReason`](super::ExclusionReason) has the rules. A private key that is recognised in any other file is an
/// error; [`PrivateKeyKind`] has the limits of the search.
///
/// # Errors
///
/// See [`PackError`]. An entry that is neither excluded nor a file or folder, such as a symbolic link, is an error.
/// After an error, the bytes in `out` may contain a private key: discard them.
pub fn pack(folder: &Path, options: &PackOptions, out: impl Write) -> Result<Packed, PackError> {
    let limits = &options.limits;
    let keys = PrivateKeys::new(&options.private_keys);
    let (entries, excluded) = list(folder, options)?;
    // The gzip header's time and operating system are left out.
    let gzip = GzBuilder::new().mtime(0).operating_system(255).write(out, Compression::default());
    let mut tar = Builder::new(gzip);
    let mut packed = Packed { files: 0, bytes: 0, excluded };
    for (name, entry) in entries {
        match entry {
            Entry::Folder => {
                let header =
                    header(&name, EntryType::Directory, 0o755, 0).map_err(|reason| at(folder, &name, reason))?;
                tar.append(&header, io::empty()).map_err(PackError::Write)?;
            }
            Entry::File => {
                packed.bytes += append(&mut tar, &folder.join(&name), &name, limits, &keys, packed.bytes)?;
                packed.files += 1;
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

/// Lists the content of a folder in the order of the paths, a folder before its content, and the excluded entries.
fn list(root: &Path, options: &PackOptions) -> Result<(BTreeMap<String, Entry>, Vec<Excluded>), PackError> {
    let limits = &options.limits;
    let exclusions = Exclusions::new(&options.private_paths)?;
    if exclusions.is_whole(root) {
        return Err(PackError::Home { path: root.to_owned() });
    }
    let mut excluded = Vec::new();
    let mut entries = BTreeMap::new();
    let mut keys = BTreeMap::new();
    let mut folders = vec![(root.to_owned(), String::new())];
    while let Some((folder, prefix)) = folders.pop() {
        let read = |source| PackError::Read { path: folder.clone(), source };
        for child in fs::read_dir(&folder).map_err(read)? {
            let child = child.map_err(read)?;
            let path = child.path();
            if entries.len() + excluded.len() >= limits.entries {
                return Err(PackError::TooManyEntries { max: limits.entries });
            }
            // Before anything else about it can be an error.
            if let Some(reason) = exclusions.reason(&path, &child.file_name())? {
                excluded.push(Excluded { path: format!("{prefix}{}", child.file_name().to_string_lossy()), reason });
                continue;
            }
            let name = child
                .file_name()
                .into_string()
                .map_err(|_| PackError::Path { path: path.clone(), reason: PathError::NotUtf8 })?;
            let name = format!("{prefix}{name}");
            check(&name, limits.longest_path()).map_err(|reason| PackError::Path { path: path.clone(), reason })?;
            // The type of a link itself, not of its target.
            let kind = child.file_type().map_err(|source| PackError::Read { path: path.clone(), source })?;
            let entry = if kind.is_dir() {
                folders.push((path.clone(), format!("{name}/")));
                Entry::Folder
            } else if kind.is_file() {
                Entry::File
            } else {
                return Err(PackError::NotAFile { path });
            };
            match keys.entry(key(&name)) {
                btree_map::Entry::Vacant(vacant) => vacant.insert(()),
                btree_map::Entry::Occupied(_) => return Err(PackError::Ambiguous { path }),
            };
            entries.insert(name, entry);
        }
    }
    excluded.sort();
    Ok((entries, excluded))
}

fn append<W: Write>(
    tar: &mut Builder<W>,
    path: &Path,
    name: &str,
    limits: &ArchiveLimits,
    keys: &PrivateKeys,
    before: u64,
) -> Result<u64, PackError> {
    let read = |source| PackError::Read { path: path.to_owned(), source };
    let Some((file, metadata)) = open_file(path).map_err(read)? else {
        return Err(PackError::Changed { path: path.to_owned() });
    };
    let bytes = metadata.len();
    if bytes > limits.file_bytes {
        return Err(PackError::FileTooLarge { path: path.to_owned(), max: limits.file_bytes });
    }
    if before.saturating_add(bytes) > limits.total_bytes {
        return Err(PackError::TooLarge { max: limits.total_bytes });
    }
    let mode = if is_executable(&metadata) { 0o755 } else { 0o644 };
    let header = header(name, EntryType::Regular, mode, bytes)
        .map_err(|reason| PackError::Path { path: path.to_owned(), reason })?;
    let mut source = Source { file, left: bytes, scanner: Scanner::new(keys), failed: None };
    let appended = tar.append(&header, &mut source);
    let private_key = |kind| PackError::PrivateKey { path: path.to_owned(), kind };
    match (source.failed, appended) {
        (Some(Failed::PrivateKey(kind)), _) => Err(private_key(kind)),
        (Some(Failed::Read(source)), _) => Err(read(source)),
        (Some(Failed::Changed), _) => Err(PackError::Changed { path: path.to_owned() }),
        (None, Err(error)) => Err(PackError::Write(error)),
        (None, Ok(())) => source.scanner.finish().map_or(Ok(bytes), |kind| Err(private_key(kind))),
    }
}

/// Opens a file. `None` if it is no regular file: to open a pipe would wait for a writer, possibly for ever. Links are
/// followed.
pub(super) fn open_file(path: &Path) -> io::Result<Option<(File, Metadata)>> {
    if !fs::metadata(path)?.is_file() {
        return Ok(None);
    }
    let file = File::open(path)?;
    // Something else may have taken its place.
    let metadata = file.metadata()?;
    Ok(metadata.is_file().then_some((file, metadata)))
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

fn at(folder: &Path, name: &str, reason: PathError) -> PackError {
    PackError::Path { path: folder.join(name), reason }
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
/// of the writer that copies it. The scanner sees the bytes that are packed, even if the file changes.
struct Source<'a> {
    file: File,
    left: u64,
    scanner: Scanner<'a>,
    failed: Option<Failed>,
}

enum Failed {
    Read(io::Error),
    Changed,
    PrivateKey(PrivateKeyKind),
}

impl Read for Source<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let result = self.file.read(into);
        let failed = match result {
            Ok(0) if self.left > 0 => Failed::Changed,
            Ok(read) => match self.left.checked_sub(u64::try_from(read).unwrap_or(u64::MAX)) {
                Some(left) => {
                    self.left = left;
                    match self.scanner.feed(into.get(..read).unwrap_or_default()) {
                        Some(kind) => Failed::PrivateKey(kind),
                        None => return Ok(read),
                    }
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
