//! Nodes of the field on loopback TCP, on tokio and smol: peers that move, leave, restart and have no room. The same and
//! more is in virtual time in `sim/tests/field`; here it meets real sockets.

#![cfg(test)]

use std::time::{Duration, Instant};

use futures::{FutureExt, StreamExt, future::BoxFuture};
use kadence_tokio::kadence::{
    StartProvidingError,
    node::{Identity, Node, NodeConfig, NodeError},
};
use libp2p::{
    Multiaddr, PeerId, TransportError,
    identity::Keypair,
    kad::{self, Mode, Record, RecordKey, store::RecordStore},
    multiaddr::Protocol,
    swarm::SwarmEvent,
};

const LONG: Duration = Duration::from_secs(30);

type Start = fn(NodeConfig) -> BoxFuture<'static, Result<Node, NodeError>>;

fn tokio_node(config: NodeConfig) -> BoxFuture<'static, Result<Node, NodeError>> {
    kadence_tokio::node(config).boxed()
}

fn smol_node(config: NodeConfig) -> BoxFuture<'static, Result<Node, NodeError>> {
    kadence_smol::node(config).boxed()
}

kadence_tests::on_tokio_and_smol! {
    a_peer_that_has_moved_is_found_where_others_say_that_it_is,
    the_address_after_many_restarts_is_passed_on,
    a_seed_that_was_started_again_becomes_part_of_the_network,
    a_living_peer_takes_puts_although_sixty_others_have_left,
    a_full_bootstrap_peer_is_dialled_less_and_less,
    a_record_that_expires_within_a_second_is_gone_soon,
    a_listening_client_that_provides_is_found,
    a_node_that_does_not_listen_cannot_provide,
    what_a_node_provides_alone_is_found_later,
    two_nodes_cannot_listen_on_one_port,
    a_node_dials_although_another_program_has_its_port_at_another_address,
    a_long_list_of_silent_bootstrap_peers_does_not_delay_the_good_one,
}

fn any_port() -> Multiaddr {
    "/ip4/127.0.0.1/tcp/0".parse().unwrap()
}

fn server(bootstrap_peers: Vec<Multiaddr>) -> NodeConfig {
    NodeConfig::default().listen([any_port()]).bootstrap_peers(bootstrap_peers)
}

async fn client(start: Start, bootstrap_peers: Vec<Multiaddr>) -> Node {
    let node = start(NodeConfig::default().bootstrap_peers(bootstrap_peers)).await.unwrap();
    node.ready(LONG).await.unwrap();
    node
}

async fn a_peer_that_has_moved_is_found_where_others_say_that_it_is(start: Start) {
    let seed = start(server(Vec::new())).await.unwrap();
    let identity = Identity::Keypair(Keypair::generate_ed25519());
    let peer = start(server(seed.listen_addrs()).identity(identity.clone())).await.unwrap();
    peer.ready(LONG).await.unwrap();
    // Nobody has a client in a table, so the peer does not come to it by itself.
    let client = client(start, seed.listen_addrs()).await;
    assert!(client.client().find_peer(peer.local_peer_id()).await.unwrap().answered);
    peer.shutdown().await;
    let peer = start(server(seed.listen_addrs()).identity(identity)).await.unwrap();
    peer.ready(LONG).await.unwrap();
    peer.client().start_providing("file").await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let _found = client.client().get_providers("file").await;
        let found = client.client().find_peer(peer.local_peer_id()).await;
        if found.as_ref().is_ok_and(|found| found.addresses.contains(&peer.listen_addrs()[0])) {
            break;
        }
        assert!(Instant::now() < deadline, "it is at {:?}, and looked for at {found:?}", peer.listen_addrs());
        smol::Timer::after(Duration::from_millis(200)).await;
    }
}

async fn the_address_after_many_restarts_is_passed_on(start: Start) {
    let seed = start(server(Vec::new())).await.unwrap();
    let identity = Identity::Keypair(Keypair::generate_ed25519());
    for _ in 0..17 {
        let peer = start(server(seed.listen_addrs()).identity(identity.clone())).await.unwrap();
        peer.ready(LONG).await.unwrap();
        peer.client().bootstrap().await.unwrap();
        peer.shutdown().await;
    }
    let peer = start(server(seed.listen_addrs()).identity(identity)).await.unwrap();
    peer.ready(LONG).await.unwrap();
    peer.client().bootstrap().await.unwrap();
    let client = client(start, seed.listen_addrs()).await;
    let found = client.client().find_peer(peer.local_peer_id()).await;
    assert!(found.as_ref().is_ok_and(|found| found.addresses.contains(&peer.listen_addrs()[0])), "{found:?}");
}

async fn a_seed_that_was_started_again_becomes_part_of_the_network(start: Start) {
    let identity = Identity::Keypair(Keypair::generate_ed25519());
    let seed = start(server(Vec::new()).identity(identity.clone())).await.unwrap();
    let places = seed.listen_addrs();
    // Two nodes that do not need the seed to stay connected.
    let config = server(places.clone()).idle_connection_timeout(Duration::from_secs(3600));
    let (one, other) = (start(config.clone()).await.unwrap(), start(config).await.unwrap());
    one.ready(LONG).await.unwrap();
    other.ready(LONG).await.unwrap();
    one.add_peer(&other.listen_addrs()[0]).await.unwrap();
    one.client().put_record(Record::new(b"greeting".to_vec(), b"hello".to_vec())).await.unwrap();
    seed.shutdown().await;
    let mut place = places[0].clone();
    place.pop();
    let _seed = start(NodeConfig::default().listen([place]).identity(identity)).await.unwrap();
    let newcomer = client(start, places).await;
    let deadline = Instant::now() + LONG;
    while newcomer.client().get_record("greeting").await.is_err() {
        assert!(Instant::now() < deadline, "the record is not found through the seed");
        smol::Timer::after(Duration::from_millis(200)).await;
    }
}

async fn a_living_peer_takes_puts_although_sixty_others_have_left(start: Start) {
    let seed = start(server(Vec::new())).await.unwrap();
    for _ in 0..60 {
        let gone = start(server(seed.listen_addrs())).await.unwrap();
        gone.ready(LONG).await.unwrap();
        gone.shutdown().await;
    }
    let alive = start(server(seed.listen_addrs())).await.unwrap();
    alive.ready(LONG).await.unwrap();
    smol::Timer::after(Duration::from_secs(1)).await;
    for number in 0..20_u8 {
        seed.client().put_record(Record::new(vec![number], b"value".to_vec())).await.unwrap();
    }
}

async fn a_full_bootstrap_peer_is_dialled_less_and_less(start: Start) {
    let full = start(server(Vec::new()).max_connections(4)).await.unwrap();
    let mut guests = Vec::new();
    for _ in 0..3 {
        guests.push(client(start, full.listen_addrs()).await);
    }
    let mut outside = start(NodeConfig::default().bootstrap_peers(full.listen_addrs())).await.unwrap();
    let (mut events, began) = (outside.events().unwrap(), Instant::now());
    let mut dials = Vec::new();
    let mut end = FutureExt::fuse(smol::Timer::after(Duration::from_secs(20)));
    loop {
        futures::select! {
            event = events.next().fuse() => match event {
                Some(Ok(SwarmEvent::ConnectionEstablished { .. })) => dials.push(began.elapsed()),
                Some(_) => {}
                None => break,
            },
            _ = end => break,
        }
    }
    assert!((1..=7).contains(&dials.len()), "{dials:?}");
}

async fn a_record_that_expires_within_a_second_is_gone_soon(start: Start) {
    let server = start(server(Vec::new())).await.unwrap();
    let writer = client(start, server.listen_addrs()).await;
    let expires = Some(Instant::now() + Duration::from_millis(900));
    let record = Record { expires, ..Record::new(b"token".to_vec(), b"good for 900 ms".to_vec()) };
    writer.client().put_record(record).await.unwrap();
    smol::Timer::after(Duration::from_secs(3)).await;
    let reader = client(start, server.listen_addrs()).await;
    reader.client().get_record("token").await.unwrap_err();
}

async fn a_listening_client_that_provides_is_found(start: Start) {
    let seed = start(server(Vec::new())).await.unwrap();
    let provider = start(server(seed.listen_addrs()).mode(Mode::Client)).await.unwrap();
    provider.ready(LONG).await.unwrap();
    assert_eq!(provider.client().start_providing("file").await.unwrap().sent_to, 1);
    let asker = client(start, seed.listen_addrs()).await;
    let deadline = Instant::now() + LONG;
    loop {
        let found = asker.client().get_providers("file").await;
        if found.as_ref().is_ok_and(|found| found.providers.contains(&provider.local_peer_id())) {
            break;
        }
        // An announcement has no response.
        assert!(Instant::now() < deadline, "{found:?}");
        smol::Timer::after(Duration::from_millis(100)).await;
    }
}

async fn a_node_that_does_not_listen_cannot_provide(start: Start) {
    let seed = start(server(Vec::new())).await.unwrap();
    let provider = client(start, seed.listen_addrs()).await;
    let error = provider.client().start_providing("file").await.unwrap_err();
    assert!(matches!(error, StartProvidingError::NoExternalAddress), "{error:?}");
}

async fn what_a_node_provides_alone_is_found_later(start: Start) {
    let alone = start(server(Vec::new())).await.unwrap();
    let error = alone.client().start_providing("file").await.unwrap_err();
    assert!(matches!(error, StartProvidingError::NoKnownPeers) && error.keeps_local_entry(), "{error:?}");
    let other = start(server(alone.listen_addrs())).await.unwrap();
    other.ready(LONG).await.unwrap();
    let found = other.client().get_providers("file").await.unwrap();
    assert_eq!(*found.providers, [alone.local_peer_id()]);
    // It is announced, so that others have it when the first one is gone.
    let deadline = Instant::now() + LONG;
    while other.swarm().with(|swarm| count_providers(swarm.behaviour_mut().kad.kad_mut())).await.unwrap() == 0 {
        assert!(Instant::now() < deadline, "not announced");
        smol::Timer::after(Duration::from_millis(100)).await;
    }
}

fn count_providers<S: RecordStore + Send + 'static>(kad: &mut kad::Behaviour<S>) -> usize {
    kad.store_mut().providers(&RecordKey::new(b"file")).len()
}

async fn two_nodes_cannot_listen_on_one_port(start: Start) {
    let first = start(server(Vec::new())).await.unwrap();
    let mut place = first.listen_addrs()[0].clone();
    place.pop();
    let second = start(NodeConfig::default().listen([place.clone()])).await;
    let Err(NodeError::Listen { address, error: TransportError::Other(error) }) = second else {
        panic!("two nodes listen on {place}");
    };
    assert_eq!(address, place);
    assert!(error.to_string().contains("in use"), "{error}");
    first.shutdown().await;
    start(NodeConfig::default().listen([place])).await.unwrap();
}

async fn a_node_dials_although_another_program_has_its_port_at_another_address(start: Start) {
    let seed = start(server(Vec::new())).await.unwrap();
    let node = start(server(Vec::new())).await.unwrap();
    let Some(Protocol::Tcp(port)) = node.listen_addrs()[0].iter().nth(1) else { panic!("no port") };
    // Only Linux has this address without configuration. Where the port is taken by somebody else, it is in use anyway.
    let _other_program = std::net::TcpListener::bind(("127.0.0.2", port));
    node.add_peer(&seed.listen_addrs()[0]).await.unwrap();
    node.ready(LONG).await.unwrap();
}

/// A hundred peers whose machine accepts connections and says nothing.
async fn a_long_list_of_silent_bootstrap_peers_does_not_delay_the_good_one(start: Start) {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let good = start(server(Vec::new())).await.unwrap();
    let silent_peer = |_| format!("/ip4/127.0.0.1/tcp/{port}/p2p/{}", PeerId::random()).parse().unwrap();
    let list: Vec<Multiaddr> = (0..100).map(silent_peer).chain(good.listen_addrs()).collect();
    let node = start(NodeConfig::default().bootstrap_peers(list)).await.unwrap();
    // By far less than the ten seconds that a silent handshake takes.
    node.ready(Duration::from_secs(8)).await.unwrap();
    let put = node.client().put_record(Record::new(b"greeting".to_vec(), b"hello".to_vec()));
    put.timeout(Duration::from_secs(8)).await.unwrap();
}
