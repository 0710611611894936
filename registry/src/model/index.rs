use std::collections::BTreeMap;

use semver::{Version, VersionReq};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{
    Dependency, InvalidPackageError, ManifestError, Package, Summary, check, document,
    limits::{MAX_ARCHIVE_SIZE, MAX_INDEX_LEN, MAX_MANIFEST_LEN, MAX_TIME, MAX_VERSIONS},
};
use crate::{ContentId, PackageId};

/// List of all versions of a package, from which the resolver chooses. On a network, the package's head (a signed
/// record in the DHT) names the newest index by its content id.
///
/// An index is immutable: [`with_version`](Self::with_version) and [`with_yanked`](Self::with_yanked) return a new one.
/// They leave the listed versions as they are, except for [`IndexEntry::yanked`].
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
    /// True if the publisher has yanked the version. [`resolve`](crate::resolve::resolve()) chooses a yanked version
    /// only if the previous lock file pins it.
    #[serde(default)]
    pub yanked: bool,
    /// Time of publication according to the publisher, in Unix seconds.
    pub published: u64,
}

impl Index {
    /// Creates an index without versions.
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
    /// If the document is too long, malformed, or of another format, or if a value in it is invalid or exceeds a limit.
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

    /// Returns this index with one more version. If that becomes the [`current`](Self::current) version, the summary
    /// becomes that of the version; otherwise the summary stays. If the version is listed with the same manifest,
    /// yanked or not, the result equals this index.
    ///
    /// # Errors
    ///
    /// If the version is of another package, if the version number is listed with another manifest, or if the index
    /// would have more than [`MAX_VERSIONS`] versions or more than [`MAX_INDEX_LEN`] bytes.
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

    /// Returns this index with a version marked as yanked (`true`) or not yanked (`false`). The summary stays.
    ///
    /// # Errors
    ///
    /// If the version is not in the index, or if the index would become longer than [`MAX_INDEX_LEN`].
    pub fn with_yanked(&self, version: &Version, yanked: bool) -> Result<Self, IndexError> {
        let mut next = self.clone();
        match next.0.versions.get_mut(version) {
            Some(entry) => entry.yanked = yanked,
            None => return Err(IndexError::NoSuchVersion { version: version.clone() }),
        }
        next.fitting()
    }

    /// Returns the index as JSON, in the form in which it is published.
    pub fn to_json(&self) -> Vec<u8> {
        document::write(&self.0)
    }

    /// Returns the content id of [`Index::to_json`]. If another implementation wrote the index, perhaps with unknown
    /// fields or in another order, this can differ from the content id of the bytes that were parsed.
    pub fn content_id(&self) -> ContentId {
        ContentId::of(&self.to_json())
    }

    /// Package that the versions belong to.
    pub fn package(&self) -> &PackageId {
        &self.0.package
    }

    /// Summary of the last added version that was the [`current`](Self::current) one right after it was added. A later
    /// yank does not change the summary.
    pub fn summary(&self) -> &Summary {
        &self.0.summary
    }

    /// All versions, yanked ones included, in the order of SemVer precedence, the highest last.
    pub fn versions(&self) -> &BTreeMap<Version, IndexEntry> {
        &self.0.versions
    }

    /// Returns the highest version that matches `requirement`, or `None` if none does. Yanked versions count only if
    /// `include_yanked` is true. As in Cargo, a pre-release matches only a requirement that names a pre-release of the
    /// same version number.
    pub fn newest(&self, requirement: &VersionReq, include_yanked: bool) -> Option<(&Version, &IndexEntry)> {
        let mut newest_first = self.0.versions.iter().rev();
        newest_first.find(|(version, entry)| requirement.matches(version) && (include_yanked || !entry.yanked))
    }

    /// Returns the default version to show: the highest release that is not yanked or, if there is none, the highest
    /// pre-release that is not yanked. `None` if there is no version, or all are yanked.
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

/// Error of adding, yanking or unyanking a version.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum IndexError {
    /// The index lists the version with another manifest. Published versions are immutable: use the next version
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
    /// The version is not in the index.
    #[error("version {version} does not exist")]
    NoSuchVersion {
        /// The version.
        version: Version,
    },
    /// The index has the maximum number of versions: publish under another package name.
    #[error("package has {max} versions, the maximum: publish under another name")]
    TooManyVersions {
        /// Maximum number of versions.
        max: usize,
    },
    /// The index would become longer than [`MAX_INDEX_LEN`], mostly because of the dependencies of its versions.
    #[error(transparent)]
    Invalid(#[from] InvalidPackageError),
}
