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

/// Namespace of the record keys of heads, which begin with `/pkg/`.
pub const NAMESPACE: &str = "pkg";

/// Maximum length of an encoded [`SignedHead`], in bytes. Heads have less than 600 bytes; the rest is room for later
/// formats.
pub const MAX_HEAD_LEN: usize = 4096;

/// Maximum sequence number of a head: enough for a new head every hour for a century. A package that has reached this
/// number can have no further head, and so no further version.
pub const MAX_SEQ: u64 = 1_000_000;

/// Maximum size of an index that a head can state, in bytes. Indexes themselves have a lower limit:
/// [`MAX_INDEX_LEN`](crate::MAX_INDEX_LEN).
pub const MAX_HEAD_INDEX_LEN: u64 = 16 * 1024 * 1024;

/// Version of the document format.
const SCHEMA: u32 = 1;

const KIND: Kind =
    Kind { domain: "kadence-package-head", payload_type: b"/kadence/package-head/1", max_len: MAX_HEAD_LEN };

/// Head of a package, without its signature: the statement of the publisher which index of the package is the newest.
///
/// Unknown fields in its JSON are rejected: a new field needs a new `schema`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// Version of the document format: 1.
    pub schema: u32,
    /// The package.
    pub package: PackageId,
    /// Sequence number: 1 for the first head of the package, then one more for each further head, at most [`MAX_SEQ`].
    pub seq: u64,
    /// [Hash](SignedHead::hash) of the previous head. `None` only for the head with number 1.
    pub prev: Option<ContentId>,
    /// Content id of the index, which lists all versions of the package.
    pub index: ContentId,
    /// Size of the index in bytes, from 1 to [`MAX_HEAD_INDEX_LEN`].
    pub index_size: u64,
    /// End of the validity, in seconds since 1970. Readers reject the head when this time has passed by more than
    /// [`CLOCK_TOLERANCE`](super::CLOCK_TOLERANCE). Before that, the publisher has to sign the next head.
    pub not_after: u64,
    /// Time for which a reader may use the head before it looks for a newer one again, in seconds from the lookup.
    pub ttl: u64,
}

impl Head {
    /// Checks the fields without regard to other heads.
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

    /// Returns the supported version of the document format.
    pub(super) const fn schema() -> u32 {
        SCHEMA
    }
}

/// Head with its publisher's verified signature.
///
/// # Example
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::SystemTime;
///
/// use kadence_registry::{
///     ContentId, PackageId,
///     p2p::head::{Accepted, Checkpoint, Lifetime, SignedHead, next_head, validate_head},
/// };
/// use libp2p_identity::Keypair;
///
/// let key = Keypair::generate_ed25519();
/// let package = PackageId::new(key.public().to_peer_id(), "left-pad".parse()?)?;
/// let now = SystemTime::now();
/// let unsigned = next_head(&package, None, ContentId::of(b"index"), 5, Lifetime::default(), now)?;
/// let head = SignedHead::sign(&key, unsigned)?;
///
/// // A reader verifies the signature, then compares with the head that it saw before.
/// let read = SignedHead::verify(head.bytes(), &package)?;
/// let checkpoint = Checkpoint { seq: read.head().seq, head: Some(head) };
/// assert_eq!(validate_head(Some(&checkpoint), &read, now)?, Accepted::Same);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SignedHead {
    head: Head,
    bytes: Vec<u8>,
}

impl SignedHead {
    /// Signs a head with the publisher's key.
    ///
    /// # Errors
    ///
    /// If the key is not the one of the package's publisher, a field is invalid, or signing fails.
    pub fn sign(key: &Keypair, head: Head) -> Result<Self, HeadError> {
        head.check()?;
        if head.package.publisher_key()? != key.public() {
            return Err(HeadError::ForeignKey);
        }
        let bytes = seal(KIND, key, &head)?;
        Ok(Self { head, bytes })
    }

    /// Decodes a head of the package `expected`, and verifies its fields and its signature. The sequence number is not
    /// compared with earlier heads, and the expiry is not checked: [`validate_head`](super::validate_head) does that.
    ///
    /// # Errors
    ///
    /// If the bytes are not a valid head of that package, signed by its publisher.
    pub fn verify(bytes: &[u8], expected: &PackageId) -> Result<Self, HeadError> {
        let signed = Self::verify_any(bytes)?;
        if signed.head.package == *expected {
            Ok(signed)
        } else {
            Err(HeadError::OtherPackage { found: Box::new(signed.head.package) })
        }
    }

    /// Verifies a head of the package that has this [record key](dht_key), as [`verify`](Self::verify) does.
    ///
    /// # Errors
    ///
    /// If the bytes are not a valid head of that package, signed by its publisher.
    pub fn verify_key(bytes: &[u8], record_key: &RecordKey) -> Result<Self, HeadError> {
        let signed = Self::verify_any(bytes)?;
        if dht_key(&signed.head.package)? == *record_key {
            Ok(signed)
        } else {
            Err(HeadError::OtherPackage { found: Box::new(signed.head.package) })
        }
    }

    /// Verifies a head of any package, as [`verify`](Self::verify) does.
    ///
    /// # Errors
    ///
    /// If the bytes are not a valid head that is signed by the publisher of the package that it names.
    pub fn verify_any(bytes: &[u8]) -> Result<Self, HeadError> {
        let (head, key) = unseal::<Head>(KIND, bytes)?;
        head.check()?;
        if head.package.publisher_key()? != key {
            return Err(HeadError::ForeignKey);
        }
        Ok(Self { head, bytes: bytes.to_owned() })
    }

    /// Returns the record for the DHT. The record expires at the end of the head's validity, so that holders that keep
    /// to the expiry drop the record then at the latest. If that end is too late for an [`Instant`], the record has no
    /// expiry. `now` and `instant` must be readings of the two clocks at the same time.
    ///
    /// # Errors
    ///
    /// None in practice: see [`dht_key`].
    pub fn to_record(&self, now: SystemTime, instant: Instant) -> Result<Record, PackageIdError> {
        let left = self.head.not_after.saturating_sub(unix::seconds(now));
        let expires = instant.checked_add(Duration::from_secs(left));
        Ok(Record { key: dht_key(&self.head.package)?, value: self.bytes.clone(), publisher: None, expires })
    }

    /// Returns the signed document.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Returns the encoded envelope: the document with the signature and the public key.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the hash of the encoded envelope, by which the next head refers to this one.
    pub fn hash(&self) -> ContentId {
        ContentId::of(&self.bytes)
    }
}

/// Returns the DHT key of a package's head: `/pkg/`, then a SHA-256 hash as 43 characters of URL-safe base64. The hash
/// is that of the publisher's key in protobuf encoding, a zero byte, and the package's name.
///
/// # Errors
///
/// If the package id contains no public key. Every valid [`PackageId`] contains one.
pub fn dht_key(package: &PackageId) -> Result<RecordKey, PackageIdError> {
    let mut hashed = package.publisher_key()?.encode_protobuf();
    // Names contain no zero byte, so two different pairs of key and name never hash the same bytes.
    hashed.push(0);
    hashed.extend_from_slice(package.name().as_str().as_bytes());
    let digest = Code::Sha2_256.digest(&hashed);
    let key = format!("/{NAMESPACE}/{}", Base::Base64Url.encode(digest.digest()));
    Ok(RecordKey::from(key.into_bytes()))
}

/// Error of signing or verifying a head. Bytes that fail verification are forged, damaged, another kind of document, of
/// another package, outside of the limits, or of a format that this version does not support. Other peers may have a
/// valid head.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HeadError {
    /// The signed envelope is invalid, or cannot be created: see [`EnvelopeError`].
    #[error("invalid signed head")]
    Envelope(#[from] EnvelopeError),
    /// The document format is not supported by this version. A newer version may support it.
    #[error("unsupported head format {found}")]
    Schema {
        /// Version of the document format.
        found: u32,
    },
    /// The sequence number is 0 or above [`MAX_SEQ`].
    #[error("invalid sequence number {seq}: must be from 1 to {MAX_SEQ}")]
    Sequence {
        /// Sequence number in the document.
        seq: u64,
    },
    /// A head with number 1 names a predecessor, or a head with a higher number names none.
    #[error("link to the previous head does not fit the sequence number")]
    Chain,
    /// The size of the index is 0 or more than [`MAX_HEAD_INDEX_LEN`].
    #[error("invalid index size in a head: {size} bytes")]
    IndexSize {
        /// Size in the document, in bytes.
        size: u64,
    },
    /// The signing key is not the one of the package's publisher.
    #[error("head is not signed by the package's publisher")]
    ForeignKey,
    /// The bytes are a valid head, but of another package than the expected one.
    #[error("head belongs to another package: {found}")]
    OtherPackage {
        /// Package of the head.
        found: Box<PackageId>,
    },
    /// The package id contains no public key. Every valid [`PackageId`] contains one.
    #[error(transparent)]
    Package(#[from] PackageIdError),
}
