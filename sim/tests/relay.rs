//! A relay that all can reach, and a node behind a NAT that is reached through it: libp2p's own behaviours, unmodified.

#![cfg(test)]

use std::time::Duration;

use futures::StreamExt;
use kadence_sim::{
    Host, Link, PORT, Reach, WorldConfig,
    kadence::Runtime,
    libp2p::{
        Multiaddr, Swarm, Transport,
        core::{muxing::StreamMuxerBox, upgrade::Version},
        identity::Keypair,
        multiaddr::Protocol,
        noise, ping, relay,
        swarm::{self, NetworkBehaviour, SwarmEvent},
        yamux,
    },
    run,
};

#[derive(NetworkBehaviour)]
#[behaviour(prelude = "kadence_sim::libp2p::swarm::derive_prelude")]
struct Client {
    relay: relay::client::Behaviour,
    ping: ping::Behaviour,
}

/// A swarm that dials and listens directly and through relays.
fn client(host: &Host) -> Swarm<Client> {
    let keypair = Keypair::generate_ed25519();
    let peer = keypair.public().to_peer_id();
    let (relayed, relay) = relay::client::new(peer);
    let relayed = relayed
        .upgrade(Version::V1)
        .authenticate(noise::Config::new(&keypair).unwrap())
        .multiplex(yamux::Config::default())
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
    let transport = relayed.or_transport(host.transport(peer)).map(|either, _| either.into_inner()).boxed();
    let runtime = host.runtime();
    let config = swarm::Config::with_executor(move |task| runtime.spawn(task))
        .with_idle_connection_timeout(Duration::from_secs(60));
    let ping = ping::Behaviour::new(ping::Config::new().with_interval(Duration::from_secs(1)));
    Swarm::new(transport, Client { relay, ping }, peer, config)
}

/// Polls a swarm on its host from now on.
fn runs<B: NetworkBehaviour<ToSwarm: Send> + Send>(host: &Host, mut swarm: Swarm<B>) {
    host.runtime().spawn(Box::pin(async move { while swarm.next().await.is_some() {} }));
}

#[test]
fn a_node_behind_a_nat_is_reached_through_a_relay_alone() {
    run(WorldConfig::default(), |world| async move {
        let keypair = Keypair::generate_ed25519();
        let (host, peer) = (world.host(Link::default()), keypair.public().to_peer_id());
        let mut server =
            host.swarm(peer, relay::Behaviour::new(peer, relay::Config::default()), Duration::from_secs(60));
        server.listen_on(host.multiaddr(PORT)).unwrap();
        server.add_external_address(host.multiaddr(PORT));
        runs(&host, server);
        let circuit = host.multiaddr(PORT).with(Protocol::P2p(peer)).with(Protocol::P2pCircuit);

        let hidden_host = world.host(Link::default().reach(Reach::Nat));
        let mut hidden = client(&hidden_host);
        let hidden_peer = *hidden.local_peer_id();
        hidden.listen_on(hidden_host.multiaddr(PORT)).unwrap();
        hidden.listen_on(circuit.clone()).unwrap();
        while !matches!(
            hidden.select_next_some().await,
            SwarmEvent::Behaviour(ClientEvent::Relay(relay::client::Event::ReservationReqAccepted { .. }))
        ) {}
        runs(&hidden_host, hidden);

        let mut caller = client(&world.host(Link::default()));
        let direct: Multiaddr = hidden_host.multiaddr(PORT).with(Protocol::P2p(hidden_peer));
        caller.dial(direct).unwrap();
        assert!(matches!(next_of(&mut caller).await, SwarmEvent::OutgoingConnectionError { .. }), "past the NAT");
        let began = world.now();
        caller.dial(circuit.with(Protocol::P2p(hidden_peer))).unwrap();
        loop {
            if let SwarmEvent::Behaviour(ClientEvent::Ping(ping::Event { peer, result: Ok(round_trip), .. })) =
                next_of(&mut caller).await
                && peer == hidden_peer
            {
                // 25 ms from each to the relay.
                assert_eq!(round_trip, Duration::from_millis(100));
                break;
            }
        }
        assert!(world.now() - began < Duration::from_secs(3), "{:?}", world.now() - began);
    });
}

/// Returns the next event that is about a connection to a named peer.
async fn next_of(swarm: &mut Swarm<Client>) -> SwarmEvent<ClientEvent> {
    loop {
        match swarm.select_next_some().await {
            SwarmEvent::Dialing { .. } | SwarmEvent::ConnectionEstablished { .. } => {}
            event => return event,
        }
    }
}
