use std::{error::Error as StdError, sync::Arc, time::Duration};

use libp2p_identity::PeerId;
use thiserror::Error;

use super::{Step, StepOutcome, Steps};
use crate::{
    ContentId, IndexError, InvalidPackageError, PackageId,
    archive::{PackError, PrivateKeyKind},
    blob::BlobError,
    storage::StorageError,
};

/// Error of reading from a registry. It never means that the package does not exist.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum GetError {
    /// No peer returned the package's newest head (the signed record that names its index), and too few peers answered
    /// for a conclusion, or the lookup could not start or was ended early. Retry, perhaps with
    /// more peers. In a network of fewer than four nodes, set `NodeConfig::expected_network_size`.
    #[error(
        "not found, but the answers of {answered} of {asked} peers are too few to be sure: retry, or set the size of a small network"
    )]
    Inconclusive {
        /// Number of peers that were asked. 0 if the lookup could not ask any, for example because no peer is known.
        asked: usize,
        /// Number of peers that answered without an error.
        answered: usize,
    },
    /// The lookup of a head took longer than its limit, or a download timed out. Retry, or allow more time.
    #[error("no answer within {after:?}")]
    Timeout {
        /// Time limit: of the lookup or, for a download, its limit for a time without progress. A download that
        /// exceeded its total time limit also reports the limit for a time without progress.
        after: Duration,
    },
    /// The DHT client had no free place in its queue, or the request reached its time limit while it waited there.
    /// Retry later.
    #[error("too many requests at once: retry later")]
    Overloaded,
    /// The best of the heads that peers returned was rejected, or all were: forged, damaged, of an unsupported format,
    /// signed with another key than the publisher's, valid for more than 366 days from now by the local clock, or too
    /// far ahead in the sequence number. A retry may reach other peers.
    #[error("every answer was rejected: {reason}")]
    Rejected {
        /// The reason for rejecting the answers.
        reason: String,
    },
    /// The manifest or index is invalid, or its stated size exceeds the maximum: the publisher made a mistake, is
    /// malicious, or uses a later format.
    #[error("content {content} is invalid: {source}")]
    Invalid {
        /// Content id.
        content: ContentId,
        /// Reason why it is invalid.
        source: Arc<dyn StdError + Send + Sync>,
    },
    /// The manifest or index is of another package or version than expected: usually the publisher made a mistake or is
    /// malicious.
    #[error("document {content} is of {found}, not of {expected}")]
    OtherPackage {
        /// Content id of the document.
        content: ContentId,
        /// Expected package, with the version if the document is a manifest.
        expected: String,
        /// Package, and version, in the document.
        found: String,
    },
    /// The content has another size than the document that refers to it (a manifest, index, head or lock file) states.
    /// Either that document is wrong, by mistake or with malice, or the copy in the local store was damaged.
    #[error("content {content} has {found} bytes instead of {expected}")]
    Size {
        /// Content id.
        content: ContentId,
        /// Expected size, in bytes.
        expected: u64,
        /// Actual size, in bytes.
        found: u64,
    },
    /// All heads that peers returned have a lower sequence number than one that this node has seen before, or no peer
    /// returned any, although this node has seen one and then accepted an equivocation of the package: the holders of
    /// the newer head are offline or withhold it.
    #[error("newest head offered has sequence number {offered}, but {seen} was seen before")]
    Rollback {
        /// Highest sequence number seen before.
        seen: u64,
        /// Highest sequence number that peers returned now. 0 if they returned no head.
        offered: u64,
    },
    /// The newest head that is known has expired: the publisher has not renewed it, peers withhold a newer one, or the
    /// local clock is ahead.
    #[error("newest head was valid until {not_after} (Unix seconds)")]
    Expired {
        /// End of the head's validity, in Unix seconds. The head is accepted for 5 more minutes, because clocks differ.
        not_after: u64,
    },
    /// The publisher has signed two heads that contradict each other, such as different heads with the same sequence
    /// number: two programs use the publisher's key, or the publisher is malicious.
    #[error("publisher has signed two heads with sequence number {seq}")]
    Equivocation {
        /// Sequence number of the one of the two heads that was seen later.
        seq: u64,
    },
    /// The content is not in the local store, or was damaged there, and no provider delivered it; a registry in a
    /// folder asks no provider. Retry when other providers are online.
    #[error("content {content} is unavailable: {providers} providers were asked")]
    Unavailable {
        /// Content id.
        content: ContentId,
        /// Number of providers that were connected and asked. 0 if none was found, if none of those found could be
        /// connected or all of them are banned, if only the local store was read, or if the content was damaged on the
        /// local disk after it had been delivered.
        providers: usize,
    },
    /// Local storage failed.
    #[error(transparent)]
    Storage(Arc<StorageError>),
    /// The node that the registry runs on has stopped.
    #[error("registry is closed")]
    Closed,
}

impl GetError {
    /// Returns [`GetError::Invalid`] for this content, with `source` as the reason.
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
            // Other peers may have what is missing here or was set aside.
            BlobError::NotFound(content) | BlobError::Damaged(content) => Self::Unavailable { content, providers: 0 },
            error => StorageError::from(error).into(),
        }
    }
}

/// Error of publishing, yanking or unyanking a version. Versions that were published before keep their contents.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The package is another publisher's: this registry can publish only packages of its own publisher.
    #[error("{package} is not a package of publisher {publisher}")]
    OtherPublisher {
        /// The package.
        package: Box<PackageId>,
        /// Publisher whose packages this registry can publish.
        publisher: Box<PeerId>,
    },
    /// The version to publish exists with other contents or cannot be added, the version to yank or unyank does not
    /// exist, or the index would become too long.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The package to yank or unyank does not exist or, on a network, only rejected heads of it were found.
    #[error("package {0} does not exist")]
    NoSuchPackage(Box<PackageId>),
    /// A value of the manifest is invalid or exceeds a limit, such as the number of files in the archive.
    #[error(transparent)]
    Invalid(#[from] InvalidPackageError),
    /// The folder cannot be packed.
    #[error("folder of the package cannot be packed: {0}")]
    Pack(#[from] PackError),
    /// A private key was found in a text of the manifest, such as the readme. Nothing was published.
    #[error("manifest contains {kind}: remove it from the readme or the description")]
    PrivateKey {
        /// Kind of key.
        kind: PrivateKeyKind,
    },
    /// The archive is too large after compression: remove files from the folder.
    #[error("archive is larger than the maximum of {max} bytes")]
    ArchiveTooLarge {
        /// Maximum size, in bytes.
        max: u64,
    },
    /// The package's existing versions cannot be determined. Nothing was published; the call can be repeated.
    #[error("existing versions of the package cannot be determined: {0}")]
    Versions(#[source] GetError),
    /// A step failed, and the following steps were not started. The call can be repeated. If the step is [`Step::Head`]
    /// on a network, some peers may have the new head already.
    #[error("publishing failed at step \"{step}\": {source}")]
    Failed {
        /// The step that failed.
        step: Step,
        /// Outcome of each step so far, including the one that failed.
        steps: Steps,
        /// Cause.
        source: Box<dyn StdError + Send + Sync>,
    },
}

impl Steps {
    /// Records the outcome of a step that all following steps depend on.
    pub(crate) fn record<T, E: StdError + Send + Sync + 'static>(
        &mut self,
        step: Step,
        result: Result<T, E>,
    ) -> Result<T, PublishError> {
        let outcome = match &result {
            Ok(_) => StepOutcome::Done,
            Err(error) => StepOutcome::Failed { reason: error.to_string() },
        };
        self.set(step, outcome);
        result.map_err(|error| PublishError::Failed { step, steps: self.clone(), source: error.into() })
    }
}
