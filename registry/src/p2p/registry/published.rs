//! Newest head of each package that is published here, whether or not it is in the network yet.
//!
//! A head is written before it is sent, so that two heads with one number are never signed.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use super::lock;
use crate::{
    PackageId, PackageName, StorageError, disk,
    p2p::head::{MAX_HEAD_LEN, SignedHead},
};

/// Suffix of a package's file. The rest is its name, which is always one component of a path.
const SUFFIX: &str = ".head";

/// Folder with a file for each package. All methods block.
#[derive(Debug, Clone)]
pub(super) struct PublishedPackages {
    folder: PathBuf,
    turn: Arc<Mutex<()>>,
}

impl PublishedPackages {
    pub(super) fn open(folder: PathBuf) -> Result<Self, StorageError> {
        fs::create_dir_all(&folder).map_err(failed(&folder))?;
        Ok(Self { folder, turn: Arc::default() })
    }

    pub(super) fn head(&self, package: &PackageId) -> Result<Option<SignedHead>, StorageError> {
        let path = self.path(package.name());
        let read = match fs::metadata(&path) {
            Ok(about) if about.len() > MAX_HEAD_LEN as u64 => Ok(Vec::new()),
            Ok(_) => fs::read(&path),
            Err(error) => Err(error),
        };
        match read {
            Ok(bytes) => match SignedHead::verify(&bytes, package) {
                Ok(head) => Ok(Some(head)),
                // A head of another publisher is left from an earlier key of this folder.
                Err(_) if SignedHead::verify_any(&bytes).is_ok() => Ok(None),
                Err(error) => Err(StorageError::Damaged { path, source: error.into() }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(&path)(error)),
        }
    }

    /// Writes a head; it is on the disk on return. Returns `false`, and writes nothing, if there is another head with
    /// this or a higher number: a call whose caller stopped waiting has signed it in the meantime.
    pub(super) fn put(&self, head: &SignedHead) -> Result<bool, StorageError> {
        let _turn = lock(&self.turn);
        match self.head(&head.head().package)? {
            Some(there) if there == *head => return Ok(true),
            Some(there) if there.head().seq >= head.head().seq => return Ok(false),
            _ => {}
        }
        self.write(head).map(|()| true)
    }

    pub(super) fn write(&self, head: &SignedHead) -> Result<(), StorageError> {
        let path = self.path(head.head().package.name());
        disk::write(&path, head.bytes()).map_err(failed(&path))
    }

    /// Returns the names of the packages that were published here.
    pub(super) fn packages(&self) -> Result<Vec<PackageName>, StorageError> {
        let read = || {
            let mut names = Vec::new();
            for entry in fs::read_dir(&self.folder)? {
                let name = entry?.file_name();
                let name = name.to_str().and_then(|name| name.strip_suffix(SUFFIX)).and_then(|name| name.parse().ok());
                names.extend(name);
            }
            names.sort();
            Ok(names)
        };
        read().map_err(failed(&self.folder))
    }

    fn path(&self, name: &PackageName) -> PathBuf {
        self.folder.join(format!("{name}{SUFFIX}"))
    }
}

fn failed(path: &Path) -> impl Fn(io::Error) -> StorageError {
    let path = path.to_owned();
    move |source| StorageError::Folder { path: path.clone(), source }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use libp2p_identity::Keypair;

    use super::*;
    use crate::{
        ContentId,
        p2p::head::{Lifetime, next_head},
    };

    fn head(keypair: &Keypair, name: &str) -> SignedHead {
        let package = PackageId::new(keypair.public().to_peer_id(), name.parse().unwrap()).unwrap();
        let now = SystemTime::now();
        let next = next_head(&package, None, ContentId::of(b"index"), 5, Lifetime::default(), now).unwrap();
        SignedHead::sign(keypair, next).unwrap()
    }

    #[test]
    fn a_head_that_was_put_is_there_after_a_restart_and_is_listed() {
        let dir = tempfile::tempdir().unwrap();
        let keypair = Keypair::generate_ed25519();
        let (one, two) = (head(&keypair, "one"), head(&keypair, "two.x"));
        let published = PublishedPackages::open(dir.path().join("published")).unwrap();
        assert_eq!(published.head(&one.head().package).unwrap(), None);
        assert!(published.put(&two).unwrap() && published.put(&one).unwrap() && published.put(&one).unwrap());
        let published = PublishedPackages::open(dir.path().join("published")).unwrap();
        assert_eq!(published.head(&one.head().package).unwrap(), Some(one));
        let names: Vec<_> = published.packages().unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(names, ["one", "two.x"]);
    }

    #[test]
    fn of_two_heads_with_one_number_the_first_stays() {
        let dir = tempfile::tempdir().unwrap();
        let keypair = Keypair::generate_ed25519();
        let (first, now) = (head(&keypair, "one"), SystemTime::now());
        let package = &first.head().package;
        let sign = |previous: Option<&SignedHead>, index: &[u8]| {
            let next = next_head(package, previous, ContentId::of(index), 5, Lifetime::default(), now).unwrap();
            SignedHead::sign(&keypair, next).unwrap()
        };
        let published = PublishedPackages::open(dir.path().to_owned()).unwrap();
        let (second, conflicting) = (sign(Some(&first), b"one"), sign(Some(&first), b"two"));
        assert!(published.put(&first).unwrap() && published.put(&second).unwrap());
        assert!(!published.put(&conflicting).unwrap() && !published.put(&first).unwrap());
        assert_eq!(published.head(package).unwrap(), Some(second));
    }

    #[test]
    fn a_head_of_another_key_is_ignored_and_a_damaged_file_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let published = PublishedPackages::open(dir.path().to_owned()).unwrap();
        published.put(&head(&Keypair::generate_ed25519(), "one")).unwrap();
        let own = head(&Keypair::generate_ed25519(), "one");
        assert_eq!(published.head(&own.head().package).unwrap(), None);
        for bytes in [vec![], vec![7; 100], vec![7; MAX_HEAD_LEN + 1]] {
            fs::write(published.path(own.head().package.name()), bytes).unwrap();
            let read = published.head(&own.head().package);
            assert!(matches!(read, Err(StorageError::Damaged { .. })), "{read:?}");
        }
    }
}
