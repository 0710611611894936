//! This crate's transport and libp2p's with each other.

use std::collections::BTreeSet;

use futures::{
    StreamExt,
    future::{join, select},
};
use libp2p::{
    Multiaddr, PeerId, Swarm,
    core::{
        Transport,
        muxing::StreamMuxerBox,
        transport::{Boxed, ListenerId, PortUse, TransportEvent},
        upgrade::Version,
    },
    identity::Keypair,
    noise, ping,
    swarm::{self, SwarmEvent},
    yamux,
};
use libp2p_async_io::dns;

use crate::{
    streams::echo,
    subject::{Libp2p, Ours, Stream, Subject, connect, ipv6, listen, next, opts, within},
};

/// Dials in both directions. libp2p's transport needs tokio; the other one runs anywhere.
fn both_ways(addr: &'static str) {
    async fn one_way<D: Subject, L: Subject>(addr: &str) {
        let (mut dialler, mut listener) = (D::transport(), L::transport());
        let (_, addr) = listen(&mut listener, addr).await;
        let connection = connect(&mut dialler, &mut listener, addr, PortUse::Reuse).await;
        echo(connection.dialled, connection.accepted).await;
    }
    Libp2p::block_on(async {
        one_way::<Ours, Libp2p>(addr).await;
        one_way::<Libp2p, Ours>(addr).await;
    });
}

#[test]
fn over_ipv4() {
    both_ways("/ip4/127.0.0.1/tcp/0");
}

#[test]
fn over_ipv6() {
    if ipv6() {
        both_ways("/ip6/::1/tcp/0");
    }
}

/// Returns the address with a name in place of the IP address.
fn named(addr: &Multiaddr, name: &str) -> Multiaddr {
    let port = addr.to_string().rsplit('/').next().unwrap().to_owned();
    format!("{name}/tcp/{port}").parse().unwrap()
}

#[test]
fn by_the_name_of_the_machine() {
    Libp2p::block_on(async {
        for name in ["/dns4/localhost", "/dns/localhost"] {
            let (mut dialler, mut listener) = (dns::Transport::system(Ours::transport()), Libp2p::transport());
            let (_, addr) = listen(&mut listener, "/ip4/127.0.0.1/tcp/0").await;
            let connection = connect(&mut dialler, &mut listener, named(&addr, name), PortUse::New).await;
            echo(connection.dialled, connection.accepted).await;
        }
    });
}

#[test]
fn names_change_nothing_about_listening() {
    Libp2p::block_on(async {
        let (mut dialler, mut listener) = (Libp2p::transport(), dns::Transport::system(Ours::transport()));
        let (id, addr) = listen(&mut listener, "/ip4/127.0.0.1/tcp/0").await;
        let connection = connect(&mut dialler, &mut listener, addr, PortUse::New).await;
        echo(connection.dialled, connection.accepted).await;
        assert!(listener.remove_listener(id));
        assert!(matches!(next(&mut listener).await, TransportEvent::ListenerClosed { reason: Ok(()), .. }));
    });
}

#[test]
fn both_announce_the_same_addresses_for_a_wildcard() {
    async fn grow<S: Subject>(listener: &mut S::Transport, found: &mut BTreeSet<String>) {
        match next(listener).await {
            TransportEvent::NewAddress { listen_addr, .. } => {
                assert!(found.insert(listen_addr.to_string().rsplit_once('/').unwrap().0.to_owned()));
            }
            event => panic!("instead of an address: {event:?}"),
        }
    }
    Libp2p::block_on(async {
        let (mut ours, mut libp2p) = (Ours::transport(), Libp2p::transport());
        ours.listen_on(ListenerId::next(), "/ip4/0.0.0.0/tcp/0".parse().unwrap()).unwrap();
        libp2p.listen_on(ListenerId::next(), "/ip4/0.0.0.0/tcp/0".parse().unwrap()).unwrap();
        let (mut by_ours, mut by_libp2p) = (BTreeSet::new(), BTreeSet::new());
        // The node that has fallen behind has events.
        while by_ours.is_empty() || by_ours != by_libp2p {
            if by_ours.len() <= by_libp2p.len() {
                grow::<Ours>(&mut ours, &mut by_ours).await;
            } else {
                grow::<Libp2p>(&mut libp2p, &mut by_libp2p).await;
            }
        }
    });
}

fn upgraded<T>(transport: T, keypair: &Keypair) -> Boxed<(PeerId, StreamMuxerBox)>
where
    T: Transport<Output: Stream, Dial: Send, ListenerUpgrade: Send, Error: Send + Sync> + Send + Unpin + 'static,
{
    transport
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(keypair).unwrap())
        .multiplex(yamux::Config::default())
        .boxed()
}

type Pings = Swarm<ping::Behaviour>;

fn swarm<S: Subject>(transport: impl FnOnce(&Keypair) -> Boxed<(PeerId, StreamMuxerBox)>) -> Pings {
    let keypair = Keypair::generate_ed25519();
    let config = swarm::Config::with_executor(S::spawn);
    Swarm::new(transport(&keypair), ping::Behaviour::default(), keypair.public().to_peer_id(), config)
}

/// Lets one swarm dial the other by `name`, and waits until a ping is answered.
async fn ping(mut dialler: Pings, mut listener: Pings, name: &str) {
    listener.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
    let addr = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = within(listener.select_next_some()).await {
            break address;
        }
    };
    let peer = *listener.local_peer_id();
    dialler.dial(named(&addr, name).with_p2p(peer).unwrap()).unwrap();
    let answered = async {
        loop {
            match dialler.select_next_some().await {
                SwarmEvent::Behaviour(ping::Event { peer: from, result, .. }) => {
                    assert_eq!(from, peer);
                    return result.unwrap();
                }
                SwarmEvent::OutgoingConnectionError { error, .. } => panic!("{error}"),
                _ => {}
            }
        }
    };
    let serve = async {
        loop {
            listener.select_next_some().await;
        }
    };
    within(select(Box::pin(answered), Box::pin(serve))).await;
}

fn ours<Runtime: Subject>() -> Pings {
    swarm::<Runtime>(|keypair| upgraded(dns::Transport::system(Ours::transport()), keypair))
}

#[test]
fn swarms_ping_each_other_through_noise_and_yamux() {
    Libp2p::block_on(async {
        let libp2p = || swarm::<Libp2p>(|keypair| upgraded(Libp2p::transport(), keypair));
        ping(ours::<Libp2p>(), libp2p(), "/dns4/localhost").await;
        ping(libp2p(), ours::<Libp2p>(), "/ip4/127.0.0.1").await;
    });
}

#[test]
fn swarms_need_no_tokio() {
    Ours::block_on(ping(ours::<Ours>(), ours::<Ours>(), "/dns4/localhost"));
}

/// A difference from libp2p: from the same port to the same port, the socket would connect to itself.
#[test]
fn an_own_address_is_reached_through_the_listener() {
    Ours::block_on(async {
        let mut transport = Ours::transport();
        let (_, addr) = listen(&mut transport, "/ip4/127.0.0.1/tcp/0").await;
        let dial = transport.dial(addr, opts(PortUse::Reuse)).unwrap();
        let (dialled, event) = within(Box::pin(join(dial, next(&mut transport)))).await;
        let (accepted, _) = event.into_incoming().unwrap();
        echo(dialled.unwrap(), accepted.await.unwrap()).await;
    });
}

#[test]
fn libp2p_websocket_goes_over_it() {
    Ours::block_on(async {
        let websocket = || libp2p_websocket::Config::new(dns::Transport::system(Ours::transport()));
        let (mut dialler, mut listener) = (websocket(), websocket());
        let (_, addr) = listen(&mut listener, "/ip4/127.0.0.1/tcp/0/ws").await;
        let connection = connect(&mut dialler, &mut listener, addr, PortUse::New).await;
        echo(connection.dialled, connection.accepted).await;
    });
}
