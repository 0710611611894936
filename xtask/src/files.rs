//! Files of the repository.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;

/// Returns the root of the repository.
pub(crate) fn root() -> PathBuf {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask).to_path_buf()
}

/// Folders whose files are built or data, not written by hand.
const SKIPPED: [&str; 5] = ["target", ".git", "corpus", "samples", "artifacts"];

/// Returns all files with this extension, sorted, each with its path relative to the root.
///
/// # Errors
///
/// If a folder cannot be read.
pub(crate) fn with_extension(extension: &str) -> anyhow::Result<Vec<PathBuf>> {
    let root = root();
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if path.is_dir() {
                if !SKIPPED.contains(&&*name) {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|of| of == extension) {
                found.push(path.strip_prefix(&root)?.to_path_buf());
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Reads a file by its path relative to the root.
///
/// # Errors
///
/// If it cannot be read.
pub(crate) fn read(path: &Path) -> anyhow::Result<String> {
    let path = root().join(path);
    fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}
