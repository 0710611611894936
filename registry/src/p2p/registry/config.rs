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
        transfer::{FetchConfig, ServerConfig},
    },
};

/// How a registry on the network works.
#[derive(Debug, Clone)]
pub struct RegistryConfig {
    /// Where everything is kept. One process at a time can use it.
    pub folder: PathBuf,
    /// The topic of announcements. All nodes of a network have the same. Default: `/ggen/packages/v1`.
    pub topic: String,
    /// Whether what was fetched is offered to others. Default: yes; a registry whose readers give nothing back ends with its
    /// publishers.
    pub share: bool,
    /// For how long a head is good. Default: 30 days, and 5 minutes until readers ask again.
    pub lifetime: Lifetime,
    /// The longest time for which a head that was read is used without asking again, whatever it says. Default: 5 minutes.
    pub max_head_age: Duration,
    /// How long looking up a head may take. Default: 10 s.
    pub lookup_timeout: Duration,
    /// How long connecting with somebody who may have content may take. Default: 10 s.
    pub connect_timeout: Duration,
    /// From the start of a fetch, how long the network is not asked who else has the content: that costs requests to some
    /// twenty peers, and what is small or near is here before they answer. It is asked at once if neither the publisher nor
    /// anybody who has told of the package is connected, and as soon as one of them does not give it. Default: 100 ms.
    pub providers_after: Duration,
    /// How often own packages are published again. Default: 12 hours, a third of the time after which kad forgets a record.
    pub republish_interval: Duration,
    /// How often a peer is asked what is new, beside every peer that is met. Default: 10 minutes.
    pub catalogue_interval: Duration,
    /// What is served.
    pub server: ServerConfig,
    /// How content is fetched.
    pub fetch: FetchConfig,
    /// What may be packed and unpacked.
    pub archive: ArchiveLimits,
    /// Files and folders that are never packed, besides [`folder`](Self::folder): the home, and the file of the key pair. The
    /// publisher's key itself is found in any file. Default: none.
    pub private_paths: Vec<PathBuf>,
    /// Which announcements are let through.
    pub gate: AnnouncementValidatorConfig,
}

impl RegistryConfig {
    /// The defaults, with everything in this folder.
    pub fn in_folder(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            topic: DEFAULT_TOPIC.to_owned(),
            share: true,
            lifetime: Lifetime::default(),
            max_head_age: Duration::from_secs(5 * 60),
            lookup_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(10),
            providers_after: Duration::from_millis(100),
            republish_interval: Duration::from_secs(12 * 60 * 60),
            catalogue_interval: Duration::from_secs(10 * 60),
            server: ServerConfig::default(),
            fetch: FetchConfig::default(),
            archive: ArchiveLimits::default(),
            private_paths: Vec::new(),
            gate: AnnouncementValidatorConfig::default(),
        }
    }
}

/// Why a registry does not start. Nothing runs then.
#[derive(Debug, Error)]
pub enum RegistryStartError {
    /// A file of the registry cannot be opened: the error says which, and what can be done.
    #[error(transparent)]
    Open(#[from] DatabaseOpenError),
    /// The folder cannot be used: another process has it, or it is damaged, or the disk does not do its part.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The content's folder cannot be used.
    #[error(transparent)]
    Blobs(#[from] BlobError),
    /// Gossipsub does not take the configuration.
    #[error("gossipsub refuses its configuration: {0}")]
    Gossip(String),
    /// The node's events were taken before: the registry needs them.
    #[error("the node's events were taken before")]
    EventsTaken,
    /// A registry runs on this node already.
    #[error("a registry runs on this node already")]
    Running,
    /// The node has ended.
    #[error(transparent)]
    NodeGone(#[from] DriverClosedError),
}
