//! The contract of [`Transport`], tested on this crate's transport alone.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
    pin::Pin,
    time::Duration,
};

use futures::{AsyncWriteExt, FutureExt, future::poll_fn};
use libp2p::{
    Multiaddr,
    core::{
        Endpoint, Transport,
        transport::{DialOpts, ListenerId, PortUse, TransportError, TransportEvent},
    },
    identity::Keypair,
    multiaddr::Protocol,
};
use libp2p_async_io::quic::{self, Error};

use crate::subject::{
    LOOPBACK, LOOPBACK_6, Libp2p, Node, Ours, Subject, config, connect, inbound, ipv6, listen, next, on_tokio, opts,
    ours, outbound, port, silent, within,
};

const PEER: &str = "/p2p/12D3KooWGzxzKZYveHXtpG6AsrUJBcWxHBFS2HsEoGTxrMLvKXtf";

fn ip(addr: &Multiaddr) -> IpAddr {
    match addr.iter().next() {
        Some(Protocol::Ip4(ip)) => ip.into(),
        Some(Protocol::Ip6(ip)) => ip.into(),
        _ => panic!("{addr} has no IP address"),
    }
}

#[test]
fn a_concrete_address_is_announced_with_its_port() {
    smol::block_on(async {
        let (mut dialler, mut listener) = (ours(), ours());
        let (_, addr) = listen(&mut listener, &format!("{LOOPBACK}{PEER}")).await;
        assert_eq!(ip(&addr), Ipv4Addr::LOCALHOST);
        assert_ne!(port(&addr), 0);
        let connected = connect(&mut dialler, &mut listener, addr.clone(), PortUse::New).await;
        assert_eq!(connected.local_addr, addr);
        assert_eq!(ip(&connected.send_back_addr), Ipv4Addr::LOCALHOST);
        assert_eq!(port(&connected.send_back_addr), connected.accepted.1.remote_addr().port());
    });
}

#[test]
fn without_an_idle_limit_connections_are_made() {
    smol::block_on(async {
        let unlimited = || quic::Transport::new(config().max_idle_timeout(Duration::ZERO));
        let (mut dialler, mut listener) = (unlimited(), unlimited());
        let (_, addr) = listen(&mut listener, LOOPBACK).await;
        connect(&mut dialler, &mut listener, addr, PortUse::New).await;
    });
}

async fn wildcard(addr: &str, loopback: IpAddr) {
    let (mut dialler, mut listener) = (ours(), ours());
    let id = ListenerId::next();
    listener.listen_on(id, addr.parse().unwrap()).unwrap();
    let mut announced = BTreeSet::new();
    let local = loop {
        let addr = next(&mut listener).await.into_new_address().unwrap();
        assert!(!ip(&addr).is_unspecified(), "{addr} is no address to dial");
        assert_eq!(ip(&addr).is_ipv4(), loopback.is_ipv4(), "{addr} is of the other IP version");
        assert!(announced.insert(addr.clone()), "{addr} came twice");
        if ip(&addr) == loopback {
            break addr;
        }
    };
    let connected = connect(&mut dialler, &mut listener, local.clone(), PortUse::New).await;
    assert_eq!(connected.local_addr, local);
}

#[test]
fn a_wildcard_is_announced_for_each_ipv4_address() {
    smol::block_on(wildcard("/ip4/0.0.0.0/udp/0/quic-v1", Ipv4Addr::LOCALHOST.into()));
}

#[test]
fn a_wildcard_is_announced_for_each_ipv6_address() {
    if ipv6() {
        smol::block_on(wildcard("/ip6/::/udp/0/quic-v1", Ipv6Addr::LOCALHOST.into()));
    }
}

#[test]
fn libp2p_announces_the_same_addresses_for_a_wildcard() {
    async fn grow(listener: &mut Node, found: &mut BTreeSet<IpAddr>) {
        assert!(found.insert(ip(&next(listener).await.into_new_address().unwrap())));
    }
    on_tokio(async {
        let keypair = Keypair::generate_ed25519();
        let (mut ours, mut libp2p) = (Ours::node(&keypair, 8), Libp2p::node(&keypair, 8));
        ours.listen_on(ListenerId::next(), "/ip4/0.0.0.0/udp/0/quic-v1".parse().unwrap()).unwrap();
        libp2p.listen_on(ListenerId::next(), "/ip4/0.0.0.0/udp/0/quic-v1".parse().unwrap()).unwrap();
        let (mut by_ours, mut by_libp2p) = (BTreeSet::new(), BTreeSet::new());
        // The node that has fallen behind has events.
        while by_ours.is_empty() || by_ours != by_libp2p {
            if by_ours.len() <= by_libp2p.len() {
                grow(&mut ours, &mut by_ours).await;
            } else {
                grow(&mut libp2p, &mut by_libp2p).await;
            }
        }
    });
}

#[test]
fn two_listeners_are_told_apart() {
    smol::block_on(async {
        let (mut dialler, mut listener) = (ours(), ours());
        let (one, one_addr) = listen(&mut listener, LOOPBACK).await;
        let (other, other_addr) = listen(&mut listener, LOOPBACK).await;
        assert_ne!(one_addr, other_addr);
        for (id, addr) in [(other, other_addr), (one, one_addr)] {
            let dial = dialler.dial(addr.clone(), opts(PortUse::New)).unwrap();
            let accept = async {
                let TransportEvent::Incoming { listener_id, local_addr, upgrade, .. } = next(&mut listener).await
                else {
                    panic!("something else than a connection");
                };
                assert_eq!((listener_id, local_addr), (id, addr));
                upgrade.await.unwrap()
            };
            let (dialled, _) = within(futures::future::join(dial, accept)).await;
            dialled.unwrap();
        }
    });
}

#[test]
fn both_ip_versions_can_have_the_same_port() {
    if !ipv6() {
        return;
    }
    smol::block_on(async {
        let mut listener = ours();
        let (_, addr) = listen(&mut listener, "/ip6/::/udp/0/quic-v1").await;
        let v4 = format!("/ip4/0.0.0.0/udp/{}/quic-v1", port(&addr)).parse().unwrap();
        match listener.listen_on(ListenerId::next(), v4) {
            Ok(()) => {}
            // Unless somebody else has it.
            Err(error) => {
                UdpSocket::bind(("0.0.0.0", port(&addr))).expect_err(&format!("nobody has it, and still: {error}"));
            }
        }
    });
}

#[test]
fn reuse_dials_from_the_listening_port() {
    smol::block_on(async {
        for (own, addr) in [(LOOPBACK, LOOPBACK), ("/ip4/0.0.0.0/udp/0/quic-v1", LOOPBACK)] {
            let (mut dialler, mut listener) = (ours(), ours());
            let (_, own) = listen(&mut dialler, own).await;
            let (_, addr) = listen(&mut listener, addr).await;
            // Also more than once to the same remote.
            let first = connect(&mut dialler, &mut listener, addr.clone(), PortUse::Reuse).await;
            let second = connect(&mut dialler, &mut listener, addr.clone(), PortUse::Reuse).await;
            assert_eq!(port(&first.send_back_addr), port(&own));
            assert_eq!(port(&second.send_back_addr), port(&own));
            let new = connect(&mut dialler, &mut listener, addr, PortUse::New).await;
            assert_ne!(port(&new.send_back_addr), port(&own));
            // Where the connection came from can be dialled.
            connect(&mut listener, &mut dialler, first.send_back_addr, PortUse::New).await;
        }
    });
}

#[test]
fn reuse_without_a_listener_shares_one_port() {
    smol::block_on(async {
        let (mut dialler, mut listener) = (ours(), ours());
        let (_, addr) = listen(&mut listener, LOOPBACK).await;
        let first = connect(&mut dialler, &mut listener, addr.clone(), PortUse::Reuse).await;
        let second = connect(&mut dialler, &mut listener, addr.clone(), PortUse::Reuse).await;
        assert_eq!(port(&first.send_back_addr), port(&second.send_back_addr));
        // A listener takes over.
        let (_, own) = listen(&mut dialler, LOOPBACK).await;
        let third = connect(&mut dialler, &mut listener, addr, PortUse::Reuse).await;
        assert_eq!(port(&third.send_back_addr), port(&own));
        // The connections from before stay.
        let (mut one, mut other) = (first.dialled.1, first.accepted.1);
        outbound(&mut one).await.unwrap().close().await.unwrap();
        inbound(&mut other).await.unwrap();
    });
}

#[test]
fn a_listener_of_the_other_ip_version_is_not_dialled_from() {
    if !ipv6() {
        return;
    }
    smol::block_on(async {
        let (mut dialler, mut listener) = (ours(), ours());
        let (_, own) = listen(&mut dialler, LOOPBACK).await;
        let (_, addr) = listen(&mut listener, LOOPBACK_6).await;
        let connected = connect(&mut dialler, &mut listener, addr, PortUse::Reuse).await;
        assert_eq!(ip(&connected.send_back_addr), Ipv6Addr::LOCALHOST);
        assert_ne!(connected.send_back_addr, own);
    });
}

#[test]
fn an_own_address_can_be_dialled() {
    smol::block_on(async {
        let mut transport = ours();
        let (_, addr) = listen(&mut transport, LOOPBACK).await;
        let dial = transport.dial(addr, opts(PortUse::Reuse)).unwrap();
        let accept = async {
            let (upgrade, _) = next(&mut transport).await.into_incoming().unwrap();
            upgrade.await.unwrap()
        };
        let (dialled, accepted) = within(futures::future::join(dial, accept)).await;
        assert_eq!(dialled.unwrap().0, accepted.0);
    });
}

#[test]
fn foreign_addresses_are_given_back() {
    let foreign = [
        "".to_owned(),
        "/ip4/127.0.0.1".to_owned(),
        "/ip4/127.0.0.1/tcp/4001".to_owned(),
        "/ip4/127.0.0.1/udp/4001".to_owned(),
        "/ip4/127.0.0.1/udp/4001/quic".to_owned(),
        "/dns4/localhost/udp/4001/quic-v1".to_owned(),
        format!("/ip4/127.0.0.1/udp/4001/quic-v1{PEER}/p2p-circuit"),
    ];
    let mut transport = ours();
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

#[test]
fn nobody_can_be_dialled_at_an_unspecified_address() {
    let mut transport = ours();
    for addr in ["/ip4/0.0.0.0/udp/4001/quic-v1", "/ip6/::/udp/4001/quic-v1", "/ip4/127.0.0.1/udp/0/quic-v1"] {
        let refused = transport.dial(addr.parse().unwrap(), opts(PortUse::New));
        assert!(matches!(refused, Err(TransportError::MultiaddrNotSupported(_))), "{addr} can be dialled");
    }
}

#[test]
fn holes_are_not_punched() {
    let (_remote, addr) = silent();
    for port_use in [PortUse::New, PortUse::Reuse] {
        let refused = ours().dial(addr.clone(), DialOpts { role: Endpoint::Listener, port_use });
        assert!(matches!(refused, Err(TransportError::Other(Error::HolePunching))));
    }
}

#[test]
fn a_port_that_is_taken_cannot_be_listened_on() {
    let taken = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let addr = format!("/ip4/127.0.0.1/udp/{port}/quic-v1").parse().unwrap();
    match ours().listen_on(ListenerId::next(), addr) {
        Err(TransportError::Other(Error::Io(error))) => assert_eq!(error.kind(), io::ErrorKind::AddrInUse),
        other => panic!("a port that is taken: {other:?}"),
    }
}

#[test]
fn an_unknown_listener_is_not_removed() {
    smol::block_on(async {
        let mut transport = ours();
        assert!(!transport.remove_listener(ListenerId::next()));
        let _listening = listen(&mut transport, LOOPBACK).await;
        assert!(!transport.remove_listener(ListenerId::next()));
        assert!(poll_fn(|cx| Pin::new(&mut transport).poll(cx)).now_or_never().is_none());
    });
}

#[test]
fn removing_wakes_whoever_waits() {
    smol::block_on(async {
        let mut transport = ours();
        let (id, _) = listen(&mut transport, LOOPBACK).await;
        let (mut polled, mut removed) = (false, false);
        let closed = poll_fn(|cx| {
            let event = Pin::new(&mut transport).poll(cx);
            if polled && !removed {
                removed = transport.remove_listener(id);
            } else if !polled {
                polled = true;
                // Back here once, and from then on only if the listener says so.
                cx.waker().wake_by_ref();
            }
            event
        });
        assert!(matches!(within(closed).await, TransportEvent::ListenerClosed { reason: Ok(()), .. }));
    });
}
