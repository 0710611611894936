//! The store under the real kad, in two nodes on a transport in memory.

use std::{cmp::Ordering, sync::Arc, time::Duration};

use futures::{FutureExt, StreamExt, executor::block_on, future::select_all};
use kadence_core::{Rejected, Validator, Validators};
use kadence_store::{StatsHandle, Store, StoreConfig};
use libp2p::{
    Multiaddr, PeerId, Swarm, Transport,
    core::{transport::MemoryTransport, upgrade::Version},
    identity::Keypair,
    kad::{self, Mode, PutRecordError, QueryId, QueryResult, Quorum, Record, RecordKey, store::RecordStore},
    plaintext,
    swarm::{self, SwarmEvent},
    yamux,
};

/// Values are single digits; the larger is better.
struct Digits;

impl Validator for Digits {
    fn validate(&self, _: &RecordKey, value: &[u8]) -> Result<(), Rejected> {
        match value {
            [b'0'..=b'9'] => Ok(()),
            _ => Err(Rejected("not a digit".to_owned())),
        }
    }

    fn compare(&self, _: &RecordKey, left: &[u8], right: &[u8]) -> Ordering {
        left.cmp(right)
    }
}

type Node = Swarm<kad::Behaviour<Store>>;

fn node(number: u64, configure: impl FnOnce(PeerId, StoreConfig) -> Store) -> (Node, StatsHandle, Multiaddr) {
    let keypair = Keypair::generate_ed25519();
    let peer = keypair.public().to_peer_id();
    let transport = MemoryTransport::default()
        .upgrade(Version::V1)
        .authenticate(plaintext::Config::new(&keypair))
        .multiplex(yamux::Config::default())
        .timeout(Duration::from_secs(10))
        .boxed();
    let validators = Validators::default().with("d", Arc::new(Digits));
    let store = configure(peer, StoreConfig { validators, ..StoreConfig::default() });
    let stats = store.stats_handle();
    let mut kad = kad::Behaviour::new(peer, store);
    kad.set_mode(Some(Mode::Server));
    let config = swarm::Config::without_executor().with_idle_connection_timeout(Duration::from_secs(60));
    let mut swarm = Swarm::new(transport, kad, peer, config);
    let address: Multiaddr = format!("/memory/{number}").parse().unwrap();
    swarm.listen_on(address.clone()).unwrap();
    (swarm, stats, address)
}

/// Runs all nodes until the query of the first has ended.
fn end_of(nodes: &mut [Node], id: QueryId) -> QueryResult {
    block_on(async {
        loop {
            let (event, which, _) = select_all(nodes.iter_mut().map(|node| node.next().boxed_local())).await;
            if let Some(SwarmEvent::Behaviour(kad::Event::OutboundQueryProgressed { id: of, result, step, .. })) = event
                && (which, of, step.last) == (0, id, true)
            {
                return result;
            }
        }
    })
}

/// Whether the peer said that it has stored the record.
fn put(nodes: &mut [Node], key: &str, value: &str) -> bool {
    let peer = *nodes[1].local_peer_id();
    let record = Record::new(key.as_bytes().to_vec(), value.as_bytes().to_vec());
    let id = nodes[0].behaviour_mut().put_record_to(record, [peer].into_iter(), Quorum::All);
    match end_of(nodes, id) {
        QueryResult::PutRecord(Ok(_)) => true,
        QueryResult::PutRecord(Err(PutRecordError::QuorumFailed { success, .. })) => {
            assert!(success.is_empty(), "refused, and counted as stored");
            false
        }
        other => panic!("{other:?}"),
    }
}

fn value(node: &mut Node, key: &str) -> Option<Vec<u8>> {
    node.behaviour_mut().store_mut().get(&RecordKey::new(&key)).map(|record| record.value.clone())
}

fn what_a_peer_puts_is_judged_and_it_hears_of_it(number: u64, configure: impl FnOnce(PeerId, StoreConfig) -> Store) {
    let (asking, ..) = node(number, Store::memory);
    let (serving, stats, address) = node(number + 1, configure);
    let mut nodes = [asking, serving];
    let peer = *nodes[1].local_peer_id();
    nodes[0].behaviour_mut().add_address(&peer, address);
    // What, whether it is taken, what is stored then.
    let table = [
        ("/d/key", "5", true, Some("5")),
        ("/d/key", "4", false, Some("5")),
        ("/d/key", "no digit", false, Some("5")),
        ("/d/key", "5", true, Some("5")),
        ("/d/key", "6", true, Some("6")),
        ("/d/other", "x", false, None),
        ("plain", "anything", true, Some("anything")),
        ("plain", "else", true, Some("else")),
        (&"k".repeat(300), "v", false, None),
    ];
    for (key, new, taken, stored) in table {
        assert_eq!(put(&mut nodes, key, new), taken, "{key} {new}");
        assert_eq!(value(&mut nodes[1], key).as_deref(), stored.map(str::as_bytes), "{key} {new}");
    }
    let stats = stats.read();
    assert_eq!((stats.accepted, stats.refused.worse, stats.refused.invalid), (4, 1, 2));
    assert_eq!((stats.refused.key_too_large, stats.refused.total()), (1, 4));

    // Ours is not touched by others, and kad publishes it as before.
    let own = Record::new(b"own".to_vec(), b"mine".to_vec());
    let local = *nodes[1].local_peer_id();
    let own = Record { publisher: Some(local), ..own };
    nodes[1].behaviour_mut().store_mut().put(own).unwrap();
    assert!(!put(&mut nodes, "own", "theirs"));
    assert_eq!(value(&mut nodes[1], "own").as_deref(), Some(&b"mine"[..]));
}

#[test]
fn in_memory() {
    what_a_peer_puts_is_judged_and_it_hears_of_it(0x6b61_6431, Store::memory);
}

#[cfg(feature = "disk")]
#[test]
fn with_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    what_a_peer_puts_is_judged_and_it_hears_of_it(0x6b61_6433, |peer, config| Store::open(path, peer, config).unwrap());
}
