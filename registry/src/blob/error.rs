use std::{
    io,
    path::{Path, PathBuf},
};

use thiserror::Error;

use crate::ContentId;

/// Error of a [`BlobStore`](super::BlobStore).
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BlobError {
    /// The blob is not in the store.
    #[error("blob {0} is not in the store")]
    NotFound(ContentId),
    /// The blob was damaged on the disk, and has been moved out of the store or deleted: fetch it again, and check the
    /// disk. Also the error of a fetch whose finished download was damaged on the disk.
    #[error("blob {0} is damaged on the disk and was set aside: fetch it again")]
    Damaged(ContentId),
    /// The blob is larger than the caller's maximum.
    #[error("blob is larger than the maximum of {max} bytes")]
    TooLarge {
        /// Maximum size, in bytes.
        max: u64,
    },
    /// The source of the bytes to store cannot be read.
    #[error("source cannot be read: {0}")]
    Source(#[source] io::Error),
    /// The file system failed, for example because the disk is full or permissions are missing.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
}

impl BlobError {
    /// Returns a function that adds a path to an I/O error.
    pub(super) fn at(path: &Path) -> impl Fn(io::Error) -> Self + '_ {
        |source| Self::Io { path: path.to_owned(), source }
    }
}
