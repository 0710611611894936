//! Tests of the validator: what is forwarded, and the rate limits.

use libp2p_gossipsub::MessageAcceptance;

use super::*;
use crate::p2p::{EnvelopeError, head::MAX_JUMP};

struct Node {
    validator: AnnouncementValidator,
    discovered: Discovered,
}

impl Node {
    fn new() -> Self {
        Self { validator: AnnouncementValidator::default(), discovered: Discovered::new(1) }
    }

    fn receive(&mut self, from: u32, announcement: &SignedAnnouncement, now: SystemTime) -> ValidationResult {
        self.receive_bytes(from, announcement.bytes(), now)
    }

    fn receive_bytes(&mut self, from: u32, bytes: &[u8], now: SystemTime) -> ValidationResult {
        let message = GossipMessage { forwarder: peer(from), source: Some(peer(99)), bytes };
        self.validator.validate(&mut self.discovered, message, now)
    }
}

#[test]
fn new_announcements_are_forwarded_once_and_listed_with_their_source() {
    let mut node = Node::new();
    let announcement = signed(1, "left-pad", 3);
    let verdict = node.receive(1, &announcement, at(NOW));
    assert_eq!(verdict, ValidationResult::Accept(Box::new(announcement.clone())));
    assert_eq!(verdict.acceptance(), MessageAcceptance::Accept);
    let known = node.discovered.get(&package_of(1, "left-pad")).unwrap();
    assert_eq!(known.newest, announcement);
    assert_eq!(known.providers, [PackageProvider { peer: peer(99), seen_at: at(NOW) }]);
    let verdict = node.receive(2, &announcement, at(NOW + 1));
    assert_eq!(verdict, ValidationResult::Ignore(IgnoreReason::NotNewer(Freshness::Same)));
    assert_eq!(verdict.acceptance(), MessageAcceptance::Ignore);
    assert_eq!(node.receive(2, &signed(1, "left-pad", 4), at(NOW + 2)).acceptance(), MessageAcceptance::Accept);
}

#[test]
fn attack_replayed_announcements_are_not_forwarded_and_cost_their_publisher_nothing() {
    let mut node = Node::new();
    for seq in 1..=5 {
        assert_eq!(node.receive(1, &signed(1, "left-pad", seq), at(NOW)).acceptance(), MessageAcceptance::Accept);
    }
    let old = signed(1, "left-pad", 4);
    for _ in 0..100 {
        let verdict = node.receive(2, &old, at(NOW));
        assert_eq!(verdict, ValidationResult::Ignore(IgnoreReason::NotNewer(Freshness::Older { known: 5 })));
    }
    // 25 tokens of the burst of 30 are left.
    for seq in 6..=30 {
        assert_eq!(node.receive(1, &signed(1, "left-pad", seq), at(NOW)).acceptance(), MessageAcceptance::Accept);
    }
}

#[test]
fn attack_forged_announcements_count_against_their_forwarder() {
    let mut node = Node::new();
    let mut bytes = signed(1, "left-pad", 3).bytes().to_owned();
    *bytes.last_mut().unwrap() ^= 1;
    let verdict = node.receive_bytes(1, &bytes, at(NOW));
    assert_eq!(verdict, ValidationResult::Reject(RejectReason::Invalid(EnvelopeError::Signature.into())));
    assert_eq!(verdict.acceptance(), MessageAcceptance::Reject);
    assert!(node.discovered.is_empty());
}

#[test]
fn attack_oversize_announcement_is_rejected_before_decoding() {
    let verdict = Node::new().receive_bytes(1, &vec![0; MAX_ANNOUNCEMENT_LEN + 1], at(NOW));
    let error = EnvelopeError::TooLong { len: MAX_ANNOUNCEMENT_LEN + 1, max: MAX_ANNOUNCEMENT_LEN };
    assert_eq!(verdict, ValidationResult::Reject(RejectReason::Invalid(error.into())));
}

#[test]
fn attack_future_time_is_not_forwarded() {
    let ahead = MAX_AHEAD.as_secs();
    let cases = [
        (NOW + ahead, MessageAcceptance::Accept),
        (NOW + ahead + 1, MessageAcceptance::Ignore),
        (NOW + 2 * ahead, MessageAcceptance::Ignore),
        (NOW + 2 * ahead + 1, MessageAcceptance::Reject),
        (u64::MAX, MessageAcceptance::Reject),
    ];
    for (published_at, acceptance) in cases {
        let mut node = Node::new();
        assert_eq!(node.receive(1, &signed_at(1, "left-pad", published_at), at(NOW)).acceptance(), acceptance);
        assert_eq!(node.discovered.len(), usize::from(acceptance == MessageAcceptance::Accept));
    }
}

#[test]
fn announcements_older_than_a_day_are_not_forwarded() {
    let day = 24 * 60 * 60;
    let mut node = Node::new();
    let old = signed_at(1, "old", NOW - day - 1);
    assert_eq!(
        node.receive(1, &old, at(NOW)),
        ValidationResult::Ignore(IgnoreReason::TooOld { published_at: NOW - day - 1 })
    );
    assert_eq!(node.receive(1, &signed_at(1, "new", NOW - day), at(NOW)).acceptance(), MessageAcceptance::Accept);
    let mut validator = AnnouncementValidator::new(AnnouncementValidatorConfig {
        max_age: Duration::from_secs(60),
        ..AnnouncementValidatorConfig::default()
    });
    let old = signed_at(1, "x", NOW - 61);
    let message = GossipMessage { forwarder: peer(1), source: None, bytes: old.bytes() };
    assert_eq!(validator.validate(&mut node.discovered, message, at(NOW)).acceptance(), MessageAcceptance::Ignore);
}

#[test]
fn attack_equivocation_another_head_with_a_known_number_is_a_conflict() {
    let mut node = Node::new();
    node.receive(1, &signed(1, "left-pad", 3), at(NOW));
    let conflicting = Announcement { head: ContentId::of(b"another"), ..unsigned(1, "left-pad", 3) };
    let conflicting = SignedAnnouncement::sign(&keypair(1), conflicting).unwrap();
    let known = unsigned(1, "left-pad", 3).head;
    assert_eq!(
        node.receive(2, &conflicting, at(NOW)),
        ValidationResult::Ignore(IgnoreReason::NotNewer(Freshness::Conflict { known }))
    );
}

#[test]
fn attack_fast_forward_announcement_does_not_hide_later_ones() {
    let mut node = Node::new();
    node.receive(1, &signed(1, "left-pad", 3), at(NOW));
    let verdict = node.receive(1, &signed(1, "left-pad", 4 + MAX_JUMP), at(NOW));
    assert_eq!(verdict, ValidationResult::Ignore(IgnoreReason::NotNewer(Freshness::FastForward { known: 3 })));
    assert_eq!(node.receive(1, &signed(1, "left-pad", 4), at(NOW)).acceptance(), MessageAcceptance::Accept);
}

#[test]
fn attack_spam_of_one_publisher_is_stopped_by_its_own_limit() {
    let mut node = Node::new();
    let accepted = (1..=100)
        .filter(|seq| node.receive(1, &signed(1, "spam", *seq), at(NOW)).acceptance() == MessageAcceptance::Accept)
        .count();
    assert_eq!(accepted, 30);
    assert_eq!(
        node.receive(1, &signed(1, "spam", 101), at(NOW)),
        ValidationResult::Ignore(IgnoreReason::PublisherRate)
    );
    // Other publishers through the same neighbour.
    assert_eq!(node.receive(1, &signed(2, "left-pad", 1), at(NOW)).acceptance(), MessageAcceptance::Accept);
    // One more token after ten seconds.
    assert_eq!(node.receive(1, &signed(1, "spam", 102), at(NOW + 10)).acceptance(), MessageAcceptance::Accept);
    assert_eq!(node.receive(1, &signed(1, "spam", 103), at(NOW + 10)).acceptance(), MessageAcceptance::Ignore);
}

#[test]
fn attack_spam_ten_thousand_messages_of_many_keys_do_not_stop_honest_announcements() {
    let mut node = Node::new();
    let (spammer, neighbour) = (1, 2);
    // Known before. Its later announcements may arrive through the spammer.
    assert_eq!(node.receive(neighbour, &signed(500, "known", 1), at(NOW)).acceptance(), MessageAcceptance::Accept);
    let (mut accepted, mut unread, mut honest) = (0, 0, 0);
    for number in 0..10_000_u32 {
        // 1,000 messages a second.
        let now = at(NOW) + Duration::from_millis(u64::from(number));
        // A publisher costs the spammer nothing. 250 keys are reused, as making 10,000 would slow down this test.
        let verdict = node.receive(spammer, &signed(1000 + number % 250, &format!("spam-{number}"), 1), now);
        match verdict {
            ValidationResult::Accept(_) => accepted += 1,
            ValidationResult::Ignore(IgnoreReason::ForwarderRate) => unread += 1,
            _ => {}
        }
        if number % 1000 == 999 {
            let step = u64::from(number / 1000);
            // An unknown publisher through an honest neighbour, and a known one: within the reserved rate.
            let newcomer = signed(600 + number / 1000, "honest", 1);
            assert_eq!(node.receive(neighbour, &newcomer, now).acceptance(), MessageAcceptance::Accept, "{number}");
            assert_eq!(
                node.receive(neighbour, &signed(500, "known", 2 + step), now).acceptance(),
                MessageAcceptance::Accept
            );
            honest += 2;
        }
    }
    assert_eq!(honest, 20);
    // The rate of the forwarder: 500 at once and 40 a second, for ten seconds.
    assert!(unread > 9_000, "{unread}");
    // The total rate: half of 300, the reserved rate of the spammer, and 25 a second.
    assert!(accepted <= 150 + 6 + 250, "{accepted}");
}

#[test]
fn attack_spam_through_many_neighbours_does_not_turn_an_honest_relay_into_a_flooder() {
    let (mut relay, mut neighbour) = (Node::new(), Node::new());
    // Publishers that all nodes know, so that only the total limits apply.
    let keys = 100_u32;
    for key in 0..keys {
        let first = signed(1000 + key, "spam", 1);
        for node in [&mut relay, &mut neighbour] {
            node.discovered.add(&first, peer(99), at(NOW));
        }
    }
    // Twelve neighbours together, each sending as much as one may, at once and then for ten seconds.
    let (mut forwarded, mut rejected) = (0, 0);
    for number in 0..3_000_u32 {
        let now = at(NOW) + Duration::from_millis(u64::from(number / 300) * 1_000);
        let news = signed(1000 + number % keys, "spam", u64::from(2 + number / keys));
        if let ValidationResult::Accept(_) = relay.receive(number % 12, &news, now) {
            forwarded += 1;
            match neighbour.receive(50, &news, now) {
                ValidationResult::Reject(_) | ValidationResult::Ignore(IgnoreReason::ForwarderRate) => rejected += 1,
                _ => {}
            }
        }
    }
    assert_eq!(rejected, 0);
    assert!((300..=300 + 9 * 25).contains(&forwarded), "{forwarded}");
    let AnnouncementValidatorConfig { per_forwarder, total, reserved_per_forwarder: reserve, .. } =
        AnnouncementValidatorConfig::default();
    assert!(total.burst * 3 / 2 <= per_forwarder.burst && total.every * 2 >= per_forwarder.every * 3);
    assert!(
        reserve.burst * 12 <= total.burst / 4 && reserve.every >= total.every * 12,
        "the reserved rates of a mesh fit into the total"
    );
}

#[test]
fn attack_spam_through_many_neighbours_leaves_room_for_known_publishers() {
    let mut node = Node::new();
    node.receive(1, &signed(500, "known", 1), at(NOW));
    // More neighbours than a mesh has, each with as many unknown publishers as it may bring.
    let mut accepted = 0;
    for number in 0..1_200_u32 {
        let verdict = node.receive(10 + number % 60, &signed(1000 + number, "spam", 1), at(NOW));
        accepted += usize::from(matches!(verdict, ValidationResult::Accept(_)));
    }
    assert_eq!(accepted, 300 - 75 - 1);
    assert_eq!(
        node.receive(2, &signed(501, "newcomer", 1), at(NOW)),
        ValidationResult::Ignore(IgnoreReason::TotalRate)
    );
    for seq in 2..=6 {
        assert_eq!(node.receive(1, &signed(500, "known", seq), at(NOW)).acceptance(), MessageAcceptance::Accept);
    }
}

#[test]
fn attack_spam_one_neighbour_brings_few_unknown_publishers_and_known_ones_still_pass() {
    let mut node = Node::new();
    node.receive(2, &signed(500, "known", 1), at(NOW));
    let accepted = (0..100)
        .filter(|number| {
            node.receive(1, &signed(1000 + number, "spam", 1), at(NOW)).acceptance() == MessageAcceptance::Accept
        })
        .count();
    assert_eq!(accepted, 20);
    assert_eq!(
        node.receive(1, &signed(2000, "spam", 1), at(NOW)),
        ValidationResult::Ignore(IgnoreReason::UnknownPublisherRate)
    );
    // An announcement that is ignored here would be lost: gossipsub drops later copies of the message.
    assert_eq!(node.receive(1, &signed(500, "known", 2), at(NOW)).acceptance(), MessageAcceptance::Accept);
    assert_eq!(node.receive(2, &signed(2001, "honest", 1), at(NOW)).acceptance(), MessageAcceptance::Accept);
}

#[test]
fn attack_flood_is_not_read_and_not_held_against_a_relay() {
    let mut node = Node::new();
    let news = signed(1, "left-pad", 3);
    for _ in 0..500 {
        assert!(matches!(node.receive_bytes(1, b"junk", at(NOW)), ValidationResult::Reject(RejectReason::Invalid(_))));
    }
    assert_eq!(node.receive(1, &news, at(NOW)), ValidationResult::Ignore(IgnoreReason::ForwarderRate));
    assert_eq!(node.receive(2, &news, at(NOW)).acceptance(), MessageAcceptance::Accept);
}
