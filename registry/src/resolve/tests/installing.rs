use std::{fs, path::Path};

use super::*;
use crate::{ContentId, Package, archive::UnpackError};

fn installed(lock: &Lock, registry: &FakeRegistry, dir: &Path) -> Result<Installed, InstallError> {
    smol::block_on(install(lock, registry, dir))
}

fn why(result: Result<Installed, InstallError>) -> PackageInstallError {
    match result {
        Err(InstallError::Package { source, .. }) => source,
        other => panic!("{other:?}"),
    }
}

fn folder(dir: &Path, name: &str, number: &str) -> std::path::PathBuf {
    dir.join(id(name).publisher().to_string()).join(name).join(number)
}

/// Returns a registry, a lock file of its package `a`, and a folder.
fn fixture(versions: &[&str]) -> (FakeRegistry, Lock, tempfile::TempDir) {
    let registry = registry(versions);
    let lock = resolved(&["a *"], &registry, None).unwrap();
    (registry, lock, tempfile::tempdir().unwrap())
}

/// Returns a lock file with a forged manifest of `a`.
fn forged(registry: &mut FakeRegistry, lock: &Lock, manifest: &Package) -> Lock {
    let json = manifest.to_json();
    let mut packages = lock.packages().clone();
    let pinned = packages.get_mut(&id("a")).unwrap();
    (pinned.manifest, pinned.manifest_size) = (ContentId::of(&json), json.len() as u64);
    registry.content.insert(pinned.manifest, json);
    Lock::of(packages)
}

#[test]
fn pinned_packages_are_installed_with_their_dependencies() {
    let (registry, lock, dir) = fixture(&["a 1.0.0: b *", "b 1.2.0: c *", "c 2.0.0"]);
    let installed = installed(&lock, &registry, dir.path()).unwrap();
    for (name, number) in [("a", "1.0.0"), ("b", "1.2.0"), ("c", "2.0.0")] {
        let text = fs::read_to_string(folder(dir.path(), name, number).join("what.txt")).unwrap();
        assert_eq!(text, format!("{name} {number}"));
    }
    let there: Vec<_> =
        installed.packages.iter().map(|it| (it.package.name().as_str(), it.already_installed)).collect();
    assert_eq!(there, [("a", false), ("b", false), ("c", false)]);
    assert_eq!(installed.packages[0].path, folder(dir.path(), "a", "1.0.0"));
}

#[test]
fn the_future_of_install_is_send() {
    let (registry, lock, dir) = fixture(&["a 1.0.0"]);
    let task = smol::spawn(async move { install(&lock, &registry, dir.path()).await });
    assert_eq!(smol::block_on(task).unwrap().packages.len(), 1);
}

#[test]
fn an_intact_package_is_not_fetched_again() {
    let (registry, lock, dir) = fixture(&["a 1.0.0: b *", "b 1.0.0"]);
    installed(&lock, &registry, dir.path()).unwrap();
    fs::write(dir.path().join("mine.txt"), "mine").unwrap();
    let empty = FakeRegistry::new();
    let again = installed(&lock, &empty, dir.path()).unwrap();
    assert!(again.packages.iter().all(|it| it.already_installed), "{again:?}");
    assert!(empty.fetched.lock().unwrap().is_empty());
    assert_eq!(fs::read_to_string(dir.path().join("mine.txt")).unwrap(), "mine");
}

#[test]
fn fetched_content_is_installed_without_a_network() {
    let (mut registry, lock, dir) = fixture(&["a 1.0.0: b *", "b 1.0.0"]);
    installed(&lock, &registry, dir.path()).unwrap();
    registry.content.clear();
    registry.indexes.clear();
    let other = tempfile::tempdir().unwrap();
    assert!(installed(&lock, &registry, other.path()).is_ok());
}

#[test]
fn a_yanked_version_is_installed_from_a_lock_file() {
    let (mut registry, lock, dir) = fixture(&["a 1.0.0"]);
    registry.mark_yanked("a", "1.0.0");
    assert!(installed(&lock, &registry, dir.path()).is_ok());
}

#[test]
fn a_modified_package_is_not_overwritten() {
    let (registry, lock, dir) = fixture(&["a 1.0.0"]);
    installed(&lock, &registry, dir.path()).unwrap();
    let folder = folder(dir.path(), "a", "1.0.0");
    fs::write(folder.join("what.txt"), "changed").unwrap();
    assert!(
        matches!(why(installed(&lock, &registry, dir.path())), PackageInstallError::Modified { path } if path == folder)
    );
    assert_eq!(fs::read_to_string(folder.join("what.txt")).unwrap(), "changed");
    fs::remove_dir_all(&folder).unwrap();
    installed(&lock, &registry, dir.path()).unwrap();
    fs::create_dir(folder.join("more")).unwrap();
    assert!(matches!(why(installed(&lock, &registry, dir.path())), PackageInstallError::Modified { .. }));
}

#[test]
fn a_correct_folder_is_accepted_without_a_record() {
    let (registry, lock, dir) = fixture(&["a 1.0.0"]);
    installed(&lock, &registry, dir.path()).unwrap();
    fs::remove_dir_all(dir.path().join(".kadence-install")).unwrap();
    assert!(installed(&lock, &registry, dir.path()).unwrap().packages[0].already_installed);
    fs::write(dir.path().join(".kadence-install/unpacking/left"), "by somebody who was interrupted").unwrap();
    installed(&lock, &registry, dir.path()).unwrap();
    assert_eq!(fs::read_dir(dir.path().join(".kadence-install/unpacking")).unwrap().count(), 0);
}

#[test]
fn unavailable_content_is_an_error_and_leaves_no_partial_package() {
    let (mut registry, lock, dir) = fixture(&["a 1.0.0: b *", "b 1.0.0"]);
    registry.content.remove(&lock.get(&id("b")).unwrap().archive);
    let error = installed(&lock, &registry, dir.path()).unwrap_err();
    assert!(error.to_string().starts_with(&format!("{} was not installed", id("b"))), "{error}");
    assert!(!folder(dir.path(), "b", "1.0.0").exists());
}

#[test]
fn attack_wrong_name_in_a_manifest_is_refused() {
    let (mut registry, lock, dir) = fixture(&["a 1.0.0", "a 0.9.0", "b 1.0.0"]);
    let contents = *registry.add("a", "1.0.0", &[]).contents();
    for (name, number) in [("b", "1.0.0"), ("a", "0.9.0")] {
        // Everything else is correct.
        let manifest = Package::new(FakeRegistry::draft(name, number, &[]), contents, 1, 1).unwrap();
        let lock = forged(&mut registry, &lock, &manifest);
        match why(installed(&lock, &registry, dir.path())) {
            PackageInstallError::Get(GetError::OtherPackage { expected, found, .. }) => {
                assert_eq!(expected, format!("{} 1.0.0", id("a")));
                assert_eq!(found, format!("{} {number}", id(name)));
            }
            other => panic!("{other}"),
        }
        assert!(!dir.path().join(id("a").publisher().to_string()).exists());
    }
}

#[test]
fn attack_a_manifest_that_says_otherwise_than_the_index_is_refused() {
    let (mut registry, lock, dir) = fixture(&["a 1.0.0: b ^1", "b 1.0.0", "c 1.0.0"]);
    let contents = *registry.add("a", "1.0.0", &[("b", "^1")]).contents();
    let other = *registry.add("c", "1.0.0", &[]).contents();
    let size = crate::Contents { archive_size: contents.archive_size + 1, ..contents };
    for (needs, contents, wrong) in [
        (&[("b", "^1")][..], other, "archive"),
        (&[("b", "^1")][..], size, "archive"),
        (&[], contents, "dependencies"),
        (&[("b", "^2")], contents, "dependencies"),
        (&[("b", "^1"), ("c", "*")], contents, "dependencies"),
    ] {
        let manifest = Package::new(FakeRegistry::draft("a", "1.0.0", needs), contents, 1, 1).unwrap();
        let lock = forged(&mut registry, &lock, &manifest);
        match why(installed(&lock, &registry, dir.path())) {
            PackageInstallError::Mismatch { what } => assert_eq!(what, wrong),
            other => panic!("{other}"),
        }
    }
}

#[test]
fn attack_an_archive_that_is_larger_than_declared_is_not_unpacked() {
    let (mut registry, lock, dir) = fixture(&["a 1.0.0"]);
    let contents = *registry.add("a", "1.0.0", &[]).contents();
    let less = crate::Contents { unpacked_size: contents.unpacked_size - 1, ..contents };
    let manifest = Package::new(FakeRegistry::draft("a", "1.0.0", &[]), less, 1, 1).unwrap();
    let forged_lock = forged(&mut registry, &lock, &manifest);
    let error = why(installed(&forged_lock, &registry, dir.path()));
    assert!(
        matches!(error, PackageInstallError::Unpack(UnpackError::TooLarge { .. } | UnpackError::FileTooLarge { .. })),
        "{error}"
    );
    let more = crate::Contents { files: contents.files + 1, ..contents };
    let manifest = Package::new(FakeRegistry::draft("a", "1.0.0", &[]), more, 1, 1).unwrap();
    let forged_lock = forged(&mut registry, &lock, &manifest);
    let error = why(installed(&forged_lock, &registry, dir.path()));
    assert!(matches!(error, PackageInstallError::Mismatch { what: "files in the archive" }), "{error}");
    assert!(!folder(dir.path(), "a", "1.0.0").exists());
}

#[test]
fn attack_an_archive_over_the_limits_is_not_even_fetched() {
    let (mut registry, lock, dir) = fixture(&["a 1.0.0"]);
    let contents = *registry.add("a", "1.0.0", &[]).contents();
    let limits = crate::archive::ArchiveLimits::default();
    for contents in [
        crate::Contents { archive_size: 1 << 30, unpacked_size: limits.total_bytes, ..contents },
        // More than an archive of the declared content can have.
        crate::Contents { archive_size: limits.total_bytes, ..contents },
        crate::Contents { unpacked_size: limits.total_bytes + 1, ..contents },
        crate::Contents { files: limits.entries as u64 + 1, ..contents },
    ] {
        let manifest = Package::new(FakeRegistry::draft("a", "1.0.0", &[]), contents, 1, 1).unwrap();
        let mut packages = forged(&mut registry, &lock, &manifest).packages().clone();
        packages.get_mut(&id("a")).unwrap().archive_size = contents.archive_size;
        let error = why(installed(&Lock::of(packages), &registry, dir.path()));
        assert!(
            matches!(
                error,
                PackageInstallError::Unpack(UnpackError::TooLarge { .. } | UnpackError::TooManyEntries { .. })
            ),
            "{error}"
        );
        assert!(!registry.fetched.lock().unwrap().contains(&contents.archive));
    }
}

#[test]
fn only_one_call_at_a_time_installs_into_a_folder() {
    let (registry, lock, dir) = fixture(&["a 1.0.0"]);
    installed(&lock, &registry, dir.path()).unwrap();
    let format = crate::database::Format { application_id: *b"GGin", steps: &["CREATE TABLE t(n)"], exclusive: true };
    let database =
        smol::block_on(crate::storage::Database::open(dir.path().join(".kadence-install/installed.db"), format))
            .unwrap();
    let second = installed(&lock, &registry, dir.path());
    assert!(matches!(second, Err(InstallError::Storage(crate::StorageError::InUse { .. }))), "{second:?}");
    drop(database);
    installed(&lock, &registry, dir.path()).unwrap();
}

#[test]
fn a_folder_that_cannot_be_used_is_an_error() {
    let (registry, lock, dir) = fixture(&["a 1.0.0"]);
    fs::write(dir.path().join("file"), "").unwrap();
    let into_file = installed(&lock, &registry, &dir.path().join("file"));
    assert!(matches!(into_file, Err(InstallError::Io { .. })), "{into_file:?}");
    fs::write(dir.path().join(id("a").publisher().to_string()), "in the way").unwrap();
    let error = why(installed(&lock, &registry, dir.path()));
    assert!(matches!(error, PackageInstallError::Io { .. }), "{error}");
}

#[test]
#[cfg(unix)]
fn a_link_in_an_installed_folder_counts_as_a_change_and_is_not_followed() {
    let (registry, lock, dir) = fixture(&["a 1.0.0"]);
    installed(&lock, &registry, dir.path()).unwrap();
    std::os::unix::fs::symlink("/", folder(dir.path(), "a", "1.0.0").join("root")).unwrap();
    assert!(matches!(why(installed(&lock, &registry, dir.path())), PackageInstallError::Modified { .. }));
}
