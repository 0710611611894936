use std::{fmt, str::FromStr};

use cid::Cid;
use multihash_codetable::{Code, MultihashDigest};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use thiserror::Error;

/// Multicodec `raw`: plain bytes.
const RAW: u64 = 0x55;

/// Multihash code of BLAKE3.
const BLAKE3: u64 = 0x1e;

/// Content id: the BLAKE3 hash of some bytes. `Display` and serde write it as a version 1 CID with the codec `raw`.
///
/// BLAKE3 is a tree hash: parts of the bytes can be verified before the rest has arrived.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentId([u8; 32]);

impl ContentId {
    /// Hashes bytes and returns their id.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// Returns the BLAKE3 hash of the bytes, which is also the root of their hash tree.
    pub fn hash(&self) -> blake3::Hash {
        blake3::Hash::from_bytes(self.0)
    }

    /// Returns the id as a version 1 CID with the codec `raw` and a BLAKE3 multihash.
    pub fn to_cid(&self) -> Cid {
        // A multihash of 64 bytes has room for 32, so that the default is never used.
        let hash = cid::multihash::Multihash::wrap(BLAKE3, &self.0).unwrap_or_default();
        Cid::new_v1(RAW, hash)
    }

    /// Returns the DHT key of the content's provider records: the SHA2-256 multihash of the bytes of its CID.
    pub fn provider_key(&self) -> Vec<u8> {
        Code::Sha2_256.digest(&self.to_cid().to_bytes()).to_bytes()
    }
}

impl From<blake3::Hash> for ContentId {
    fn from(hash: blake3::Hash) -> Self {
        Self(*hash.as_bytes())
    }
}

impl TryFrom<Cid> for ContentId {
    type Error = ContentIdError;

    fn try_from(cid: Cid) -> Result<Self, ContentIdError> {
        if cid.codec() != RAW || cid.hash().code() != BLAKE3 {
            return Err(ContentIdError::UnsupportedCid);
        }
        cid.hash().digest().try_into().map(Self).map_err(|_| ContentIdError::UnsupportedCid)
    }
}

impl FromStr for ContentId {
    type Err = ContentIdError;

    fn from_str(text: &str) -> Result<Self, ContentIdError> {
        Cid::try_from(text).map_err(|_| ContentIdError::InvalidCid)?.try_into()
    }
}

impl fmt::Display for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_cid().fmt(f)
    }
}

impl fmt::Debug for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContentId({self})")
    }
}

impl Serialize for ContentId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ContentId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// Error of converting a text or a CID into a [`ContentId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ContentIdError {
    /// The text is not a CID.
    #[error("not a content id: invalid CID")]
    InvalidCid,
    /// The CID has another codec than `raw`, or another hash than BLAKE3 with 32 bytes.
    #[error("not a content id: the CID is not a BLAKE3 hash of raw bytes")]
    UnsupportedCid,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_a_round_trip_through_text() {
        let id = ContentId::of(b"hello");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!(id.to_string().starts_with("bafkr4i"), "{id}");
        assert_eq!(serde_json::from_str::<ContentId>(&serde_json::to_string(&id).unwrap()).unwrap(), id);
    }

    #[test]
    fn other_cids_are_rejected() {
        assert_eq!("hello".parse::<ContentId>(), Err(ContentIdError::InvalidCid));
        let sha = Cid::new_v1(RAW, Code::Sha2_256.digest(b"hello"));
        assert_eq!(sha.to_string().parse::<ContentId>(), Err(ContentIdError::UnsupportedCid));
        let dag = Cid::new_v1(0x70, *ContentId::of(b"hello").to_cid().hash());
        assert_eq!(ContentId::try_from(dag), Err(ContentIdError::UnsupportedCid));
    }

    #[test]
    fn a_provider_key_is_a_sha2_256_multihash() {
        let key = ContentId::of(b"hello").provider_key();
        assert_eq!((key.len(), &key[..2]), (34, [0x12, 0x20].as_slice()));
    }
}
