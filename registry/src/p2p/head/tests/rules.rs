//! Tests of the checks against a checkpoint.

use super::*;

#[test]
fn a_chain_is_accepted_head_by_head() {
    let heads = chain(3);
    assert_eq!(validate_head(None, &heads[2], now()), Ok(Accepted::First));
    assert_eq!(validate_head(Some(&checkpoint(&heads[0])), &heads[1], now()), Ok(Accepted::Newer));
    assert_eq!(validate_head(Some(&checkpoint(&heads[0])), &heads[2], now()), Ok(Accepted::Newer));
    assert_eq!(validate_head(Some(&checkpoint(&heads[2])), &heads[2], now()), Ok(Accepted::Same));
}

#[test]
fn attack_replay_an_old_head_is_a_rollback() {
    let heads = chain(5);
    for old in &heads[..4] {
        let refusal = HeadRejectedError::Rollback { seen: 5, offered: old.head().seq, hash: Some(heads[4].hash()) };
        assert_eq!(validate_head(Some(&checkpoint(&heads[4])), old, now()), Err(refusal));
    }
}

#[test]
fn attack_freeze_an_expired_head_is_an_error() {
    let head = after(None, "index");
    let not_after = head.head().not_after;
    let last = UNIX_EPOCH + Duration::from_secs(not_after) + CLOCK_TOLERANCE;
    for seen in [None, Some(checkpoint(&head))] {
        assert!(validate_head(seen.as_ref(), &head, last).is_ok());
        let refusal = Err(HeadRejectedError::Expired { not_after });
        assert_eq!(validate_head(seen.as_ref(), &head, last + Duration::from_secs(1)), refusal);
        assert_eq!(validate_head(seen.as_ref(), &head, last + 1000 * DAY), refusal);
    }
}

#[test]
fn attack_freeze_a_head_cannot_be_valid_for_ever() {
    for not_after in [u64::MAX, 1_800_000_000 + (MAX_VALIDITY + CLOCK_TOLERANCE).as_secs() + 1] {
        let head = Head { not_after, ..after(None, "index").head().clone() };
        let head = SignedHead::sign(&keypair(1), head).unwrap();
        let refusal = validate_head(None, &head, now()).unwrap_err();
        assert!(matches!(refusal, HeadRejectedError::ValidTooLong { not_after: n, .. } if n == not_after), "{refusal}");
    }
    let lifetime = Lifetime { validity: MAX_VALIDITY, ttl: DAY };
    let head = next_head(&package(), None, ContentId::of(b"index"), 1, lifetime, now()).unwrap();
    assert!(validate_head(None, &SignedHead::sign(&keypair(1), head).unwrap(), now()).is_ok());
}

#[test]
fn attack_fast_forward_is_rejected() {
    let seen = checkpoint(&with_seq(7));
    for seq in [7 + MAX_JUMP + 1, MAX_SEQ] {
        let refusal = HeadRejectedError::FastForward { seen: 7, offered: seq, max_jump: MAX_JUMP };
        assert_eq!(validate_head(Some(&seen), &with_seq(seq), now()), Err(refusal));
    }
    assert_eq!(validate_head(Some(&seen), &with_seq(7 + MAX_JUMP), now()), Ok(Accepted::Newer));
    // The highest possible number cannot even be signed.
    let last = Head { seq: u64::MAX, ..with_seq(7).head().clone() };
    assert_eq!(SignedHead::sign(&keypair(1), last), Err(HeadError::Sequence { seq: u64::MAX }));
}

#[test]
fn attack_equivocation_two_heads_with_one_number_are_detected() {
    let heads = chain(3);
    let conflicting = after(Some(&heads[1]), "another index");
    let refusal = validate_head(Some(&checkpoint(&heads[2])), &conflicting, now()).unwrap_err();
    let HeadRejectedError::Equivocation { proof } = refusal else { panic!("{refusal}") };
    assert_eq!(proof.verify(), Ok(package()));
    assert_eq!((proof.first.as_slice(), proof.second.as_slice()), (heads[2].bytes(), conflicting.bytes()));
}

#[test]
fn attack_equivocation_a_chain_that_skips_the_known_head_is_detected() {
    let heads = chain(3);
    let conflicting = after(Some(&heads[1]), "another index");
    let next = after(Some(&conflicting), "its next index");
    for (seen, offered) in [(&heads[2], &next), (&next, &heads[2])] {
        let refusal = validate_head(Some(&checkpoint(seen)), offered, now()).unwrap_err();
        let HeadRejectedError::Equivocation { proof } = refusal else { panic!("{refusal}") };
        assert_eq!(proof.verify(), Ok(package()));
    }
}

#[test]
fn a_proof_proves_nothing_unless_both_heads_are_of_one_publisher_and_contradict_each_other() {
    let heads = chain(3);
    let proof = |first: &SignedHead, second: &SignedHead| EquivocationProof {
        first: first.bytes().to_owned(),
        second: second.bytes().to_owned(),
    };
    for (first, second) in [(0, 0), (0, 1), (1, 0), (0, 2)] {
        assert_eq!(proof(&heads[first], &heads[second]).verify(), Err(ProofError::NoContradiction));
        assert_eq!(EquivocationProof::of(&heads[first], &heads[second]), None);
    }
    let other = Head { package: package_of(&keypair(2), "left-pad"), ..heads[0].head().clone() };
    let other = SignedHead::sign(&keypair(2), other).unwrap();
    assert_eq!(proof(&heads[0], &other).verify(), Err(ProofError::NoContradiction));
    let mut forged = proof(&heads[0], &after(None, "another index"));
    assert_eq!(forged.verify(), Ok(package()));
    *forged.second.last_mut().unwrap() ^= 1;
    assert!(matches!(forged.verify(), Err(ProofError::Head(_))));
}

#[test]
fn a_next_head_follows_the_one_before_it() {
    let index = ContentId::of(b"index");
    let lifetime = Lifetime { validity: 7 * DAY, ttl: Duration::from_secs(60) };
    let first = next_head(&package(), None, index, 5, lifetime, now()).unwrap();
    assert_eq!((first.seq, first.prev, first.index, first.index_size), (1, None, index, 5));
    assert_eq!((first.not_after, first.ttl), (1_800_000_000 + 7 * 86_400, 60));
    let first = SignedHead::sign(&keypair(1), first).unwrap();
    let second = next_head(&package(), Some(&first), index, 5, lifetime, now()).unwrap();
    assert_eq!((second.seq, second.prev), (2, Some(first.hash())));
}

#[test]
fn an_invalid_next_head_is_not_created() {
    let index = ContentId::of(b"index");
    let lifetime = Lifetime::default();
    let make = |package: &PackageId, previous: Option<SignedHead>, size, lifetime| {
        next_head(package, previous.as_ref(), index, size, lifetime, now()).map(|head| head.seq)
    };
    let other = package_of(&keypair(1), "right-pad");
    assert_eq!(make(&other, Some(with_seq(1)), 5, lifetime), Err(NextHeadError::OtherPackage));
    assert_eq!(make(&other, None, 0, lifetime), Err(NextHeadError::IndexSize { size: 0 }));
    let long = Lifetime { validity: MAX_VALIDITY + DAY, ..lifetime };
    assert_eq!(make(&other, None, 5, long), Err(NextHeadError::Validity));
    assert_eq!(make(&package(), Some(with_seq(MAX_SEQ)), 5, lifetime), Err(NextHeadError::Ended));
    assert_eq!(make(&package(), Some(with_seq(MAX_SEQ - 1)), 5, lifetime), Ok(MAX_SEQ));
}
