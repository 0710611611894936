use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use libp2p_identity::PeerId;
use thiserror::Error;

use super::{
    Draft, InvalidPackageError, SourceError,
    limits::{MAX_MANIFEST_FILE_LEN, MAX_README_LEN},
};

/// Name of the manifest file in a package's folder.
pub const MANIFEST_FILE: &str = "ggen.toml";

/// Name of the readme in a package's folder.
const README: &str = "README.md";

/// Version to publish: its manifest, and the folder with its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// Manifest, without what is only known after packing, such as the archive's id and size.
    pub draft: Draft,
    /// Folder with the files, which is packed when the version is published.
    pub dir: PathBuf,
}

impl Release {
    /// Reads the manifest file ([`MANIFEST_FILE`]) in a package's folder, and the `README.md` if there is one. The
    /// other files are read when the version is published.
    ///
    /// # Errors
    ///
    /// If the manifest file is missing, if one of the two files cannot be read, is too long or is invalid, or if
    /// `publisher` is not the peer id of an Ed25519 key.
    pub async fn read(publisher: PeerId, dir: impl Into<PathBuf>) -> Result<Self, ReleaseError> {
        let dir = dir.into();
        blocking::unblock(move || {
            let source = text(&dir.join(MANIFEST_FILE), MAX_MANIFEST_FILE_LEN)?;
            let source = source.ok_or_else(|| ReleaseError::MissingManifest { dir: dir.clone() })?;
            let draft = Draft::from_toml(publisher, &source)?;
            let draft = match text(&dir.join(README), MAX_README_LEN)? {
                Some(readme) => draft.with_readme(readme)?,
                None => draft,
            };
            Ok(Self { draft, dir })
        })
        .await
    }
}

/// Reads a text file of up to `max` bytes. `None` if the file does not exist.
fn text(path: &Path, max: usize) -> Result<Option<String>, ReleaseError> {
    let read = || -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        File::open(path)?.take(max as u64 + 1).read_to_end(&mut text)?;
        Ok(text)
    };
    match read() {
        Ok(text) if text.len() > max => Err(ReleaseError::TooLong { path: path.to_owned(), max }),
        Ok(text) => String::from_utf8(text).map(Some).map_err(|_| ReleaseError::NotUtf8 { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ReleaseError::Read { path: path.to_owned(), source }),
    }
}

/// Error of [`Release::read`].
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReleaseError {
    /// The folder has no manifest file, or does not exist.
    #[error("{} has no {}", dir.display(), MANIFEST_FILE)]
    MissingManifest {
        /// The folder.
        dir: PathBuf,
    },
    /// The manifest file or the readme cannot be read.
    #[error("{} cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Error of the file system.
        source: io::Error,
    },
    /// The manifest file or the readme is too long.
    #[error("{} has more than the maximum of {max} bytes", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Maximum length, in bytes.
        max: usize,
    },
    /// The manifest file or the readme is not UTF-8.
    #[error("{} is not UTF-8 text", path.display())]
    NotUtf8 {
        /// The file.
        path: PathBuf,
    },
    /// The manifest file is invalid, or the publisher's peer id is not that of an Ed25519 key.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The readme contains a forbidden character, or makes the whole manifest too long.
    #[error(transparent)]
    Invalid(#[from] InvalidPackageError),
}
