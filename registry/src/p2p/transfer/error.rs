use thiserror::Error;

use super::events::ProviderReport;
use crate::blob::BlobError;

/// Error of a fetch. What was verified before stays on the disk, and the next fetch resumes from there.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FetchError {
    /// No provider was named. Look for providers again later.
    #[error("no provider is known")]
    NoProvider,
    /// No provider delivered the whole blob. Try others; those that were busy or unreachable may deliver it later.
    #[error("all {} providers failed", reports.len())]
    AllFailed {
        /// Last outcome of each provider.
        reports: Vec<ProviderReport>,
    },
    /// The blob is larger than [`FetchRequest::max`](super::FetchRequest::max); its size is proven. Nothing was stored.
    #[error("blob too large: {size} bytes, at most {max} are allowed")]
    TooLarge {
        /// Size of the blob in bytes.
        size: u64,
        /// Maximum size in bytes.
        max: u64,
    },
    /// The size is not [`FetchRequest::size`](super::FetchRequest::size). It is proven: the request is wrong, not the
    /// providers.
    #[error("blob has {size} bytes instead of {expected}")]
    OtherSize {
        /// Size of the blob in bytes.
        size: u64,
        /// Size in the request, in bytes.
        expected: u64,
    },
    /// The fetch made no progress for [`stall_timeout`](super::FetchConfig::stall_timeout), or took longer than
    /// [`timeout`](super::FetchConfig::timeout). Try again: the next fetch resumes. Providers that were late are
    /// reported.
    #[error("fetch timed out")]
    Timeout,
    /// The blob cannot be stored.
    #[error(transparent)]
    Store(#[from] BlobError),
}
