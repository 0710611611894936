//! Half-open connections: remotes that never complete a handshake do not keep newcomers from connecting. On real
//! sockets.

#![cfg(test)]

use std::{
    collections::HashSet,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use futures::{StreamExt, future::join_all};
use kadence_tokio::kadence::{
    libp2p::{Multiaddr, Transport, identify, kad::Record, multiaddr::Protocol, swarm::SwarmEvent},
    node::{Node, NodeBehaviourEvent, NodeConfig, NodeError},
};
use libp2p::{
    core::{
        Endpoint,
        transport::{DialOpts, PortUse},
    },
    identity::Keypair,
};
use libp2p_quic as quic;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpSocket, TcpStream, UdpSocket},
    time::{sleep, timeout},
};

/// Limit for every wait. Less than the 10 s after which the node closes a half-open connection.
const SOON: Duration = Duration::from_secs(8);

const ONE: Ipv4Addr = Ipv4Addr::LOCALHOST;
const OTHER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

const GREETING: &[u8] = b"\x13/multistream/1.0.0\n";

fn listening() -> NodeConfig {
    NodeConfig::default().listen([format!("/ip4/{ONE}/tcp/0").parse().unwrap()])
}

/// Opens connections that stop in the middle of a correct handshake, each at a different point.
async fn idle_sockets(to: SocketAddr, from: Ipv4Addr, count: usize) -> Vec<TcpStream> {
    let negotiated = [GREETING, b"\x07/noise\n"].concat();
    let half_sent = [&negotiated, b"\x00\x20half a noise".as_slice()].concat();
    let mut sockets = Vec::new();
    for at in 0..count {
        let sent: &[u8] = [b"".as_slice(), &GREETING[..7], GREETING, &negotiated, &half_sent][at % 5];
        let mut socket = connect(to, from).await;
        // The node may have closed it already.
        drop(socket.write_all(sent).await);
        sockets.push(socket);
    }
    sockets
}

async fn connect(to: SocketAddr, from: Ipv4Addr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    socket.connect(to).await.unwrap()
}

fn socket_address(address: &Multiaddr) -> SocketAddr {
    let mut parts = address.iter();
    match (parts.next(), parts.next()) {
        (Some(Protocol::Ip4(host)), Some(Protocol::Tcp(port) | Protocol::Udp(port))) => (host, port).into(),
        _ => panic!("{address}"),
    }
}

/// Forwards connections from another source address. Returns the address to connect to.
async fn from(source: Ipv4Addr, to: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind((ONE, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let mut incoming = listener.accept().await.unwrap().0;
            let mut outgoing = connect(to, source).await;
            tokio::spawn(async move { copy_bidirectional(&mut incoming, &mut outgoing).await });
        }
    });
    address
}

/// Waits until a condition holds.
async fn until(what: &str, is_so: impl Fn() -> bool) {
    let looked = timeout(SOON, async {
        while !is_so() {
            sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(looked.await.is_ok(), "timed out waiting: {what}");
}

/// Lets all newcomers dial concurrently, once each, and read a record.
async fn assert_served(address: &Multiaddr, newcomers: &[Node]) {
    let served = join_all(newcomers.iter().map(async |newcomer| {
        newcomer.add_peer(address).await.unwrap();
        newcomer.ready(SOON).await.unwrap();
        let answer = newcomer.client().get_record("greeting").await.unwrap();
        assert_eq!(answer.value(), b"hello");
    }));
    timeout(SOON, served).await.expect("newcomers do not wait for the handshake timeout");
}

/// Returns the address that a node dials from, as the hub observes it.
async fn observed(newcomer: &mut Node) -> Ipv4Addr {
    let mut events = newcomer.events().unwrap();
    let told = async {
        loop {
            if let SwarmEvent::Behaviour(NodeBehaviourEvent::Identify(identify::Event::Received { info, .. })) =
                events.next().await.unwrap().unwrap()
                && let Some(Protocol::Ip4(address)) = info.observed_addr.iter().next()
            {
                return address;
            }
        }
    };
    timeout(SOON, told).await.expect("identify reports the observed address")
}

/// Serves six newcomers while there are 400 idle sockets, on nodes of any runtime.
async fn newcomers_are_served_despite_idle_sockets<F>(
    start: impl Fn(NodeConfig) -> F,
    from: Ipv4Addr,
    newcomers: Ipv4Addr,
) where
    F: Future<Output = Result<Node, NodeError>>,
{
    let hub = start(listening()).await.unwrap();
    let writer = start(NodeConfig::default()).await.unwrap();
    writer.add_peer(&hub.listen_addrs()[0]).await.unwrap();
    writer.ready(SOON).await.unwrap();
    writer.client().put_record(Record::new(b"greeting".to_vec(), b"hello".to_vec())).await.unwrap();
    let peers = join_all((0..6).map(|_| start(NodeConfig::default()))).await;
    let mut peers: Vec<Node> = peers.into_iter().map(Result::unwrap).collect();

    let hub_address = socket_address(&hub.listen_addrs()[0]);
    let dial_address = self::from(newcomers, hub_address).await;
    let dial_address =
        format!("/ip4/{}/tcp/{}/p2p/{}", dial_address.ip(), dial_address.port(), hub.local_peer_id()).parse().unwrap();
    // A slow connection from a third address must not be closed in favour of the others.
    let mut slow = connect(hub_address, Ipv4Addr::new(127, 0, 0, 3)).await;
    slow.write_all(&GREETING[..5]).await.unwrap();
    let mut sockets = idle_sockets(hub_address, from, 400).await;
    let limit = NodeConfig::default().max_half_open_per_address;
    until("connections above the limit are evicted", || hub.half_open_stats().evicted == (400 - limit) as u64).await;
    assert_eq!(hub.half_open_stats().current, limit + 1);
    // The first socket was closed, as the oldest one.
    let mut rest = Vec::new();
    timeout(SOON, sockets[0].read_to_end(&mut rest)).await.expect("the oldest socket is closed").ok();

    assert_served(&dial_address, &peers).await;
    for peer in &mut peers {
        assert_eq!(observed(peer).await, newcomers);
    }
    slow.write_all(&GREETING[5..]).await.unwrap();
    let mut answer = [0; GREETING.len()];
    timeout(SOON, slow.read_exact(&mut answer)).await.expect("the slow connection is still open").unwrap();
    assert_eq!(answer, GREETING);
    assert_eq!(hub.connected_peers().await.unwrap().len(), 7);
}

#[tokio::test]
async fn newcomers_from_the_same_address_are_served() {
    newcomers_are_served_despite_idle_sockets(kadence_tokio::node, ONE, ONE).await;
}

#[tokio::test]
async fn newcomers_from_another_address_are_served() {
    newcomers_are_served_despite_idle_sockets(kadence_tokio::node, ONE, OTHER).await;
}

#[tokio::test]
async fn newcomers_are_served_despite_idle_sockets_from_another_address() {
    newcomers_are_served_despite_idle_sockets(kadence_tokio::node, OTHER, ONE).await;
}

#[tokio::test]
async fn newcomers_are_served_on_smol() {
    newcomers_are_served_despite_idle_sockets(kadence_smol::node, ONE, ONE).await;
}

#[tokio::test]
async fn newcomers_are_served_on_async_std() {
    newcomers_are_served_despite_idle_sockets(kadence_async_std::node, ONE, ONE).await;
}

/// A burst of honest peers from one address, at the limit of half-open connections: none of them is closed.
#[tokio::test]
async fn peers_of_one_address_that_dial_at_once_are_all_connected() {
    let config = listening().max_half_open_per_address(32).max_half_open(32);
    let hub = kadence_tokio::node(config).await.unwrap();
    let peers = join_all((0..32).map(|_| kadence_tokio::node(NodeConfig::default()))).await;
    let peers: Vec<Node> = peers.into_iter().map(Result::unwrap).collect();
    let address = &hub.listen_addrs()[0];
    join_all(peers.iter().map(async |peer| peer.add_peer(address).await.unwrap())).await;
    join_all(peers.iter().map(async |peer| peer.ready(SOON).await.unwrap())).await;
    assert_eq!(hub.half_open_stats().evicted, 0);
}

/// QUIC handshakes of which only the first packet arrives.
#[tokio::test]
async fn newcomers_are_served_over_quic_despite_incomplete_handshakes() {
    let listen = vec!["/ip4/127.0.0.1/udp/0/quic-v1".parse().unwrap()];
    let hub = kadence_tokio::node(NodeConfig::default().listen(listen)).await.unwrap();
    let writer = kadence_tokio::node(NodeConfig::default()).await.unwrap();
    writer.add_peer(&hub.listen_addrs()[0]).await.unwrap();
    writer.ready(SOON).await.unwrap();
    writer.client().put_record(Record::new(b"greeting".to_vec(), b"hello".to_vec())).await.unwrap();

    // Forwards the first packet of each connection to the hub, and no answers back.
    let between = UdpSocket::bind((ONE, 0)).await.unwrap();
    let port = between.local_addr().unwrap().port();
    let onward = UdpSocket::bind((ONE, 0)).await.unwrap();
    onward.connect(socket_address(&hub.listen_addrs()[0])).await.unwrap();
    let passing = tokio::spawn(async move {
        let (mut packet, mut passed) = ([0; 2048], HashSet::new());
        loop {
            let len = between.recv(&mut packet).await.unwrap();
            // The connection id that the client has chosen, at the start of a long header.
            let id = packet[6..6 + usize::from(packet[5])].to_vec();
            if passed.insert(id) {
                onward.send(&packet[..len]).await.unwrap();
            }
        }
    });
    let mut attacker = quic::tokio::Transport::new(quic::Config::new(&Keypair::generate_ed25519()));
    let to: Multiaddr = format!("/ip4/127.0.0.1/udp/{port}/quic-v1").parse().unwrap();
    let dials: Vec<_> = (0..200)
        .map(|_| {
            let options = DialOpts { role: Endpoint::Dialer, port_use: PortUse::New };
            tokio::spawn(attacker.dial(to.clone(), options).unwrap())
        })
        .collect();
    until("connections above the limit are evicted", || hub.half_open_stats().evicted > 0).await;

    let newcomers = join_all((0..6).map(|_| kadence_tokio::node(NodeConfig::default()))).await;
    let newcomers: Vec<Node> = newcomers.into_iter().map(Result::unwrap).collect();
    assert_served(&hub.listen_addrs()[0], &newcomers).await;
    passing.abort();
    dials.iter().for_each(tokio::task::JoinHandle::abort);
}
