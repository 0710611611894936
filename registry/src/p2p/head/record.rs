use std::time::{Duration, Instant, SystemTime};

use cid::multibase::Base;
use libp2p::kad::{Record, RecordKey};
use libp2p_identity::Keypair;
use multihash_codetable::{Code, MultihashDigest};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    ContentId, PackageId, PackageIdError,
    p2p::signed::{EnvelopeError, Kind, seal, unseal},
    unix,
};

/// Namespace of the record keys of heads.
pub const NAMESPACE: &str = "pkg";

/// The longest signed head, in bytes. One is about 600; the rest is room for later versions.
pub const MAX_HEAD_LEN: usize = 4096;

/// The highest sequence number, of any package: that of a head that was renewed every hour for a century. Without a limit
/// the last number would end a package for ever.
pub const MAX_SEQ: u64 = 1_000_000;

/// The longest index, in bytes: some ten thousand versions. Whoever fetches one knows from the head what is to come.
pub const MAX_HEAD_INDEX_LEN: u64 = 16 * 1024 * 1024;

/// The version of the document.
const SCHEMA: u32 = 1;

const KIND: Kind =
    Kind { domain: "kadence-package-head", payload_type: b"/kadence/package-head/1", max_len: MAX_HEAD_LEN };

/// Which index of a package is the newest, as its publisher says.
///
/// What a reader does not know in it, it does not accept: a new field is a new `schema`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// The version of this document: 1.
    pub schema: u32,
    /// Whose head it is.
    pub package: PackageId,
    /// 1 for the first head, then one more for each: at most [`MAX_SEQ`].
    pub seq: u64,
    /// The [hash](SignedHead::hash) of the head before it; the first has none.
    pub prev: Option<ContentId>,
    /// The index: all of the package's versions.
    pub index: ContentId,
    /// The index's length in bytes, at most [`MAX_HEAD_INDEX_LEN`].
    pub index_size: u64,
    /// After this second since 1970 nobody shall believe it. The publisher renews it before.
    pub not_after: u64,
    /// For how many seconds a reader may use it before asking again.
    pub ttl: u64,
}

impl Head {
    /// A first or next head of its own; [`next_head`](super::next_head) fills in the chain.
    pub(super) fn check(&self) -> Result<(), HeadError> {
        if self.schema != SCHEMA {
            return Err(HeadError::Schema { found: self.schema });
        }
        if !(1..=MAX_SEQ).contains(&self.seq) {
            return Err(HeadError::Sequence { seq: self.seq });
        }
        if (self.seq == 1) != self.prev.is_none() {
            return Err(HeadError::Chain);
        }
        if !(1..=MAX_HEAD_INDEX_LEN).contains(&self.index_size) {
            return Err(HeadError::IndexSize { size: self.index_size });
        }
        Ok(())
    }

    /// The version of the document that is written.
    pub(super) const fn schema() -> u32 {
        SCHEMA
    }
}

/// A head with its publisher's signature, which was verified.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SignedHead {
    head: Head,
    bytes: Vec<u8>,
}

impl SignedHead {
    /// Signs a head with its publisher's key.
    ///
    /// # Errors
    ///
    /// If the key is not that of the package's publisher, or the head is one that nobody would accept.
    pub fn sign(key: &Keypair, head: Head) -> Result<Self, HeadError> {
        head.check()?;
        if head.package.publisher_key()? != key.public() {
            return Err(HeadError::ForeignKey);
        }
        let bytes = seal(KIND, key, &head)?;
        Ok(Self { head, bytes })
    }

    /// Reads a head of this package. Whether it is new enough, and has not expired, is for [`validate_head`](super::validate_head).
    ///
    /// # Errors
    ///
    /// If it is not a head that the publisher of this package has signed for this package.
    pub fn verify(bytes: &[u8], expected: &PackageId) -> Result<Self, HeadError> {
        let signed = Self::verify_any(bytes)?;
        if signed.head.package == *expected {
            Ok(signed)
        } else {
            Err(HeadError::OtherPackage { found: Box::new(signed.head.package) })
        }
    }

    /// Reads the head of the package whose [record key](dht_key) this is.
    ///
    /// # Errors
    ///
    /// If it is not a head that the publisher of that package has signed for that package.
    pub fn verify_key(bytes: &[u8], record_key: &RecordKey) -> Result<Self, HeadError> {
        let signed = Self::verify_any(bytes)?;
        if dht_key(&signed.head.package)? == *record_key {
            Ok(signed)
        } else {
            Err(HeadError::OtherPackage { found: Box::new(signed.head.package) })
        }
    }

    /// Reads the head of any package: for those who look at what they were told without asking for it.
    ///
    /// # Errors
    ///
    /// If it is not a head that the publisher of the package it names has signed.
    pub fn verify_any(bytes: &[u8]) -> Result<Self, HeadError> {
        let (head, key) = unseal::<Head>(KIND, bytes)?;
        head.check()?;
        if head.package.publisher_key()? != key {
            return Err(HeadError::ForeignKey);
        }
        Ok(Self { head, bytes: bytes.to_owned() })
    }

    /// The record to put into the DHT. It expires with the head, so that holders drop it then; `instant` and `now` are the
    /// two clocks at one time.
    ///
    /// # Errors
    ///
    /// None: see [`dht_key`].
    pub fn to_record(&self, now: SystemTime, instant: Instant) -> Result<Record, PackageIdError> {
        let left = self.head.not_after.saturating_sub(unix::seconds(now));
        let expires = instant.checked_add(Duration::from_secs(left));
        Ok(Record { key: dht_key(&self.head.package)?, value: self.bytes.clone(), publisher: None, expires })
    }

    /// What was signed.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// The envelope, as it is stored and sent.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The name of this head: the hash of its envelope. The next head says it.
    pub fn hash(&self) -> ContentId {
        ContentId::of(&self.bytes)
    }
}

/// The key of a package's head in the DHT: `/pkg/` and the hash of its publisher's key and its name, 48 bytes of ASCII.
///
/// # Errors
///
/// None for an id that was made by [`PackageId`]: each of those has the key in it.
pub fn dht_key(package: &PackageId) -> Result<RecordKey, PackageIdError> {
    let mut hashed = package.publisher_key()?.encode_protobuf();
    // No name has a zero in it, so that the parts cannot be shifted.
    hashed.push(0);
    hashed.extend_from_slice(package.name().as_str().as_bytes());
    let digest = Code::Sha2_256.digest(&hashed);
    let key = format!("/{NAMESPACE}/{}", Base::Base64Url.encode(digest.digest()));
    Ok(RecordKey::from(key.into_bytes()))
}

/// Why some bytes are not the head that was expected. They are forged, damaged, or of something else; there may be a good
/// one elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum HeadError {
    /// They are no signed head.
    #[error("this is no signed head")]
    Envelope(#[from] EnvelopeError),
    /// Of a version that this program does not know. A newer one may.
    #[error("the head has version {found} of the document")]
    Schema {
        /// Its version.
        found: u32,
    },
    /// The number is none that a head can have.
    #[error("{seq} is not a head's sequence number")]
    Sequence {
        /// What stands in it.
        seq: u64,
    },
    /// A first head names one before it, or another one names none.
    #[error("the head's link to the one before it does not fit its sequence number")]
    Chain,
    /// The size of the index is 0 or more than [`MAX_HEAD_INDEX_LEN`].
    #[error("invalid index size in a head: {size} bytes")]
    IndexSize {
        /// Size in the document, in bytes.
        size: u64,
    },
    /// Somebody else than the package's publisher has signed it.
    #[error("the head is not signed by the package's publisher")]
    ForeignKey,
    /// It is the true head of something else.
    #[error("this is the head of {found}")]
    OtherPackage {
        /// What it is the head of.
        found: Box<PackageId>,
    },
    /// The package's id has no key in it.
    #[error(transparent)]
    Package(#[from] PackageIdError),
}
