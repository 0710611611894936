//! Tests with holders that serve forged or outdated heads, and with publishers that sign conflicting ones.

use std::time::{Duration, SystemTime};

use kadence::{OperationKind, OutcomeKind};

use super::{network::Peer, *};
use crate::{
    ContentId, GetError, PackageId, Registry,
    p2p::head::{Head, HeadStoreError, Lifetime, MAX_JUMP, SignedHead, next_head},
};

/// Disables the head cache.
fn always_asking(config: &mut super::super::RegistryConfig) {
    config.max_head_age = Duration::ZERO;
}

/// Publishes these versions of a package, and returns the head of each.
async fn published(publisher: &Peer, name: &str, versions: &[&str]) -> Vec<SignedHead> {
    let mut heads = Vec::new();
    for version in versions {
        let source = format!("name = \"{name}\"\nversion = \"{version}\"\n");
        let (release, _dir) = release(publisher.id(), &source, &[("version", version.as_bytes())]).await;
        publisher.registry.publish(release).await.unwrap();
        heads.push(publisher.registry.inner.published_head(&publisher.package(name)).await.unwrap().unwrap());
    }
    heads
}

async fn hold_everywhere(network: &Network, package: &PackageId, value: Option<&[u8]>) {
    // Records that are still on their way would arrive later.
    for node in network.nodes() {
        soon("the end of its queries", async || {
            let live = node.client().snapshot().await.unwrap();
            live.is_empty().then_some(())
        })
        .await;
    }
    for node in network.nodes() {
        hold(node, package, value).await;
    }
}

/// Signs a head of this package after `previous`, with an arbitrary index.
fn sign(publisher: &Peer, name: &str, previous: Option<&SignedHead>, index: &[u8], now: SystemTime) -> SignedHead {
    let (id, lifetime) = (publisher.package(name), Lifetime::default());
    let head = next_head(&id, previous, ContentId::of(index), index.len() as u64, lifetime, now).unwrap();
    SignedHead::sign(&publisher.keypair, head).unwrap()
}

/// Returns the number of lookups that have ended.
async fn lookups(reader: &Peer) -> u64 {
    let metrics = reader.node.client().metrics().await.unwrap();
    OutcomeKind::ALL.iter().map(|kind| metrics.durations(OperationKind::GetRecord, *kind).count()).sum()
}

fn versions_of(found: Result<Option<crate::Index>, GetError>) -> usize {
    found.unwrap().unwrap().versions().len()
}

#[test]
fn attack_forged_heads_at_all_holders_are_an_error_and_never_a_value() {
    within(async {
        let network = Network::with_strangers(2, 4, always_asking).await;
        let [publisher, reader] = network.peers.as_slice() else { panic!() };
        let id = publisher.package("p");
        let index = crate::Index::new(id.clone()).to_json();
        publisher.registry.blobs().put(&index).unwrap();
        let head = sign(publisher, "p", None, &index, SystemTime::now());
        let mut altered = head.bytes().to_owned();
        *altered.last_mut().unwrap() ^= 1;
        let other = sign(publisher, "q", None, &index, SystemTime::now());
        for forged in [altered.as_slice(), other.bytes(), b"no head at all"] {
            for stranger in &network.strangers {
                hold(stranger, &id, Some(forged)).await;
            }
            let found = reader.registry.index(&id).await;
            assert!(matches!(found, Err(GetError::Rejected { .. })), "{found:?}");
            let found = reader.registry.get_package(&id).await;
            assert!(matches!(found, Err(GetError::Rejected { .. })), "{found:?}");
            let found = reader.registry.exists(&id).await;
            assert!(matches!(found, Err(GetError::Rejected { .. })), "{found:?}");
        }
        // A single holder of the genuine head is enough.
        hold(&publisher.node, &id, Some(head.bytes())).await;
        assert_eq!(versions_of(reader.registry.index(&id).await), 0);
    });
}

#[test]
fn attack_forged_heads_keep_no_publisher_from_publishing() {
    within(async {
        let network = Network::with_strangers(2, 4, always_asking).await;
        let [publisher, reader] = network.peers.as_slice() else { panic!() };
        let id = publisher.package("p");
        for stranger in &network.strangers {
            hold(stranger, &id, Some(b"no head at all")).await;
        }
        let heads = published(publisher, "p", &["1.0.0", "1.1.0"]).await;
        assert_eq!(heads.iter().map(|head| head.head().seq).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(versions_of(reader.registry.index(&id).await), 2);
        hold_everywhere(&network, &id, None).await;
        for stranger in &network.strangers {
            hold(stranger, &id, Some(b"no head at all")).await;
        }
        assert!(publisher.registry.republish(&id).await.unwrap().is_some());
        assert_eq!(versions_of(reader.registry.index(&id).await), 2);
    });
}

#[test]
fn attack_replay_one_holder_of_the_newest_is_enough_and_none_is_a_rollback() {
    within(async {
        let network = Network::with(8, always_asking).await;
        let [publisher, holder, .., newcomer, reader] = network.peers.as_slice() else { panic!() };
        let id = publisher.package("p");
        let [old, new] = published(publisher, "p", &["1.0.0", "1.1.0"]).await.try_into().unwrap();
        assert_eq!(versions_of(reader.registry.index(&id).await), 2);

        hold_everywhere(&network, &id, Some(old.bytes())).await;
        let before = lookups(reader).await;
        let found = reader.registry.index(&id).await;
        assert!(matches!(found, Err(GetError::Rollback { seen: 2, offered: 1 })), "{found:?}");
        // Looked up once more, in case a newer head was just recorded, and no more.
        assert_eq!(lookups(reader).await, before + 2);
        let found = reader.registry.get_package(&id).await;
        assert!(matches!(found, Err(GetError::Rollback { seen: 2, offered: 1 })), "{found:?}");

        hold(&holder.node, &id, Some(new.bytes())).await;
        assert_eq!(versions_of(newcomer.registry.index(&id).await), 2);
        assert_eq!(versions_of(reader.registry.index(&id).await), 2);
    });
}

#[test]
fn attack_replay_the_publisher_continues_from_the_seen_head_and_signs_no_conflicting_one() {
    within(async {
        let network = Network::with(4, always_asking).await;
        let [publisher, .., reader] = network.peers.as_slice() else { panic!() };
        let id = publisher.package("p");
        let heads = published(publisher, "p", &["1.0.0", "1.1.0"]).await;
        // As if both had been published on another machine, and only the first one here.
        publisher.registry.inner.published.write(&heads[0]).unwrap();
        hold_everywhere(&network, &id, Some(heads[0].bytes())).await;
        let third = published(publisher, "p", &["1.2.0"]).await.remove(0);
        assert_eq!((third.head().seq, third.head().prev), (3, Some(heads[1].hash())));
        assert_eq!(versions_of(reader.registry.index(&id).await), 3);

        // The newest head is put again, and the next one follows it.
        publisher.registry.inner.published.write(&heads[0]).unwrap();
        assert!(publisher.registry.republish(&id).await.unwrap().is_some());
        assert_eq!(versions_of(reader.registry.index(&id).await), 3);
        let fourth = published(publisher, "p", &["1.3.0"]).await.remove(0);
        assert_eq!((fourth.head().seq, fourth.head().prev), (4, Some(third.hash())));
    });
}

#[test]
fn attack_freeze_an_expired_head_is_an_error_and_is_renewed_by_its_publisher() {
    within(async {
        let network = Network::with(4, always_asking).await;
        let [publisher, .., reader] = network.peers.as_slice() else { panic!() };
        let id = publisher.package("p");
        let fresh = published(publisher, "p", &["1.0.0"]).await.remove(0);
        let long_ago = SystemTime::now() - Duration::from_secs(40 * 24 * 60 * 60);
        let index = publisher.registry.index(&id).await.unwrap().unwrap();
        let old = Head { not_after: crate::unix::seconds(long_ago), ..fresh.head().clone() };
        let old = SignedHead::sign(&publisher.keypair, old).unwrap();
        // As if the reader had seen nothing before.
        publisher.registry.head_store().forget(&id).unwrap();
        publisher.registry.inner.published.write(&old).unwrap();
        hold_everywhere(&network, &id, Some(old.bytes())).await;
        for _ in 0..2 {
            let found = reader.registry.index(&id).await;
            assert!(matches!(found, Err(GetError::Expired { .. })), "{found:?}");
            // No node holds it any more.
            hold_everywhere(&network, &id, None).await;
        }
        hold_everywhere(&network, &id, Some(old.bytes())).await;

        // Publishing the same release again renews the head.
        let renewed = published(publisher, "p", &["1.0.0"]).await.remove(0);
        assert_eq!((renewed.head().seq, renewed.head().prev), (2, Some(old.hash())));
        assert_eq!(renewed.head().index, index.content_id());
        assert_eq!(versions_of(reader.registry.index(&id).await), 1);
    });
}

#[test]
fn attack_fast_forward_is_rejected() {
    within(async {
        let network = Network::with(4, always_asking).await;
        let [publisher, .., reader] = network.peers.as_slice() else { panic!() };
        let id = publisher.package("p");
        let head = published(publisher, "p", &["1.0.0"]).await.remove(0);
        assert_eq!(versions_of(reader.registry.index(&id).await), 1);
        let far = Head { seq: 2 + MAX_JUMP, prev: Some(ContentId::of(b"any")), ..head.head().clone() };
        let far = SignedHead::sign(&publisher.keypair, far).unwrap();
        hold_everywhere(&network, &id, Some(far.bytes())).await;
        let found = reader.registry.index(&id).await;
        assert!(matches!(found, Err(GetError::Rejected { .. })), "{found:?}");
        assert_eq!(reader.registry.head_store().checkpoint(&id).unwrap().unwrap().seq, 1);
    });
}

#[test]
fn attack_equivocation_conflicting_heads_at_two_holders_are_found_and_kept_as_a_proof() {
    within(async {
        let network = Network::with(5, always_asking).await;
        let [publisher, one, other, .., reader] = network.peers.as_slice() else { panic!() };
        let now = SystemTime::now();
        for (name, has_next) in [("p", false), ("q", true)] {
            let id = publisher.package(name);
            let left = sign(publisher, name, None, b"left", now);
            let right = sign(publisher, name, None, b"right", now);
            // A later head that follows one of them hides neither.
            let next = sign(publisher, name, Some(&left), b"next", now);
            if has_next {
                hold_everywhere(&network, &id, Some(next.bytes())).await;
            } else {
                hold(&one.node, &id, Some(left.bytes())).await;
            }
            hold(&other.node, &id, Some(right.bytes())).await;
            let found = reader.registry.index(&id).await;
            assert!(matches!(found, Err(GetError::Equivocation { seq: 1 | 2 })), "{found:?}");
            let proof = reader.registry.head_store().equivocation(&id).unwrap().unwrap();
            assert_eq!(proof.verify().unwrap(), id);
            assert!(reader.registry.head_store().equivocations(None, 9).unwrap().contains(&id));
            // It is rejected for every value in the DHT, and for none.
            for value in [Some(left.bytes()), None] {
                hold_everywhere(&network, &id, value).await;
                let found = reader.registry.index(&id).await;
                assert!(matches!(found, Err(GetError::Equivocation { .. })), "{found:?}");
            }
        }
    });
}

#[test]
fn attack_equivocation_with_a_seen_head_is_rejected_until_it_is_accepted() {
    within(async {
        let network = Network::with(5, always_asking).await;
        let [publisher, .., reader] = network.peers.as_slice() else { panic!() };
        let id = publisher.package("p");
        let seen = published(publisher, "p", &["1.0.0"]).await.remove(0);
        assert_eq!(versions_of(reader.registry.index(&id).await), 1);
        let conflicting = Head { ttl: 77, ..seen.head().clone() };
        let conflicting = SignedHead::sign(&publisher.keypair, conflicting).unwrap();
        hold_everywhere(&network, &id, Some(conflicting.bytes())).await;
        let found = reader.registry.index(&id).await;
        assert!(matches!(found, Err(GetError::Equivocation { seq: 1 })), "{found:?}");
        let proof = reader.registry.head_store().equivocation(&id).unwrap().unwrap();
        assert_eq!((proof.first.as_slice(), proof.second.as_slice()), (seen.bytes(), conflicting.bytes()));

        assert!(reader.registry.head_store().accept_equivocation(&id).unwrap());
        assert_eq!(versions_of(reader.registry.index(&id).await), 1);
        // A package that was seen is never reported as absent.
        hold_everywhere(&network, &id, None).await;
        let found = reader.registry.index(&id).await;
        assert!(matches!(found, Err(GetError::Rollback { seen: 1, .. })), "{found:?}");
    });
}

#[test]
fn attack_equivocation_with_an_expired_head_is_found() {
    within(async {
        let network = Network::with(4, always_asking).await;
        let [publisher, one, .., reader] = network.peers.as_slice() else { panic!() };
        let id = publisher.package("p");
        let long_ago = SystemTime::now() - Duration::from_secs(40 * 24 * 60 * 60);
        let (left, right) =
            (sign(publisher, "p", None, b"left", long_ago), sign(publisher, "p", None, b"right", long_ago));
        hold_everywhere(&network, &id, Some(left.bytes())).await;
        hold(&one.node, &id, Some(right.bytes())).await;
        let found = reader.registry.index(&id).await;
        assert!(matches!(found, Err(GetError::Equivocation { seq: 1 })), "{found:?}");
    });
}

#[test]
fn a_publisher_on_two_machines_gets_an_error_and_can_continue_after_accepting_it() {
    within(async {
        let network = Network::with(4, always_asking).await;
        let [publisher, .., reader] = network.peers.as_slice() else { panic!() };
        let id = publisher.package("p");
        let there = published(publisher, "p", &["1.0.0"]).await.remove(0);
        // The last head that was signed here has the same number and has never left this machine.
        let here = sign(publisher, "p", None, b"here", SystemTime::now());
        publisher.registry.inner.published.write(&here).unwrap();
        publisher.registry.head_store().forget(&id).unwrap();
        let (next, _dir) = release(publisher.id(), "name = \"p\"\nversion = \"1.1.0\"\n", &[]).await;
        let rejected = publisher.registry.publish(next.clone()).await;
        assert!(
            matches!(rejected, Err(crate::PublishError::Versions(GetError::Equivocation { seq: 1 }))),
            "{rejected:?}"
        );
        assert!(publisher.registry.head_store().accept_equivocation(&id).unwrap());
        publisher.registry.publish(next).await.unwrap();
        let head = publisher.registry.inner.published_head(&id).await.unwrap().unwrap();
        assert_eq!((head.head().seq, head.head().prev), (2, Some(there.hash())));
        assert_eq!(versions_of(reader.registry.index(&id).await), 2);
        // The head store of the publisher accepts it, too.
        let validated = publisher.registry.head_store().validate(&head, SystemTime::now());
        assert!(!matches!(validated, Err(HeadStoreError::Rejected(_))), "{validated:?}");
    });
}
