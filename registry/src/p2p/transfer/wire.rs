//! Frames of the blob protocol, all of a fixed length.

use std::{ops::Range, time::Duration};

use bao_tree::blake3;
use libp2p::StreamProtocol;

use crate::ContentId;

/// Name of the blob protocol.
pub const BLOB_PROTOCOL: StreamProtocol = StreamProtocol::new("/kadence/blob/1");

/// Maximum size of a blob that can be fetched, in bytes: 64 GiB. A provider that claims a larger size counts as one
/// that sends [bad data](super::ProviderOutcome::BadData).
pub const MAX_BLOB_LEN: u64 = 64 << 30;

/// Maximum number of groups in a request. The server keeps all of a response, 1 MiB, in memory.
pub(super) const MAX_GROUPS: u32 = 64;

pub(super) const REQUEST_LEN: usize = 44;
pub(super) const HEAD_LEN: usize = 9;

/// Number that stands for the last group while the size is unknown.
pub(super) const LAST: u64 = u64::MAX;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) id: ContentId,
    pub(super) first: u64,
    pub(super) count: u32,
}

/// Head of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Head {
    /// Size of the blob. The requested groups follow.
    Have(u64),
    NotFound,
    /// Time after which to ask again.
    Busy(Duration),
    Invalid,
}

impl Request {
    pub(super) fn encode(&self) -> [u8; REQUEST_LEN] {
        let id = self.id.hash();
        let bytes = id.as_bytes().iter().copied().chain(self.first.to_le_bytes()).chain(self.count.to_le_bytes());
        collect(bytes)
    }

    /// Returns `None` if the request is invalid.
    pub(super) fn decode(bytes: &[u8; REQUEST_LEN]) -> Option<Self> {
        let (id, rest) = bytes.split_first_chunk::<32>()?;
        let (first, rest) = rest.split_first_chunk()?;
        let (count, _) = rest.split_first_chunk()?;
        let request = Self {
            id: blake3::Hash::from_bytes(*id).into(),
            first: u64::from_le_bytes(*first),
            count: u32::from_le_bytes(*count),
        };
        (1..=MAX_GROUPS).contains(&request.count).then_some(request)
    }

    pub(super) fn groups(&self) -> Range<u64> {
        self.first..self.first.saturating_add(self.count.into())
    }
}

impl Head {
    pub(super) fn encode(self) -> [u8; HEAD_LEN] {
        let (status, number) = match self {
            Self::Have(size) => (0, size),
            Self::NotFound => (1, 0),
            Self::Busy(span) => (2, u64::try_from(span.as_millis()).unwrap_or(u64::MAX)),
            Self::Invalid => (3, 0),
        };
        collect([status].into_iter().chain(number.to_le_bytes()))
    }

    /// Returns `None` if the status is unknown.
    pub(super) fn decode(bytes: &[u8; HEAD_LEN]) -> Option<Self> {
        let [status, number @ ..] = *bytes;
        let number = u64::from_le_bytes(number);
        match status {
            0 => Some(Self::Have(number)),
            1 => Some(Self::NotFound),
            2 => Some(Self::Busy(Duration::from_millis(number))),
            3 => Some(Self::Invalid),
            _ => None,
        }
    }
}

fn collect<const N: usize>(bytes: impl Iterator<Item = u8>) -> [u8; N] {
    let mut array = [0; N];
    for (to, from) in array.iter_mut().zip(bytes) {
        *to = from;
    }
    array
}
