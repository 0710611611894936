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
///
/// It is still the name that existing package folders use. All other code takes the name from here, so that it can
/// change in one place.
pub const MANIFEST_FILE: &str = "ggen.toml";

/// Name of the readme in a package's folder.
const README: &str = "README.md";

/// A version to publish: a draft, and the folder with the version's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// Manifest without the contents.
    pub draft: Draft,
    /// Folder with the files.
    pub dir: PathBuf,
}

impl Release {
    /// Reads a package's folder: its manifest file ([`MANIFEST_FILE`]), and its `README.md` if it has one.
    ///
    /// # Errors
    ///
    /// If a file cannot be read or is invalid.
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

/// Error of reading a package's folder.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReleaseError {
    /// The folder has no manifest file.
    #[error("{} has no {}", dir.display(), MANIFEST_FILE)]
    MissingManifest {
        /// The folder.
        dir: PathBuf,
    },
    /// The file cannot be read.
    #[error("{} cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Error of the file system.
        source: io::Error,
    },
    /// The file is too long.
    #[error("{} has more than the maximum of {max} bytes", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Maximum length, in bytes.
        max: usize,
    },
    /// The file is not UTF-8.
    #[error("{} is not UTF-8 text", path.display())]
    NotUtf8 {
        /// The file.
        path: PathBuf,
    },
    /// The manifest file is invalid.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The readme is invalid.
    #[error(transparent)]
    Invalid(#[from] InvalidPackageError),
}
