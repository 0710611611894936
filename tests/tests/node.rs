//! `kadence::node::Node`, on tokio and loopback TCP.

#![cfg(test)]

use std::time::Duration;

use kadence_tokio::{
    Node, NodeConfig,
    kadence::{
        Certainty, FindPeerError, GetRecordError,
        libp2p::kad::Record,
        node::{NodeError, ReadyError},
    },
    node,
};
use libp2p::Multiaddr;

const LONG: Duration = Duration::from_secs(30);

async fn server(bootstrap_peers: Vec<Multiaddr>) -> Node {
    let listen = vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()];
    node(NodeConfig::default().listen(listen).bootstrap_peers(bootstrap_peers)).await.unwrap()
}

async fn client(bootstrap_peers: Vec<Multiaddr>) -> Node {
    node(NodeConfig::default().bootstrap_peers(bootstrap_peers)).await.unwrap()
}

#[tokio::test]
async fn a_record_goes_from_one_client_to_another_through_a_server() {
    let server = server(Vec::new()).await;
    let (one, other) = (client(server.listen_addrs()).await, client(server.listen_addrs()).await);
    one.ready(LONG).await.unwrap();
    other.ready(LONG).await.unwrap();
    let put = one.client().put_record(Record::new(b"greeting".to_vec(), b"hello".to_vec())).await.unwrap();
    assert_eq!(put.acknowledged, [server.local_peer_id()]);
    let answer = other.client().get_record("greeting").await.unwrap();
    assert_eq!(answer.value(), b"hello");
    let missing = other.client().get_record("nothing").await;
    assert!(matches!(missing, Err(GetRecordError::NotFound { .. })), "not {missing:?}");
}

/// kad reports an announcement as done before its messages have left. A node that shut down immediately would lose
/// them.
#[tokio::test]
async fn an_announcement_outlives_a_graceful_shutdown() {
    let server = server(Vec::new()).await;
    let provider = self::server(server.listen_addrs()).await;
    provider.ready(LONG).await.unwrap();
    let id = provider.local_peer_id();
    provider.client().start_providing("file").await.unwrap();
    provider.shutdown().await;
    let asker = client(server.listen_addrs()).await;
    asker.ready(LONG).await.unwrap();
    assert_eq!(*asker.client().get_providers("file").await.unwrap().providers, [id]);
}

#[tokio::test]
async fn ready_fails_at_its_timeout_with_the_dial_error() {
    // A port on which a node has just stopped listening.
    let gone = server(Vec::new()).await;
    let address = gone.listen_addrs();
    gone.shutdown().await;
    let node = client(address).await;
    let error = node.ready(Duration::from_millis(300)).await.unwrap_err();
    let ReadyError::NoPeer { timeout, last_dial_error } = error else { panic!("not {error:?}") };
    assert_eq!(timeout, Duration::from_millis(300));
    assert!(last_dial_error.is_some());
}

#[tokio::test]
async fn a_bootstrap_peer_needs_its_id() {
    let error =
        node(NodeConfig::default().bootstrap_peers(["/ip4/127.0.0.1/tcp/4001".parse().unwrap()])).await.unwrap_err();
    assert!(matches!(error, NodeError::NoPeerId { .. }), "not {error:?}");
}

#[tokio::test]
async fn ready_accepts_an_unlimited_timeout() {
    let server = server(Vec::new()).await;
    let node = client(server.listen_addrs()).await;
    node.ready(Duration::MAX).await.unwrap();
}

#[tokio::test]
async fn dropping_a_node_ends_it() {
    let server = server(Vec::new()).await;
    let client = server.client().clone();
    drop(server);
    // The task ends when the runtime polls it next.
    while client.snapshot().await.is_ok() {
        tokio::task::yield_now().await;
    }
}

/// A peer that is added later, instead of by the configuration.
#[tokio::test]
async fn a_peer_can_be_added_later() {
    let (server, node) = (server(Vec::new()).await, client(Vec::new()).await);
    node.add_peer(&server.listen_addrs()[0]).await.unwrap();
    node.ready(LONG).await.unwrap();
    assert_eq!(node.connected_peers().await.unwrap(), [server.local_peer_id()]);
}

#[tokio::test]
async fn find_peer_finds_servers_but_not_clients() {
    let seed = server(Vec::new()).await;
    let other = server(seed.listen_addrs()).await;
    other.ready(LONG).await.unwrap();
    let config = NodeConfig::default().bootstrap_peers(seed.listen_addrs()).expected_network_size(3);
    let asker = node(config).await.unwrap();
    asker.ready(LONG).await.unwrap();
    let found = asker.client().find_peer(other.local_peer_id()).await.unwrap();
    assert_eq!((found.peer, found.answered), (other.local_peer_id(), true));
    let place = other.listen_addrs().remove(0);
    let without_id = |address: &Multiaddr| address.iter().take(2).collect::<Multiaddr>();
    assert!(found.addresses.iter().any(|address| without_id(address) == without_id(&place)), "{found:?}");

    let hidden = client(seed.listen_addrs()).await;
    hidden.ready(LONG).await.unwrap();
    let error = asker.client().find_peer(hidden.local_peer_id()).await.unwrap_err();
    let FindPeerError::NotFound { closest_peers, certainty: Certainty::Conclusive, .. } = error else {
        panic!("{error:?}")
    };
    assert_eq!(closest_peers.len(), 2);
}
