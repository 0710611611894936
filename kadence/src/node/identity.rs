use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use libp2p::identity::Keypair;

use super::error::NodeError;

/// Source of a node's key pair, which determines the node's peer id.
#[derive(Clone)]
#[non_exhaustive]
#[cfg_attr(
    feature = "public-network",
    expect(clippy::large_enum_variant, reason = "keys of other kinds are larger; there is one identity in a program")
)]
pub enum Identity {
    /// A new Ed25519 key pair at every start of a node, and at every call of [`load`](Self::load).
    Ephemeral,
    /// This key pair.
    Keypair(Keypair),
    /// The key pair in this file, in libp2p's protobuf encoding. If there is no file, the file is created with a new
    /// Ed25519 key pair, on Unix readable by the file's owner only. Missing folders are created, too.
    File(PathBuf),
}

impl Identity {
    /// Returns the key pair, for an application that signs with its node's key. Creates the file of
    /// [`File`](Self::File) if there is none. With [`Ephemeral`](Self::Ephemeral), each call returns a new key pair,
    /// which no node has.
    ///
    /// # Errors
    ///
    /// Fails with [`NodeError::Identity`] if the file exists and cannot be read, does not exist and cannot be created,
    /// or does not contain a key pair that this program supports. Only [`File`](Self::File) can fail.
    pub fn load(&self) -> Result<Keypair, NodeError> {
        match self {
            Self::Ephemeral => Ok(Keypair::generate_ed25519()),
            Self::Keypair(keypair) => Ok(keypair.clone()),
            Self::File(path) => load_or_create(path).map_err(|error| NodeError::Identity { path: path.clone(), error }),
        }
    }
}

fn load_or_create(path: &Path) -> io::Result<Keypair> {
    match load(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => create(path),
        loaded => loaded,
    }
}

fn load(path: &Path) -> io::Result<Keypair> {
    let bytes = fs::read(path)?;
    warn_if_readable_by_others(path);
    Keypair::from_protobuf_encoding(&bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Creates the file with a new key pair. It appears under its name only when it is complete, so that a crash leaves no
/// partial key, and never replaces a file: two nodes that start at once both use the key of the first.
fn create(path: &Path) -> io::Result<Keypair> {
    let keypair = Keypair::generate_ed25519();
    let bytes = keypair.to_protobuf_encoding().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    // The new peer id makes the name unique.
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(format!(".{}.new", keypair.public().to_peer_id()));
    let unfinished = PathBuf::from(unfinished);
    let written = write_private(&unfinished, &bytes).and_then(|()| match fs::hard_link(&unfinished, path) {
        // Some file systems have no hard links. There, two nodes that start at once may use different keys.
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => fs::rename(&unfinished, path),
        linked => linked,
    });
    // It is gone after a rename, and no longer needed otherwise.
    let _gone = fs::remove_file(&unfinished);
    match written {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => load(path),
        written => written.map(|()| keypair),
    }
}

fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn warn_if_readable_by_others(path: &Path) {
    #[cfg(unix)]
    if let Ok(metadata) = fs::metadata(path)
        && std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o077 != 0
    {
        tracing::warn!(path = %path.display(), "private key is readable by other users: run `chmod 600` on it");
    }
    #[cfg(not(unix))]
    let _ = path;
}

/// Omits the key.
impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ephemeral => f.write_str("Ephemeral"),
            Self::Keypair(keypair) => f.debug_tuple("Keypair").field(&keypair.public().to_peer_id()).finish(),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("kadence-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _left = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_file_is_created_once_for_its_owner_only_and_keeps_its_key() {
        let folder = Folder::new("identity");
        let path = folder.0.join("deeper").join("node.key");
        let identity = Identity::File(path.clone());
        let first = identity.load().unwrap().public();
        assert_eq!(identity.load().unwrap().public(), first);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no unfinished file is left");
        #[cfg(unix)]
        {
            let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions());
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn nodes_that_start_at_once_use_the_same_key() {
        let folder = Folder::new("at-once");
        let path = folder.0.join("node.key");
        let starts: Vec<_> = (0..8)
            .map(|_| {
                let identity = Identity::File(path.clone());
                std::thread::spawn(move || identity.load().unwrap().public())
            })
            .collect();
        let keys: Vec<_> = starts.into_iter().map(|start| start.join().unwrap()).collect();
        assert!(keys.windows(2).all(|pair| pair[0] == pair[1]), "{keys:?}");
        assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 1, "no unfinished file is left");
    }

    #[test]
    fn a_damaged_file_is_an_error_and_is_left_unchanged() {
        let folder = Folder::new("damaged");
        let path = folder.0.join("node.key");
        fs::write(&path, b"no key").unwrap();
        assert!(matches!(Identity::File(path.clone()).load(), Err(NodeError::Identity { .. })));
        assert_eq!(fs::read(&path).unwrap(), b"no key");
    }

    #[test]
    fn debug_output_omits_the_key() {
        let keypair = Keypair::generate_ed25519();
        let printed = format!("{:?}", Identity::Keypair(keypair.clone()));
        assert_eq!(printed, format!("Keypair({:?})", keypair.public().to_peer_id()));
    }
}
