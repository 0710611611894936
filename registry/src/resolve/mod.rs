//! Dependency resolution and installation.
//!
//! [`resolve`] chooses versions that go together and pins them in a [`Lock`]; [`install`] installs what a lock file
//! pins.
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

/// Chooses one version of each required package and of each dependency, so that all requirements are met.
///
/// Pins of the previous lock file are kept where possible; otherwise the newest version that is compatible with the
/// others is chosen. Pre-releases follow Cargo's rules. Yanked versions are chosen only if the previous lock file pins
/// them.
///
/// All indexes that can matter are fetched first, several at a time. Solving runs on a thread for blocking work.
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

/// A version that depends on another package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirer {
    /// Its package.
    pub package: PackageId,
    /// Its version.
    pub version: Version,
}

/// Origin of a requirement: a version that depends on the package, or `None` if the caller asked for it.
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
    /// The package does not exist: its name is wrong, or it was never published.
    #[error("{required_by} {package}, which does not exist")]
    Unknown {
        /// The package.
        package: Box<PackageId>,
        /// Origin of the requirement.
        required_by: RequiredBy,
    },
    /// The versions of a package cannot be determined. Without them, an outdated version might be chosen. Retry.
    #[error("{required_by} {package}, whose versions cannot be determined: {source}")]
    Lookup {
        /// The package.
        package: Box<PackageId>,
        /// Origin of the requirement.
        required_by: RequiredBy,
        /// Cause.
        source: GetError,
    },
    /// No choice of versions meets all requirements: relax one of those in the explanation.
    #[error("no versions meet all requirements:\n{explanation}")]
    Conflict {
        /// Description of the requirements that exclude each other, in several lines.
        explanation: String,
    },
    /// A version that the previous lock file pins was replaced. Published versions are immutable: the publisher made a
    /// mistake or is malicious. To accept the new one, remove the pin.
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
    /// The dependencies exceed a limit: a package is malicious, or the set is larger than any that is known.
    #[error("dependencies need more than {max} {what}")]
    TooMany {
        /// Name of the limited quantity.
        what: &'static str,
        /// Maximum.
        max: usize,
    },
    /// The solver reached its limit: state narrower requirements.
    #[error("no solution after {steps} steps: state narrower requirements")]
    TooHard {
        /// Number of steps.
        steps: u32,
    },
}
