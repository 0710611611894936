//! The [`Registry`] trait, and what its implementations share.

mod document;
mod error;
#[cfg(test)]
pub(crate) mod fake;
mod receipt;
mod staging;
#[cfg(test)]
mod tests;

use async_trait::async_trait;
use semver::Version;

pub use self::{
    error::{GetError, PublishError},
    receipt::{Receipt, Step, StepOutcome, Steps},
};
pub(crate) use document::{Subject, fetch_document, read_document};
pub(crate) use staging::{Staged, stage};

use crate::{ContentId, Index, IndexEntry, Metadata, Package, PackageId, Query, Release, SearchPage, blob::BlobStore};

/// Package registry: publishes packages, finds them and fetches them.
///
/// Implementations are [`LocalRegistry`](crate::LocalRegistry) in a folder and, with the feature `p2p`, `P2PRegistry`
/// on a network. They implement [`search`](Self::search), [`index`](Self::index), [`fetch`](Self::fetch),
/// [`publish`](Self::publish), [`yank`](Self::yank), [`unyank`](Self::unyank) and [`blobs`](Self::blobs); the other
/// methods are built on these.
///
/// `Ok(None)` means that the package or version does not exist or, in the methods that choose a version, that all
/// versions are yanked. A registry on a network concludes that a package does not exist only if it remembers no head
/// of the package (the signed record that names its newest index), and at least four of five of the peers that it asked
/// have answered, none of them with a head that was rejected. Otherwise, if no trusted head is found, the result is an
/// error. The head may have been read some minutes ago. It may be the last one that was seen if no peer holds one now,
/// and for the registry's own packages the newest one that it knows.
///
/// # Example
///
/// ```
/// use kadence_registry::{PackageId, Registry};
///
/// /// Prints the current version of a package in any registry.
/// async fn show(registry: &dyn Registry, id: &PackageId) -> Result<(), kadence_registry::GetError> {
///     match registry.get_package(id).await? {
///         Some(package) => println!("{id} {}: {}", package.version(), package.metadata().title),
///         None => println!("{id} does not exist, or all of its versions are yanked"),
///     }
///     Ok(())
/// }
/// ```
#[async_trait]
pub trait Registry: Send + Sync {
    /// Searches the registry's local search index. No peer is asked: a registry on a network finds the packages that it
    /// has published, and those that were announced or that peers have reported.
    ///
    /// # Errors
    ///
    /// If the search index cannot be read.
    async fn search(&self, query: &Query) -> Result<SearchPage, GetError>;

    /// Returns the newest index of a package, which lists all of its versions. `None` if the package does not exist:
    /// see [`Registry`].
    ///
    /// # Errors
    ///
    /// If the newest index cannot be determined, fetched or trusted. See [`GetError`].
    async fn index(&self, package: &PackageId) -> Result<Option<Index>, GetError>;

    /// Brings content of `size` bytes into [`blobs`](Self::blobs). Content that is in the store is neither fetched nor
    /// verified again; content from peers is verified against its id before it is stored. `package` is the package that
    /// the content belongs to: a registry on a network first asks the package's publisher and the peers that reported
    /// the package. A registry in a folder fetches nothing: it only checks that the content is in the store with this
    /// size.
    ///
    /// # Errors
    ///
    /// [`GetError::Unavailable`] if no peer delivers the content or, in a folder, the store does not have it,
    /// [`GetError::Size`] if the content has another size, or another [`GetError`].
    async fn fetch(&self, package: &PackageId, content: &ContentId, size: u64) -> Result<(), GetError>;

    /// Publishes a version. Readers see the version only after its archive, manifest and index are in the local store.
    /// If the published manifest is in the local store, publishing a version again with the same manifest and files
    /// succeeds and leaves the versions as they are, also if the version is yanked; with another manifest or other
    /// files, or if the published manifest is not in the local store, it fails with
    /// [`IndexError::VersionExists`](crate::IndexError::VersionExists).
    ///
    /// # Errors
    ///
    /// See [`PublishError`]. After [`PublishError::Failed`] the same call can be repeated.
    async fn publish(&self, release: Release) -> Result<Receipt, PublishError>;

    /// Yanks a version: once the new index is read, searches, [`get_package`](Self::get_package) and the resolver skip
    /// the version. The content of the version is not deleted, and a lock file that pins the version can still be
    /// resolved and installed.
    ///
    /// If the version is yanked already, the call succeeds, too.
    ///
    /// # Errors
    ///
    /// See [`PublishError`]: the package is another publisher's, the package or the version does not exist, the
    /// existing versions cannot be determined, the index would become too long, or a step fails.
    async fn yank(&self, package: &PackageId, version: &Version) -> Result<Receipt, PublishError>;

    /// Takes a yank back: once the new index is read, searches, [`get_package`](Self::get_package) and the resolver see
    /// the version again. If the version is not yanked, the call succeeds, too.
    ///
    /// # Errors
    ///
    /// As for [`yank`](Self::yank).
    async fn unyank(&self, package: &PackageId, version: &Version) -> Result<Receipt, PublishError>;

    /// Alias of [`yank`](Self::yank). It deletes nothing: published content is immutable, and other peers may hold
    /// copies.
    ///
    /// # Errors
    ///
    /// As for [`yank`](Self::yank).
    async fn delete(&self, package: &PackageId, version: &Version) -> Result<Receipt, PublishError> {
        self.yank(package, version).await
    }

    /// Local store of archives, manifests and indexes.
    fn blobs(&self) -> &BlobStore;

    /// Returns the manifest of a package's current version: the highest release that is not yanked or, if there is
    /// none, the highest such pre-release. `None` if the package does not exist or all of its versions are yanked.
    ///
    /// # Errors
    ///
    /// As for [`index`](Self::index) and [`manifest`](Self::manifest).
    async fn get_package(&self, package: &PackageId) -> Result<Option<Package>, GetError> {
        let Some(index) = self.index(package).await? else { return Ok(None) };
        match index.current() {
            Some((version, entry)) => {
                self.manifest(package, version, &entry.manifest, entry.manifest_size).await.map(Some)
            }
            None => Ok(None),
        }
    }

    /// Returns the manifest of the given version, yanked or not. `None` if the package or the version does not exist.
    ///
    /// # Errors
    ///
    /// As for [`index`](Self::index) and [`manifest`](Self::manifest).
    async fn get_package_version(&self, package: &PackageId, version: &Version) -> Result<Option<Package>, GetError> {
        let Some(index) = self.index(package).await? else { return Ok(None) };
        match index.versions().get(version) {
            Some(entry) => self.manifest(package, version, &entry.manifest, entry.manifest_size).await.map(Some),
            None => Ok(None),
        }
    }

    /// Returns all versions of a package, yanked ones included, the highest first. `None` if the package does not
    /// exist.
    ///
    /// # Errors
    ///
    /// As for [`index`](Self::index).
    async fn list_versions(&self, package: &PackageId) -> Result<Option<Vec<VersionInfo>>, GetError> {
        let index = self.index(package).await?;
        let info =
            |(version, entry): (&Version, &IndexEntry)| VersionInfo { version: version.clone(), entry: entry.clone() };
        Ok(index.map(|index| index.versions().iter().rev().map(info).collect()))
    }

    /// Returns whether the package exists and has a version that is not yanked.
    ///
    /// # Errors
    ///
    /// As for [`index`](Self::index).
    async fn exists(&self, package: &PackageId) -> Result<bool, GetError> {
        Ok(self.index(package).await?.is_some_and(|index| index.current().is_some()))
    }

    /// Returns the metadata of the version that [`get_package`](Self::get_package) returns. `None` if the package does
    /// not exist or all of its versions are yanked.
    ///
    /// # Errors
    ///
    /// As for [`get_package`](Self::get_package).
    async fn metadata(&self, package: &PackageId) -> Result<Option<Metadata>, GetError> {
        Ok(self.get_package(package).await?.map(|package| package.metadata().clone()))
    }

    /// Fetches the manifest of a version. `manifest` is its content id and `size` its length in bytes, both as in an
    /// index or a lock file.
    ///
    /// # Errors
    ///
    /// See [`GetError`]: the manifest cannot be fetched, has another size, is invalid, or is of another package or
    /// version.
    async fn manifest(
        &self,
        package: &PackageId,
        version: &Version,
        manifest: &ContentId,
        size: u64,
    ) -> Result<Package, GetError> {
        let expected = Subject { package, version: Some(version) };
        fetch_document(self.blobs(), *manifest, size, expected, self.fetch(package, manifest, size)).await
    }

    /// Fetches the archive of the version whose manifest is `package` into [`blobs`](Self::blobs).
    ///
    /// # Errors
    ///
    /// As for [`fetch`](Self::fetch).
    async fn archive(&self, package: &Package) -> Result<(), GetError> {
        let contents = package.contents();
        self.fetch(package.id(), &contents.archive, contents.archive_size).await
    }
}

/// Version of a package with its index entry.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct VersionInfo {
    /// Version number.
    pub version: Version,
    /// Entry of the index.
    #[serde(flatten)]
    pub entry: IndexEntry,
}
