use std::{
    fs::{self, File, FileType},
    io,
    path::Path,
};

use crate::ContentId;

/// Returns a hash over the content of a folder: paths, bytes and executable bits. Blocks.
///
/// An entry that is neither a file nor a folder counts as such, and is not followed.
pub(super) fn tree_id(folder: &Path) -> io::Result<ContentId> {
    let mut hasher = blake3::Hasher::new();
    let mut folders = vec![(folder.to_owned(), Vec::new())];
    while let Some((folder, prefix)) = folders.pop() {
        let mut entries = fs::read_dir(&folder)?.collect::<io::Result<Vec<_>>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let kind = entry.file_type()?;
            let mut path: Vec<u8> = prefix.clone();
            path.push(b'/');
            path.extend_from_slice(entry.file_name().as_encoded_bytes());
            // Length prefixes make the input unambiguous: two different folders never hash the same bytes.
            hasher.update(&(path.len() as u64).to_le_bytes()).update(&path);
            hasher.update(&[code(kind, &entry)?]);
            if kind.is_dir() {
                folders.push((entry.path(), path));
            } else if kind.is_file() {
                let mut bytes = blake3::Hasher::new();
                bytes.update_reader(File::open(entry.path())?)?;
                hasher.update(bytes.finalize().as_bytes());
            }
        }
    }
    Ok(hasher.finalize().into())
}

fn code(kind: FileType, entry: &fs::DirEntry) -> io::Result<u8> {
    Ok(match (kind.is_dir(), kind.is_file()) {
        (true, _) => 0,
        (_, true) => 1 + u8::from(is_executable(&entry.metadata()?)),
        _ => 3,
    })
}

#[cfg(unix)]
fn is_executable(metadata: &fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt;
    metadata.permissions().mode() & 0o100 != 0
}

#[cfg(not(unix))]
fn is_executable(_: &fs::Metadata) -> bool {
    false
}
