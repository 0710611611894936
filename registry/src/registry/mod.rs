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

/// A package registry: publishes packages, finds them and fetches them.
///
/// Implementations are [`LocalRegistry`](crate::LocalRegistry) in a folder and, with the feature `p2p`, `P2PRegistry`
/// on a network. They implement [`search`](Self::search), [`index`](Self::index), [`fetch`](Self::fetch),
/// [`publish`](Self::publish), [`yank`](Self::yank) and [`unyank`](Self::unyank); the other methods are built on these.
///
/// `Ok(None)` is conclusive: the package or version does not exist. If too few peers answer or their answers cannot be
/// trusted, the result is an error.
///
/// # Example
///
/// ```
/// use kadence_registry::{PackageId, Registry};
///
/// /// Prints the newest version of a package in any registry.
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
    /// Searches the packages that are known here.
    ///
    /// # Errors
    ///
    /// If the search index cannot be read.
    async fn search(&self, query: &Query) -> Result<SearchPage, GetError>;

    /// Returns the index of a package: all of its versions. `None` if the package was never published.
    ///
    /// # Errors
    ///
    /// If the index cannot be found, fetched or trusted.
    async fn index(&self, package: &PackageId) -> Result<Option<Index>, GetError>;

    /// Fetches content of `size` bytes into [`blobs`](Self::blobs) and verifies it. Content that is in the store is not
    /// fetched again. `package` is the package that the content belongs to: a registry on a network asks its providers.
    ///
    /// # Errors
    ///
    /// If no peer has the content, or if it has another size.
    async fn fetch(&self, package: &PackageId, content: &ContentId, size: u64) -> Result<(), GetError>;

    /// Publishes a version. Until all of it is stored, the package stays as it was. Publishing the same version again
    /// succeeds and changes nothing.
    ///
    /// # Errors
    ///
    /// See [`PublishError`]. After [`PublishError::Failed`] the same call continues where it stopped.
    async fn publish(&self, release: Release) -> Result<Receipt, PublishError>;

    /// Yanks a version: searches, [`get_package`](Self::get_package) and the resolver skip it from then on. Its content
    /// stays available, and a lock file that pins the version still installs it.
    ///
    /// Yanking a version that is yanked already succeeds.
    ///
    /// # Errors
    ///
    /// If the package is another publisher's, if the package or the version does not exist, or as for
    /// [`publish`](Self::publish).
    async fn yank(&self, package: &PackageId, version: &Version) -> Result<Receipt, PublishError>;

    /// Takes a yank back: the version is found, shown and resolved again.
    ///
    /// # Errors
    ///
    /// As for [`yank`](Self::yank).
    async fn unyank(&self, package: &PackageId, version: &Version) -> Result<Receipt, PublishError>;

    /// Alias of [`yank`](Self::yank). Published content is immutable and other peers may hold copies, so that nothing
    /// can delete it.
    ///
    /// # Errors
    ///
    /// As for [`yank`](Self::yank).
    async fn delete(&self, package: &PackageId, version: &Version) -> Result<Receipt, PublishError> {
        self.yank(package, version).await
    }

    /// Store of the content that is here.
    fn blobs(&self) -> &BlobStore;

    /// Returns the manifest of a package's newest version, as [`Index::current`] chooses it. `None` if the package does
    /// not exist or all of its versions are yanked.
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

    /// Returns the manifest of one version, yanked or not. `None` if the package or the version does not exist.
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

    /// Returns all versions of a package, newest first, including yanked ones. `None` if the package does not exist.
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

    /// Returns the metadata of a package's newest version. `None` as for [`get_package`](Self::get_package).
    ///
    /// # Errors
    ///
    /// As for [`get_package`](Self::get_package).
    async fn metadata(&self, package: &PackageId) -> Result<Option<Metadata>, GetError> {
        Ok(self.get_package(package).await?.map(|package| package.metadata().clone()))
    }

    /// Fetches the manifest of a version by the content id and the size that an index or a lock file has for it.
    ///
    /// # Errors
    ///
    /// If the manifest cannot be fetched, is invalid, or is of another package or version.
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

    /// Fetches the archive of a version into [`blobs`](Self::blobs).
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
