//! Reading of manifests and indexes, which peers and publishers may forge. Every document of another publisher is read
//! by these functions.

use std::fmt;

use semver::Version;

use crate::{
    ContentId, GetError, Index, MAX_INDEX_LEN, MAX_MANIFEST_LEN, ManifestError, Package, PackageId,
    blob::{BlobError, BlobStore},
};

/// A JSON document that is stored as a blob: a manifest or an index.
pub(crate) trait Document: Sized {
    /// Maximum length, in bytes.
    const MAX_LEN: usize;

    /// Parses the document and checks its limits.
    fn from_json(json: &[u8]) -> Result<Self, ManifestError>;

    /// Returns the package that the document says it is of.
    fn subject(&self) -> Subject<'_>;
}

/// The package that a document is of and, for a manifest, the version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Subject<'a> {
    pub(crate) package: &'a PackageId,
    pub(crate) version: Option<&'a Version>,
}

impl fmt::Display for Subject<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.version {
            Some(version) => write!(f, "{} {version}", self.package),
            None => self.package.fmt(f),
        }
    }
}

impl Document for Package {
    const MAX_LEN: usize = MAX_MANIFEST_LEN;

    fn from_json(json: &[u8]) -> Result<Self, ManifestError> {
        Self::from_json(json)
    }

    fn subject(&self) -> Subject<'_> {
        Subject { package: self.id(), version: Some(self.version()) }
    }
}

impl Document for Index {
    const MAX_LEN: usize = MAX_INDEX_LEN;

    fn from_json(json: &[u8]) -> Result<Self, ManifestError> {
        Self::from_json(json)
    }

    fn subject(&self) -> Subject<'_> {
        Subject { package: self.package(), version: None }
    }
}

/// Brings a document of `size` bytes into the store with `fetch`, then reads and checks it.
///
/// A size above the limit is rejected before `fetch` is polled: no peer is asked for a document that would be rejected.
pub(crate) async fn fetch_document<D: Document>(
    blobs: &BlobStore,
    content: ContentId,
    size: u64,
    expected: Subject<'_>,
    fetch: impl Future<Output = Result<(), GetError>>,
) -> Result<D, GetError> {
    let max = D::MAX_LEN as u64;
    if size > max {
        return Err(GetError::invalid(content, BlobError::TooLarge { max }));
    }
    fetch.await?;
    read_document(blobs, content, expected).await
}

/// Reads a document from the store and checks its content id, its length, its format and limits, and that it is of the
/// expected package and version.
pub(crate) async fn read_document<D: Document>(
    blobs: &BlobStore,
    content: ContentId,
    expected: Subject<'_>,
) -> Result<D, GetError> {
    let blobs = blobs.clone();
    let json = blocking::unblock(move || blobs.read(&content, D::MAX_LEN as u64)).await?;
    let document = D::from_json(&json).map_err(|error| GetError::invalid(content, error))?;
    let found = document.subject();
    if found != expected {
        return Err(GetError::OtherPackage { content, expected: expected.to_string(), found: found.to_string() });
    }
    Ok(document)
}
