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

/// Maximum number of packages that are fetched and unpacked at the same time. Each archive comes from several peers
/// already, so that more would only delay all of them.
const CONCURRENCY: usize = 4;

/// Name of the folder for the installer's own files, inside the target folder.
const STATE_FOLDER: &str = ".kadence-install";

/// Exclusive: one call at a time, of all processes.
const FORMAT: Format = Format { application_id: *b"GGin", steps: &[SCHEMA], exclusive: true };

/// For each installed version: its archive, and the hash of the unpacked folder.
const SCHEMA: &str = "CREATE TABLE installed (
    package TEXT NOT NULL, version TEXT NOT NULL, archive TEXT NOT NULL, tree TEXT NOT NULL, PRIMARY KEY (package, version)
) WITHOUT ROWID;";

/// Result of [`install`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// All packages of the lock file, in the order of their ids.
    pub packages: Vec<InstalledPackage>,
}

/// Installed version of a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstalledPackage {
    /// The package.
    pub package: PackageId,
    /// The version.
    pub version: Version,
    /// Folder that the version is installed in.
    pub path: PathBuf,
    /// True if the folder had the same content before the call.
    pub already_installed: bool,
}

/// Installs the packages of a lock file, each version into `<dir>/<publisher>/<name>/<version>`.
///
/// Missing packages are fetched, up to 4 at a time, and checked against the lock file: content ids, sizes, names,
/// versions and dependencies. Archives that exceed the default [`ArchiveLimits`], or whose number of files or
/// total size differs from the manifest, are rejected. A package's folder appears only when it is complete. A package that this
/// function installed before and that has not changed on the disk is not fetched again. Existing files in packages'
/// folders are never deleted or overwritten: a folder with other content is an error. If the registry has all content
/// in its local store, no network is needed.
///
/// The function keeps its own files in `<dir>/.kadence-install`. Only one call at a time, in all processes, can use the
/// same `dir`; another call waits for about a second, then fails with [`InstallError::Storage`].
///
/// # Errors
///
/// See [`InstallError`]. The first error ends the call; packages that were installed before it stay, and some that were
/// being unpacked may still appear.
pub async fn install(lock: &Lock, registry: &dyn Registry, dir: impl Into<PathBuf>) -> Result<Installed, InstallError> {
    let target = Arc::new(Target::open(dir.into()).await?);
    let mut each = Vec::new();
    // Not a closure: with one, the compiler does not see that the future is `Send`.
    for (package, pinned) in lock.packages() {
        let target = Arc::clone(&target);
        each.push(async move {
            let installed = target.install(lock, package, pinned, registry).await;
            installed.map_err(|source| InstallError::Package { package: Box::new(package.clone()), source })
        });
    }
    Ok(Installed { packages: futures::stream::iter(each).buffered(CONCURRENCY).try_collect().await? })
}

/// The folder to install into.
struct Target {
    dir: PathBuf,
    /// Folder for unpacking archives before they are moved to their place.
    scratch: PathBuf,
    database: Database,
}

impl Target {
    async fn open(dir: PathBuf) -> Result<Self, InstallError> {
        let own = dir.join(STATE_FOLDER);
        let scratch = own.join("unpacking");
        let (made, emptied) = (own.clone(), scratch.clone());
        let failed = |path: &Path| {
            let path = path.to_owned();
            |source| InstallError::Io { path, source }
        };
        blocking::unblock(move || fs::create_dir_all(made)).await.map_err(failed(&own))?;
        // The database's lock protects the folder: files in it are left over from an interrupted call.
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
    ) -> Result<InstalledPackage, PackageInstallError> {
        let path = self.dir.join(package.publisher().to_string()).join(package.name().as_str());
        let path = path.join(pinned.version.to_string());
        let there = |already_installed, path| {
            Ok(InstalledPackage { package: package.clone(), version: pinned.version.clone(), path, already_installed })
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
        let record = move |database: &rusqlite::Transaction<'_>| {
            let sql = "INSERT OR REPLACE INTO installed VALUES (?, ?, ?, ?)";
            database.execute(sql, params![row.0, row.1, row.2, row.3])
        };
        self.database.transaction(record).await?;
        there(unpacked.already_installed, path)
    }

    /// Returns whether the folder is unchanged since this archive was installed.
    async fn is_intact(
        &self,
        package: &PackageId,
        pinned: &LockedPackage,
        path: &Path,
    ) -> Result<bool, PackageInstallError> {
        let (id, version, archive) = (package.to_string(), pinned.version.to_string(), pinned.archive.to_string());
        let recorded = move |database: &rusqlite::Transaction<'_>| {
            let sql = "SELECT tree FROM installed WHERE package = ? AND version = ? AND archive = ?";
            database.query_row(sql, [id, version, archive], |row| row.get::<_, String>(0)).optional()
        };
        let Some(tree) = self.database.transaction(recorded).await? else { return Ok(false) };
        let path = path.to_owned();
        Ok(blocking::unblock(move || tree_id(&path)).await.is_ok_and(|found| found.to_string() == tree))
    }

    /// Unpacks an archive in the scratch folder, and moves it to its place if it matches its manifest.
    fn unpack(
        &self,
        blobs: &BlobStore,
        manifest: &Package,
        limits: &ArchiveLimits,
        path: &Path,
    ) -> Result<Unpacked, PackageInstallError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            |source| PackageInstallError::Io { path, source }
        };
        let contents = manifest.contents();
        let reader = blobs.open_reader(&contents.archive).map_err(GetError::from)?;
        let scratch = tempfile::tempdir_in(&self.scratch).map_err(failed(&self.scratch))?;
        let fresh = scratch.path().join("package");
        let unpacked = unpack(reader, &fresh, limits)?;
        if (unpacked.files as u64, unpacked.bytes) != (contents.files, contents.unpacked_size) {
            return Err(PackageInstallError::Mismatch { what: "files in the archive" });
        }
        let tree = tree_id(&fresh).map_err(failed(&fresh))?;

        match tree_id(path) {
            Ok(found) if found == tree => return Ok(Unpacked { tree, already_installed: true }),
            Ok(_) => return Err(PackageInstallError::Modified { path: path.to_owned() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(path)(error)),
        }
        if let Some(above) = path.parent() {
            fs::create_dir_all(above).map_err(failed(above))?;
        }
        fs::rename(&fresh, path).map_err(failed(path))?;
        Ok(Unpacked { tree, already_installed: false })
    }
}

struct Unpacked {
    tree: ContentId,
    already_installed: bool,
}

/// Checks a manifest against the lock file. Name and version were checked when it was read.
fn check(lock: &Lock, pinned: &LockedPackage, manifest: &Package) -> Result<(), PackageInstallError> {
    let contents = manifest.contents();
    if (contents.archive, contents.archive_size) != (pinned.archive, pinned.archive_size) {
        return Err(PackageInstallError::Mismatch { what: "archive" });
    }
    let mut dependencies: Vec<_> = manifest.dependencies().iter().map(|dependency| &dependency.package).collect();
    dependencies.sort();
    let is_met = manifest.dependencies().iter().all(|dependency| {
        lock.get(&dependency.package).is_some_and(|pinned| dependency.requirement.matches(&pinned.version))
    });
    if !is_met || !dependencies.into_iter().eq(&pinned.dependencies) {
        return Err(PackageInstallError::Mismatch { what: "dependencies" });
    }
    Ok(())
}

/// Returns the limits for unpacking an archive. An archive whose manifest declares more is not fetched.
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

/// Error of [`install`].
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum InstallError {
    /// A package could not be installed.
    #[error("{package} was not installed: {source}")]
    Package {
        /// The package.
        package: Box<PackageId>,
        /// Cause.
        #[source]
        source: PackageInstallError,
    },
    /// Another call is installing into the folder, or the installer's database is damaged or cannot be used.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The folder for the installer's own files cannot be created or emptied.
    #[error("{}: {source}", path.display())]
    Io {
        /// The folder.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
}

/// Error of installing a package.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PackageInstallError {
    /// The manifest or the archive cannot be fetched, or is invalid.
    #[error(transparent)]
    Get(#[from] GetError),
    /// The manifest contradicts the lock file or the archive: the publisher made a mistake or is malicious, or the lock
    /// file was edited by hand.
    #[error("manifest does not match: {what}")]
    Mismatch {
        /// Name of the part that differs, in English.
        what: &'static str,
    },
    /// The archive cannot be unpacked, or exceeds the default [`ArchiveLimits`] or the total size of the files that the
    /// package's manifest states.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    /// The package's folder exists with other content, which may be someone's work: move or remove the folder, then
    /// install again.
    #[error("{} exists with other content: remove it first", path.display())]
    Modified {
        /// The folder.
        path: PathBuf,
    },
    /// The installer's database failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A file or folder of the package cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
}
