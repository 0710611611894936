//! Whole nodes, with QUIC next to TCP and names around both.

use futures::{StreamExt, future::select};
use libp2p::{
    Multiaddr, Swarm, Transport,
    core::{muxing::StreamMuxerBox, upgrade::Version},
    identity::Keypair,
    noise, ping,
    swarm::{self, SwarmEvent},
    yamux,
};
use libp2p_async_io::{quic, tcp};

use crate::subject::{LOOPBACK, Libp2p, Node, Subject, on_tokio, within};

type Pings = Swarm<ping::Behaviour>;

fn swarm(node: impl FnOnce(&Keypair) -> Node, config: swarm::Config) -> Pings {
    let keypair = Keypair::generate_ed25519();
    Swarm::new(node(&keypair), ping::Behaviour::default(), keypair.public().to_peer_id(), config)
}

fn on_smol() -> swarm::Config {
    swarm::Config::with_executor(|task| smol::spawn(task).detach())
}

fn quic_and_tcp(keypair: &Keypair) -> Node {
    let tcp = tcp::Transport::default()
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(keypair).unwrap())
        .multiplex(yamux::Config::default())
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
    let quic = quic::Transport::new(quic::Config::new(keypair).unwrap())
        .map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection)));
    let both = quic.or_transport(tcp).map(|either, _| either.into_inner());
    #[cfg(feature = "dns")]
    let both = libp2p_async_io::dns::Transport::system(both);
    both.boxed()
}

async fn listening(swarm: &mut Pings, addr: &str) -> Multiaddr {
    swarm.listen_on(addr.parse().unwrap()).unwrap();
    loop {
        if let SwarmEvent::NewListenAddr { address, .. } = within(swarm.select_next_some()).await {
            return address;
        }
    }
}

/// Lets one swarm dial the other, and waits until a ping is answered.
async fn ping(mut dialler: Pings, mut listener: Pings, addr: Multiaddr) {
    let peer = *listener.local_peer_id();
    dialler.dial(addr.with_p2p(peer).unwrap()).unwrap();
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

#[test]
fn ours_need_no_tokio_around_them() {
    smol::block_on(async {
        for addr in [LOOPBACK, "/ip4/127.0.0.1/tcp/0"] {
            let (dialler, mut listener) = (swarm(quic_and_tcp, on_smol()), swarm(quic_and_tcp, on_smol()));
            let addr = listening(&mut listener, addr).await;
            ping(dialler, listener, addr).await;
        }
    });
}

#[cfg(feature = "dns")]
#[test]
fn a_name_can_stand_for_quic() {
    smol::block_on(async {
        let (dialler, mut listener) = (swarm(quic_and_tcp, on_smol()), swarm(quic_and_tcp, on_smol()));
        let addr = listening(&mut listener, LOOPBACK).await;
        let named = format!("/dns4/localhost/udp/{}/quic-v1", crate::subject::port(&addr)).parse().unwrap();
        ping(dialler, listener, named).await;
    });
}

#[test]
fn swarms_of_ours_and_of_libp2p_ping_each_other() {
    on_tokio(async {
        let libp2p = || swarm(|keypair| Libp2p::node(keypair, 256), swarm::Config::with_tokio_executor());
        let ours = || swarm(quic_and_tcp, swarm::Config::with_tokio_executor());
        for (dialler, mut listener) in [(ours(), libp2p()), (libp2p(), ours())] {
            let addr = listening(&mut listener, LOOPBACK).await;
            ping(dialler, listener, addr).await;
        }
    });
}

#[test]
fn somebody_else_than_was_dialled_is_noticed() {
    smol::block_on(async {
        let (mut dialler, mut listener) = (swarm(quic_and_tcp, on_smol()), swarm(quic_and_tcp, on_smol()));
        let addr = listening(&mut listener, LOOPBACK).await;
        let somebody_else = Keypair::generate_ed25519().public().to_peer_id();
        dialler.dial(addr.with_p2p(somebody_else).unwrap()).unwrap();
        let noticed = async {
            loop {
                if let SwarmEvent::OutgoingConnectionError { error, .. } = dialler.select_next_some().await {
                    return error;
                }
            }
        };
        let serve = async {
            loop {
                listener.select_next_some().await;
            }
        };
        match within(select(Box::pin(noticed), Box::pin(serve))).await {
            futures::future::Either::Left((swarm::DialError::WrongPeerId { .. }, _)) => {}
            futures::future::Either::Left((error, _)) => panic!("{error}"),
            futures::future::Either::Right((never, _)) => never,
        }
    });
}
