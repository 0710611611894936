//! What a registry does, wherever its packages are.

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

use crate::{
    ContentId, Index, IndexEntry, Metadata, Package, PackageId, Query, Release, SearchPage, blob::BlobStore,
};

/// A package registry.
///
/// `None` always means that there is none. When that cannot be told, because too few have answered or what they say cannot
/// be trusted, the answer is an error.
///
/// An implementation looks for packages ([`search`](Self::search)), knows their versions ([`index`](Self::index)), brings
/// content into its store ([`fetch`](Self::fetch)), and publishes; everything else follows from these.
#[async_trait]
pub trait Registry: Send + Sync {
    /// Packages that match a query, as far as they are known here.
    async fn search(&self, query: &Query) -> Result<SearchPage, GetError>;

    /// All versions of a package.
    async fn index(&self, package: &PackageId) -> Result<Option<Index>, GetError>;

    /// Brings content of `size` bytes into [`blobs`](Self::blobs), if it is not there, and verifies it. The package says who
    /// may have it.
    async fn fetch(&self, package: &PackageId, content: &ContentId, size: u64) -> Result<(), GetError>;

    /// Publishes a version. What was published before stays valid until all of it is there.
    async fn publish(&self, release: Release) -> Result<Receipt, PublishError>;

    /// Yanks a version: searches, [`get_package`](Self::get_package) and the resolver skip it from then on. Its content stays
    /// available, and a lock file that pins the version still installs it.
    ///
    /// Yanking a version that is yanked already succeeds.
    async fn yank(&self, package: &PackageId, version: &Version) -> Result<Receipt, PublishError>;

    /// Takes a yank back: the version is found, shown and resolved again.
    async fn unyank(&self, package: &PackageId, version: &Version) -> Result<Receipt, PublishError>;

    /// Alias of [`yank`](Self::yank). Published content is immutable and other peers hold copies of it, so nothing can
    /// delete it.
    async fn delete(&self, package: &PackageId, version: &Version) -> Result<Receipt, PublishError> {
        self.yank(package, version).await
    }

    /// Where content is kept.
    fn blobs(&self) -> &BlobStore;

    /// The newest version of a package that is not yanked; a pre-release only if there is nothing else. `None` if there is
    /// no such package, or no version of it that is not yanked.
    async fn get_package(&self, package: &PackageId) -> Result<Option<Package>, GetError> {
        let Some(index) = self.index(package).await? else { return Ok(None) };
        match index.current() {
            Some((version, entry)) => {
                self.manifest(package, version, &entry.manifest, entry.manifest_size).await.map(Some)
            }
            None => Ok(None),
        }
    }

    /// One version of a package, yanked or not.
    async fn get_package_version(&self, package: &PackageId, version: &Version) -> Result<Option<Package>, GetError> {
        let Some(index) = self.index(package).await? else { return Ok(None) };
        match index.versions().get(version) {
            Some(entry) => self.manifest(package, version, &entry.manifest, entry.manifest_size).await.map(Some),
            None => Ok(None),
        }
    }

    /// All versions of a package, newest first, the yanked ones too.
    async fn list_versions(&self, package: &PackageId) -> Result<Option<Vec<VersionInfo>>, GetError> {
        let index = self.index(package).await?;
        let info =
            |(version, entry): (&Version, &IndexEntry)| VersionInfo { version: version.clone(), entry: entry.clone() };
        Ok(index.map(|index| index.versions().iter().rev().map(info).collect()))
    }

    /// Whether there is such a package, with a version that is not yanked.
    async fn exists(&self, package: &PackageId) -> Result<bool, GetError> {
        Ok(self.index(package).await?.is_some_and(|index| index.current().is_some()))
    }

    /// What the newest version of a package says about itself.
    async fn metadata(&self, package: &PackageId) -> Result<Option<Metadata>, GetError> {
        Ok(self.get_package(package).await?.map(|package| package.metadata().clone()))
    }

    /// The manifest of a version, by the content id and the size that an index or a lock file has for it. One of another
    /// package or version is refused.
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

    /// Brings a version's archive into [`blobs`](Self::blobs).
    async fn archive(&self, package: &Package) -> Result<(), GetError> {
        let contents = package.contents();
        self.fetch(package.id(), &contents.archive, contents.archive_size).await
    }
}

/// A version of a package, as its index has it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct VersionInfo {
    /// Which version.
    pub version: Version,
    /// What the index says about it.
    #[serde(flatten)]
    pub entry: IndexEntry,
}
