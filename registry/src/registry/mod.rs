//! What a registry does, wherever its packages are.

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
pub(crate) use staging::{Staged, stage};

use crate::{
    ContentId, Index, IndexEntry, Metadata, Package, PackageId, Query, Release, SearchPage,
    blob::{BlobError, BlobStore},
    model::limits::MAX_MANIFEST_LEN,
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

    /// Withdraws a version: it is not found, shown or resolved any more. Who has it in a lock file can still install it.
    async fn delete(&self, package: &PackageId, version: &Version) -> Result<Receipt, PublishError>;

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
        // Nobody is asked for what would be refused anyway.
        if size > MAX_MANIFEST_LEN as u64 {
            return Err(GetError::invalid(*manifest, BlobError::TooLarge { max: MAX_MANIFEST_LEN as u64 }));
        }
        self.fetch(package, manifest, size).await?;
        let (blobs, id) = (self.blobs().clone(), *manifest);
        let json = blocking::unblock(move || blobs.read(&id, MAX_MANIFEST_LEN as u64)).await?;
        let read = Package::from_json(&json).map_err(|error| GetError::invalid(id, error))?;
        if read.id() != package || read.version() != version {
            return Err(GetError::OtherPackage {
                content: id,
                wanted: format!("{package} {version}"),
                found: format!("{} {}", read.id(), read.version()),
            });
        }
        Ok(read)
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
