use std::{
    ffi::OsStr,
    fmt, fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use libp2p_identity::Keypair;
use serde::Serialize;

use super::{PackError, pack::open_file};

/// File of a home's key pair.
const NODE_KEY: &str = "node.key";

/// Names of folders and files that belong to version control.
const VERSION_CONTROL: [&str; 4] = [".git", ".hg", ".svn", ".jj"];

/// Names of folders and files that contain credentials or keys.
const KEY_NAMES: [&str; 10] = [
    ".ssh",
    ".gnupg",
    ".netrc",
    ".git-credentials",
    "id_rsa",
    "id_dsa",
    "id_ecdsa",
    "id_ecdsa_sk",
    "id_ed25519",
    "id_ed25519_sk",
];

/// Extensions of files that contain keys.
const KEY_ENDINGS: [&str; 11] = ["pem", "key", "der", "pk8", "p8", "p12", "pfx", "ppk", "jks", "keystore", "kdbx"];

/// File or folder that was left out of an archive.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[non_exhaustive]
pub struct Excluded {
    /// Path relative to the packed folder, with `/` between names, and with invalid UTF-8 replaced. Of an excluded
    /// folder, only the folder itself is listed.
    pub path: String,
    /// Reason for the exclusion.
    pub reason: ExclusionReason,
}

/// Reason for leaving a file or folder out of an archive. For the first three reasons, upper and lower case of
/// a name do not matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ExclusionReason {
    /// Data of version control: `.git`, `.hg`, `.svn`, `.jj`.
    VersionControl,
    /// Environment variables, which are often secrets: `.env`, `.envrc`, and `.env.*` except for `.env.example`.
    Environment,
    /// A name of files or folders with keys or passwords: `.ssh`, `.gnupg`, `.netrc`, `id_rsa`, `id_ed25519`, `*.pem`,
    /// `*.key`, `*.der` and others.
    KeyFile,
    /// One of [`PackOptions::private_paths`](field@super::PackOptions::private_paths), or a link to one.
    Private,
    /// A Kadence home: a folder that has a key pair in libp2p's encoding in a file `node.key`, or the database of a
    /// registry in `registry/heads.db`.
    Home,
}

impl fmt::Display for ExclusionReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::VersionControl => "version control",
            Self::Environment => "environment variables",
            Self::KeyFile => "keys or passwords",
            Self::Private => "files of the publisher's own node",
            Self::Home => "a Kadence home",
        })
    }
}

/// The rules for exclusions.
pub(super) struct Exclusions {
    private: Vec<FileId>,
}

impl Exclusions {
    /// Looks up the private paths on the disk. A path that does not exist excludes nothing.
    pub(super) fn new(private_paths: &[PathBuf]) -> Result<Self, PackError> {
        let mut private = Vec::new();
        for path in private_paths {
            match FileId::of(path) {
                Ok(id) => private.push(id),
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
                Err(source) => return Err(PackError::Read { path: path.clone(), source }),
            }
        }
        Ok(Self { private })
    }

    /// Returns whether the folder to pack is itself a home or private.
    pub(super) fn is_whole(&self, root: &Path) -> bool {
        // A key pair alone makes it no home: it is left out by its name.
        self.is_private(root) || has_registry(root)
    }

    /// Returns the reason for excluding a file or folder, if there is one. Links are followed.
    pub(super) fn reason(&self, path: &Path, name: &OsStr) -> Result<Option<ExclusionReason>, PackError> {
        if let Some(reason) = by_name(&name.to_string_lossy()) {
            return Ok(Some(reason));
        }
        if self.is_private(path) {
            return Ok(Some(ExclusionReason::Private));
        }
        Ok(is_home(path, node_key(path))?.then_some(ExclusionReason::Home))
    }

    fn is_private(&self, path: &Path) -> bool {
        !self.private.is_empty() && FileId::of(path).is_ok_and(|id| self.private.contains(&id))
    }
}

/// Returns the reason for excluding a file or folder by its name, if there is one. Case is ignored.
pub(super) fn by_name(name: &str) -> Option<ExclusionReason> {
    let name = name.to_lowercase();
    let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
    if VERSION_CONTROL.contains(&name.as_str()) {
        Some(ExclusionReason::VersionControl)
    } else if matches!(name.as_str(), ".env" | ".envrc") || name.starts_with(".env.") && name != ".env.example" {
        Some(ExclusionReason::Environment)
    } else if KEY_NAMES.contains(&name.as_str()) || KEY_ENDINGS.contains(&ending) {
        Some(ExclusionReason::KeyFile)
    } else {
        None
    }
}

/// Reads the start of a folder's key file. `None` if that is no regular file.
fn node_key(folder: &Path) -> io::Result<Option<Vec<u8>>> {
    let Some((file, _)) = open_file(&folder.join(NODE_KEY))? else { return Ok(None) };
    let mut bytes = Vec::new();
    file.take(8192).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// Returns whether a folder is a home. `key` is the content of its key file.
fn is_home(folder: &Path, key: io::Result<Option<Vec<u8>>>) -> Result<bool, PackError> {
    if has_registry(folder) {
        return Ok(true);
    }
    match key {
        Ok(key) => Ok(key.is_some_and(|key| Keypair::from_protobuf_encoding(&key).is_ok())),
        // The folder may be a home or not. To leave it out might publish an incomplete package.
        Err(source) if source.kind() == io::ErrorKind::PermissionDenied => {
            let key = folder.join(NODE_KEY);
            let path = if fs::symlink_metadata(&key).is_ok() { key } else { folder.to_owned() };
            Err(PackError::Read { path, source })
        }
        Err(_) => Ok(false),
    }
}

fn has_registry(folder: &Path) -> bool {
    folder.join("registry").join("heads.db").is_file()
}

/// Identity of a file or folder, independent of its path.
#[derive(PartialEq, Eq)]
struct FileId(#[cfg(unix)] (u64, u64), #[cfg(not(unix))] PathBuf);

impl FileId {
    #[cfg(unix)]
    fn of(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::MetadataExt;
        fs::metadata(path).map(|metadata| Self((metadata.dev(), metadata.ino())))
    }

    #[cfg(not(unix))]
    fn of(path: &Path) -> io::Result<Self> {
        fs::canonicalize(path).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_that_may_not_be_looked_at_is_an_error_and_not_a_home() {
        let folder = tempfile::tempdir().unwrap();
        let denied = || Err(io::ErrorKind::PermissionDenied.into());
        let path_of = |result| match result {
            Err(PackError::Read { path, .. }) => path,
            other => panic!("{other:?}"),
        };
        // The folder cannot be searched, or the file cannot be opened.
        assert_eq!(path_of(is_home(folder.path(), denied())), folder.path());
        let key = folder.path().join(NODE_KEY);
        fs::write(&key, b"").unwrap();
        assert_eq!(path_of(is_home(folder.path(), denied())), key);
        for kind in [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory] {
            assert!(!is_home(folder.path(), Err(kind.into())).unwrap());
        }
        // A registry is enough.
        fs::create_dir(folder.path().join("registry")).unwrap();
        fs::write(folder.path().join("registry").join("heads.db"), b"").unwrap();
        assert!(is_home(folder.path(), denied()).unwrap());
    }
}
