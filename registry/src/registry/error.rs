use std::{error::Error as StdError, sync::Arc, time::Duration};

use libp2p_identity::PeerId;
use thiserror::Error;

use super::{Step, Steps};
use crate::{
    ContentId, IndexError, InvalidPackage, PackageId,
    archive::{PackError, PrivateKeyKind},
    blob::BlobError,
    storage::StorageError,
};

/// Why a registry cannot say what it was asked for. It never means that there is nothing.
#[derive(Debug, Clone, Error)]
pub enum GetError {
    /// Too few of those who could know have answered, and none of them had it: try again, perhaps with more peers.
    #[error("nobody had it, but only {answered} of {asked} peers answered")]
    Inconclusive {
        /// Peers that were asked.
        asked: usize,
        /// Peers that answered.
        answered: usize,
    },
    /// It took longer than it may: try again, or allow more time.
    #[error("no answer within {after:?}")]
    Timeout {
        /// The time that was allowed.
        after: Duration,
    },
    /// Too much is asked for at once: try again a little later.
    #[error("too many requests are waiting")]
    Overloaded,
    /// All that was offered was forged, or signed by somebody else than the publisher. Trying again asks others.
    #[error("what was offered cannot be trusted: {reason}")]
    NotTrusted {
        /// What is wrong with it.
        reason: String,
    },
    /// The content is what its id says, but not what it should be: its publisher made a mistake or means harm.
    #[error("the content {content} is not usable: {source}")]
    Invalid {
        /// The content.
        content: ContentId,
        /// What is wrong with it.
        source: Arc<dyn StdError + Send + Sync>,
    },
    /// The manifest is one of another package or version: its publisher made a mistake or means harm.
    #[error("the manifest {content} is that of {found}, not of {wanted}")]
    OtherPackage {
        /// The manifest.
        content: ContentId,
        /// Package and version that it should be of.
        wanted: String,
        /// Package and version that it names.
        found: String,
    },
    /// The content has another size than its manifest, index or lock file says: that was made by mistake or means harm.
    #[error("the content {content} has {found} bytes, not {wanted}")]
    Size {
        /// The content.
        content: ContentId,
        /// Bytes that it should have.
        wanted: u64,
        /// Bytes that it has.
        found: u64,
    },
    /// Everybody offers an older head than one that was seen here before: somebody holds the newer one back.
    #[error("the newest head that is offered is number {offered}, but {seen} was seen before")]
    Rollback {
        /// The highest number that was seen.
        seen: u64,
        /// The highest number that is offered now.
        offered: u64,
    },
    /// The newest head is no longer valid: its publisher has not renewed it, or somebody holds the newer one back.
    #[error("the newest head was valid until {not_after} (unix seconds)")]
    Expired {
        /// When it ended, in unix seconds.
        not_after: u64,
    },
    /// The publisher has signed two different heads of one number: its key is used by two, or it means harm.
    #[error("the publisher has signed two heads of number {seq}")]
    Equivocation {
        /// The number.
        seq: u64,
    },
    /// It is known what it is, but nobody who was asked gives it: try again when others are there.
    #[error("nobody gave the content {content}; {providers} providers were asked")]
    Unavailable {
        /// The content.
        content: ContentId,
        /// Providers that were asked.
        providers: usize,
    },
    /// The disk here does not do its part.
    #[error(transparent)]
    Storage(Arc<StorageError>),
    /// The registry was closed, and answers nothing more.
    #[error("the registry is closed")]
    Closed,
}

impl GetError {
    /// [`GetError::Invalid`].
    pub fn invalid(content: ContentId, source: impl StdError + Send + Sync + 'static) -> Self {
        Self::Invalid { content, source: Arc::new(source) }
    }
}

impl From<StorageError> for GetError {
    fn from(error: StorageError) -> Self {
        Self::Storage(Arc::new(error))
    }
}

impl From<BlobError> for GetError {
    fn from(error: BlobError) -> Self {
        match error {
            // What was set aside or is not there may be had from others.
            BlobError::NotFound(content) | BlobError::Damaged(content) => Self::Unavailable { content, providers: 0 },
            error => StorageError::from(error).into(),
        }
    }
}

/// Why a version was not published or withdrawn. What was published before stays valid.
#[derive(Debug, Error)]
pub enum PublishError {
    /// The package is another publisher's: only who has that key can publish it.
    #[error("{package} is not a package of the publisher {publisher}")]
    NotOurs {
        /// The package.
        package: Box<PackageId>,
        /// Whose packages can be published here.
        publisher: Box<PeerId>,
    },
    /// The version is there already with other contents, or cannot be added: see the error.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// There is no such package to withdraw a version of.
    #[error("there is no package {0}")]
    NoSuchPackage(Box<PackageId>),
    /// The manifest would break a limit.
    #[error(transparent)]
    Invalid(#[from] InvalidPackage),
    /// The folder cannot be packed.
    #[error("the package's folder cannot be packed: {0}")]
    Pack(#[from] PackError),
    /// The manifest has a private key in it: in the readme or another of its texts. Nothing was published.
    #[error("the package's manifest contains {kind}: remove it from the readme or the description")]
    PrivateKey {
        /// Kind of key.
        kind: PrivateKeyKind,
    },
    /// The archive is larger than it may be: take out of the folder what nobody needs.
    #[error("the archive is larger than {max} bytes")]
    ArchiveTooLarge {
        /// Bytes allowed.
        max: u64,
    },
    /// It cannot be told which versions there are: nothing was changed. The same call can be made again.
    #[error("the package's versions are not known: {0}")]
    Versions(#[source] GetError),
    /// A step has failed, and the ones behind it were not begun. The same call can be made again, and goes on from there.
    #[error("publishing failed at the step \"{step}\": {source}")]
    Failed {
        /// Which.
        step: Step,
        /// What became of each.
        steps: Steps,
        /// Why.
        source: Box<dyn StdError + Send + Sync>,
    },
}
