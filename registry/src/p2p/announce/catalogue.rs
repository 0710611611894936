use std::time::SystemTime;

use libp2p_identity::PeerId;
use thiserror::Error;

use super::{Discovered, Freshness, MAX_AHEAD, MAX_ANNOUNCEMENT_LEN, MAX_DISCOVERED, SignedAnnouncement};
use crate::{PackageId, unix};

/// The longest page, in bytes: some three hundred announcements, a few milliseconds of signatures.
pub const MAX_PAGE_LEN: usize = 256 * 1024;

/// How many pages the longest catalogue has: who asks for pages stops after so many.
pub const MAX_PAGES: usize = (MAX_DISCOVERED * (MAX_ANNOUNCEMENT_LEN + LENGTH)).div_ceil(MAX_PAGE_LEN) + 1;

/// The first byte of a page.
const FORMAT: u8 = 1;

/// The length before each announcement.
const LENGTH: usize = 2;

/// The format, the cursor, and whether there is more.
const HEADER: usize = 1 + Cursor::LEN + 1;

/// A place in a peer's catalogue, up to which it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cursor {
    epoch: u64,
    number: u64,
}

impl Cursor {
    /// The length of a cursor as bytes.
    pub const LEN: usize = 16;

    /// As it is sent.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        ((u128::from(self.epoch) << 64) | u128::from(self.number)).to_be_bytes()
    }

    /// As it was sent.
    pub fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        let both = u128::from_be_bytes(bytes);
        let low = both & u128::from(u64::MAX);
        Self { epoch: u64::try_from(both >> 64).unwrap_or_default(), number: u64::try_from(low).unwrap_or_default() }
    }
}

/// A part of what a peer knows: the newest announcement of each package, as they were signed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CataloguePage {
    /// Signed announcements. From a peer they are still to be [taken](Discovered::add_page), which verifies each of them.
    pub entries: Vec<Vec<u8>>,
    /// Where the next page begins.
    pub next: Cursor,
    /// Whether there was a next page when this one was made.
    pub has_more: bool,
}

impl CataloguePage {
    /// As it is sent.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![FORMAT];
        bytes.extend(self.next.to_bytes());
        bytes.push(u8::from(self.has_more));
        for entry in &self.entries {
            // Longer ones are not made; their length would be cut here.
            if let Ok(len) = u16::try_from(entry.len()) {
                bytes.extend(len.to_be_bytes());
                bytes.extend(entry);
            }
        }
        bytes
    }

    /// As it was sent.
    ///
    /// # Errors
    ///
    /// If it is too long, or is no page.
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

    /// Verifies each entry like an announcement, but of any age. It takes some milliseconds, and nothing but the page.
    pub fn verify(&self, now: SystemTime) -> VerifiedPage {
        let mut verified = VerifiedPage::default();
        let latest = unix::seconds(now).saturating_add(MAX_AHEAD.as_secs());
        for entry in &self.entries {
            let Ok(announcement) = SignedAnnouncement::verify(entry) else {
                verified.invalid += 1;
                continue;
            };
            // Twice, as at the gate: an honest peer's clock may be ahead.
            if announcement.announcement().published_at > latest.saturating_add(MAX_AHEAD.as_secs()) {
                verified.invalid += 1;
            } else if announcement.announcement().published_at <= latest {
                verified.announcements.push(announcement);
            }
        }
        verified
    }
}

/// What is left of a peer's page once it was [verified](CataloguePage::verify), to be
/// [taken](Discovered::add_verified_page).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VerifiedPage {
    announcements: Vec<SignedAnnouncement>,
    invalid: usize,
}

/// What came of a page.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AddedPage {
    /// The packages of which it had news.
    pub updated: Vec<PackageId>,
    /// How many of its entries no honest peer sends: more than none is bad data.
    pub invalid: usize,
}

impl Discovered {
    /// The part of the catalogue after this place. A place of another node, or of an earlier run, is the beginning.
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

    /// Takes what a peer's page has news of: [verifies](CataloguePage::verify) it, and [takes](Self::add_verified_page) it then.
    /// Whoever holds a lock on this should do the two one by one.
    pub fn add_page(&mut self, page: &CataloguePage, from: PeerId, now: SystemTime) -> AddedPage {
        self.add_verified_page(page.verify(now), from, now)
    }

    /// Takes what a verified page has news of. It counts for the peer's share of the list: see [`Discovered`].
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

/// Why some bytes are no page of a catalogue: the peer that has sent them does not keep to the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CatalogueError {
    /// The page is too long. It was not decoded.
    #[error("catalogue page too long: {len} bytes, at most {MAX_PAGE_LEN} are allowed")]
    TooLong {
        /// Length in bytes.
        len: usize,
    },
    /// Of a version that this program does not know.
    #[error("the page has format {found}")]
    Format {
        /// Its first byte.
        found: u8,
    },
    /// They end too early, or say a length that cannot be.
    #[error("this is no page of a catalogue")]
    Malformed,
}
