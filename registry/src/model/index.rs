use std::collections::BTreeMap;

use semver::{Version, VersionReq};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{
    Dependency, InvalidPackage, ManifestError, Package, Summary, check, document,
    limits::{MAX_ARCHIVE_SIZE, MAX_INDEX_LEN, MAX_MANIFEST_LEN, MAX_TIME, MAX_VERSIONS},
};
use crate::{ContentId, PackageId};

/// All versions of a package: what a head names, and what its dependencies are resolved from.
///
/// An index is never changed; the next one is made from it. A version that was published keeps its contents for ever: it can
/// be yanked, and that can be taken back, and nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Index(Document);

/// As it is written. What a later version adds is passed over when it is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Document {
    schema: u32,
    package: PackageId,
    #[serde(default)]
    summary: Summary,
    versions: BTreeMap<Version, IndexEntry>,
}

/// What an index says about a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexEntry {
    /// The name of its manifest.
    pub manifest: ContentId,
    /// The manifest's size, in bytes.
    pub manifest_size: u64,
    /// The name of its archive.
    pub archive: ContentId,
    /// The archive's size, in bytes.
    pub archive_size: u64,
    /// What it needs, as its manifest says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dependencies: Vec<Dependency>,
    /// Whether its publisher has withdrawn it. Only who has it in a lock file goes on installing it.
    #[serde(default)]
    pub yanked: bool,
    /// When it was published, in unix seconds, as its publisher says.
    pub published: u64,
}

impl Index {
    /// The index of a package that has no version yet.
    pub fn new(package: PackageId) -> Self {
        Self(Document { schema: document::SCHEMA, package, summary: Summary::default(), versions: BTreeMap::new() })
    }

    /// Reads an index, which may come from anybody. Whether these bytes are the ones that were asked for is for the caller to
    /// check, by their [`ContentId`], and so is whether they are of the package that was asked for.
    ///
    /// # Errors
    ///
    /// If it is too long, no index, one of a later format, or if something in it breaks a limit.
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

    /// The next index, with a version more. The summary is that of the newest version.
    ///
    /// # Errors
    ///
    /// If the version is another package's, if there is one of this number with another manifest, or if there is no room
    /// for another.
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

    /// The next index, with a version yanked or no longer yanked.
    ///
    /// # Errors
    ///
    /// If there is no such version.
    pub fn with_yanked(&self, version: &Version, yanked: bool) -> Result<Self, IndexError> {
        let mut next = self.clone();
        match next.0.versions.get_mut(version) {
            Some(entry) => entry.yanked = yanked,
            None => return Err(IndexError::NoSuchVersion { version: version.clone() }),
        }
        next.fitting()
    }

    /// The index's bytes, as they are published.
    pub fn to_json(&self) -> Vec<u8> {
        document::write(&self.0)
    }

    /// The name of [`Index::to_json`]. As with [`Package::content_id`], an index that somebody else wrote has the name of the
    /// bytes that it was read from.
    pub fn content_id(&self) -> ContentId {
        ContentId::of(&self.to_json())
    }

    /// Which package's versions these are.
    pub fn package(&self) -> &PackageId {
        &self.0.package
    }

    /// What the package is, as the newest version said when it was published.
    pub fn summary(&self) -> &Summary {
        &self.0.summary
    }

    /// The versions, by their precedence: the newest last.
    pub fn versions(&self) -> &BTreeMap<Version, IndexEntry> {
        &self.0.versions
    }

    /// The newest version that meets a requirement. Pre-releases meet only a requirement that names one of the same number,
    /// as Cargo has it.
    pub fn newest(&self, requirement: &VersionReq, include_yanked: bool) -> Option<(&Version, &IndexEntry)> {
        let mut newest_first = self.0.versions.iter().rev();
        newest_first.find(|(version, entry)| requirement.matches(version) && (include_yanked || !entry.yanked))
    }

    /// The version to show and to install if nothing else is asked for: the newest that is not yanked, a pre-release only
    /// if there is nothing else.
    pub fn current(&self) -> Option<(&Version, &IndexEntry)> {
        let newest_first = || self.0.versions.iter().rev().filter(|(_, entry)| !entry.yanked);
        newest_first().find(|(version, _)| version.pre.is_empty()).or_else(|| newest_first().next())
    }

    fn fitting(self) -> Result<Self, IndexError> {
        match self.to_json().len() {
            len if len > MAX_INDEX_LEN => Err(InvalidPackage::TooLarge { len, max: MAX_INDEX_LEN }.into()),
            _ => Ok(self),
        }
    }
}

/// Why an index cannot be continued as asked.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum IndexError {
    /// The version was published before, with another manifest. Published versions are immutable: take the next number.
    #[error("version {version} was published before with other contents (manifest {manifest})")]
    VersionExists {
        /// The version.
        version: Version,
        /// The manifest that it keeps.
        manifest: ContentId,
    },
    /// The version is one of another package.
    #[error("the index is that of {index}, not of {given}")]
    OtherPackage {
        /// The package of the index.
        index: Box<PackageId>,
        /// The package of the version.
        given: Box<PackageId>,
    },
    /// There is no such version to be yanked.
    #[error("there is no version {version}")]
    NoSuchVersion {
        /// The version.
        version: Version,
    },
    /// There are as many versions as there can be: publish under another name.
    #[error("the package has {max} versions, which is all it can have")]
    TooManyVersions {
        /// Versions allowed.
        max: usize,
    },
    /// It would become too long: its versions' dependencies are too many.
    #[error(transparent)]
    Invalid(#[from] InvalidPackage),
}
