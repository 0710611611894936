use std::sync::atomic::Ordering;

use super::*;
use crate::registry::fake::{FakeRegistry, id, version};

mod installing;
mod locks;
mod property;
mod solving;

/// Creates a registry of versions, each written as `name number: name requirement; ...`.
fn registry(versions: &[&str]) -> FakeRegistry {
    let mut registry = FakeRegistry::new();
    for line in versions {
        let (head, needs) = line.split_once(':').unwrap_or((line, ""));
        let (name, number) = head.split_once(' ').unwrap();
        let needs: Vec<_> = needs.split(';').filter_map(|need| need.trim().split_once(' ')).collect();
        registry.add(name, number, &needs);
    }
    registry
}

fn requirements(roots: &[&str]) -> Vec<(PackageId, VersionReq)> {
    let root = |text: &&str| {
        let (name, requirement) = text.split_once(' ').unwrap();
        (id(name), requirement.parse().unwrap())
    };
    roots.iter().map(root).collect()
}

fn resolved(roots: &[&str], registry: &FakeRegistry, previous: Option<&Lock>) -> Result<Lock, ResolveError> {
    smol::block_on(resolve(&requirements(roots), registry, previous))
}

fn chosen(lock: &Lock) -> Vec<String> {
    lock.packages().iter().map(|(package, pinned)| format!("{} {}", package.name(), pinned.version)).collect()
}
