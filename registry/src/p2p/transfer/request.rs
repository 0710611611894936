use libp2p::PeerId;

use super::error::FetchError;
use crate::ContentId;

/// Blob to fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchRequest {
    /// Content id of the blob.
    pub id: ContentId,
    /// Maximum size in bytes. Larger blobs are rejected.
    pub max: u64,
    /// Exact size in bytes, if it is known. Other sizes are rejected.
    pub size: Option<u64>,
}

/// Peer that may have a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobProvider {
    /// Peer id.
    pub peer: PeerId,
    /// Preference: providers with larger values are asked first.
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
