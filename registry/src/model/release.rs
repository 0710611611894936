use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use libp2p_identity::PeerId;
use thiserror::Error;

use super::{
    Draft, InvalidPackage, SourceError,
    limits::{MAX_README, MAX_SOURCE_LEN},
};

/// What describes a package, in its folder.
const SOURCE: &str = "ggen.toml";

/// The readme, in the package's folder.
const README: &str = "README.md";

/// What is to be published: a draft, and the folder with the version's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// What its manifest will say.
    pub draft: Draft,
    /// Where its files are.
    pub dir: PathBuf,
}

impl Release {
    /// Reads a package's folder: its `ggen.toml`, and its `README.md` if it has one.
    ///
    /// # Errors
    ///
    /// If one of them cannot be read, or says what no package may say.
    pub async fn read(publisher: PeerId, dir: impl Into<PathBuf>) -> Result<Self, ReleaseError> {
        let dir = dir.into();
        blocking::unblock(move || {
            let source = text(&dir.join(SOURCE), MAX_SOURCE_LEN)?;
            let source = source.ok_or_else(|| ReleaseError::NoSource { dir: dir.clone() })?;
            let draft = Draft::from_toml(publisher, &source)?;
            let draft = match text(&dir.join(README), MAX_README)? {
                Some(readme) => draft.with_readme(readme)?,
                None => draft,
            };
            Ok(Self { draft, dir })
        })
        .await
    }
}

/// A file's text, of up to a byte more than the limit, so that whoever checks the limit sees it broken. `None` if there is no
/// such file.
fn text(path: &Path, max: usize) -> Result<Option<String>, ReleaseError> {
    let read = || -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        File::open(path)?.take(max as u64 + 1).read_to_end(&mut text)?;
        Ok(text)
    };
    match read() {
        Ok(text) if text.len() > max => Err(ReleaseError::TooLarge { path: path.to_owned(), max }),
        Ok(text) => String::from_utf8(text).map(Some).map_err(|_| ReleaseError::NoText { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ReleaseError::Read { path: path.to_owned(), source }),
    }
}

/// Why a folder cannot be published as it is.
#[derive(Debug, Error)]
pub enum ReleaseError {
    /// There is no `ggen.toml` in it: it is no package, or not yet.
    #[error("there is no ggen.toml in {}", dir.display())]
    NoSource {
        /// The folder.
        dir: PathBuf,
    },
    /// The file system does not let it be read.
    #[error("{} cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the file system says.
        source: io::Error,
    },
    /// The file is longer than a package's may be.
    #[error("{} has more than {max} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Bytes allowed.
        max: usize,
    },
    /// The file is not UTF-8.
    #[error("{} is not a text in UTF-8", path.display())]
    NoText {
        /// The file.
        path: PathBuf,
    },
    /// The `ggen.toml` has to be changed.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The readme has to be changed.
    #[error(transparent)]
    Invalid(#[from] InvalidPackage),
}
