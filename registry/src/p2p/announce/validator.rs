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

/// Maximum time by which an announcement may be ahead of the local clock.
///
/// One that is further ahead is ignored, and only one that is ahead by more than twice this time is rejected. With a
/// single limit, a node would forward an announcement just within it, and a neighbour whose clock is a little behind
/// would blame the node for it.
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
    /// Maximum age. Older announcements are not forwarded. Default: one day, in which an announcement reaches all of a
    /// network that was partitioned.
    pub max_age: Duration,
    /// Rate of the announcements of one publisher. Default: 30 at once, as many as one large project has packages, then
    /// one in 10 s.
    pub per_publisher: Rate,
    /// Rate of the announcements of unknown publishers that come through one neighbour. Unlike a connection, a new key
    /// costs an attacker nothing. Default: 20 at once, then one a second.
    pub unknown_publishers: Rate,
    /// Rate of the messages that are read from one neighbour. Default: 500 at once, then 40 a second.
    pub per_forwarder: Rate,
    /// Total rate of the announcements that are accepted, and so forwarded. It is well below `per_forwarder`, so that
    /// an honest node never sends more than its neighbours read. Default: 300 at once, then 25 a second.
    ///
    /// The first half of the burst is open to all. The second half is available only within the limits of
    /// [`reserved_per_forwarder`](Self::reserved_per_forwarder), and its last part, a quarter of the burst, only to
    /// publishers that are known.
    pub total: Rate,
    /// Rate that each neighbour has of the reserved part of `total`, even if others use up the open part. Default: 6 at
    /// once, then 2 a second. With the 12 neighbours that a mesh has at most, this is within a quarter of the burst of
    /// `total`, and within its rate.
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

/// Message from gossipsub.
#[derive(Debug, Clone, Copy)]
pub struct GossipMessage<'a> {
    /// Neighbour that sent the message.
    pub forwarder: PeerId,
    /// Peer that signed the message as its first sender: a provider of the package.
    pub source: Option<PeerId>,
    /// Data of the message.
    pub bytes: &'a [u8],
}

/// Validates announcements before gossipsub forwards them.
///
/// An announcement must be signed by the publisher of its package, recent, and newer than the known one. Rate limits
/// apply in this order: per forwarder, per unknown publisher, per publisher, in total. A neighbour that floods the
/// node, with any number of keys, leaves the [reserved](AnnouncementValidatorConfig::reserved_per_forwarder) rates of
/// the others free.
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

    /// Validates a message. An accepted announcement is added to `discovered`.
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
    /// The announcement is valid and new: it is forwarded.
    Accept(Box<SignedAnnouncement>),
    /// The message is not forwarded. An honest neighbour may have sent it.
    Ignore(IgnoreReason),
    /// The message is not forwarded and counts against the neighbour: honest ones do not send it.
    Reject(RejectReason),
}

impl ValidationResult {
    /// Returns the verdict for gossipsub.
    pub fn acceptance(&self) -> MessageAcceptance {
        match self {
            Self::Accept(_) => MessageAcceptance::Accept,
            Self::Ignore(_) => MessageAcceptance::Ignore,
            Self::Reject(_) => MessageAcceptance::Reject,
        }
    }
}

/// Reason why a message is not forwarded. It does not count against the neighbour that sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum IgnoreReason {
    /// The neighbour exceeds [`per_forwarder`](AnnouncementValidatorConfig::per_forwarder). The message was not read.
    /// An honest neighbour with other limits may do this, so it is not blamed.
    #[error("rate limit of the forwarding neighbour exceeded")]
    ForwarderRate,
    /// The [`total`](AnnouncementValidatorConfig::total) rate is used up, and so is the neighbour's reserved rate.
    #[error("total rate limit exceeded")]
    TotalRate,
    /// The announcement is not newer than the one that is known. After a [`Conflict`](Freshness::Conflict), compare the
    /// head in the DHT.
    #[error("announcement is not newer than the known one")]
    NotNewer(Freshness),
    /// The timestamp is ahead by more than [`MAX_AHEAD`], but by no more than twice that.
    #[error("announcement is dated in the future: {published_at} (seconds since 1970)")]
    Future {
        /// Timestamp in the announcement, in seconds since 1970.
        published_at: u64,
    },
    /// The announcement is older than [`max_age`](AnnouncementValidatorConfig::max_age).
    #[error("announcement is too old: {published_at} (seconds since 1970)")]
    TooOld {
        /// Timestamp in the announcement, in seconds since 1970.
        published_at: u64,
    },
    /// The neighbour exceeds [`unknown_publishers`](AnnouncementValidatorConfig::unknown_publishers).
    #[error("rate limit of the neighbour for unknown publishers exceeded")]
    UnknownPublisherRate,
    /// The publisher exceeds [`per_publisher`](AnnouncementValidatorConfig::per_publisher).
    #[error("rate limit of the publisher exceeded")]
    PublisherRate,
}

/// Reason why a message is not forwarded and counts against the neighbour that sent it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RejectReason {
    /// The message is not a valid announcement.
    #[error(transparent)]
    Invalid(#[from] AnnouncementError),
    /// The timestamp is ahead by more than twice [`MAX_AHEAD`].
    #[error("announcement is dated far in the future: {published_at} (seconds since 1970)")]
    Future {
        /// Timestamp in the announcement, in seconds since 1970.
        published_at: u64,
    },
}
