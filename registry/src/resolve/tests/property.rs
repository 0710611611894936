use proptest::prelude::*;

use super::*;

const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const NUMBERS: [&str; 5] = ["1.0.0", "1.1.0", "2.0.0-rc.1", "2.0.0", "3.0.0"];
const REQUIREMENTS: [&str; 8] = ["*", "^1", "=1.0.0", ">=1.1", "^2", "^2.0.0-rc.1", "<2", "^9"];

/// A version: index of its number, dependencies, and whether it is yanked.
type Node = (usize, Vec<(usize, usize)>, bool);

/// Generates the versions of each package. Dependencies may name one package that does not exist: the one after the
/// last.
fn universe() -> impl Strategy<Value = Vec<Vec<Node>>> {
    let needs = prop::collection::btree_map(0..=NAMES.len(), 0..REQUIREMENTS.len(), 0..3);
    let node = (0..NUMBERS.len(), needs, prop::bool::weighted(0.15));
    let package = prop::collection::btree_map(0..NUMBERS.len(), node, 1..4);
    let package = package.prop_map(|versions| {
        let node = |(number, (_, needs, yanked)): (usize, (usize, std::collections::BTreeMap<usize, usize>, bool))| {
            (number, needs.into_iter().collect(), yanked)
        };
        versions.into_iter().map(node).collect::<Vec<Node>>()
    });
    prop::collection::vec(package, NAMES.len())
}

fn name(package: usize) -> &'static str {
    NAMES.get(package).copied().unwrap_or("nowhere")
}

fn meets(number: usize, requirement: usize) -> bool {
    REQUIREMENTS[requirement].parse::<VersionReq>().unwrap().matches(&version(NUMBERS[number]))
}

/// Returns whether any choice of versions meets all requirements.
fn brute_force(universe: &[Vec<Node>], roots: &[(usize, usize)]) -> bool {
    fn search<'a>(universe: &'a [Vec<Node>], roots: &[(usize, usize)], choice: &mut Vec<Option<&'a Node>>) -> bool {
        if let Some(versions) = universe.get(choice.len()) {
            return [None].into_iter().chain(versions.iter().filter(|node| !node.2).map(Some)).any(|node| {
                choice.push(node);
                let found = search(universe, roots, choice);
                choice.pop();
                found
            });
        }
        let needs = choice.iter().flatten().flat_map(|node| &node.1);
        roots.iter().chain(needs).all(|(package, requirement)| {
            choice.get(*package).copied().flatten().is_some_and(|node| meets(node.0, *requirement))
        })
    }
    search(universe, roots, &mut Vec::new())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(250))]
    #[test]
    fn a_solution_is_correct_and_is_found_if_one_exists(
        universe in universe(),
        roots in prop::collection::vec((0..NAMES.len(), 0..REQUIREMENTS.len()), 1..4),
    ) {
        let mut registry = FakeRegistry::new();
        for (package, versions) in universe.iter().enumerate() {
            for (number, needs, yanked) in versions {
                let needs = needs.iter().filter(|(needed, _)| *needed != package);
                let needs: Vec<_> = needs.map(|(needed, requirement)| (name(*needed), REQUIREMENTS[*requirement])).collect();
                registry.add(NAMES[package], NUMBERS[*number], &needs);
                if *yanked {
                    registry.mark_yanked(NAMES[package], NUMBERS[*number]);
                }
            }
        }
        // A package that depends on itself cannot be published, and is left out here, too.
        let mut universe = universe;
        for (package, versions) in universe.iter_mut().enumerate() {
            versions.iter_mut().for_each(|node| node.1.retain(|(needed, _)| *needed != package));
        }
        let required: Vec<_> =
            roots.iter().map(|(package, requirement)| (id(NAMES[*package]), REQUIREMENTS[*requirement].parse().unwrap())).collect();
        match smol::block_on(resolve(&required, &registry, None)) {
            Ok(lock) => {
                prop_assert!(brute_force(&universe, &roots));
                let mut needed: std::collections::BTreeSet<_> = required.iter().map(|(package, _)| package.clone()).collect();
                let mut requirements = required;
                for (package, pinned) in lock.packages() {
                    let entry = registry.indexes[package].clone().unwrap().versions()[&pinned.version].clone();
                    prop_assert!(!entry.yanked);
                    requirements.extend(entry.dependencies.into_iter().map(|it| (it.package, it.requirement)));
                    needed.extend(pinned.dependencies.iter().cloned());
                }
                for (package, requirement) in requirements {
                    prop_assert!(lock.get(&package).is_some_and(|pinned| requirement.matches(&pinned.version)));
                }
                prop_assert!(lock.packages().keys().eq(&needed), "nothing is chosen that nobody needs");
                // The choice is stable, and survives a round trip through text.
                let again = smol::block_on(resolve(&[], &registry, Some(&lock))).unwrap();
                prop_assert!(again.packages().is_empty());
                prop_assert_eq!(&Lock::from_toml(&lock.to_toml()).unwrap(), &lock);
            }
            Err(ResolveError::Conflict { .. } | ResolveError::Unknown { .. }) => {
                prop_assert!(!brute_force(&universe, &roots));
            }
            Err(other) => prop_assert!(false, "{}", other),
        }
    }
}
