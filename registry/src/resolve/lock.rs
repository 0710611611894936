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

/// The longest lock file, in bytes: a thousand packages with a dozen dependencies each take a quarter of it.
pub(super) const MAX_LOCK_LEN: usize = 8 * 1024 * 1024;

/// The format that is written, and read.
const SCHEMA: u32 = 1;

/// What stands at the beginning of a lock file.
const HEADER: &str = "# Written when packages are resolved. It is not meant to be changed by hand.\n";

/// The versions that were chosen, pinned by the ids of their contents: from the same lock file, everybody installs the same
/// bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lock {
    packages: BTreeMap<PackageId, LockedPackage>,
}

/// A version that was chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockedPackage {
    /// Which version.
    pub version: Version,
    /// Its manifest.
    pub manifest: ContentId,
    /// The manifest's size, in bytes.
    pub manifest_size: u64,
    /// Its archive.
    pub archive: ContentId,
    /// The archive's size, in bytes.
    pub archive_size: u64,
    /// What it needs; all of it is in the lock file too. In the order of their ids.
    pub dependencies: Vec<PackageId>,
}

impl Lock {
    /// Pins these.
    pub(super) fn of(packages: BTreeMap<PackageId, LockedPackage>) -> Self {
        Self { packages }
    }

    /// What is pinned, in the order of the packages' ids.
    pub fn packages(&self) -> &BTreeMap<PackageId, LockedPackage> {
        &self.packages
    }

    /// Which version of a package is pinned.
    pub fn get(&self, package: &PackageId) -> Option<&LockedPackage> {
        self.packages.get(package)
    }

    /// Reads the text of a lock file.
    ///
    /// # Errors
    ///
    /// If it is too long, no lock file, one of a later format, has a package twice, or one that needs something that is not
    /// in it.
    pub fn from_toml(text: &str) -> Result<Self, LockError> {
        if text.len() > MAX_LOCK_LEN {
            return Err(LockError::TooLarge { max: MAX_LOCK_LEN });
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

    /// The text of a lock file. The same pins make the same text.
    pub fn to_toml(&self) -> String {
        let package = self.packages.iter().map(Row::from).collect();
        // Text, numbers below 2^63 and lists are what TOML can always say.
        HEADER.to_owned() + &toml::to_string(&Document { schema: SCHEMA, package }).unwrap_or_default()
    }

    /// Reads a lock file. `None` if there is none.
    ///
    /// # Errors
    ///
    /// As for [`Lock::from_toml`], and if the file cannot be read.
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

    /// Writes a lock file, as a whole or not at all.
    ///
    /// # Errors
    ///
    /// If the file cannot be written: the one that was there is as before.
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

/// Why something is no lock file. Put it back from a copy, or take it away and resolve anew.
#[derive(Debug, Error)]
pub enum LockError {
    /// It is longer than any; nothing of it was read.
    #[error("the lock file has more than {max} bytes")]
    TooLarge {
        /// Bytes allowed.
        max: usize,
    },
    /// It is no TOML, or lacks something.
    #[error("the lock file cannot be read: {0}")]
    Toml(String),
    /// It is of a later format: a newer version of this software reads it.
    #[error("the lock file has schema {found}, this version reads 1")]
    Schema {
        /// The schema it names.
        found: u32,
    },
    /// A package is in it twice, or with a size or version that none can have.
    #[error("the lock file has {package} twice, or with a size or version that cannot be")]
    Package {
        /// The package.
        package: String,
    },
    /// Something in it needs a package that is not in it.
    #[error("the lock file lacks {package}, which something in it needs")]
    Missing {
        /// The package.
        package: Box<PackageId>,
    },
    /// The file system does not do its part.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}
