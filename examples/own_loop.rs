//! Kadence in an application with a behaviour, a swarm and an event loop of its own: the driver takes the place of the
//! swarm in the loop. `cargo run -p kadence-tests --example own_loop`

use std::{error::Error, pin::pin, time::Duration};

use futures::StreamExt;
use kadence_tokio::{
    NodeConfig, TokioRuntime,
    kadence::{
        Client, ContainsKad, Driver, DriverConfig,
        libp2p::{
            Multiaddr, PeerId, Swarm, identify,
            identity::Keypair,
            kad::{self, Mode, Record, store::MemoryStore},
            ping,
            swarm::{self, NetworkBehaviour, SwarmEvent},
        },
        node::DEFAULT_PROTOCOL,
    },
};
use tokio::time::interval;

#[derive(NetworkBehaviour)]
struct App {
    identify: identify::Behaviour,
    kad: kad::Behaviour<MemoryStore>,
    ping: ping::Behaviour,
}

/// The only code that Kadence needs of the application.
impl ContainsKad for App {
    type Store = MemoryStore;

    fn kad(&mut self) -> &mut kad::Behaviour<MemoryStore> {
        &mut self.kad
    }

    fn try_into_kad(event: AppEvent) -> Result<kad::Event, AppEvent> {
        match event {
            AppEvent::Kad(event) => Ok(event),
            other => Err(other),
        }
    }

    fn from_kad(event: kad::Event) -> AppEvent {
        AppEvent::Kad(event)
    }
}

fn swarm() -> Result<Swarm<App>, Box<dyn Error>> {
    let keypair = Keypair::generate_ed25519();
    let local_peer = PeerId::from(keypair.public());
    let behaviour = App {
        identify: identify::Behaviour::new(identify::Config::new("/app/1".to_owned(), keypair.public())),
        kad: kad::Behaviour::with_config(local_peer, MemoryStore::new(local_peer), kad::Config::new(DEFAULT_PROTOCOL)),
        ping: ping::Behaviour::default(),
    };
    let transport = kadence_tokio::transport(&keypair)?;
    Ok(Swarm::new(transport, behaviour, local_peer, swarm::Config::with_tokio_executor()))
}

/// Uses the DHT. This needs only a client, no swarm, and can run in any task.
async fn work(client: Client) -> Result<usize, Box<dyn Error>> {
    let put = client.put_record(Record::new(b"greeting".to_vec(), b"hello".to_vec())).await?;
    let answer = client.get_record("greeting").timeout(Duration::from_secs(5)).await?;
    let value = String::from_utf8_lossy(answer.value());
    println!("stored at {} of {} peers; read {value:?}", put.acknowledged.len(), put.asked());
    Ok(put.acknowledged.len())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // Another peer.
    let listen: Vec<Multiaddr> = vec!["/ip4/127.0.0.1/tcp/0".parse()?];
    let other = kadence_tokio::node(NodeConfig::default().listen(listen).mode(Mode::Server)).await?;

    let mut swarm = swarm()?;
    for address in other.listen_addrs() {
        swarm.behaviour_mut().kad.add_address(&other.local_peer_id(), address);
    }
    let runtime = TokioRuntime::current().ok_or("no tokio runtime")?;
    let (client, _handle, mut driver) = Driver::new(swarm, runtime, DriverConfig::default());

    let mut work = pin!(work(client));
    let mut ticks = interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            // Without Kadence, this was `swarm.select_next_some()`.
            event = driver.select_next_some() => match event {
                SwarmEvent::ConnectionEstablished { peer_id, .. } => println!("connected to {peer_id}"),
                SwarmEvent::Behaviour(AppEvent::Identify(identify::Event::Received { peer_id, info, .. })) => {
                    println!("{peer_id} is {}", info.agent_version);
                    for address in info.listen_addrs {
                        driver.swarm_mut().behaviour_mut().kad.add_address(&peer_id, address);
                    }
                }
                SwarmEvent::Behaviour(AppEvent::Ping(event)) => println!("ping: {:?}", event.result),
                _ => {}
            },
            _ = ticks.tick() => println!("work of the application"),
            done = &mut work => {
                let peers = done?;
                return if peers == 1 { Ok(()) } else { Err("record should be at one peer".into()) };
            }
        }
    }
}
