use semver::Version;
use serde::{Deserialize, Serialize};

use super::{
    Contents, Dependency, DraftBuilder, InvalidPackageError, ManifestError, Metadata, check, document,
    draft::Draft,
    limits::{MAX_MANIFEST_LEN, MAX_TIME},
};
use crate::{ContentId, PackageId};

/// Manifest of a version of a package: its metadata, dependencies and times, and the content id of its archive. It is
/// immutable once published.
///
/// A `Package` is within all limits, whether it was built here or came from a peer. Publishing packs a folder and turns
/// a [`Draft`] into a `Package`.
///
/// # Example
///
/// ```
/// use kadence_registry::{ContentId, Contents, Package, PackageId};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let publisher = libp2p_identity::Keypair::generate_ed25519().public().to_peer_id();
/// let id = PackageId::new(publisher, "left-pad".parse()?)?;
/// let draft = Package::builder(id, "1.0.0".parse()?).title("Left pad").build()?;
/// let contents = Contents { archive: ContentId::of(b"an archive"), archive_size: 10, files: 0, unpacked_size: 0 };
/// let package = Package::new(draft, contents, 1_700_000_000, 1_700_000_000)?;
///
/// let read = Package::from_json(&package.to_json())?;
/// assert_eq!(read, package);
/// assert_eq!(read.metadata().title, "Left pad");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Package(Document);

/// JSON form of a manifest. Unknown fields, which a later version may add, are ignored.
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
    /// Returns a builder for a version that is to be published.
    pub fn builder(id: PackageId, version: Version) -> DraftBuilder {
        DraftBuilder::new(id, version)
    }

    /// Creates the manifest of a draft whose archive is described by `contents`. `created` is the time when the package
    /// was first published, in any version, and `updated` the time when this version is published, both in Unix
    /// seconds.
    ///
    /// # Errors
    ///
    /// If a number in `contents` or a time is out of its range, or if `created` is later than `updated`. The manifest
    /// cannot become too long: a draft reserves room for these fields.
    pub fn new(draft: Draft, contents: Contents, created: u64, updated: u64) -> Result<Self, InvalidPackageError> {
        let (id, version, metadata, dependencies) = draft.into_parts();
        let schema = document::SCHEMA;
        let package = Self(Document { schema, id, version, metadata, dependencies, contents, created, updated });
        package.check()?;
        Ok(package)
    }

    /// Parses a manifest from an untrusted source.
    ///
    /// The caller has to check that the bytes have the expected [`ContentId`], and that the manifest is of the expected
    /// package and version.
    ///
    /// # Errors
    ///
    /// If the document is too long, malformed, or of another format, or if a value in it is invalid or exceeds a limit.
    pub fn from_json(json: &[u8]) -> Result<Self, ManifestError> {
        let package = Self(document::read(json, MAX_MANIFEST_LEN)?);
        package.check()?;
        Ok(package)
    }

    /// Returns the manifest as JSON, in the form in which it is published.
    pub fn to_json(&self) -> Vec<u8> {
        document::write(&self.0)
    }

    /// Returns the content id of [`Package::to_json`]. If another implementation wrote the manifest, perhaps with
    /// unknown fields or in another order, this can differ from the content id of the bytes that were parsed.
    pub fn content_id(&self) -> ContentId {
        ContentId::of(&self.to_json())
    }

    /// Package that the version belongs to.
    pub fn id(&self) -> &PackageId {
        &self.0.id
    }

    /// Version number.
    pub fn version(&self) -> &Version {
        &self.0.version
    }

    /// Metadata of the version, with its readme.
    pub fn metadata(&self) -> &Metadata {
        &self.0.metadata
    }

    /// Dependencies, at most one for each package.
    pub fn dependencies(&self) -> &[Dependency] {
        &self.0.dependencies
    }

    /// Description of the version's archive.
    pub fn contents(&self) -> &Contents {
        &self.0.contents
    }

    /// Time of the package's first publication according to the publisher, in Unix seconds.
    pub fn created(&self) -> u64 {
        self.0.created
    }

    /// Time of this version's publication according to the publisher, in Unix seconds.
    pub fn updated(&self) -> u64 {
        self.0.updated
    }

    /// Returns whether all fields are equal, except for the times of creation and publication.
    pub fn is_same_release(&self, other: &Self) -> bool {
        let Document { schema: _, id, version, metadata, dependencies, contents, created: _, updated: _ } = &self.0;
        let other = &other.0;
        *id == other.id
            && *version == other.version
            && *metadata == other.metadata
            && *dependencies == other.dependencies
            && *contents == other.contents
    }

    fn check(&self) -> Result<(), InvalidPackageError> {
        let Document { schema: _, id, version, metadata, dependencies, contents, created, updated } = &self.0;
        check::version(version)?;
        metadata.check()?;
        Dependency::check_all(id, dependencies)?;
        contents.check()?;
        check::range("updated", *updated, 0, MAX_TIME)?;
        if created > updated {
            return Err(InvalidPackageError::UpdatedBeforeCreated { created: *created, updated: *updated });
        }
        Ok(())
    }
}
