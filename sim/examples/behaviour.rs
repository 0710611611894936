//! A swarm with a behaviour of its own in virtual time: two peers ping each other, one of them over a link that loses
//! every fifth packet.

use std::{error::Error, time::Duration};

use futures::{FutureExt, StreamExt, channel::mpsc};
use kadence_sim::{
    Host, Latency, Link, PORT, WorldConfig,
    kadence::Runtime,
    libp2p::{Multiaddr, identity::Keypair, ping, swarm::SwarmEvent},
    run,
};

type AnyError = Box<dyn Error + Send + Sync>;

/// Starts a swarm on a host. Returns the round trips that it measures.
fn start(host: &Host, dial: Option<Multiaddr>) -> Result<mpsc::UnboundedReceiver<Duration>, AnyError> {
    let (measured, round_trips) = mpsc::unbounded();
    let (peer, runtime) = (Keypair::generate_ed25519().public().to_peer_id(), host.runtime());
    let behaviour = ping::Behaviour::new(ping::Config::new().with_interval(Duration::from_secs(1)));
    let mut swarm = host.swarm(peer, behaviour, Duration::MAX);
    swarm.listen_on(host.multiaddr(PORT))?;
    if let Some(address) = dial {
        swarm.dial(address)?;
    }
    let events = async move {
        while let Some(event) = swarm.next().await {
            if let SwarmEvent::Behaviour(ping::Event { result: Ok(round_trip), .. }) = event {
                let _dropped = measured.unbounded_send(round_trip);
            }
        }
    };
    runtime.spawn(events.boxed());
    Ok(round_trips)
}

fn main() -> Result<(), AnyError> {
    let config = WorldConfig::default().latency(Latency::Constant(Duration::from_millis(30)));
    let ran = run(config, |world| async move {
        let (good, bad) = (world.host(Link::default()), world.host(Link::default().loss(0.2)));
        let _listening = start(&good, None)?;
        let round_trips = start(&bad, Some(good.multiaddr(PORT)))?;
        Ok::<_, AnyError>(round_trips.take(10).collect::<Vec<_>>().await)
    });
    println!("{:?}", ran.result?);
    println!("{:?} of virtual time", ran.took);
    Ok(())
}
