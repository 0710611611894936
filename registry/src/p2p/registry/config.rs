use std::{path::PathBuf, time::Duration};

use kadence::DriverClosedError;
use thiserror::Error;

use crate::{
    DatabaseOpenError, StorageError,
    archive::ArchiveLimits,
    blob::BlobError,
    p2p::{
        announce::{AnnouncementValidatorConfig, DEFAULT_TOPIC},
        head::Lifetime,
        setters::setters,
        transfer::{FetchConfig, ServerConfig},
    },
};

/// Configuration of a [`P2PRegistry`](super::P2PRegistry).
///
/// # Example
///
/// ```
/// use kadence_registry::p2p::{registry::RegistryConfig, transfer::ServerConfig};
///
/// let config = RegistryConfig::in_folder("registry")
///     .topic("/example/packages/1")
///     .server(ServerConfig::default().bytes_per_second(10 << 20));
/// assert!(config.share);
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RegistryConfig {
    /// Folder of the registry's files. One process at a time can use it.
    pub folder: PathBuf,
    /// Gossipsub topic of announcements, the same for all nodes of a network. Default: `/kadence/packages/1`.
    pub topic: String,
    /// Offers fetched content to other peers. Default: `true`. If readers do not share, content is lost when
    /// its publisher goes offline.
    pub share: bool,
    /// Validity periods of the heads that are signed here. Default: 30 days; readers ask again after 5 minutes.
    pub lifetime: Lifetime,
    /// Maximum time for which a head is used without asking again, even if the head itself allows more. Default: 5
    /// minutes.
    pub max_head_age: Duration,
    /// Timeout for the lookup of a head. Default: 10 s.
    pub lookup_timeout: Duration,
    /// Timeout for the connection to a provider. Default: 10 s.
    pub connect_timeout: Duration,
    /// Time from the start of a fetch after which the DHT is asked for more providers. Such a lookup costs requests to
    /// some twenty peers, and small or nearby content arrives before it ends. The lookup starts at once if no known
    /// provider is connected (the publisher, or a peer that reported the package), and as soon as one of them fails.
    /// Default: 100 ms.
    pub provider_lookup_delay: Duration,
    /// Interval at which packages that were published here are published again. Default: 12 hours, well below the time
    /// after which kad drops a record.
    pub republish_interval: Duration,
    /// Interval at which a connected peer is asked for new packages, in addition to every newly connected one. Default:
    /// 10 minutes.
    pub catalogue_interval: Duration,
    /// Limits of the blob server.
    pub server: ServerConfig,
    /// Configuration of downloads.
    pub fetch: FetchConfig,
    /// Limits of archives that are packed or unpacked.
    pub archive: ArchiveLimits,
    /// Files and folders that are never packed, besides [`folder`](Self::folder): the home, and the file of the key
    /// pair. The publisher's key itself is found in any file. Default: none.
    pub private_paths: Vec<PathBuf>,
    /// Configuration of the validator of announcements.
    pub validator: AnnouncementValidatorConfig,
}

impl RegistryConfig {
    /// Returns the defaults with this folder.
    pub fn in_folder(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            topic: DEFAULT_TOPIC.to_owned(),
            share: true,
            lifetime: Lifetime::default(),
            max_head_age: Duration::from_secs(5 * 60),
            lookup_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(10),
            provider_lookup_delay: Duration::from_millis(100),
            republish_interval: Duration::from_secs(12 * 60 * 60),
            catalogue_interval: Duration::from_secs(10 * 60),
            server: ServerConfig::default(),
            fetch: FetchConfig::default(),
            archive: ArchiveLimits::default(),
            private_paths: Vec::new(),
            validator: AnnouncementValidatorConfig::default(),
        }
    }
}

setters!(RegistryConfig {
    share: bool,
    lifetime: Lifetime,
    max_head_age: Duration,
    lookup_timeout: Duration,
    connect_timeout: Duration,
    provider_lookup_delay: Duration,
    republish_interval: Duration,
    catalogue_interval: Duration,
    server: ServerConfig,
    fetch: FetchConfig,
    archive: ArchiveLimits,
    validator: AnnouncementValidatorConfig,
    ; into folder: PathBuf, topic: String,
});

/// Error of starting a registry. Nothing runs after it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RegistryStartError {
    /// A file of the folder is of another kind: of another program, or of version 0.1, whose heads do not verify any more.
    /// Use another folder.
    #[error("{} is a file of another kind or of version 0.1: use another folder", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// A file of the registry cannot be opened. The inner error names it and the cause.
    #[error(transparent)]
    Open(DatabaseOpenError),
    /// The folder cannot be used: it is in use by another process, damaged, or the disk failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The folder of the content cannot be used.
    #[error(transparent)]
    Blobs(#[from] BlobError),
    /// Gossipsub rejected its configuration.
    #[error("gossipsub rejected its configuration: {0}")]
    Gossip(String),
    /// The node's events were taken before. The registry needs them: start it before they are taken.
    #[error("events of the node were taken before: start the registry first")]
    EventsTaken,
    /// A registry already runs on this node.
    #[error("a registry already runs on this node")]
    AlreadyRunning,
    /// The node has stopped.
    #[error(transparent)]
    DriverClosed(#[from] DriverClosedError),
}

impl From<DatabaseOpenError> for RegistryStartError {
    fn from(error: DatabaseOpenError) -> Self {
        match error {
            DatabaseOpenError::Foreign { path } => Self::Foreign { path },
            error => Self::Open(error),
        }
    }
}
