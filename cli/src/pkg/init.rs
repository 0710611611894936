//! `kadence pkg init`.

use std::{
    fs,
    io::{self, Write},
    path::{Path, absolute},
};

use anyhow::Context;
use kadence_registry::{Draft, PackageName};
use serde_json::json;

use super::args::InitArgs;
use crate::{exit::Failure, output};

/// Writes a `ggen.toml`, unless there is one.
///
/// # Errors
///
/// If there is one, the folder's name is not a valid package name, or the file cannot be written.
pub(super) fn init(args: InitArgs) -> Result<(), Failure> {
    let InitArgs { dir, name, json } = args;
    let name = match name {
        Some(name) => name,
        None => name_of(&dir)?,
    };
    let path = dir.join("ggen.toml");
    write_new(&dir, &path, &Draft::template(&name))?;
    if json {
        output::json(&json!({ "ok": true, "name": name.as_str(), "file": path.display().to_string() }))?;
    } else {
        output::line(format_args!(
            "wrote {} of the package {name}: publish it with `kadence pkg publish`",
            path.display()
        ))?;
    }
    Ok(())
}

fn write_new(dir: &Path, path: &Path, text: &str) -> anyhow::Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("cannot create the folder {}", dir.display()))?;
    let written = fs::OpenOptions::new().write(true).create_new(true).open(path);
    match written.and_then(|mut file| file.write_all(text.as_bytes())) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            anyhow::bail!("{} already exists: the folder is a package", path.display())
        }
        written => written.with_context(|| format!("cannot write {}", path.display())),
    }
}

/// Returns the package name that a folder's name stands for.
fn name_of(dir: &Path) -> anyhow::Result<PackageName> {
    let dir = absolute(dir).and_then(|dir| if dir.exists() { dir.canonicalize() } else { Ok(dir) });
    let dir = dir.context("folder has no name: use --name")?;
    let name = dir.file_name().map(|name| name.to_string_lossy().to_lowercase().replace(' ', "-"));
    let name = name.context("folder has no name: use --name")?;
    name.parse().with_context(|| format!("folder name {name:?} is not a package name: use --name"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_gets_the_name_of_its_folder_if_that_is_valid() {
        assert_eq!(name_of(Path::new("/work/My Units")).unwrap().as_str(), "my-units");
        assert!(name_of(Path::new("/work/größe")).is_err());
        assert!(name_of(Path::new("/")).is_err());
    }

    #[test]
    fn an_existing_file_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let args = || InitArgs { dir: folder.path().join("deep/units"), name: None, json: true };
        init(args()).unwrap();
        let path = folder.path().join("deep/units/ggen.toml");
        fs::write(&path, "existing").unwrap();
        assert!(init(args()).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "existing");
    }
}
