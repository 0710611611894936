use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use futures::{StreamExt, stream::FuturesUnordered};
use semver::{Version, VersionReq};

use super::{Lock, RequiredBy, Requirer, ResolveError};
use crate::{Index, IndexEntry, PackageId, Registry};

/// Maximum number of concurrent lookups: enough to hide their round trips, and a quarter of the queries that the DHT
/// client runs at the same time.
const CONCURRENCY: usize = 8;

/// Limits of the prefetch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Maximum number of packages.
    pub(super) packages: usize,
    /// Maximum number of dependencies of all versions that can be chosen.
    pub(super) dependencies: usize,
}

impl Default for Limits {
    /// Large real lock files have some hundred packages of a registry. 200,000 dependencies of about 200 bytes take 40
    /// MB.
    fn default() -> Self {
        Self { packages: 2000, dependencies: 200_000 }
    }
}

/// Every package that a choosable version depends on, directly or indirectly.
#[derive(Debug, Default)]
pub(super) struct Universe {
    /// Versions of each package, including yanked ones.
    pub(super) packages: BTreeMap<PackageId, BTreeMap<Version, IndexEntry>>,
    /// Packages that do not exist, with the origin of the requirement.
    pub(super) missing: BTreeMap<PackageId, RequiredBy>,
}

impl Universe {
    /// Returns whether a version can be chosen. A yanked version can be chosen only if it is pinned.
    pub(super) fn is_usable(
        package: &PackageId,
        version: &Version,
        entry: &IndexEntry,
        previous: Option<&Lock>,
    ) -> bool {
        let pinned = previous.and_then(|lock| lock.get(package));
        !entry.yanked || pinned.is_some_and(|pinned| pinned.version == *version && pinned.manifest == entry.manifest)
    }
}

/// Looks up every package that can be reached from the roots, breadth first.
pub(super) async fn prefetch(
    roots: &[(PackageId, VersionReq)],
    registry: &dyn Registry,
    previous: Option<&Lock>,
    limits: Limits,
) -> Result<Universe, ResolveError> {
    let mut search = Search { previous, limits, ..Search::default() };
    for (package, requirement) in roots {
        search.demand(package, requirement, &RequiredBy(None))?;
    }
    let mut lookups = FuturesUnordered::new();
    loop {
        while lookups.len() < CONCURRENCY {
            let Some(package) = search.queue.pop_front() else { break };
            lookups.push(async {
                let index = registry.index(&package).await;
                (package, index)
            });
        }
        // No lookup is running, and none is queued.
        let Some((package, index)) = lookups.next().await else { break };
        match index {
            Ok(Some(index)) => search.found(&package, &index)?,
            Ok(None) => search.is_missing(package)?,
            Err(source) => {
                let required_by = search.required_by(&package);
                return Err(ResolveError::Lookup { package: Box::new(package), required_by, source });
            }
        }
    }
    Ok(search.universe)
}

#[derive(Default)]
struct Search<'a> {
    limits: Limits,
    previous: Option<&'a Lock>,
    universe: Universe,
    /// For each required package: the texts of its requirements, the requirements, and the origin of the first one.
    demands: BTreeMap<PackageId, (BTreeSet<String>, Vec<VersionReq>, RequiredBy)>,
    /// Versions whose dependencies were demanded.
    expanded: BTreeSet<(PackageId, Version)>,
    dependencies: usize,
    /// Packages to look up.
    queue: VecDeque<PackageId>,
}

impl Search<'_> {
    fn demand(
        &mut self,
        package: &PackageId,
        requirement: &VersionReq,
        required_by: &RequiredBy,
    ) -> Result<(), ResolveError> {
        let mut waiting = VecDeque::from([(package.clone(), requirement.clone(), required_by.clone())]);
        // A demand can make more versions choosable, whose dependencies are demanded in turn.
        while let Some((package, requirement, required_by)) = waiting.pop_front() {
            if !self.demands.contains_key(&package) {
                if self.demands.len() >= self.limits.packages {
                    return Err(ResolveError::TooMany { what: "packages", max: self.limits.packages });
                }
                self.queue.push_back(package.clone());
            }
            let (texts, requirements, _) =
                self.demands.entry(package.clone()).or_insert_with(|| (BTreeSet::new(), Vec::new(), required_by));
            if texts.insert(requirement.to_string()) {
                requirements.push(requirement.clone());
                waiting.extend(self.expand(&package, &requirement)?);
            }
        }
        Ok(())
    }

    fn found(&mut self, package: &PackageId, index: &Index) -> Result<(), ResolveError> {
        self.universe.packages.insert(package.clone(), index.versions().clone());
        let requirements = self.demands.get(package).map(|(_, requirements, _)| requirements.clone());
        for requirement in requirements.unwrap_or_default() {
            for (package, requirement, required_by) in self.expand(package, &requirement)? {
                self.demand(&package, &requirement, &required_by)?;
            }
        }
        Ok(())
    }

    fn is_missing(&mut self, package: PackageId) -> Result<(), ResolveError> {
        let required_by = self.required_by(&package);
        if required_by.0.is_none() {
            return Err(ResolveError::Unknown { package: Box::new(package), required_by });
        }
        self.universe.missing.insert(package, required_by);
        Ok(())
    }

    /// Returns the dependencies of the versions that meet a requirement. Empty while the package's versions are
    /// unknown; versions that were expanded before are skipped.
    fn expand(
        &mut self,
        package: &PackageId,
        requirement: &VersionReq,
    ) -> Result<Vec<(PackageId, VersionReq, RequiredBy)>, ResolveError> {
        let mut demands = Vec::new();
        for (version, entry) in self.universe.packages.get(package).into_iter().flatten() {
            let matters = requirement.matches(version) && Universe::is_usable(package, version, entry, self.previous);
            if !matters || !self.expanded.insert((package.clone(), version.clone())) {
                continue;
            }
            self.dependencies += entry.dependencies.len();
            if self.dependencies > self.limits.dependencies {
                return Err(ResolveError::TooMany { what: "dependencies", max: self.limits.dependencies });
            }
            let requirer = Arc::new(Requirer { package: package.clone(), version: version.clone() });
            demands.extend(entry.dependencies.iter().map(|dependency| {
                (dependency.package.clone(), dependency.requirement.clone(), RequiredBy(Some(Arc::clone(&requirer))))
            }));
        }
        Ok(demands)
    }

    fn required_by(&self, package: &PackageId) -> RequiredBy {
        self.demands.get(package).map(|(_, _, required_by)| required_by.clone()).unwrap_or_default()
    }
}
