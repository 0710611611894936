use super::*;

#[test]
fn the_newest_compatible_versions_are_chosen() {
    let registry = registry(&[
        "app 1.0.0: lib ^1; util *",
        "lib 1.0.0: util ^1",
        "lib 1.1.0: util ^1",
        "lib 2.0.0",
        "util 1.0.0",
        "util 1.5.0",
        "util 2.0.0",
    ]);
    let lock = resolved(&["app *"], &registry, None).unwrap();
    assert_eq!(chosen(&lock), ["app 1.0.0", "lib 1.1.0", "util 1.5.0"]);
    let app = lock.get(&id("app")).unwrap();
    let entry = registry.indexes[&id("app")].clone().unwrap().versions()[&version("1.0.0")].clone();
    assert_eq!((app.manifest, app.manifest_size), (entry.manifest, entry.manifest_size));
    assert_eq!((app.archive, app.archive_size), (entry.archive, entry.archive_size));
    assert_eq!(app.dependencies, [id("lib"), id("util")]);
}

#[test]
fn an_older_version_is_chosen_if_the_newest_is_incompatible() {
    let registry = registry(&["a 1.0.0: c ^1", "a 2.0.0: c ^2", "b 1.0.0: c ^1", "c 1.0.0", "c 2.0.0"]);
    let lock = resolved(&["a *", "b *"], &registry, None).unwrap();
    assert_eq!(chosen(&lock), ["a 1.0.0", "b 1.0.0", "c 1.0.0"]);
}

#[test]
fn no_requirements_give_an_empty_lock_file() {
    assert!(resolved(&[], &registry(&[]), None).unwrap().packages().is_empty());
}

#[test]
fn packages_may_depend_on_each_other() {
    let registry = registry(&["a 1.0.0: b ^1", "b 1.0.0: a ^1"]);
    assert_eq!(chosen(&resolved(&["a *"], &registry, None).unwrap()), ["a 1.0.0", "b 1.0.0"]);
}

#[test]
fn pre_releases_are_chosen_only_if_a_requirement_names_one() {
    let registry = registry(&["a 1.0.0", "a 1.1.0-rc.1", "a 1.1.0-rc.2"]);
    assert_eq!(chosen(&resolved(&["a *"], &registry, None).unwrap()), ["a 1.0.0"]);
    assert_eq!(chosen(&resolved(&["a ^1.1.0-rc.1"], &registry, None).unwrap()), ["a 1.1.0-rc.2"]);
}

#[test]
fn pins_are_kept_while_they_meet_the_requirements() {
    let mut registry = registry(&["a 1.0.0: b *", "b 1.0.0"]);
    let before = resolved(&["a *"], &registry, None).unwrap();
    registry.add("a", "1.1.0", &[("b", "*")]);
    registry.add("b", "1.1.0", &[]);
    assert_eq!(resolved(&["a *"], &registry, Some(&before)).unwrap(), before);
    assert_eq!(chosen(&resolved(&["a *"], &registry, None).unwrap()), ["a 1.1.0", "b 1.1.0"]);
    let moved = resolved(&["a ^1.1"], &registry, Some(&before)).unwrap();
    assert_eq!(chosen(&moved), ["a 1.1.0", "b 1.0.0"]);
}

#[test]
fn a_yanked_version_is_chosen_only_if_it_is_pinned() {
    let mut registry = registry(&["a 1.0.0", "a 1.1.0"]);
    let before = resolved(&["a *"], &registry, None).unwrap();
    registry.mark_yanked("a", "1.1.0");
    assert_eq!(chosen(&resolved(&["a *"], &registry, None).unwrap()), ["a 1.0.0"]);
    assert_eq!(chosen(&resolved(&["a *"], &registry, Some(&before)).unwrap()), ["a 1.1.0"]);
    match resolved(&["a =1.1.0"], &registry, None) {
        Err(ResolveError::Conflict { explanation }) => assert!(explanation.contains("yanked"), "{explanation}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_conflict_names_the_requirements() {
    let registry = registry(&["a 1.0.0: c ^1", "b 1.0.0: c ^2", "c 1.0.0", "c 2.0.0"]);
    match resolved(&["a *", "b *"], &registry, None) {
        Err(ResolveError::Conflict { explanation }) => {
            for part in [id("a").to_string(), id("b").to_string(), "^1".to_owned(), "^2".to_owned()] {
                assert!(explanation.contains(&part), "{part}: {explanation}");
            }
        }
        other => panic!("{other:?}"),
    }
    let nothing = resolved(&["a ^3"], &registry, None);
    assert!(
        matches!(&nothing, Err(ResolveError::Conflict { explanation }) if explanation.contains("^3")),
        "{nothing:?}"
    );
}

#[test]
fn a_long_explanation_is_cut() {
    let mut lines: Vec<_> = (0..200).map(|n| format!("p{n} 1.0.0: c ^{}", n + 1)).collect();
    lines.push("c 1.0.0".to_owned());
    let registry = registry(&lines.iter().map(String::as_str).collect::<Vec<_>>());
    let roots: Vec<_> = (0..200).map(|n| format!("p{n} *")).collect();
    match resolved(&roots.iter().map(String::as_str).collect::<Vec<_>>(), &registry, None) {
        Err(ResolveError::Conflict { explanation }) => assert!((1..=16 * 1024).contains(&explanation.len())),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_missing_package_is_named_with_the_origin_of_the_requirement() {
    let registry = registry(&["a 1.0.0: b *", "b 1.0.0: nowhere ^1", "c 1.0.0", "c 2.0.0: nowhere *"]);
    match resolved(&["nowhere *"], &registry, None) {
        Err(ResolveError::Unknown { package, required_by }) => {
            assert_eq!((*package, required_by), (id("nowhere"), RequiredBy(None)));
        }
        other => panic!("{other:?}"),
    }
    match resolved(&["a *"], &registry, None) {
        Err(error @ ResolveError::Unknown { .. }) => {
            let text = error.to_string();
            assert!(text.contains(&format!("{} 1.0.0 requires {}", id("b"), id("nowhere"))), "{text}");
        }
        other => panic!("{other:?}"),
    }
    // A version that cannot be installed does not exclude other versions.
    assert_eq!(chosen(&resolved(&["c *"], &registry, None).unwrap()), ["c 1.0.0"]);
    // A missing package that is not the cause is not reported.
    let conflict = resolved(&["c >=2", "c <2"], &registry, None);
    assert!(matches!(conflict, Err(ResolveError::Conflict { .. })), "{conflict:?}");
}

#[test]
fn unknown_versions_are_an_error_and_do_not_lead_to_an_older_choice() {
    let mut registry = registry(&["a 1.0.0", "a 2.0.0: b *"]);
    registry.indexes.insert(id("b"), Err(GetError::Inconclusive { asked: 20, answered: 3 }));
    match resolved(&["a *"], &registry, None) {
        Err(error @ ResolveError::Lookup { .. }) => {
            let text = error.to_string();
            assert!(text.contains(&format!("{} 2.0.0 requires {}", id("a"), id("b"))), "{text}");
            assert!(text.contains("3 of 20"), "{text}");
        }
        other => panic!("{other:?}"),
    }
    // Unless the package does not matter.
    assert_eq!(chosen(&resolved(&["a ^1"], &registry, None).unwrap()), ["a 1.0.0"]);
    let root = resolved(&["b *"], &registry, None).unwrap_err();
    assert!(root.to_string().starts_with("the caller requires"), "{root}");
}

#[test]
fn attack_a_pinned_version_that_was_replaced_is_refused() {
    let before = resolved(&["a *"], &registry(&["a 1.0.0"]), None).unwrap();
    let replaced = registry(&["a 1.0.0: b *", "b 1.0.0"]);
    match resolved(&["a *"], &replaced, Some(&before)) {
        Err(ResolveError::Replaced { package, version: number, locked, .. }) => {
            assert_eq!((*package, number), (id("a"), version("1.0.0")));
            assert_eq!(*locked, before.get(&id("a")).unwrap().manifest);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_index_is_looked_up_once_and_several_at_a_time() {
    let mut lines: Vec<_> = (0..30).map(|n| format!("p{n} 1.0.0: base *")).collect();
    lines.push("base 1.0.0".to_owned());
    let registry = registry(&lines.iter().map(String::as_str).collect::<Vec<_>>());
    let roots: Vec<_> = (0..30).map(|n| format!("p{n} *")).collect();
    resolved(&roots.iter().map(String::as_str).collect::<Vec<_>>(), &registry, None).unwrap();
    assert_eq!(registry.looked_up.lock().unwrap().len(), 31);
    assert_eq!(registry.most_running.load(Ordering::SeqCst), 8);
}

#[test]
fn attack_packages_without_end_are_not_followed() {
    // Every version depends on 250 unknown packages.
    let mut registry = FakeRegistry::new();
    for n in 0..9 {
        let names: Vec<_> = (0..250).map(|m| format!("x{n}-{m}")).collect();
        let needs: Vec<_> = names.iter().map(|name| (name.as_str(), "*")).collect();
        registry.add("a", &format!("{n}.0.0"), &needs);
    }
    let error = resolved(&["a *"], &registry, None).unwrap_err();
    assert!(matches!(error, ResolveError::TooMany { what: "packages", max: 2000 }), "{error}");
    assert!(registry.looked_up.lock().unwrap().len() < 10);
}

#[test]
fn attack_dependencies_without_end_are_not_followed() {
    // All versions of a package depend on the next package: few packages, many dependencies.
    let lines: Vec<_> = (0..40).map(|n| format!("p{} {}.0.0: p{} *", n / 4, n % 4, n / 4 + 1)).collect();
    let registry = registry(&lines.iter().map(String::as_str).collect::<Vec<_>>());
    let roots = requirements(&["p0 *"]);
    let within =
        |dependencies| smol::block_on(prefetch(&roots, &registry, None, Limits { packages: 11, dependencies }));
    assert_eq!(within(40).unwrap().packages.len(), 10);
    registry.looked_up.lock().unwrap().clear();
    let error = within(20).unwrap_err();
    assert!(matches!(error, ResolveError::TooMany { what: "dependencies", max: 20 }), "{error}");
    assert_eq!(registry.looked_up.lock().unwrap().len(), 6);
}

#[test]
fn attack_a_riddle_is_given_up() {
    // The pigeonhole principle: solvers of this kind need exponential time to prove the conflict.
    let holes = 6;
    let mut lines: Vec<_> = (0..holes).flat_map(|hole| (0..=holes).map(move |n| format!("h{hole} {n}.0.0"))).collect();
    lines.extend((0..=holes).flat_map(|n| (0..holes).map(move |hole| format!("p{n} {hole}.0.0: h{hole} ={n}.0.0"))));
    let registry = registry(&lines.iter().map(String::as_str).collect::<Vec<_>>());
    let roots: Vec<_> = (0..=holes).map(|n| format!("p{n} *")).collect();
    let roots = requirements(&roots.iter().map(String::as_str).collect::<Vec<_>>());
    let universe = smol::block_on(prefetch(&roots, &registry, None, Limits::default())).unwrap();
    let solved = solve::solve(&roots, &universe, None, 50);
    assert!(matches!(solved, Err(ResolveError::TooHard { steps: 50 })), "{solved:?}");
}

#[test]
fn an_ordinary_problem_takes_few_steps() {
    let lines: Vec<_> = (0..200).map(|n| format!("p{n} 1.0.0: p{} *; p{} ^1", n + 1, n / 2 + 200)).collect();
    let more = (200..=300).map(|n| format!("p{n} 1.0.0"));
    let lines: Vec<_> = lines.into_iter().chain(more).collect();
    let registry = registry(&lines.iter().map(String::as_str).collect::<Vec<_>>());
    let roots = requirements(&["p0 *"]);
    let universe = smol::block_on(prefetch(&roots, &registry, None, Limits::default())).unwrap();
    let lock = solve::solve(&roots, &universe, None, 1000).unwrap();
    assert_eq!(lock.packages().len(), 300);
}
