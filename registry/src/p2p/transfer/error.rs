use thiserror::Error;

use super::events::ProviderReport;
use crate::blob::BlobError;

/// Why a blob was not fetched. What was fetched of it is kept, for the next time.
#[derive(Debug, Error)]
pub enum FetchError {
    /// Nobody was named who could have it: look for providers again later.
    #[error("no provider is known")]
    NoProvider,
    /// No provider had all of it. Others may; and those that were busy or could not be reached may have it later.
    #[error("none of {} providers had it", reports.len())]
    AllFailed {
        /// How it ended with each of them.
        reports: Vec<ProviderReport>,
    },
    /// It is larger than was allowed, which is proven. Nothing was stored.
    #[error("the blob has {size} bytes, more than the {max} that were allowed")]
    TooLarge {
        /// Its size in bytes.
        size: u64,
        /// What was allowed.
        max: u64,
    },
    /// Its size is not the one that was said, which is proven: whoever has said it was wrong, not the providers.
    #[error("the blob has {size} bytes, not {expected}")]
    OtherSize {
        /// Its size in bytes.
        size: u64,
        /// What was said.
        expected: u64,
    },
    /// Nothing has come for a long time, or it has taken too long as a whole: try again, it goes on from there. Those who
    /// kept it waiting were reported.
    #[error("it takes too long")]
    Timeout,
    /// It cannot be stored.
    #[error(transparent)]
    Store(#[from] BlobError),
}
