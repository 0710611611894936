use std::time::SystemTime;

use libp2p_identity::PeerId;
use thiserror::Error;

use super::{Discovered, Freshness, MAX_AHEAD, MAX_ANNOUNCEMENT_LEN, MAX_DISCOVERED, SignedAnnouncement};
use crate::{PackageId, unix};

/// Maximum length of an encoded [`CataloguePage`], in bytes. A page has room for at least 255 announcements.
pub const MAX_PAGE_LEN: usize = 256 * 1024;

/// Maximum number of pages of a catalogue: one more than [`MAX_DISCOVERED`] announcements of the maximum length need.
/// [`CatalogueClient::pages`](crate::p2p::requests::CatalogueClient::pages) fails if there are more.
pub const MAX_PAGES: usize = (MAX_DISCOVERED * (MAX_ANNOUNCEMENT_LEN + LENGTH)).div_ceil(MAX_PAGE_LEN) + 1;

/// First byte of a page.
const FORMAT: u8 = 1;

/// Length of the length field before each announcement.
const LENGTH: usize = 2;

/// Length of the format, the cursor and the flag for more pages.
const HEADER: usize = 1 + Cursor::LEN + 1;

/// Position in the catalogue of a peer, up to which the catalogue was read. A cursor is valid only for the
/// [`Discovered`] list that made it. The default is the beginning of every catalogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cursor {
    epoch: u64,
    number: u64,
}

impl Cursor {
    /// Length of an encoded cursor, in bytes.
    pub const LEN: usize = 16;

    /// Encodes the cursor.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        ((u128::from(self.epoch) << 64) | u128::from(self.number)).to_be_bytes()
    }

    /// Decodes a cursor. This never fails.
    pub fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        let both = u128::from_be_bytes(bytes);
        let low = both & u128::from(u64::MAX);
        Self { epoch: u64::try_from(both >> 64).unwrap_or_default(), number: u64::try_from(low).unwrap_or_default() }
    }
}

/// Page of a catalogue. A catalogue is the list of the packages that a peer has discovered: the newest signed
/// announcement of each.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CataloguePage {
    /// Encoded [`SignedAnnouncement`]s. Those of a page from a peer can be invalid: see [`verify`](Self::verify).
    pub entries: Vec<Vec<u8>>,
    /// Position after this page, with which the next page is requested.
    pub next: Cursor,
    /// True if there was a further page when this page was made.
    pub has_more: bool,
}

impl CataloguePage {
    /// Encodes the page. Entries of 64 KiB or more are left out; the limits that [`decode`](Self::decode) checks are
    /// not applied otherwise.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![FORMAT];
        bytes.extend(self.next.to_bytes());
        bytes.push(u8::from(self.has_more));
        for entry in &self.entries {
            // Such entries do not exist: announcements are shorter.
            if let Ok(len) = u16::try_from(entry.len()) {
                bytes.extend(len.to_be_bytes());
                bytes.extend(entry);
            }
        }
        bytes
    }

    /// Decodes a page. Its entries are not verified.
    ///
    /// # Errors
    ///
    /// If the page is too long, malformed, or of an unsupported format.
    pub fn decode(bytes: &[u8]) -> Result<Self, CatalogueError> {
        if bytes.len() > MAX_PAGE_LEN {
            return Err(CatalogueError::TooLong { len: bytes.len() });
        }
        let ([format], rest) = bytes.split_first_chunk().ok_or(CatalogueError::Malformed)?;
        if *format != FORMAT {
            return Err(CatalogueError::Format { found: *format });
        }
        let (cursor, rest) = rest.split_first_chunk().ok_or(CatalogueError::Malformed)?;
        let ([more], mut rest) = rest.split_first_chunk().ok_or(CatalogueError::Malformed)?;
        let has_more = match more {
            0 => false,
            1 => true,
            _ => return Err(CatalogueError::Malformed),
        };
        let mut entries = Vec::new();
        while !rest.is_empty() {
            let (len, after) = rest.split_first_chunk().ok_or(CatalogueError::Malformed)?;
            let len = usize::from(u16::from_be_bytes(*len));
            if !(1..=MAX_ANNOUNCEMENT_LEN).contains(&len) {
                return Err(CatalogueError::Malformed);
            }
            let (entry, after) = after.split_at_checked(len).ok_or(CatalogueError::Malformed)?;
            entries.push(entry.to_owned());
            rest = after;
        }
        Ok(Self { entries, next: Cursor::from_bytes(*cursor), has_more })
    }

    /// Verifies the fields, the signature and the timestamp of each entry. `now` is the local time.
    ///
    /// Entries of any age are accepted, if they are ahead of `now` by at most [`MAX_AHEAD`]. Entries that are ahead by
    /// more, up to twice that time, are left out. Entries that are further ahead or otherwise invalid are counted: see
    /// [`AddedPage::invalid`]. A full page has hundreds of signatures, so do not hold a lock meanwhile.
    pub fn verify(&self, now: SystemTime) -> VerifiedPage {
        let mut verified = VerifiedPage::default();
        let latest = unix::seconds(now).saturating_add(MAX_AHEAD.as_secs());
        for entry in &self.entries {
            let Ok(announcement) = SignedAnnouncement::verify(entry) else {
                verified.invalid += 1;
                continue;
            };
            // Twice the tolerance, as for gossip: an honest peer whose clock is ahead has accepted it.
            if announcement.announcement().published_at > latest.saturating_add(MAX_AHEAD.as_secs()) {
                verified.invalid += 1;
            } else if announcement.announcement().published_at <= latest {
                verified.announcements.push(announcement);
            }
        }
        verified
    }
}

/// Result of [verifying](CataloguePage::verify) a page: the valid entries and the number of invalid ones, for
/// [`Discovered::add_verified_page`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VerifiedPage {
    announcements: Vec<SignedAnnouncement>,
    invalid: usize,
}

/// Result of adding a page.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AddedPage {
    /// Packages that were added to the list, or whose announcement in the list was replaced by a newer one.
    pub updated: Vec<PackageId>,
    /// Number of entries of the page that are not valid announcements, or that are ahead of the local clock by more
    /// than twice [`MAX_AHEAD`]. An honest peer sends none, if its clock is ahead of the local clock by at most
    /// [`MAX_AHEAD`].
    pub invalid: usize,
}

impl Discovered {
    /// Returns the page of this list's catalogue after a cursor. A cursor that was made by a list with another epoch
    /// (see [`new`](Self::new)) counts as the beginning.
    pub fn page(&self, after: Cursor) -> CataloguePage {
        let start = if after.epoch == self.epoch() { after.number } else { 0 };
        let mut page =
            CataloguePage { next: Cursor { epoch: self.epoch(), number: start }, ..CataloguePage::default() };
        let mut bytes = HEADER;
        for package in self.since(start) {
            bytes += LENGTH + package.newest.bytes().len();
            if bytes > MAX_PAGE_LEN {
                page.has_more = true;
                break;
            }
            page.entries.push(package.newest.bytes().to_owned());
            page.next.number = package.number;
        }
        page
    }

    /// [Verifies](CataloguePage::verify) a page and [adds](Self::add_verified_page) its new announcements. If a lock
    /// guards this list, call those two methods instead, and take the lock for the second only.
    pub fn add_page(&mut self, page: &CataloguePage, from: PeerId, now: SystemTime) -> AddedPage {
        self.add_verified_page(page.verify(now), from, now)
    }

    /// Adds those announcements of a verified page that are [new or newer](Self::freshness). They count as entries of
    /// the peer `from`, which is not added to their providers: see [`Discovered`].
    pub fn add_verified_page(&mut self, page: VerifiedPage, from: PeerId, now: SystemTime) -> AddedPage {
        let mut added = AddedPage { updated: Vec::new(), invalid: page.invalid };
        for announcement in page.announcements {
            if let Freshness::New | Freshness::Newer = self.add(&announcement, from, now) {
                added.updated.push(announcement.announcement().package.clone());
            }
        }
        added
    }
}

/// Error of decoding a page. A peer that sends such a page violates the protocol, or uses a later version of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CatalogueError {
    /// The page is longer than [`MAX_PAGE_LEN`]. It was not decoded.
    #[error("catalogue page too long: {len} bytes, at most {MAX_PAGE_LEN} are allowed")]
    TooLong {
        /// Length of the page in bytes.
        len: usize,
    },
    /// The format is not supported by this version.
    #[error("unsupported catalogue format {found}")]
    Format {
        /// Format number: the first byte of the page.
        found: u8,
    },
    /// The page ends early, or a length or a flag in it is invalid. Also the error of
    /// [`CatalogueClient`](crate::p2p::requests::CatalogueClient) for an answer that is too long or has an unknown
    /// status.
    #[error("malformed catalogue page")]
    Malformed,
}
