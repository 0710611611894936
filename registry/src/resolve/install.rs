use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use futures::{StreamExt, TryStreamExt};
use rusqlite::{OptionalExtension, params};
use semver::Version;
use thiserror::Error;

use super::{Lock, LockedPackage, tree::tree_id};
use crate::{
    ContentId, GetError, Package, PackageId, Registry, StorageError,
    archive::{ArchiveLimits, UnpackError, unpack},
    blob::BlobStore,
    database::Format,
    storage::Database,
};

/// How many packages are fetched and unpacked at a time. Each archive comes from several peers at once already; more than a
/// few at a time only make all of them later.
const CONCURRENCY: usize = 4;

/// Where installing keeps what it needs, in the folder that is installed into.
const OWN: &str = ".ggen";

/// For one call at a time, of all processes.
const FORMAT: Format = Format { application_id: *b"GGin", steps: &[SCHEMA], exclusive: true };

/// What was installed: from which archive, and the hash of the folder that it became.
const SCHEMA: &str = "CREATE TABLE installed (
    package TEXT NOT NULL, version TEXT NOT NULL, archive TEXT NOT NULL, tree TEXT NOT NULL, PRIMARY KEY (package, version)
) WITHOUT ROWID;";

/// What is in a folder after installing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// Each package of the lock file, in the order of their ids.
    pub packages: Vec<InstalledPackage>,
}

/// A package that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstalledPackage {
    /// Which package.
    pub package: PackageId,
    /// Which version.
    pub version: Version,
    /// Its folder.
    pub path: PathBuf,
    /// Whether it was there before, and right.
    pub was_there: bool,
}

/// Installs what a lock file pins: each version into `<dir>/<publisher>/<name>/<version>`.
///
/// What is missing is fetched, several at a time, and all of it is held to the lock file: ids, sizes, names and
/// dependencies. A package appears as a whole or not at all. One that is there and as it should be is left alone and not
/// fetched; nothing is ever taken away or overwritten. If everything was fetched before, the network is not needed.
///
/// It keeps a folder `.ggen` of its own in `dir`, which one call at a time can use.
///
/// # Errors
///
/// See [`InstallError`]. Packages that were installed until then stay.
pub async fn install(lock: &Lock, registry: &dyn Registry, dir: impl Into<PathBuf>) -> Result<Installed, InstallError> {
    let target = Arc::new(Target::open(dir.into()).await?);
    let mut each = Vec::new();
    // Not a closure, of which the compiler does not see that the whole can be spawned.
    for (package, pinned) in lock.packages() {
        let target = Arc::clone(&target);
        each.push(async move {
            let installed = target.install(lock, package, pinned, registry).await;
            installed.map_err(|why| InstallError::Package { package: Box::new(package.clone()), why })
        });
    }
    Ok(Installed { packages: futures::stream::iter(each).buffered(CONCURRENCY).try_collect().await? })
}

/// The folder that is installed into.
struct Target {
    dir: PathBuf,
    /// Where archives are unpacked before they are what they should be.
    scratch: PathBuf,
    database: Database,
}

impl Target {
    async fn open(dir: PathBuf) -> Result<Self, InstallError> {
        let own = dir.join(OWN);
        let scratch = own.join("unpacking");
        let (made, emptied) = (own.clone(), scratch.clone());
        let failed = |path: &Path| {
            let path = path.to_owned();
            |source| InstallError::Io { path, source }
        };
        blocking::unblock(move || fs::create_dir_all(made)).await.map_err(failed(&own))?;
        // Whoever has the database may empty the folder: what is left there is of somebody who was interrupted.
        let database = Database::open(own.join("installed.db"), FORMAT).await?;
        let empty = move || match fs::remove_dir_all(&emptied) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => fs::create_dir_all(&emptied),
        };
        blocking::unblock(empty).await.map_err(failed(&scratch))?;
        Ok(Self { dir, scratch, database })
    }

    async fn install(
        self: Arc<Self>,
        lock: &Lock,
        package: &PackageId,
        pinned: &LockedPackage,
        registry: &dyn Registry,
    ) -> Result<InstalledPackage, PackageError> {
        let path = self.dir.join(package.publisher().to_string()).join(package.name().as_str());
        let path = path.join(pinned.version.to_string());
        let there = |was_there, path| {
            Ok(InstalledPackage { package: package.clone(), version: pinned.version.clone(), path, was_there })
        };
        if self.is_intact(package, pinned, &path).await? {
            return there(true, path);
        }
        let manifest = registry.manifest(package, &pinned.version, &pinned.manifest, pinned.manifest_size).await?;
        check(lock, pinned, &manifest)?;
        let limits = limits(&manifest)?;
        registry.archive(&manifest).await?;

        let (target, blobs, destination) = (Arc::clone(&self), registry.blobs().clone(), path.clone());
        let unpacked = blocking::unblock(move || target.unpack(&blobs, &manifest, &limits, &destination)).await?;
        let row =
            (package.to_string(), pinned.version.to_string(), pinned.archive.to_string(), unpacked.tree.to_string());
        let note = move |database: &rusqlite::Transaction<'_>| {
            let sql = "INSERT OR REPLACE INTO installed VALUES (?, ?, ?, ?)";
            database.execute(sql, params![row.0, row.1, row.2, row.3])
        };
        self.database.transaction(note).await?;
        there(unpacked.was_there, path)
    }

    /// Whether the folder is as it was left when this archive was installed.
    async fn is_intact(&self, package: &PackageId, pinned: &LockedPackage, path: &Path) -> Result<bool, PackageError> {
        let (id, version, archive) = (package.to_string(), pinned.version.to_string(), pinned.archive.to_string());
        let noted = move |database: &rusqlite::Transaction<'_>| {
            let sql = "SELECT tree FROM installed WHERE package = ? AND version = ? AND archive = ?";
            database.query_row(sql, [id, version, archive], |row| row.get::<_, String>(0)).optional()
        };
        let Some(tree) = self.database.transaction(noted).await? else { return Ok(false) };
        let path = path.to_owned();
        Ok(blocking::unblock(move || tree_id(&path)).await.is_ok_and(|found| found.to_string() == tree))
    }

    /// Unpacks an archive out of sight, and moves it to its place if it is what its manifest says.
    fn unpack(
        &self,
        blobs: &BlobStore,
        manifest: &Package,
        limits: &ArchiveLimits,
        path: &Path,
    ) -> Result<Unpacked, PackageError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            |source| PackageError::Io { path, source }
        };
        let contents = manifest.contents();
        let reader = blobs.open_reader(&contents.archive).map_err(GetError::from)?;
        let scratch = tempfile::tempdir_in(&self.scratch).map_err(failed(&self.scratch))?;
        let fresh = scratch.path().join("package");
        let unpacked = unpack(reader, &fresh, limits)?;
        if (unpacked.files as u64, unpacked.bytes) != (contents.files, contents.unpacked_size) {
            return Err(PackageError::Mismatch { what: "files in the archive" });
        }
        let tree = tree_id(&fresh).map_err(failed(&fresh))?;

        match tree_id(path) {
            Ok(found) if found == tree => return Ok(Unpacked { tree, was_there: true }),
            Ok(_) => return Err(PackageError::Modified { path: path.to_owned() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(path)(error)),
        }
        if let Some(above) = path.parent() {
            fs::create_dir_all(above).map_err(failed(above))?;
        }
        fs::rename(&fresh, path).map_err(failed(path))?;
        Ok(Unpacked { tree, was_there: false })
    }
}

struct Unpacked {
    tree: ContentId,
    was_there: bool,
}

/// Whether a manifest is what the lock file was made from. Its name and version were compared when it was read.
fn check(lock: &Lock, pinned: &LockedPackage, manifest: &Package) -> Result<(), PackageError> {
    let contents = manifest.contents();
    if (contents.archive, contents.archive_size) != (pinned.archive, pinned.archive_size) {
        return Err(PackageError::Mismatch { what: "archive" });
    }
    let mut dependencies: Vec<_> = manifest.dependencies().iter().map(|dependency| &dependency.package).collect();
    dependencies.sort();
    let is_met = manifest.dependencies().iter().all(|dependency| {
        lock.get(&dependency.package).is_some_and(|pinned| dependency.requirement.matches(&pinned.version))
    });
    if !is_met || !dependencies.into_iter().eq(&pinned.dependencies) {
        return Err(PackageError::Mismatch { what: "dependencies" });
    }
    Ok(())
}

/// What is unpacked of an archive at most. One that says itself to be larger need not be fetched.
fn limits(manifest: &Package) -> Result<ArchiveLimits, UnpackError> {
    let contents = manifest.contents();
    let limits = ArchiveLimits::default();
    if contents.unpacked_size > limits.total_bytes {
        return Err(UnpackError::TooLarge { max: limits.total_bytes });
    }
    if contents.files > limits.entries as u64 {
        return Err(UnpackError::TooManyEntries { max: limits.entries });
    }
    let limits = ArchiveLimits { total_bytes: contents.unpacked_size, ..limits };
    if contents.archive_size > limits.archive_bytes() {
        return Err(UnpackError::TooLarge { max: limits.total_bytes });
    }
    Ok(limits)
}

/// Why not everything of a lock file was installed.
#[derive(Debug, Error)]
pub enum InstallError {
    /// A package was not.
    #[error("{package} was not installed: {why}")]
    Package {
        /// Which.
        package: Box<PackageId>,
        /// Why.
        #[source]
        why: PackageError,
    },
    /// Another call is installing into the folder, or its notes are damaged.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The folder cannot be made.
    #[error("{}: {source}", path.display())]
    Io {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Why a package was not installed.
#[derive(Debug, Error)]
pub enum PackageError {
    /// Its manifest or archive cannot be had, or is not what it should be.
    #[error(transparent)]
    Get(#[from] GetError),
    /// Its manifest says otherwise than the lock file or the archive: its publisher made a mistake or means harm.
    #[error("its manifest is wrong about: {what}")]
    Mismatch {
        /// About what.
        what: &'static str,
    },
    /// The archive is not one that may be unpacked.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    /// Its folder is there with something else in it, which may be somebody's work: take it away first.
    #[error("{} is there, but is not what is to be installed", path.display())]
    Modified {
        /// The folder.
        path: PathBuf,
    },
    /// The folder's notes cannot be used.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The file system does not do its part.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}
