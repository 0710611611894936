//! Documents of the registry, manifests and indexes, and search queries. Their values keep all limits, whether they
//! were built here or came from a peer.

mod check;
mod document;
mod draft;
mod error;
mod index;
pub(crate) mod limits;
mod metadata;
mod package;
mod query;
mod release;
#[cfg(test)]
mod tests;

pub use check::FieldError;
pub use draft::{Draft, DraftBuilder, SourceError};
pub use error::{InvalidPackageError, ManifestError};
pub use index::{Index, IndexEntry, IndexError};
pub use limits::{MAX_ARCHIVE_SIZE, MAX_INDEX_LEN, MAX_MANIFEST_LEN, MAX_VERSIONS};
pub use metadata::{Contents, Dependency, Metadata, Summary};
pub use package::Package;
pub use query::{Query, QueryBuilder, SearchHit, SearchPage};
pub use release::{MANIFEST_FILE, Release, ReleaseError};
