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

/// The longest signed announcement, in bytes: the longest name, version and title fit into it.
pub const MAX_ANNOUNCEMENT_LEN: usize = 1024;

/// The longest title, in bytes.
pub const MAX_TITLE_LEN: usize = 100;

/// The longest version, in bytes.
pub const MAX_VERSION_LEN: usize = 64;

/// The version of the document.
const SCHEMA: u32 = 1;

const KIND: Kind = Kind {
    domain: "kadence-package-announcement",
    payload_type: b"/kadence/package-announcement/1",
    max_len: MAX_ANNOUNCEMENT_LEN,
};

/// That a package has a new head.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Announcement {
    /// The version of this document: 1.
    pub schema: u32,
    /// Which package.
    pub package: PackageId,
    /// Its newest version.
    pub version: Version,
    /// The number of its head.
    pub seq: u64,
    /// The [name](crate::p2p::head::SignedHead::hash) of its head.
    pub head: ContentId,
    /// The index that the head says.
    pub index: ContentId,
    /// One line about it, for lists; at most [`MAX_TITLE_LEN`], without control characters.
    pub title: String,
    /// When it was announced, in seconds since 1970.
    pub published_at: u64,
}

impl Announcement {
    /// The version of the document that is written.
    pub const SCHEMA: u32 = SCHEMA;

    fn check(&self) -> Result<(), AnnouncementError> {
        if self.schema != SCHEMA {
            return Err(AnnouncementError::Schema { found: self.schema });
        }
        if !(1..=MAX_SEQ).contains(&self.seq) {
            return Err(AnnouncementError::Sequence { seq: self.seq });
        }
        // It is shown in terminals.
        if self.title.len() > MAX_TITLE_LEN || self.title.chars().any(char::is_control) {
            return Err(AnnouncementError::Title);
        }
        if self.version.to_string().len() > MAX_VERSION_LEN {
            return Err(AnnouncementError::Version);
        }
        Ok(())
    }
}

/// An announcement with its publisher's signature, which was verified.
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
    /// If the key is not that of the package's publisher, or the announcement is one that nobody would take.
    pub fn sign(key: &Keypair, announcement: Announcement) -> Result<Self, AnnouncementError> {
        announcement.check()?;
        if announcement.package.publisher_key()? != key.public() {
            return Err(AnnouncementError::ForeignKey);
        }
        let bytes = seal(KIND, key, &announcement)?;
        Ok(Self { announcement, bytes })
    }

    /// Reads an announcement. Whether it is new and in time is for the [`AnnouncementValidator`](super::AnnouncementValidator).
    ///
    /// # Errors
    ///
    /// If it is not an announcement that the publisher of the package it names has signed.
    pub fn verify(bytes: &[u8]) -> Result<Self, AnnouncementError> {
        let (announcement, key) = unseal::<Announcement>(KIND, bytes)?;
        announcement.check()?;
        if announcement.package.publisher_key()? != key {
            return Err(AnnouncementError::ForeignKey);
        }
        Ok(Self { announcement, bytes: bytes.to_owned() })
    }

    /// What was signed.
    pub fn announcement(&self) -> &Announcement {
        &self.announcement
    }

    /// The envelope, as it is sent.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Why some bytes are no announcement. They are forged or damaged, and of no use to anybody.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AnnouncementError {
    /// They are no signed announcement.
    #[error("this is no signed announcement")]
    Envelope(#[from] EnvelopeError),
    /// Of a version that this program does not know.
    #[error("the announcement has version {found} of the document")]
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
    /// The title is too long, or has control characters in it.
    #[error("a title is at most {MAX_TITLE_LEN} bytes without control characters")]
    Title,
    /// The version is too long.
    #[error("a version is at most {MAX_VERSION_LEN} bytes")]
    Version,
    /// Somebody else than the package's publisher has signed it.
    #[error("the announcement is not signed by the package's publisher")]
    ForeignKey,
    /// The package's id has no key in it.
    #[error(transparent)]
    Package(#[from] PackageIdError),
}
