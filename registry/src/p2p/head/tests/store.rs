//! Tests of the head store's file.

use std::{sync::Arc, thread};

use super::*;
use crate::{DatabaseError, DatabaseOpenError};

fn store() -> (tempfile::TempDir, HeadStore) {
    let folder = tempfile::tempdir().unwrap();
    let store = HeadStore::open(&folder.path().join("heads.db")).unwrap();
    (folder, store)
}

/// Returns the first head of a package with this name.
fn first_of(name: &str) -> SignedHead {
    let head = Head { package: package_of(&keypair(1), name), ..after(None, "index").head().clone() };
    SignedHead::sign(&keypair(1), head).unwrap()
}

fn rejected<T: std::fmt::Debug>(result: Result<T, HeadStoreError>) -> HeadRejectedError {
    match result {
        Err(HeadStoreError::Rejected(rejected)) => rejected,
        other => panic!("{other:?}"),
    }
}

#[test]
fn attack_rollback_all_holders_serve_an_old_head_after_a_restart() {
    let (folder, store) = store();
    let heads = chain(20);
    assert_eq!(store.record(&heads[19]).unwrap(), Accepted::First);
    drop(store);
    let store = HeadStore::open(&folder.path().join("heads.db")).unwrap();
    for _holder in 0..20 {
        let refusal = HeadRejectedError::Rollback { seen: 20, offered: 19, hash: Some(heads[19].hash()) };
        assert_eq!(rejected(store.validate(&heads[18], now())), refusal);
        assert_eq!(rejected(store.record(&heads[18])), refusal);
    }
    // The newest head is still accepted.
    assert_eq!(store.validate(&heads[19], now()).unwrap(), Accepted::Same);
}

#[test]
fn a_validated_head_is_not_recorded_and_an_accepted_one_is() {
    let (_folder, store) = store();
    let heads = chain(3);
    assert_eq!(store.validate(&heads[1], now()).unwrap(), Accepted::First);
    assert_eq!(store.checkpoint(&package()).unwrap(), None);
    assert_eq!(store.accept(&heads[1], now()).unwrap(), Accepted::First);
    assert_eq!(store.accept(&heads[2], now()).unwrap(), Accepted::Newer);
    assert_eq!(store.accept(&heads[2], now()).unwrap(), Accepted::Same);
    assert_eq!(store.checkpoint(&package()).unwrap(), Some(checkpoint(&heads[2])));
    assert_eq!(store.count().unwrap(), 1);
}

#[test]
fn attack_freeze_an_expired_head_still_raises_the_checkpoint() {
    let (_folder, store) = store();
    let heads = chain(2);
    let late = now() + 40 * DAY;
    assert!(matches!(rejected(store.validate(&heads[1], late)), HeadRejectedError::Expired { .. }));
    assert!(matches!(rejected(store.accept(&heads[1], late)), HeadRejectedError::Expired { .. }));
    assert!(matches!(rejected(store.accept(&heads[0], late)), HeadRejectedError::Rollback { seen: 2, offered: 1, .. }));
}

#[test]
fn attack_equivocation_is_kept_as_a_proof_and_the_package_is_rejected_until_it_is_accepted() {
    let (folder, store) = store();
    let heads = chain(3);
    let conflicting = after(Some(&heads[1]), "another index");
    store.record(&heads[2]).unwrap();
    assert!(matches!(rejected(store.validate(&conflicting, now())), HeadRejectedError::Equivocation { .. }));
    drop(store);
    let store = HeadStore::open(&folder.path().join("heads.db")).unwrap();
    let next = after(Some(&heads[2]), "next");
    for head in [&heads[2], &conflicting, &heads[0], &next] {
        let refusals = [store.validate(head, now()), store.record(head), store.accept(head, now())].map(rejected);
        for refusal in refusals {
            let HeadRejectedError::Equivocation { proof } = refusal else { panic!("{refusal}") };
            assert_eq!(proof.verify(), Ok(package()));
        }
    }
    let proof = store.equivocation(&package()).unwrap().unwrap();
    assert_eq!((proof.first.as_slice(), proof.second.as_slice()), (heads[2].bytes(), conflicting.bytes()));
    assert_eq!(store.equivocations(None, 10).unwrap(), [package()]);
    assert_eq!(store.equivocations(Some(&package()), 10).unwrap(), []);

    assert!(store.accept_equivocation(&package()).unwrap());
    assert!(!store.accept_equivocation(&package()).unwrap());
    assert_eq!(store.equivocation(&package()).unwrap(), None);
    assert_eq!(store.checkpoint(&package()).unwrap(), Some(Checkpoint { seq: 3, head: None }));
    assert!(matches!(
        rejected(store.record(&heads[1])),
        HeadRejectedError::Rollback { seen: 3, offered: 2, hash: None }
    ));
    for head in [&heads[2], &conflicting] {
        assert_eq!(store.accept(head, now()).unwrap(), Accepted::Same);
    }
    // The publisher continues from either of them, and the package has one chain again.
    let next = after(Some(&conflicting), "next");
    assert_eq!(store.accept(&next, now()).unwrap(), Accepted::Newer);
    assert_eq!(store.checkpoint(&package()).unwrap(), Some(checkpoint(&next)));
}

#[test]
fn after_an_accepted_equivocation_no_head_below_the_higher_one_is_accepted() {
    let (_folder, store) = store();
    let heads = chain(2);
    let next = after(Some(&after(Some(&heads[0]), "another index")), "its next index");
    store.record(&heads[1]).unwrap();
    assert!(matches!(rejected(store.accept(&next, now())), HeadRejectedError::Equivocation { .. }));
    assert!(store.accept_equivocation(&package()).unwrap());
    assert_eq!(store.checkpoint(&package()).unwrap(), Some(Checkpoint { seq: 3, head: None }));
    assert!(matches!(
        rejected(store.accept(&heads[1], now())),
        HeadRejectedError::Rollback { seen: 3, offered: 2, .. }
    ));
}

#[test]
fn attack_fast_forward_is_not_recorded() {
    let (_folder, store) = store();
    store.record(&with_seq(7)).unwrap();
    assert!(matches!(rejected(store.record(&with_seq(MAX_SEQ))), HeadRejectedError::FastForward { seen: 7, .. }));
    assert_eq!(store.checkpoint(&package()).unwrap().unwrap().seq, 7);
    // The user has asked the publisher.
    assert!(store.forget(&package()).unwrap());
    assert!(!store.forget(&package()).unwrap());
    assert_eq!(store.record(&with_seq(MAX_SEQ)).unwrap(), Accepted::First);
}

#[test]
fn heads_recorded_at_the_same_time_never_lower_the_checkpoint() {
    let (folder, store) = store();
    let store = Arc::new(store);
    let other = Arc::new(HeadStore::open(&folder.path().join("heads.db")).unwrap());
    let heads = Arc::new(chain(24));
    let threads: Vec<_> = (0..6)
        .map(|thread| {
            let (store, heads) = (if thread % 2 == 0 { store.clone() } else { other.clone() }, heads.clone());
            thread::spawn(move || {
                let mut last = 0;
                for step in 0..24 {
                    let head = &heads[(step * 7 + thread * 5) % 24];
                    match store.record(head) {
                        Ok(_) | Err(HeadStoreError::Rejected(HeadRejectedError::Rollback { .. })) => {}
                        Err(error) => panic!("{error:?}"),
                    }
                    let seen = store.checkpoint(&package()).unwrap().unwrap().seq;
                    assert!(seen >= last.max(head.head().seq), "{seen}");
                    last = seen;
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(store.checkpoint(&package()).unwrap().unwrap().seq, 24);
}

#[test]
fn the_least_recently_used_package_makes_room() {
    let folder = tempfile::tempdir().unwrap();
    drop(HeadStore::open(&folder.path().join("heads.db")).unwrap());
    let connection = rusqlite::Connection::open(folder.path().join("heads.db")).unwrap();
    let store = HeadStore::with(connection, 4);
    let heads = ["a", "b", "c", "d", "e", "f", "g"].map(first_of);
    for head in &heads[..4] {
        store.record(head).unwrap();
    }
    // `a` is kept, `b` is used again, and the publisher of `c` has signed two heads.
    assert!(store.keep(&heads[0].head().package, true).unwrap());
    assert_eq!(store.record(&heads[1]).unwrap(), Accepted::Same);
    let conflicting = Head { index: ContentId::of(b"conflicting"), ..heads[2].head().clone() };
    let _refused = rejected(store.record(&SignedHead::sign(&keypair(1), conflicting).unwrap()));
    let known =
        || heads.iter().map(|head| store.checkpoint(&head.head().package).unwrap().is_some()).collect::<Vec<_>>();
    store.record(&heads[4]).unwrap();
    assert_eq!(known(), [true, true, true, false, true, false, false]);
    store.record(&heads[5]).unwrap();
    assert_eq!(known(), [true, false, true, false, true, true, false]);
    assert_eq!(store.count().unwrap(), 4);
    // Only the kept one is left.
    for head in [&heads[2], &heads[4], &heads[5]] {
        assert!(store.keep(&head.head().package, true).unwrap());
    }
    assert!(matches!(store.record(&heads[6]), Err(HeadStoreError::Full)));
    assert!(!store.keep(&heads[6].head().package, true).unwrap());
    assert!(store.keep(&heads[0].head().package, false).unwrap());
    store.record(&heads[6]).unwrap();
    assert_eq!(known(), [false, false, true, false, true, true, true]);
}

#[test]
fn a_damaged_store_is_an_error_and_never_empty() {
    let (folder, store) = store();
    let head = after(None, "index");
    store.record(&head).unwrap();
    for damage in ["seq = -1", "seq = 9", "envelope = x'00'", "other = x'00'"] {
        store.execute(&format!("UPDATE heads SET {damage}"));
        for result in [store.validate(&head, now()), store.record(&head)] {
            assert!(matches!(result, Err(HeadStoreError::Database(DatabaseError::Damaged(_)))), "{result:?}");
        }
        store.forget(&package()).unwrap();
        store.record(&head).unwrap();
    }
    store.execute("UPDATE heads SET package = 'nobody', other = x'00'");
    assert!(matches!(store.equivocations(None, 10), Err(DatabaseError::Damaged(_))));
    drop(store);
    let path = folder.path().join("other.db");
    std::fs::write(&path, vec![7; 5000]).unwrap();
    assert!(matches!(HeadStore::open(&path), Err(DatabaseOpenError::Foreign { .. })));
}

#[test]
fn a_head_that_cannot_be_written_is_not_accepted() {
    let (_folder, store) = store();
    store.break_it();
    let error = store.accept(&after(None, "index"), now()).unwrap_err();
    assert!(matches!(error, HeadStoreError::Database(DatabaseError::Failed(_))), "{error:?}");
    assert!(format!("{store:?}").contains("HeadStore"));
    assert!(store.forget(&package()).is_err());
}
