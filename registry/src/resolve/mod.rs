//! Dependency resolution and installation.
//!
//! [`resolve`] chooses versions that meet all requirements and pins them in a [`Lock`]; [`install`] installs the pinned
//! versions.
//!
//! # Example
//!
//! ```
//! use kadence_registry::{
//!     LocalRegistry, MANIFEST_FILE, Registry, Release,
//!     resolve::{install, resolve},
//! };
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # futures::executor::block_on(async {
//! let publisher = libp2p_identity::Keypair::generate_ed25519().public().to_peer_id();
//! let folder = tempfile::tempdir()?;
//! let registry = LocalRegistry::open(folder.path().join("registry"), publisher).await?;
//! let manifests = [
//!     "name = 'base'\nversion = '1.2.0'",
//!     "name = 'app'\nversion = '0.1.0'\n[dependencies]\nbase = '^1'",
//! ];
//! for manifest in manifests {
//!     let package = tempfile::tempdir()?;
//!     std::fs::write(package.path().join(MANIFEST_FILE), manifest)?;
//!     registry.publish(Release::read(publisher, package.path()).await?).await?;
//! }
//!
//! let app = format!("{publisher}/app").parse()?;
//! let lock = resolve(&[(app, "^0.1".parse()?)], &registry, None).await?;
//! assert_eq!(lock.packages().len(), 2);
//!
//! let installed = install(&lock, &registry, folder.path().join("packages")).await?;
//! assert!(installed.packages.iter().all(|package| package.path.is_dir()));
//! # Ok(())
//! # })
//! # }
//! ```

mod install;
mod lock;
mod prefetch;
mod solve;
mod tree;

#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc};

use semver::{Version, VersionReq};
use thiserror::Error;

pub use install::{InstallError, Installed, InstalledPackage, PackageInstallError, install};
pub use lock::{Lock, LockError, LockedPackage};

use crate::{ContentId, GetError, PackageId, Registry};
use prefetch::{Limits, prefetch};

/// Chooses one version of each package in `roots` and of each dependency, so that all requirements are met.
///
/// Versions that `previous` pins are tried first, then newer versions before older ones. A pre-release is chosen only
/// for a requirement that names a pre-release of the same version number, as in Cargo. A yanked version is chosen only
/// if `previous` pins it with the same manifest.
///
/// First, the indexes of all packages that can be needed are read from the registry, up to 8 at a time. Then the
/// versions are chosen, on a thread for blocking work.
///
/// # Errors
///
/// See [`ResolveError`].
pub async fn resolve(
    roots: &[(PackageId, VersionReq)],
    registry: &dyn Registry,
    previous: Option<&Lock>,
) -> Result<Lock, ResolveError> {
    let universe = prefetch(roots, registry, previous, Limits::default()).await?;
    let (roots, previous) = (roots.to_vec(), previous.cloned());
    // Solving can take seconds.
    let lock = blocking::unblock(move || solve::solve(&roots, &universe, previous.as_ref(), solve::MAX_STEPS)).await?;
    match lock.to_toml().len() {
        len if len > lock::MAX_LOCK_LEN => {
            Err(ResolveError::TooMany { what: "bytes of a lock file", max: lock::MAX_LOCK_LEN })
        }
        _ => Ok(lock),
    }
}

/// Version of a package that depends on another package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirer {
    /// Package of the version.
    pub package: PackageId,
    /// Version number.
    pub version: Version,
}

/// Origin of a requirement: a version that depends on the required package, or `None` if the package is in the `roots`
/// of [`resolve`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequiredBy(pub Option<Arc<Requirer>>);

impl fmt::Display for RequiredBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(requirer) => write!(f, "{} {} requires", requirer.package, requirer.version),
            None => write!(f, "the caller requires"),
        }
    }
}

/// Error of [`resolve`].
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// A required package does not exist, and no choice of versions does without such packages: the publisher or name
    /// is wrong, or the package was never published.
    #[error("{required_by} {package}, which does not exist")]
    Unknown {
        /// The package.
        package: Box<PackageId>,
        /// Origin of the requirement.
        required_by: RequiredBy,
    },
    /// The versions of a required package cannot be determined. Retry, or see the cause.
    #[error("{required_by} {package}, whose versions cannot be determined: {source}")]
    Lookup {
        /// The package.
        package: Box<PackageId>,
        /// Origin of the requirement.
        required_by: RequiredBy,
        /// Cause.
        source: GetError,
    },
    /// No choice of versions meets all requirements. Relax or remove a requirement in the explanation; if all versions of
    /// a package are yanked, only removing helps.
    #[error("no versions meet all requirements:\n{explanation}")]
    Conflict {
        /// Description of the requirements that cannot all be met, in several lines, cut off at 16 KiB.
        explanation: String,
    },
    /// The index has another manifest for a chosen version than the previous lock file. Published versions are
    /// immutable: the publisher made a mistake or is malicious. To accept the manifest in the index, resolve without
    /// the previous lock file.
    #[error("{package} {version} was replaced: the lock file has {locked}, the index {found}")]
    Replaced {
        /// The package.
        package: Box<PackageId>,
        /// The version.
        version: Version,
        /// Content id of the manifest in the lock file.
        locked: Box<ContentId>,
        /// Content id of the manifest in the index.
        found: Box<ContentId>,
    },
    /// A limit is exceeded: 2,000 packages or 200,000 dependencies, both counted over all versions that could be
    /// chosen, or 8 MiB of lock file. A package may be malicious.
    #[error("dependencies need more than {max} {what}")]
    TooMany {
        /// Name of the limited quantity, in English.
        what: &'static str,
        /// Maximum of that quantity.
        max: usize,
    },
    /// The solver found no solution within its maximum number of steps: state narrower requirements.
    #[error("no solution after {steps} steps: state narrower requirements")]
    TooHard {
        /// Maximum number of steps.
        steps: u32,
    },
}
