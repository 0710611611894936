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
    /// Folder of the registry's files, which is created if it does not exist. Only one registry at a time can use it.
    pub folder: PathBuf,
    /// Gossipsub topic of announcements, the same for all nodes of a network. Default: `/kadence/packages/1`.
    pub topic: String,
    /// Announces this node in the DHT as a provider of the content that it fetches and, once after each start when a
    /// peer is connected, of all content in its store. A failure of that is only logged. Default: `true`. If no reader
    /// does so, content is hard to find while its publisher is offline. With `false`, this node still serves the
    /// content in its store to peers that ask for it, and is still announced as a provider of the packages that it
    /// publishes.
    pub share: bool,
    /// Validity periods of the heads that this registry signs. Default: valid for 30 days, and readers look for a newer
    /// head after 5 minutes.
    pub lifetime: Lifetime,
    /// Maximum time for which a head is used after its lookup without another lookup, even if the head's own `ttl` is
    /// longer. An announcement of a newer head ends this time early. Zero means a lookup for every call. Default: 5
    /// minutes.
    pub max_head_age: Duration,
    /// Timeout for the lookup of a head in the DHT. A publication waits three times as long. Default: 10 s.
    pub lookup_timeout: Duration,
    /// Timeout for the connection to a provider, including the lookup of its addresses. Default: 10 s.
    pub connect_timeout: Duration,
    /// Time from the start of a fetch after which more providers are looked up in the DHT. The known providers, which
    /// are the publisher and the peers that reported the package, are asked without waiting for this lookup; one whose
    /// address is not known, or is outdated, is itself looked up first. The lookup for more providers starts at once if
    /// none of the known providers is connected, and earlier than after this time if a connected provider fails. A
    /// lookup costs requests to some twenty peers, and small content or content of a nearby peer often arrives before
    /// this time. Default: 100 ms.
    pub provider_lookup_delay: Duration,
    /// Interval at which packages that were published here are published again. If it is longer than a quarter of the
    /// validity in `lifetime`, that quarter is used. An interval below one minute usually acts as one minute. Default:
    /// 12 hours, well below the 48 hours after which kad drops a record by default.
    pub republish_interval: Duration,
    /// Interval at which the connected peer with the best reputation is asked for the new packages in its catalogue. In
    /// addition, a peer is asked when it connects, unless it is banned or 64 peers wait to be asked already. Default:
    /// 10 minutes.
    pub catalogue_interval: Duration,
    /// Limits of the server that sends content to peers.
    pub server: ServerConfig,
    /// Configuration of the fetches of content.
    pub fetch: FetchConfig,
    /// Limits of the archives that are packed for publishing. They do not apply to
    /// [installing](crate::resolve::install()), which unpacks archives with the default limits.
    pub archive: ArchiveLimits,
    /// Files and folders that are left out of archives, in addition to [`folder`](field@Self::folder): for example the
    /// file of the key pair. [`PackOptions::private_paths`](field@crate::archive::PackOptions::private_paths) has the
    /// details. The publisher's secret key in any other file makes publishing fail, within the limits of
    /// [`PrivateKeyKind`](crate::archive::PrivateKeyKind). Default: none.
    pub private_paths: Vec<PathBuf>,
    /// Age and rate limits of announcements from the network.
    pub validator: AnnouncementValidatorConfig,
}

impl RegistryConfig {
    /// Returns a configuration with this folder, and the documented defaults otherwise.
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

/// Error of starting a registry, or of creating its behaviour. No task of the registry keeps running after the error.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RegistryStartError {
    /// The file of heads or of peers in the folder is of another kind: of another program, or of version 0.1, whose
    /// heads do not verify any more. Use another folder.
    #[error("{} is a file of another kind or of version 0.1: use another folder", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The file of heads or of peers cannot be opened. The inner error has its path and the cause.
    #[error(transparent)]
    Open(DatabaseOpenError),
    /// A folder of the registry cannot be created or emptied, or the search index cannot be opened: for example,
    /// another registry uses the folder, the search index is damaged or of another format, or the disk failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The store of content or the cache of indexes in the folder cannot be opened.
    #[error(transparent)]
    Blobs(#[from] BlobError),
    /// Gossipsub rejected its configuration or the topic. The text is the reason.
    #[error("gossipsub rejected its configuration: {0}")]
    Gossip(String),
    /// The events of the node were taken before, by [`Node::events`](kadence::node::Node::events). The registry needs
    /// them: start it first.
    #[error("events of the node were taken before: start the registry first")]
    EventsTaken,
    /// A registry already runs on this node, or another server of its blob or catalogue protocol.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn setters_change_the_field_of_their_name_alone() {
        let config = RegistryConfig::in_folder("here").topic("/other/packages/1").share(false);
        assert_eq!((config.topic.as_str(), config.share), ("/other/packages/1", false));
        assert_eq!(config.folder, PathBuf::from("here"));
        assert_eq!(config.max_head_age, RegistryConfig::in_folder("there").max_head_age);
    }
}
