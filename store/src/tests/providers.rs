//! Providers, compared with those of libp2p's own store.

use libp2p::{
    Multiaddr, PeerId,
    kad::{
        KBucketKey, ProviderRecord, RecordKey,
        store::{MemoryStore, RecordStore},
    },
};
use proptest::{collection::vec, prelude::*};

use super::{HOUR, config, keys_by_distance, store};
use crate::{InsertError, Store, StoreConfig, clock::Clock};

fn provider(key: &str, peer: PeerId) -> ProviderRecord {
    ProviderRecord::new(key.as_bytes().to_vec(), peer, Vec::new())
}

fn peers(store: &Store, key: &str) -> Vec<PeerId> {
    store.providers(&RecordKey::new(&key)).iter().map(|provider| provider.provider).collect()
}

fn keys(store: &Store, keys: &[String]) -> Vec<usize> {
    (0..keys.len()).filter(|at| !peers(store, &keys[*at]).is_empty()).collect()
}

#[test]
fn who_is_there_stays_and_we_always_find_a_place() {
    let local = PeerId::random();
    let others: Vec<_> = (0..4).map(|_| PeerId::random()).collect();
    let (mut store, _) = store(local, StoreConfig { max_providers_per_key: 3, ..config() });
    for peer in &others[..3] {
        store.insert_provider(provider("k", *peer)).unwrap();
    }
    assert!(matches!(store.insert_provider(provider("k", others[3])), Err(InsertError::TooManyProviders)));
    store.add_provider(provider("k", others[3])).unwrap();
    assert_eq!(peers(&store, "k"), others[..3]);
    store.insert_provider(provider("k", local)).unwrap();
    assert_eq!(peers(&store, "k"), [others[0], others[1], local]);
    assert!(matches!(store.insert_provider(provider("k", others[2])), Err(InsertError::TooManyProviders)));
    assert_eq!(store.provided().count(), 1);
    store.check();
}

#[test]
fn an_expired_provider_is_gone_and_its_place_is_free() {
    let local = PeerId::random();
    let (mut store, clock) = store(local, StoreConfig { max_providers_per_key: 1, max_ttl: Some(HOUR), ..config() });
    store.insert_provider(provider("k", PeerId::random())).unwrap();
    store.insert_provider(provider("own", local)).unwrap();
    clock.pass(HOUR);
    assert!(peers(&store, "k").is_empty());
    assert_eq!(store.provided().count(), 1);
    let second = PeerId::random();
    store.insert_provider(provider("k", second)).unwrap();
    assert_eq!(peers(&store, "k"), [second]);
    let late = ProviderRecord { expires: Some(clock.now()), ..provider("late", second) };
    assert!(matches!(store.insert_provider(late), Err(InsertError::Expired)));
    clock.pass(HOUR);
    store.sweep();
    assert_eq!(store.stats_handle().read().provider_records, 1);
    store.check();
}

#[test]
fn closer_providers_evict_the_farthest() {
    let local = PeerId::random();
    let names = keys_by_distance(local, 10);
    let (mut store, _) = store(local, StoreConfig { max_provided_keys: 3, ..config() });
    for (at, peer) in [(9, local), (8, PeerId::random()), (8, PeerId::random()), (4, PeerId::random())] {
        store.insert_provider(provider(&names[at], peer)).unwrap();
    }
    // A provider of a stored key needs no further key.
    store.insert_provider(provider(&names[9], PeerId::random())).unwrap();
    store.insert_provider(provider(&names[5], PeerId::random())).unwrap();
    assert_eq!(keys(&store, &names), [4, 5, 9]);
    assert!(matches!(store.insert_provider(provider(&names[6], PeerId::random())), Err(InsertError::Full)));
    for at in [6, 7] {
        store.insert_provider(provider(&names[at], local)).unwrap();
    }
    assert_eq!(keys(&store, &names), [6, 7, 9]);
    assert!(matches!(store.insert_provider(provider(&names[8], local)), Err(InsertError::Full)));
    assert_eq!(store.provided().count(), 3);
    store.check();
}

#[test]
fn all_providers_and_those_of_one_peer_are_limited() {
    let local = PeerId::random();
    let names = keys_by_distance(local, 10);
    let greedy = PeerId::random();
    let limits = StoreConfig { max_provider_records: 4, max_keys_per_provider: 2, ..config() };
    let (mut store, _) = store(local, limits);
    for at in [3, 8] {
        store.insert_provider(provider(&names[at], greedy)).unwrap();
    }
    assert!(matches!(store.insert_provider(provider(&names[9], greedy)), Err(InsertError::ShareFull)));
    store.insert_provider(provider(&names[2], greedy)).unwrap();
    assert_eq!(keys(&store, &names), [2, 3]);
    for _ in 0..2 {
        store.insert_provider(provider(&names[6], PeerId::random())).unwrap();
    }
    assert!(matches!(store.insert_provider(provider(&names[7], PeerId::random())), Err(InsertError::Full)));
    store.insert_provider(provider(&names[5], PeerId::random())).unwrap();
    assert_eq!(keys(&store, &names), [2, 3, 5]);
    store.check();
}

#[test]
fn the_addresses_of_a_provider_are_limited() {
    let (mut store, _) = store(PeerId::random(), config());
    let long: Multiaddr = format!("/dns4/{}/tcp/1", "a".repeat(500)).parse().unwrap();
    let short: Multiaddr = "/ip4/192.0.2.1/tcp/1".parse().unwrap();
    for (address, kept) in [(long, 2), (short, 16)] {
        let many = ProviderRecord { addresses: vec![address; 40], ..provider("k", PeerId::random()) };
        let peer = many.provider;
        store.insert_provider(many).unwrap();
        let stored = store.providers(&RecordKey::new(&"k")).into_iter().find(|known| known.provider == peer).unwrap();
        assert_eq!(stored.addresses.len(), kept);
    }
}

/// The list that kad passes on has room for every address of the message.
#[test]
fn attack_a_long_list_of_addresses_keeps_no_memory() {
    let mut provider = provider("k", PeerId::random());
    provider.addresses = vec![Multiaddr::empty(); 60_000];
    crate::policy::limit_addresses(&mut provider);
    assert_eq!(provider.addresses.len(), 16);
    assert!(provider.addresses.capacity() < 100, "{}", provider.addresses.capacity());
}

#[derive(Debug, Clone)]
enum Step {
    Add { key: usize, peer: usize, port: u16 },
    Remove { key: usize, peer: usize },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..4usize, 0..6usize, 0..3u16).prop_map(|(key, peer, port)| Step::Add { key, peer, port }),
        1 => (0..4usize, 0..6usize).prop_map(|(key, peer)| Step::Remove { key, peer }),
    ]
}

proptest! {
    /// The order of providers, renewal in place, the limit for each key, and the keys that the local node provides are
    /// as in libp2p's own store.
    #[test]
    fn within_the_limits_providers_are_as_in_libp2ps_store(steps in vec(step(), 0..60)) {
        let local = PeerId::random();
        let peers: Vec<_> = (0..5).map(|_| PeerId::random()).chain([local]).collect();
        let limits = StoreConfig { max_providers_per_key: 6, max_ttl: None, ..config() };
        let (mut ours, _) = store(local, limits);
        let mut theirs = MemoryStore::new(local);
        for step in steps {
            match step {
                Step::Add { key, peer, port } => {
                    let address = format!("/ip4/192.0.2.1/tcp/{port}").parse().unwrap();
                    let new = ProviderRecord { addresses: vec![address], ..provider(&key.to_string(), peers[peer]) };
                    prop_assert_eq!(ours.add_provider(new.clone()).is_ok(), theirs.add_provider(new).is_ok());
                }
                Step::Remove { key, peer } => {
                    let key = RecordKey::new(&key.to_string());
                    ours.remove_provider(&key, &peers[peer]);
                    theirs.remove_provider(&key, &peers[peer]);
                }
            }
            ours.check();
            for key in 0..4 {
                let key = RecordKey::new(&key.to_string());
                // Two providers are equal if their names are.
                let all = |list: Vec<ProviderRecord>| -> Vec<_> {
                    list.into_iter().map(|one| (one.provider, one.addresses, one.expires)).collect()
                };
                prop_assert_eq!(all(ours.providers(&key)), all(theirs.providers(&key)));
            }
            let provided = |list: Vec<ProviderRecord>| -> Vec<_> {
                let mut list: Vec<_> = list.into_iter().map(|one| (one.key.to_vec(), one.addresses)).collect();
                list.sort();
                list
            };
            prop_assert_eq!(
                provided(ours.provided().map(|one| one.into_owned()).collect()),
                provided(theirs.provided().map(|one| one.into_owned()).collect())
            );
        }
    }
}

#[test]
fn the_order_of_the_test_keys_is_that_of_kad() {
    let local = PeerId::random();
    let names = keys_by_distance(local, 3);
    let distance = |at: usize| KBucketKey::from(local).distance(&KBucketKey::new(RecordKey::new(&names[at])));
    assert!(distance(0) < distance(1) && distance(1) < distance(2));
}
