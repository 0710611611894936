//! `kadence pkg install`.

use std::{
    fs,
    path::{Path, PathBuf, absolute},
};

use anyhow::Context;
use kadence_registry::{
    PackageId,
    resolve::{self, Installed, InstalledPackage, Lock},
};
use kadence_tokio::kadence::libp2p::StreamProtocol;
use semver::{Comparator, Op, Version, VersionReq};
use serde_json::{Value, json};

use super::{
    args::{InstallArgs, Name, Wanted},
    home::Home,
    member::{Member, Part},
    progress::{Downloading, Waiting},
};
use crate::{exit::Failure, output};

/// What pins the versions, in the folder that is installed into.
const LOCK: &str = "ggen.lock";

/// What is asked for, with the package that each name means.
type Roots = Vec<(PackageId, VersionReq)>;

/// Resolves, writes the lock file, and installs.
///
/// # Errors
///
/// If there is no such package, versions do not go together, something cannot be had, or the disk does not do its part.
pub(super) async fn install(args: InstallArgs, protocol: StreamProtocol) -> Result<(), Failure> {
    let InstallArgs { packages, dir, locked, offline, peers, place } = args;
    let lock_path = dir.join(LOCK);
    let previous = Lock::read(&lock_path).await.with_context(|| format!("cannot use {}", lock_path.display()))?;
    // All that can be told without the network comes first.
    let pinned = match &previous {
        Some(lock) if locked || offline || packages.is_empty() => Some(as_pinned(lock, &packages, &lock_path)?),
        None if locked || offline || packages.is_empty() => {
            let missing =
                anyhow::anyhow!("there is no {}: name what to install, with the network", lock_path.display());
            return Err(Failure::not_found(missing));
        }
        _ => None,
    };
    let timeout = place.time_to_move();
    let home = Home::find(place.home)?;
    let peers = if offline { Vec::new() } else { peers };
    let part = Part { home, peers, listen: Vec::new(), protocol, timeout };
    // Without peers and without a place to listen at, nobody is asked for anything.
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
        let _shown = Downloading::start(member.registry.events());
        member.in_time(resolve::install(&lock, member.registry(), &dir)).await
    });
    let installed = work.await;
    member.leave().await;
    print(&installed?, &dir, &lock_path, place.json)
}

impl Member {
    async fn resolve(&self, packages: &[Wanted], previous: Option<&Lock>) -> Result<Lock, Failure> {
        let waiting = Waiting::start("resolving");
        let mut roots = Roots::new();
        for Wanted { name, requirement } in packages {
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

/// The lock file as it is, if it has what is asked for.
fn as_pinned(lock: &Lock, packages: &[Wanted], path: &Path) -> Result<Lock, Failure> {
    for Wanted { name, requirement } in packages {
        let is_met = in_lock(lock, name)
            .and_then(|id| lock.get(&id))
            .is_some_and(|pinned| *requirement == VersionReq::STAR || requirement.matches(&pinned.version));
        if !is_met {
            let path = path.display();
            return Err(Failure::not_found(anyhow::anyhow!(
                "{path} does not pin {name} {requirement}, and must not change"
            )));
        }
    }
    Ok(lock.clone())
}

/// The package of this name that a lock file has. What is installed keeps its name, whoever else takes the same later.
fn in_lock(lock: &Lock, name: &Name) -> Option<PackageId> {
    match name {
        Name::Id(id) => lock.get(id).map(|_| id.clone()),
        Name::Short(name) => {
            let mut found = lock.packages().keys().filter(|id| id.name() == name);
            found.next().filter(|_| found.next().is_none()).cloned()
        }
    }
}

/// What is asked for now, and what was before: everything in the lock file that nothing else in it needs.
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

/// Any version, a pre-release only if it is that one.
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
    fs::create_dir_all(dir).with_context(|| format!("cannot make the folder {}", dir.display()))?;
    lock.write(path).await.with_context(|| format!("cannot write {}", path.display()))
}

fn print(installed: &Installed, dir: &Path, lock: &Path, json: bool) -> Result<(), Failure> {
    let packages = &installed.packages;
    if json {
        let row = |InstalledPackage { package, version, path, already_installed }: &InstalledPackage| {
            let path = absolute(path).unwrap_or_else(|_| path.clone());
            json!({ "package": package, "version": version, "path": text(&path), "was_there": already_installed })
        };
        let rows: Vec<Value> = packages.iter().map(row).collect();
        output::json(&json!({ "ok": true, "lock": text(lock), "packages": rows }))?;
        return Ok(());
    }
    for InstalledPackage { package, version, path, already_installed } in packages {
        let what = if *already_installed { "kept     " } else { "installed" };
        output::line(format_args!(
            "{what} {} {version} of {} in {}",
            package.name(),
            package.publisher(),
            path.display()
        ))?;
    }
    let new = packages.iter().filter(|package| !package.already_installed).count();
    output::line(format_args!("{} packages are in {}, {new} of them new", packages.len(), dir.display()))?;
    Ok(())
}

fn text(path: &Path) -> String {
    PathBuf::from(path).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUBLISHER: &str = "12D3KooWMzV56vQ2jjX2SLkXUMi4oQ4Adk4UMHVmY2qR8NsbpnNR";

    fn id(name: &str) -> PackageId {
        format!("{PUBLISHER}/{name}").parse().unwrap()
    }

    /// `app` needs `lib`, and `tool` stands alone.
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
    fn what_was_asked_for_before_stays() {
        let roots = with_installed(vec![(id("new"), VersionReq::STAR)], &lock());
        let names: Vec<_> = roots.iter().map(|(id, _)| id.name().as_str()).collect();
        assert_eq!(names, ["new", "app", "tool"], "and not what only another one needs");
        assert!(roots[2].1.matches(&"3.0.0-rc.1".parse().unwrap()) && roots[2].1.matches(&"3.0.0".parse().unwrap()));
        let asked = "^2".parse::<VersionReq>().unwrap();
        assert_eq!(with_installed(vec![(id("app"), asked.clone())], &lock())[0], (id("app"), asked));
    }

    #[test]
    fn a_lock_file_is_installed_as_it_is_only_if_it_has_what_is_asked_for() {
        let check = |wanted: &[&str]| {
            let wanted: Vec<Wanted> = wanted.iter().map(|text| text.parse().unwrap()).collect();
            as_pinned(&lock(), &wanted, Path::new("ggen.lock"))
        };
        assert_eq!(check(&[]).unwrap(), lock());
        assert_eq!(check(&["lib@^2", &format!("{PUBLISHER}/app"), "tool"]).unwrap(), lock());
        for missing in ["lib@^3", "other", "tool@^3"] {
            assert_eq!(check(&[missing]).unwrap_err().reason_name(), "not_found", "{missing}");
        }
    }
}
