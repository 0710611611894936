use semver::Version;
use serde::{Deserialize, Serialize};

use super::{
    Contents, Dependency, DraftBuilder, InvalidPackage, ManifestError, Metadata, check, document,
    draft::Draft,
    limits::{MAX_MANIFEST_LEN, MAX_TIME},
};
use crate::{ContentId, PackageId};

/// A version of a package: its manifest, which is immutable once it is published.
///
/// There is none that breaks a limit, whether it was built or came from a peer. A [`Draft`] becomes one when it is published,
/// because only then its contents have a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Package(Document);

/// As it is written. What a later version adds is passed over when it is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Document {
    schema: u32,
    id: PackageId,
    version: Version,
    #[serde(default)]
    metadata: Metadata,
    #[serde(default)]
    dependencies: Vec<Dependency>,
    contents: Contents,
    created: u64,
    updated: u64,
}

impl Package {
    /// Begins a version that is to be published.
    pub fn builder(id: PackageId, version: Version) -> DraftBuilder {
        DraftBuilder::new(id, version)
    }

    /// The version that a draft becomes with these contents: `created` is when the package was first published and
    /// `updated` when this version of it is, both in unix seconds.
    ///
    /// # Errors
    ///
    /// If the contents or times are out of their range. A draft leaves room for them in the manifest.
    pub fn new(draft: Draft, contents: Contents, created: u64, updated: u64) -> Result<Self, InvalidPackage> {
        let (id, version, metadata, dependencies) = draft.into_parts();
        let schema = document::SCHEMA;
        let package = Self(Document { schema, id, version, metadata, dependencies, contents, created, updated });
        package.check()?;
        Ok(package)
    }

    /// Reads a manifest, which may come from anybody. Whether these bytes are the ones that were asked for is for the
    /// caller to check, by their [`ContentId`], and so is whether it is the package and version that was asked for.
    ///
    /// # Errors
    ///
    /// If it is too long, no manifest, one of a later format, or if something in it breaks a limit.
    pub fn from_json(json: &[u8]) -> Result<Self, ManifestError> {
        let package = Self(document::read(json, MAX_MANIFEST_LEN)?);
        package.check()?;
        Ok(package)
    }

    /// The manifest's bytes, as they are published.
    pub fn to_json(&self) -> Vec<u8> {
        document::write(&self.0)
    }

    /// The name of [`Package::to_json`]. A manifest that somebody else wrote, perhaps in another order or with fields that
    /// are unknown here, has the name of the bytes that it was read from, and not this one.
    pub fn content_id(&self) -> ContentId {
        ContentId::of(&self.to_json())
    }

    /// Which package it is a version of.
    pub fn id(&self) -> &PackageId {
        &self.0.id
    }

    /// Which version.
    pub fn version(&self) -> &Version {
        &self.0.version
    }

    /// What it says about itself.
    pub fn metadata(&self) -> &Metadata {
        &self.0.metadata
    }

    /// What it needs. No package is in it twice.
    pub fn dependencies(&self) -> &[Dependency] {
        &self.0.dependencies
    }

    /// What it consists of.
    pub fn contents(&self) -> &Contents {
        &self.0.contents
    }

    /// When the package was first published, in unix seconds, as its publisher says.
    pub fn created(&self) -> u64 {
        self.0.created
    }

    /// When this version was published, in unix seconds, as its publisher says.
    pub fn updated(&self) -> u64 {
        self.0.updated
    }

    /// Whether both say and contain the same, whenever they were published.
    pub fn is_same_release(&self, other: &Self) -> bool {
        let Document { schema: _, id, version, metadata, dependencies, contents, created: _, updated: _ } = &self.0;
        let other = &other.0;
        *id == other.id
            && *version == other.version
            && *metadata == other.metadata
            && *dependencies == other.dependencies
            && *contents == other.contents
    }

    fn check(&self) -> Result<(), InvalidPackage> {
        let Document { schema: _, id, version, metadata, dependencies, contents, created, updated } = &self.0;
        check::version(version)?;
        metadata.check()?;
        Dependency::check_all(id, dependencies)?;
        contents.check()?;
        check::range("updated", *updated, 0, MAX_TIME)?;
        if created > updated {
            return Err(InvalidPackage::Times { created: *created, updated: *updated });
        }
        Ok(())
    }
}
