//! From what somebody wants to what is installed: versions that go together are chosen and pinned in a lock file, and what a
//! lock file pins is installed.

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

pub use install::{InstallError, Installed, InstalledPackage, PackageError, install};
pub use lock::{Lock, LockError, LockedPackage};

use crate::{ContentId, GetError, PackageId, Registry};
use prefetch::{Limits, prefetch};

/// Chooses a version of each package that is wanted, and of each that these need, so that all requirements are met, with one
/// version of each package. Pins of the previous lock file are kept where possible, otherwise the newest version that goes
/// with the others is taken. Pre-releases are taken as Cargo does, and yanked versions only if the previous lock file
/// pins them.
///
/// All indexes that can matter are looked up first, several at a time. It does not block.
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
    // It can take a while.
    let lock = blocking::unblock(move || solve::solve(&roots, &universe, previous.as_ref(), solve::MAX_STEPS)).await?;
    match lock.to_toml().len() {
        len if len > lock::MAX_LOCK_LEN => {
            Err(ResolveError::TooMany { what: "bytes of a lock file", max: lock::MAX_LOCK_LEN })
        }
        _ => Ok(lock),
    }
}

/// A version that needs another package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirer {
    /// Which package.
    pub package: PackageId,
    /// Which version of it.
    pub version: Version,
}

/// Who needs a package: a version of another one, or whoever has asked for it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequiredBy(pub Option<Arc<Requirer>>);

impl fmt::Display for RequiredBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(requirer) => write!(f, "{} {} needs", requirer.package, requirer.version),
            None => write!(f, "you ask for"),
        }
    }
}

/// Why there is no lock file for what is wanted.
#[derive(Debug, Clone, Error)]
pub enum ResolveError {
    /// There is no such package: its name is wrong, or it was never published.
    #[error("{required_by} {package}, which does not exist")]
    Unknown {
        /// The package.
        package: Box<PackageId>,
        /// Who needs it.
        required_by: RequiredBy,
    },
    /// A package's versions cannot be told now. Nothing is chosen without them, since that could be something old. Try again.
    #[error("{required_by} {package}, of which it cannot be told which versions there are: {source}")]
    Lookup {
        /// The package.
        package: Box<PackageId>,
        /// Who needs it.
        required_by: RequiredBy,
        /// Why.
        source: GetError,
    },
    /// No versions meet all requirements: relax one of those in the explanation.
    #[error("no versions go together:\n{explanation}")]
    Conflict {
        /// Which requirements exclude each other, in some lines.
        explanation: String,
    },
    /// A version that the previous lock file pins is another one now. Published versions are immutable, so its publisher made
    /// a mistake or means harm. To take the new one all the same, remove the pin.
    #[error("{package} {version} was replaced: {locked} is in the lock file, {found} in the index")]
    Replaced {
        /// The package.
        package: Box<PackageId>,
        /// The version.
        version: Version,
        /// The manifest in the lock file.
        locked: Box<ContentId>,
        /// The manifest in the index.
        found: Box<ContentId>,
    },
    /// More is needed than is ever looked at: some package means harm, or this is larger than anything known.
    #[error("more than {max} {what}")]
    TooMany {
        /// What there are too many of.
        what: &'static str,
        /// How many there may be.
        max: usize,
    },
    /// The requirements are so entangled that no answer was found in reasonable time: state narrower ones.
    #[error("no answer after {steps} steps")]
    TooHard {
        /// How much was tried.
        steps: u32,
    },
}
