//! Announcements of new versions, which publishers broadcast over gossipsub.
//!
//! An announcement is a hint: it makes a package known, and tells readers to look for a newer head. Only the head
//! record in the DHT is authoritative.
//!
//! Every message passes an [`AnnouncementValidator`] before it is forwarded, and accepted ones are added to
//! [`Discovered`]. A node that joins later asks its peers for their [catalogue](CataloguePage).

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
