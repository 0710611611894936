//! Files that the demonstration stores: the samples in the program, or those of a folder.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, bail};
use kadence_tokio::kadence::libp2p::kad::RecordKey;
use sha2::{Digest, Sha256};

/// Maximum number of bytes read of a file. Far more than a record can hold, so that the call rejects the value.
const MAX_READ: u64 = 1024 * 1024;

/// Maximum length of a key. A longer one is replaced by a hash, because every message about a record repeats its key.
const MAX_KEY_LEN: usize = 256;

/// Maximum number of files. Every record is on up to 20 nodes of this one process; this bound and the next one keep
/// that below a few gigabytes.
const MAX_FILES: usize = 4096;

/// Maximum total length of all stored values, in bytes.
const MAX_STORED_BYTES: usize = 64 * 1024 * 1024;

macro_rules! samples {
    ($($name:literal)*) => {
        &[$(($name, include_bytes!(concat!("../samples/", $name)))),*]
    };
}

/// Small files of many kinds, including an empty one and one just below the limit of 64 KiB.
const SAMPLES: &[(&str, &[u8])] = samples! {
    "bread.txt" "bytes.bin" "daylight.csv" "drawing.svg" "elements.csv" "empty.txt" "graph.json" "greeting.txt"
    "haiku.txt" "kademlia.md" "letter.txt" "mandelbrot.png" "network.json" "page.html" "primes.txt" "service.toml"
    "tone.wav" "tongues.txt" "xor.png" "xor.rs"
};

/// Origin of the files.
#[derive(Debug)]
pub(super) enum Source {
    Samples,
    Folder { root: PathBuf, files: Vec<PathBuf> },
}

/// A file that was stored as a record.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) key: RecordKey,
    pub(super) value: Arc<[u8]>,
    /// Index of the server that put it.
    pub(super) publisher: usize,
}

impl Source {
    pub(super) fn samples() -> Self {
        Self::Samples
    }

    /// Lists every regular file under a folder.
    ///
    /// # Errors
    ///
    /// If the folder cannot be read, or has no files or too many.
    pub(super) fn folder(root: &Path) -> anyhow::Result<Self> {
        let files = walk(root).with_context(|| format!("cannot read the folder {}", root.display()))?;
        if files.is_empty() {
            bail!("no files under {}", root.display());
        }
        if files.len() > MAX_FILES {
            bail!("{} files under {}: the demo takes at most {MAX_FILES}", files.len(), root.display());
        }
        Ok(Self::Folder { root: root.to_owned(), files })
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Samples => SAMPLES.len(),
            Self::Folder { root: _, files } => files.len(),
        }
    }

    /// Returns each file's key and content, in a fixed order. Reads a file when it is asked for, so that large files
    /// are not all in memory.
    pub(super) fn read(&self) -> Box<dyn Iterator<Item = anyhow::Result<(RecordKey, Vec<u8>)>> + Send + '_> {
        match self {
            Self::Samples => Box::new(SAMPLES.iter().map(|(name, value)| Ok((key(name.as_bytes()), value.to_vec())))),
            Self::Folder { root, files } => Box::new(files.iter().map(|relative| {
                let path = root.join(relative);
                let value = read(&path).with_context(|| format!("cannot read {}", path.display()))?;
                Ok((key(&name(relative)), value))
            })),
        }
    }
}

/// Checks the total length of all values.
///
/// # Errors
///
/// If it is more than the nodes of one process should hold.
pub(super) fn check_total(bytes: usize) -> anyhow::Result<()> {
    if bytes > MAX_STORED_BYTES {
        bail!("files have more than {MAX_STORED_BYTES} bytes in total: too much for a network in one process");
    }
    Ok(())
}

/// Returns the paths of the regular files under a folder, relative to it and sorted. Symbolic links are skipped,
/// because they may lead anywhere, also back.
pub(super) fn walk(root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root.join(&folder))? {
            let entry = entry?;
            let kind = entry.file_type()?;
            let path = folder.join(entry.file_name());
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file() {
                files.push(path);
            }
        }
    }
    files.sort_unstable();
    Ok(files)
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut value = Vec::new();
    File::open(path)?.take(MAX_READ).read_to_end(&mut value)?;
    Ok(value)
}

/// Returns a path with slashes, which is the same on every system.
fn name(relative: &Path) -> Vec<u8> {
    let parts: Vec<&[u8]> = relative
        .components()
        .filter_map(|part| match part {
            Component::Normal(part) => Some(part.as_encoded_bytes()),
            _ => None,
        })
        .collect();
    parts.join(b"/".as_slice())
}

fn key(name: &[u8]) -> RecordKey {
    let mut key = b"/file/".to_vec();
    if key.len() + name.len() > MAX_KEY_LEN {
        key.extend_from_slice(b"sha256:");
        key.extend_from_slice(hex::encode(Sha256::digest(name)).as_bytes());
    } else {
        key.extend_from_slice(name);
    }
    RecordKey::from(key)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_samples_are_varied() {
        let lens: Vec<usize> = SAMPLES.iter().map(|(_, value)| value.len()).collect();
        assert!(lens.contains(&0));
        assert!(lens.contains(&65_535));
        assert!(lens.iter().all(|len| *len <= 64 * 1024));
        assert!(SAMPLES.iter().any(|(_, value)| std::str::from_utf8(value).is_err()));
        let on_disk = walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("samples")).unwrap();
        // The packages are samples of the other demonstration.
        let on_disk = on_disk.into_iter().filter(|path| !path.starts_with("registry"));
        let embedded: BTreeSet<PathBuf> = SAMPLES.iter().map(|(name, _)| PathBuf::from(name)).collect();
        assert_eq!(on_disk.collect::<BTreeSet<_>>(), embedded);
    }

    #[test]
    fn a_folder_is_walked_in_order_and_symbolic_links_are_skipped() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir_all(root.join("b/deep")).unwrap();
        fs::create_dir(root.join("hollow")).unwrap();
        for file in ["z.txt", "a.txt", "b/deep/leaf", "b/0"] {
            fs::write(root.join(file), file).unwrap();
        }
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(root, root.join("b/loop")).unwrap();
            std::os::unix::fs::symlink(root.join("a.txt"), root.join("link")).unwrap();
        }
        let expected: Vec<PathBuf> = ["a.txt", "b/0", "b/deep/leaf", "z.txt"].iter().map(PathBuf::from).collect();
        assert_eq!(walk(root).unwrap(), expected);
        let read: Vec<_> = Source::folder(root).unwrap().read().map(Result::unwrap).collect();
        assert!(read.contains(&(RecordKey::new(b"/file/b/deep/leaf"), b"b/deep/leaf".to_vec())));
    }

    #[test]
    fn a_missing_or_empty_folder_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Source::folder(folder.path()).unwrap_err().to_string().contains("no files"));
        assert!(Source::folder(&folder.path().join("missing")).is_err());
    }

    #[test]
    fn a_huge_file_is_read_up_to_the_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("huge");
        File::create(&path).unwrap().set_len(1 << 34).unwrap();
        assert_eq!(read(&path).unwrap().len() as u64, MAX_READ);
    }

    #[test]
    fn long_names_become_distinct_hashes() {
        let long = vec![b'x'; 300];
        let longer = vec![b'x'; 301];
        assert_eq!(key(b"short"), RecordKey::new(b"/file/short"));
        assert!(key(&long).as_ref().starts_with(b"/file/sha256:"));
        assert!(key(&long).as_ref().len() <= MAX_KEY_LEN);
        assert_ne!(key(&long), key(&longer));
    }
}
