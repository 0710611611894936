use std::{any::Any, cell::Cell, collections::BTreeMap, fmt};

use resolvo::{
    Candidates, Condition, ConditionId, ConditionalRequirement, Dependencies, DependencyProvider,
    HintDependenciesAvailable, Interner, KnownDependencies, NameId, Problem, SolvableId, Solver, SolverCache, StringId,
    UnsolvableOrCancelled, VersionSetId, VersionSetUnionId,
    utils::{Pool, VersionSet},
};
use semver::{Version, VersionReq};

use super::{Lock, LockedPackage, ResolveError, prefetch::Universe};
use crate::{IndexEntry, PackageId};

/// Maximum number of propagation rounds of the solver. Ordinary problems take about one for each package, of which
/// there are at most 2,000. In a problem made to waste time each round takes longer than the one before: 10,000 rounds
/// take some seconds, 50,000 take minutes.
pub(super) const MAX_STEPS: u32 = 10_000;

/// Maximum length of a conflict's explanation, in bytes: more than anyone reads.
const MAX_EXPLANATION_LEN: usize = 16 * 1024;

/// Chooses versions that meet all requirements, in at most `max_steps`.
pub(super) fn solve(
    roots: &[(PackageId, VersionReq)],
    universe: &Universe,
    previous: Option<&Lock>,
    max_steps: u32,
) -> Result<Lock, ResolveError> {
    let conflict = match attempt(roots, universe, previous, false, max_steps) {
        Err(conflict @ ResolveError::Conflict { .. }) if !universe.missing.is_empty() => conflict,
        solved => return pin(solved?, universe, previous),
    };
    // If ignoring missing packages gives a solution, a missing package is the cause.
    let Ok(chosen) = attempt(roots, universe, previous, true, max_steps) else { return Err(conflict) };
    let entries = chosen.iter().filter_map(|(package, version)| universe.packages.get(package)?.get(version));
    let needed = entries.flat_map(|entry| &entry.dependencies).map(|dependency| &dependency.package);
    let missing = needed.into_iter().find_map(|package| universe.missing.get_key_value(package));
    match missing {
        Some((package, required_by)) => {
            Err(ResolveError::Unknown { package: Box::new(package.clone()), required_by: required_by.clone() })
        }
        None => Err(conflict),
    }
}

type Chosen = BTreeMap<PackageId, Version>;

fn attempt(
    roots: &[(PackageId, VersionReq)],
    universe: &Universe,
    previous: Option<&Lock>,
    ignore_missing: bool,
    max_steps: u32,
) -> Result<Chosen, ResolveError> {
    let provider = Provider { universe, previous, ignore_missing, pool: Pool::new(), steps: Cell::new(0), max_steps };
    let requirements = roots.iter().map(|(package, requirement)| provider.requirement(package, requirement)).collect();
    let mut solver = Solver::new(provider);
    let solved = solver.solve(Problem::new().requirements(requirements));
    match solved {
        Ok(chosen) => {
            let pool = &solver.provider().pool;
            let chosen = chosen.into_iter().map(|id| {
                let solvable = pool.resolve_solvable(id);
                (pool.resolve_package_name(solvable.name).clone(), solvable.record.clone())
            });
            Ok(chosen.collect())
        }
        Err(UnsolvableOrCancelled::Cancelled(_)) => Err(ResolveError::TooHard { steps: max_steps }),
        Err(UnsolvableOrCancelled::Unsolvable(conflict)) => {
            let mut explanation = Bounded(String::new());
            // Writing fails at the limit, and the text written so far stays.
            let _ended_early =
                fmt::write(&mut explanation, format_args!("{}", conflict.display_user_friendly(&solver)));
            Err(ResolveError::Conflict { explanation: explanation.0.trim_end().to_owned() })
        }
    }
}

fn pin(chosen: Chosen, universe: &Universe, previous: Option<&Lock>) -> Result<Lock, ResolveError> {
    let mut packages = BTreeMap::new();
    for (package, version) in chosen {
        let Some(entry) = universe.packages.get(&package).and_then(|versions| versions.get(&version)) else { continue };
        let IndexEntry { manifest, manifest_size, archive, archive_size, dependencies, yanked: _, published: _ } =
            entry;
        let pinned = previous.and_then(|lock| lock.get(&package)).filter(|pinned| pinned.version == version);
        if let Some(pinned) = pinned
            && pinned.manifest != *manifest
        {
            let (locked, found) = (Box::new(pinned.manifest), Box::new(*manifest));
            return Err(ResolveError::Replaced { package: Box::new(package), version, locked, found });
        }
        let mut dependencies: Vec<_> = dependencies.iter().map(|dependency| dependency.package.clone()).collect();
        dependencies.sort();
        let (manifest, manifest_size, archive, archive_size) = (*manifest, *manifest_size, *archive, *archive_size);
        packages
            .insert(package, LockedPackage { version, manifest, manifest_size, archive, archive_size, dependencies });
    }
    Ok(Lock::of(packages))
}

/// The solver's view of the packages.
struct Provider<'a> {
    universe: &'a Universe,
    previous: Option<&'a Lock>,
    /// If true, dependencies on missing packages count as met.
    ignore_missing: bool,
    pool: Pool<Requirement, PackageId>,
    steps: Cell<u32>,
    max_steps: u32,
}

impl Provider<'_> {
    fn requirement(&self, package: &PackageId, requirement: &VersionReq) -> ConditionalRequirement {
        let name = self.pool.intern_package_name(package.clone());
        self.pool.intern_version_set(name, Requirement(requirement.clone())).into()
    }

    fn version(&self, id: SolvableId) -> &Version {
        &self.pool.resolve_solvable(id).record
    }
}

impl DependencyProvider for Provider<'_> {
    async fn filter_candidates(
        &self,
        candidates: &[SolvableId],
        version_set: VersionSetId,
        inverse: bool,
    ) -> Vec<SolvableId> {
        let Requirement(requirement) = self.pool.resolve_version_set(version_set);
        let is_wanted = |id: &SolvableId| requirement.matches(self.version(*id)) != inverse;
        candidates.iter().copied().filter(is_wanted).collect()
    }

    async fn get_candidates(&self, name: NameId) -> Option<Candidates> {
        let package = self.pool.resolve_package_name(name);
        let versions = self.universe.packages.get(package)?;
        let mut candidates =
            Candidates { hint_dependencies_available: HintDependenciesAvailable::All, ..Candidates::default() };
        let pinned = self.previous.and_then(|lock| lock.get(package)).map(|pinned| &pinned.version);
        for (version, entry) in versions {
            let id = self.pool.intern_solvable(name, version.clone());
            candidates.candidates.push(id);
            if !Universe::is_usable(package, version, entry, self.previous) {
                candidates.excluded.push((id, self.pool.intern_string("it is yanked")));
            } else if pinned == Some(version) {
                candidates.favored = Some(id);
            }
        }
        Some(candidates)
    }

    async fn sort_candidates(&self, _: &SolverCache<Self>, solvables: &mut [SolvableId]) {
        solvables.sort_by(|one, other| self.version(*other).cmp(self.version(*one)));
    }

    async fn get_dependencies(&self, solvable: SolvableId) -> Dependencies {
        let package = self.pool.resolve_package_name(self.pool.resolve_solvable(solvable).name);
        let entry = self.universe.packages.get(package).and_then(|versions| versions.get(self.version(solvable)));
        let needed = entry.into_iter().flat_map(|entry| &entry.dependencies);
        let needed = needed.filter(|it| !self.ignore_missing || !self.universe.missing.contains_key(&it.package));
        let requirements = needed.map(|it| self.requirement(&it.package, &it.requirement)).collect();
        Dependencies::Known(KnownDependencies { requirements, constrains: Vec::new() })
    }

    fn should_cancel_with_value(&self) -> Option<Box<dyn Any>> {
        self.steps.set(self.steps.get().saturating_add(1));
        (self.steps.get() > self.max_steps).then(|| Box::new(()) as Box<dyn Any>)
    }
}

impl Interner for Provider<'_> {
    type NameId = NameId;
    type SolvableId = SolvableId;

    fn display_solvable(&self, solvable: SolvableId) -> impl fmt::Display + '_ {
        self.version(solvable)
    }

    fn display_name(&self, name: NameId) -> impl fmt::Display + '_ {
        self.pool.resolve_package_name(name)
    }

    fn display_version_set(&self, version_set: VersionSetId) -> impl fmt::Display + '_ {
        &self.pool.resolve_version_set(version_set).0
    }

    fn display_string(&self, string: StringId) -> impl fmt::Display + '_ {
        self.pool.resolve_string(string)
    }

    fn version_set_name(&self, version_set: VersionSetId) -> NameId {
        self.pool.resolve_version_set_package_name(version_set)
    }

    fn solvable_name(&self, solvable: SolvableId) -> NameId {
        self.pool.resolve_solvable(solvable).name
    }

    fn version_sets_in_union(&self, union: VersionSetUnionId) -> impl Iterator<Item = VersionSetId> {
        self.pool.resolve_version_set_union(union)
    }

    fn resolve_condition(&self, condition: ConditionId) -> Condition {
        self.pool.resolve_condition(condition).clone()
    }
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Requirement(VersionReq);

impl VersionSet for Requirement {
    type V = Version;
}

/// Text of up to [`MAX_EXPLANATION_LEN`] bytes.
struct Bounded(String);

impl fmt::Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.0.len() + text.len() > MAX_EXPLANATION_LEN {
            return Err(fmt::Error);
        }
        self.0.push_str(text);
        Ok(())
    }
}
