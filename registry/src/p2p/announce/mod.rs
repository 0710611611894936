//! Announcements: what publishers tell everybody about new versions, over gossipsub.
//!
//! An announcement is a hint. The head record is the truth, and nothing is installed without it; what an announcement does
//! is that a package is found, and that a head is looked for.
//!
//! Each message is judged by a [`AnnouncementValidator`] before it is forwarded, and what is new fills [`Discovered`]. Who joins late asks
//! peers for their [catalogue](CataloguePage).

mod catalogue;
mod discovered;
mod entries_by_peer;
mod gossip;
mod message;
mod validator;

pub use catalogue::{AddedPage, CatalogueError, CataloguePage, Cursor, MAX_PAGE_LEN, MAX_PAGES, VerifiedPage};
pub use discovered::{
    Discovered, DiscoveredPackage, Freshness, MAX_DISCOVERED, MAX_PACKAGE_PROVIDERS, MAX_PER_PUBLISHER, PackageProvider,
};
pub use gossip::{
    DEFAULT_TOPIC, MAX_TRANSMIT_LEN, gossip_config, message_id, peer_score_params, peer_score_thresholds,
};
pub use message::{
    Announcement, AnnouncementError, MAX_ANNOUNCEMENT_LEN, MAX_TITLE_LEN, MAX_VERSION_LEN, SignedAnnouncement,
};
pub use validator::{
    AnnouncementValidator, AnnouncementValidatorConfig, GossipMessage, IgnoreReason, MAX_AHEAD, RejectReason,
    ValidationResult,
};

pub use super::token_bucket::Rate;

#[cfg(test)]
mod tests;
