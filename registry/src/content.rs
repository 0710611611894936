use std::{fmt, str::FromStr};

use cid::Cid;
use multihash_codetable::{Code, MultihashDigest};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use thiserror::Error;

/// The multicodec of plain bytes.
const RAW: u64 = 0x55;

/// The multihash code of BLAKE3.
const BLAKE3: u64 = 0x1e;

/// The name of some bytes: the BLAKE3 hash of them, written as a version 1 CID of the codec `raw`.
///
/// BLAKE3 is a tree, so a part of the bytes can be verified before the others are there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentId([u8; 32]);

impl ContentId {
    /// The id of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// The root of the bytes' hash tree.
    pub fn hash(&self) -> blake3::Hash {
        blake3::Hash::from_bytes(self.0)
    }

    /// As the network writes it.
    pub fn to_cid(&self) -> Cid {
        // 32 bytes always fit into a multihash of 64; the digest of nothing takes the place of an impossible error.
        let hash = cid::multihash::Multihash::wrap(BLAKE3, &self.0).unwrap_or_default();
        Cid::new_v1(RAW, hash)
    }

    /// What its providers are announced and looked up by: the SHA2-256 multihash of its CID, since other implementations
    /// take nothing else for the key of a provider.
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
            return Err(ContentIdError::OtherKind);
        }
        cid.hash().digest().try_into().map(Self).map_err(|_| ContentIdError::OtherKind)
    }
}

impl FromStr for ContentId {
    type Err = ContentIdError;

    fn from_str(text: &str) -> Result<Self, ContentIdError> {
        Cid::try_from(text).map_err(|_| ContentIdError::NoCid)?.try_into()
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

/// Why a text or a CID is no [`ContentId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ContentIdError {
    /// It is not a CID.
    #[error("this is no content id: not a CID")]
    NoCid,
    /// It is a CID of another codec or hash: only `raw` and BLAKE3 of 32 bytes are used here.
    #[error("this is no content id: a CID, but not of plain bytes by BLAKE3")]
    OtherKind,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_it_is_written() {
        let id = ContentId::of(b"hello");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!(id.to_string().starts_with("bafkr4i"), "{id}");
        assert_eq!(serde_json::from_str::<ContentId>(&serde_json::to_string(&id).unwrap()).unwrap(), id);
    }

    #[test]
    fn other_cids_are_refused() {
        assert_eq!("hello".parse::<ContentId>(), Err(ContentIdError::NoCid));
        let sha = Cid::new_v1(RAW, Code::Sha2_256.digest(b"hello"));
        assert_eq!(sha.to_string().parse::<ContentId>(), Err(ContentIdError::OtherKind));
        let dag = Cid::new_v1(0x70, *ContentId::of(b"hello").to_cid().hash());
        assert_eq!(ContentId::try_from(dag), Err(ContentIdError::OtherKind));
    }

    #[test]
    fn a_provider_key_is_a_sha2_256_multihash() {
        let key = ContentId::of(b"hello").provider_key();
        assert_eq!((key.len(), &key[..2]), (34, [0x12, 0x20].as_slice()));
    }
}
