use std::collections::BTreeMap;

use semver::{Version, VersionReq};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{
    Dependency, InvalidPackageError, ManifestError, Package, Summary, check, document,
    limits::{MAX_ARCHIVE_SIZE, MAX_INDEX_LEN, MAX_MANIFEST_LEN, MAX_TIME, MAX_VERSIONS},
};
use crate::{ContentId, PackageId};

/// All versions of a package. The package's signed head names its index, and the resolver chooses from it.
///
/// An index is immutable: a new version or a yank makes a new index. A published version keeps its contents forever;
/// only its yank can be set and taken back.
///
/// # Example
///
/// ```
/// use kadence_registry::{ContentId, Contents, Index, Package, PackageId};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let publisher = libp2p_identity::Keypair::generate_ed25519().public().to_peer_id();
/// let id = PackageId::new(publisher, "left-pad".parse()?)?;
/// let draft = Package::builder(id.clone(), "1.0.0".parse()?).build()?;
/// let contents = Contents { archive: ContentId::of(b"an archive"), archive_size: 10, files: 0, unpacked_size: 0 };
/// let package = Package::new(draft, contents, 0, 0)?;
///
/// let index = Index::new(id).with_version(&package)?;
/// assert_eq!(index.current().map(|(version, _)| version), Some(package.version()));
///
/// let index = index.with_yanked(package.version(), true)?;
/// assert_eq!(index.current(), None);
/// assert!(index.versions().contains_key(package.version()));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Index(Document);

/// JSON form of an index. Unknown fields, which a later version may add, are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Document {
    schema: u32,
    package: PackageId,
    #[serde(default)]
    summary: Summary,
    versions: BTreeMap<Version, IndexEntry>,
}

/// Entry of an index: one version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexEntry {
    /// Content id of the version's manifest.
    pub manifest: ContentId,
    /// Size of the manifest, in bytes.
    pub manifest_size: u64,
    /// Content id of the version's archive.
    pub archive: ContentId,
    /// Size of the archive, in bytes.
    pub archive_size: u64,
    /// Dependencies, as in the manifest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dependencies: Vec<Dependency>,
    /// True if the publisher has yanked the version, which is then installed only where a lock file pins it.
    #[serde(default)]
    pub yanked: bool,
    /// Time of publication according to the publisher, in Unix seconds.
    pub published: u64,
}

impl Index {
    /// Creates the index of a package without versions.
    pub fn new(package: PackageId) -> Self {
        Self(Document { schema: document::SCHEMA, package, summary: Summary::default(), versions: BTreeMap::new() })
    }

    /// Parses an index from an untrusted source.
    ///
    /// The caller has to check that the bytes have the expected [`ContentId`], and that the index is of the expected
    /// package.
    ///
    /// # Errors
    ///
    /// If the document is too long, malformed, of a later format, or breaks a limit.
    pub fn from_json(json: &[u8]) -> Result<Self, ManifestError> {
        let index = Self(document::read(json, MAX_INDEX_LEN)?);
        let Document { schema: _, package, summary, versions } = &index.0;
        summary.check()?;
        check::count("versions", versions.len(), MAX_VERSIONS)?;
        for (version, entry) in versions {
            check::version(version)?;
            Dependency::check_all(package, &entry.dependencies)?;
            check::range("manifest_size", entry.manifest_size, 1, MAX_MANIFEST_LEN as u64)?;
            check::range("archive_size", entry.archive_size, 1, MAX_ARCHIVE_SIZE)?;
            check::range("published", entry.published, 0, MAX_TIME)?;
        }
        Ok(index)
    }

    /// Returns this index with one more version. The new index has the summary of its [`current`](Self::current)
    /// version. If the version is listed with the same manifest, the result equals this index.
    ///
    /// # Errors
    ///
    /// If the version is of another package, if the version number is listed with another manifest, or if the index
    /// would become too large.
    pub fn with_version(&self, package: &Package) -> Result<Self, IndexError> {
        let Document { schema: _, package: id, summary: _, versions } = &self.0;
        if package.id() != id {
            return Err(IndexError::OtherPackage {
                index: Box::new(id.clone()),
                given: Box::new(package.id().clone()),
            });
        }
        let json = package.to_json();
        let entry = IndexEntry {
            manifest: ContentId::of(&json),
            manifest_size: json.len() as u64,
            archive: package.contents().archive,
            archive_size: package.contents().archive_size,
            dependencies: package.dependencies().to_vec(),
            yanked: false,
            published: package.updated(),
        };
        match versions.get(package.version()) {
            Some(there) if there.manifest == entry.manifest => return Ok(self.clone()),
            Some(there) => {
                return Err(IndexError::VersionExists { version: package.version().clone(), manifest: there.manifest });
            }
            None if versions.len() >= MAX_VERSIONS => return Err(IndexError::TooManyVersions { max: MAX_VERSIONS }),
            None => {}
        }
        let mut next = self.clone();
        next.0.versions.insert(package.version().clone(), entry);
        if next.current().is_none_or(|(newest, _)| newest == package.version()) {
            next.0.summary = package.metadata().into();
        }
        next.fitting()
    }

    /// Returns this index with a version yanked or unyanked.
    ///
    /// # Errors
    ///
    /// If the version does not exist, or if the index would become too long.
    pub fn with_yanked(&self, version: &Version, yanked: bool) -> Result<Self, IndexError> {
        let mut next = self.clone();
        match next.0.versions.get_mut(version) {
            Some(entry) => entry.yanked = yanked,
            None => return Err(IndexError::NoSuchVersion { version: version.clone() }),
        }
        next.fitting()
    }

    /// Returns the published JSON form.
    pub fn to_json(&self) -> Vec<u8> {
        document::write(&self.0)
    }

    /// Returns the content id of [`Index::to_json`]. For an index that another implementation wrote it can differ from
    /// the content id of the bytes that were parsed, as with [`Package::content_id`].
    pub fn content_id(&self) -> ContentId {
        ContentId::of(&self.to_json())
    }

    /// Package of the versions.
    pub fn package(&self) -> &PackageId {
        &self.0.package
    }

    /// Summary from the current version at the time of its publication.
    pub fn summary(&self) -> &Summary {
        &self.0.summary
    }

    /// Versions in the order of their precedence, the newest last.
    pub fn versions(&self) -> &BTreeMap<Version, IndexEntry> {
        &self.0.versions
    }

    /// Returns the newest version that matches `requirement`; yanked ones count only if `include_yanked` is set. As in
    /// Cargo, a pre-release meets a requirement only if the requirement names a pre-release of the same version number.
    pub fn newest(&self, requirement: &VersionReq, include_yanked: bool) -> Option<(&Version, &IndexEntry)> {
        let mut newest_first = self.0.versions.iter().rev();
        newest_first.find(|(version, entry)| requirement.matches(version) && (include_yanked || !entry.yanked))
    }

    /// Returns the default version to show and to install: the newest release that is not yanked or, without any, the
    /// newest pre-release that is not yanked. `None` if all versions are yanked.
    pub fn current(&self) -> Option<(&Version, &IndexEntry)> {
        let newest_first = || self.0.versions.iter().rev().filter(|(_, entry)| !entry.yanked);
        newest_first().find(|(version, _)| version.pre.is_empty()).or_else(|| newest_first().next())
    }

    fn fitting(self) -> Result<Self, IndexError> {
        match self.to_json().len() {
            len if len > MAX_INDEX_LEN => Err(InvalidPackageError::TooLong { len, max: MAX_INDEX_LEN }.into()),
            _ => Ok(self),
        }
    }
}

/// Error of adding or yanking a version.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum IndexError {
    /// The version was published before with another manifest. Published versions are immutable: use the next version
    /// number.
    #[error("version {version} is published with other contents ({manifest}): use the next version number")]
    VersionExists {
        /// The version.
        version: Version,
        /// Content id of the published manifest.
        manifest: ContentId,
    },
    /// The version is of another package.
    #[error("index is of {index}, not of {given}")]
    OtherPackage {
        /// Package of the index.
        index: Box<PackageId>,
        /// Package of the version.
        given: Box<PackageId>,
    },
    /// The version does not exist.
    #[error("version {version} does not exist")]
    NoSuchVersion {
        /// The version.
        version: Version,
    },
    /// The package has the maximum number of versions: publish under another name.
    #[error("package has {max} versions, the maximum: publish under another name")]
    TooManyVersions {
        /// Maximum number of versions.
        max: usize,
    },
    /// The index would become too long, because its versions have too many dependencies.
    #[error(transparent)]
    Invalid(#[from] InvalidPackageError),
}
