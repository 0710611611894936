//! Records and providers that whole nodes store for the network.

#![cfg(test)]

use std::{
    cmp::Ordering,
    collections::BTreeSet,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt, future::join_all};
use kadence_tokio::{
    Identity, Node, NodeConfig,
    kadence::{
        ContainsKad, InvalidRequestError, PutRecordError, RequestError, ValidationError, Validator, Validators,
        node::{NodeBehaviourEvent, NodeError, NodeStore},
        store::{InsertErrorCounts, Store, StoreOpenError},
    },
    node,
};
use libp2p::{
    kad::{self, InboundRequest, Record, RecordKey, store::RecordStore},
    swarm::SwarmEvent,
};
use tempfile::tempdir;
use tokio::time::timeout;

/// Limit for every wait. Much longer than anything here takes.
const WAIT: Duration = Duration::from_secs(60);

/// Validator: values are single digits; the larger one is better.
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

fn server() -> NodeConfig {
    NodeConfig::default().listen(["/ip4/127.0.0.1/tcp/0".parse().unwrap()])
}

/// Returns the configuration of a server that keeps its identity and store in this folder.
fn kept(folder: &Path) -> NodeConfig {
    let identity = Identity::File(folder.join("key"));
    server().identity(identity).store(NodeStore::Disk(folder.join("store")))
}

async fn client(of: &Node) -> Node {
    let client = node(NodeConfig::default().bootstrap_peers(of.listen_addrs())).await.unwrap();
    client.ready(WAIT).await.unwrap();
    client
}

fn record(key: &str, value: &str) -> Record {
    Record::new(key.as_bytes().to_vec(), value.as_bytes().to_vec())
}

async fn with_store<T: Send + 'static>(node: &Node, f: impl FnOnce(&mut Store) -> T + Send + 'static) -> T {
    node.swarm().with(|swarm| f(swarm.behaviour_mut().kad().store_mut())).await.unwrap()
}

async fn stored(node: &Node, key: &str) -> Option<String> {
    let key = RecordKey::new(&key);
    let value = with_store(node, move |store| store.get(&key).map(|record| record.into_owned().value)).await?;
    Some(String::from_utf8(value).unwrap())
}

/// Waits until a node has received this number of records and providers.
async fn wait_for_requests(node: &mut Node, records: usize, providers: usize) {
    let mut events = node.events().unwrap();
    let (mut puts, mut announcements) = (0, 0);
    let received = async {
        while puts < records || announcements < providers {
            match events.next().await.unwrap().unwrap() {
                SwarmEvent::Behaviour(NodeBehaviourEvent::Kad(kad::Event::InboundRequest {
                    request: InboundRequest::PutRecord { .. },
                })) => puts += 1,
                SwarmEvent::Behaviour(NodeBehaviourEvent::Kad(kad::Event::InboundRequest {
                    request: InboundRequest::AddProvider { .. },
                })) => announcements += 1,
                _ => {}
            }
        }
    };
    timeout(WAIT, received).await.unwrap_or_else(|_| panic!("only {puts} records and {announcements} providers"));
}

#[tokio::test]
async fn a_restarted_node_serves_its_stored_records_and_republishes_its_own() {
    let folder = tempdir().unwrap();
    let id = {
        let kept = node(kept(folder.path())).await.unwrap();
        let (asking, other) = (client(&kept).await, node(server()).await.unwrap());
        let put = asking.client().put_record(record("theirs", "of a client")).await.unwrap();
        assert_eq!(put.acknowledged, [kept.local_peer_id()]);
        kept.add_peer(&other.listen_addrs()[0]).await.unwrap();
        kept.ready(WAIT).await.unwrap();
        kept.client().put_record(record("own", "of the node")).await.unwrap();
        kept.client().start_providing("file").await.unwrap();
        let id = kept.local_peer_id();
        kept.shutdown().await;
        id
    };
    // No node of the first network exists any more, and at first there are no peers at all.
    let kept = node(kept(folder.path())).await.unwrap();
    assert_eq!((kept.local_peer_id(), kept.store_stats().records, kept.store_stats().provided_keys), (id, 2, 1));
    let mut other = node(server()).await.unwrap();
    assert_eq!(stored(&other, "own").await, None);
    kept.add_peer(&other.listen_addrs()[0]).await.unwrap();
    wait_for_requests(&mut other, 1, 1).await;
    assert_eq!(stored(&other, "own").await.as_deref(), Some("of the node"));
    let providers = with_store(&other, |store| store.providers(&RecordKey::new(&"file"))).await;
    assert_eq!(providers.iter().map(|entry| entry.provider).collect::<Vec<_>>(), [id]);
    // The client's record is not republished, but peers that ask for it receive it.
    assert_eq!(stored(&other, "theirs").await, None);
    let answer = client(&other).await.client().get_record("theirs").await.unwrap();
    assert_eq!((answer.value(), answer.record.peer), (&b"of a client"[..], Some(id)));
}

#[tokio::test]
async fn records_removed_before_the_first_peer_are_not_republished() {
    let folder = tempdir().unwrap();
    let keys: Vec<String> = (0..8).map(|number| format!("key {number}")).collect();
    {
        let other = node(server()).await.unwrap();
        let kept = node(kept(folder.path()).bootstrap_peers(other.listen_addrs())).await.unwrap();
        kept.ready(WAIT).await.unwrap();
        for key in &keys {
            kept.client().put_record(record(key, "value")).await.unwrap();
            kept.client().start_providing(key.as_str()).await.unwrap();
        }
        kept.shutdown().await;
    }
    let kept = node(kept(folder.path())).await.unwrap();
    for key in &keys[1..] {
        kept.client().remove_record(key.as_str()).await.unwrap();
        kept.client().stop_providing(key.as_str()).await.unwrap();
    }
    let mut other = node(server()).await.unwrap();
    kept.add_peer(&other.listen_addrs()[0]).await.unwrap();
    wait_for_requests(&mut other, 1, 1).await;
    kept.shutdown().await;
    assert_eq!(stored(&other, &keys[0]).await.as_deref(), Some("value"));
    let stats = other.store_stats();
    assert_eq!((stats.records, stats.provided_keys), (1, 1));
}

/// kad rejects a put by resetting the stream, but does not send the reset immediately. Each rejected put takes 10
/// seconds, so they run concurrently.
#[tokio::test]
async fn older_invalid_and_too_long_records_are_rejected_and_counted() {
    let folder = tempdir().unwrap();
    let config = || {
        let mut config = kept(folder.path()).max_value_len(1000);
        config.driver.tracker.validators = Validators::default().with("d", Arc::new(Digits));
        config
    };
    let strict = node(config()).await.unwrap();
    let lax = NodeConfig::default().bootstrap_peers(strict.listen_addrs()).max_key_len(1000);
    let lax = node(lax).await.unwrap();
    lax.ready(WAIT).await.unwrap();
    lax.client().put_record(record("/d/key", "5")).await.unwrap();

    let (long_key, long_value) = ("k".repeat(257), "v".repeat(1001));
    let rejected = [("/d/key", "4"), ("/d/key", "x"), ("/d/other", "10"), (&*long_key, "value"), ("key", &*long_value)];
    let puts = rejected.map(|(key, value)| lax.client().put_record(record(key, value)).timeout(WAIT).into_future());
    for put in join_all(puts).await {
        assert!(
            matches!(&put, Err(PutRecordError::QuorumFailed { acknowledged, .. }) if acknowledged.is_empty()),
            "{put:?}"
        );
    }
    let stats = strict.store_stats();
    let InsertErrorCounts { worse, invalid, key_too_long, value_too_long, .. } = stats.insert_errors;
    assert_eq!((worse, invalid, key_too_long, value_too_long, stats.insert_errors.total()), (1, 2, 1, 1, 5));
    assert_eq!((stats.records, stats.accepted), (1, 1));
    // The same validators check local puts.
    let invalid = strict.client().put_record(record("/d/key", "x")).await;
    assert!(
        matches!(invalid, Err(PutRecordError::Request(RequestError::Invalid(InvalidRequestError::Rejected { .. })))),
        "{invalid:?}"
    );

    lax.client().put_record(record("/d/key", "6")).await.unwrap();
    strict.shutdown().await;
    let strict = node(config()).await.unwrap();
    assert_eq!(stored(&strict, "/d/key").await.as_deref(), Some("6"));
}

#[tokio::test]
async fn a_file_that_cannot_be_opened_is_a_specific_error() {
    let folder = tempdir().unwrap();
    let first = node(kept(folder.path())).await.unwrap();
    let second = node(kept(folder.path())).await.unwrap_err();
    assert!(matches!(second, NodeError::Store(StoreOpenError::InUse { .. })), "{second:?}");
    first.shutdown().await;
    node(kept(folder.path())).await.unwrap();
    let path = folder.path().join("text");
    std::fs::write(&path, "a shopping list, which is long enough to be looked at".repeat(100)).unwrap();
    let error = node(server().store(NodeStore::Disk(path))).await.unwrap_err();
    assert!(matches!(error, NodeError::Store(StoreOpenError::Foreign { .. })), "{error:?}");
}

/// The store uses the system clock. The node uses tokio's clock, which is paused and advances only when all tasks wait.
#[tokio::test(start_paused = true)]
async fn expired_records_are_removed_without_further_writes() {
    let node = node(NodeConfig::default()).await.unwrap();
    let expires = Instant::now() + Duration::from_millis(50);
    let short = Record { expires: Some(expires), ..record("short", "life") };
    with_store(&node, move |store| store.put(short)).await.unwrap();
    while Instant::now() <= expires {
        std::thread::yield_now();
    }
    assert_eq!(node.store_stats().records, 1);
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!((node.store_stats().records, node.store_stats().expired), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_file_works_on_every_runtime() {
    let folder = tempdir().unwrap();
    let config = || kept(folder.path()).listen(Vec::new());
    let mut nodes = BTreeSet::new();
    let mut put_and_end = async |node: Node, number: usize| {
        nodes.insert(node.local_peer_id());
        for before in 0..number {
            let answer = node.client().get_record(format!("key {before}")).await.unwrap();
            assert_eq!(answer.value(), before.to_string().as_bytes());
        }
        let own = record(&format!("key {number}"), &number.to_string());
        let own = Record { publisher: Some(node.local_peer_id()), ..own };
        with_store(&node, move |store| store.put(own)).await.unwrap();
        node.shutdown().await;
    };
    put_and_end(node(config()).await.unwrap(), 0).await;
    put_and_end(kadence_async_std::node(config()).await.unwrap(), 1).await;
    put_and_end(kadence_smol::node(config()).await.unwrap(), 2).await;
    put_and_end(node(config()).await.unwrap(), 3).await;
    assert_eq!(nodes.len(), 1);
}
