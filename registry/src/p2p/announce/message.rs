use libp2p_identity::Keypair;
use semver::Version;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    ContentId, PackageId, PackageIdError,
    p2p::{
        head::MAX_SEQ,
        signed::{EnvelopeError, Kind, seal, unseal},
    },
};

/// Maximum length of an encoded [`SignedAnnouncement`], in bytes. It has room for the longest name, version and title.
pub const MAX_ANNOUNCEMENT_LEN: usize = 1024;

/// Maximum length of the title in an [`Announcement`], in bytes. [`P2PRegistry`](crate::p2p::registry::P2PRegistry)
/// shortens longer titles of packages to fit.
pub const MAX_TITLE_LEN: usize = 100;

/// Maximum length of the text of the version in an [`Announcement`], in bytes. Longer versions can be published, but
/// not announced.
pub const MAX_VERSION_LEN: usize = 64;

/// Version of the document format.
const SCHEMA: u32 = 1;

const KIND: Kind = Kind {
    domain: "kadence-package-announcement",
    payload_type: b"/kadence/package-announcement/1",
    max_len: MAX_ANNOUNCEMENT_LEN,
};

/// Announcement of the newest head of a package. Unknown fields in its JSON are rejected.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Announcement {
    /// Version of the document format: [`SCHEMA`](Self::SCHEMA).
    pub schema: u32,
    /// The package.
    pub package: PackageId,
    /// Version to show, as the publisher states it: the newest release that is not yanked; without one, the newest
    /// pre-release that is not yanked; if all versions are yanked, the newest version.
    pub version: Version,
    /// Sequence number of the head, from 1 to [`MAX_SEQ`].
    pub seq: u64,
    /// [Hash](crate::p2p::head::SignedHead::hash) of the head.
    pub head: ContentId,
    /// Content id of the index that the head names.
    pub index: ContentId,
    /// One-line description, at most [`MAX_TITLE_LEN`] bytes, without control characters.
    pub title: String,
    /// Time of the announcement by the publisher's clock, in seconds since 1970.
    pub published_at: u64,
}

impl Announcement {
    /// Supported version of the document format.
    pub const SCHEMA: u32 = SCHEMA;

    fn check(&self) -> Result<(), AnnouncementError> {
        if self.schema != SCHEMA {
            return Err(AnnouncementError::Schema { found: self.schema });
        }
        if !(1..=MAX_SEQ).contains(&self.seq) {
            return Err(AnnouncementError::Sequence { seq: self.seq });
        }
        // Titles are shown in terminals.
        if self.title.len() > MAX_TITLE_LEN || self.title.chars().any(char::is_control) {
            return Err(AnnouncementError::Title);
        }
        if self.version.to_string().len() > MAX_VERSION_LEN {
            return Err(AnnouncementError::Version);
        }
        Ok(())
    }
}

/// Announcement with its publisher's verified signature.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SignedAnnouncement {
    announcement: Announcement,
    bytes: Vec<u8>,
}

impl SignedAnnouncement {
    /// Signs an announcement with the publisher's key.
    ///
    /// # Errors
    ///
    /// If the key is not the one of the package's publisher, a field is invalid, or signing fails.
    pub fn sign(key: &Keypair, announcement: Announcement) -> Result<Self, AnnouncementError> {
        announcement.check()?;
        if announcement.package.publisher_key()? != key.public() {
            return Err(AnnouncementError::ForeignKey);
        }
        let bytes = seal(KIND, key, &announcement)?;
        Ok(Self { announcement, bytes })
    }

    /// Decodes an announcement, and verifies its fields and its signature. Its timestamp and rate limits are not
    /// checked: the [`AnnouncementValidator`](super::AnnouncementValidator) does that.
    ///
    /// # Errors
    ///
    /// If the bytes are not a valid announcement that is signed by the publisher of the package that it names.
    pub fn verify(bytes: &[u8]) -> Result<Self, AnnouncementError> {
        let (announcement, key) = unseal::<Announcement>(KIND, bytes)?;
        announcement.check()?;
        if announcement.package.publisher_key()? != key {
            return Err(AnnouncementError::ForeignKey);
        }
        Ok(Self { announcement, bytes: bytes.to_owned() })
    }

    /// Returns the signed document.
    pub fn announcement(&self) -> &Announcement {
        &self.announcement
    }

    /// Returns the encoded envelope: the announcement with the signature and the public key.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Error of signing or verifying an announcement. Bytes that fail verification are forged, damaged, another kind of
/// document, outside of the limits, or of a format that this version does not support.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AnnouncementError {
    /// The signed envelope is invalid, or cannot be created: see [`EnvelopeError`].
    #[error("invalid signed announcement")]
    Envelope(#[from] EnvelopeError),
    /// The document format is not supported by this version.
    #[error("unsupported announcement format {found}")]
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
    /// The title is longer than [`MAX_TITLE_LEN`] or contains control characters.
    #[error("invalid title: at most {MAX_TITLE_LEN} bytes without control characters are allowed")]
    Title,
    /// The text of the version is longer than [`MAX_VERSION_LEN`].
    #[error("version too long: at most {MAX_VERSION_LEN} bytes are allowed")]
    Version,
    /// The signing key is not the one of the package's publisher.
    #[error("announcement is not signed by the package's publisher")]
    ForeignKey,
    /// The package id contains no public key. Every valid [`PackageId`] contains one.
    #[error(transparent)]
    Package(#[from] PackageIdError),
}
