use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read},
    path::PathBuf,
};

use semver::Version;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{ContentId, MAX_ARCHIVE_SIZE, MAX_MANIFEST_LEN, PackageId, disk};

/// Maximum length of a lock file, in bytes. A thousand packages with a dozen dependencies each take a quarter of it.
pub(super) const MAX_LOCK_LEN: usize = 8 * 1024 * 1024;

/// Version of the format: the one that is written, and the only one that is read.
const SCHEMA: u32 = 1;

/// First line of a lock file.
const HEADER: &str = "# Written when packages are resolved. It is not meant to be changed by hand.\n";

/// Content of a lock file: chosen versions, pinned by content ids. Everyone who installs the same lock file gets the
/// same bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lock {
    packages: BTreeMap<PackageId, LockedPackage>,
}

/// Pinned version of a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockedPackage {
    /// Version number.
    pub version: Version,
    /// Content id of the manifest.
    pub manifest: ContentId,
    /// Size of the manifest, in bytes.
    pub manifest_size: u64,
    /// Content id of the archive.
    pub archive: ContentId,
    /// Size of the archive, in bytes.
    pub archive_size: u64,
    /// Packages that the version depends on, in the order of their ids. The lock file pins a version of each.
    pub dependencies: Vec<PackageId>,
}

impl Lock {
    /// Creates a lock file with these pins.
    pub(super) fn of(packages: BTreeMap<PackageId, LockedPackage>) -> Self {
        Self { packages }
    }

    /// Pinned versions by package, in the order of the packages' ids.
    pub fn packages(&self) -> &BTreeMap<PackageId, LockedPackage> {
        &self.packages
    }

    /// Returns the pinned version of a package, or `None` if the lock file does not pin the package.
    pub fn get(&self, package: &PackageId) -> Option<&LockedPackage> {
        self.packages.get(package)
    }

    /// Parses the text of a lock file.
    ///
    /// # Errors
    ///
    /// If the text is longer than 8 MiB, malformed, or of another format, if it pins a package twice or with an
    /// impossible size or version, or if a dependency is not pinned.
    pub fn from_toml(text: &str) -> Result<Self, LockError> {
        if text.len() > MAX_LOCK_LEN {
            return Err(LockError::TooLong { max: MAX_LOCK_LEN });
        }
        let unreadable = |error: toml::de::Error| LockError::Toml(error.to_string());
        let Schema { schema } = toml::from_str(text).map_err(unreadable)?;
        if schema != SCHEMA {
            return Err(LockError::Schema { found: schema });
        }
        let document: Document = toml::from_str(text).map_err(unreadable)?;
        let mut packages = BTreeMap::new();
        for row in document.package {
            let (package, pinned) = row.into_parts();
            let name = package.to_string();
            let is_small = (1..=MAX_MANIFEST_LEN as u64).contains(&pinned.manifest_size)
                && (1..=MAX_ARCHIVE_SIZE).contains(&pinned.archive_size);
            if !is_small || !pinned.version.build.is_empty() || packages.insert(package, pinned).is_some() {
                return Err(LockError::Package { package: name });
            }
        }
        let lock = Self { packages };
        let is_missing = |package: &&PackageId| !lock.packages.contains_key(*package);
        match lock.packages.values().flat_map(|pinned| &pinned.dependencies).find(is_missing) {
            Some(package) => Err(LockError::Missing { package: Box::new(package.clone()) }),
            None => Ok(lock),
        }
    }

    /// Returns the text of the lock file, in TOML. Equal pins make equal texts.
    pub fn to_toml(&self) -> String {
        let package = self.packages.iter().map(Row::from).collect();
        // TOML can represent text, numbers below 2^63 and lists, so that this does not fail.
        HEADER.to_owned() + &toml::to_string(&Document { schema: SCHEMA, package }).unwrap_or_default()
    }

    /// Reads a lock file. `None` if the file does not exist.
    ///
    /// # Errors
    ///
    /// As for [`Lock::from_toml`], and if the file cannot be read or is not UTF-8.
    pub async fn read(path: impl Into<PathBuf>) -> Result<Option<Self>, LockError> {
        let path = path.into();
        blocking::unblock(move || {
            let mut text = String::new();
            let read = File::open(&path).and_then(|file| file.take(MAX_LOCK_LEN as u64 + 1).read_to_string(&mut text));
            match read {
                Ok(_) => Self::from_toml(&text).map(Some),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(source) => Err(LockError::Io { path, source }),
            }
        })
        .await
    }

    /// Writes a lock file atomically, in place of an existing one. Its folder has to exist.
    ///
    /// # Errors
    ///
    /// If the file cannot be written. An existing file is then either unchanged or completely replaced.
    pub async fn write(&self, path: impl Into<PathBuf>) -> Result<(), LockError> {
        let (text, path) = (self.to_toml(), path.into());
        blocking::unblock(move || disk::write(&path, text.as_bytes()).map_err(|source| LockError::Io { path, source }))
            .await
    }
}

#[derive(Deserialize)]
struct Schema {
    schema: u32,
}

#[derive(Serialize, Deserialize)]
struct Document {
    schema: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    package: Vec<Row>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Row {
    id: PackageId,
    version: Version,
    manifest: ContentId,
    manifest_size: u64,
    archive: ContentId,
    archive_size: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    dependencies: Vec<PackageId>,
}

impl Row {
    fn into_parts(self) -> (PackageId, LockedPackage) {
        let Self { id, version, manifest, manifest_size, archive, archive_size, dependencies } = self;
        (id, LockedPackage { version, manifest, manifest_size, archive, archive_size, dependencies })
    }
}

impl From<(&PackageId, &LockedPackage)> for Row {
    fn from((id, pinned): (&PackageId, &LockedPackage)) -> Self {
        let LockedPackage { version, manifest, manifest_size, archive, archive_size, dependencies } = pinned.clone();
        Self { id: id.clone(), version, manifest, manifest_size, archive, archive_size, dependencies }
    }
}

/// Error of reading, parsing or writing a lock file. A lock file that cannot be parsed can be restored from a backup,
/// or be removed and written again from the result of [`resolve`](super::resolve()), which may choose other versions.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LockError {
    /// The text is too long. Nothing of it was parsed.
    #[error("lock file has more than the maximum of {max} bytes")]
    TooLong {
        /// Maximum length, in bytes.
        max: usize,
    },
    /// The text is not valid TOML, lacks a field, or has a field of a wrong type or syntax.
    #[error("lock file is invalid: {0}")]
    Toml(String),
    /// The field `schema` of the lock file has another number than 1, so its format is another one. A newer version of this library may read it.
    #[error("lock file has schema {found}: this version reads schema 1")]
    Schema {
        /// Number of the format.
        found: u32,
    },
    /// A package is pinned twice, with a size of zero or above the maximum, or with a version that has build metadata.
    #[error("lock file pins {package} twice, or with an impossible size or version")]
    Package {
        /// The package.
        package: String,
    },
    /// A dependency is not pinned.
    #[error("lock file lacks {package}, a dependency of a pinned package")]
    Missing {
        /// The dependency.
        package: Box<PackageId>,
    },
    /// The file cannot be read or written, or is not UTF-8.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
}
