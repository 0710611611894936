//! `kadence pkg install`.

use std::{
    fs,
    path::{Path, absolute},
};

use anyhow::Context;
use kadence_registry::{
    PackageId,
    resolve::{self, Installed, InstalledPackage, Lock},
};
use semver::{Comparator, Op, Version, VersionReq};
use serde_json::{Value, json};

use super::{
    args::{InstallArgs, Name, PackageReq},
    home::Home,
    member::{Member, Part},
    progress::{Downloading, Waiting},
};
use crate::{args::NetworkArgs, exit::Failure, output};

/// Name of the lock file, in the folder that is installed into.
const LOCK_FILE: &str = "ggen.lock";

/// The packages that were asked for, with the requirement on their version.
type Roots = Vec<(PackageId, VersionReq)>;

/// Resolves packages, writes the lock file, and installs them.
///
/// # Errors
///
/// If a package does not exist, requirements conflict, a package cannot be fetched, or a file cannot be read or
/// written.
pub(super) async fn install(args: InstallArgs, network: NetworkArgs) -> Result<(), Failure> {
    let InstallArgs { packages, dir, locked, offline, peers, place } = args;
    let lock_path = dir.join(LOCK_FILE);
    let previous = Lock::read(&lock_path).await.with_context(|| format!("cannot read {}", lock_path.display()))?;
    // Errors that need no network come first.
    let pinned = match &previous {
        Some(lock) if locked || offline || packages.is_empty() => Some(as_pinned(lock, &packages, &lock_path)?),
        None if locked || offline || packages.is_empty() => {
            let missing = anyhow::anyhow!(
                "{} does not exist: name the packages, and use neither --locked nor --offline",
                lock_path.display()
            );
            return Err(Failure::not_found(missing));
        }
        _ => None,
    };
    let timeout = place.transfer_timeout();
    let home = Home::find(place.home)?;
    let peers = if offline { Vec::new() } else { peers };
    let part = Part { home, peers, listen: Vec::new(), network, timeout };
    // A node without peers and without an address asks nobody.
    let member = if offline { Member::start(part).await? } else { Member::join(part).await? };
    let work = Box::pin(async {
        let lock = match pinned {
            Some(lock) => lock,
            None => {
                let lock = member.resolve(&packages, previous.as_ref()).await?;
                write(&lock, previous.as_ref(), &dir, &lock_path).await?;
                lock
            }
        };
        let _progress_bar = Downloading::start(member.registry.events());
        member.in_time(resolve::install(&lock, member.registry(), &dir)).await
    });
    let installed = work.await;
    member.leave().await;
    print(&installed?, &dir, &lock_path, place.json)
}

impl Member {
    async fn resolve(&self, packages: &[PackageReq], previous: Option<&Lock>) -> Result<Lock, Failure> {
        let waiting = Waiting::start("resolving");
        let mut roots = Roots::new();
        for PackageReq { name, requirement } in packages {
            let known = previous.and_then(|lock| in_lock(lock, name));
            let id = match known {
                Some(id) => id,
                None => self.package(name).await?,
            };
            roots.push((id, requirement.clone()));
        }
        if let Some(lock) = previous {
            roots = with_installed(roots, lock);
        }
        let lock = self.in_time(resolve::resolve(&roots, self.registry(), previous)).await;
        waiting.end();
        lock
    }
}

/// Returns the lock file if it meets the requirements.
///
/// # Errors
///
/// If a package is not in it, or its version does not meet the requirement.
fn as_pinned(lock: &Lock, packages: &[PackageReq], path: &Path) -> Result<Lock, Failure> {
    for PackageReq { name, requirement } in packages {
        let is_met = in_lock(lock, name)
            .and_then(|id| lock.get(&id))
            .is_some_and(|pinned| *requirement == VersionReq::STAR || requirement.matches(&pinned.version));
        if !is_met {
            let path = path.display();
            return Err(Failure::not_found(anyhow::anyhow!(
                "{path} pins no version of {name} that meets {requirement}: install it without --locked and --offline"
            )));
        }
    }
    Ok(lock.clone())
}

/// Returns the package of this name in a lock file. An installed package keeps its short name, also when another
/// publisher uses the same one later.
fn in_lock(lock: &Lock, name: &Name) -> Option<PackageId> {
    match name {
        Name::Id(id) => lock.get(id).map(|_| id.clone()),
        Name::Short(name) => {
            let mut found = lock.packages().keys().filter(|id| id.name() == name);
            found.next().filter(|_| found.next().is_none()).cloned()
        }
    }
}

/// Adds the packages that were asked for before: those in the lock file on which no other package in it depends.
fn with_installed(mut roots: Roots, lock: &Lock) -> Roots {
    let packages = lock.packages();
    let is_needed = |id: &PackageId| packages.values().any(|pinned| pinned.dependencies.contains(id));
    for (id, pinned) in packages {
        if !is_needed(id) && !roots.iter().any(|(root, _)| root == id) {
            roots.push((id.clone(), any_like(&pinned.version)));
        }
    }
    roots
}

/// Returns a requirement that any version meets, and also this one if it is a pre-release.
fn any_like(version: &Version) -> VersionReq {
    if version.pre.is_empty() {
        return VersionReq::STAR;
    }
    let Version { major, minor, patch, pre, build: _ } = version.clone();
    VersionReq {
        comparators: vec![Comparator { op: Op::GreaterEq, major, minor: Some(minor), patch: Some(patch), pre }],
    }
}

async fn write(lock: &Lock, previous: Option<&Lock>, dir: &Path, path: &Path) -> anyhow::Result<()> {
    if previous == Some(lock) {
        return Ok(());
    }
    fs::create_dir_all(dir).with_context(|| format!("cannot create the folder {}", dir.display()))?;
    lock.write(path).await.with_context(|| format!("cannot write {}", path.display()))
}

fn print(installed: &Installed, dir: &Path, lock: &Path, json: bool) -> Result<(), Failure> {
    let packages = &installed.packages;
    if json {
        let row = |InstalledPackage { package, version, path, already_installed }: &InstalledPackage| {
            let path = absolute(path).unwrap_or_else(|_| path.clone());
            json!({ "package": package, "version": version, "path": display(&path), "was_there": already_installed })
        };
        let rows: Vec<Value> = packages.iter().map(row).collect();
        output::json(&json!({ "ok": true, "lock": display(lock), "packages": rows }))?;
        return Ok(());
    }
    for InstalledPackage { package, version, path, already_installed } in packages {
        let action = if *already_installed { "kept     " } else { "installed" };
        output::line(format_args!(
            "{action} {} {version} of {} in {}",
            package.name(),
            package.publisher(),
            path.display()
        ))?;
    }
    let new = packages.iter().filter(|package| !package.already_installed).count();
    output::line(format_args!("{} packages in {}, {new} of them new", packages.len(), dir.display()))?;
    Ok(())
}

fn display(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUBLISHER: &str = "12D3KooWMzV56vQ2jjX2SLkXUMi4oQ4Adk4UMHVmY2qR8NsbpnNR";

    fn id(name: &str) -> PackageId {
        format!("{PUBLISHER}/{name}").parse().unwrap()
    }

    /// `app` depends on `lib`, and `tool` on nothing.
    fn lock() -> Lock {
        let content = kadence_registry::ContentId::of(b"content");
        let row = |name: &str, version: &str, needs: &str| {
            format!(
                "[[package]]\nid = \"{}\"\nversion = \"{version}\"\nmanifest = \"{content}\"\nmanifest-size = 1\n\
                 archive = \"{content}\"\narchive-size = 1\ndependencies = [{needs}]\n",
                id(name)
            )
        };
        let needs_lib = format!("\"{}\"", id("lib"));
        let rows = [row("app", "1.0.0", &needs_lib), row("lib", "2.1.0", ""), row("tool", "3.0.0-rc.1", "")];
        Lock::from_toml(&format!("schema = 1\n{}", rows.concat())).unwrap()
    }

    #[test]
    fn packages_asked_for_before_stay() {
        let roots = with_installed(vec![(id("new"), VersionReq::STAR)], &lock());
        let names: Vec<_> = roots.iter().map(|(id, _)| id.name().as_str()).collect();
        assert_eq!(names, ["new", "app", "tool"], "and not a dependency");
        assert!(roots[2].1.matches(&"3.0.0-rc.1".parse().unwrap()) && roots[2].1.matches(&"3.0.0".parse().unwrap()));
        let asked = "^2".parse::<VersionReq>().unwrap();
        assert_eq!(with_installed(vec![(id("app"), asked.clone())], &lock())[0], (id("app"), asked));
    }

    #[test]
    fn a_lock_file_is_used_only_if_it_meets_the_requirements() {
        let check = |packages: &[&str]| {
            let packages: Vec<PackageReq> = packages.iter().map(|text| text.parse().unwrap()).collect();
            as_pinned(&lock(), &packages, Path::new("ggen.lock"))
        };
        assert_eq!(check(&[]).unwrap(), lock());
        assert_eq!(check(&["lib@^2", &format!("{PUBLISHER}/app"), "tool"]).unwrap(), lock());
        for missing in ["lib@^3", "other", "tool@^3"] {
            assert_eq!(check(&[missing]).unwrap_err().reason_name(), "not_found", "{missing}");
        }
    }
}
