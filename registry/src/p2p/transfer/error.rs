use thiserror::Error;

use super::events::ProviderReport;
use crate::blob::BlobError;

/// Error of a fetch. The pieces that were verified and written stay on the disk, and the next fetch of the blob with
/// the same [`piece_groups`](field@super::FetchConfig::piece_groups) resumes from there, unless the disk damaged them
/// or 32 later unfinished downloads have replaced this one.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The stream of providers ended without naming one. Look for providers again later.
    #[error("no provider is known")]
    NoProvider,
    /// All providers failed, and the stream of providers ended or named more than 256, before the blob was complete.
    /// Try others; those that were busy or unreachable may deliver the blob later.
    #[error("all {} providers failed", reports.len())]
    AllFailed {
        /// Latest outcome of each provider in this fetch.
        reports: Vec<ProviderReport>,
    },
    /// The blob is larger than [`FetchRequest::max`](super::FetchRequest::max); its size is proven. This fetch has
    /// stored nothing.
    #[error("blob too large: {size} bytes, at most {max} are allowed")]
    TooLarge {
        /// Size of the blob in bytes.
        size: u64,
        /// Maximum size in bytes.
        max: u64,
    },
    /// The size of the blob is not [`FetchRequest::size`](super::FetchRequest::size). The size is proven, so the
    /// request is wrong, not the providers.
    #[error("blob has {size} bytes instead of {expected}")]
    OtherSize {
        /// Size of the blob in bytes.
        size: u64,
        /// Size in the request, in bytes.
        expected: u64,
    },
    /// The fetch made no progress for [`stall_timeout`](field@super::FetchConfig::stall_timeout), or took longer than
    /// [`timeout`](field@super::FetchConfig::timeout), including the wait for another fetch of the same blob. Try
    /// again: the next fetch resumes. The providers with a late piece were reported as
    /// [failed](super::ProviderOutcome::Failed).
    #[error("fetch timed out")]
    Timeout,
    /// The blob cannot be stored, the store cannot be read, or the finished download was damaged on the disk twice. The
    /// inner error is the cause.
    #[error(transparent)]
    Store(#[from] BlobError),
}
