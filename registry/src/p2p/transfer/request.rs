use libp2p::PeerId;

use super::error::FetchError;
use crate::ContentId;

/// What is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchRequest {
    /// Which blob.
    pub id: ContentId,
    /// How large it may be, in bytes.
    pub max: u64,
    /// How large it is, if somebody who should know has said so.
    pub size: Option<u64>,
}

/// Somebody who may have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobProvider {
    /// Who.
    pub peer: PeerId,
    /// Whoever has more is asked first.
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
