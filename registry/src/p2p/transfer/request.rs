use libp2p::PeerId;

use super::error::FetchError;
use crate::ContentId;

/// Blob to fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchRequest {
    /// Content id of the blob.
    pub id: ContentId,
    /// Maximum size in bytes. For a larger blob the fetch fails with [`FetchError::TooLarge`].
    pub max: u64,
    /// Exact size in bytes. For a blob of another size up to `max`, the fetch fails with [`FetchError::OtherSize`].
    /// `None` allows every size up to `max`.
    pub size: Option<u64>,
}

/// Peer that may have a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobProvider {
    /// Peer id.
    pub peer: PeerId,
    /// Preference: of the providers that wait to be asked, those with larger values are asked first.
    pub preference: i32,
}

impl FetchRequest {
    /// Checks a proven size against the request.
    pub(super) fn check_size(&self, size: u64) -> Result<(), FetchError> {
        if size > self.max {
            return Err(FetchError::TooLarge { size, max: self.max });
        }
        match self.size {
            Some(expected) if expected != size => Err(FetchError::OtherSize { size, expected }),
            _ => Ok(()),
        }
    }
}
