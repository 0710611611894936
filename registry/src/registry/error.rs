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
    /// Too few peers answered, and none of them had it. Retry, perhaps with more peers.
    #[error("not found, but only {answered} of {asked} peers answered: retry")]
    Inconclusive {
        /// Number of peers that were asked.
        asked: usize,
        /// Number of peers that answered.
        answered: usize,
    },
    /// The time limit has passed. Retry, or allow more time.
    #[error("no answer within {after:?}")]
    Timeout {
        /// Time limit.
        after: Duration,
    },
    /// Too many requests are waiting. Retry later.
    #[error("too many requests are waiting: retry later")]
    Overloaded,
    /// Every answer was forged, or signed with a key other than the publisher's. A retry asks other peers.
    #[error("every answer was rejected: {reason}")]
    Rejected {
        /// The reason for rejecting the answers.
        reason: String,
    },
    /// The content matches its id but is invalid: its publisher made a mistake or is malicious.
    #[error("content {content} is invalid: {source}")]
    Invalid {
        /// Content id.
        content: ContentId,
        /// The reason.
        source: Arc<dyn StdError + Send + Sync>,
    },
    /// The document is of another package or version: its publisher made a mistake or is malicious.
    #[error("document {content} is of {found}, not of {expected}")]
    OtherPackage {
        /// Content id of the document.
        content: ContentId,
        /// Expected package, with the version if the document is a manifest.
        expected: String,
        /// Package, and version, in the document.
        found: String,
    },
    /// The content has another size than its manifest, index or lock file says: that document was made by mistake or
    /// with malice.
    #[error("content {content} has {found} bytes instead of {expected}")]
    Size {
        /// Content id.
        content: ContentId,
        /// Expected size, in bytes.
        expected: u64,
        /// Actual size, in bytes.
        found: u64,
    },
    /// No peer offered a head as new as one seen here before: its holders are offline, have missed it, or withhold it.
    #[error("newest head offered has sequence number {offered}, but {seen} was seen before")]
    Rollback {
        /// Highest sequence number seen before.
        seen: u64,
        /// Highest sequence number offered now.
        offered: u64,
    },
    /// The newest head has expired: its publisher has not renewed it, or some peers withhold the newer one.
    #[error("newest head was valid until {not_after} (Unix seconds)")]
    Expired {
        /// End of its validity, in Unix seconds.
        not_after: u64,
    },
    /// The publisher has signed two different heads with one sequence number: two programs use its key, or it is
    /// malicious.
    #[error("publisher has signed two heads with sequence number {seq}")]
    Equivocation {
        /// The sequence number.
        seq: u64,
    },
    /// No provider delivered the content. Retry when other providers are online.
    #[error("content {content} is unavailable: {providers} providers were asked")]
    Unavailable {
        /// Content id.
        content: ContentId,
        /// Number of providers that were asked.
        providers: usize,
    },
    /// Local storage failed.
    #[error(transparent)]
    Storage(Arc<StorageError>),
    /// The registry is closed.
    #[error("registry is closed")]
    Closed,
}

impl GetError {
    /// Returns [`GetError::Invalid`] with this source.
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

/// Error of publishing, yanking or unyanking a version. Versions that were published before stay valid.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The package is another publisher's: only the owner of that key can publish it.
    #[error("{package} is not a package of publisher {publisher}")]
    OtherPublisher {
        /// The package.
        package: Box<PackageId>,
        /// Publisher whose packages can be published here.
        publisher: Box<PeerId>,
    },
    /// The version exists with other contents, does not exist, or cannot be added.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The package does not exist.
    #[error("package {0} does not exist")]
    NoSuchPackage(Box<PackageId>),
    /// The manifest breaks a limit.
    #[error(transparent)]
    Invalid(#[from] InvalidPackageError),
    /// The folder cannot be packed.
    #[error("folder of the package cannot be packed: {0}")]
    Pack(#[from] PackError),
    /// A text of the manifest, such as the readme, contains a private key. Nothing was published.
    #[error("manifest contains {kind}: remove it from the readme or the description")]
    PrivateKey {
        /// Kind of key.
        kind: PrivateKeyKind,
    },
    /// The archive is too large: remove files from the folder.
    #[error("archive is larger than the maximum of {max} bytes")]
    ArchiveTooLarge {
        /// Maximum size, in bytes.
        max: u64,
    },
    /// The existing versions cannot be determined. Nothing was changed; the call can be repeated.
    #[error("existing versions of the package cannot be determined: {0}")]
    Versions(#[source] GetError),
    /// A step failed, and the following steps were not started. The call can be repeated and continues from there.
    #[error("publishing failed at step \"{step}\": {source}")]
    Failed {
        /// The step that failed.
        step: Step,
        /// Outcome of each step so far.
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
