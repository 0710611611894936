use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use futures::{StreamExt, stream::FuturesUnordered};
use semver::{Version, VersionReq};

use super::{Lock, RequiredBy, Requirer, ResolveError};
use crate::{Index, IndexEntry, PackageId, Registry};

/// How many indexes are looked up at a time: enough to hide that each takes some round trips, and a quarter of what the
/// DHT client runs at once.
const CONCURRENCY: usize = 8;

/// How much is looked at before it is given up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Packages that are looked up.
    pub(super) packages: usize,
    /// Dependencies of all versions that could be chosen.
    pub(super) dependencies: usize,
}

impl Default for Limits {
    /// The largest lock files that one finds have some hundred packages of a registry. At some 200 bytes for each dependency
    /// they take about 40 MB.
    fn default() -> Self {
        Self { packages: 2000, dependencies: 200_000 }
    }
}

/// All that can matter for what is wanted: every package that some version needs which could be chosen.
#[derive(Debug, Default)]
pub(super) struct Universe {
    /// The versions of each package, with the yanked ones.
    pub(super) packages: BTreeMap<PackageId, BTreeMap<Version, IndexEntry>>,
    /// What does not exist, and who needs it.
    pub(super) missing: BTreeMap<PackageId, RequiredBy>,
}

impl Universe {
    /// Whether a version can be chosen: yanked ones only if they are pinned.
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

/// Looks up everything that can be reached from the roots, breadth first.
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
        // Nothing is under way, and nothing waits.
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
    /// What is required of each package that was asked for, and who was the first to do so.
    demands: BTreeMap<PackageId, (BTreeSet<String>, Vec<VersionReq>, RequiredBy)>,
    /// Which versions have had their dependencies asked for.
    expanded: BTreeSet<(PackageId, Version)>,
    dependencies: usize,
    /// What is still to be looked up.
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
        // Each demand can make versions matter whose dependencies are demanded in turn.
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

    /// What the versions need that meet a requirement, if the package's versions are known and nobody has asked before.
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
