//! The suite: behaviour of every TCP transport of libp2p.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener},
    pin::Pin,
};

use async_io::Async;
use futures::{AsyncReadExt, FutureExt, future::poll_fn};
use libp2p::{
    Multiaddr,
    core::{
        Transport,
        transport::{ListenerId, PortUse, TransportError, TransportEvent},
    },
    multiaddr::Protocol,
};

use crate::{
    streams::{close_after_reset, close_again, echo, half_close, transfer},
    subject::{Connection, Subject, connect, ipv6, listen, next, opts, within},
};

const LOOPBACK: &str = "/ip4/127.0.0.1/tcp/0";
const LOOPBACK_6: &str = "/ip6/::1/tcp/0";
const PEER: &str = "/p2p/12D3KooWGzxzKZYveHXtpG6AsrUJBcWxHBFS2HsEoGTxrMLvKXtf";

fn port(addr: &Multiaddr) -> u16 {
    addr.iter().find_map(|protocol| if let Protocol::Tcp(port) = protocol { Some(port) } else { None }).unwrap()
}

fn ip(addr: &Multiaddr) -> IpAddr {
    match addr.iter().next().unwrap() {
        Protocol::Ip4(ip) => ip.into(),
        Protocol::Ip6(ip) => ip.into(),
        other => panic!("{other} is no IP address"),
    }
}

type Pair<S> =
    Connection<<<S as Subject>::Transport as Transport>::Output, <<S as Subject>::Transport as Transport>::Output>;

async fn pair<S: Subject>(addr: &str) -> Pair<S> {
    let (mut dialler, mut listener) = (S::transport(), S::transport());
    let (_, addr) = listen(&mut listener, addr).await;
    connect(&mut dialler, &mut listener, addr, PortUse::New).await
}

pub async fn bytes_go_both_ways_over_ipv4<S: Subject>() {
    let Connection { dialled, accepted, .. } = pair::<S>(LOOPBACK).await;
    echo(dialled, accepted).await;
}

pub async fn bytes_go_both_ways_over_ipv6<S: Subject>() {
    if ipv6() {
        let Connection { dialled, accepted, .. } = pair::<S>(LOOPBACK_6).await;
        echo(dialled, accepted).await;
    }
}

pub async fn much_data_arrives_whole_and_in_order<S: Subject>() {
    let Connection { dialled, accepted, .. } = pair::<S>(LOOPBACK).await;
    transfer(dialled, accepted).await;
}

pub async fn a_closed_direction_ends_while_the_other_goes_on<S: Subject>() {
    let Connection { dialled, accepted, .. } = pair::<S>(LOOPBACK).await;
    half_close(dialled, accepted).await;
}

pub async fn a_closed_connection_can_be_closed_again<S: Subject>() {
    let Connection { dialled, accepted, .. } = pair::<S>(LOOPBACK).await;
    close_again(dialled, accepted).await;
}

pub async fn a_reset_connection_can_be_closed<S: Subject>() {
    let Connection { dialled, accepted, .. } = pair::<S>(LOOPBACK).await;
    close_after_reset(dialled, accepted).await;
}

pub async fn a_concrete_address_is_announced_with_its_port<S: Subject>() {
    let (mut dialler, mut listener) = (S::transport(), S::transport());
    let (_, addr) = listen(&mut listener, LOOPBACK).await;
    assert_eq!(ip(&addr), Ipv4Addr::LOCALHOST);
    assert_ne!(port(&addr), 0);
    let connection = connect(&mut dialler, &mut listener, addr.clone(), PortUse::New).await;
    assert_eq!(connection.local_addr, addr);
    assert_eq!(ip(&connection.send_back_addr), Ipv4Addr::LOCALHOST);
}

pub async fn a_wildcard_is_announced_for_each_ipv4_address<S: Subject>() {
    wildcard::<S>("/ip4/0.0.0.0/tcp/0", Ipv4Addr::LOCALHOST.into()).await;
}

pub async fn a_wildcard_is_announced_for_each_ipv6_address<S: Subject>() {
    if ipv6() {
        wildcard::<S>("/ip6/::/tcp/0", Ipv6Addr::LOCALHOST.into()).await;
    }
}

/// Compares the addresses with those that libp2p's transport finds. A machine has at least a loopback address.
async fn wildcard<S: Subject>(addr: &str, loopback: IpAddr) {
    let (mut dialler, mut listener) = (S::transport(), S::transport());
    let id = ListenerId::next();
    listener.listen_on(id, addr.parse().unwrap()).unwrap();
    let mut announced = BTreeSet::new();
    let mut local = None;
    while local.is_none() {
        let TransportEvent::NewAddress { listener_id, listen_addr } = next(&mut listener).await else {
            panic!("something else than an address");
        };
        assert_eq!(listener_id, id);
        assert_ne!(port(&listen_addr), 0);
        assert!(!ip(&listen_addr).is_unspecified(), "{listen_addr} is no address to dial");
        assert_eq!(ip(&listen_addr).is_ipv4(), loopback.is_ipv4(), "{listen_addr} is of the other IP version");
        assert!(announced.insert(listen_addr.clone()), "{listen_addr} came twice");
        if ip(&listen_addr) == loopback {
            local = Some(listen_addr);
        }
    }
    let connection = connect(&mut dialler, &mut listener, local.unwrap(), PortUse::New).await;
    echo(connection.dialled, connection.accepted).await;
}

pub async fn two_listeners_are_told_apart<S: Subject>() {
    let (mut dialler, mut listener) = (S::transport(), S::transport());
    let (one, one_addr) = listen(&mut listener, LOOPBACK).await;
    let (other, other_addr) = listen(&mut listener, LOOPBACK).await;
    assert_ne!(one_addr, other_addr);
    for (id, addr) in [(other, other_addr), (one, one_addr)] {
        let dial = dialler.dial(addr.clone(), opts(PortUse::New)).unwrap();
        let (dialled, event) = futures::join!(within(dial.boxed()), next(&mut listener));
        dialled.unwrap();
        let TransportEvent::Incoming { listener_id, local_addr, .. } = event else {
            panic!("instead of a connection: {event:?}");
        };
        assert_eq!((listener_id, local_addr), (id, addr));
    }
}

pub async fn reuse_dials_from_the_listening_port<S: Subject>() {
    let (mut dialler, mut listener) = (S::transport(), S::transport());
    let (_, own) = listen(&mut dialler, LOOPBACK).await;
    let (_, addr) = listen(&mut listener, LOOPBACK).await;
    let connection = connect(&mut dialler, &mut listener, addr, PortUse::Reuse).await;
    assert_eq!(connection.send_back_addr, own);
    // Where the connection came from can be dialled.
    let back = connect(&mut listener, &mut dialler, connection.send_back_addr, PortUse::New).await;
    echo(back.dialled, back.accepted).await;
}

pub async fn reuse_without_a_listener_takes_a_new_port<S: Subject>() {
    let (mut dialler, mut listener) = (S::transport(), S::transport());
    let (_, addr) = listen(&mut listener, LOOPBACK).await;
    let connection = connect(&mut dialler, &mut listener, addr, PortUse::Reuse).await;
    echo(connection.dialled, connection.accepted).await;
}

pub async fn reuse_of_a_port_in_use_for_the_same_remote_takes_a_new_port<S: Subject>() {
    let (mut dialler, mut listener) = (S::transport(), S::transport());
    let (_, own) = listen(&mut dialler, LOOPBACK).await;
    let (_, addr) = listen(&mut listener, LOOPBACK).await;
    let first = connect(&mut dialler, &mut listener, addr.clone(), PortUse::Reuse).await;
    let second = connect(&mut dialler, &mut listener, addr, PortUse::Reuse).await;
    assert_eq!(first.send_back_addr, own);
    assert_ne!(second.send_back_addr, own);
    echo(first.dialled, first.accepted).await;
    echo(second.dialled, second.accepted).await;
}

pub async fn a_new_port_is_not_the_listening_one<S: Subject>() {
    let (mut dialler, mut listener) = (S::transport(), S::transport());
    let (_, own) = listen(&mut dialler, LOOPBACK).await;
    let (_, addr) = listen(&mut listener, LOOPBACK).await;
    let connection = connect(&mut dialler, &mut listener, addr, PortUse::New).await;
    assert_ne!(port(&connection.send_back_addr), port(&own));
}

pub async fn a_removed_listener_is_closed_and_refuses<S: Subject>() {
    let (mut dialler, mut listener) = (S::transport(), S::transport());
    let (id, addr) = listen(&mut listener, LOOPBACK).await;
    let open = connect(&mut dialler, &mut listener, addr.clone(), PortUse::New).await;
    assert!(listener.remove_listener(id));
    match next(&mut listener).await {
        TransportEvent::ListenerClosed { listener_id, reason } => {
            assert_eq!(listener_id, id);
            reason.unwrap();
        }
        event => panic!("instead of the end: {event:?}"),
    }
    let polled = futures::poll!(poll_fn(|cx| Pin::new(&mut listener).poll(cx)));
    assert!(polled.is_pending(), "{polled:?} after the end");
    assert!(!listener.remove_listener(id));
    let refused = within(dialler.dial(addr, opts(PortUse::New)).unwrap().boxed()).await;
    assert_eq!(refused.err().unwrap().kind(), io::ErrorKind::ConnectionRefused);
    echo(open.dialled, open.accepted).await;
}

pub async fn an_unknown_listener_is_not_removed<S: Subject>() {
    let mut transport = S::transport();
    assert!(!transport.remove_listener(ListenerId::next()));
    let _listening = listen(&mut transport, LOOPBACK).await;
    assert!(!transport.remove_listener(ListenerId::next()));
}

pub async fn a_peer_id_at_the_end_is_accepted<S: Subject>() {
    let (mut dialler, mut listener) = (S::transport(), S::transport());
    let (_, addr) = listen(&mut listener, &format!("{LOOPBACK}{PEER}")).await;
    let addr = format!("{addr}{PEER}").parse().unwrap();
    let connection = connect(&mut dialler, &mut listener, addr, PortUse::New).await;
    echo(connection.dialled, connection.accepted).await;
}

pub async fn foreign_addresses_are_given_back<S: Subject>() {
    let foreign = [
        "".to_owned(),
        "/ip4/127.0.0.1".to_owned(),
        "/tcp/4001".to_owned(),
        "/ip4/127.0.0.1/udp/4001".to_owned(),
        "/ip4/127.0.0.1/udp/4001/quic-v1".to_owned(),
        "/ip4/127.0.0.1/tcp/4001/ws".to_owned(),
        "/ip4/127.0.0.1/tcp/4001/tcp/4002".to_owned(),
        "/dns4/localhost/tcp/4001".to_owned(),
        "/memory/4001".to_owned(),
        format!("/ip4/127.0.0.1/tcp/4001{PEER}/p2p-circuit"),
    ];
    let mut transport = S::transport();
    for addr in foreign {
        let addr: Multiaddr = addr.parse().unwrap();
        match transport.dial(addr.clone(), opts(PortUse::New)) {
            Err(TransportError::MultiaddrNotSupported(back)) => assert_eq!(back, addr),
            Err(TransportError::Other(error)) => panic!("{addr}: {error}"),
            Ok(_) => panic!("{addr} can be dialled"),
        }
        match transport.listen_on(ListenerId::next(), addr.clone()) {
            Err(TransportError::MultiaddrNotSupported(back)) => assert_eq!(back, addr),
            other => panic!("listening on {addr}: {other:?}"),
        }
    }
}

pub async fn nobody_can_be_dialled_at_an_unspecified_address<S: Subject>() {
    let mut transport = S::transport();
    for addr in ["/ip4/0.0.0.0/tcp/4001", "/ip6/::/tcp/4001", "/ip4/127.0.0.1/tcp/0", "/ip6/::1/tcp/0"] {
        let refused = transport.dial(addr.parse().unwrap(), opts(PortUse::New));
        assert!(matches!(refused, Err(TransportError::MultiaddrNotSupported(_))), "{addr} can be dialled");
    }
}

pub async fn a_refused_connection_says_so<S: Subject>() {
    // Bound and not listening: nobody else gets this port, and nobody answers.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    let port = socket.local_addr().unwrap().as_socket().unwrap().port();
    let addr = format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap();
    let refused = within(S::transport().dial(addr, opts(PortUse::New)).unwrap().boxed()).await;
    assert_eq!(refused.err().unwrap().kind(), io::ErrorKind::ConnectionRefused);
}

pub async fn a_port_that_is_taken_cannot_be_listened_on<S: Subject>() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let addr = format!("/ip4/127.0.0.1/tcp/{}", taken.local_addr().unwrap().port()).parse().unwrap();
    match S::transport().listen_on(ListenerId::next(), addr) {
        Err(TransportError::Other(error)) => assert_eq!(error.kind(), io::ErrorKind::AddrInUse),
        other => panic!("a port that is taken: {other:?}"),
    }
}

/// A listener outside of the transport, and its address.
fn remote() -> (Async<TcpListener>, Multiaddr) {
    let remote = Async::<TcpListener>::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = remote.get_ref().local_addr().unwrap().port();
    (remote, format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap())
}

pub async fn a_dial_does_nothing_before_it_is_polled<S: Subject>() {
    let (remote, addr) = remote();
    let dial = S::transport().dial(addr, opts(PortUse::New)).unwrap();
    // On loopback, a connection is established at once.
    assert_eq!(remote.get_ref().accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    drop(dial);
    assert_eq!(remote.get_ref().accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
}

pub async fn a_dropped_dial_leaves_no_connection<S: Subject>() {
    let (remote, addr) = remote();
    let mut dial = S::transport().dial(addr, opts(PortUse::New)).unwrap().boxed();
    drop(futures::poll!(&mut dial));
    let (mut accepted, _) = within(Box::pin(remote.accept())).await.unwrap();
    drop(dial);
    match within(accepted.read(&mut [0; 1])).await {
        Ok(read) => assert_eq!(read, 0),
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
    }
}

pub async fn options_hold_for_both_ends<S: Subject>() {
    for nodelay in [true, false] {
        let (mut dialler, mut listener) = (S::with_nodelay(nodelay), S::with_nodelay(nodelay));
        let (_, addr) = listen(&mut listener, LOOPBACK).await;
        let Connection { dialled, accepted, .. } = connect(&mut dialler, &mut listener, addr, PortUse::New).await;
        assert_eq!([S::nodelay(dialled), S::nodelay(accepted)], [nodelay; 2]);
    }
}
