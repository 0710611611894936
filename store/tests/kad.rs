//! The store under the real kad, in two nodes on a transport in memory.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

use std::{cmp::Ordering, sync::Arc, time::Duration};

use futures::{FutureExt, StreamExt, executor::block_on, future::select_all};
use kadence_core::{ValidationError, Validator, Validators};
use kadence_store::{InsertErrorCounts, StatsHandle, Store, StoreConfig};
use libp2p::{
    Multiaddr, PeerId, Swarm, Transport,
    core::{transport::MemoryTransport, upgrade::Version},
    identity::Keypair,
    kad::{self, Mode, PutRecordError, QueryId, QueryResult, Quorum, Record, RecordKey, store::RecordStore},
    swarm::{self, SwarmEvent},
    yamux,
};
use libp2p_plaintext as plaintext;

/// Values are single digits; the larger is better.
struct Digits;

impl Validator for Digits {
    fn validate(&self, _: &RecordKey, value: &[u8]) -> Result<(), ValidationError> {
        match value {
            [b'0'..=b'9'] => Ok(()),
            _ => Err(ValidationError("not a digit".to_owned())),
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
    let store = configure(peer, StoreConfig::default().validators(validators));
    let stats = store.stats_handle();
    let mut kad = kad::Behaviour::new(peer, store);
    kad.set_mode(Some(Mode::Server));
    let config = swarm::Config::without_executor().with_idle_connection_timeout(Duration::from_secs(60));
    let mut swarm = Swarm::new(transport, kad, peer, config);
    let address: Multiaddr = format!("/memory/{number}").parse().unwrap();
    swarm.listen_on(address.clone()).unwrap();
    (swarm, stats, address)
}

/// Puts all records at the second node at once, and returns for each whether the node has confirmed it.
///
/// At once, because the sender learns late that a record was not stored: kad does not wake the stream that it resets,
/// so that the request ends by its timeout of 10 s.
fn put<const N: usize>(nodes: &mut [Node; 2], records: [(&str, &str); N]) -> [bool; N] {
    let peer = *nodes[1].local_peer_id();
    let ids = records.map(|(key, value)| {
        let record = Record::new(key.as_bytes().to_vec(), value.as_bytes().to_vec());
        nodes[0].behaviour_mut().put_record_to(record, [peer].into_iter(), Quorum::All)
    });
    let mut results = [None; N];
    while results.contains(&None) {
        let (id, result) = next_end(nodes);
        if let Some(at) = ids.iter().position(|of| *of == id) {
            results[at] = Some(match result {
                QueryResult::PutRecord(Ok(_)) => true,
                QueryResult::PutRecord(Err(
                    PutRecordError::QuorumFailed { success, .. } | PutRecordError::Timeout { success, .. },
                )) => {
                    assert!(success.is_empty(), "rejected, and counted as stored");
                    false
                }
                other => panic!("{other:?}"),
            });
        }
    }
    results.map(|result| result == Some(true))
}

/// Runs both nodes until a query of the first has ended.
fn next_end(nodes: &mut [Node; 2]) -> (QueryId, QueryResult) {
    block_on(async {
        loop {
            let (event, which, _) = select_all(nodes.iter_mut().map(|node| node.next().boxed_local())).await;
            if let Some(SwarmEvent::Behaviour(kad::Event::OutboundQueryProgressed { id, result, step, .. })) = event
                && which == 0
                && step.last
            {
                return (id, result);
            }
        }
    })
}

fn value(node: &mut Node, key: &str) -> Option<String> {
    let record = node.behaviour_mut().store_mut().get(&RecordKey::new(&key))?.into_owned();
    Some(String::from_utf8(record.value).unwrap())
}

fn records_of_a_peer_are_validated_and_it_learns_the_result(
    number: u64,
    configure: impl FnOnce(PeerId, StoreConfig) -> Store,
) {
    let (asking, ..) = node(number, Store::memory);
    let (serving, stats, address) = node(number + 1, configure);
    let mut nodes = [asking, serving];
    let peer = *nodes[1].local_peer_id();
    nodes[0].behaviour_mut().add_address(&peer, address);
    let own = Record { publisher: Some(peer), ..Record::new(b"own".to_vec(), b"ours".to_vec()) };
    nodes[1].behaviour_mut().store_mut().put(own).unwrap();

    assert_eq!(put(&mut nodes, [("/d/key", "5")]), [true]);
    let long = "k".repeat(300);
    let rejected = [("/d/key", "4"), ("/d/key", "no digit"), ("/d/other", "x"), (&long, "v"), ("own", "theirs")];
    assert_eq!(put(&mut nodes, rejected), [false; 5]);
    let stored = |nodes: &mut [Node; 2]| ["/d/key", "/d/other", "own"].map(|key| value(&mut nodes[1], key));
    assert_eq!(stored(&mut nodes), [Some("5".to_owned()), None, Some("ours".to_owned())]);
    assert_eq!(put(&mut nodes, [("/d/key", "5"), ("/d/key", "6"), ("plain", "anything")]), [true; 3]);
    assert_eq!(value(&mut nodes[1], "/d/key").as_deref(), Some("6"));

    let stats = stats.read();
    assert_eq!((stats.accepted, stats.unchanged), (4, 1));
    let InsertErrorCounts { worse, invalid, key_too_long, own_record, .. } = stats.insert_errors;
    assert_eq!((worse, invalid, key_too_long, own_record, stats.insert_errors.total()), (1, 2, 1, 1, 5));
}

#[test]
fn in_memory() {
    records_of_a_peer_are_validated_and_it_learns_the_result(0x6b61_6431, Store::memory);
}

#[cfg(feature = "disk")]
#[test]
fn with_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    records_of_a_peer_are_validated_and_it_learns_the_result(0x6b61_6433, |peer, config| {
        Store::open(path, peer, config).unwrap()
    });
}
