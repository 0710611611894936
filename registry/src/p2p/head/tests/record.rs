//! Tests of heads as bytes, of their keys, and of their validator.

use std::{cmp::Ordering, time::Instant};

use kadence::Validator;
use libp2p::{core::SignedEnvelope, kad::RecordKey};
use proptest::{prelude::*, sample::Index};

use super::*;
use crate::p2p::EnvelopeError;

#[test]
fn a_signed_head_can_be_verified() {
    for head in chain(3) {
        assert_eq!(SignedHead::verify(head.bytes(), &package()), Ok(head.clone()));
        assert_eq!(SignedHead::verify_key(head.bytes(), &dht_key(&package()).unwrap()), Ok(head.clone()));
        assert_eq!(SignedHead::verify_any(head.bytes()), Ok(head.clone()));
        assert!(head.bytes().len() < 1000, "{}", head.bytes().len());
    }
}

#[test]
fn a_record_key_is_short_printable_and_stable() {
    let key = dht_key(&package()).unwrap();
    let text = std::str::from_utf8(key.as_ref()).unwrap();
    assert_eq!(text.len(), "/pkg/".len() + 43);
    assert!(text.len() <= 50 && text.starts_with("/pkg/") && !text[5..].contains('/'), "{text}");
    // Computed with other tools.
    assert_eq!(text, "/pkg/nP_kjwFFD0dsfe121wJqUi6vWSCLcyM9kWpqwO4_0gQ");
    let others = [package_of(&keypair(2), "left-pad"), package_of(&keypair(1), "left-pad2")];
    for other in others {
        assert_ne!(dht_key(&other).unwrap(), key);
    }
}

#[test]
fn a_record_expires_with_its_head() {
    let head = after(None, "index");
    let instant = Instant::now();
    let record = head.to_record(now(), instant).unwrap();
    assert_eq!((record.key.clone(), record.value.as_slice()), (dht_key(&package()).unwrap(), head.bytes()));
    assert_eq!(record.expires, Some(instant + Lifetime::default().validity));
    assert_eq!(HeadValidator.validate(&record.key, &record.value), Ok(()));
    assert_eq!(head.to_record(now() + 31 * DAY, instant).unwrap().expires, Some(instant));
}

#[test]
fn attack_altered_head_every_byte_counts() {
    let head = after(None, "index");
    for position in 0..head.bytes().len() {
        for flip in [1, 0x80] {
            let mut bytes = head.bytes().to_owned();
            bytes[position] ^= flip;
            assert!(SignedHead::verify(&bytes, &package()).is_err(), "byte {position}");
        }
    }
    for len in 0..head.bytes().len() {
        assert!(SignedHead::verify(&head.bytes()[..len], &package()).is_err(), "{len} bytes");
    }
}

#[test]
fn attack_forged_head_is_rejected() {
    let head = after(None, "index").head().clone();
    let foreign = keypair(2);
    assert_eq!(SignedHead::sign(&foreign, head.clone()), Err(HeadError::ForeignKey));
    // `sign` rejects this, but an attacker would not use it.
    let json = serde_json::to_vec(&head).unwrap();
    let bytes = seal(&foreign, "kadence-package-head", "/kadence/package-head/1", &json);
    assert_eq!(SignedHead::verify(&bytes, &package()), Err(HeadError::ForeignKey));
    assert_eq!(SignedHead::verify_any(&bytes), Err(HeadError::ForeignKey));
    let key = dht_key(&package()).unwrap();
    assert!(HeadValidator.validate(&key, &bytes).is_err());
}

#[test]
fn attack_wrong_name_a_head_of_another_package_is_rejected() {
    let head = after(None, "index");
    let other = package_of(&keypair(1), "right-pad");
    let refusal = Err(HeadError::OtherPackage { found: Box::new(package()) });
    assert_eq!(SignedHead::verify(head.bytes(), &other), refusal);
    assert_eq!(SignedHead::verify_key(head.bytes(), &dht_key(&other).unwrap()), refusal);
    assert!(HeadValidator.validate(&dht_key(&other).unwrap(), head.bytes()).is_err());
    assert_eq!(HeadValidator.validate(&dht_key(&package()).unwrap(), head.bytes()), Ok(()));
}

#[test]
fn attack_signature_of_another_kind_is_rejected() {
    let json = serde_json::to_vec(after(None, "index").head()).unwrap();
    let other_domain = seal(&keypair(1), "libp2p-peer-record", "/kadence/package-head/1", &json);
    let other_type = seal(&keypair(1), "kadence-package-head", "/kadence/announcement/1", &json);
    for bytes in [other_domain, other_type] {
        assert_eq!(SignedHead::verify(&bytes, &package()), Err(EnvelopeError::Signature.into()));
    }
}

#[test]
fn attack_second_name_a_head_in_another_encoding_is_rejected() {
    let head = after(None, "index");
    // An unknown field: decoders skip it, and it is not signed.
    let mut bytes = head.bytes().to_owned();
    bytes.extend([0x78, 1]);
    assert!(SignedEnvelope::from_protobuf_encoding(&bytes).is_ok());
    assert_eq!(SignedHead::verify(&bytes, &package()), Err(EnvelopeError::NotCanonical.into()));
}

#[test]
fn attack_oversize_head_is_not_decoded() {
    let bytes = vec![0; MAX_HEAD_LEN + 1];
    let refusal = EnvelopeError::TooLong { len: MAX_HEAD_LEN + 1, max: MAX_HEAD_LEN };
    assert_eq!(SignedHead::verify(&bytes, &package()), Err(refusal.into()));
    // A signed envelope as well, which could be decoded.
    let mut json = serde_json::to_vec(after(None, "index").head()).unwrap();
    json.resize(MAX_HEAD_LEN, b' ');
    let bytes = seal(&keypair(1), "kadence-package-head", "/kadence/package-head/1", &json);
    assert!(matches!(SignedHead::verify(&bytes, &package()), Err(HeadError::Envelope(EnvelopeError::TooLong { .. }))));
    assert_eq!(SignedHead::verify(&vec![0; MAX_HEAD_LEN], &package()), Err(EnvelopeError::Encoding.into()));
}

#[test]
fn invalid_heads_are_neither_signed_nor_accepted() {
    let good = after(None, "index").head().clone();
    let cases = [
        (Head { schema: 2, ..good.clone() }, HeadError::Schema { found: 2 }),
        (Head { seq: 0, ..good.clone() }, HeadError::Sequence { seq: 0 }),
        (Head { seq: MAX_SEQ + 1, ..good.clone() }, HeadError::Sequence { seq: MAX_SEQ + 1 }),
        (Head { seq: u64::MAX, ..good.clone() }, HeadError::Sequence { seq: u64::MAX }),
        (Head { seq: 2, ..good.clone() }, HeadError::Chain),
        (Head { prev: Some(ContentId::of(b"x")), ..good.clone() }, HeadError::Chain),
        (Head { index_size: 0, ..good.clone() }, HeadError::IndexSize { size: 0 }),
        (
            Head { index_size: MAX_HEAD_INDEX_LEN + 1, ..good.clone() },
            HeadError::IndexSize { size: MAX_HEAD_INDEX_LEN + 1 },
        ),
    ];
    for (head, error) in cases {
        assert_eq!(SignedHead::sign(&keypair(1), head.clone()), Err(error.clone()));
        let json = serde_json::to_vec(&head).unwrap();
        let bytes = seal(&keypair(1), "kadence-package-head", "/kadence/package-head/1", &json);
        assert_eq!(SignedHead::verify(&bytes, &package()), Err(error));
    }
    let unknown = serde_json::to_string(&good).unwrap().replacen('{', "{\"more\":1,", 1);
    for json in [unknown.as_str(), "[]", "{}", "", "null"] {
        let bytes = seal(&keypair(1), "kadence-package-head", "/kadence/package-head/1", json.as_bytes());
        let error = SignedHead::verify(&bytes, &package()).unwrap_err();
        assert!(matches!(error, HeadError::Envelope(EnvelopeError::Document(_))), "{error}");
    }
}

#[test]
fn a_validator_prefers_the_higher_number_then_the_later_expiry_then_the_larger_bytes() {
    let key = dht_key(&package()).unwrap();
    let heads = chain(2);
    assert_eq!(HeadValidator.compare(&key, heads[1].bytes(), heads[0].bytes()), Ordering::Greater);
    let later = after_at(None, "index 0", now() + DAY);
    assert_eq!(HeadValidator.compare(&key, later.bytes(), heads[0].bytes()), Ordering::Greater);
    assert_eq!(HeadValidator.compare(&key, heads[1].bytes(), later.bytes()), Ordering::Greater);
    let conflicting = after(None, "another index");
    let by_bytes = conflicting.bytes().cmp(heads[0].bytes());
    assert_eq!(HeadValidator.compare(&key, conflicting.bytes(), heads[0].bytes()), by_bytes);
    assert_eq!(HeadValidator.compare(&key, &[0xff; 900], heads[0].bytes()), Ordering::Less);
}

/// Returns heads with various numbers and expiries, conflicting ones, and invalid bytes.
fn candidates() -> Vec<Vec<u8>> {
    let mut all: Vec<_> = chain(4).iter().map(|head| head.bytes().to_owned()).collect();
    for (index, days) in [("a", 0), ("b", 0), ("c", 3), ("d", 3)] {
        all.push(after_at(None, index, now() + days * DAY).bytes().to_owned());
    }
    all.push(b"nothing".to_vec());
    all.push(vec![0xff; 5000]);
    let foreign = package_of(&keypair(2), "left-pad");
    let head = Head { package: foreign, ..after(None, "index").head().clone() };
    all.push(SignedHead::sign(&keypair(2), head).unwrap().bytes().to_owned());
    all
}

fn best<'a>(key: &RecordKey, candidates: &[&'a [u8]]) -> &'a [u8] {
    candidates.iter().copied().max_by(|left, right| HeadValidator.compare(key, left, right)).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn all_readers_choose_the_same_head(picks in prop::collection::vec(any::<Index>(), 1..8), turn in any::<Index>()) {
        let key = dht_key(&package()).unwrap();
        let candidates = candidates();
        let mut chosen: Vec<&[u8]> = picks.iter().map(|pick| pick.get(&candidates).as_slice()).collect();
        let first = best(&key, &chosen);
        let by = turn.index(chosen.len());
        chosen.rotate_left(by);
        prop_assert_eq!(best(&key, &chosen), first);
        chosen.reverse();
        prop_assert_eq!(best(&key, &chosen), first);
    }

    #[test]
    fn the_order_is_total(a in any::<Index>(), b in any::<Index>(), c in any::<Index>()) {
        let key = dht_key(&package()).unwrap();
        let candidates = candidates();
        let compare = |left: Index, right: Index| {
            HeadValidator.compare(&key, left.get::<Vec<u8>>(&candidates), right.get::<Vec<u8>>(&candidates))
        };
        prop_assert_eq!(compare(a, b), compare(b, a).reverse());
        prop_assert_eq!(compare(a, b) == Ordering::Equal, a.get::<Vec<u8>>(&candidates) == b.get::<Vec<u8>>(&candidates));
        if compare(a, b).is_ge() && compare(b, c).is_ge() {
            prop_assert!(compare(a, c).is_ge());
        }
    }

    #[test]
    fn any_bytes_are_an_error(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        prop_assert!(SignedHead::verify(&bytes, &package()).is_err());
    }
}

fn seal(key: &Keypair, domain: &str, payload_type: &str, payload: &[u8]) -> Vec<u8> {
    SignedEnvelope::new(key, domain.to_owned(), payload_type.as_bytes().to_owned(), payload.to_owned())
        .unwrap()
        .into_protobuf_encoding()
}
