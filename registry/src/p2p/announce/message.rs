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

/// Maximum length of a signed announcement, in bytes. It has room for the longest name, version and title.
pub const MAX_ANNOUNCEMENT_LEN: usize = 1024;

/// Maximum length of a title, in bytes.
pub const MAX_TITLE_LEN: usize = 100;

/// Maximum length of a version, in bytes.
pub const MAX_VERSION_LEN: usize = 64;

/// Version of the document format.
const SCHEMA: u32 = 1;

const KIND: Kind = Kind {
    domain: "kadence-package-announcement",
    payload_type: b"/kadence/package-announcement/1",
    max_len: MAX_ANNOUNCEMENT_LEN,
};

/// Announcement of a new head of a package.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Announcement {
    /// Version of the document format: [`SCHEMA`](Self::SCHEMA).
    pub schema: u32,
    /// The package.
    pub package: PackageId,
    /// Newest release that is not yanked; without one, the newest pre-release that is not yanked; if all are yanked,
    /// the newest version.
    pub version: Version,
    /// Sequence number of the head.
    pub seq: u64,
    /// [Hash](crate::p2p::head::SignedHead::hash) of the head.
    pub head: ContentId,
    /// Content id of the index that the head names.
    pub index: ContentId,
    /// One-line description, at most [`MAX_TITLE_LEN`] bytes, without control characters.
    pub title: String,
    /// Time of the announcement, in seconds since 1970.
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
    /// If the key is not the one of the package's publisher, or a field is invalid.
    pub fn sign(key: &Keypair, announcement: Announcement) -> Result<Self, AnnouncementError> {
        announcement.check()?;
        if announcement.package.publisher_key()? != key.public() {
            return Err(AnnouncementError::ForeignKey);
        }
        let bytes = seal(KIND, key, &announcement)?;
        Ok(Self { announcement, bytes })
    }

    /// Verifies a signed announcement. Age and rates are checked by the
    /// [`AnnouncementValidator`](super::AnnouncementValidator).
    ///
    /// # Errors
    ///
    /// If the bytes are not an announcement that is signed by the publisher of the package that it names.
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

    /// Returns the encoded envelope.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Reason for which an announcement cannot be signed or verified. Bytes that fail verification are forged, damaged, or
/// of a format that this version does not support.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AnnouncementError {
    /// The envelope or its signature is invalid.
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
    /// The title is too long or contains control characters.
    #[error("invalid title: at most {MAX_TITLE_LEN} bytes without control characters are allowed")]
    Title,
    /// The version is too long.
    #[error("version too long: at most {MAX_VERSION_LEN} bytes are allowed")]
    Version,
    /// The signature is not one of the package's publisher.
    #[error("announcement is not signed by the package's publisher")]
    ForeignKey,
    /// The package id contains no public key.
    #[error(transparent)]
    Package(#[from] PackageIdError),
}
