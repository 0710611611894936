//! Tests of announcements as bytes.

use libp2p::core::SignedEnvelope;

use super::*;
use crate::p2p::{EnvelopeError, head};

fn seal(key: &Keypair, domain: &str, payload_type: &str, payload: &[u8]) -> Vec<u8> {
    SignedEnvelope::new(key, domain.to_owned(), payload_type.as_bytes().to_owned(), payload.to_owned())
        .unwrap()
        .into_protobuf_encoding()
}

const DOMAIN: &str = "kadence-package-announcement";
const TYPE: &str = "/kadence/package-announcement/1";

#[test]
fn a_signed_announcement_can_be_verified() {
    let announcement = signed(1, "left-pad", 3);
    assert_eq!(SignedAnnouncement::verify(announcement.bytes()), Ok(announcement.clone()));
    assert_eq!(announcement.announcement(), &unsigned(1, "left-pad", 3));
}

#[test]
fn the_longest_announcement_fits() {
    let name = "n".repeat(64);
    let version = format!("{}.{}.{}-{}", u64::MAX, 1, 1, "b".repeat(39));
    let longest = Announcement {
        version: version.parse().unwrap(),
        seq: head::MAX_SEQ,
        title: "\"".repeat(MAX_TITLE_LEN),
        published_at: u64::MAX,
        ..unsigned(1, &name, 1)
    };
    assert_eq!(version.len(), MAX_VERSION_LEN);
    let signed = SignedAnnouncement::sign(&keypair(1), longest).unwrap();
    assert!(signed.bytes().len() <= MAX_ANNOUNCEMENT_LEN, "{}", signed.bytes().len());
}

#[test]
fn attack_altered_announcement_every_byte_counts() {
    let announcement = signed(1, "left-pad", 3);
    for position in 0..announcement.bytes().len() {
        let mut bytes = announcement.bytes().to_owned();
        bytes[position] ^= 1;
        assert!(SignedAnnouncement::verify(&bytes).is_err(), "byte {position}");
        assert!(SignedAnnouncement::verify(&bytes[..position]).is_err(), "{position} bytes");
    }
}

#[test]
fn attack_forged_announcement_is_rejected() {
    let announcement = unsigned(1, "left-pad", 3);
    assert_eq!(SignedAnnouncement::sign(&keypair(2), announcement.clone()), Err(AnnouncementError::ForeignKey));
    let json = serde_json::to_vec(&announcement).unwrap();
    let bytes = seal(&keypair(2), DOMAIN, TYPE, &json);
    assert_eq!(SignedAnnouncement::verify(&bytes), Err(AnnouncementError::ForeignKey));
    let as_head = seal(&keypair(1), "kadence-package-head", TYPE, &json);
    assert_eq!(SignedAnnouncement::verify(&as_head), Err(EnvelopeError::Signature.into()));
}

#[test]
fn invalid_announcements_are_neither_signed_nor_accepted() {
    let good = unsigned(1, "left-pad", 3);
    let cases = [
        (Announcement { schema: 2, ..good.clone() }, AnnouncementError::Schema { found: 2 }),
        (Announcement { seq: 0, ..good.clone() }, AnnouncementError::Sequence { seq: 0 }),
        (
            Announcement { seq: head::MAX_SEQ + 1, ..good.clone() },
            AnnouncementError::Sequence { seq: head::MAX_SEQ + 1 },
        ),
        (Announcement { title: "t".repeat(MAX_TITLE_LEN + 1), ..good.clone() }, AnnouncementError::Title),
        (Announcement { title: "\u{1b}[2J".to_owned(), ..good.clone() }, AnnouncementError::Title),
        (
            Announcement { version: format!("1.0.0-{}", "b".repeat(59)).parse().unwrap(), ..good },
            AnnouncementError::Version,
        ),
    ];
    for (announcement, error) in cases {
        assert_eq!(SignedAnnouncement::sign(&keypair(1), announcement.clone()), Err(error.clone()));
        let json = serde_json::to_vec(&announcement).unwrap();
        assert_eq!(SignedAnnouncement::verify(&seal(&keypair(1), DOMAIN, TYPE, &json)), Err(error));
    }
    let error = SignedAnnouncement::verify(&seal(&keypair(1), DOMAIN, TYPE, b"{}")).unwrap_err();
    assert!(matches!(error, AnnouncementError::Envelope(EnvelopeError::Document(_))));
    let too_large = vec![0; MAX_ANNOUNCEMENT_LEN + 1];
    let error = SignedAnnouncement::verify(&too_large).unwrap_err();
    assert!(matches!(error, AnnouncementError::Envelope(EnvelopeError::TooLong { len: 1025, max: 1024 })));
}
