//! What packages are: their manifests, the index of a package's versions, and what is searched for. Whether it is built here
//! or read from a peer, there is none that breaks a limit.

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
pub use error::{InvalidPackage, ManifestError};
pub use index::{Index, IndexEntry, IndexError};
pub use limits::{MAX_ARCHIVE_SIZE, MAX_INDEX_LEN, MAX_MANIFEST_LEN, MAX_VERSIONS};
pub use metadata::{Contents, Dependency, Metadata, Summary};
pub use package::Package;
pub use query::{Query, QueryBuilder, SearchHit, SearchPage};
pub use release::{Release, ReleaseError};
