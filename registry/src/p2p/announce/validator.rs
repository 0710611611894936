use std::time::{Duration, SystemTime};

use libp2p::gossipsub::MessageAcceptance;
use libp2p_identity::PeerId;
use thiserror::Error;

use super::{AnnouncementError, Discovered, Freshness, Rate, SignedAnnouncement};
use crate::{
    p2p::token_bucket::{KeyedBuckets, TokenBucket},
    unix,
};

/// How far an announcement may be in the future: what clocks differ by.
///
/// One that is further ahead is not forwarded; one that is twice as far is refused. With one limit for both, an announcement
/// just within it would pass one node and be held against it by the next, whose clock is a little behind.
pub const MAX_AHEAD: Duration = Duration::from_secs(5 * 60);

/// How many neighbours have a bucket of their own: far more than a node has connections.
const MAX_FORWARDERS: usize = 1024;

/// How many publishers have a bucket of their own: more than the newcomers of ten minutes and all who are known.
const MAX_PUBLISHERS: usize = 16_384;

/// What a gate lets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnnouncementValidatorConfig {
    /// Older announcements are not forwarded: a day lets them cross a network that was in two parts.
    pub max_age: Duration,
    /// Announcements of one publisher. Thirty at once are the packages of one large project.
    pub per_publisher: Rate,
    /// Announcements of publishers that nobody knows yet, from one neighbour. A key costs nothing, a connection does.
    pub unknown_publishers: Rate,
    /// Messages of any kind from one neighbour, above which they are not read.
    pub per_forwarder: Rate,
    /// What is accepted, and forwarded, in all: well below what a neighbour reads of ours, so that no honest node sends more
    /// than its neighbours take, whatever it is sent itself.
    ///
    /// While half of it is left, anybody may use it. The rest is for what each neighbour is sure of, its
    /// [share](Self::reserved_per_forwarder); and the last quarter is for publishers who are known.
    pub total: Rate,
    /// What passes of one neighbour even if others use up what is free. Twelve of them, as many as there are in a mesh, fit
    /// into a quarter of the total's burst, and into its rate.
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

/// A message as gossipsub gives it.
#[derive(Debug, Clone, Copy)]
pub struct GossipMessage<'a> {
    /// The neighbour that has sent it to us.
    pub forwarder: PeerId,
    /// Who says to have sent it first: a provider of the package.
    pub source: Option<PeerId>,
    /// The message.
    pub bytes: &'a [u8],
}

/// Judges announcements before they are forwarded.
///
/// Of each neighbour so much is read; each publisher may announce so much; only so many publishers that nobody knows come in
/// through one neighbour; and no more is forwarded in all than neighbours read. Whatever one neighbour sends, with however
/// many keys, the others still have their [shares](AnnouncementValidatorConfig::reserved_per_forwarder).
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
    /// A gate that has seen nothing.
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

    /// What is to become of a message. What is accepted is in `discovered` then.
    pub fn validate(
        &mut self,
        discovered: &mut Discovered,
        message: GossipMessage<'_>,
        now: SystemTime,
    ) -> ValidationResult {
        let GossipMessage { forwarder, source, bytes } = message;
        let time = Duration::from_millis(unix::millis(now));
        // The cheap questions first: a signature takes longer than all else.
        if !self.forwarders.try_take(forwarder, time) {
            return ValidationResult::Ignore(IgnoreReason::ForwarderRate);
        }
        let announcement = match SignedAnnouncement::verify(bytes) {
            Ok(announcement) => announcement,
            Err(error) => return ValidationResult::Reject(RejectReason::Invalid(error)),
        };
        if let Err(judged) = self.check_time(&announcement, now) {
            return judged;
        }
        match discovered.freshness(&announcement) {
            Freshness::New | Freshness::Newer => {}
            freshness @ (Freshness::Same
            | Freshness::Older { .. }
            | Freshness::Conflict { .. }
            | Freshness::FastForward { .. }) => return ValidationResult::Ignore(IgnoreReason::NotNewer(freshness)),
        }
        // Only now, so that nobody can use up a publisher's tokens by repeating what was said.
        let publisher = announcement.announcement().package.publisher();
        let is_known = discovered.knows_publisher(&publisher);
        if !is_known && !self.unknown_publishers.try_take(forwarder, time) {
            return ValidationResult::Ignore(IgnoreReason::UnknownPublisherRate);
        }
        if !self.publishers.has_token(&publisher, time) {
            return ValidationResult::Ignore(IgnoreReason::PublisherRate);
        }
        // Before the publisher's own, which is not to be used up by what is not accepted.
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

/// What is to become of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValidationResult {
    /// It is new, and is forwarded.
    Accept(Box<SignedAnnouncement>),
    /// It is not forwarded. An honest neighbour may have sent it.
    Ignore(IgnoreReason),
    /// It is not forwarded, and counts against the neighbour: no honest one sends that.
    Reject(RejectReason),
}

impl ValidationResult {
    /// What gossipsub is to be told.
    pub fn acceptance(&self) -> MessageAcceptance {
        match self {
            Self::Accept(_) => MessageAcceptance::Accept,
            Self::Ignore(_) => MessageAcceptance::Ignore,
            Self::Reject(_) => MessageAcceptance::Reject,
        }
    }
}

/// Reason for which a message is not forwarded, without blame for the neighbour that sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum IgnoreReason {
    /// The neighbour exceeds [`per_forwarder`](AnnouncementValidatorConfig::per_forwarder); the message was not read. This
    /// does not count against the neighbour, whose own limits may be higher.
    #[error("rate limit of the forwarding neighbour exceeded")]
    ForwarderRate,
    /// The [`total`](AnnouncementValidatorConfig::total) rate and the neighbour's reserve are used up.
    #[error("total rate limit exceeded")]
    TotalRate,
    /// The announcement is not newer than the one that is known. After a [`Conflict`](Freshness::Conflict), compare the head
    /// in the DHT.
    #[error("announcement is not newer than the known one")]
    NotNewer(Freshness),
    /// The timestamp is in the future by more than [`MAX_AHEAD`], but not by more than twice that: clocks may differ so much.
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

/// Reason for which a message is not forwarded and counts against the neighbour that sent it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RejectReason {
    /// The message is not a valid announcement.
    #[error(transparent)]
    Invalid(#[from] AnnouncementError),
    /// The timestamp is in the future by more than twice [`MAX_AHEAD`].
    #[error("announcement is dated far in the future: {published_at} (seconds since 1970)")]
    Future {
        /// Timestamp in the announcement, in seconds since 1970.
        published_at: u64,
    },
}
