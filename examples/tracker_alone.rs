//! The tracker without Kadence's driver: a loop that passes kad's events to the tracker and carries out its actions,
//! for one kind of request. `cargo run -p kadence-tests --example tracker_alone`
//!
//! A complete driver handles all actions, and repeats `finish` as the documentation of `Action::Finish` says.

use std::{
    error::Error,
    time::{Duration, Instant},
};

use futures::{FutureExt, StreamExt, select};
use kadence::{
    libp2p::{
        Multiaddr, PeerId, Swarm, Transport,
        core::{transport::MemoryTransport, upgrade::Version},
        identity::Keypair,
        kad::{
            self, Mode, Record, RecordKey,
            store::{MemoryStore, RecordStore},
        },
        noise,
        swarm::{self, SwarmEvent},
        yamux,
    },
    tracker::{
        Action, Command, Operation, Outcome, Policy, Progress, Query, QueryEvent, QueryTracker, Request, RequestId,
        RequestOptions, Started, TrackerConfig,
    },
};
use smol::Timer;

type Kad = kad::Behaviour<MemoryStore>;

fn swarm() -> Result<Swarm<Kad>, Box<dyn Error>> {
    let keypair = Keypair::generate_ed25519();
    let local_peer = PeerId::from(keypair.public());
    let transport = MemoryTransport::new()
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(&keypair)?)
        .multiplex(yamux::Config::default())
        .timeout(Duration::from_secs(10))
        .boxed();
    let kad = Kad::new(local_peer, MemoryStore::new(local_peer));
    Ok(Swarm::new(transport, kad, local_peer, swarm::Config::without_executor()))
}

async fn run() -> Result<(), Box<dyn Error>> {
    let key = RecordKey::new(b"greeting");

    // A node that has a record.
    let mut other = swarm()?;
    other.behaviour_mut().set_mode(Some(Mode::Server));
    other.behaviour_mut().store_mut().put(Record::new(key.clone(), b"hello".to_vec()))?;
    other.listen_on("/memory/0".parse()?)?;
    let address: Multiaddr = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = other.select_next_some().await {
            break address;
        }
    };

    // A node that gets it.
    let mut swarm = swarm()?;
    swarm.behaviour_mut().add_address(other.local_peer_id(), address);
    let mut tracker = QueryTracker::new(*swarm.local_peer_id(), TrackerConfig::default());
    let operation = Operation::GetRecord { key, policy: Policy::First };
    let request = Request { id: RequestId(1), operation, options: RequestOptions::default() };
    tracker.handle_command(Command::Request(request), Instant::now())?;

    loop {
        // Carry out the actions of the tracker.
        while let Some(action) = tracker.poll_action() {
            match action {
                Action::Start { step, query: Query::GetRecord { key }, .. } => {
                    let id = swarm.behaviour_mut().get_record(key);
                    tracker.handle_started(step, Ok(Started { id, had_provider: false }), Instant::now());
                }
                Action::Finish(id) => {
                    if let Some(mut query) = swarm.behaviour_mut().query_mut(&id) {
                        query.finish();
                    }
                }
                Action::Outcome { outcome: Outcome::GetRecord(result), .. } => {
                    println!("{:?}", String::from_utf8_lossy(result?.value()));
                    return Ok(());
                }
                other => return Err(format!("unexpected action of a get: {other:?}").into()),
            }
        }
        // Wait for an event or for the next deadline of the tracker.
        let timer = tracker.poll_timeout().map_or_else(Timer::never, Timer::at);
        let mut timer = FutureExt::fuse(timer);
        select! {
            event = swarm.select_next_some() => {
                if let SwarmEvent::Behaviour(kad::Event::OutboundQueryProgressed { id, result, stats, step }) = event
                    && tracker.owns(&id)
                {
                    let event = QueryEvent { id, result, progress: Progress::from(&stats), last: step.last };
                    tracker.handle_event(event, Instant::now());
                }
            }
            _ = other.select_next_some() => {}
            _ = timer => tracker.handle_timeout(Instant::now()),
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    smol::block_on(run())
}
