use std::{
    ffi::OsStr,
    fmt,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use libp2p_identity::Keypair;
use serde::Serialize;

use super::PackError;

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
const KEY_ENDINGS: [&str; 8] = ["pem", "key", "p12", "pfx", "ppk", "jks", "keystore", "kdbx"];

/// A file or folder that was not packed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Excluded {
    /// Path in the folder, with `/` between names. The content of an excluded folder is not listed.
    pub path: String,
    /// Reason for the exclusion.
    pub reason: ExclusionReason,
}

/// Reason why a file or folder is never packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ExclusionReason {
    /// Data of version control: `.git`, `.hg`, `.svn`, `.jj`.
    VersionControl,
    /// Environment variables, which are often secrets: `.env`, `.env.*` except for `.env.example`, `.envrc`.
    Environment,
    /// Name of a file or folder with keys or passwords: `.ssh`, `id_ed25519`, `*.pem`, `*.key`, …
    KeyFile,
    /// One of [`PackOptions::private_paths`](super::PackOptions::private_paths), or a link to it.
    Private,
    /// A Kadence home: a folder with the key pair of a node in a file `node.key`, or with the folder of a registry.
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
    pub(super) fn reason(&self, path: &Path, name: &OsStr) -> Option<ExclusionReason> {
        by_name(&name.to_string_lossy())
            .or_else(|| self.is_private(path).then_some(ExclusionReason::Private))
            .or_else(|| is_home(path).then_some(ExclusionReason::Home))
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

fn is_home(folder: &Path) -> bool {
    let key = || {
        let mut bytes = Vec::new();
        File::open(folder.join(NODE_KEY))?.take(8192).read_to_end(&mut bytes)?;
        Ok::<_, io::Error>(bytes)
    };
    match key() {
        Ok(bytes) => Keypair::from_protobuf_encoding(&bytes).is_ok() || has_registry(folder),
        // A key that only others may read is a key, too.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => true,
        Err(_) => has_registry(folder),
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
