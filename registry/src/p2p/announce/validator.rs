use std::time::{Duration, SystemTime};

use libp2p_gossipsub::MessageAcceptance;
use libp2p_identity::PeerId;
use thiserror::Error;

use super::{AnnouncementError, Discovered, Freshness, Rate, SignedAnnouncement};
use crate::{
    p2p::{
        setters::setters,
        token_bucket::{KeyedBuckets, TokenBucket},
    },
    unix,
};

/// Maximum time by which the timestamp of an accepted announcement may be ahead of the local clock: 5 minutes.
///
/// An announcement that is ahead by more than this time is ignored, and one that is ahead by more than twice this time
/// is rejected. With a single limit, a node would forward an announcement just within the limit, and a neighbour whose
/// clock is a little behind would blame the node.
pub const MAX_AHEAD: Duration = Duration::from_secs(5 * 60);

/// Maximum number of neighbours with a bucket of their own: far more than a node has connections.
const MAX_FORWARDERS: usize = 1024;

/// Maximum number of publishers with a bucket of their own: more than announce within the time in which a bucket fills.
const MAX_PUBLISHERS: usize = 16_384;

/// Configuration of an [`AnnouncementValidator`].
///
/// # Example
///
/// ```
/// use std::time::Duration;
///
/// use kadence_registry::p2p::announce::{AnnouncementValidatorConfig, Rate};
///
/// let config = AnnouncementValidatorConfig::default()
///     .max_age(Duration::from_secs(60 * 60))
///     .per_publisher(Rate { every: Duration::from_secs(60), burst: 5 });
/// assert_eq!(config.per_publisher.burst, 5);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct AnnouncementValidatorConfig {
    /// Maximum age of an announcement, from its timestamp to the local time. Older announcements that arrive by
    /// gossip are ignored: neither forwarded nor added to the [`Discovered`](super::Discovered) list. From a peer's
    /// catalogue, announcements of any age are accepted. Default: one day.
    pub max_age: Duration,
    /// Rate of the accepted announcements of one publisher. Default: 30 at once, then one in 10 s.
    pub per_publisher: Rate,
    /// Rate of the announcements of unknown publishers that come through one neighbour. A publisher is unknown if none
    /// of its packages is in the [`Discovered`] list. A new key costs an attacker nothing, unlike a connection.
    /// Default: 20 at once, then one a second.
    pub unknown_publishers: Rate,
    /// Rate of the messages of one neighbour that are verified, whether valid or not. Default: 500 at once, then 40 a
    /// second.
    pub per_forwarder: Rate,
    /// Rate of the accepted announcements from all neighbours together, which are the ones that this node forwards.
    /// Default: 300 at once, then 25 a second. Keep it well below `per_forwarder`, so that an honest node with the same
    /// configuration never forwards more than its neighbours verify.
    ///
    /// The first half of the burst is open to all neighbours. Of the second half, each neighbour can use only its
    /// [`reserved_per_forwarder`](field@Self::reserved_per_forwarder) rate, and the last quarter of the burst is
    /// available only for known publishers: those with a package in the [`Discovered`] list.
    pub total: Rate,
    /// Rate of each neighbour in the second half of the burst of `total`, which is available to the neighbour even if
    /// others use up the first half, as long as the neighbours together do not use up the second half, or for unknown
    /// publishers the third quarter. Default: 6 at once, then 2 a second. A gossipsub mesh has at most 12 neighbours:
    /// at this rate, all of them together need less than a quarter of the burst of `total`, and less than its rate.
    pub reserved_per_forwarder: Rate,
}

impl Default for AnnouncementValidatorConfig {
    fn default() -> Self {
        Self {
            max_age: Duration::from_secs(24 * 60 * 60),
            per_publisher: Rate { every: Duration::from_secs(10), burst: 30 },
            unknown_publishers: Rate { every: Duration::from_secs(1), burst: 20 },
            per_forwarder: Rate { every: Duration::from_millis(25), burst: 500 },
            total: Rate { every: Duration::from_millis(40), burst: 300 },
            reserved_per_forwarder: Rate { every: Duration::from_millis(500), burst: 6 },
        }
    }
}

setters!(AnnouncementValidatorConfig {
    max_age: Duration,
    per_publisher: Rate,
    unknown_publishers: Rate,
    per_forwarder: Rate,
    total: Rate,
    reserved_per_forwarder: Rate,
});

/// Message that gossipsub received, with its origin.
#[derive(Debug, Clone, Copy)]
pub struct GossipMessage<'a> {
    /// Neighbour that sent the message to this node: gossipsub's `propagation_source`.
    pub forwarder: PeerId,
    /// Peer that sent the message first, and signed it. If the announcement is accepted, this peer becomes a provider
    /// of the package. `None` adds no provider.
    pub source: Option<PeerId>,
    /// Data of the message: an encoded [`SignedAnnouncement`], if the message is valid.
    pub bytes: &'a [u8],
}

/// Validates announcements before gossipsub forwards them.
///
/// An announcement must be signed by the publisher of its package, recent, and [new or newer](Discovered::freshness).
/// Rate limits apply in this order: per forwarder, for unknown publishers per forwarder, per publisher, in total. A
/// neighbour that floods the node, with any number of keys, cannot use up the
/// [reserved](field@AnnouncementValidatorConfig::reserved_per_forwarder) rates of the other neighbours.
///
/// Limits are kept for 1,024 neighbours and 16,384 publishers at the same time. Further ones share one limit of each
/// kind.
///
/// # Example
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::{Duration, SystemTime};
///
/// use kadence_registry::{
///     ContentId, PackageId,
///     p2p::announce::{
///         Announcement, AnnouncementValidator, Discovered, GossipMessage, SignedAnnouncement, ValidationResult,
///     },
/// };
/// use libp2p_identity::Keypair;
///
/// let key = Keypair::generate_ed25519();
/// let peer = key.public().to_peer_id();
/// let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
/// let announcement = Announcement {
///     schema: Announcement::SCHEMA,
///     package: PackageId::new(peer, "left-pad".parse()?)?,
///     version: "1.0.0".parse()?,
///     seq: 1,
///     head: ContentId::of(b"head"),
///     index: ContentId::of(b"index"),
///     title: "Pads strings".to_owned(),
///     published_at: 1_800_000_000,
/// };
/// let signed = SignedAnnouncement::sign(&key, announcement)?;
///
/// let mut validator = AnnouncementValidator::default();
/// let mut discovered = Discovered::new(1);
/// let message = GossipMessage { forwarder: peer, source: Some(peer), bytes: signed.bytes() };
/// let first = validator.validate(&mut discovered, message, now);
/// assert!(matches!(first, ValidationResult::Accept(_)));
/// let again = validator.validate(&mut discovered, message, now);
/// assert!(matches!(again, ValidationResult::Ignore(_)));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct AnnouncementValidator {
    config: AnnouncementValidatorConfig,
    publishers: KeyedBuckets<PeerId>,
    unknown_publishers: KeyedBuckets<PeerId>,
    forwarders: KeyedBuckets<PeerId>,
    reserves: KeyedBuckets<PeerId>,
    total: TokenBucket,
}

impl AnnouncementValidator {
    /// Returns a validator that has seen no messages.
    pub fn new(config: AnnouncementValidatorConfig) -> Self {
        Self {
            config,
            publishers: KeyedBuckets::new(config.per_publisher, MAX_PUBLISHERS),
            unknown_publishers: KeyedBuckets::new(config.unknown_publishers, MAX_FORWARDERS),
            forwarders: KeyedBuckets::new(config.per_forwarder, MAX_FORWARDERS),
            reserves: KeyedBuckets::new(config.reserved_per_forwarder, MAX_FORWARDERS),
            total: TokenBucket::default(),
        }
    }

    /// Validates a message. An accepted announcement is added to `discovered`, with the forwarder as the peer that
    /// reported it and the source as a provider. `now` is the local time.
    pub fn validate(
        &mut self,
        discovered: &mut Discovered,
        message: GossipMessage<'_>,
        now: SystemTime,
    ) -> ValidationResult {
        let GossipMessage { forwarder, source, bytes } = message;
        let time = Duration::from_millis(unix::millis(now));
        // First, because it is cheap: verifying a signature takes longer than everything else.
        if !self.forwarders.try_take(forwarder, time) {
            return ValidationResult::Ignore(IgnoreReason::ForwarderRate);
        }
        let announcement = match SignedAnnouncement::verify(bytes) {
            Ok(announcement) => announcement,
            Err(error) => return ValidationResult::Reject(RejectReason::Invalid(error)),
        };
        if let Err(verdict) = self.check_time(&announcement, now) {
            return verdict;
        }
        match discovered.freshness(&announcement) {
            Freshness::New | Freshness::Newer => {}
            freshness @ (Freshness::Same
            | Freshness::Older { .. }
            | Freshness::Conflict { .. }
            | Freshness::FastForward { .. }) => return ValidationResult::Ignore(IgnoreReason::NotNewer(freshness)),
        }
        // After the comparison, so that repeating an announcement does not use up its publisher's rate.
        let publisher = announcement.announcement().package.publisher();
        let is_known = discovered.knows_publisher(&publisher);
        if !is_known && !self.unknown_publishers.try_take(forwarder, time) {
            return ValidationResult::Ignore(IgnoreReason::UnknownPublisherRate);
        }
        if !self.publishers.has_token(&publisher, time) {
            return ValidationResult::Ignore(IgnoreReason::PublisherRate);
        }
        // Before the publisher's token is taken, so that an announcement that is ignored costs it nothing.
        if !self.take_total(forwarder, is_known, time) {
            return ValidationResult::Ignore(IgnoreReason::TotalRate);
        }
        self.publishers.try_take(publisher, time);
        discovered.add(&announcement, forwarder, now);
        if let Some(source) = source {
            discovered.add_provider(&announcement.announcement().package, source, now);
        }
        ValidationResult::Accept(Box::new(announcement))
    }

    fn take_total(&mut self, forwarder: PeerId, is_known: bool, time: Duration) -> bool {
        let rate = self.config.total;
        if self.total.try_take_above(rate.burst / 2, rate.into(), time) {
            return true;
        }
        let kept = if is_known { 0 } else { rate.burst / 4 };
        self.reserves.try_take(forwarder, time) && self.total.try_take_above(kept, rate.into(), time)
    }

    fn check_time(&self, announcement: &SignedAnnouncement, now: SystemTime) -> Result<(), ValidationResult> {
        let (published_at, now) = (announcement.announcement().published_at, unix::seconds(now));
        let ahead = published_at.saturating_sub(now);
        if ahead > MAX_AHEAD.as_secs() * 2 {
            return Err(ValidationResult::Reject(RejectReason::Future { published_at }));
        }
        if ahead > MAX_AHEAD.as_secs() {
            return Err(ValidationResult::Ignore(IgnoreReason::Future { published_at }));
        }
        if now.saturating_sub(published_at) > self.config.max_age.as_secs() {
            return Err(ValidationResult::Ignore(IgnoreReason::TooOld { published_at }));
        }
        Ok(())
    }
}

impl Default for AnnouncementValidator {
    fn default() -> Self {
        Self::new(AnnouncementValidatorConfig::default())
    }
}

/// Verdict on a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValidationResult {
    /// The announcement is valid, and new or newer than the known one: gossipsub should forward it.
    Accept(Box<SignedAnnouncement>),
    /// The message should not be forwarded, and does not count against the neighbour: an honest one may have sent it.
    Ignore(IgnoreReason),
    /// The message should not be forwarded, and lowers the score of the neighbour: an honest neighbour sends no such
    /// message, unless one of the two clocks is wrong by minutes.
    Reject(RejectReason),
}

impl ValidationResult {
    /// Returns the verdict as gossipsub's `report_message_validation_result` takes it.
    pub fn acceptance(&self) -> MessageAcceptance {
        match self {
            Self::Accept(_) => MessageAcceptance::Accept,
            Self::Ignore(_) => MessageAcceptance::Ignore,
            Self::Reject(_) => MessageAcceptance::Reject,
        }
    }
}

/// Reason why a message is not forwarded, which does not count against the neighbour that sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum IgnoreReason {
    /// The neighbour exceeds [`per_forwarder`](field@AnnouncementValidatorConfig::per_forwarder). The message was not
    /// verified. An honest neighbour with a higher total rate may do this.
    #[error("rate limit of the forwarding neighbour exceeded")]
    ForwarderRate,
    /// The half of the burst of [`total`](field@AnnouncementValidatorConfig::total) that is open to all neighbours is
    /// used up. The other half does not help either: the neighbour's reserved rate is used up, or nothing of that half
    /// is left for this publisher.
    #[error("total rate limit exceeded")]
    TotalRate,
    /// The announcement is neither new nor newer: it is the known one, older, in conflict with the known one, or its
    /// sequence number is too far ahead. After a [`Conflict`](Freshness::Conflict), look the head up in the DHT.
    #[error("announcement is not newer than the known one")]
    NotNewer(Freshness),
    /// The timestamp is ahead of the local clock by more than [`MAX_AHEAD`], and by at most twice that time.
    #[error("announcement is dated in the future: {published_at} (seconds since 1970)")]
    Future {
        /// Timestamp in the announcement, in seconds since 1970.
        published_at: u64,
    },
    /// The announcement is older than [`max_age`](field@AnnouncementValidatorConfig::max_age).
    #[error("announcement is too old: {published_at} (seconds since 1970)")]
    TooOld {
        /// Timestamp in the announcement, in seconds since 1970.
        published_at: u64,
    },
    /// The neighbour exceeds the rate of [`unknown_publishers`](field@AnnouncementValidatorConfig::unknown_publishers).
    #[error("rate limit of the neighbour for unknown publishers exceeded")]
    UnknownPublisherRate,
    /// The publisher exceeds the rate [`per_publisher`](field@AnnouncementValidatorConfig::per_publisher).
    #[error("rate limit of the publisher exceeded")]
    PublisherRate,
}

/// Reason why a message is not forwarded, and counts against the neighbour that sent it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RejectReason {
    /// The message is not a valid announcement.
    #[error(transparent)]
    Invalid(#[from] AnnouncementError),
    /// The timestamp is ahead of the local clock by more than twice [`MAX_AHEAD`].
    #[error("announcement is dated far in the future: {published_at} (seconds since 1970)")]
    Future {
        /// Timestamp in the announcement, in seconds since 1970.
        published_at: u64,
    },
}
