use std::{
    io,
    path::{Path, PathBuf},
};

use thiserror::Error;

use crate::ContentId;

/// Why the store did not do what it was asked for.
#[derive(Debug, Error)]
pub enum BlobError {
    /// There is no such blob: fetch it.
    #[error("there is no blob {0}")]
    NotFound(ContentId),
    /// The bytes on the disk are not those that were stored. They were set aside, so the blob is not there any more:
    /// fetch it again, and look after the disk.
    #[error("the blob {0} has gone bad on the disk and was set aside")]
    Damaged(ContentId),
    /// It is larger than the caller takes.
    #[error("the blob is larger than {max} bytes")]
    TooLarge {
        /// What the caller takes at most, in bytes.
        max: u64,
    },
    /// What was to be stored cannot be read.
    #[error("what is to be stored cannot be read: {0}")]
    Source(#[source] io::Error),
    /// The disk does not do its part: it is full, or permissions are missing.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl BlobError {
    /// What went wrong at a path, to be given the error.
    pub(super) fn at(path: &Path) -> impl Fn(io::Error) -> Self + '_ {
        |source| Self::Io { path: path.to_owned(), source }
    }
}
