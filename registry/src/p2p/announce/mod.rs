//! Announcements of packages, which publishers broadcast over gossipsub.
//!
//! An announcement names the newest [head](super::head) of a package, which is a signed record in the DHT that names
//! the list of the package's versions. An announcement is a hint: it makes a package known, and lets readers look for a
//! newer head. Only the head in the DHT is authoritative.
//!
//! [`P2PRegistry`](super::registry::P2PRegistry) passes every announcement that a neighbour forwards to it to an
//! [`AnnouncementValidator`] before gossipsub forwards it further. A neighbour is a connected peer with the same
//! gossipsub topic. Accepted announcements are added to a [`Discovered`] list. Peers ask each other for this list,
//! their [catalogue](CataloguePage), so that a node also finds packages that were announced before it joined.

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
