//! Packages that the demonstration publishes: the samples in the program, or folders of the user. It works on copies.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use kadence_registry::PackageName;
use kadence_tokio::kadence::libp2p::PeerId;
#[cfg(any(test, feature = "attackers"))]
use semver::Version;
use toml::{Table, Value};

use crate::files::walk;

/// Maximum number of packages. Every package is on several nodes of this one process, and is compared in memory.
const MAX_PACKAGES: usize = 64;

/// Maximum size of all packages together, in bytes.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// File name of a manifest.
const MANIFEST: &str = "ggen.toml";

macro_rules! package {
    ($name:literal: $($file:literal)*) => {
        ($name, &[$(($file, include_bytes!(concat!("../../samples/registry/", $name, "/", $file)))),*])
    };
}

type Files = &'static [(&'static str, &'static [u8])];

/// Small packages, some of which depend on others.
const SAMPLES: &[(&str, Files)] = &[
    package!("colour": "ggen.toml" "palettes/calm.json" "palettes/print.json"),
    package!("numbers": "README.md" "ggen.toml" "src/numbers.lua"),
    package!("postcard": "Makefile" "README.md" "ggen.toml" "templates/card.html"),
    package!("timetable": "data/line-7.csv" "draw.awk" "ggen.toml"),
    package!("units": "README.md" "ggen.toml" "src/units.lua" "tests/adding.lua"),
];

/// Folder of a package to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) name: PackageName,
    pub(super) dir: PathBuf,
}

#[cfg(any(test, feature = "attackers"))]
impl Source {
    /// Increments the patch version in the manifest. Returns the new version.
    pub(super) fn bump(&self) -> anyhow::Result<Version> {
        let mut manifest = read_manifest(&self.dir)?;
        let version: Version = manifest.get("version").and_then(Value::as_str).unwrap_or_default().parse()?;
        let next = Version::new(version.major, version.minor, version.patch + 1);
        manifest.insert("version".to_owned(), next.to_string().into());
        write_manifest(&self.dir, &manifest)?;
        Ok(next)
    }
}

/// Writes the packages in the program under a folder.
///
/// # Errors
///
/// If they cannot be written.
pub(super) fn samples(to: &Path) -> anyhow::Result<Vec<Source>> {
    let mut sources = Vec::new();
    for (name, files) in SAMPLES {
        let dir = to.join(name);
        for (file, bytes) in *files {
            write(&dir.join(file), bytes).with_context(|| format!("cannot write the sample {name}"))?;
        }
        sources.push(Source { name: name.parse()?, dir });
    }
    Ok(sources)
}

/// Copies each folder in `from` to a folder in `to`, as a package; or `from` itself, if it has no folders or is a
/// package. A folder without a `ggen.toml` gets one. Symbolic links are skipped.
///
/// # Errors
///
/// If a folder cannot be read, a `ggen.toml` is invalid, or there are too many folders or bytes.
pub(super) fn folders(from: &Path, to: &Path) -> anyhow::Result<Vec<Source>> {
    let unreadable = || format!("cannot read the folder {}", from.display());
    let entries: Vec<fs::DirEntry> = fs::read_dir(from).and_then(Iterator::collect).with_context(unreadable)?;
    let is_folder = |entry: &&fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    let mut dirs: Vec<PathBuf> = entries.iter().filter(is_folder).map(fs::DirEntry::path).collect();
    dirs.sort();
    if dirs.is_empty() || from.join(MANIFEST).exists() {
        dirs = vec![from.canonicalize().with_context(unreadable)?];
    }
    if dirs.len() > MAX_PACKAGES {
        bail!("{} folders in {}: the demo takes at most {MAX_PACKAGES}", dirs.len(), from.display());
    }
    let mut sources: Vec<Source> = Vec::new();
    let mut bytes = 0;
    for (number, folder) in dirs.iter().enumerate() {
        let dir = to.join(number.to_string());
        let copied = copy(folder, &dir, MAX_BYTES.saturating_sub(bytes));
        bytes += copied.with_context(|| format!("cannot copy {}", folder.display()))?;
        let name = if dir.join(MANIFEST).exists() {
            let manifest = read_manifest(&dir).with_context(|| format!("invalid package {}", folder.display()))?;
            let name = manifest.get("name").and_then(Value::as_str).unwrap_or_default();
            name.parse().with_context(|| format!("{}: invalid name {name:?}", folder.join(MANIFEST).display()))?
        } else {
            let name = name_of(folder, number)?;
            let text = kadence_registry::Draft::template(&name);
            write(&dir.join(MANIFEST), text.as_bytes())?;
            name
        };
        if sources.iter().any(|source| source.name == name) {
            bail!("two folders in {} have the package name {name}", from.display());
        }
        sources.push(Source { name, dir });
    }
    Ok(sources)
}

/// Adds the publisher to each dependency in a `ggen.toml` that is one of `sources`.
///
/// # Errors
///
/// If one cannot be read or written.
pub(super) fn name_publishers(sources: &[Source], publishers: &[PeerId]) -> anyhow::Result<()> {
    let ids: BTreeMap<String, String> = sources
        .iter()
        .zip(publishers)
        .map(|(source, publisher)| (source.name.to_string(), format!("{publisher}/{}", source.name)))
        .collect();
    for source in sources {
        let mut manifest = read_manifest(&source.dir)?;
        if let Some(Value::Table(dependencies)) = manifest.get_mut("dependencies") {
            let named = std::mem::take(dependencies).into_iter();
            *dependencies = named.map(|(name, req)| (ids.get(&name).cloned().unwrap_or(name), req)).collect();
        }
        write_manifest(&source.dir, &manifest)?;
    }
    Ok(())
}

/// Returns every file under a folder, with its bytes.
///
/// # Errors
///
/// If a file cannot be read.
pub(super) fn contents(dir: &Path) -> io::Result<Vec<(PathBuf, Vec<u8>)>> {
    walk(dir)?.into_iter().map(|path| fs::read(dir.join(&path)).map(|bytes| (path, bytes))).collect()
}

fn read_manifest(dir: &Path) -> anyhow::Result<Table> {
    let path = dir.join(MANIFEST);
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    text.parse().with_context(|| format!("{} is not TOML", path.display()))
}

fn write_manifest(dir: &Path, manifest: &Table) -> anyhow::Result<()> {
    Ok(write(&dir.join(MANIFEST), manifest.to_string().as_bytes())?)
}

fn copy(from: &Path, to: &Path, max: u64) -> anyhow::Result<u64> {
    fs::create_dir_all(to)?;
    let mut bytes = 0;
    for file in walk(from)? {
        bytes += from.join(&file).metadata()?.len();
        if bytes > max {
            bail!("folders have more than {MAX_BYTES} bytes in total: too much for a network in one process");
        }
        write(&to.join(&file), &fs::read(from.join(&file))?)?;
    }
    Ok(bytes)
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(above) = path.parent() {
        fs::create_dir_all(above)?;
    }
    fs::write(path, bytes)
}

/// Returns a package name made of a folder's name. Characters that a name must not have become dashes.
fn name_of(folder: &Path, number: usize) -> anyhow::Result<PackageName> {
    let name = folder.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let plain =
        |character: char| if character.is_ascii_alphanumeric() || "-_.".contains(character) { character } else { '-' };
    let name: String = name.chars().map(plain).skip_while(|first| !first.is_ascii_alphanumeric()).take(60).collect();
    let name = if name.is_empty() { format!("folder-{number}") } else { name };
    Ok(name.parse()?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_sample_in_the_folder_is_in_the_program() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("samples").join("registry");
        let on_disk: BTreeSet<_> = contents(&root).unwrap().into_iter().collect();
        let files = SAMPLES.iter().flat_map(|(name, files)| {
            files.iter().map(move |(file, bytes)| (Path::new(name).join(file), bytes.to_vec()))
        });
        assert_eq!(files.collect::<BTreeSet<_>>(), on_disk);
    }

    #[test]
    fn dependencies_of_samples_get_their_publishers() {
        let folder = tempfile::tempdir().unwrap();
        let sources = samples(folder.path()).unwrap();
        let publishers: Vec<PeerId> = sources.iter().map(|_| PeerId::random()).collect();
        name_publishers(&sources, &publishers).unwrap();
        let units = sources.iter().find(|source| source.name.as_str() == "units").unwrap();
        let text = fs::read_to_string(units.dir.join(MANIFEST)).unwrap();
        assert!(text.contains(&format!("\"{}/numbers\" = \"^1.1\"", publishers[1])), "{text}");
        assert_eq!(units.bump().unwrap(), Version::new(0, 4, 2));
        assert!(fs::read_to_string(units.dir.join(MANIFEST)).unwrap().contains("0.4.2"));
    }

    #[test]
    fn any_folder_becomes_a_package_without_being_changed() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::create_dir_all(from.join("Größe 1")).unwrap();
        fs::create_dir_all(from.join("named")).unwrap();
        fs::write(from.join("Größe 1/a.txt"), "a").unwrap();
        fs::write(from.join("named/ggen.toml"), "name = \"other\"\nversion = \"1.0.0\"\n").unwrap();
        let sources = folders(&from, &to).unwrap();
        let names: Vec<_> = sources.iter().map(|source| source.name.as_str()).collect();
        assert_eq!(names, ["gr--e-1", "other"]);
        assert_eq!(walk(&sources[0].dir).unwrap(), [Path::new("a.txt"), Path::new(MANIFEST)]);
        assert!(!from.join("Größe 1").join(MANIFEST).exists());
        assert!(folders(&from.join("none"), &to).is_err());
        assert_eq!(folders(&from.join("Größe 1"), &to.join("one")).unwrap().len(), 1);
    }
}
